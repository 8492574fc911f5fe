#![allow(missing_docs, unused_variables, clippy::all)]
use crate::{Result, tensor_f32};
use burn::tensor::{Int, Tensor};
fn mask(ranges: &Tensor<2, Int>, prefix: usize, keys: usize) -> Tensor<2> {
    let [tokens, _] = ranges.dims();
    let r: Vec<i32> = ranges.to_data().try_into_vec::<i32>().unwrap();
    let mut m = vec![0.0; tokens * keys];
    for t in 0..tokens {
        for k in 0..keys {
            let (a, b) = (r[2 * t] as usize, r[2 * t + 1] as usize);
            if (k >= a && k < b) || k < prefix.min(a) {
                m[t * keys + k] = 1.0;
            }
        }
    }
    tensor_f32(m, [tokens, keys], &ranges.device())
}
fn probs(
    q: &Tensor<3>,
    k: &Tensor<3>,
    ranges: &Tensor<2, Int>,
    prefix: usize,
    scale: f32,
) -> (Tensor<3>, Tensor<3>, Tensor<3>) {
    let [t, h, d] = q.dims();
    let [n, kv, _] = k.dims();
    let g = h / kv;
    let kk = k.clone().reshape([n, kv, 1, d]).repeat_dim(2, g).reshape([n, h, d]).swap_dims(0, 1);
    let qq = q.clone().swap_dims(0, 1);
    let m = mask(ranges, prefix, n).reshape([1, t, n]);
    let s = qq.matmul(kk.clone().swap_dims(1, 2)) * scale + (m.clone() - 1.0) * 1e30;
    let mx = s.clone().max_dim(2);
    let e = (s - mx.clone()).exp();
    let sum = e.clone().sum_dim(2);
    let lse = (sum.clone().log() + mx).swap_dims(0, 1);
    (e / sum, kk, lse)
}
pub fn attention_with_lse(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    ranges: &Tensor<2, Int>,
    prefix: usize,
    scale: f32,
) -> Result<(Tensor<3>, Tensor<2>)> {
    let [t, h, d] = q.dims();
    let [n, kv, _] = k.dims();
    let g = h / kv;
    let (p, _, lse) = probs(&q, &k, ranges, prefix, scale);
    let vv = v.reshape([n, kv, 1, d]).repeat_dim(2, g).reshape([n, h, d]).swap_dims(0, 1);
    Ok((p.matmul(vv).swap_dims(0, 1), lse.reshape([t, h])))
}
pub fn attention_backward(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    y: Tensor<3>,
    lse: Tensor<2>,
    dy: Tensor<3>,
    ranges: &Tensor<2, Int>,
    key_ranges: &Tensor<2, Int>,
    prefix: usize,
    scale: f32,
) -> Result<(Tensor<3>, Tensor<3>, Tensor<3>)> {
    let [t, h, d] = q.dims();
    let [n, kv, _] = k.dims();
    let g = h / kv;
    let (p, kk, _) = probs(&q, &k, ranges, prefix, scale);
    let vv = v.reshape([n, kv, 1, d]).repeat_dim(2, g).reshape([n, h, d]).swap_dims(0, 1);
    let dyy = dy.swap_dims(0, 1);
    let dv = p.clone().swap_dims(1, 2).matmul(dyy.clone());
    let dp = dyy.matmul(vv.swap_dims(1, 2));
    let delta = (dp.clone() * p.clone()).sum_dim(2);
    let ds = p * (dp - delta) * scale;
    let dq = ds.clone().matmul(kk).swap_dims(0, 1);
    let dk = ds.swap_dims(1, 2).matmul(q.swap_dims(0, 1));
    let fold =
        |x: Tensor<3>| x.swap_dims(0, 1).reshape([n, kv, g, d]).sum_dim(2).reshape([n, kv, d]);
    Ok((dq, fold(dk), fold(dv)))
}
