//! The effect of each operation on registers and memory. An operation that changes only registers is computed for all invocations,
//! including masked-out ones, whose results are not used.

use half::f16;

use super::arith::{bits, float};
use super::machine::{Machine, Mask};
use super::program::{Gather, MatrixAt, Op, Place, Root, Slot};
use super::shadow::{Access, Fault};

impl Machine<'_> {
    pub(crate) fn operate(&mut self, op: &Op, active: Mask) -> Result<(), Fault> {
        let lanes = self.program.lanes;
        match *op {
            Op::Copy { to, from, size } => self.copy([to, from, size]),
            Op::Splat { to, from, size } => (0..size).for_each(|at| self.copy([to + at, from, 1])),
            Op::One { to, a, size, f } => {
                for at in 0..size * lanes {
                    self.registers[to * lanes + at] = f(self.registers[a * lanes + at]);
                }
            }
            Op::Two { to, a: (a, step_a), b: (b, step_b), size, f } => {
                for at in 0..size {
                    let (to, a, b) = ((to + at) * lanes, (a + at * step_a) * lanes, (b + at * step_b) * lanes);
                    for lane in 0..lanes {
                        self.registers[to + lane] = f(self.registers[a + lane], self.registers[b + lane]);
                    }
                }
            }
            Op::Three { to, args, size, f } => {
                let [a, b, c] = args.map(|arg| arg * lanes);
                for at in 0..size * lanes {
                    let value = f(self.registers[a + at], self.registers[b + at], self.registers[c + at]);
                    self.registers[to * lanes + at] = value;
                }
            }
            Op::Select { to, condition: (condition, step), accept, reject, size } => {
                for at in 0..size {
                    for lane in 0..lanes {
                        let holds = self.registers[(condition + at * step) * lanes + lane] != 0;
                        let from = if holds { accept } else { reject };
                        self.registers[(to + at) * lanes + lane] = self.registers[(from + at) * lanes + lane];
                    }
                }
            }
            Op::Dot { to, a, b, size, multiply, add } => {
                for lane in 0..lanes {
                    let product =
                        |at| multiply(self.registers[(a + at) * lanes + lane], self.registers[(b + at) * lanes + lane]);
                    self.registers[to * lanes + lane] = (1..size).map(product).fold(product(0), add);
                }
            }
            Op::Fold { to, from, size, f } => {
                for lane in 0..lanes {
                    let value = |at| self.registers[(from + at) * lanes + lane];
                    self.registers[to * lanes + lane] = (1..size).map(value).fold(value(0), f);
                }
            }
            Op::UnpackHalves { to, from } => {
                for lane in 0..lanes {
                    let word = self.registers[from * lanes + lane] as u32;
                    for (at, half) in [word as u16, (word >> 16) as u16].into_iter().enumerate() {
                        self.registers[(to + at) * lanes + lane] = bits(f16::from_bits(half).to_f32());
                    }
                }
            }
            Op::Pick { to, from, index, size, len, line } => {
                for lane in (0..lanes).filter(|&lane| active.has(lane)) {
                    let index = self.registers[index * lanes + lane] as u32 as usize;
                    if index >= len {
                        return Err(self.out_of_bounds(lane, index, line));
                    }
                    for at in 0..size {
                        self.registers[(to + at) * lanes + lane] =
                            self.registers[(from + index * size + at) * lanes + lane];
                    }
                }
            }
            Op::Load { to, ref place, line } => self.load(to, place, active, line)?,
            Op::Store { from, ref place, line } => self.store(from, place, active, line)?,
            Op::Atomic { to, value, ref place, f, access, line } => {
                let Root::Memory(memory) = place.root else { panic!("atomics are in memory") };
                for lane in (0..lanes).filter(|&lane| active.has(lane)) {
                    let at = self.offset(place, lane, line)?;
                    self.touch(memory, at, access, lane as u32, line)?;
                    let before = self.peek(memory, at);
                    self.poke(memory, at, f(before, self.registers[value * lanes + lane]));
                    if let Some(to) = to {
                        self.registers[to * lanes + lane] = before;
                    }
                }
            }
            Op::UniformLoad { to, ref place, line } => {
                self.barrier([true, false], active, line)?;
                self.load(to, place, active, line)?;
                self.barrier([true, false], active, line)?;
            }
            Op::Barrier { workgroup, storage, line } => self.barrier([workgroup, storage], active, line)?,
            Op::Gather { to, from, size, mode, line } => self.gather(to, from, size, mode, active, line)?,
            Op::Reduce { to, from, size, f, line } => {
                let subgroup = self.program.subgroup_size;
                for first in (0..lanes).step_by(subgroup) {
                    if self.takes_part(first, active, line)? {
                        for at in 0..size {
                            let value = |lane| self.registers[(from + at) * lanes + lane];
                            let result = (first + 1..first + subgroup).map(value).fold(value(first), f);
                            self.registers[(to + at) * lanes + first..][..subgroup].fill(result);
                        }
                    }
                }
            }
            Op::SumBefore { to, from, size, f, line } => {
                let subgroup = self.program.subgroup_size;
                for first in (0..lanes).step_by(subgroup) {
                    if self.takes_part(first, active, line)? {
                        for at in 0..size {
                            let mut sum = 0;
                            for lane in first..first + subgroup {
                                let value = self.registers[(from + at) * lanes + lane];
                                self.registers[(to + at) * lanes + lane] = sum;
                                sum = f(sum, value);
                            }
                        }
                    }
                }
            }
            Op::MatrixLoad { to, ref at, line } => self.matrix_load(to, at, active, line)?,
            Op::MatrixStore { from, ref at, line } => self.matrix_store(from, at, active, line)?,
            Op::MatrixMultiplyAdd { to, a, b, c, edge, line } => {
                self.multiply_add(to, [a, b, c], edge, active, line)?;
            }
        }
        Ok(())
    }

    fn load(&mut self, to: Slot, place: &Place, active: Mask, line: u32) -> Result<(), Fault> {
        let lanes = self.program.lanes;
        match place.root {
            // The same registers for all.
            Root::Registers(slot) if place.indices.is_empty() => self.copy([to, slot + place.offset, place.size]),
            root => {
                self.note_banks(place, active, line)?;
                for lane in (0..lanes).filter(|&lane| active.has(lane)) {
                    let from = self.offset(place, lane, line)?;
                    for at in 0..place.size {
                        self.registers[(to + at) * lanes + lane] = match root {
                            Root::Registers(slot) => self.registers[(slot + from + at) * lanes + lane],
                            Root::Memory(memory) => self.read(memory, from + at, lane as u32, line)?,
                        };
                    }
                }
            }
        }
        Ok(())
    }

    fn store(&mut self, from: Slot, place: &Place, active: Mask, line: u32) -> Result<(), Fault> {
        let lanes = self.program.lanes;
        self.note_banks(place, active, line)?;
        for lane in (0..lanes).filter(|&lane| active.has(lane)) {
            let to = self.offset(place, lane, line)?;
            for at in 0..place.size {
                let value = self.registers[(from + at) * lanes + lane];
                match place.root {
                    Root::Registers(slot) => self.registers[(slot + to + at) * lanes + lane] = value,
                    Root::Memory(memory) => {
                        assert!(!place.is_component, "components of vectors in memory are not written one by one");
                        self.write(memory, to + at, (value, Access::Write), lane as u32, line)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn gather(
        &mut self,
        to: Slot,
        from: Slot,
        size: usize,
        mode: Gather,
        active: Mask,
        line: u32,
    ) -> Result<(), Fault> {
        let (lanes, subgroup) = (self.program.lanes, self.program.subgroup_size);
        for first in (0..lanes).step_by(subgroup) {
            if !self.takes_part(first, active, line)? {
                continue;
            }
            for lane in first..first + subgroup {
                let source = match mode {
                    Gather::First => 0,
                    Gather::Lane(slot) => self.registers[slot * lanes + lane] as usize,
                    Gather::Xor(slot) => (lane - first) ^ self.registers[slot * lanes + lane] as usize,
                };
                if source >= subgroup {
                    return Err(self.out_of_bounds(lane, source, line));
                }
                for at in 0..size {
                    self.registers[(to + at) * lanes + lane] = self.registers[(from + at) * lanes + first + source];
                }
            }
        }
        Ok(())
    }

    /// Where the elements of a subgroup's matrix lie in memory. Its numbers are those of its first lane, which all others
    /// must share.
    fn elements(&self, at: &MatrixAt, first: usize, line: u32) -> Result<Vec<usize>, Fault> {
        let lanes = self.program.lanes;
        let Root::Memory(memory) = at.place.root else { panic!("matrices are loaded from memory") };
        let numbers = |lane| Ok((self.offset(&at.place, lane, line)?, self.registers[at.stride * lanes + lane]));
        let (begin, stride) = numbers(first)?;
        for lane in first..first + self.program.subgroup_size {
            if numbers(lane)? != (begin, stride) {
                return Err(Fault::NotUniform(self.program.line(line)));
            }
        }
        // Strides count elements of the pointer's target.
        let stride = stride as usize * at.place.size;
        // Hardware drops the low bits of addresses of matrices.
        let bytes = self.program.memories[memory].kind.size_bytes();
        if !(begin * bytes).is_multiple_of(16) || !(stride * bytes).is_multiple_of(16) {
            let text = format!("{}, byte {} in rows of {}", self.program.line(line), begin * bytes, stride * bytes);
            return Err(Fault::Misaligned(text));
        }
        let place = |element: usize| {
            let (row, column) = (element / at.edge, element % at.edge);
            begin + if at.row_major { row * stride + column } else { column * stride + row }
        };
        let places: Vec<usize> = (0..at.edge * at.edge).map(place).collect();
        match places.iter().find(|&&place| place >= self.len(memory)) {
            Some(&place) => Err(self.out_of_bounds(first, place, line)),
            None => Ok(places),
        }
    }

    /// The register of an element.
    fn element(&self, matrix: Slot, first: usize, element: usize) -> usize {
        let subgroup = self.program.subgroup_size;
        (matrix + element / subgroup) * self.program.lanes + first + element % subgroup
    }

    fn matrix_load(&mut self, to: Slot, at: &MatrixAt, active: Mask, line: u32) -> Result<(), Fault> {
        let Root::Memory(memory) = at.place.root else { panic!("matrices are loaded from memory") };
        for first in (0..self.program.lanes).step_by(self.program.subgroup_size) {
            if self.takes_part(first, active, line)? {
                self.others += 1;
                for (element, place) in self.elements(at, first, line)?.into_iter().enumerate() {
                    let register = self.element(to, first, element);
                    self.registers[register] = self.read(memory, place, self.others, line)?;
                }
            }
        }
        Ok(())
    }

    fn matrix_store(&mut self, from: Slot, at: &MatrixAt, active: Mask, line: u32) -> Result<(), Fault> {
        let Root::Memory(memory) = at.place.root else { panic!("matrices are stored to memory") };
        for first in (0..self.program.lanes).step_by(self.program.subgroup_size) {
            if self.takes_part(first, active, line)? {
                self.others += 1;
                for (element, place) in self.elements(at, first, line)?.into_iter().enumerate() {
                    let value = self.registers[self.element(from, first, element)];
                    self.write(memory, place, (value, Access::Write), self.others, line)?;
                }
            }
        }
        Ok(())
    }

    /// a b + c, summed in f32 whatever the factors are.
    fn multiply_add(
        &mut self,
        to: Slot,
        factors: [Slot; 3],
        edge: usize,
        active: Mask,
        line: u32,
    ) -> Result<(), Fault> {
        for first in (0..self.program.lanes).step_by(self.program.subgroup_size) {
            if !self.takes_part(first, active, line)? {
                continue;
            }
            let [a, b, c] = factors.map(|matrix| {
                let value = |element| float(self.registers[self.element(matrix, first, element)]);
                (0..edge * edge).map(value).collect::<Vec<f32>>()
            });
            for (element, &begin) in c.iter().enumerate() {
                let (row, column) = (element / edge, element % edge);
                let product = |sum: f32, i: usize| sum + a[row * edge + i] * b[i * edge + column];
                let register = self.element(to, first, element);
                self.registers[register] = bits((0..edge).fold(begin, product));
            }
        }
        Ok(())
    }
}
