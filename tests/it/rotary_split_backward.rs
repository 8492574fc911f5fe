use globe_ops::{Device, Int, Tensor, rotary_split, rotary_split_backward, tensor_f32, zeros};
use globe_tests::{assert_close, check_op, gpu, indices, oracle, random, random_tensor, values};

use crate::{ELEMENT_TOL, SUM_TOL};

struct Case {
    tokens: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    sections: Vec<usize>,
}

impl Case {
    /// Cosines and sines of some angles for 50 positions, and a position per token and axis.
    fn table(&self, device: &Device) -> (Tensor<2>, Tensor<2, Int>) {
        let half = self.head_dim / 2;
        // On the host: the sine of a device is not that of the oracle.
        let angles = random(50 * half, 7).into_iter().map(|x| 3.0 * x).collect::<Vec<f32>>();
        let turns = angles.chunks(half);
        let table = turns.flat_map(|row| {
            row.iter().map(|x| x.cos()).chain(row.iter().map(|x| x.sin())).collect::<Vec<f32>>()
        });
        let table = tensor_f32(table.collect(), [50, 2 * half], device);
        let axes = self.sections.len();
        let at: Vec<i32> = (0..axes * self.tokens).map(|i| (7 * i % 50) as i32).collect();
        (table, indices(&at, [axes, self.tokens], device))
    }

    fn heads(&self, n: usize, seed: u64, device: &Device) -> Tensor<3> {
        random_tensor([self.tokens, n, self.head_dim], seed, device)
    }

    fn backward(&self, device: &Device) -> Tensor<2> {
        let (table, positions) = self.table(device);
        let dq = self.heads(self.heads, 1, device);
        let [dk, dv] = [2, 3].map(|seed| self.heads(self.kv_heads, seed, device));
        rotary_split_backward(dq, dk, dv, &table, &positions, &self.sections).unwrap()
    }
}

fn cases() -> Vec<Case> {
    let case = |tokens, [heads, kv_heads, head_dim]: [usize; 3], sections: &[usize]| Case {
        tokens,
        heads,
        kv_heads,
        head_dim,
        sections: sections.to_vec(),
    };
    vec![
        case(1, [7, 1, 16], &[4, 2, 2]),
        case(65, [2, 2, 80], &[20, 20]),
        case(130, [28, 4, 128], &[16, 24, 24]),
    ]
}

#[test]
fn gradients_match_the_oracle() {
    for case in cases() {
        let what = format!("rotary_split_backward {}x{}", case.tokens, case.head_dim);
        check_op(&what, ELEMENT_TOL, |device| case.backward(device));
    }
}

/// A rotation is its own inverse transposed: the gradient of what `rotary_split` gives is its input.
#[test]
fn the_oracle_turns_back_what_rotary_split_turned() {
    for case in cases() {
        let device = oracle();
        let (table, positions) = case.table(&device);
        let width = (case.heads + 2 * case.kv_heads) * case.head_dim;
        let qkv = random_tensor([case.tokens, width], 1, &device);
        let slots: Vec<i32> = (0..case.tokens as i32).collect();
        let slots = indices(&slots, [case.tokens], &device);
        let buffer = || zeros([case.tokens, case.kv_heads, case.head_dim], &device);
        let (heads, sections) = (case.heads, &case.sections[..]);
        let (q, k, v) = rotary_split(
            qkv.clone(),
            &table,
            &positions,
            &slots,
            buffer(),
            buffer(),
            heads,
            sections,
        )
        .unwrap();
        let back = rotary_split_backward(q, k, v, &table, &positions, sections).unwrap();
        assert_close("turned back", &values(back), &values(qkv), SUM_TOL);
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let case = &cases()[0];
    let device = &gpu().device;
    let (table, positions) = case.table(device);
    let dq = case.heads(7, 1, device);
    let (dk, dv) = (case.heads(1, 2, device), case.heads(2, 3, device));
    let error = rotary_split_backward(dq, dk, dv, &table, &positions, &case.sections);
    assert!(error.unwrap_err().to_string().contains("dv"));
}
