//! What the tests share: devices, random values, comparison with a message worth reading.

#[cfg(not(target_family = "wasm"))]
mod golden;
#[cfg(target_family = "wasm")]
mod tab;
#[cfg(not(target_family = "wasm"))]
pub mod tiny;

#[cfg(not(target_family = "wasm"))]
pub use golden::{GOLDENS, Golden, golden_root, program};
#[cfg(not(target_family = "wasm"))]
pub use pollster::block_on;
#[cfg(target_family = "wasm")]
pub use tab::block_on;

use std::sync::OnceLock;

use globe_ops::{
    AdapterFeatures, Compute, Device, DeviceChoice, Int, PackedMatrix, Tensor, Variant,
    WeightFormat, open_device_with, read_f32, tensor_f32, tensor_i32,
};

/// Element-wise kernels: one rounding per operation, exp within a few units in the last place.
pub const ELEMENT_TOL: f32 = 2e-6;
/// Sums over up to a few thousand terms in another order.
pub const SUM_TOL: f32 = 2e-5;

/// Whether the largest sizes are tested. Not in a browser, whose software driver zeroes workgroup memory number by
/// number and would take minutes: all kernels are, at their other sizes.
pub const LARGE: bool = cfg!(not(target_family = "wasm"));

/// The adapter under test: hardware if there is any, else a software one.
///
/// # Panics
/// If there is neither: a kernel test that does not run tests nothing.
pub fn gpu() -> &'static Compute {
    static GPU: OnceLock<Compute> = OnceLock::new();
    GPU.get_or_init(|| {
        let choice = std::env::var("GLOBE_TEST_DEVICE").map_or(DeviceChoice::Auto, |name| {
            name.parse().expect("GLOBE_TEST_DEVICE is auto, gpu or software")
        });
        // The page of the browser tests asks for subgroups with every device.
        let subgroups = cfg!(target_family = "wasm");
        let granted = AdapterFeatures { subgroups, ..AdapterFeatures::default() };
        let compute = block_on(open_device_with(choice, granted)).expect("an adapter");
        assert_ne!(
            compute.device,
            Device::flex(),
            "no Vulkan adapter; on Debian: apt-get install mesa-vulkan-drivers libvulkan1"
        );
        compute
    })
}

/// The oracle's device: every op runs its default body.
pub fn oracle() -> Device {
    Device::flex()
}

/// Repeatable values, evenly spread over [-1, 1).
pub fn random(len: usize, seed: u64) -> Vec<f32> {
    // SplitMix64 (Steele, Lea, Flood 2014): short, and good enough for inputs.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..len).map(|_| (next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// A random float tensor.
pub fn random_tensor<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    tensor_f32(random(shape.iter().product(), seed), shape, device)
}

/// The nearest 16-bit floats.
pub fn round_halves(values: &[f32]) -> Vec<f32> {
    values.iter().map(|x| half::f16::from_f32(*x).to_f32()).collect()
}

/// The same, two in the bits of each number: `shape` with half its last axis.
pub fn pack_halves(values: &[f32], shape: [usize; 3], device: &Device) -> Tensor<3> {
    let bits = |x: &f32| u32::from(half::f16::from_f32(*x).to_bits());
    let words = values.chunks(2).map(|pair| f32::from_bits(bits(&pair[0]) | bits(&pair[1]) << 16));
    let [slots, heads, width] = shape;
    tensor_f32(words.collect(), [slots, heads, width / 2], device)
}

/// What [`pack_halves`] packed.
pub fn unpack_halves(words: &[f32]) -> Vec<f32> {
    let halves =
        words.iter().flat_map(|word| [word.to_bits() as u16, (word.to_bits() >> 16) as u16]);
    halves.map(|bits| half::f16::from_bits(bits).to_f32()).collect()
}

/// An index tensor.
pub fn indices<const D: usize>(
    values: &[i32],
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Int> {
    tensor_i32(values.to_vec(), shape, device)
}

/// The values of a tensor.
///
/// # Panics
/// If the device failed.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    block_on(read_f32(tensor)).expect("device reads")
}

/// Fails unless every `|got - expected| <= tolerance * max(1, max |expected|)`.
///
/// # Panics
/// With the worst position, both values and how many differ.
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths differ");
    let scale = expected.iter().fold(1.0f32, |m, x| m.max(x.abs()));
    let limit = tolerance * scale;
    let error = |i: usize| (got[i] - expected[i]).abs();
    let is_bad = |i: &usize| error(*i) > limit || error(*i).is_nan();
    let bad: Vec<usize> = (0..got.len()).filter(is_bad).collect();
    if let Some(&first) = bad.first() {
        let worst = bad.iter().copied().max_by(|a, b| error(*a).total_cmp(&error(*b)));
        let worst = worst.unwrap_or(first);
        panic!(
            "{what}: {} of {} values differ by more than {limit:.1e}; first at {first}: got {}, \
             expected {}; worst at {worst}: got {}, expected {}",
            bad.len(),
            got.len(),
            got[first],
            expected[first],
            got[worst],
            expected[worst],
        );
    }
}

/// As [`assert_close`] in units of the largest expected value, so that small values are held to the same standard.
///
/// # Panics
/// With the worst position, both values and how many differ.
#[track_caller]
pub fn assert_close_scaled(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    let scale = expected.iter().fold(f32::MIN_POSITIVE, |m, x| m.max(x.abs()));
    let scaled = |values: &[f32]| values.iter().map(|x| x / scale).collect::<Vec<_>>();
    assert_close(what, &scaled(got), &scaled(expected), tolerance);
}

/// Runs `op` on the adapter and on the oracle and compares the results.
#[track_caller]
pub fn check_op<const D: usize>(what: &str, tolerance: f32, op: impl Fn(&Device) -> Tensor<D>) {
    let expected = values(op(&oracle()));
    let got = values(op(&gpu().device));
    assert_close(what, &got, &expected, tolerance);
}

/// Gradient of `sum(f(x) * dy)` by `x`, whose values are `random(.., seed)`, by Burn's tape over the
/// default bodies on the CPU.
///
/// # Panics
/// If `x` takes no part in `f`.
pub fn gradient<const D: usize, const E: usize>(
    shape: [usize; D],
    seed: u64,
    dy: Tensor<E>,
    f: impl Fn(Tensor<D>) -> Tensor<E>,
) -> Vec<f32> {
    let device = oracle().autodiff();
    let x = random_tensor(shape, seed, &device).require_grad();
    let dy = Tensor::from_data(dy.to_data(), &device);
    let tape = (f(x.clone()) * dy).sum().backward();
    values(x.grad(&tape).expect("x takes part"))
}

/// Whether this machine lists an adapter that is not software.
pub fn has_hardware_gpu() -> bool {
    block_on(globe_ops::adapters()).iter().any(|adapter| !adapter.software)
}

/// Every choice of kernels for packed matrices that the adapter can run.
pub fn variants() -> &'static [Variant] {
    gpu().variants()
}

/// Of these one for each kernel of attention.
pub fn attention_variants() -> impl Iterator<Item = Variant> {
    let kernels = |v: &Variant| matches!(v, Variant::Lanes | Variant::Quads | Variant::Teams);
    variants().iter().copied().filter(kernels)
}

/// A packed matrix of `values: [rows, cols]`, as near to them as the format allows.
///
/// # Panics
/// If the values do not suit the format.
pub fn packed(
    values: &[f32],
    rows: usize,
    cols: usize,
    format: WeightFormat,
    compute: &Compute,
) -> PackedMatrix {
    packed_in_parts(values, rows, cols, format, compute)
}

/// The same in parts of at most `part_rows` rows.
///
/// # Panics
/// If the values do not suit the format.
pub fn packed_in_parts(
    values: &[f32],
    part_rows: usize,
    cols: usize,
    format: WeightFormat,
    compute: &Compute,
) -> PackedMatrix {
    let mut matrix = PackedMatrix::new(format, cols, compute);
    for part in values.chunks(part_rows * cols) {
        let rows = part.len() / cols;
        let (words, scales) = pack(part, rows, cols, format);
        matrix
            .push_part(rows, words.into(), scales.into(), compute)
            .expect("the bytes of whole rows");
    }
    matrix
}

fn pack(values: &[f32], rows: usize, cols: usize, format: WeightFormat) -> (Vec<u8>, Vec<u8>) {
    use globe_format::WeightFormat as Stored;
    let stored = match format {
        WeightFormat::Q4 => Stored::Q4,
        WeightFormat::Q8 => Stored::Q8,
        WeightFormat::F16 => Stored::F16,
        WeightFormat::F32 => Stored::F32,
        WeightFormat::Bf16 => {
            let width = cols.next_multiple_of(globe_ops::BLOCK);
            let mut words = Vec::new();
            for row in values.chunks(cols) {
                words.extend(row.iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()));
                words.resize(words.len() + 2 * (width - cols), 0);
            }
            return (words, Vec::new());
        }
    };
    let packed = globe_format::quantize(stored, values, rows, cols).expect("values in range");
    let words = packed.words.iter().flat_map(|w| w.to_le_bytes()).collect();
    (words, packed.scales.iter().flat_map(|s| s.to_le_bytes()).collect())
}
