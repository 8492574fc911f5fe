//! Sums of wide workgroups, which no software adapter takes by itself and every graphics processor does.

use std::process::Command;

/// The ops whose kernels add up in workgroups, and answers that are drawn by them.
const CONCERNED: [&str; 7] = [
    "rms_norm",
    "sample::",
    "adamw::",
    "logp_gather",
    "linear_backward_weight",
    "packed_model::a_step_is_few",
    "packed_model::answers_do_not",
];

#[test]
fn every_op_that_adds_up_passes_its_tests_with_wide_workgroups() {
    for op in CONCERNED {
        let program = std::env::current_exe().unwrap();
        let output = Command::new(program).arg(op).env("GLOBE_REDUCE", "wide").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{op}: {text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains("running 0 tests"), "{op} names tests");
    }
}
