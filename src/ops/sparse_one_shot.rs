//! Selection and block-sparse attention over tensors in host memory, in one call each.

use super::one_shot::Buffers;
use super::{SelectedBlocks, Selection, SelectionArgs, U32View};
use crate::{
    AttentionOutput, AttentionPlan, AttentionProblem, BlockSelection, Context, DType, Element, Error, HostBlocks,
    HostInputs, HostTensor, Layout, Result, SelectionInputs, SelectionPlan, SelectionProblem, TensorView, Tier,
};

impl Context {
    /// Selects blocks over tensors in host memory.
    ///
    /// # Errors
    /// Those of [`SelectionInputs::validate`], of [`SelectionPlan::with_tier`], of [`Selection::bind`] and of
    /// [`Context::read`].
    ///
    /// # Cost
    /// Compiles on a cache miss, allocates all buffers, submits, and reads back.
    pub async fn select<T: Element>(
        &self,
        problem: &SelectionProblem,
        inputs: &SelectionInputs<'_, T>,
        tier: Tier,
    ) -> Result<HostBlocks> {
        let lists = self.start_selection(problem, inputs, tier)?;
        let indices = self.read_u32(&lists.indices).await?;
        lists.host(indices, self.read_u32(&lists.counts).await?)
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
        let lists = self.start_selection(problem, inputs, tier)?;
        let indices = self.read_u32_blocking(&lists.indices)?;
        lists.host(indices, self.read_u32_blocking(&lists.counts)?)
    }

    /// Block-sparse attention over tensors in host memory. `out` is read back as f32, and the lse always.
    ///
    /// # Errors
    /// Those of [`HostInputs::validate`], of [`HostBlocks::validate`], of [`AttentionPlan::with_tier`], of
    /// [`Attention::bind`](crate::Attention::bind) and of [`Context::read`].
    ///
    /// # Cost
    /// Compiles on a cache miss, allocates all buffers, submits, and reads back.
    pub async fn attend_selected<T: Element>(
        &self,
        problem: &AttentionProblem,
        inputs: &HostInputs<'_, T>,
        blocks: &HostBlocks,
        tier: Tier,
    ) -> Result<AttentionOutput> {
        let plan = self.one_shot_plan(problem, inputs, tier)?;
        self.attend_selected_planned(&plan, inputs, blocks).await
    }

    /// [`Context::attend_selected`] with a plan, as [`Context::attend_planned`].
    ///
    /// # Errors
    /// Those of [`Context::attend_selected`].
    pub async fn attend_selected_planned<T: Element>(
        &self,
        plan: &AttentionPlan,
        inputs: &HostInputs<'_, T>,
        blocks: &HostBlocks,
    ) -> Result<AttentionOutput> {
        let buffers = self.start_selected(plan, inputs, blocks)?;
        buffers.output(self, plan.problem()).await
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
        let plan = self.one_shot_plan(problem, inputs, tier)?;
        self.start_selected(&plan, inputs, blocks)?.output_blocking(self, problem)
    }

    fn start_selected<T: Element>(
        &self,
        plan: &AttentionPlan,
        inputs: &HostInputs<'_, T>,
        blocks: &HostBlocks,
    ) -> Result<Buffers> {
        let (problem, needed) = (plan.problem(), "is required by the problem");
        let selection =
            problem.block_selection().ok_or(Error::Argument { argument: "selected_blocks", rule: needed })?;
        inputs.validate(problem)?;
        blocks.validate(selection, problem.shape(), inputs.seq_lens_kv)?;
        let lists = Lists::upload(self, blocks)?;
        self.start(plan, inputs, Some(lists.view()))
    }

    /// Uploads, encodes and submits; the lists are still on the device.
    fn start_selection<T: Element>(
        &self,
        problem: &SelectionProblem,
        inputs: &SelectionInputs<'_, T>,
        tier: Tier,
    ) -> Result<Lists> {
        inputs.validate(problem)?;
        let mut problem = problem.clone();
        if inputs.seq_lens_kv.is_some() {
            problem = problem.with_seq_lens_kv();
        }
        let plan = SelectionPlan::with_tier(&problem, self.caps(), tier)?;
        let selection = Selection::prepare(self, &plan)?;
        let lists = Lists::new(self, &problem.blocks(), problem.shape())?;
        let upload = |label, tensor: &HostTensor<T>| {
            self.upload_checked(label, bytemuck::cast_slice(tensor.data()), wgpu::BufferUsages::STORAGE)
        };
        let (q, k) = (upload("wattn.q", inputs.q)?, upload("wattn.k", inputs.k)?);
        let lens = inputs.seq_lens_kv.map(|lens| {
            let usage = wgpu::BufferUsages::STORAGE;
            self.upload_checked("wattn.seq_lens_kv", bytemuck::cast_slice(lens), usage)
        });
        let lens = lens.transpose()?;
        let view = |buffer, [batch, seq, heads, dim]: [u32; 4]| {
            TensorView::new(buffer, problem.dtype(), Layout::seq_major(batch, seq, heads, dim))
        };
        let shape = problem.shape();
        let bound = selection.bind(SelectionArgs {
            q: view(&q, shape.q()),
            k: view(&k, shape.k()),
            seq_lens_kv: lens.as_ref().map(|buffer| U32View::new(buffer, 0, shape.batch_size.into())),
            blocks: lists.view(),
        })?;
        self.scoped("submitting a selection", || bound.submit(self))?;
        Ok(lists)
    }

    /// [`Context::upload`], as an error where the contents do not fit.
    fn upload_checked(&self, label: &str, contents: &[u8], usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let (needed, available) = (contents.len() as u64, self.caps().max_buffer_bytes);
        if needed > available {
            return Err(Error::Limit { limit: "max_buffer_size", needed, available });
        }
        self.scoped("uploading", || self.upload(label, contents, usage))
    }

    /// A list of `u32`, which travels as f32 of the same bits.
    async fn read_u32(&self, buffer: &wgpu::Buffer) -> Result<Vec<u32>> {
        Ok(bits(self.read::<f32>(words(buffer)).await?))
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn read_u32_blocking(&self, buffer: &wgpu::Buffer) -> Result<Vec<u32>> {
        Ok(bits(self.read_blocking::<f32>(words(buffer))?))
    }
}

fn words(buffer: &wgpu::Buffer) -> TensorView<'_> {
    // A binding's size in words fits 32 bits.
    TensorView::new(buffer, DType::F32, Layout::seq_major(1, 1, 1, (buffer.size() / 4) as u32))
}

fn bits(tensor: HostTensor) -> Vec<u32> {
    tensor.into_data().into_iter().map(f32::to_bits).collect()
}

/// Lists of blocks in buffers of their own. Empty buffers do not exist, so that each has a word at least.
struct Lists {
    shape: [u32; 4],
    indices: wgpu::Buffer,
    counts: wgpu::Buffer,
}

impl Lists {
    fn lengths(shape: [u32; 4]) -> [u64; 2] {
        let counts = shape[..3].iter().map(|&n| u64::from(n)).product::<u64>();
        [counts * u64::from(shape[3]), counts]
    }

    fn new(ctx: &Context, blocks: &BlockSelection, shape: &crate::AttentionShape) -> Result<Self> {
        let shape = blocks.indices_shape(shape);
        let lengths = Self::lengths(shape);
        let (needed, available) = (lengths[0] * 4, ctx.caps().max_storage_binding_bytes);
        if needed > available {
            let limit = "max_storage_buffer_binding_size (block_indices)";
            return Err(Error::Limit { limit, needed, available });
        }
        let [indices, counts] = ctx.scoped("allocating lists of blocks", || {
            lengths.map(|len| {
                ctx.device().create_buffer(&wgpu::BufferDescriptor {
                    label: Some("wattn.blocks"),
                    size: (len * 4).max(4),
                    usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
                    mapped_at_creation: false,
                })
            })
        })?;
        Ok(Self { shape, indices, counts })
    }

    fn upload(ctx: &Context, blocks: &HostBlocks) -> Result<Self> {
        let usage = wgpu::BufferUsages::STORAGE;
        let upload = |list: &[u32]| {
            let list = if list.is_empty() { &[0] } else { list };
            ctx.upload_checked("wattn.blocks", bytemuck::cast_slice(list), usage)
        };
        let (indices, counts) = (upload(blocks.block_indices())?, upload(blocks.block_counts())?);
        Ok(Self { shape: blocks.shape(), indices, counts })
    }

    fn view(&self) -> SelectedBlocks<'_> {
        let [indices, counts] = Self::lengths(self.shape);
        SelectedBlocks {
            block_indices: U32View::new(&self.indices, 0, indices),
            block_counts: U32View::new(&self.counts, 0, counts),
        }
    }

    fn host(&self, mut indices: Vec<u32>, mut counts: Vec<u32>) -> Result<HostBlocks> {
        let [num_indices, num_counts] = Self::lengths(self.shape).map(|len| len as usize);
        indices.truncate(num_indices);
        counts.truncate(num_counts);
        HostBlocks::new(self.shape, indices, counts)
    }
}
