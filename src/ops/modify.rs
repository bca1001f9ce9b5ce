//! The numbers and tensors of modifiers of scores.

use super::bind::{Access, BoundTensor, Expect, check_tensor};
use super::params::Numbers;
use crate::kernels::modifiers::{BiasPlace, SoftcapNumbers};
use crate::kernels::places::SinkPlace;
use crate::plan::MODIFIER_PLACES;
use crate::problem::{BatchIndex, Bias, all_known, one_named};
use crate::shader::Taken;
use crate::{AttentionProblem, Context, DType, DeviceCaps, Result, ScoreMod, Sinks, Slots, Softcap, TensorView};

/// What the modifiers of a call bind, by the names of the bindings.
pub(super) struct Modifiers<'a> {
    uniforms: Numbers,
    tensors: Vec<(&'static str, BoundTensor<'a>)>,
    /// Tensors of the problem itself.
    own: Vec<(&'static str, Vec<f32>)>,
}

impl<'a> Modifiers<'a> {
    /// Checks the tensors that the caller names.
    pub(super) fn check(
        problem: &AttentionProblem,
        given: &[(&'a str, TensorView<'a>)],
        caps: &DeviceCaps,
    ) -> Result<Self> {
        let mut modifiers = Self { uniforms: Numbers::new(), tensors: Vec::new(), own: Vec::new() };
        for (place, modifier) in MODIFIER_PLACES.into_iter().zip(problem.score_mods()) {
            let named = |binding| Taken::binding_name(binding, place);
            match modifier {
                ScoreMod::Softcap(softcap) => modifiers.uniforms.push(softcap_uniform(place, softcap)),
                ScoreMod::Alibi(alibi) => {
                    modifiers.own.push((named("slopes"), alibi.slopes(problem.shape().num_q_heads)));
                }
                ScoreMod::Bias(bias) => {
                    let bound = bind_named(bias.name(), bias.shape(), bias.dtype(), given, caps)?;
                    modifiers.uniforms.push(bias_uniform(place, bias, bound.offset, bound.strides));
                    modifiers.tensors.push((named("numbers"), bound));
                }
            }
        }
        match problem.sinks() {
            None => {}
            Some(Sinks::Zero) => {
                let zeros = vec![0.0; problem.shape().num_q_heads as usize];
                modifiers.own.push((sinks_numbers(), zeros));
                modifiers.uniforms.push(sink_uniform(0));
            }
            Some(Sinks::Learned(dtype)) => {
                let shape = [1, 1, 1, problem.shape().num_q_heads];
                let bound = bind_named(Sinks::NAME, shape, dtype, given, caps)?;
                modifiers.uniforms.push(sink_uniform(bound.offset));
                modifiers.tensors.push((sinks_numbers(), bound));
            }
        }
        all_known(problem, given)?;
        Ok(modifiers)
    }

    /// The uniforms of contiguous tensors. For tests that run kernels without a device.
    pub(super) fn numbers(problem: &AttentionProblem) -> Numbers {
        let places = MODIFIER_PLACES.into_iter().zip(problem.score_mods());
        let numbers = places.filter_map(|(place, modifier)| match modifier {
            ScoreMod::Softcap(softcap) => Some(softcap_uniform(place, softcap)),
            ScoreMod::Alibi(_) => None,
            ScoreMod::Bias(bias) => {
                let [_, heads, queries, keys] = bias.shape();
                Some(bias_uniform(place, bias, 0, [heads * queries * keys, queries * keys, keys]))
            }
        });
        numbers.chain(problem.sinks().map(|_| sink_uniform(0))).collect()
    }

    /// Creates buffers for the tensors of the problem itself.
    pub(super) fn upload(&self, ctx: &Context) -> Vec<wgpu::Buffer> {
        let own = self.own.iter().map(|(_, numbers)| bytemuck::cast_slice(numbers));
        own.map(|bytes| ctx.upload("wattn.modifiers", bytes, wgpu::BufferUsages::STORAGE)).collect()
    }

    /// Adds the slots; `own` are the buffers of [`upload`](Self::upload).
    pub(super) fn slots<'s>(&'s self, mut slots: Slots<'s>, own: &'s [wgpu::Buffer]) -> Slots<'s> {
        for (name, bytes) in &self.uniforms {
            slots = slots.uniform(name, bytes);
        }
        for (name, bound) in &self.tensors {
            slots = slots.with(name, bound.slot());
        }
        self.own.iter().zip(own).fold(slots, |slots, ((name, _), buffer)| slots.buffer(name, buffer))
    }
}

/// The binding of the tensor of sinks.
fn sinks_numbers() -> &'static str {
    Taken::binding_name("numbers", Sinks::NAME)
}

fn bind_named<'a>(
    tensor: &'static str,
    shape: [u32; 4],
    dtype: DType,
    given: &[(&str, TensorView<'a>)],
    caps: &DeviceCaps,
) -> Result<BoundTensor<'a>> {
    let expect = Expect { tensor, shape, dtype, access: Access::Read, at_a_time: 1 };
    check_tensor(one_named(tensor, given)?, expect, caps)
}

/// A uniform of the modifier at a place of the chain.
fn uniform(place: &str, binding: &str, numbers: &impl bytemuck::NoUninit) -> (&'static str, Vec<u8>) {
    (Taken::binding_name(binding, place), bytemuck::bytes_of(numbers).to_vec())
}

fn softcap_uniform(place: &str, softcap: &Softcap) -> (&'static str, Vec<u8>) {
    uniform(place, "softcap", &SoftcapNumbers { cap: softcap.cap(), inverse: 1.0 / softcap.cap() })
}

fn sink_uniform(offset: u32) -> (&'static str, Vec<u8>) {
    ("sink_place", bytemuck::bytes_of(&SinkPlace { offset }).to_vec())
}

fn bias_uniform(place: &str, bias: &Bias, offset: u32, strides: [u32; 3]) -> (&'static str, Vec<u8>) {
    let [batch, head, query] = strides;
    let [batches, heads, queries, keys] = bias.shape();
    let along = |size: u32, stride: u32| if size == 1 { 0 } else { stride };
    let (batch_divisor, batch_modulus) = match bias.batch_index() {
        BatchIndex::Each => (1, u32::MAX),
        BatchIndex::Divided(n) => (n, u32::MAX),
        BatchIndex::Modulo(n) => (1, n),
    };
    let numbers = BiasPlace {
        offset,
        batch: along(batches, batch),
        head: along(heads, head),
        query: along(queries, query),
        key: along(keys, 1),
        batch_divisor,
        batch_modulus,
    };
    uniform(place, "bias_place", &numbers)
}
