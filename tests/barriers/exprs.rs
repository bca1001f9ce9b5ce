//! From naga's expressions to operations on registers, and from its pointers to places.

use naga::{ArraySize, BinaryOperator, Expression, Handle, MathFunction, RelationalFunction, ScalarKind, TypeInner};

use super::arith::{Kind, Math, binary, bitcast, convert, math, unary};
use super::lower::{Lowerer, Scope};
use super::program::{Index, Op, Place, Root, Slot};

impl<'a> Lowerer<'a> {
    fn inner<'s>(&'s self, scope: &'s Scope<'_>, handle: Handle<Expression>) -> &'s TypeInner {
        scope.info[handle].ty.inner_with(&self.module.types)
    }

    /// The place of a pointer, from its variable on.
    pub(crate) fn place(&self, scope: &Scope<'_>, handle: Handle<Expression>) -> Place {
        let (root, offset, indices, is_component) = self.chain(scope, handle);
        let (size, kind) = match *self.inner(scope, handle) {
            TypeInner::Pointer { base, .. } => {
                let inner = &self.module.types[base].inner;
                (self.size(inner), self.kind(inner))
            }
            TypeInner::ValuePointer { size, scalar, .. } => {
                (size.map_or(1, |size| size as usize), Some(Kind::of(scalar)))
            }
            ref other => panic!("{other:?} is no pointer"),
        };
        Place { root, offset, indices, size, kind, is_component }
    }

    fn chain(&self, scope: &Scope<'_>, handle: Handle<Expression>) -> (Root, usize, Vec<Index>, bool) {
        let extend = |base: Handle<Expression>, index: Result<usize, Slot>| {
            let (root, mut offset, mut indices, _) = self.chain(scope, base);
            let pointee = match *self.inner(scope, base) {
                TypeInner::Pointer { base, .. } => &self.module.types[base].inner,
                ref inner @ TypeInner::ValuePointer { .. } => inner,
                ref other => panic!("{other:?} is no pointer"),
            };
            let (stride, len) = match *pointee {
                TypeInner::Array { base, size, .. } => match size {
                    ArraySize::Constant(len) => (self.size_of(base), Some(len.get() as usize)),
                    ArraySize::Dynamic => (self.size_of(base), None),
                    ArraySize::Pending(_) => panic!("array sizes are not overridden"),
                },
                TypeInner::Vector { size, .. } | TypeInner::ValuePointer { size: Some(size), .. } => {
                    (1, Some(size as usize))
                }
                TypeInner::Struct { ref members, .. } => {
                    let index = index.expect("members of structs are known");
                    offset += members[..index].iter().map(|member| self.size_of(member.ty)).sum::<usize>();
                    return (root, offset, indices, false);
                }
                ref other => panic!("elements of {other:?} are not supported"),
            };
            match index {
                // naga checks constant indices where it knows the size.
                Ok(index) => offset += index * stride,
                Err(slot) => indices.push(Index { slot, stride, len }),
            }
            let is_component = matches!(pointee, TypeInner::Vector { .. } | TypeInner::ValuePointer { .. });
            (root, offset, indices, is_component)
        };
        match scope.function.expressions[handle] {
            Expression::LocalVariable(local) => (Root::Registers(scope.locals[local.index()]), 0, Vec::new(), false),
            Expression::GlobalVariable(global) => (self.globals[global.index()], 0, Vec::new(), false),
            Expression::Access { base, index } => extend(base, Err(scope.slot(index))),
            Expression::AccessIndex { base, index } => extend(base, Ok(index as usize)),
            ref other => panic!("pointers from {other:?} are not supported"),
        }
    }

    /// The effect of an emitted expression. Pointers have none: their users look up their places.
    pub(crate) fn expression(&self, scope: &Scope<'_>, handle: Handle<Expression>) -> Vec<Op> {
        let Some(to) = scope.slots[handle.index()] else { return Vec::new() };
        let line = self.line(scope.function.expressions.get_span(handle));
        let inner = self.inner(scope, handle);
        let size = self.size(inner);
        let kind = |handle| self.kind(self.inner(scope, handle)).expect("scalars of one kind");
        // A register, and 0 as the step of a scalar beside a vector.
        let stepped = |handle| (scope.slot(handle), usize::from(self.size(self.inner(scope, handle)) == size));
        let op = match scope.function.expressions[handle] {
            Expression::Compose { ref components, .. } => {
                let mut at = to;
                let copy = |&component: &Handle<Expression>| {
                    let size = self.size(self.inner(scope, component));
                    at += size;
                    Op::Copy { to: at - size, from: scope.slot(component), size }
                };
                return components.iter().map(copy).collect();
            }
            Expression::Splat { value, .. } => Op::Splat { to, from: scope.slot(value), size },
            Expression::Swizzle { vector, pattern, .. } => {
                let from = scope.slot(vector);
                let copy = |at| Op::Copy { to: to + at, from: from + pattern[at] as usize, size: 1 };
                return (0..size).map(copy).collect();
            }
            Expression::AccessIndex { base, index } => {
                let offset = match *self.inner(scope, base) {
                    TypeInner::Struct { ref members, .. } => {
                        members[..index as usize].iter().map(|member| self.size_of(member.ty)).sum::<usize>()
                    }
                    TypeInner::Vector { .. } | TypeInner::Array { .. } => index as usize * size,
                    ref other => panic!("elements of {other:?} are not supported"),
                };
                Op::Copy { to, from: scope.slot(base) + offset, size }
            }
            Expression::Access { base, index } => {
                let len = self.size(self.inner(scope, base)) / size;
                Op::Pick { to, from: scope.slot(base), index: scope.slot(index), size, len, line }
            }
            Expression::Load { pointer } => Op::Load { to, place: self.place(scope, pointer), line },
            Expression::Unary { op, expr } => Op::One { to, a: scope.slot(expr), size, f: unary(op, kind(expr)) },
            Expression::Binary { op, left, right } => {
                assert!(!matches!(inner, TypeInner::Matrix { .. }), "matrices of WGSL are not supported");
                Op::Two { to, a: stepped(left), b: stepped(right), size, f: binary(op, kind(left)) }
            }
            Expression::Select { condition, accept, reject } => {
                let [accept, reject] = [accept, reject].map(|handle| scope.slot(handle));
                Op::Select { to, condition: stepped(condition), accept, reject, size }
            }
            Expression::Relational { fun, argument } => {
                let op = match fun {
                    RelationalFunction::All => BinaryOperator::LogicalAnd,
                    RelationalFunction::Any => BinaryOperator::LogicalOr,
                    other => panic!("{other:?} is not supported"),
                };
                let size = self.size(self.inner(scope, argument));
                Op::Fold { to, from: scope.slot(argument), size, f: binary(op, Kind::Bool) }
            }
            Expression::Math { fun, arg, arg1, arg2, .. } => {
                let args = [Some(arg), arg1, arg2].map(|arg| arg.map(|arg| scope.slot(arg)));
                self.math(fun, (to, size), args, kind(arg), self.size(self.inner(scope, arg)))
            }
            Expression::As { expr, kind: target, convert: bytes } => {
                let (from, into) = (kind(expr), self.kind(inner).expect("scalars of one kind"));
                assert_eq!(
                    matches!(into, Kind::F16 | Kind::F32),
                    target == ScalarKind::Float,
                    "conversions of scalars"
                );
                let f = if bytes.is_some() { convert(from, into) } else { bitcast(from, into) };
                Op::One { to, a: scope.slot(expr), size, f }
            }
            Expression::CooperativeLoad { ref data, .. } => {
                Op::MatrixLoad { to, at: self.matrix_at(scope, handle, data), line }
            }
            Expression::CooperativeMultiplyAdd { a, b, c } => {
                let TypeInner::CooperativeMatrix { columns, .. } = *inner else { panic!("a product is a matrix") };
                let [a, b, c] = [a, b, c].map(|handle| scope.slot(handle));
                Op::MatrixMultiplyAdd { to, a, b, c, edge: columns as usize, line }
            }
            ref other => panic!("{other:?} is not supported"),
        };
        vec![op]
    }

    fn math(
        &self,
        fun: MathFunction,
        (to, size): (Slot, usize),
        args: [Option<Slot>; 3],
        kind: Kind,
        size_of_argument: usize,
    ) -> Op {
        let arg = |at: usize| args[at].expect("as many arguments as the function has");
        match fun {
            MathFunction::Unpack2x16float => return Op::UnpackHalves { to, from: arg(0) },
            MathFunction::Dot => {
                let (multiply, add) = (binary(BinaryOperator::Multiply, kind), binary(BinaryOperator::Add, kind));
                return Op::Dot { to, a: arg(0), b: arg(1), size: size_of_argument, multiply, add };
            }
            _ => {}
        }
        match math(fun, kind) {
            Math::One(f) => Op::One { to, a: arg(0), size, f },
            Math::Two(f) => Op::Two { to, a: (arg(0), 1), b: (arg(1), 1), size, f },
            Math::Three(f) => Op::Three { to, args: [arg(0), arg(1), arg(2)], size, f },
        }
    }
}
