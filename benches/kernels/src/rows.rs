//! Rows by index: looked up, put into others, added to others.

use globe_ops::{WeightFormat, gather_rows, packed_gather, scatter_add_rows, scatter_rows, zeros};

use crate::rig::{Rig, Visit, bytes};
use crate::{HIDDEN, TOKENS, VOCAB};

/// All of them.
pub fn all(rig: &Rig, visit: Visit) {
    reorder(rig, visit);
    embed(rig, visit);
}

/// Every row once, as a tower orders patches and a prompt takes in features.
fn reorder(rig: &Rig, visit: Visit) {
    let (x, dest) = (rig.values([TOKENS, HIDDEN]), zeros([TOKENS, HIDDEN], &rig.compute.device));
    let order = rig.indices([TOKENS], (0..TOKENS).map(|i| i * 97 % TOKENS));
    let (name, work) = (format!("{TOKENS} rows"), bytes(2 * TOKENS * HIDDEN));
    rig.case(visit, ["gather_rows", &name], work, || Ok(gather_rows(&x, order.clone())));
    rig.case(visit, ["scatter_rows", &name], work, || {
        scatter_rows(dest.clone(), x.clone(), order.clone())
    });
}

/// The lookup of tokens, and its gradient.
fn embed(rig: &Rig, visit: Visit) {
    let id = |i: usize| i * 7919 % VOCAB;
    let table = rig.matrix(WeightFormat::Q4, [VOCAB, HIDDEN]).expect("it has no 128 MiB");
    let ids = rig.indices([TOKENS], (0..TOKENS).map(id));
    let name = format!("q4/{TOKENS} rows");
    rig.case(visit, ["packed_gather", &name], bytes(TOKENS * HIDDEN), || {
        Ok(packed_gather(&table, ids.clone()))
    });
    let (x, dest) = (rig.values([TOKENS, HIDDEN]), zeros([VOCAB, HIDDEN], &rig.compute.device));
    // Each token stands twice: half as many rows are read and written as are added.
    let pairs: Vec<_> = (0..TOKENS).map(|i| [i, id(i / 2)]).collect();
    let name = format!("{TOKENS} rows");
    rig.case(visit, ["scatter_add_rows", &name], bytes(2 * TOKENS * HIDDEN), || {
        scatter_add_rows(dest.clone(), x.clone(), &pairs)
    });
}
