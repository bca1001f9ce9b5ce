//! Counts in a shader's text: statements by depth of loops, and arrays that cannot lie in registers.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{Block, Expression, Function, MathFunction, Module, Statement, TypeInner};

pub fn parse(wgsl: &str) -> Module {
    let module = naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|error| panic!("{}", error.emit_to_string(wgsl)));
    Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).unwrap();
    module
}

pub fn function<'a>(module: &'a Module, name: &str) -> &'a Function {
    let found = module.functions.iter().find(|(_, function)| function.name.as_deref() == Some(name));
    found.unwrap_or_else(|| panic!("no function {name}")).1
}

/// Counts by `counts` over all statements, at each depth of loops.
pub fn count(block: &Block, depth: usize, counts: &impl Fn(&Statement) -> usize, found: &mut Vec<usize>) {
    for statement in block {
        found.resize(found.len().max(depth + 1), 0);
        found[depth] += counts(statement);
        match statement {
            Statement::Block(inner) => count(inner, depth, counts, found),
            Statement::If { accept, reject, .. } => {
                count(accept, depth, counts, found);
                count(reject, depth, counts, found);
            }
            Statement::Loop { body, continuing, .. } => {
                count(body, depth + 1, counts, found);
                count(continuing, depth + 1, counts, found);
            }
            _ => {}
        }
    }
}

/// Products of matrices that an emitted range evaluates.
pub fn products(function: &Function) -> impl Fn(&Statement) -> usize + '_ {
    |statement| match statement {
        Statement::Emit(range) => range
            .clone()
            .filter(|&handle| matches!(function.expressions[handle], Expression::CooperativeMultiplyAdd { .. }))
            .count(),
        _ => 0,
    }
}

/// Matrices that an emitted range loads.
pub fn matrix_loads(function: &Function) -> impl Fn(&Statement) -> usize + '_ {
    |statement| match statement {
        Statement::Emit(range) => range
            .clone()
            .filter(|&handle| matches!(function.expressions[handle], Expression::CooperativeLoad { .. }))
            .count(),
        _ => 0,
    }
}

pub fn matrix_stores(statement: &Statement) -> usize {
    usize::from(matches!(statement, Statement::CooperativeStore { .. }))
}

pub fn spirv_words(module: &Module) -> usize {
    let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(module).unwrap();
    let options = naga::back::spv::Options { lang_version: (1, 3), ..Default::default() };
    naga::back::spv::write_vec(module, &info, &options, None).unwrap().len()
}

pub fn barriers(statement: &Statement) -> usize {
    usize::from(matches!(statement, Statement::ControlBarrier(_)))
}

/// Local arrays that are indexed by something other than a constant: drivers keep those in memory.
pub fn indexed_locals(module: &Module, function: &Function) -> Vec<String> {
    let mut found = Vec::new();
    for (_, expression) in function.expressions.iter() {
        let Expression::Access { base, .. } = expression else { continue };
        let mut at = *base;
        while let Expression::Access { base, .. } | Expression::AccessIndex { base, .. } = function.expressions[at] {
            at = base;
        }
        if let Expression::LocalVariable(variable) = function.expressions[at] {
            let variable = &function.local_variables[variable];
            if matches!(module.types[variable.ty].inner, TypeInner::Array { .. }) {
                found.push(variable.name.clone().unwrap_or_default());
            }
        }
    }
    found
}

/// Loads of a variable in memory that an emitted range evaluates.
pub fn loads<'a>(module: &'a Module, function: &'a Function, buffer: &'a str) -> impl Fn(&Statement) -> usize + 'a {
    let is_load = move |expression: &Expression| {
        let Expression::Load { pointer } = *expression else { return false };
        let mut at = pointer;
        while let Expression::Access { base, .. } | Expression::AccessIndex { base, .. } = function.expressions[at] {
            at = base;
        }
        let Expression::GlobalVariable(variable) = function.expressions[at] else { return false };
        module.global_variables[variable].name.as_deref() == Some(buffer)
    };
    move |statement| match statement {
        Statement::Emit(range) => range.clone().filter(|&handle| is_load(&function.expressions[handle])).count(),
        _ => 0,
    }
}

/// Multiply-adds of numbers.
pub fn multiply_adds<'a>(module: &'a Module, function: &'a Function) -> impl Fn(&Statement) -> usize + 'a {
    let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(module).unwrap();
    let (handle, _) = module.functions.iter().find(|(_, found)| core::ptr::eq(*found, function)).unwrap();
    let widths: Vec<usize> = function
        .expressions
        .iter()
        .map(|(at, expression)| match expression {
            Expression::Math { fun: MathFunction::Fma, .. } => match info[handle][at].ty.inner_with(&module.types) {
                TypeInner::Vector { size, .. } => *size as usize,
                _ => 1,
            },
            _ => 0,
        })
        .collect();
    move |statement| match statement {
        Statement::Emit(range) => range.clone().map(|handle| widths[handle.index()]).sum(),
        _ => 0,
    }
}
