//! The norm of all gradients together.

/// Root of the sum of squares over all gradients, summed in f64. NaN or infinite if any value is.
pub fn global_norm<'a>(gradients: impl IntoIterator<Item = &'a [f32]>) -> f64 {
    let square = |g: &f32| f64::from(*g) * f64::from(*g);
    gradients.into_iter().flatten().map(square).sum::<f64>().sqrt()
}

/// The factor that brings a norm of `norm` down to `max_norm`: at most 1, as in torch's
/// `clip_grad_norm_`. `max_norm` 0 means no clipping.
pub fn clip_by_norm(norm: f64, max_norm: f64) -> f32 {
    if max_norm == 0.0 {
        return 1.0;
    }
    (max_norm / (norm + 1e-6)).min(1.0) as f32
}
