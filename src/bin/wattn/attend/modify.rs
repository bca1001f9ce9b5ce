//! The modifiers of scores and the sinks that the options ask for, with their tensors.

use half::{bf16, f16};
use wattn::{Alibi, AnyHostTensor, AttentionProblem, Bias, DType, HostTensor, Sinks, Softcap};

use super::input::Input;
use crate::args::modify::{ScoreArgs, ScoreModArg, SinksArg};
use crate::failure::Failure;

/// A tensor of the input, as it is stored.
pub(super) enum Named {
    F32(HostTensor<f32>),
    F16(HostTensor<f16>),
    BF16(HostTensor<bf16>),
}

impl Named {
    fn any(&self) -> AnyHostTensor<'_> {
        match self {
            Self::F32(tensor) => tensor.into(),
            Self::F16(tensor) => tensor.into(),
            Self::BF16(tensor) => tensor.into(),
        }
    }

    fn load(input: &mut Input<'_>, name: &str) -> Result<Self, Failure> {
        Ok(match input.float_dtype(name)? {
            DType::F16 => Self::F16(input.load_any(name)?),
            DType::BF16 => Self::BF16(input.load_any(name)?),
            _ => Self::F32(input.load_any(name)?),
        })
    }
}

/// The tensors that come by name.
#[derive(Default)]
pub(super) struct Tensors(Vec<(&'static str, Named)>);

impl Tensors {
    pub(super) fn by_name(&self) -> Vec<(&str, AnyHostTensor<'_>)> {
        self.0.iter().map(|(name, tensor)| (*name, tensor.any())).collect()
    }

    /// Adds what the options ask for to the problem, and reads its tensors.
    pub(super) fn load(
        args: &ScoreArgs,
        input: &mut Input<'_>,
        mut problem: AttentionProblem,
    ) -> Result<(AttentionProblem, Self), Failure> {
        let mut tensors = Self::default();
        for modifier in &args.score_mods {
            problem = match modifier {
                ScoreModArg::Softcap(cap) => problem.with_score_mod(Softcap::new(*cap)),
                ScoreModArg::Alibi => problem.with_score_mod(Alibi::published()),
                ScoreModArg::AlibiSlopes(name) => {
                    let slopes: HostTensor<f32> = input.load_any(name)?;
                    problem.with_score_mod(Alibi::with_slopes(slopes.data()))
                }
                ScoreModArg::Bias(name) => {
                    // The problem's names live as long as the program, which ends with this command.
                    let name: &'static str = Box::leak(name.clone().into_boxed_str());
                    let tensor = Named::load(input, name)?;
                    let bias = Bias::new(name, tensor.any().shape(), tensor.any().dtype());
                    tensors.0.push((name, tensor));
                    problem.with_score_mod(bias)
                }
            };
        }
        match args.sinks {
            None => {}
            Some(SinksArg::Zero) => problem = problem.with_sinks(Sinks::Zero),
            Some(SinksArg::Learned) => {
                let sinks = Named::load(input, "sinks")?;
                problem = problem.with_sinks(Sinks::Learned(sinks.any().dtype()));
                tensors.0.push(("sinks", sinks));
            }
        }
        Ok((problem, tensors))
    }
}
