//! Every hot kernel, forward and backward, at the sizes of the shape `0.5b` of `globe bench`: what
//! `benches/main.rs` measures, and what a test runs once.

mod attention;
mod backward;
mod forward;
mod linear;
mod rig;

pub use rig::{Case, Rig, Visit, Work};

/// Values per token between layers.
const HIDDEN: usize = 896;
/// Values per token within an MLP.
const FFN: usize = 4864;
/// Query heads, heads of keys and values, values per head.
const HEADS: [usize; 3] = [14, 2, 64];
/// Tokens that there are.
const VOCAB: usize = 32_000;
/// Tokens of a prompt.
const TOKENS: usize = 256;

/// Shows all cases to `visit`, one after the other: each holds its tensors no longer than that.
pub fn all(rig: &Rig, visit: Visit) {
    linear::all(rig, visit);
    attention::all(rig, visit);
    forward::all(rig, visit);
    backward::all(rig, visit);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use globe_ops::DeviceChoice;

    use super::*;

    #[test]
    fn every_case_runs_and_has_a_name_of_its_own() {
        let rig = match Rig::open(DeviceChoice::Auto) {
            Ok(rig) => rig,
            Err(error) => {
                let required = std::env::var("GLOBE_REQUIRE_GPU").is_ok_and(|value| value == "1");
                assert!(!required, "{error}");
                println!("skipped: {error}");
                return;
            }
        };
        let (mut names, mut ops) = (BTreeSet::new(), BTreeSet::new());
        all(&rig, &mut |case| {
            let name = format!("{}/{}", case.group, case.name);
            (case.call)().and_then(|()| rig.wait()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(!matches!(case.work, Work::Bytes(0) | Work::Products(0)), "{name}");
            ops.insert(case.group.to_string());
            assert!(names.insert(name.clone()), "{name} twice");
        });
        for op in ["packed_linear", "attention_step", "sample", "attention_backward", "adamw"] {
            assert!(ops.contains(op), "{op}");
        }
    }
}
