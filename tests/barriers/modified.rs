//! Attention whose scores are modified: every modifier, and sinks, in each way to share the work of a workgroup.

use half::f16;
use wattn::cpu::twins;
use wattn::{Alibi, DType, Element, Mask, ScoreMod, Sharing, Sinks, Tier};

use super::attend::{Device, output, parts, shape};
use super::common::modified::ModifiedCase;
use super::common::{self, Exp};
use super::launch::{Buffers, Case, to_bytes};

/// The places of a chain.
const PLACES: [&str; 4] = ["first", "second", "third", "fourth"];

/// One of the chains, against the oracle.
fn modified<T: Element>(device: &Device, case: common::Case<T>, chain: &str) -> Case {
    let case = ModifiedCase::new(case, chain);
    let plan = device.plan(&case.problem().with_lse().with_out_dtype(DType::F32));
    let (launches, mut buffers) = parts(device, &plan, &case.case, None);
    let heads = case.case.shape.num_q_heads;
    let bytes = |name: &str| {
        let (_, tensor) = case.tensors.iter().find(|(given, _)| *given == name).unwrap();
        match tensor {
            common::modified::Tensor::F32(tensor) => to_bytes(tensor.data()),
            common::modified::Tensor::F16(tensor) => to_bytes(tensor.data()),
            common::modified::Tensor::BF16(tensor) => to_bytes(tensor.data()),
        }
    };
    let whole_words = |mut bytes: Vec<u8>| {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    for (place, modifier) in PLACES.iter().zip(&case.mods) {
        match modifier {
            ScoreMod::Softcap(_) => {}
            ScoreMod::Alibi(alibi) => {
                let slopes = Alibi::slopes(alibi, heads);
                buffers.insert(format!("slopes_{place}"), to_bytes(&slopes));
            }
            ScoreMod::Bias(bias) => {
                buffers.insert(format!("numbers_{place}"), whole_words(bytes(bias.name())));
            }
            modifier => panic!("{modifier:?} is new"),
        }
    }
    match case.sinks {
        None => {}
        Some(Sinks::Zero) => {
            buffers.insert("numbers_sinks".to_owned(), to_bytes(&vec![0.0f32; heads as usize]));
        }
        Some(_) => {
            buffers.insert("numbers_sinks".to_owned(), whole_words(bytes("sinks")));
        }
    }
    let name = format!("{:?} {case:?}", device.tiling);
    let what = name.clone();
    let check = move |buffers: &Buffers| {
        let got = output(&case.case.shape, DType::F32, buffers);
        case.check(&got, Exp::of(&plan), &what);
        if plan.tiling().num_splits == 1 {
            let twin = case.with_inputs(|inputs| twins::attend_prefill(&plan, inputs)).unwrap();
            let (twin, got) = ((twin.out.data(), twin.lse.data()), (got.out.data(), got.lse.data()));
            common::gpu::check_twin(plan.tier(), got, twin, &what);
        }
    };
    Case { name, launches, buffers, check: Box::new(check) }
}

pub(crate) fn cases() -> Vec<Case> {
    let random = |seed| common::Case::<f32>::random(shape([5, 37]), Mask::Causal, seed);
    let halves = |seed| common::Case::<f16>::random(shape([11, 45]), Mask::Causal, seed);
    let (long, masked) = ("softcap, bias, alibi", "alibi, mask, softcap, shared bias");
    let rows = |device: Device| device.tiled(|tiling| tiling.sharing = Sharing::Tiles);
    vec![
        modified(&Device::baseline(), random(90), long),
        modified(&Device::baseline(), random(91), "sinks"),
        modified(&Device::baseline().splits(3), random(92), "mask, sinks of 0"),
        modified(&rows(Device::baseline()), random(93), masked),
        modified(&rows(Device::baseline()), random(94), "bias of keys"),
        modified(&Device::columns(Tier::Baseline, None), random(95), masked),
        modified(&Device::columns(Tier::Subgroup, Some(4..=4)), random(96), "mask, sinks of 0"),
        modified(&Device::subgroups(Tier::Subgroup), random(97), "sinks"),
        modified(&Device::matrices(8, 8, true), halves(98), masked),
        modified(&Device::matrices(8, 16, false), halves(99), "sinks"),
        modified(&Device::matrices(8, 8, true).cut(), halves(89), "mask, sinks of 0"),
    ]
}
