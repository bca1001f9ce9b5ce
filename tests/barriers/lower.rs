//! From naga's modules to programs: variables, functions and statements.

use naga::front::wgsl;
use naga::valid::{Capabilities, FunctionInfo, ValidationFlags, Validator};
use naga::{
    AddressSpace, ArraySize, AtomicFunction, Barrier, BinaryOperator, BuiltIn, CollectiveOperation, Expression,
    GatherMode, Handle, Literal, Module, Statement, StorageAccess, Type, TypeInner,
};

use super::arith::{F2, Kind, Math, binary, bits, math};
use super::program::{
    Function, Gather, Given, MatrixAt, MemoryVariable, Node, Op, Program, Root, Slot, Space, Variable, reduction,
};
use super::shadow::{Access, Atomic};

/// Parses, validates and lowers a shader of one entry point. Panics on unknown constructs.
pub(crate) fn lower(source: &str, subgroup_size: usize) -> Program {
    let module = wgsl::parse_str(source).unwrap_or_else(|error| panic!("{}", error.emit_to_string(source)));
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{}", error.emit_to_string(source)));
    let entry = &module.entry_points[0];
    let lanes = entry.workgroup_size.iter().product::<u32>() as usize;
    assert_eq!(entry.workgroup_size[1..], [1, 1], "workgroups are lines");
    assert!(lanes.is_multiple_of(subgroup_size), "{lanes} invocations in subgroups of {subgroup_size}");
    let mut lowerer = Lowerer {
        module: &module,
        subgroup_size,
        num_slots: 0,
        constants: Vec::new(),
        globals: Vec::new(),
        line_ends: source.match_indices('\n').map(|(at, _)| at).collect(),
        functions: Vec::new(),
    };
    let (privates, memories) = lowerer.variables();
    for (handle, function) in module.functions.iter() {
        let lowered = lowerer.function(function, &info[handle]);
        lowerer.functions.push(lowered);
    }
    let lowered = lowerer.function(&entry.function, info.get_entry_point(0));
    let given = lowerer.given(&entry.function, &lowered);
    Program {
        source: source.to_owned(),
        lanes,
        subgroup_size,
        num_slots: lowerer.num_slots,
        constants: lowerer.constants,
        privates,
        memories,
        functions: lowerer.functions,
        entry: lowered,
        given,
    }
}

pub(crate) struct Lowerer<'a> {
    pub(crate) module: &'a Module,
    pub(crate) subgroup_size: usize,
    num_slots: usize,
    constants: Vec<Variable>,
    /// Where each global variable is.
    pub(crate) globals: Vec<Root>,
    line_ends: Vec<usize>,
    functions: Vec<Function>,
}

/// Context for lowering a function.
pub(crate) struct Scope<'a> {
    pub(crate) function: &'a naga::Function,
    pub(crate) info: &'a FunctionInfo,
    /// Registers of its expressions; pointers have none.
    pub(crate) slots: Vec<Option<Slot>>,
    pub(crate) locals: Vec<Slot>,
    arguments: Vec<(Slot, usize)>,
    result: (Slot, usize),
}

impl Scope<'_> {
    pub(crate) fn slot(&self, handle: Handle<Expression>) -> Slot {
        let expression = &self.function.expressions[handle];
        self.slots[handle.index()].unwrap_or_else(|| panic!("{expression:?} has no value"))
    }
}

impl<'a> Lowerer<'a> {
    fn reserve(&mut self, size: usize) -> Slot {
        self.num_slots += size;
        self.num_slots - size
    }

    /// Scalars of a value.
    pub(crate) fn size(&self, inner: &TypeInner) -> usize {
        match *inner {
            TypeInner::Scalar(_) | TypeInner::Atomic(_) => 1,
            TypeInner::Vector { size, .. } => size as usize,
            TypeInner::Array { base, size: ArraySize::Constant(len), .. } => len.get() as usize * self.size_of(base),
            TypeInner::Struct { ref members, .. } => members.iter().map(|member| self.size_of(member.ty)).sum(),
            TypeInner::CooperativeMatrix { columns, rows, .. } => {
                let elements = columns as usize * rows as usize;
                assert!(elements.is_multiple_of(self.subgroup_size), "matrices fill subgroups");
                elements / self.subgroup_size
            }
            ref other => panic!("values of {other:?} are not supported"),
        }
    }

    pub(crate) fn size_of(&self, ty: Handle<Type>) -> usize {
        self.size(&self.module.types[ty].inner)
    }

    /// The kind of a value's scalars, if all have the same.
    pub(crate) fn kind(&self, inner: &TypeInner) -> Option<Kind> {
        match *inner {
            TypeInner::Scalar(scalar) | TypeInner::Atomic(scalar) | TypeInner::Vector { scalar, .. } => {
                Some(Kind::of(scalar))
            }
            TypeInner::CooperativeMatrix { scalar, .. } => Some(Kind::of(scalar)),
            TypeInner::Array { base, .. } => self.kind(&self.module.types[base].inner),
            _ => None,
        }
    }

    fn variables(&mut self) -> (Vec<Variable>, Vec<MemoryVariable>) {
        let (mut privates, mut memories) = (Vec::new(), Vec::new());
        for (_, global) in self.module.global_variables.iter() {
            let inner = &self.module.types[global.ty].inner;
            let space = match global.space {
                AddressSpace::Uniform => Space::Uniform,
                AddressSpace::WorkGroup => Space::Workgroup,
                AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => Space::Storage,
                AddressSpace::Storage { .. } => Space::ReadOnly,
                AddressSpace::Private => {
                    let size = self.size(inner);
                    let initial = global.init.map_or(vec![0; size], |init| self.global_constant(init));
                    let slot = self.reserve(size);
                    privates.push(Variable { slot, initial });
                    self.globals.push(Root::Registers(slot));
                    continue;
                }
                ref other => panic!("variables in {other:?} are not supported"),
            };
            let is_buffer = matches!(space, Space::ReadOnly | Space::Storage);
            self.globals.push(Root::Memory(memories.len()));
            memories.push(MemoryVariable {
                name: global.name.clone().expect("variables have names"),
                space,
                kind: self.kind(inner).unwrap_or(Kind::U32),
                size: if is_buffer { 0 } else { self.size(inner) },
            });
        }
        (privates, memories)
    }

    fn function(&mut self, function: &'a naga::Function, info: &'a FunctionInfo) -> Function {
        let arguments = function.arguments.iter().map(|argument| self.size_of(argument.ty)).collect::<Vec<_>>();
        let arguments: Vec<_> = arguments.into_iter().map(|size| (self.reserve(size), size)).collect();
        let size = function.result.as_ref().map_or(0, |result| self.size_of(result.ty));
        let result = (self.reserve(size), size);
        let mut locals = Vec::new();
        for (_, local) in function.local_variables.iter() {
            let size = self.size_of(local.ty);
            let initial = local.init.map_or(vec![0; size], |init| self.constant(&function.expressions, init));
            locals.push(Variable { slot: self.reserve(size), initial });
        }
        let local_slots = locals.iter().map(|local| local.slot).collect();
        let mut scope = Scope { function, info, slots: Vec::new(), locals: local_slots, arguments, result };
        for (handle, expression) in function.expressions.iter() {
            let slot = self.register(&scope, handle, expression);
            scope.slots.push(slot);
        }
        let body = self.block(&scope, &function.body);
        Function { arguments: scope.arguments, locals, result, body }
    }

    /// The registers of an expression. Expressions that no statement emits hold their values from the beginning.
    fn register(&mut self, scope: &Scope<'_>, handle: Handle<Expression>, expression: &Expression) -> Option<Slot> {
        let inner = scope.info[handle].ty.inner_with(&self.module.types);
        if matches!(inner, TypeInner::Pointer { .. } | TypeInner::ValuePointer { .. }) {
            return None;
        }
        match *expression {
            Expression::FunctionArgument(index) => return Some(scope.arguments[index as usize].0),
            Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_) => {
                let initial = self.constant(&scope.function.expressions, handle);
                let slot = self.reserve(initial.len());
                self.constants.push(Variable { slot, initial });
                return Some(slot);
            }
            _ => {}
        }
        let size = self.size(inner);
        Some(self.reserve(size))
    }

    fn global_constant(&self, handle: Handle<Expression>) -> Vec<u64> {
        self.constant(&self.module.global_expressions, handle)
    }

    fn constant(&self, expressions: &naga::Arena<Expression>, handle: Handle<Expression>) -> Vec<u64> {
        match expressions[handle] {
            Expression::Literal(literal) => vec![match literal {
                Literal::F32(x) => bits(x),
                Literal::F16(x) => bits(x.to_f32()),
                Literal::U32(x) => x.into(),
                Literal::I32(x) => (x as u32).into(),
                Literal::U64(x) => x,
                Literal::Bool(x) => x.into(),
                other => panic!("literals {other:?} are not supported"),
            }],
            Expression::Constant(constant) => self.global_constant(self.module.constants[constant].init),
            Expression::ZeroValue(ty) => vec![0; self.size_of(ty)],
            Expression::Compose { ref components, .. } => {
                components.iter().flat_map(|&component| self.constant(expressions, component)).collect()
            }
            Expression::Splat { size, value } => self.constant(expressions, value).repeat(size as usize),
            ref other => panic!("constants {other:?} are not supported"),
        }
    }

    pub(crate) fn line(&self, span: naga::Span) -> u32 {
        let start = span.to_range().map_or(0, |range| range.start);
        self.line_ends.partition_point(|&end| end < start) as u32 + 1
    }

    fn block(&mut self, scope: &Scope<'_>, block: &naga::Block) -> Vec<Node> {
        let mut nodes = Vec::new();
        for (statement, span) in block.span_iter() {
            let line = self.line(*span);
            if let Statement::Emit(range) = statement {
                for handle in range.clone() {
                    let ops = self.expression(scope, handle);
                    append(&mut nodes, ops);
                }
            } else if let Some(op) = self.operation(scope, statement, line) {
                append(&mut nodes, vec![op]);
            } else {
                let node = self.control(scope, statement);
                nodes.extend(node);
            }
        }
        nodes
    }

    fn control(&mut self, scope: &Scope<'_>, statement: &Statement) -> Vec<Node> {
        let node = match statement {
            Statement::Block(block) => return self.block(scope, block),
            Statement::If { condition, accept, reject } => Node::If {
                condition: scope.slot(*condition),
                accept: self.block(scope, accept),
                reject: self.block(scope, reject),
            },
            Statement::Loop { body, continuing, break_if } => Node::Loop {
                body: self.block(scope, body),
                continuing: self.block(scope, continuing),
                break_if: break_if.map(|condition| scope.slot(condition)),
            },
            Statement::Break => Node::Break,
            Statement::Continue => Node::Continue,
            Statement::Return { value } => {
                let (to, size) = scope.result;
                Node::Return { copy: value.map(|value| [to, scope.slot(value), size]) }
            }
            Statement::Call { function, arguments, result } => {
                let callee = &self.functions[function.index()];
                let given = callee.arguments.iter().zip(arguments);
                Node::Call {
                    function: function.index(),
                    arguments: given.map(|(&(to, size), &from)| [to, scope.slot(from), size]).collect(),
                    result: result.map(|to| [scope.slot(to), callee.result.0, callee.result.1]),
                }
            }
            other => panic!("{other:?} is not supported"),
        };
        vec![node]
    }

    fn operation(&self, scope: &Scope<'_>, statement: &Statement, line: u32) -> Option<Op> {
        let kind_of = |handle: Handle<Expression>| {
            self.kind(scope.info[handle].ty.inner_with(&self.module.types)).expect("scalars of one kind")
        };
        let size_of = |handle: Handle<Expression>| self.size(scope.info[handle].ty.inner_with(&self.module.types));
        Some(match *statement {
            Statement::Store { pointer, value } => {
                Op::Store { from: scope.slot(value), place: self.place(scope, pointer), line }
            }
            Statement::Atomic { pointer, ref fun, value, result } => {
                let place = self.place(scope, pointer);
                let used = result.filter(|&result| scope.info[result].ref_count > 0);
                let (f, access) = atomic(fun, place.kind.expect("atomics are scalars"));
                let access = if used.is_some() { Access::Exchange } else { access };
                Op::Atomic { to: used.map(|used| scope.slot(used)), value: scope.slot(value), place, f, access, line }
            }
            Statement::WorkGroupUniformLoad { pointer, result } => {
                Op::UniformLoad { to: scope.slot(result), place: self.place(scope, pointer), line }
            }
            Statement::ControlBarrier(barrier) => {
                let known = Barrier::WORK_GROUP | Barrier::STORAGE;
                assert!(known.contains(barrier), "barriers {barrier:?} are not supported");
                let workgroup = barrier.contains(Barrier::WORK_GROUP);
                Op::Barrier { workgroup, storage: barrier.contains(Barrier::STORAGE), line }
            }
            Statement::SubgroupGather { mode, argument, result } => {
                let mode = match mode {
                    GatherMode::BroadcastFirst => Gather::First,
                    GatherMode::Broadcast(lane) | GatherMode::Shuffle(lane) => Gather::Lane(scope.slot(lane)),
                    GatherMode::ShuffleXor(mask) => Gather::Xor(scope.slot(mask)),
                    other => panic!("{other:?} is not supported"),
                };
                Op::Gather { to: scope.slot(result), from: scope.slot(argument), size: size_of(argument), mode, line }
            }
            Statement::SubgroupCollectiveOperation { op, collective_op, argument, result } => {
                let (to, from, size) = (scope.slot(result), scope.slot(argument), size_of(argument));
                let f = reduction(op, collective_op, kind_of(argument));
                match collective_op {
                    CollectiveOperation::ExclusiveScan => Op::SumBefore { to, from, size, f, line },
                    _ => Op::Reduce { to, from, size, f, line },
                }
            }
            Statement::CooperativeStore { target, ref data } => {
                Op::MatrixStore { from: scope.slot(target), at: self.matrix_at(scope, target, data), line }
            }
            _ => return None,
        })
    }

    /// The place of a matrix in memory. `matrix` is the expression that has its type.
    pub(crate) fn matrix_at(
        &self,
        scope: &Scope<'_>,
        matrix: Handle<Expression>,
        data: &naga::CooperativeData,
    ) -> MatrixAt {
        let TypeInner::CooperativeMatrix { columns, rows, .. } = *scope.info[matrix].ty.inner_with(&self.module.types)
        else {
            panic!("a matrix is loaded or stored")
        };
        assert_eq!(columns as u32, rows as u32, "matrices are square");
        let (place, stride) = (self.place(scope, data.pointer), scope.slot(data.stride));
        MatrixAt { place, stride, row_major: data.row_major, edge: columns as usize }
    }

    fn given(&self, function: &naga::Function, lowered: &Function) -> Vec<(Slot, Given)> {
        let mut given = Vec::new();
        for (argument, &(slot, _)) in function.arguments.iter().zip(&lowered.arguments) {
            let of = |at: Slot, binding: &Option<naga::Binding>| match binding {
                Some(naga::Binding::BuiltIn(built_in)) => built_in_values(*built_in, at),
                other => panic!("arguments bound to {other:?} are not supported"),
            };
            match &self.module.types[argument.ty].inner {
                TypeInner::Struct { members, .. } => {
                    let mut at = slot;
                    for member in members {
                        given.extend(of(at, &member.binding));
                        at += self.size_of(member.ty);
                    }
                }
                _ => given.extend(of(slot, &argument.binding)),
            }
        }
        given
    }
}

fn append(nodes: &mut Vec<Node>, ops: Vec<Op>) {
    if let Some(Node::Ops(last)) = nodes.last_mut() {
        last.extend(ops);
    } else {
        nodes.push(Node::Ops(ops));
    }
}

fn built_in_values(built_in: BuiltIn, at: Slot) -> Vec<(Slot, Given)> {
    let axes = |of: fn(usize) -> Given| (0..3).map(|axis| (at + axis, of(axis))).collect();
    match built_in {
        BuiltIn::LocalInvocationIndex => vec![(at, Given::LocalIndex)],
        BuiltIn::SubgroupId => vec![(at, Given::SubgroupId)],
        BuiltIn::SubgroupSize => vec![(at, Given::SubgroupSize)],
        BuiltIn::SubgroupInvocationId => vec![(at, Given::SubgroupLane)],
        BuiltIn::LocalInvocationId => axes(Given::LocalId),
        BuiltIn::WorkGroupId => axes(Given::WorkgroupId),
        BuiltIn::NumWorkGroups => axes(Given::NumWorkgroups),
        BuiltIn::GlobalInvocationId => axes(Given::GlobalId),
        other => panic!("{other:?} is not supported"),
    }
}

fn atomic(fun: &AtomicFunction, kind: Kind) -> (F2, Access) {
    let extremum = |fun| match math(fun, kind) {
        Math::Two(f) => f,
        _ => unreachable!("min and max have two arguments"),
    };
    let (f, atomic): (F2, Atomic) = match fun {
        AtomicFunction::Add => (binary(BinaryOperator::Add, kind), Atomic::Add),
        AtomicFunction::Subtract => (binary(BinaryOperator::Subtract, kind), Atomic::Add),
        AtomicFunction::And => (binary(BinaryOperator::And, kind), Atomic::And),
        AtomicFunction::InclusiveOr => (binary(BinaryOperator::InclusiveOr, kind), Atomic::Or),
        AtomicFunction::ExclusiveOr => (binary(BinaryOperator::ExclusiveOr, kind), Atomic::Xor),
        AtomicFunction::Min => (extremum(naga::MathFunction::Min), Atomic::Min),
        AtomicFunction::Max => (extremum(naga::MathFunction::Max), Atomic::Max),
        AtomicFunction::Exchange { compare: None } => return (|_, value| value, Access::Exchange),
        other => panic!("atomic {other:?} is not supported"),
    };
    (f, Access::Atomic(atomic))
}
