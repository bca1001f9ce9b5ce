//! Every mistake has an error of its own, which names the tensor or field, the value and the rule. Validation needs no
//! shader, so wgpu's `noop` device, which runs none, serves; nothing can be written there, and nothing is encoded.

mod common;

use common::shape;
use wattn::{
    Attention, AttentionArgs, AttentionPlan, AttentionProblem, AttentionShape, BoundAttention, Context, ContextOptions,
    DType, DeviceCaps, Error, HostInputs, HostTensor, Layout, Mask, Merge, MergeArgs, MergePlan, MergeProblem,
    TensorView, TensorViewMut, U32View, Workspace, cpu,
};
use wgpu::BufferUsages;

const SHAPE: AttentionShape = AttentionShape {
    batch_size: 2,
    seq_len_q: 3,
    seq_len_kv: 5,
    num_q_heads: 4,
    num_kv_heads: 2,
    head_dim: 8,
    head_dim_v: 12,
};

fn noop() -> Context {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    Context::new(device, queue).unwrap()
}

fn buffer(ctx: &Context, size: u64, usage: BufferUsages) -> wgpu::Buffer {
    ctx.device().create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
}

fn packed([batch, seq, heads, dim]: [u32; 4]) -> Layout {
    Layout::seq_major(batch, seq, heads, dim)
}

/// The buffers and views of a valid call, to be spoilt one at a time.
struct Call {
    ctx: Context,
    attention: Attention,
    buffers: [wgpu::Buffer; 5],
    layouts: [Layout; 5],
    dtype: DType,
}

const NAMES: [&str; 5] = ["q", "k", "v", "out", "lse"];

impl Call {
    fn new() -> Self {
        let ctx = noop();
        let problem = AttentionProblem::new(SHAPE, DType::F32).with_mask(Mask::Causal).with_lse();
        let plan = AttentionPlan::new(&problem, ctx.caps()).unwrap();
        let attention = Attention::prepare(&ctx, &plan).unwrap();
        let layouts = [SHAPE.q(), SHAPE.k(), SHAPE.v(), SHAPE.out(), SHAPE.lse()].map(packed);
        let buffers = layouts.map(|layout| buffer(&ctx, layout.end().unwrap() * 4, BufferUsages::STORAGE));
        Self { ctx, attention, buffers, layouts, dtype: DType::F32 }
    }

    fn bind(&self) -> wattn::Result<BoundAttention> {
        let [q, k, v, out, lse] = [0, 1, 2, 3, 4].map(|i| (&self.buffers[i], self.layouts[i]));
        self.attention.bind(
            AttentionArgs::new(
                TensorView::new(q.0, self.dtype, q.1),
                TensorView::new(k.0, DType::F32, k.1),
                TensorView::new(v.0, DType::F32, v.1),
                TensorViewMut::new(out.0, DType::F32, out.1),
            )
            .with_lse(TensorViewMut::new(lse.0, DType::F32, lse.1)),
        )
    }
}

#[test]
fn the_unspoilt_call_binds() {
    Call::new().bind().unwrap();
}

#[test]
fn host_tensors_must_match_the_problem() {
    let problem = AttentionProblem::new(SHAPE, DType::F32);
    let [q, k, v] = [SHAPE.q(), SHAPE.k(), SHAPE.v()].map(HostTensor::<f32>::zeros);
    let inputs = HostInputs::new(&q, &k, &v);
    cpu::attend(&problem, &inputs).unwrap();

    let error = cpu::attend(&problem, &HostInputs::new(&q, &q, &v)).unwrap_err();
    assert!(matches!(error, Error::Shape { tensor: "k", .. }), "{error}");
    let error = cpu::attend(&problem, &inputs.with_seq_lens_kv(&[1])).unwrap_err();
    assert!(matches!(error, Error::Length { tensor: "seq_lens_kv", expected: 2, actual: 1 }), "{error}");
    let error = cpu::attend(&problem, &inputs.with_seq_lens_kv(&[5, 6])).unwrap_err();
    assert!(matches!(error, Error::Invalid { field: "seq_lens_kv", value: 6, .. }), "{error}");
    let error = cpu::attend(&AttentionProblem::new(SHAPE, DType::F16), &inputs).unwrap_err();
    assert!(matches!(error, Error::DType { expected: DType::F16, actual: DType::F32, .. }), "{error}");
    let error = HostTensor::new([1, 2, 3, 4], vec![0.0f32; 23]).unwrap_err();
    assert!(matches!(error, Error::Length { expected: 24, actual: 23, .. }), "{error}");
}

#[test]
fn views_must_have_the_shape_and_type_of_the_problem() {
    for (i, name) in NAMES.into_iter().enumerate() {
        let mut call = Call::new();
        call.layouts[i].shape[1] += 1;
        let error = call.bind().unwrap_err();
        assert!(matches!(error, Error::Shape { tensor, .. } if tensor == name), "{error}");
    }
    let mut call = Call::new();
    call.dtype = DType::F16;
    let error = call.bind().unwrap_err();
    assert!(matches!(error, Error::DType { tensor: "q", expected: DType::F32, actual: DType::F16 }), "{error}");
}

#[test]
fn views_must_stay_inside_their_buffers() {
    for (i, name) in NAMES.into_iter().enumerate() {
        let mut call = Call::new();
        call.layouts[i].offset = 4;
        let error = call.bind().unwrap_err();
        let size = call.buffers[i].size();
        let wanted = |tensor, end, len| tensor == name && end == size + 16 && len == size;
        assert!(matches!(error, Error::OutOfBounds { tensor, end, len } if wanted(tensor, end, len)), "{error}");

        let mut call = Call::new();
        call.layouts[i].strides[1] = u64::MAX / 4 * 4;
        let error = call.bind().unwrap_err();
        assert!(matches!(error, Error::OutOfBounds { tensor, .. } if tensor == name), "{error}");
    }
}

#[test]
fn views_must_be_aligned_to_four_elements() {
    for (i, name) in NAMES.into_iter().enumerate().take(4) {
        for field in ["strides[batch]", "strides[seq]", "strides[head]", "offset"] {
            let mut call = Call::new();
            let layout = &mut call.layouts[i];
            match field {
                "strides[batch]" => layout.strides[0] += 1,
                "strides[seq]" => layout.strides[1] += 2,
                "strides[head]" => layout.strides[2] += 3,
                _ => layout.offset += 1,
            }
            let error = call.bind().unwrap_err();
            assert!(matches!(error, Error::Layout { tensor, field: f, .. } if tensor == name && f == field), "{error}");
        }
    }
}

/// A promise of rows at multiples of 16 bytes means multiples of 8 elements in f16.
#[test]
fn promised_rows_must_be_aligned() {
    let ctx = noop();
    let problem = AttentionProblem::new(SHAPE, DType::F16).with_aligned_rows();
    let plan = AttentionPlan::new(&problem, ctx.caps()).unwrap();
    let attention = Attention::prepare(&ctx, &plan).unwrap();
    let buffers = [0; 4].map(|_| buffer(&ctx, 4096, BufferUsages::STORAGE));
    let bind = |spoilt: usize, field: &str| {
        // Room for widths of 8 and 12, by multiples of 8.
        let padded = |[batch, seq, heads, dim]: [u32; 4]| Layout {
            shape: [batch, seq, heads, dim],
            strides: [u64::from(seq * heads) * 16, u64::from(heads) * 16, 16],
            offset: 8,
        };
        let mut layouts = [SHAPE.q(), SHAPE.k(), SHAPE.v(), SHAPE.out()].map(padded);
        match field {
            "strides[batch]" => layouts[spoilt].strides[0] += 4,
            "strides[seq]" => layouts[spoilt].strides[1] += 4,
            "strides[head]" => layouts[spoilt].strides[2] += 4,
            "offset" => layouts[spoilt].offset += 4,
            _ => {}
        }
        let view = |i: usize| TensorView::new(&buffers[i], DType::F16, layouts[i]);
        let out = TensorViewMut::new(&buffers[3], DType::F16, layouts[3]);
        let (q, k, v) = (view(0), view(1), view(2));
        attention.bind(AttentionArgs::new(q, k, v, out)).map(drop)
    };
    bind(0, "nothing").unwrap();
    for (i, name) in ["q", "k", "v"].into_iter().enumerate() {
        for field in ["strides[batch]", "strides[seq]", "strides[head]", "offset"] {
            let error = bind(i, field).unwrap_err();
            assert!(matches!(error, Error::Layout { tensor, field: f, .. } if tensor == name && f == field), "{error}");
            assert!(error.to_string().contains("multiple of 8"), "{error}");
        }
    }
    // Outputs are stored four elements at a time.
    bind(3, "offset").unwrap();
}

#[test]
fn written_views_must_not_overlap_themselves() {
    let mut call = Call::new();
    call.layouts[3].strides[2] = 8;
    let error = call.bind().unwrap_err();
    assert!(matches!(error, Error::Layout { tensor: "out", field: "strides[head]", value: 8, .. }), "{error}");
    let mut call = Call::new();
    call.layouts[4].strides[0] = 0;
    let error = call.bind().unwrap_err();
    assert!(matches!(error, Error::Layout { tensor: "lse", field: "strides[batch]", value: 0, .. }), "{error}");
}

/// Packed strides of a tensor without elements are 0.
#[test]
fn empty_outputs_overlap_nothing() {
    let ctx = noop();
    let shape = AttentionShape { seq_len_q: 0, ..SHAPE };
    let problem = AttentionProblem::new(shape, DType::F32).with_lse();
    let plan = AttentionPlan::new(&problem, ctx.caps()).unwrap();
    let buffers = [0; 5].map(|_| buffer(&ctx, 4096, BufferUsages::STORAGE));
    let view = |i: usize, shape| TensorView::new(&buffers[i], DType::F32, packed(shape));
    let view_mut = |i: usize, shape| TensorViewMut::new(&buffers[i], DType::F32, packed(shape));
    let args = AttentionArgs::new(view(0, shape.q()), view(1, shape.k()), view(2, shape.v()), view_mut(3, shape.out()))
        .with_lse(view_mut(4, shape.lse()));
    Attention::prepare(&ctx, &plan).unwrap().bind(args).unwrap();
}

#[test]
fn outputs_need_buffers_of_their_own() {
    for (written, other) in [(3, 0), (3, 1), (3, 2), (4, 0), (4, 3)] {
        let mut call = Call::new();
        let shared = buffer(&call.ctx, 1 << 16, BufferUsages::STORAGE);
        call.buffers[written] = shared.clone();
        call.buffers[other] = shared;
        call.layouts[written].offset = 4096; // far apart, and still forbidden
        let error = call.bind().unwrap_err();
        let wanted = (NAMES[written], NAMES[other]);
        assert!(matches!(error, Error::Overlap { written, other } if (written, other) == wanted), "{error}");
    }
    let mut call = Call::new();
    let shared = buffer(&call.ctx, 1 << 16, BufferUsages::STORAGE);
    for i in 0..3 {
        call.buffers[i] = shared.clone(); // inputs may share
    }
    call.bind().unwrap();
}

#[test]
fn buffers_need_their_usages() {
    for (i, name) in NAMES.into_iter().enumerate() {
        let mut call = Call::new();
        call.buffers[i] = buffer(&call.ctx, call.buffers[i].size(), BufferUsages::COPY_DST);
        let error = call.bind().unwrap_err();
        let storage = BufferUsages::STORAGE;
        assert!(matches!(error, Error::Usage { tensor, missing } if tensor == name && missing == storage), "{error}");
    }
    let call = Call::new();
    let view = TensorView::new(&call.buffers[0], DType::F32, call.layouts[0]);
    let error = call.ctx.read::<f32>(view).wait().unwrap_err();
    assert!(matches!(error, Error::Usage { missing: BufferUsages::COPY_SRC, .. }), "{error}");
    let error = Workspace::from_buffer(buffer(&call.ctx, 16, BufferUsages::COPY_DST)).unwrap_err();
    assert!(matches!(error, Error::Usage { tensor: "workspace", .. }), "{error}");
}

/// Two devices of one instance; wgpu answers with a validation error.
#[test]
fn a_buffer_of_another_device_is_refused() {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle().with_env());
    let open = |adapter: &wgpu::Adapter| {
        let opened = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()));
        opened.map(|(device, queue)| Context::new(device, queue).unwrap())
    };
    // An adapter may be listed and fail to open.
    let adapters = pollster::block_on(wattn::adapters(&instance));
    let pair = adapters.iter().find_map(|adapter| Some((open(adapter).ok()?, open(adapter).ok()?)));
    let (ctx, other) = pair.expect("an adapter that opens twice");
    let plan = MergePlan::new(&MergeProblem { num_parts: 1, num_rows: 1, head_dim_v: 4 }, ctx.caps()).unwrap();
    let merge = Merge::prepare(&ctx, &plan).unwrap();
    let [parts, out, lse] = [&ctx, &ctx, &ctx].map(|ctx| buffer(ctx, 16, BufferUsages::STORAGE));
    let foreign = buffer(&other, 16, BufferUsages::STORAGE);
    let args = MergeArgs::new(
        TensorView::new(&parts, DType::F32, packed([1, 1, 1, 4])),
        TensorView::new(&foreign, DType::F32, packed([1, 1, 1, 1])),
        TensorViewMut::new(&out, DType::F32, packed([1, 1, 1, 4])),
        TensorViewMut::new(&lse, DType::F32, packed([1, 1, 1, 1])),
    );
    let error = merge.bind(args).unwrap_err();
    assert!(matches!(error, Error::Validation { .. }), "{error}");
}

/// Two devices of two instances; wgpu answers with a panic.
#[test]
fn a_buffer_of_another_instance_is_refused() {
    let other = noop();
    for i in 0..5 {
        let mut call = Call::new();
        call.buffers[i] = buffer(&other, call.buffers[i].size(), BufferUsages::STORAGE);
        let error = call.bind().unwrap_err();
        assert!(matches!(error, Error::Validation { .. }), "{error}");
    }
}

#[test]
fn optional_arguments_must_match_the_problem() {
    let ctx = noop();
    let base = || AttentionProblem::new(SHAPE, DType::F32);
    let lens = buffer(&ctx, 8, BufferUsages::STORAGE);
    let call = Call::new();
    let bind = |problem: AttentionProblem, lse: bool, len: Option<u64>| {
        let plan = AttentionPlan::new(&problem, ctx.caps()).unwrap();
        let buffers = call.layouts.map(|layout| buffer(&ctx, layout.end().unwrap() * 4, BufferUsages::STORAGE));
        let view = |i: usize| TensorView::new(&buffers[i], DType::F32, call.layouts[i]);
        let view_mut = |i: usize| TensorViewMut::new(&buffers[i], DType::F32, call.layouts[i]);
        let args = AttentionArgs::new(view(0), view(1), view(2), view_mut(3))
            .with_seq_lens_kv(len.map(|len| U32View::new(&lens, 0, len)))
            .with_lse(lse.then(|| view_mut(4)));
        Attention::prepare(&ctx, &plan).unwrap().bind(args).map(|_| ())
    };
    bind(base(), false, None).unwrap();
    bind(base().with_lse().with_seq_lens_kv(), true, Some(2)).unwrap();
    let error = bind(base(), true, None).unwrap_err();
    assert!(matches!(error, Error::Argument { argument: "lse", .. }), "{error}");
    let error = bind(base().with_lse(), false, None).unwrap_err();
    assert!(matches!(error, Error::Argument { argument: "lse", .. }), "{error}");
    let error = bind(base(), false, Some(2)).unwrap_err();
    assert!(matches!(error, Error::Argument { argument: "seq_lens_kv", .. }), "{error}");
    let error = bind(base().with_seq_lens_kv(), false, None).unwrap_err();
    assert!(matches!(error, Error::Argument { argument: "seq_lens_kv", .. }), "{error}");
    let error = bind(base().with_seq_lens_kv(), false, Some(3)).unwrap_err();
    assert!(matches!(error, Error::Length { tensor: "seq_lens_kv", expected: 2, actual: 3 }), "{error}");
}

#[test]
fn limits_are_named() {
    let limit = |shape: AttentionShape, caps: &DeviceCaps| match AttentionPlan::new(
        &AttentionProblem::new(shape, DType::F32),
        caps,
    ) {
        Err(Error::Limit { limit, needed, available }) => {
            assert!(needed > available);
            limit
        }
        other => panic!("{other:?}"),
    };
    let baseline = DeviceCaps::BASELINE;
    let mut narrow = DeviceCaps::BASELINE;
    narrow.max_workgroups_per_dimension = 16;
    let many = AttentionShape { batch_size: 1000, ..SHAPE };
    assert_eq!(limit(many, &narrow), "max_compute_workgroups_per_dimension");
    let huge = AttentionShape { seq_len_q: 1 << 28, head_dim_v: 256, ..SHAPE };
    let error = AttentionPlan::new(&AttentionProblem::new(huge, DType::F32), &baseline).unwrap_err();
    let what = "rows of out, four columns each";
    assert!(matches!(error, Error::TooLarge { what: found, needed, available } if found == what && needed > available));

    // A cache larger than a binding is found when the views are known, since strides decide.
    let call = Call::new();
    let mut caps = call.ctx.caps().clone();
    caps.max_storage_binding_bytes = 1 << 20;
    let parts = MergeProblem { num_parts: 64, num_rows: 4096, head_dim_v: 128 };
    let error = MergePlan::new(&parts, &caps).unwrap_err();
    assert!(matches!(error, Error::Limit { limit: "max_storage_buffer_binding_size", .. }), "{error}");
    let error = Workspace::new(&call.ctx, u64::MAX / 2).unwrap_err();
    assert!(matches!(error, Error::Limit { limit: "max_buffer_size", .. }), "{error}");

    let required_limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 20, ..Default::default() };
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor { required_limits, ..Default::default() });
    let ctx = Context::new(device, queue).unwrap();
    let shape = AttentionShape { seq_len_kv: 1 << 15, ..SHAPE };
    let plan = AttentionPlan::new(&AttentionProblem::new(shape, DType::F32), ctx.caps()).unwrap();
    let layouts = [shape.q(), shape.k(), shape.v(), shape.out()].map(packed);
    let buffers = layouts.map(|layout| buffer(&ctx, layout.end().unwrap() * 4, BufferUsages::STORAGE));
    let view = |i: usize| TensorView::new(&buffers[i], DType::F32, layouts[i]);
    let out = TensorViewMut::new(&buffers[3], DType::F32, layouts[3]);
    let args = AttentionArgs::new(view(0), view(1), view(2), out);
    let error = Attention::prepare(&ctx, &plan).unwrap().bind(args).unwrap_err();
    let limit = "max_storage_buffer_binding_size (k)";
    assert!(matches!(error, Error::Limit { limit: l, available: 0x10_0000, .. } if l == limit), "{error}");
}

#[test]
fn merges_check_their_views() {
    let ctx = noop();
    let plan = MergePlan::new(&MergeProblem { num_parts: 3, num_rows: 5, head_dim_v: 8 }, ctx.caps()).unwrap();
    let merge = Merge::prepare(&ctx, &plan).unwrap();
    let new = || buffer(&ctx, 4096, BufferUsages::STORAGE);
    let (parts, parts_lse, out, lse) = (new(), new(), new(), new());
    let bind = |parts_layout: Layout, out: &wgpu::Buffer| {
        let args = MergeArgs::new(
            TensorView::new(&parts, DType::F32, parts_layout),
            TensorView::new(&parts_lse, DType::F32, packed([3, 5, 1, 1])),
            TensorViewMut::new(out, DType::F32, packed([1, 5, 1, 8])),
            TensorViewMut::new(&lse, DType::F32, packed([1, 5, 1, 1])),
        );
        merge.bind(args).map(|_| ())
    };
    bind(packed([3, 5, 1, 8]), &out).unwrap();
    let error = bind(packed([3, 5, 1, 8]), &parts).unwrap_err();
    assert!(matches!(error, Error::Overlap { written: "out", other: "parts_out" }), "{error}");
    let error = bind(packed([2, 5, 1, 8]), &out).unwrap_err();
    assert!(matches!(error, Error::Shape { tensor: "parts_out", .. }), "{error}");
    let mut apart = packed([3, 5, 1, 8]);
    apart.strides[1] = 16;
    let error = bind(apart, &out).unwrap_err();
    assert!(matches!(error, Error::Layout { tensor: "parts_out", field: "strides[seq]", .. }), "{error}");
}

#[test]
fn an_adapter_that_nobody_has_is_named() {
    let error = Context::request(&ContextOptions::default().with_adapter_name("Voodoo 2")).wait().unwrap_err();
    let Error::NoAdapter { wanted, found } = &error else { panic!("{error}") };
    assert_eq!(wanted.as_deref(), Some("Voodoo 2"));
    assert!(error.to_string().contains("Voodoo 2") && error.to_string().contains(found.as_str()));
}

/// Losing the device is an error of the next call, not a panic and not a hang.
#[test]
fn a_lost_device_is_an_error() {
    for ctx in common::gpu::contexts() {
        let name = ctx.device().adapter_info().name;
        let own = Context::request(&ContextOptions::default().with_adapter_name(name)).wait().unwrap();
        let case = common::Case::<f32>::random(shape(1, [3, 9], [1, 1]), Mask::Causal, 1);
        own.attend(&case.problem(), &case.inputs()).wait().unwrap();
        own.device().destroy();
        let error = own.attend(&case.problem(), &case.inputs()).wait().unwrap_err();
        assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
    }
}
