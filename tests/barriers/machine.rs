//! Runs a program: workgroup after workgroup, all invocations of one in step, with a shadow that records accesses to each word.

use std::collections::BTreeMap;

use super::launch::Uniforms;
use super::program::{Function, Given, Index, Node, Place, Program, Root, Slot, Space, Variable};
use super::shadow::{Access, Conflict, Fault, Word};

/// Some of the invocations of a workgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mask([u64; 4]);

impl Mask {
    const NONE: Self = Self([0; 4]);

    fn first(lanes: usize) -> Self {
        assert!(lanes <= 256, "{lanes} invocations");
        let mut mask = Self::NONE;
        (0..lanes).for_each(|lane| mask.set(lane));
        mask
    }

    pub(crate) fn has(self, lane: usize) -> bool {
        self.0[lane / 64] >> (lane % 64) & 1 == 1
    }

    fn set(&mut self, lane: usize) {
        self.0[lane / 64] |= 1 << (lane % 64);
    }

    fn is_empty(self) -> bool {
        self == Self::NONE
    }

    fn zip(self, other: Self, f: fn(u64, u64) -> u64) -> Self {
        Self(core::array::from_fn(|i| f(self.0[i], other.0[i])))
    }

    fn and(self, other: Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    fn or(self, other: Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    fn without(self, other: Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }
}

/// The contents of a variable in memory, and its shadow.
struct Memory {
    data: Vec<u64>,
    /// Accesses since the last barrier that orders it.
    shadow: Vec<Word>,
    /// Accesses by the workgroups of the dispatch.
    across: Vec<Word>,
    /// The workgroup that wrote a word last, counted from 1.
    written: Vec<u32>,
}

pub(crate) struct Machine<'a> {
    pub(crate) program: &'a Program,
    pub(crate) registers: Vec<u64>,
    memories: Vec<Memory>,
    /// Intervals between barriers, of workgroup memory and of storage.
    epochs: [u32; 2],
    /// The workgroup, counted from 1.
    workgroup: u32,
    /// Accessors beside the invocations: one for each matrix that is loaded or stored.
    pub(crate) others: u32,
    all: Mask,
    loops: Vec<[Mask; 2]>,
    /// Operations so far.
    pub(crate) steps: u64,
    /// By line and variable: the largest number of lanes, of eight that load or store a vec4 of workgroup memory, that met on a bank.
    pub(crate) banks: BTreeMap<(u32, usize), usize>,
}

/// The cost of a dispatch.
pub(crate) struct Ran {
    pub(crate) steps: u64,
    /// Lines of workgroup memory, each with the number of lanes that met on a bank.
    pub(crate) banks: Vec<(String, usize)>,
}

/// Runs a dispatch. Buffers are bound by the names of their variables, and hold afterwards what the shader wrote.
pub(crate) fn run(
    program: &Program,
    grid: [u32; 3],
    uniforms: &Uniforms,
    buffers: &mut BTreeMap<&str, Vec<u8>>,
) -> Result<Ran, Fault> {
    let mut machine = Machine::new(program, uniforms, buffers);
    for z in 0..grid[2] {
        for y in 0..grid[1] {
            for x in 0..grid[0] {
                machine.run_workgroup([x, y, z], grid)?;
            }
        }
    }
    for (variable, memory) in program.memories.iter().zip(&machine.memories) {
        if variable.space == Space::Storage {
            let size = variable.kind.size_bytes();
            let bytes = buffers.get_mut(variable.name.as_str()).unwrap();
            for (chunk, &value) in bytes.chunks_exact_mut(size).zip(&memory.data) {
                variable.kind.write(value, chunk);
            }
        }
    }
    let banks = machine.banks.iter().map(|(&(line, _), &met)| (program.line(line), met)).collect();
    Ok(Ran { steps: machine.steps, banks })
}

impl<'a> Machine<'a> {
    fn new(program: &'a Program, uniforms: &Uniforms, buffers: &BTreeMap<&str, Vec<u8>>) -> Self {
        let mut memories = Vec::new();
        for variable in &program.memories {
            let data: Vec<u64> = match variable.space {
                Space::Workgroup => vec![0; variable.size],
                Space::Uniform => {
                    let given = uniforms.iter().find(|(name, _)| *name == variable.name);
                    let (_, uniform) = given.unwrap_or_else(|| panic!("nothing for {}", variable.name));
                    assert_eq!(uniform.len(), variable.size, "words of {}", variable.name);
                    uniform.iter().map(|&word| word.into()).collect()
                }
                Space::ReadOnly | Space::Storage => {
                    let bytes = buffers.get(variable.name.as_str());
                    let bytes = bytes.unwrap_or_else(|| panic!("no buffer for {}", variable.name));
                    bytes.chunks_exact(variable.kind.size_bytes()).map(|chunk| variable.kind.read(chunk)).collect()
                }
            };
            let written = matches!(variable.space, Space::Workgroup | Space::Storage);
            let shadowed = if written { data.len() } else { 0 };
            memories.push(Memory {
                shadow: vec![Word::NEW; shadowed],
                across: vec![Word::NEW; shadowed],
                written: vec![0; shadowed],
                data,
            });
        }
        let mut machine = Self {
            program,
            registers: vec![0; program.num_slots * program.lanes],
            memories,
            epochs: [0; 2],
            workgroup: 0,
            others: program.lanes as u32,
            all: Mask::first(program.lanes),
            loops: Vec::new(),
            steps: 0,
            banks: BTreeMap::new(),
        };
        machine.begin(&program.constants);
        machine
    }

    fn run_workgroup(&mut self, id: [u32; 3], grid: [u32; 3]) -> Result<(), Fault> {
        self.workgroup += 1;
        self.pass_barrier([true; 2]);
        let program = self.program;
        self.begin(&program.privates);
        let (lanes, subgroup) = (program.lanes, program.subgroup_size);
        for &(slot, given) in &program.given {
            for lane in 0..lanes {
                self.registers[slot * lanes + lane] = match given {
                    Given::LocalIndex | Given::LocalId(0) => lane as u64,
                    Given::LocalId(_) => 0,
                    Given::WorkgroupId(axis) => id[axis].into(),
                    Given::NumWorkgroups(axis) => grid[axis].into(),
                    Given::GlobalId(0) => u64::from(id[0]) * lanes as u64 + lane as u64,
                    Given::GlobalId(axis) => id[axis].into(),
                    Given::SubgroupId => (lane / subgroup) as u64,
                    Given::SubgroupSize => subgroup as u64,
                    Given::SubgroupLane => (lane % subgroup) as u64,
                };
            }
        }
        self.call(&program.entry, self.all)
    }

    /// Sets variables in registers to their initial values.
    fn begin(&mut self, variables: &[Variable]) {
        let lanes = self.program.lanes;
        for variable in variables {
            for (at, &value) in variable.initial.iter().enumerate() {
                self.registers[(variable.slot + at) * lanes..][..lanes].fill(value);
            }
        }
    }

    fn call(&mut self, function: &Function, active: Mask) -> Result<(), Fault> {
        self.begin(&function.locals);
        self.block(&function.body, active).map(|_| ())
    }

    /// Runs statements; returns the mask of invocations that go on to the next one.
    fn block(&mut self, nodes: &[Node], mut active: Mask) -> Result<Mask, Fault> {
        for node in nodes {
            if active.is_empty() {
                break;
            }
            active = self.node(node, active)?;
        }
        Ok(active)
    }

    fn node(&mut self, node: &Node, active: Mask) -> Result<Mask, Fault> {
        match *node {
            Node::Ops(ref ops) => {
                self.steps += ops.len() as u64;
                for op in ops {
                    self.operate(op, active)?;
                }
            }
            Node::If { condition, ref accept, ref reject } => {
                let accepted = self.holds(condition).and(active);
                let after = self.block(accept, accepted)?;
                return Ok(self.block(reject, active.without(accepted))?.or(after));
            }
            Node::Loop { ref body, ref continuing, break_if } => {
                return self.repeat(body, continuing, break_if, active);
            }
            Node::Break | Node::Continue => {
                let ways = self.loops.last_mut().expect("within a loop");
                let way = &mut ways[usize::from(matches!(node, Node::Continue))];
                *way = way.or(active);
                return Ok(Mask::NONE);
            }
            Node::Return { copy } => {
                if let Some([to, from, size]) = copy {
                    let lanes = self.program.lanes;
                    for lane in (0..lanes).filter(|&lane| active.has(lane)) {
                        for at in 0..size {
                            self.registers[(to + at) * lanes + lane] = self.registers[(from + at) * lanes + lane];
                        }
                    }
                }
                return Ok(Mask::NONE);
            }
            Node::Call { function, ref arguments, result } => {
                let program = self.program;
                for &copied in arguments {
                    self.copy(copied);
                }
                let loops = core::mem::take(&mut self.loops);
                self.call(&program.functions[function], active)?;
                self.loops = loops;
                result.into_iter().for_each(|copied| self.copy(copied));
            }
        }
        Ok(active)
    }

    fn repeat(
        &mut self,
        body: &[Node],
        continuing: &[Node],
        break_if: Option<Slot>,
        mut active: Mask,
    ) -> Result<Mask, Fault> {
        let mut left = Mask::NONE;
        while !active.is_empty() {
            self.loops.push([Mask::NONE; 2]);
            let through = self.block(body, active)?;
            let [broken, continued] = self.loops.pop().expect("was pushed");
            left = left.or(broken);
            active = self.block(continuing, through.or(continued))?;
            if let Some(condition) = break_if {
                let done = self.holds(condition).and(active);
                left = left.or(done);
                active = active.without(done);
            }
        }
        Ok(left)
    }

    fn holds(&self, condition: Slot) -> Mask {
        let lanes = self.program.lanes;
        let mut mask = Mask::NONE;
        let values = &self.registers[condition * lanes..][..lanes];
        values.iter().enumerate().filter(|(_, value)| **value != 0).for_each(|(lane, _)| mask.set(lane));
        mask
    }

    pub(crate) fn copy(&mut self, [to, from, size]: [Slot; 3]) {
        let lanes = self.program.lanes;
        self.registers.copy_within(from * lanes..(from + size) * lanes, to * lanes);
    }

    pub(crate) fn barrier(&mut self, ordered: [bool; 2], active: Mask, line: u32) -> Result<(), Fault> {
        if active != self.all {
            return Err(Fault::NotUniform(self.program.line(line)));
        }
        self.pass_barrier(ordered);
        Ok(())
    }

    /// Workgroup memory, storage.
    fn pass_barrier(&mut self, ordered: [bool; 2]) {
        for (epoch, ordered) in self.epochs.iter_mut().zip(ordered) {
            *epoch += u32::from(ordered);
        }
    }

    /// Whether a subgroup works together: all of its lanes or none.
    pub(crate) fn takes_part(&self, first: usize, active: Mask, line: u32) -> Result<bool, Fault> {
        let count = (first..first + self.program.subgroup_size).filter(|&lane| active.has(lane)).count();
        if count != 0 && count != self.program.subgroup_size {
            return Err(Fault::NotUniform(self.program.line(line)));
        }
        Ok(count != 0)
    }

    /// The first scalar of a place, as an invocation sees it, from its variable on.
    pub(crate) fn offset(&self, place: &Place, lane: usize, line: u32) -> Result<usize, Fault> {
        let lanes = self.program.lanes;
        let mut at = place.offset;
        for &Index { slot, stride, len } in &place.indices {
            let index = self.registers[slot * lanes + lane] as u32 as usize;
            if len.is_some_and(|len| index >= len) {
                return Err(self.out_of_bounds(lane, index, line));
            }
            at += index * stride;
        }
        match place.root {
            Root::Memory(memory) if at + place.size > self.memories[memory].data.len() => {
                Err(self.out_of_bounds(lane, at, line))
            }
            _ => Ok(at),
        }
    }

    pub(crate) fn out_of_bounds(&self, lane: usize, index: usize, line: u32) -> Fault {
        Fault::Bounds(format!("invocation {lane}, {index} at {}", self.program.line(line)))
    }

    /// Reads a scalar of memory.
    pub(crate) fn read(&mut self, memory: usize, at: usize, by: u32, line: u32) -> Result<u64, Fault> {
        self.touch(memory, at, Access::Read, by, line)?;
        Ok(self.memories[memory].data[at])
    }

    pub(crate) fn write(
        &mut self,
        memory: usize,
        at: usize,
        (value, access): (u64, Access),
        by: u32,
        line: u32,
    ) -> Result<(), Fault> {
        self.touch(memory, at, access, by, line)?;
        self.memories[memory].data[at] = value;
        Ok(())
    }

    /// Records an access, and checks that it is ordered with all others.
    pub(crate) fn touch(&mut self, memory: usize, at: usize, access: Access, by: u32, line: u32) -> Result<(), Fault> {
        let variable = &self.program.memories[memory];
        let epoch = match variable.space {
            Space::Uniform | Space::ReadOnly => return Ok(()),
            Space::Workgroup => self.epochs[0],
            Space::Storage => self.epochs[1],
        };
        let found = &mut self.memories[memory];
        let race = |what: &str, Conflict { first, second }: Conflict| {
            let show = |(access, by, line): (Access, u32, u32)| {
                let by = match by {
                    u32::MAX => "several".to_owned(),
                    other if what == "invocation" && other >= self.program.lanes as u32 => "a matrix".to_owned(),
                    lane => format!("{what} {lane}"),
                };
                format!("{access:?} by {by} at {}", self.program.line(line))
            };
            Fault::Race(format!("{}[{at}]: {}, {}", variable.name, show(first), show(second)))
        };
        found.shadow[at].touch(epoch, access, by, line).map_err(|conflict| race("invocation", conflict))?;
        if variable.space == Space::Storage {
            // Nothing orders workgroups.
            let across = found.across[at].touch(1, access, self.workgroup, line);
            across.map_err(|conflict| race("workgroup", conflict))?;
        } else if access == Access::Write {
            found.written[at] = self.workgroup;
        } else if found.written[at] != self.workgroup {
            return Err(Fault::Unwritten(format!("{}[{at}] at {}", variable.name, self.program.line(line))));
        }
        Ok(())
    }

    /// A scalar of memory, without a record of the access.
    pub(crate) fn peek(&self, memory: usize, at: usize) -> u64 {
        self.memories[memory].data[at]
    }

    pub(crate) fn poke(&mut self, memory: usize, at: usize, value: u64) {
        self.memories[memory].data[at] = value;
    }

    /// The size of a variable in scalars.
    pub(crate) fn len(&self, memory: usize) -> usize {
        self.memories[memory].data.len()
    }
}
