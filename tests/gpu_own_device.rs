//! A device of the program's own: its features decide how fast it is, and plans name the missing ones.

mod common;

use common::gpu::contexts;
use wattn::{
    AttentionPlan, AttentionProblem, AttentionShape, Context, DType, Hip, SelectionPlan, SelectionProblem, Tier,
    adapters, wanted_features, wanted_limits,
};

const SHAPE: AttentionShape = AttentionShape {
    batch_size: 1,
    seq_len_q: 256,
    seq_len_kv: 256,
    num_q_heads: 2,
    num_kv_heads: 2,
    head_dim: 64,
    head_dim_v: 64,
};

fn plans(ctx: &Context, dtype: DType) -> [String; 2] {
    let problem = AttentionProblem::new(SHAPE, dtype);
    let selection = SelectionProblem::new(SHAPE, dtype, Hip::default());
    let attend = AttentionPlan::new(&problem, ctx.caps()).unwrap();
    [attend.to_string(), SelectionPlan::new(&selection, ctx.caps()).unwrap().to_string()]
}

#[test]
fn what_is_wanted_gives_what_our_own_devices_have() {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle().with_env());
    let mut tried = 0;
    for adapter in pollster::block_on(adapters(&instance)) {
        let describe = wattn::describe_adapter(&adapter.get_info());
        let Some(ours) = contexts().iter().find(|ctx| ctx.describe() == describe) else { continue };
        tried += 1;
        let open = |features, limits| {
            let descriptor =
                wgpu::DeviceDescriptor { required_features: features, required_limits: limits, ..Default::default() };
            pollster::block_on(adapter.request_device(&descriptor)).unwrap()
        };
        let (device, queue) = open(wanted_features(&adapter), wanted_limits(&adapter));
        let wanted = Context::with_adapter(&adapter, device, queue).unwrap();
        assert_eq!(wanted.caps().best_tier(), ours.caps().best_tier(), "{describe}");
        if ours.caps().matrix_edge().is_none() {
            for dtype in [DType::F32, DType::F16] {
                assert_eq!(plans(&wanted, dtype), plans(ours, dtype), "{describe}");
            }
        }

        // With WebGPU's defaults a plan names the missing features.
        let (device, queue) = open(wgpu::Features::empty(), wgpu::Limits::default());
        let known = Context::with_adapter(&adapter, device.clone(), queue.clone()).unwrap();
        let unknown = Context::new(device, queue).unwrap();
        for ctx in [&known, &unknown] {
            assert_eq!(ctx.caps().best_tier(), Tier::Baseline, "{describe}");
        }
        if ours.caps().best_tier().subgroup() {
            for plan in plans(&known, DType::F32) {
                assert!(plan.contains("missed     subgroup: device opened without SUBGROUP\n"), "{describe}: {plan}");
            }
            for plan in plans(&unknown, DType::F32) {
                let told = "missed     subgroup: device opened without SUBGROUP, which the adapter may have\n";
                assert!(plan.contains(told), "{describe}: {plan}");
            }
        }
        for plan in plans(ours, DType::F16) {
            assert!(!plan.contains("missed"), "{describe}: {plan}");
        }
    }
    assert!(tried > 0, "no adapter");
}
