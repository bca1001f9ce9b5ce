//! A shader made ready to run: every value has registers of its own, every expression is an operation on them.
//!
//! A register holds one scalar for each invocation of a workgroup. Composite values are ranges of registers. Functions cannot recurse, so
//! that each has its registers once.

use naga::{CollectiveOperation, SubgroupOperation};

use super::arith::{F1, F2, F3, Kind};
use super::shadow::Access;

/// The number of a register.
pub(crate) type Slot = usize;

/// One dynamic index of a pointer.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(crate) slot: Slot,
    pub(crate) stride: usize,
    /// `None`: the number that the buffer holds.
    pub(crate) len: Option<usize>,
}

/// The place of a pointer, in scalars.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) root: Root,
    pub(crate) offset: usize,
    pub(crate) indices: Vec<Index>,
    /// Scalars there.
    pub(crate) size: usize,
    pub(crate) kind: Option<Kind>,
    /// A component of a vector: writing it may touch the others.
    pub(crate) is_component: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// A variable of a function or an invocation.
    Registers(Slot),
    /// A variable of the workgroup, or a binding.
    Memory(usize),
}

/// A matrix of a subgroup: element `row * edge + column` is in register `element / subgroup size` of the lane
/// `element % subgroup size`.
#[derive(Clone, Debug)]
pub(crate) struct MatrixAt {
    pub(crate) place: Place,
    pub(crate) stride: Slot,
    pub(crate) row_major: bool,
    pub(crate) edge: usize,
}

pub(crate) enum Op {
    Copy {
        to: Slot,
        from: Slot,
        size: usize,
    },
    Splat {
        to: Slot,
        from: Slot,
        size: usize,
    },
    Pick {
        to: Slot,
        from: Slot,
        index: Slot,
        size: usize,
        len: usize,
        line: u32,
    },
    One {
        to: Slot,
        a: Slot,
        size: usize,
        f: F1,
    },
    /// Steps are 0 for a scalar beside a vector.
    Two {
        to: Slot,
        a: (Slot, usize),
        b: (Slot, usize),
        size: usize,
        f: F2,
    },
    Three {
        to: Slot,
        args: [Slot; 3],
        size: usize,
        f: F3,
    },
    Select {
        to: Slot,
        condition: (Slot, usize),
        accept: Slot,
        reject: Slot,
        size: usize,
    },
    /// A sum of products, or of all components, of booleans `and` or `or`.
    Dot {
        to: Slot,
        a: Slot,
        b: Slot,
        size: usize,
        multiply: F2,
        add: F2,
    },
    Fold {
        to: Slot,
        from: Slot,
        size: usize,
        f: F2,
    },
    UnpackHalves {
        to: Slot,
        from: Slot,
    },
    Load {
        to: Slot,
        place: Place,
        line: u32,
    },
    Store {
        from: Slot,
        place: Place,
        line: u32,
    },
    Atomic {
        to: Option<Slot>,
        value: Slot,
        place: Place,
        f: F2,
        access: Access,
        line: u32,
    },
    UniformLoad {
        to: Slot,
        place: Place,
        line: u32,
    },
    Barrier {
        workgroup: bool,
        storage: bool,
        line: u32,
    },
    Gather {
        to: Slot,
        from: Slot,
        size: usize,
        mode: Gather,
        line: u32,
    },
    Reduce {
        to: Slot,
        from: Slot,
        size: usize,
        f: F2,
        line: u32,
    },
    /// Each lane gets the sum of the lanes before it.
    SumBefore {
        to: Slot,
        from: Slot,
        size: usize,
        f: F2,
        line: u32,
    },
    MatrixLoad {
        to: Slot,
        at: MatrixAt,
        line: u32,
    },
    MatrixStore {
        from: Slot,
        at: MatrixAt,
        line: u32,
    },
    MatrixMultiplyAdd {
        to: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
        edge: usize,
        line: u32,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Gather {
    First,
    Lane(Slot),
    Xor(Slot),
}

pub(crate) enum Node {
    Ops(Vec<Op>),
    If {
        condition: Slot,
        accept: Vec<Node>,
        reject: Vec<Node>,
    },
    Loop {
        body: Vec<Node>,
        continuing: Vec<Node>,
        break_if: Option<Slot>,
    },
    Break,
    Continue,
    Return {
        copy: Option<[Slot; 3]>,
    },
    /// Registers to copy (to, from, how many), then the callee, then its result.
    Call {
        function: usize,
        arguments: Vec<[Slot; 3]>,
        result: Option<[Slot; 3]>,
    },
}

pub(crate) struct Function {
    pub(crate) arguments: Vec<(Slot, usize)>,
    pub(crate) locals: Vec<Variable>,
    pub(crate) result: (Slot, usize),
    pub(crate) body: Vec<Node>,
}

/// A variable in registers, and its initial value.
pub(crate) struct Variable {
    pub(crate) slot: Slot,
    pub(crate) initial: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Uniform,
    ReadOnly,
    Storage,
    Workgroup,
}

/// A variable in memory.
#[derive(Clone, Debug)]
pub(crate) struct MemoryVariable {
    pub(crate) name: String,
    pub(crate) space: Space,
    /// The kind of all its scalars; in a uniform each is a word.
    pub(crate) kind: Kind,
    /// Scalars, of a workgroup's variable or a uniform.
    pub(crate) size: usize,
}

/// The contents of an argument of the entry point, one for each register.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Given {
    LocalIndex,
    LocalId(usize),
    WorkgroupId(usize),
    NumWorkgroups(usize),
    GlobalId(usize),
    SubgroupId,
    SubgroupSize,
    SubgroupLane,
}

pub(crate) struct Program {
    pub(crate) source: String,
    pub(crate) lanes: usize,
    pub(crate) subgroup_size: usize,
    pub(crate) num_slots: usize,
    pub(crate) constants: Vec<Variable>,
    pub(crate) privates: Vec<Variable>,
    pub(crate) memories: Vec<MemoryVariable>,
    pub(crate) functions: Vec<Function>,
    pub(crate) entry: Function,
    pub(crate) given: Vec<(Slot, Given)>,
}

impl Program {
    /// A line of the source, for messages.
    pub(crate) fn line(&self, number: u32) -> String {
        let text = self.source.lines().nth((number as usize).saturating_sub(1)).unwrap_or_default();
        format!("line {number} `{}`", text.trim())
    }
}

/// How the lanes of a subgroup are combined into one value.
pub(crate) fn reduction(op: SubgroupOperation, collective: CollectiveOperation, kind: Kind) -> F2 {
    use naga::{BinaryOperator, MathFunction};
    let is_sum = op == SubgroupOperation::Add && collective == CollectiveOperation::ExclusiveScan;
    assert!(is_sum || collective == CollectiveOperation::Reduce, "{collective:?} of subgroups is not supported");
    let extremum = |fun| match super::arith::math(fun, kind) {
        super::arith::Math::Two(f) => f,
        _ => unreachable!("min and max have two arguments"),
    };
    match op {
        SubgroupOperation::Add => super::arith::binary(BinaryOperator::Add, kind),
        SubgroupOperation::Max => extremum(MathFunction::Max),
        SubgroupOperation::Min => extremum(MathFunction::Min),
        SubgroupOperation::All | SubgroupOperation::And => |a, b| a & b,
        SubgroupOperation::Any | SubgroupOperation::Or => |a, b| a | b,
        SubgroupOperation::Xor => |a, b| a ^ b,
        SubgroupOperation::Mul => panic!("{op:?} of a subgroup is not supported"),
    }
}
