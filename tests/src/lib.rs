//! Tests across crates: kernels against their oracle, models against goldens, the command line.
