//! Arithmetic of one scalar. A u64 holds a scalar: integers and booleans by value, floats by the bits of an f32, also for f16 (which is
//! rounded after each operation).

use half::f16;
use naga::{BinaryOperator, MathFunction, Scalar, ScalarKind, UnaryOperator};

pub(crate) type F1 = fn(u64) -> u64;
pub(crate) type F2 = fn(u64, u64) -> u64;
pub(crate) type F3 = fn(u64, u64, u64) -> u64;

pub(crate) fn float(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

pub(crate) fn bits(x: f32) -> u64 {
    x.to_bits().into()
}

pub(crate) fn round_f16(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

fn signed(x: u64) -> i32 {
    x as u32 as i32
}

fn word(x: i32) -> u64 {
    (x as u32).into()
}

/// The scalar types in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    I32,
    U32,
    U64,
    F32,
    F16,
}

impl Kind {
    pub(crate) fn of(scalar: Scalar) -> Self {
        match (scalar.kind, scalar.width) {
            (ScalarKind::Bool, _) => Self::Bool,
            (ScalarKind::Sint, 4) => Self::I32,
            (ScalarKind::Uint, 4) => Self::U32,
            (ScalarKind::Uint, 8) => Self::U64,
            (ScalarKind::Float, 4) => Self::F32,
            (ScalarKind::Float, 2) => Self::F16,
            other => panic!("scalars {other:?} are not supported"),
        }
    }

    pub(crate) fn size_bytes(self) -> usize {
        match self {
            Self::Bool => panic!("booleans are not in buffers"),
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::U64 => 8,
            Self::F16 => 2,
        }
    }

    /// From its bytes in a buffer.
    pub(crate) fn read(self, bytes: &[u8]) -> u64 {
        match self {
            Self::U64 => u64::from_le_bytes(bytes.try_into().unwrap()),
            Self::F16 => bits(f16::from_le_bytes(bytes.try_into().unwrap()).to_f32()),
            _ => u32::from_le_bytes(bytes.try_into().unwrap()).into(),
        }
    }

    pub(crate) fn write(self, value: u64, bytes: &mut [u8]) {
        match self {
            Self::U64 => bytes.copy_from_slice(&value.to_le_bytes()),
            Self::F16 => bytes.copy_from_slice(&f16::from_f32(float(value)).to_le_bytes()),
            _ => bytes.copy_from_slice(&(value as u32).to_le_bytes()),
        }
    }
}

pub(crate) fn unary(op: UnaryOperator, kind: Kind) -> F1 {
    match (op, kind) {
        (UnaryOperator::Negate, Kind::F32 | Kind::F16) => |x| x ^ 0x8000_0000,
        (UnaryOperator::Negate, Kind::I32) => |x| word(signed(x).wrapping_neg()),
        (UnaryOperator::LogicalNot, Kind::Bool) => |x| x ^ 1,
        (UnaryOperator::BitwiseNot, Kind::U32 | Kind::I32) => |x| (!x as u32).into(),
        other => panic!("{other:?} is not supported"),
    }
}

/// One operator on integers of both signs and u64, and on both floats.
macro_rules! numbers {
    ($kind:expr, $int:ident, $float:tt) => {
        match $kind {
            Kind::I32 => |a, b| word(signed(a).$int(signed(b))),
            Kind::U32 => |a, b| (a as u32).$int(b as u32).into(),
            Kind::U64 => |a, b| a.$int(b),
            Kind::F32 => |a, b| bits(float(a) $float float(b)),
            Kind::F16 => |a, b| bits(round_f16(float(a) $float float(b))),
            Kind::Bool => panic!("no arithmetic of booleans"),
        }
    };
}

macro_rules! compare {
    ($kind:expr, $op:tt) => {
        match $kind {
            Kind::I32 => |a, b| (signed(a) $op signed(b)).into(),
            Kind::F32 | Kind::F16 => |a, b| (float(a) $op float(b)).into(),
            Kind::U32 | Kind::U64 | Kind::Bool => |a, b| (a $op b).into(),
        }
    };
}

pub(crate) fn binary(op: BinaryOperator, kind: Kind) -> F2 {
    use BinaryOperator as Op;
    match op {
        Op::Add => numbers!(kind, wrapping_add, +),
        Op::Subtract => numbers!(kind, wrapping_sub, -),
        Op::Multiply => numbers!(kind, wrapping_mul, *),
        Op::Divide => match kind {
            // As in WGSL: x / 0 is x. (Masked-out invocations divide, too.)
            Kind::U32 => |a, b| (a as u32).checked_div(b as u32).map_or(a, u64::from),
            Kind::I32 => |a, b| signed(a).checked_div(signed(b)).map_or(a, word),
            Kind::F32 => |a, b| bits(float(a) / float(b)),
            Kind::F16 => |a, b| bits(round_f16(float(a) / float(b))),
            other => panic!("division of {other:?} is not supported"),
        },
        Op::Modulo => match kind {
            Kind::U32 => |a, b| (a as u32).checked_rem(b as u32).unwrap_or(0).into(),
            Kind::I32 => |a, b| word(signed(a).checked_rem(signed(b)).unwrap_or(0)),
            other => panic!("remainders of {other:?} are not supported"),
        },
        Op::Equal => compare!(kind, ==),
        Op::NotEqual => compare!(kind, !=),
        Op::Less => compare!(kind, <),
        Op::LessEqual => compare!(kind, <=),
        Op::Greater => compare!(kind, >),
        Op::GreaterEqual => compare!(kind, >=),
        Op::And | Op::LogicalAnd => |a, b| a & b,
        Op::InclusiveOr | Op::LogicalOr => |a, b| a | b,
        Op::ExclusiveOr => |a, b| a ^ b,
        Op::ShiftLeft => match kind {
            Kind::U32 | Kind::I32 => |a, b| (a as u32).wrapping_shl(b as u32).into(),
            other => panic!("shifts of {other:?} to the left are not supported"),
        },
        Op::ShiftRight => match kind {
            Kind::U32 => |a, b| (a as u32).wrapping_shr(b as u32).into(),
            Kind::I32 => |a, b| word(signed(a).wrapping_shr(b as u32)),
            Kind::U64 => |a, b| a.wrapping_shr(b as u32),
            other => panic!("shifts of {other:?} are not supported"),
        },
    }
}

/// A built-in function of one, two or three arguments, component by component.
pub(crate) enum Math {
    One(F1),
    Two(F2),
    Three(F3),
}

pub(crate) fn math(fun: MathFunction, kind: Kind) -> Math {
    use MathFunction as Fun;
    let is_float = matches!(kind, Kind::F32);
    match fun {
        Fun::Exp if is_float => Math::One(|x| bits(float(x).exp())),
        Fun::Exp2 if is_float => Math::One(|x| bits(float(x).exp2())),
        Fun::Log if is_float => Math::One(|x| bits(float(x).ln())),
        Fun::Log2 if is_float => Math::One(|x| bits(float(x).log2())),
        Fun::Tanh if is_float => Math::One(|x| bits(float(x).tanh())),
        Fun::Sqrt if is_float => Math::One(|x| bits(float(x).sqrt())),
        Fun::InverseSqrt if is_float => Math::One(|x| bits(1.0 / float(x).sqrt())),
        Fun::Floor if is_float => Math::One(|x| bits(float(x).floor())),
        Fun::Round if is_float => Math::One(|x| bits(float(x).round_ties_even())),
        Fun::Trunc if is_float => Math::One(|x| bits(float(x).trunc())),
        Fun::Ceil if is_float => Math::One(|x| bits(float(x).ceil())),
        Fun::Saturate if is_float => Math::One(|x| bits(float(x).clamp(0.0, 1.0))),
        Fun::Pow if is_float => Math::Two(|x, y| bits(float(x).powf(float(y)))),
        Fun::Abs if kind == Kind::I32 => Math::One(|x| word(signed(x).wrapping_abs())),
        Fun::CountLeadingZeros if kind == Kind::U32 => Math::One(|x| (x as u32).leading_zeros().into()),
        Fun::CountTrailingZeros if kind == Kind::U32 => Math::One(|x| (x as u32).trailing_zeros().into()),
        Fun::Abs if matches!(kind, Kind::F32 | Kind::F16) => Math::One(|x| x & 0x7fff_ffff),
        Fun::FirstLeadingBit if kind == Kind::U32 => {
            Math::One(|x| (x as u32).checked_ilog2().map_or(0xffff_ffff, u64::from))
        }
        Fun::FirstTrailingBit if kind == Kind::U32 => {
            Math::One(|x| if x == 0 { 0xffff_ffff } else { (x as u32).trailing_zeros().into() })
        }
        Fun::CountOneBits if kind == Kind::U32 => Math::One(|x| (x as u32).count_ones().into()),
        Fun::Min | Fun::Max => Math::Two(extremum(fun == Fun::Max, kind)),
        Fun::Fma => match kind {
            Kind::F32 => Math::Three(|a, b, c| bits(float(a).mul_add(float(b), float(c)))),
            Kind::F16 => Math::Three(|a, b, c| bits(round_f16(float(a).mul_add(float(b), float(c))))),
            other => panic!("fma of {other:?}"),
        },
        Fun::Clamp => match kind {
            Kind::I32 => Math::Three(|x, low, high| word(signed(x).max(signed(low)).min(signed(high)))),
            Kind::U32 => Math::Three(|x, low, high| x.max(low).min(high)),
            Kind::F32 => Math::Three(|x, low, high| bits(float(x).max(float(low)).min(float(high)))),
            other => panic!("clamp of {other:?} is not supported"),
        },
        other => panic!("{other:?} of {kind:?} is not supported"),
    }
}

fn extremum(max: bool, kind: Kind) -> F2 {
    match (kind, max) {
        (Kind::I32, false) => |a, b| word(signed(a).min(signed(b))),
        (Kind::I32, true) => |a, b| word(signed(a).max(signed(b))),
        (Kind::U32 | Kind::U64, false) => |a, b| a.min(b),
        (Kind::U32 | Kind::U64, true) => |a, b| a.max(b),
        (Kind::F32 | Kind::F16, false) => |a, b| bits(float(a).min(float(b))),
        (Kind::F32 | Kind::F16, true) => |a, b| bits(float(a).max(float(b))),
        (Kind::Bool, _) => panic!("no order of booleans"),
    }
}

/// A conversion of values.
pub(crate) fn convert(from: Kind, to: Kind) -> F1 {
    match (from, to) {
        _ if from == to => |x| x,
        (Kind::Bool | Kind::U32 | Kind::I32, Kind::U32 | Kind::I32) | (Kind::U32, Kind::U64) => |x| x,
        (Kind::U64, Kind::U32) => |x| x & 0xffff_ffff,
        (Kind::U32 | Kind::I32, Kind::Bool) => |x| (x != 0).into(),
        (Kind::Bool | Kind::U32, Kind::F32) => |x| bits(x as u32 as f32),
        (Kind::I32, Kind::F32) => |x| bits(signed(x) as f32),
        (Kind::U32 | Kind::Bool, Kind::F16) => |x| bits(round_f16(x as u32 as f32)),
        (Kind::F32 | Kind::F16, Kind::U32) => |x| (float(x) as u32).into(),
        (Kind::F32 | Kind::F16, Kind::I32) => |x| word(float(x) as i32),
        (Kind::F16, Kind::F32) => |x| x,
        (Kind::F32, Kind::F16) => |x| bits(round_f16(float(x))),
        other => panic!("conversion {other:?} is not supported"),
    }
}

/// The same bits as another type.
pub(crate) fn bitcast(from: Kind, to: Kind) -> F1 {
    let is_word = |kind| matches!(kind, Kind::U32 | Kind::I32 | Kind::F32);
    assert!(is_word(from) && is_word(to), "bitcast of {from:?} to {to:?} is not supported");
    |x| x
}
