//! What the adapter can do at best, which the others are compared with.

use globe_ops::Work as Roof;

use crate::rig::{Rig, Visit, Work, products};

/// Bytes that are copied at once: far more than most caches hold.
const COPY_BYTES: usize = 64 << 20;
/// Workgroups of the multiplication.
const GROUPS: usize = 256;

/// Both of them.
pub fn all(rig: &Rig, visit: Visit) {
    let copy = Roof::copy(COPY_BYTES, &rig.compute);
    let work = Work::Bytes(copy.bytes as u64);
    rig.case(visit, ["bench_copy", "64 MiB"], work, || copy.launch());
    let multiply = Roof::multiply(GROUPS, &rig.compute);
    let (name, work) = (format!("{GROUPS} workgroups"), products(multiply.flops as usize / 2));
    rig.case(visit, ["bench_fma", &name], work, || multiply.launch());
}
