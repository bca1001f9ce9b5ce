//! The GPU tests as one program, for machines where nothing can be built: `benches/measure --pack` brings it along.
//!
//! `cargo test` leaves it out (`test = false`), since each module is a test of its own there. Shared helpers are compiled once for each; a
//! process should run one module, such as `gpu_all gpu_attend::`, since each opens the adapters for itself.

#![allow(clippy::duplicate_mod, reason = "each test brings what it shares with the others")]

#[path = "../gpu_attend.rs"]
mod gpu_attend;
#[path = "../gpu_axes.rs"]
mod gpu_axes;
#[path = "../gpu_bind.rs"]
mod gpu_bind;
#[path = "../gpu_block_ops.rs"]
mod gpu_block_ops;
#[path = "../gpu_budget.rs"]
mod gpu_budget;
#[path = "../gpu_calibrate.rs"]
mod gpu_calibrate;
#[path = "../gpu_check_matrices.rs"]
mod gpu_check_matrices;
#[path = "../gpu_combinations.rs"]
mod gpu_combinations;
#[path = "../gpu_decode.rs"]
mod gpu_decode;
#[path = "../gpu_formats.rs"]
mod gpu_formats;
#[path = "../gpu_kernel_step.rs"]
mod gpu_kernel_step;
#[path = "../gpu_kernels.rs"]
mod gpu_kernels;
#[path = "../gpu_lm.rs"]
mod gpu_lm;
#[path = "../gpu_lm_shipped.rs"]
mod gpu_lm_shipped;
#[path = "../gpu_matrix.rs"]
mod gpu_matrix;
#[path = "../gpu_matrix_bf16.rs"]
mod gpu_matrix_bf16;
#[path = "../gpu_matrix_long.rs"]
mod gpu_matrix_long;
#[path = "../gpu_matrix_select.rs"]
mod gpu_matrix_select;
#[path = "../gpu_merge.rs"]
mod gpu_merge;
#[path = "../gpu_mixed.rs"]
mod gpu_mixed;
#[path = "../gpu_modify.rs"]
mod gpu_modify;
#[path = "../gpu_modify_matrix.rs"]
mod gpu_modify_matrix;
#[path = "../gpu_own_device.rs"]
mod gpu_own_device;
#[path = "../gpu_pipelines.rs"]
mod gpu_pipelines;
#[path = "../gpu_registers.rs"]
mod gpu_registers;
#[path = "../gpu_select.rs"]
mod gpu_select;
#[path = "../gpu_selected.rs"]
mod gpu_selected;
#[path = "../gpu_selector.rs"]
mod gpu_selector;
#[path = "../gpu_sparse.rs"]
mod gpu_sparse;
#[path = "../gpu_tune.rs"]
mod gpu_tune;
