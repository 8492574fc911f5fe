use globe_ops::{Device, argmax, read_i32, tensor_f32};
use globe_tests::{gpu, oracle, random};

fn run(values: &[f32], rows: usize, device: &Device) -> Vec<i32> {
    let x = tensor_f32(values.to_vec(), [rows, values.len() / rows], device);
    pollster::block_on(read_i32(argmax(x))).unwrap()
}

#[test]
fn matches_the_oracle() {
    for (rows, dim) in [(1, 1), (1, 255), (3, 256), (7, 257), (2, 152_064)] {
        let values = random(rows * dim, 5);
        assert_eq!(
            run(&values, rows, &gpu().device),
            run(&values, rows, &oracle()),
            "argmax {rows}x{dim}"
        );
    }
}

#[test]
fn a_tie_goes_to_the_lowest_index() {
    let mut values = vec![0.0; 1000];
    for i in [999, 300, 44] {
        values[i] = 1.0;
        assert_eq!(run(&values, 1, &gpu().device), [i as i32]);
    }
}
