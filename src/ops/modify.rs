//! The numbers and tensors of modifiers of scores.

use super::bind::{Access, BoundTensor, Expect, check_tensor};
use super::params::Numbers;
use crate::kernels::modifiers::{BiasPlace, SoftcapNumbers};
use crate::kernels::places::SinkPlace;
use crate::plan::MODIFIER_PLACES;
use crate::problem::{BatchIndex, Bias, all_known, one_named};
use crate::shader::Taken;
use crate::{AttentionProblem, Context, DType, DeviceCaps, Result, ScoreMod, Sinks, Slots, TensorView};

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
                ScoreMod::Softcap(softcap) => {
                    let numbers = SoftcapNumbers { cap: softcap.cap(), inverse: 1.0 / softcap.cap() };
                    modifiers.uniforms.push((named("softcap"), bytemuck::bytes_of(&numbers).to_vec()));
                }
                ScoreMod::Alibi(alibi) => {
                    modifiers.own.push((named("slopes"), alibi.slopes(problem.shape().num_q_heads)));
                }
                ScoreMod::Bias(bias) => {
                    let bound = bind_named(bias.name(), bias.shape(), bias.dtype(), given, caps)?;
                    let numbers = bias_place(bias, bound.offset, bound.strides);
                    modifiers.uniforms.push((named("bias_place"), bytemuck::bytes_of(&numbers).to_vec()));
                    modifiers.tensors.push((named("numbers"), bound));
                }
            }
        }
        match problem.sinks() {
            None => {}
            Some(Sinks::Zero) => {
                let zeros = vec![0.0; problem.shape().num_q_heads as usize];
                modifiers.own.push((sinks_numbers(), zeros));
                modifiers.uniforms.push(("sink_place", bytemuck::bytes_of(&SinkPlace::default()).to_vec()));
            }
            Some(Sinks::Learned(dtype)) => {
                let shape = [1, 1, 1, problem.shape().num_q_heads];
                let bound = bind_named(Sinks::NAME, shape, dtype, given, caps)?;
                let place = SinkPlace { offset: bound.offset };
                modifiers.uniforms.push(("sink_place", bytemuck::bytes_of(&place).to_vec()));
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
            ScoreMod::Softcap(softcap) => {
                let numbers = SoftcapNumbers { cap: softcap.cap(), inverse: 1.0 / softcap.cap() };
                Some((Taken::binding_name("softcap", place), bytemuck::bytes_of(&numbers).to_vec()))
            }
            ScoreMod::Alibi(_) => None,
            ScoreMod::Bias(bias) => {
                let [_, heads, queries, keys] = bias.shape();
                let numbers = bias_place(bias, 0, [heads * queries * keys, queries * keys, keys]);
                Some((Taken::binding_name("bias_place", place), bytemuck::bytes_of(&numbers).to_vec()))
            }
        });
        let sinks = problem.sinks().map(|_| ("sink_place", bytemuck::bytes_of(&SinkPlace::default()).to_vec()));
        numbers.chain(sinks).collect()
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

fn bias_place(bias: &Bias, offset: u32, [batch, head, query]: [u32; 3]) -> BiasPlace {
    let [batches, heads, queries, keys] = bias.shape();
    let along = |size: u32, stride: u32| if size == 1 { 0 } else { stride };
    let (batch_divisor, batch_modulus) = match bias.batch_index() {
        BatchIndex::Each => (1, u32::MAX),
        BatchIndex::Divided(n) => (n, u32::MAX),
        BatchIndex::Modulo(n) => (1, n),
    };
    BiasPlace {
        offset,
        batch: along(batches, batch),
        head: along(heads, head),
        query: along(queries, query),
        key: along(keys, 1),
        batch_divisor,
        batch_modulus,
    }
}
