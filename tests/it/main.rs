//! One binary for all tests across crates, so that they link once.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod adamw;
mod adamw_8bit;
mod adamw_host;
mod attention;
mod attention_backward;
mod attention_step;
mod autodiff;
mod bad_input;
mod bench;
mod cli;
mod column_sums;
mod compare;
mod convert;
mod export;
mod gather_rows;
mod gelu;
mod gelu_backward;
mod golden;
mod learning;
mod linear;
mod linear_backward_weight;
mod logp_gather;
mod packed_gather;
mod packed_linear;
mod packed_linear_backward;
mod packed_model;
mod rms_norm;
mod rms_norm_backward;
mod rms_norm_backward_weight;
mod rotary;
mod rotary_split;
mod rotary_split_backward;
mod sample;
mod scatter_add_rows;
mod scatter_rows;
mod shapes;
mod silu_mul;
mod swiglu;
mod train_cli;
mod train_live;
mod train_packing;
mod train_signals;
mod training;
mod training_full;

use globe_tests::{ELEMENT_TOL, SUM_TOL, gradient};
