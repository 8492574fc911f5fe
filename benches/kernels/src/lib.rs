//! Every kernel, forward and backward, at the sizes of the shape `0.5b` of `globe bench`: what
//! `benches/main.rs` measures, and what a test runs once.

mod attention;
mod backward;
mod forward;
mod linear;
mod rig;
mod roof;
mod rows;

pub use rig::{Case, Rig, Visit, Work};

/// Values per token between layers.
const HIDDEN: usize = 896;
/// Values per token within an MLP.
const FFN: usize = 4864;
/// Query heads, heads of keys and values, values per head.
const HEADS: [usize; 3] = [14, 2, 64];
/// Frequencies of a head that turn by time, by height and by width.
const SECTIONS: [usize; 3] = [8, 12, 12];
/// Tokens that there are.
const VOCAB: usize = 32_000;
/// Tokens of a prompt.
const TOKENS: usize = 256;

/// Shows all cases to `visit`, one after the other: each holds its tensors no longer than that.
pub fn all(rig: &Rig, visit: Visit) {
    linear::all(rig, visit);
    attention::all(rig, visit);
    forward::all(rig, visit);
    rows::all(rig, visit);
    backward::all(rig, visit);
    roof::all(rig, visit);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use globe_ops::{DeviceChoice, dispatch_count};

    use super::*;

    /// A case, or an op, and the kernels without an op of their own that it launches: on one adapter or
    /// another, or one after the other. Every other kernel has the name of its op.
    const LAUNCHED_BY: &[(&str, &[&str])] = &[
        ("attention", &["attention_lanes", "attention_quads"]),
        (
            "attention_backward",
            &[
                "attention_backward_dkv",
                "attention_backward_dkv_lanes",
                "attention_backward_dq",
                "attention_backward_dq_lanes",
                "attention_backward_stats",
            ],
        ),
        (
            "attention_step",
            &[
                "attention_merge",
                "attention_split",
                "attention_split_lanes",
                "attention_split_quads",
            ],
        ),
        ("linear/1 rows", &["linear_row"]),
        ("linear/16 rows", &["linear"]),
        ("linear_backward_weight", &["linear_backward_weight_lanes"]),
        (
            "packed_linear/q4/1 rows",
            &[
                "packed_linear_dot",
                "packed_linear_few",
                "packed_linear_lanes",
                "packed_linear_quad_row",
            ],
        ),
        ("packed_linear/q4/16 rows", &["packed_linear_many_lanes", "packed_linear_quads"]),
        ("packed_linear/q4/128 rows", &["packed_linear_cooperative", "packed_linear_tile"]),
        ("packed_linear_backward", &["packed_linear_backward_lanes"]),
        ("sample", &["sample_merge", "sample_parts"]),
    ];

    /// Every kernel by the name of its file; that each file is in the table is tested beside it.
    fn kernels() -> BTreeSet<String> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shaders");
        let files = std::fs::read_dir(folder).expect("the kernels are part of the repository");
        let names = files.map(|file| file.expect("it is listed").file_name());
        let kernel =
            |name: std::ffi::OsString| Some(name.to_str()?.strip_suffix(".wgsl")?.to_string());
        names.filter_map(kernel).collect()
    }

    /// The case or the op that launches a kernel.
    fn launched_by(kernel: &str) -> &str {
        let listed = LAUNCHED_BY.iter().find(|(_, kernels)| kernels.contains(&kernel));
        listed.map_or(kernel, |(case, _)| *case)
    }

    #[test]
    fn every_kernel_that_is_listed_exists() {
        let kernels = kernels();
        for kernel in LAUNCHED_BY.iter().flat_map(|(_, listed)| listed.iter()) {
            assert!(kernels.contains(*kernel), "{kernel}.wgsl is no longer there");
        }
    }

    #[test]
    fn every_kernel_has_a_case_that_runs_and_has_a_name_of_its_own() {
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
            let before = dispatch_count();
            (case.call)().and_then(|()| rig.wait()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(dispatch_count() > before, "{name} launches nothing");
            assert!(!matches!(case.work, Work::Bytes(0) | Work::Products(0)), "{name}");
            ops.insert(case.group.to_string());
            assert!(names.insert(name.clone()), "{name} twice");
        });
        let missing: Vec<_> = kernels()
            .into_iter()
            .filter(|kernel| {
                let case = launched_by(kernel);
                !names.contains(case) && !ops.contains(case)
            })
            .collect();
        assert!(missing.is_empty(), "no case launches {missing:?}");
    }
}
