//! The caller's views, passes and devices: every layout gives the bits of a contiguous run, nothing around `out` is touched, and calls are
//! encoded beside other work.

mod common;

use common::gpu::{
    Buffers, bind, bits, buffer, contexts, packed, plan_of, problem_of, read_all, run, submit, tiers, tiny_tiling,
};
use common::{Case, Exp, rows, shape};
use half::f16;
use wattn::{
    Attention, AttentionArgs, AttentionOutput, AttentionPlan, AttentionShape, Context, DType, Element, HostTensor,
    Layout, Mask, TensorView, TensorViewMut, Tier, Workspace,
};

const GUARD: f32 = 7.0;

fn places(layout: &Layout) -> Vec<usize> {
    let [batch, seq, heads, dim] = layout.shape.map(u64::from);
    let mut places = Vec::new();
    for b in 0..batch {
        for s in 0..seq {
            for h in 0..heads {
                let at = layout.offset + b * layout.strides[0] + s * layout.strides[1] + h * layout.strides[2];
                places.extend((at..at + dim).map(|at| at as usize));
            }
        }
    }
    places
}

fn scatter<T: Element>(from: &HostTensor<T>, layout: &Layout, into: &mut Vec<T>) {
    let end = layout.end().unwrap() as usize;
    if into.len() < end {
        into.resize(end.next_multiple_of(4), T::from_f32(f32::NAN));
    }
    for (place, &x) in places(layout).into_iter().zip(from.data()) {
        into[place] = x;
    }
}

/// The layouts of q, k, v, out and lse. q, k and v may share one buffer.
struct Layouts {
    q: Layout,
    k: Layout,
    v: Layout,
    one_buffer: bool,
    out: Layout,
    lse: Layout,
}

/// Runs a case with these layouts, NaN between the inputs' elements, and checks that only out and lse were written.
fn run_laid_out<T: Element>(ctx: &Context, plan: &AttentionPlan, case: &Case<T>, layouts: &Layouts) -> AttentionOutput {
    let mut inputs = [vec![], vec![], vec![]];
    for (i, (tensor, layout)) in
        [(&case.q, &layouts.q), (&case.k, &layouts.k), (&case.v, &layouts.v)].into_iter().enumerate()
    {
        scatter(tensor, layout, &mut inputs[if layouts.one_buffer { 0 } else { i }]);
    }
    let inputs = inputs.map(|data| if data.is_empty() { buffer(ctx, &[0u32; 4]) } else { buffer(ctx, &data) });
    let input = |i: usize, layout| TensorView::new(&inputs[if layouts.one_buffer { 0 } else { i }], T::DTYPE, layout);
    let guarded = |layout: &Layout| buffer(ctx, &vec![GUARD; layout.end().unwrap() as usize + 9]);
    let (out, lse) = (guarded(&layouts.out), guarded(&layouts.lse));
    let bound = bind(
        ctx,
        plan,
        AttentionArgs::new(
            input(0, layouts.q),
            input(1, layouts.k),
            input(2, layouts.v),
            TensorViewMut::new(&out, DType::F32, layouts.out),
        )
        .with_lse(TensorViewMut::new(&lse, DType::F32, layouts.lse)),
    );
    submit(ctx, |encoder| bound.encode(encoder));
    let [out, lse] = [(&out, &layouts.out), (&lse, &layouts.lse)].map(|(buffer, layout)| {
        let mut all = read_all::<f32>(ctx, buffer);
        let places = places(layout);
        let tensor = HostTensor::new(layout.shape, places.iter().map(|&at| all[at]).collect()).unwrap();
        // The view's own gather agrees.
        assert_eq!(ctx.read::<f32>(TensorView::new(buffer, DType::F32, *layout)).wait().unwrap(), tensor);
        places.iter().for_each(|&at| all[at] = GUARD);
        assert!(all.iter().all(|&x| x == GUARD), "written between its elements: {layout:?}");
        tensor
    });
    AttentionOutput::new(out, lse)
}

fn strided(shape: [u32; 4], strides: [u64; 3], offset: u64) -> Layout {
    Layout { shape, strides, offset }
}

/// Layouts of a shape whose q and k have one length and one width of 16, with two KV heads of two query heads each.
fn layouts(shape: &AttentionShape) -> Vec<(&'static str, Layouts)> {
    let seq = u64::from(shape.seq_len_q);
    let plain = || Layouts {
        q: packed(shape.q()),
        k: packed(shape.k()),
        v: packed(shape.v()),
        one_buffer: false,
        out: packed(shape.out()),
        lse: packed(shape.lse()),
    };
    let head_major = |[batch, seq, heads, dim]: [u32; 4]| Layout::head_major(batch, seq, heads, dim);
    // [batch, seq, q heads | k heads | v heads, 16], as one projection gives them.
    let token = (shape.num_q_heads + 2 * shape.num_kv_heads) as u64 * 16;
    let in_token = |shape: [u32; 4], head: u64| strided(shape, [token * seq, token, 16], head * 16);
    vec![
        (
            "head major",
            Layouts {
                q: head_major(shape.q()),
                k: head_major(shape.k()),
                v: head_major(shape.v()),
                out: head_major(shape.out()),
                lse: head_major(shape.lse()),
                ..plain()
            },
        ),
        (
            "packed in one buffer",
            Layouts {
                q: in_token(shape.q(), 0),
                k: in_token(shape.k(), shape.num_q_heads.into()),
                v: in_token(shape.v(), (shape.num_q_heads + shape.num_kv_heads).into()),
                one_buffer: true,
                ..plain()
            },
        ),
        // Offsets below the alignment of a binding, at it, and past it.
        (
            "offsets",
            Layouts {
                q: packed(shape.q()).with_offset(4),
                k: packed(shape.k()).with_offset(64),
                v: packed(shape.v()).with_offset(1036),
                out: packed(shape.out()).with_offset(132),
                lse: packed(shape.lse()).with_offset(3),
                ..plain()
            },
        ),
        // Head, then batch, then token outermost, with gaps everywhere.
        (
            "padded",
            Layouts {
                q: strided(shape.q(), [24, 60, 60 * seq + 8], 8),
                k: strided(shape.k(), [36 * seq * 2 + 4, 36, 36 * seq], 12),
                v: strided(shape.v(), [20, 88, 40], 0),
                out: strided(shape.out(), [100 * seq, 100, 20], 16),
                lse: strided(shape.lse(), [1, 3, 3 * seq + 2], 5),
                ..plain()
            },
        ),
        (
            "out interleaved",
            Layouts {
                out: strided(shape.out(), [16, 32, 32 * seq], 0),
                lse: strided(shape.lse(), [1, 2, 2 * seq], 0),
                ..plain()
            },
        ),
    ]
}

#[test]
fn layouts_change_nothing() {
    let case = Case::<f32>::random(shape(2, [19, 19], [2, 2]), Mask::Causal, 1);
    let narrow = Case::<f16>::random(case.shape, Mask::Causal, 2);
    for ctx in contexts() {
        for tier in tiers(ctx.caps(), &[DType::F16]) {
            for num_splits in [1, 3] {
                let tiling = tiny_tiling(ctx.caps(), tier, num_splits);
                for (name, layouts) in layouts(&case.shape) {
                    let what = format!("{} {tier} splits {num_splits} {name}", ctx.describe());
                    if !tier.shader_f16() {
                        let plan = plan_of(&case, ctx, tier, tiling);
                        let got = run_laid_out(ctx, &plan, &case, &layouts);
                        assert_eq!(bits(&got), bits(&run(ctx, &plan, &case)), "{what}");
                    }
                    let plan = plan_of(&narrow, ctx, tier, tiling);
                    let got = run_laid_out(ctx, &plan, &narrow, &layouts);
                    assert_eq!(bits(&got), bits(&run(ctx, &plan, &narrow)), "f16 {what}");
                }
            }
        }
    }
}

/// Stride 0: all heads read one v, all sequences one k.
#[test]
fn inputs_may_be_broadcast() {
    let mut case = Case::<f32>::random(shape(2, [5, 19], [2, 2]), Mask::Full, 3);
    let (mut one_k, mut one_v) = (HostTensor::zeros([1, 19, 2, 16]), HostTensor::zeros([2, 19, 1, 16]));
    one_k.data_mut().copy_from_slice(&case.k.data()[..19 * 32]);
    one_v.data_mut().copy_from_slice(&case.v.data()[..2 * 19 * 16]);
    for [b, s, h] in
        rows(&AttentionShape { seq_len_q: 19, num_q_heads: 2, ..case.shape }).map(|row| row.map(|n| n as usize))
    {
        let at = ((b * 19 + s) * 2 + h) * 16;
        case.k.data_mut()[at..at + 16].copy_from_slice(one_k.row(0, s, h));
        case.v.data_mut()[at..at + 16].copy_from_slice(one_v.row(b, s, 0));
    }
    for ctx in contexts() {
        let tier = ctx.caps().best_tier();
        let plan = plan_of(&case, ctx, tier, tiny_tiling(ctx.caps(), tier, 1));
        let expected = bits(&run(ctx, &plan, &case));
        let buffers = Buffers::new(ctx, &case, plan.problem());
        let (k, v) = (buffer(ctx, one_k.data()), buffer(ctx, one_v.data()));
        let bound = bind(
            ctx,
            &plan,
            buffers.args_of(
                buffers.q_view(),
                TensorView::new(&k, DType::F32, strided(case.shape.k(), [0, 32, 16], 0)),
                TensorView::new(&v, DType::F32, strided(case.shape.v(), [19 * 16, 16, 0], 0)),
            ),
        );
        submit(ctx, |encoder| bound.encode(encoder));
        let (out, lse) = buffers.read(ctx);
        assert_eq!(bits(&AttentionOutput::new(out, lse)), expected, "{}", ctx.describe());
    }
}

const DOUBLE: &str = "
@group(0) @binding(0) var<storage, read_write> data: array<f32>;
@compute @workgroup_size(64)
fn double(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < arrayLength(&data) {
        data[id.x] = data[id.x] * 2.0;
    }
}";

/// The caller's own dispatches before and after, in one pass: q is doubled first, out last. Both are exact.
#[test]
fn a_pass_may_hold_other_work() {
    let mut case = Case::<f32>::random(shape(1, [5, 19], [2, 2]), Mask::Causal, 4);
    for ctx in contexts() {
        let device = ctx.device();
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(DOUBLE.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            cache: None,
        });
        let group = |buffer: &wgpu::Buffer| {
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &pipeline.get_bind_group_layout(0),
                entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() }],
            })
        };
        let tier = ctx.caps().best_tier();
        for num_splits in [1, 3] {
            let plan = plan_of(&case, ctx, tier, tiny_tiling(ctx.caps(), tier, num_splits));
            let buffers = Buffers::new(ctx, &case, plan.problem());
            let bound = bind(ctx, &plan, buffers.args());
            let (q, out) = (group(&buffers.q), group(&buffers.out));
            submit(ctx, |encoder| {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                pass.set_pipeline(&pipeline);
                pass.set_bind_group(0, &q, &[]);
                pass.dispatch_workgroups(100, 1, 1);
                bound.encode_in(&mut pass);
                pass.set_pipeline(&pipeline);
                pass.set_bind_group(0, &out, &[]);
                pass.dispatch_workgroups(100, 1, 1);
            });
            let (got, _) = buffers.read::<f32>(ctx);
            let clean = case.q.clone();
            case.q.data_mut().iter_mut().for_each(|q| *q *= 2.0);
            let expected = run(ctx, &plan, &case).out;
            case.q = clean;
            for (got, expected) in got.data().iter().zip(expected.data()) {
                assert_eq!(*got, 2.0 * expected, "{} splits {num_splits}", ctx.describe());
            }
        }
    }
}

/// Two calls of different sizes, encoded one after the other into one pass, over one workspace larger than either call needs.
#[test]
fn calls_share_a_workspace() {
    let cases = [[2, 53], [9, 40]].map(|lengths| Case::<f32>::random(shape(1, lengths, [2, 2]), Mask::Causal, 5));
    for ctx in contexts() {
        let tier = ctx.caps().best_tier();
        let workspace = Workspace::new(ctx, 1 << 20).unwrap();
        let calls = cases.each_ref().map(|case| {
            let plan = plan_of(case, ctx, tier, tiny_tiling(ctx.caps(), tier, 3));
            let buffers = Buffers::new(ctx, case, plan.problem());
            let attention = Attention::prepare(ctx, &plan).unwrap();
            let bound = attention.bind_with(buffers.args(), &workspace).unwrap();
            (plan, buffers, bound)
        });
        submit(ctx, |encoder| {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            calls.iter().for_each(|(_, _, bound)| bound.encode_in(&mut pass));
        });
        for (case, (plan, buffers, _)) in cases.iter().zip(&calls) {
            let (out, lse) = buffers.read(ctx);
            assert_eq!(bits(&AttentionOutput::new(out, lse)), bits(&run(ctx, plan, case)), "{}", ctx.describe());
        }
    }
}

/// A program's own device, made with WebGPU's default limits and no feature, runs the baseline tier.
#[test]
fn the_callers_own_device() {
    let case = Case::<f16>::random(shape(1, [9, 37], [2, 2]), Mask::Causal, 6);
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle().with_env());
    let mut opened = 0;
    for adapter in pollster::block_on(wattn::adapters(&instance)) {
        let descriptor = wgpu::DeviceDescriptor {
            required_features: wgpu::Features::empty(),
            required_limits: wgpu::Limits::default(),
            ..Default::default()
        };
        // An adapter that is listed and does not open: see `contexts`.
        let Ok((device, queue)) = pollster::block_on(adapter.request_device(&descriptor)) else {
            println!("passed over {}", wattn::describe_adapter(&adapter.get_info()));
            continue;
        };
        opened += 1;
        let ctx = Context::new(device, queue).unwrap();
        assert_eq!(ctx.caps().best_tier(), Tier::Baseline);
        let tiling = tiny_tiling(ctx.caps(), Tier::Baseline, 1);
        let plan =
            AttentionPlan::with_tiling(&problem_of(&case, DType::F32), ctx.caps(), Tier::Baseline, tiling).unwrap();
        case.check_with(&run(&ctx, &plan, &case), Exp::Gpu(tiling.tile_kv()), &ctx.describe());
    }
    assert!(opened > 0, "no adapter opens");
}
