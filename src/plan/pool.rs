//! Summaries of blocks of keys: one dispatch.

use std::collections::BTreeMap;

use super::modules::elem_module;
use super::operator::{OneDispatch, fit_bindings};
use super::{Dispatch, OperatorPlan};
use crate::kernels::{self, modules};
use crate::shader::{Arrays, Specialization, Taken};
use crate::{DeviceCaps, DispatchBudget, PoolProblem, Pooling, Result, Tier};

/// The dispatch that computes a [`PoolProblem`] on a device.
pub type PoolPlan = OperatorPlan<PoolProblem>;

const WORKGROUP_SIZE: u32 = 64;

impl OneDispatch for PoolProblem {
    const NAME: &'static str = "pool";

    fn dispatch(&self, caps: &DeviceCaps, tier: Tier) -> Result<Dispatch> {
        self.validate()?;
        fit_bindings(caps, &[self.summaries_shape()])?;
        let pools = |ways: &[Pooling]| ways.contains(&self.pooling);
        let [batch, blocks, heads, _] = self.summaries_shape().map(u64::from);
        let head_dim4 = self.shape[3] / 4;
        let specialization = Specialization {
            kernel: &kernels::POOL_BLOCKS,
            modules: Taken::all([
                &modules::STRETCH,
                modules::lengths(self.seq_lens),
                &modules::NON_FINITE,
                &modules::PAGING_CONTIGUOUS,
                &modules::ROWS_OF_K,
                elem_module(self.dtype, tier, caps),
            ]),
            constants: BTreeMap::from([
                ("HEAD_DIM4", head_dim4),
                ("NUM_VECTORS", self.pooling.num_vectors()),
                ("WORKGROUP_SIZE", WORKGROUP_SIZE),
            ]),
            switches: BTreeMap::from([
                ("POOL_MEAN", pools(&[Pooling::Mean])),
                ("POOL_MIN", pools(&[Pooling::Min, Pooling::MinMax])),
                ("POOL_MAX", pools(&[Pooling::Max, Pooling::MinMax])),
            ]),
            arrays: Arrays::Memory, // it has none
            chain: Vec::new(),
        };
        let workgroups = (batch * blocks * heads * u64::from(head_dim4)).div_ceil(WORKGROUP_SIZE.into());
        let operations = u64::from(WORKGROUP_SIZE) * 4 * u64::from(self.block_size) * DispatchBudget::FETCH;
        Dispatch::even(specialization, workgroups, operations, caps)
    }
}
