//! The devices that the GPU tests run on: every adapter that the drivers offer, or those that `WATTN_TEST_ADAPTER`
//! names. None at all is a failure, never a skip.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use wattn::cpu::twins;
use wattn::{
    Attention, AttentionArgs, AttentionOutput, AttentionPlan, AttentionProblem, BoundAttention, Context,
    ContextOptions, DType, DeviceCaps, Element, HostTensor, LSE_EMPTY, Layout, MergeProblem, Sharing, TensorView,
    TensorViewMut, Tier, Tiling, U32View,
};
use wgpu::util::DeviceExt as _;

use super::{Case, recorded::record_output};

/// A context for each adapter.
pub fn contexts() -> &'static [Context] {
    static CONTEXTS: OnceLock<Vec<Context>> = OnceLock::new();
    CONTEXTS.get_or_init(|| {
        let wanted = std::env::var("WATTN_TEST_ADAPTER").unwrap_or_default().to_lowercase();
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle().with_env());
        let mut adapters = pollster::block_on(wattn::adapters(&instance));
        adapters.retain(|adapter| adapter.get_info().name.to_lowercase().contains(&wanted));
        let name = |adapter: &wgpu::Adapter| adapter.get_info().name;
        let open = |adapter: &wgpu::Adapter| Context::open(adapter, &ContextOptions::default()).wait();
        let (contexts, passed_over) = open_each(&adapters, name, open);
        for told in &passed_over {
            println!("passed over {told}");
        }
        assert!(
            !contexts.is_empty(),
            "no GPU adapter that opens ({passed_over:?}). `bash tests/run` installs software Vulkan drivers on Debian; \
             elsewhere install Mesa's lavapipe (package mesa-vulkan-drivers) or a GPU driver."
        );
        for context in &contexts {
            println!("testing on {}", context.describe());
        }
        contexts
    })
}

/// Opens the first adapter of each name that opens, since a driver may be listed twice, and names those that do not open.
pub fn open_each<A, T>(
    adapters: &[A],
    name: impl Fn(&A) -> String,
    open: impl Fn(&A) -> wattn::Result<T>,
) -> (Vec<T>, Vec<String>) {
    let (mut opened, mut passed_over) = (BTreeMap::new(), Vec::new());
    for adapter in adapters {
        let name = name(adapter);
        if opened.contains_key(&name) {
            continue;
        }
        match open(adapter) {
            Ok(context) => drop(opened.insert(name, context)),
            Err(error) => passed_over.push(format!("{name}: {error}")),
        }
    }
    (opened.into_values().collect(), passed_over)
}

/// The adapters that multiply matrices, at least one. Tests that use it are ignored by default.
pub fn matrix_contexts() -> Vec<&'static Context> {
    let found: Vec<_> = contexts().iter().filter(|ctx| ctx.caps().matrix_edge().is_some()).collect();
    for ctx in contexts() {
        if let Some(reason) = &ctx.caps().matrix_fault {
            println!("{}: matrices are not used: {reason}", ctx.describe());
        }
    }
    assert!(!found.is_empty(), "no adapter with cooperative matrices; `bash tests/matrix` brings one");
    found
}

/// The tiers of a device that compile to different shaders for these element types: first the type of q, k and v, which decides whether the
/// matrix tier takes them, then the type of out where that is not f32.
pub fn tiers(caps: &DeviceCaps, dtypes: &[DType]) -> Vec<Tier> {
    let f16 = dtypes.contains(&DType::F16);
    let takes = |tier: Tier| if tier.matrix() { dtypes[0] == DType::F16 } else { f16 || !tier.shader_f16() };
    Tier::ALL.into_iter().filter(|&tier| caps.require(tier).is_ok() && takes(tier)).collect()
}

/// The tiny tiling of a tier: two rows a group, one vec4 of keys a lane, so that edges are cheap to reach.
pub fn tiny_tiling(caps: &DeviceCaps, tier: Tier, num_splits: u32) -> Tiling {
    if let (true, Some(edge), Some(size)) = (tier.matrix(), caps.matrix_edge(), &caps.subgroup_size) {
        let lanes = *size.start();
        return Tiling::new(lanes, edge, edge.max(4 * lanes / edge), 2)
            .with_num_splits(num_splits)
            .with_sharing(Sharing::Rows);
    }
    let (lanes, groups) = match (tier.subgroup(), &caps.subgroup_size) {
        (true, Some(size)) => (*size.start(), size.end() / size.start()),
        _ => (4, 2),
    };
    Tiling::new(lanes, 2, 4, groups).with_num_splits(num_splits)
}

/// A segment of half a subgroup, where the device's subgroups are large enough: the tiling of devices whose subgroup size varies.
pub fn segment_tiling(caps: &DeviceCaps, tier: Tier) -> Option<Tiling> {
    let size = caps.subgroup_size.as_ref().filter(|size| tier.subgroup() && *size.start() >= 8)?;
    let lanes = size.start() / 2;
    Some(Tiling::new(lanes, 4, 4, 2 * size.end() / lanes))
}

/// Tiles that all groups share: of whole subgroups with splits, and of segments whose lanes hand their weights over in two steps.
pub fn staged_tilings(caps: &DeviceCaps, tier: Tier) -> [Tiling; 2] {
    let tiny = tiny_tiling(caps, tier, 3).with_sharing(Sharing::Tiles);
    let wide = segment_tiling(caps, tier).unwrap_or(tiny.with_rows(4).with_groups(2 * tiny.groups));
    [tiny, wide.with_keys(8).with_num_splits(1).with_sharing(Sharing::Tiles)]
}

/// Lanes that share the rows of keys: three rows, few keys under way, as many groups as subgroups of every size allow; with splits, one row
/// and one group. With subgroups the lanes of these share out scores, except in the last tiling, whose three keys cannot be halved.
pub fn columns_tilings(caps: &DeviceCaps, tier: Tier) -> [Tiling; 3] {
    let (lanes, whole) = match (tier.subgroup(), &caps.subgroup_size) {
        (true, Some(size)) => (4, size.end() / 4),
        _ => (4, 1),
    };
    let tiling = Tiling::new(lanes, 3, 2, 3 * whole).with_sharing(Sharing::Columns);
    let (split_lanes, split_groups) = match (tier.subgroup(), &caps.subgroup_size) {
        (true, Some(size)) => (*size.start(), size.end() / size.start()),
        _ => (8, 1),
    };
    let split = tiling.with_lanes(split_lanes).with_rows(1).with_groups(split_groups).with_num_splits(3);
    [tiling, split, split.with_keys(3)]
}

/// Tiny tilings with and without splits, and a segment. Their compiled texts depend on widths and element types only, so that tests can
/// vary everything else at no cost.
pub fn tilings(caps: &DeviceCaps, tier: Tier) -> Vec<Tiling> {
    let mut tilings = vec![tiny_tiling(caps, tier, 1), tiny_tiling(caps, tier, 3)];
    tilings.extend(segment_tiling(caps, tier));
    if !tier.matrix() {
        // One of two tilings by the tier: the first without f16 in shaders, the second with it. The two compile to different texts anyway.
        let which = usize::from(tier.shader_f16());
        tilings.push(staged_tilings(caps, tier)[which]);
        tilings.push(columns_tilings(caps, tier)[which]);
    }
    if tier.matrix() {
        // Two rows and two columns of matrices in one group; two rows in many groups.
        let tiny = tiny_tiling(caps, tier, 1);
        tilings.push(tiny.with_rows(2 * tiny.rows).with_keys(2 * tiny.keys).with_groups(1));
        tilings.push(tiny.with_rows(2 * tiny.rows).with_groups(8));
    }
    tilings
}

/// The problem of a case, with lse, and with lengths where the case has them.
pub fn problem_of<T: Element>(case: &Case<T>, out_dtype: DType) -> AttentionProblem {
    let problem = case.problem().with_out_dtype(out_dtype).with_lse();
    if case.seq_lens_kv.is_some() { problem.with_seq_lens_kv() } else { problem }
}

/// A plan for a case with f32 out.
pub fn plan_of<T: Element>(case: &Case<T>, ctx: &Context, tier: Tier, tiling: Tiling) -> AttentionPlan {
    AttentionPlan::with_tiling(&problem_of(case, DType::F32), ctx.caps(), tier, tiling).unwrap()
}

/// A buffer with all usages that these tests need.
pub fn buffer<T: bytemuck::Pod>(ctx: &Context, contents: &[T]) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let contents = bytemuck::cast_slice(contents);
    ctx.device().create_buffer_init(&wgpu::util::BufferInitDescriptor { label: Some("test"), contents, usage })
}

/// All of a buffer.
pub fn read_all<T: Element>(ctx: &Context, buffer: &wgpu::Buffer) -> Vec<T> {
    let len = (buffer.size() / T::DTYPE.size_bytes()) as u32;
    let view = TensorView::new(buffer, T::DTYPE, Layout::seq_major(1, 1, 1, len));
    ctx.read::<T>(view).wait().unwrap().into_data()
}

/// All of a buffer of words.
pub fn read_words(ctx: &Context, buffer: &wgpu::Buffer) -> Vec<u32> {
    read_all::<f32>(ctx, buffer).into_iter().map(f32::to_bits).collect()
}

/// The contiguous layout of a shape.
pub fn packed([batch, seq, heads, dim]: [u32; 4]) -> Layout {
    Layout::seq_major(batch, seq, heads, dim)
}

pub fn submit(ctx: &Context, encode: impl FnOnce(&mut wgpu::CommandEncoder)) {
    let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encode(&mut encoder);
    ctx.queue().submit([encoder.finish()]);
}

/// The tensors of a problem, each contiguous in a buffer of its own. `out` and `lse` are filled with 7.
pub struct Buffers {
    pub problem: AttentionProblem,
    pub q: wgpu::Buffer,
    pub k: wgpu::Buffer,
    pub v: wgpu::Buffer,
    pub seq_lens_kv: Option<wgpu::Buffer>,
    pub out: wgpu::Buffer,
    pub lse: wgpu::Buffer,
}

impl Buffers {
    pub fn new<T: Element>(ctx: &Context, case: &Case<T>, problem: &AttentionProblem) -> Self {
        let shape = problem.shape();
        let len = |shape: [u32; 4]| shape.iter().map(|&n| n as usize).product::<usize>();
        let out_bytes = (len(shape.out()) * problem.out_dtype().size_bytes() as usize).next_multiple_of(4);
        Self {
            problem: problem.clone(),
            q: buffer(ctx, case.q.data()),
            k: buffer(ctx, case.k.data()),
            v: buffer(ctx, case.v.data()),
            seq_lens_kv: case.seq_lens_kv.as_ref().map(|lens| buffer(ctx, lens)),
            out: buffer(ctx, &vec![7.0f32; out_bytes / 4]),
            lse: buffer(ctx, &vec![7.0f32; len(shape.lse())]),
        }
    }

    pub fn args(&self) -> AttentionArgs<'_> {
        let shape = self.problem.shape();
        let view = |buffer, shape| TensorView::new(buffer, self.problem.dtype(), packed(shape));
        self.args_of(self.q_view(), view(&self.k, shape.k()), view(&self.v, shape.v()))
    }

    pub fn q_view(&self) -> TensorView<'_> {
        TensorView::new(&self.q, self.problem.dtype(), packed(self.problem.q_shape()))
    }

    /// The same with other tensors.
    pub fn args_of<'a>(&'a self, q: TensorView<'a>, k: TensorView<'a>, v: TensorView<'a>) -> AttentionArgs<'a> {
        let shape = self.problem.shape();
        AttentionArgs::new(q, k, v, self.out_view())
            .with_seq_lens_kv(self.seq_lens_kv.as_ref().map(|lens| U32View::new(lens, 0, shape.batch_size.into())))
            .with_lse(TensorViewMut::new(&self.lse, DType::F32, packed(shape.lse())))
    }

    fn out_view(&self) -> TensorViewMut<'_> {
        TensorViewMut::new(&self.out, self.problem.out_dtype(), packed(self.problem.out_shape()))
    }

    /// `out` of any element type, and the lse.
    pub fn read<T: Element>(&self, ctx: &Context) -> (HostTensor<T>, HostTensor) {
        let lse = TensorView::new(&self.lse, DType::F32, packed(self.problem.lse_shape()));
        (ctx.read(self.out_view().as_view()).wait().unwrap(), ctx.read(lse).wait().unwrap())
    }
}

pub fn bind(ctx: &Context, plan: &AttentionPlan, args: AttentionArgs<'_>) -> BoundAttention {
    Attention::prepare(ctx, plan).unwrap().bind(args).unwrap()
}

/// The partial results in a plan's workspace: out, and the lse of each row, which is the first of four numbers.
pub fn partials<'a>(plan: &AttentionPlan, workspace: &'a [f32]) -> (&'a [f32], Vec<f32>) {
    let view = |wanted| {
        let (_, bytes) = plan.workspace_views().into_iter().find(|(name, _)| *name == wanted).unwrap();
        &workspace[bytes.start as usize / 4..bytes.end as usize / 4]
    };
    (view("partial_out"), view("partial_lse").chunks(4).map(|lse| lse[0]).collect())
}

/// Runs a case with one plan of its problem; `out` in f32.
pub fn run<T: Element>(ctx: &Context, plan: &AttentionPlan, case: &Case<T>) -> AttentionOutput {
    let buffers = Buffers::new(ctx, case, plan.problem());
    let bound = bind(ctx, plan, buffers.args());
    submit(ctx, |encoder| bound.encode(encoder));
    let (out, lse) = buffers.read(ctx);
    AttentionOutput::new(out, lse)
}

/// The results of the twins of a plan's kernels.
pub fn run_twins<T: Element>(plan: &AttentionPlan, case: &Case<T>) -> AttentionOutput {
    let (shape, num_parts) = (&case.shape, plan.tiling().num_splits);
    if num_parts == 1 {
        return twins::attend_prefill(plan, &case.inputs()).unwrap();
    }
    let partials = twins::attend_decode(plan, &case.inputs()).unwrap();
    let num_rows = shape.batch_size * shape.seq_len_q * shape.num_q_heads;
    let problem = MergeProblem { num_parts, num_rows, head_dim_v: shape.head_dim_v };
    let (out, lse) = twins::merge_splits(&problem, &partials.out, &partials.lse).unwrap();
    let tensor = |shape, data| HostTensor::new(shape, data).unwrap();
    AttentionOutput::new(tensor(shape.out(), out), tensor(shape.lse(), lse))
}

/// Limit on the difference of a kernel's `out` from its twin's, in `f32::EPSILON` times the largest |v|, and of its lse, in the same number
/// times `1 + |lse|`, for inputs in [-1, 1), where scores stay below 10. An exponential of a device is off by about 2 eps for |x| below 1
/// and is taken twice or three times for the weights that matter; scores whose `fma` rounds twice differ by another few eps; sums of the
/// lanes in another order by one eps. A wrong tile, mask or rescale is off by thousands.
pub const TWIN_EPS: f64 = 24.0;

/// Where weights are rounded to f16, an exponential that is off in its last bit may move a weight to the next f16.
pub const TWIN_MATRIX: f64 = 1.0 / 2048.0;

/// Asserts that a kernel's results in a tier are close to its twin's.
pub fn check_twin(tier: Tier, got: (&[f32], &[f32]), twin: (&[f32], &[f32]), what: &str) {
    let rounded = if tier.matrix() { TWIN_MATRIX } else { 0.0 };
    for (name, got, twin) in [("out", got.0, twin.0), ("lse", got.1, twin.1)] {
        assert_eq!(got.len(), twin.len(), "{what}: {name}");
        for (at, (&got, &twin)) in got.iter().zip(twin).enumerate() {
            let size = if name == "lse" && twin != LSE_EMPTY { 1.0 + f64::from(twin.abs()) } else { 1.0 };
            let error = (f64::from(got) - f64::from(twin)).abs();
            let allowed = (TWIN_EPS * f64::from(f32::EPSILON) + rounded) * size;
            assert!(error <= allowed, "{what}: {name}[{at}] is {got}, the twin's {twin}: {error:e} > {allowed:e}");
        }
    }
}

/// The bits of a result.
pub fn bits(output: &AttentionOutput) -> Vec<u32> {
    record_output(output);
    output.out.data().iter().chain(output.lse.data()).map(|x| x.to_bits()).collect()
}
