//! The work that roofs are measured by is done whole, whatever its amount.

use globe_ops::{Compute, Work, read_f32};
use globe_tests::gpu;
use pollster::block_on;

fn result(work: &Work) -> Vec<f32> {
    work.launch().unwrap();
    block_on(read_f32(work.result())).unwrap()
}

#[test]
fn a_copy_fills_as_much_as_can_be_bound() {
    // More workgroups than one dimension of a dispatch has.
    let most = gpu().max_binding_bytes as usize;
    for bytes in [16, (1 << 20) + 48, most.min(256 << 20)] {
        let work = Work::copy(bytes, gpu());
        let got = result(&work);
        assert_eq!((4 * got.len(), work.bytes), (bytes, 2.0 * bytes as f64));
        assert!(got.iter().all(|value| *value == work.written), "{bytes} bytes");
    }
}

#[test]
fn every_invocation_multiplies() {
    for groups in [1, 300] {
        let work = Work::multiply(groups, gpu());
        let got = result(&work);
        assert_eq!(got.len(), 256 * groups);
        assert!(got.iter().all(|value| *value == work.written), "{groups} workgroups");
        assert_eq!(work.flops, got.len() as f64 * 4096.0 * 32.0);
    }
}

#[test]
fn the_cpu_path_has_no_roof() {
    assert!(Work::copy(64, &Compute::cpu()).launch().is_err());
}
