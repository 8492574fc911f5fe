//! The path of `--reference`: f32 weights, plain kernels, each token chosen on the host.

use std::time::Instant;

use globe_model::Model;
use globe_ops::{Compute, dispatch_count, read_f32, tensor_i32};

use super::stats::Stats;
use super::{DecodeReport, Roof, decode_report, prompt, sure};
use crate::args::BenchArgs;
use crate::exit::{Fail, OrUsage};

/// One answer at a time: this path has no batches.
pub async fn answer(
    model: &Model,
    roof: &Roof,
    compute: &Compute,
    args: &BenchArgs,
) -> Result<DecodeReport, Fail> {
    let mut cache = model.cache(args.prompt, args.tokens, 1);
    let ids = prompt(model, args.prompt, 0);
    let (mut times, mut host, mut dispatches) = (Vec::new(), Vec::new(), 0);
    for i in 0..=args.repeats {
        let logits = model.prefill(&ids, None, &[], &mut cache).or_usage()?;
        let mut logits = read_f32(logits).await?;
        let steps = args.tokens - 1;
        let (start, mut queued) = (Instant::now(), f64::INFINITY);
        for _ in 0..steps {
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
            let id = tensor_i32(vec![best.unwrap_or(0) as i32], [1], &compute.device);
            let before = dispatch_count();
            let call = Instant::now();
            let next = model.step(id, &mut cache).or_usage()?;
            queued = queued.min(call.elapsed().as_secs_f64());
            dispatches = (dispatch_count() - before) as usize;
            logits = read_f32(next).await?;
            sure(logits.iter().all(|logit| logit.is_finite()), "the model gave no numbers")?;
        }
        if i > 0 {
            times.push(start.elapsed().as_secs_f64() / steps as f64);
            host.push(queued);
        }
    }
    let stats = [times, host].map(Stats::new);
    Ok(decode_report(model, 1, roof, compute, args, stats, dispatches))
}
