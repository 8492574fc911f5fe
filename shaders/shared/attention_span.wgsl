// What OWNED rows of attention walk through; `key_range` is the kernel's own.

// Keys that the rows walk through: 0 .. x, then y .. z, none twice.
fn rows_span(first_row: u32) -> vec3<u32> {
    let last_row = min(first_row + OWNED, params.tokens * params.group) - 1u;
    var shared_end = 0u;
    var own = vec2(params.keys, 0u);
    for (var token = first_row / params.group; token <= last_row / params.group; token++) {
        let range = key_range(token);
        shared_end = max(shared_end, min(params.prefix, range.x));
        if range.x < range.y {
            own = vec2(min(own.x, range.x), max(own.y, range.y));
        }
    }
    shared_end = min(shared_end, params.keys);
    return vec3(min(shared_end, own.x), own.x, max(own.x, max(own.y, shared_end)));
}
