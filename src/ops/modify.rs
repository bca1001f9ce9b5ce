//! The numbers and tensors of modifiers of scores.

use super::bind::{Access, BoundTensor, Expect, check_tensor};
use super::params::Numbers;
use crate::kernels::modifiers::{BiasPlace, SoftcapNumbers};
use crate::plan::MODIFIER_PLACES;
use crate::problem::{BatchIndex, Bias};
use crate::shader::Taken;
use crate::{AttentionProblem, Context, DeviceCaps, Error, Result, ScoreMod, Slots, TensorView};

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
                    let bound = bind_bias(bias, given, caps)?;
                    let numbers = bias_place(bias, bound.offset, bound.strides);
                    modifiers.uniforms.push((named("bias_place"), bytemuck::bytes_of(&numbers).to_vec()));
                    modifiers.tensors.push((named("numbers"), bound));
                }
            }
        }
        match given.iter().find(|(name, _)| problem.biases().all(|bias| bias.name() != *name)) {
            Some((name, _)) => Err(Error::Unknown { what: "tensor", name: (*name).to_owned() }),
            None => Ok(modifiers),
        }
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
        numbers.collect()
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

/// The one tensor of a bias's name.
fn bind_bias<'a>(bias: &Bias, given: &[(&str, TensorView<'a>)], caps: &DeviceCaps) -> Result<BoundTensor<'a>> {
    let argument = bias.name();
    let mut named = given.iter().filter(|(name, _)| *name == argument);
    let view = match (named.next(), named.next()) {
        (Some((_, view)), None) => *view,
        (Some(_), Some(_)) => return Err(Error::Argument { argument, rule: "is given twice" }),
        (None, _) => return Err(Error::Argument { argument, rule: "is required by the problem" }),
    };
    let expect =
        Expect { tensor: argument, shape: bias.shape(), dtype: bias.dtype(), access: Access::Read, at_a_time: 1 };
    check_tensor(view, expect, caps)
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
