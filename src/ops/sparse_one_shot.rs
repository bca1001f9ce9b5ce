//! Selection and block-sparse attention over tensors in host memory, in one call each.

use crate::{
    AttentionOutput, AttentionProblem, Context, Element, HostBlocks, HostInputs, Result, SelectionInputs,
    SelectionProblem, Tier,
};

impl Context {
    /// Selects blocks over tensors in host memory.
    ///
    /// # Errors
    /// Those of [`SelectionInputs::validate`].
    pub async fn select<T: Element>(
        &self,
        problem: &SelectionProblem,
        inputs: &SelectionInputs<'_, T>,
        tier: Tier,
    ) -> Result<HostBlocks> {
        let _ = tier;
        inputs.validate(problem)?;
        unimplemented!()
    }

    /// [`Context::select`], waiting on this thread.
    ///
    /// # Errors
    /// Those of [`Context::select`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn select_blocking<T: Element>(
        &self,
        problem: &SelectionProblem,
        inputs: &SelectionInputs<'_, T>,
        tier: Tier,
    ) -> Result<HostBlocks> {
        pollster::block_on(self.select(problem, inputs, tier))
    }

    /// Block-sparse attention over tensors in host memory.
    ///
    /// # Errors
    /// Those of [`HostInputs::validate`] and [`HostBlocks::validate`].
    pub async fn attend_selected<T: Element>(
        &self,
        problem: &AttentionProblem,
        inputs: &HostInputs<'_, T>,
        blocks: &HostBlocks,
        tier: Tier,
    ) -> Result<AttentionOutput> {
        let _ = (tier, blocks);
        inputs.validate(problem)?;
        unimplemented!()
    }

    /// [`Context::attend_selected`], waiting on this thread.
    ///
    /// # Errors
    /// Those of [`Context::attend_selected`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn attend_selected_blocking<T: Element>(
        &self,
        problem: &AttentionProblem,
        inputs: &HostInputs<'_, T>,
        blocks: &HostBlocks,
        tier: Tier,
    ) -> Result<AttentionOutput> {
        pollster::block_on(self.attend_selected(problem, inputs, blocks, tier))
    }
}
