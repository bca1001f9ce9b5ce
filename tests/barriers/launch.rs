//! Dispatches with their inputs, and cases made of them.

use core::ops::Range;
use std::collections::BTreeMap;

use super::lower::lower;
use super::machine::{self, Ran};
use super::shadow::Fault;

/// Words of uniforms by name.
pub(crate) type Uniforms = Vec<(&'static str, Vec<u32>)>;

/// Buffers by name.
pub(crate) type Buffers = BTreeMap<String, Vec<u8>>;

/// Dispatches of one shader, one after the other.
#[derive(Clone)]
pub(crate) struct Launch {
    pub(crate) name: String,
    /// The files unchanged, and the text that drivers get.
    pub(crate) rolled: String,
    pub(crate) shipped: String,
    /// Files that stand in it under a tensor's names.
    pub(crate) taken: Vec<&'static str>,
    pub(crate) subgroup_size: usize,
    /// Workgroups and the uniforms of each, by name.
    pub(crate) stretches: Vec<([u32; 3], Uniforms)>,
    /// The buffers of variables that have another name.
    pub(crate) bound: Vec<(&'static str, String)>,
    /// Variables that are a part of the buffer `workspace`.
    pub(crate) views: Vec<(&'static str, Range<usize>)>,
}

/// Launches that hand buffers on, and the contents of these at the end.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) launches: Vec<Launch>,
    pub(crate) buffers: Buffers,
    pub(crate) check: Box<dyn Fn(&Buffers) + Send + Sync>,
}

/// A launch with the contents of the buffers at its beginning, and the number of its operations.
pub(crate) struct Recorded {
    pub(crate) launch: Launch,
    pub(crate) before: Buffers,
    pub(crate) steps: u64,
}

/// The texts of modules that are taken for a tensor.
pub(crate) fn taken(specialization: &wattn::Specialization) -> Vec<&'static str> {
    let modules = ["q", "k", "v", "sinks", "first", "second", "third", "fourth"]
        .into_iter()
        .flat_map(|tensor| specialization.modules_for(tensor));
    modules.map(wattn::Module::wgsl).collect()
}

impl Launch {
    /// Runs one of its texts. Buffers that the shader does not name stay unchanged.
    pub(crate) fn run(&self, text: &str, buffers: &mut Buffers) -> Result<u64, Fault> {
        Ok(self.run_all(text, buffers)?.into_iter().map(|ran| ran.steps).sum())
    }

    /// The same, with the cost of each dispatch.
    pub(crate) fn run_all(&self, text: &str, buffers: &mut Buffers) -> Result<Vec<Ran>, Fault> {
        let program = lower(text, self.subgroup_size);
        let mut bound = BTreeMap::new();
        for variable in &program.memories {
            let name = variable.name.as_str();
            if let Some(range) = self.view(name) {
                bound.insert(name, buffers["workspace"][range].to_vec());
            } else if let Some(bytes) = buffers.get(self.buffer_of(name)) {
                bound.insert(name, bytes.clone());
            }
        }
        let run = |(grid, uniforms): &([u32; 3], Uniforms)| machine::run(&program, *grid, uniforms, &mut bound);
        let ran = self.stretches.iter().map(run).collect::<Result<Vec<_>, _>>()?;
        for (name, bytes) in bound {
            match self.view(name) {
                Some(range) => buffers.get_mut("workspace").unwrap()[range].copy_from_slice(&bytes),
                None => drop(buffers.insert(self.buffer_of(name).to_owned(), bytes)),
            }
        }
        Ok(ran)
    }

    /// Whether a file of `shaders/` takes part.
    pub(crate) fn has(&self, file: &str) -> bool {
        self.rolled.contains(file) || self.taken.contains(&file)
    }

    pub(crate) fn rolled(&self) -> &str {
        &self.rolled
    }

    pub(crate) fn shipped(&self) -> &str {
        &self.shipped
    }

    fn view(&self, variable: &str) -> Option<Range<usize>> {
        self.views.iter().find(|(name, _)| *name == variable).map(|(_, range)| range.clone())
    }

    fn buffer_of<'a>(&'a self, variable: &'a str) -> &'a str {
        self.bound.iter().find(|(name, _)| *name == variable).map_or(variable, |(_, buffer)| buffer)
    }
}

impl Case {
    /// Runs everything, with one of its two texts, and checks the results.
    pub(crate) fn run(&self, text: fn(&Launch) -> &str) -> Result<Vec<Recorded>, String> {
        let mut buffers = self.buffers.clone();
        let mut recorded = Vec::new();
        for launch in &self.launches {
            let before = buffers.clone();
            let steps = launch
                .run(text(launch), &mut buffers)
                .map_err(|fault| format!("{}, {}: {fault}", self.name, launch.name))?;
            recorded.push(Recorded { launch: launch.clone(), before, steps });
        }
        (self.check)(&buffers);
        Ok(recorded)
    }
}

pub(crate) fn to_bytes<T: bytemuck::Pod>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

pub(crate) fn from_bytes<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    bytemuck::pod_collect_to_vec(bytes)
}

/// Memory with meaningless contents.
pub(crate) fn garbage(bytes: u64) -> Vec<u8> {
    to_bytes(&vec![7.0f32; bytes.div_ceil(4).max(1) as usize])
}
