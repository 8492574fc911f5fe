//! Products with packed matrices, which are most of a model's work.

use globe_ops::{Fused, Result, WeightFormat, linear, packed_linear};

use crate::rig::{Rig, Visit, Work, products};
use crate::{FFN, HIDDEN};

/// Rows: one answer, four, sixteen, and a prompt.
const ROWS: [usize; 4] = [1, 4, 16, 128];

/// Every format at every number of rows, then what is fused, then the plain product.
pub fn all(rig: &Rig, visit: Visit) {
    let shape = [FFN, HIDDEN];
    for format in [WeightFormat::Q4, WeightFormat::Q8, WeightFormat::F16] {
        let weight = rig.matrix(format, shape).expect("a small matrix fits");
        for rows in ROWS {
            let x = rig.values([rows, HIDDEN]);
            let name = format!("{}/{rows} rows", format.name());
            let work = work_of(rows, weight.size_bytes());
            rig.case(visit, ["packed_linear", &name], work, || {
                packed_linear(x.clone(), &weight, None, Fused::default())
            });
        }
    }
    fused(rig, visit);
    let (weight, bias) = (rig.values(shape), rig.values([FFN]));
    for rows in [1, 16] {
        let x = rig.values([rows, HIDDEN]);
        let work = work_of(rows, (size_of::<f32>() * FFN * HIDDEN) as u64);
        let name = format!("{rows} rows");
        rig.case(visit, ["linear", &name], work, || linear(x.clone(), &weight, &bias));
    }
}

/// Few rows wait for the weights, many for arithmetic.
fn work_of(rows: usize, weight_bytes: u64) -> Work {
    match rows {
        1..=4 => Work::Bytes(weight_bytes),
        _ => products(rows * FFN * HIDDEN),
    }
}

/// Norm, gate and up projection and SwiGLU in one kernel, as in a decode step.
fn fused(rig: &Rig, visit: Visit) {
    let weight = rig.matrix(WeightFormat::Q4, [2 * FFN, HIDDEN]).expect("a small matrix fits");
    let norm = rig.values([HIDDEN]);
    for rows in [1, 16] {
        let x = rig.values([rows, HIDDEN]);
        let call = || -> Result<_> {
            let fused = Fused { norm: Some((&norm, 1e-6)), residual: None, swiglu: true };
            packed_linear(x.clone(), &weight, None, fused)
        };
        let name = format!("norm and swiglu, q4/{rows} rows");
        let work = Work::Bytes(weight.size_bytes());
        rig.case(visit, ["packed_linear", &name], work, call);
    }
}
