// After a token was chosen: notes it, and moves every row on by one.
//
// places: [rows, prefix + tail start + tail length + position]. A row that chose a stop token is
// finished: from then on it notes -1 and stays where it is. Dispatch (1, 1, 1).
// Oracle: the expectations of tests/it/sample.rs.

const WG: u32 = 64u;

struct Params {
    rows: u32,
    vocab: u32,
    steps: u32, // rows of the history
    penalized: u32, // 0: `seen` is not written
    stop_0: i32, // stop tokens, -1 where there are fewer
    stop_1: i32,
    stop_2: i32,
    stop_3: i32,
}

@group(0) @binding(0) var<storage, read_write> tokens: array<i32>;       // [rows]
@group(0) @binding(1) var<storage, read_write> logp: array<f32>;         // [rows]
@group(0) @binding(2) var<storage, read_write> places: array<i32>;       // [rows, 4]
@group(0) @binding(3) var<storage, read_write> positions: array<i32>;    // [3, rows]
@group(0) @binding(4) var<storage, read_write> slots: array<i32>;        // [rows]
@group(0) @binding(5) var<storage, read_write> draws: array<i32>;        // [rows, sample + position of the draw]
@group(0) @binding(6) var<storage, read_write> history: array<i32>;      // [steps, rows, token + bits of its logp], then finished flags [rows]
@group(0) @binding(7) var<storage, read_write> seen: array<u32>;         // [rows, vocab]
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) local: u32) {
    for (var row = local; row < params.rows; row += WG) {
        let step = u32(draws[2u * row + 1u]);
        let flag = 2u * params.steps * params.rows + row;
        let finished = history[flag] != 0;
        let token = tokens[row];
        if step < params.steps {
            let at = 2u * (step * params.rows + row);
            history[at] = select(token, -1, finished);
            history[at + 1u] = bitcast<i32>(logp[row]);
        }
        draws[2u * row + 1u] = i32(step) + 1;
        if token == params.stop_0 || token == params.stop_1 || token == params.stop_2 || token == params.stop_3 {
            history[flag] = 1;
        }
        if finished {
            continue;
        }
        if params.penalized != 0u {
            seen[row * params.vocab + u32(token)] += 1u;
        }
        // The token just chosen is written where the tail ends.
        places[4u * row + 2u] += 1;
        places[4u * row + 3u] += 1;
        slots[row] = places[4u * row + 1u] + places[4u * row + 2u] - 1;
        for (var axis = 0u; axis < 3u; axis++) {
            positions[axis * params.rows + row] = places[4u * row + 3u];
        }
    }
}
