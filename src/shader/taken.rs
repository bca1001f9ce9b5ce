//! A module as a variant takes it: as it stands, or for a tensor, whose name then is part of all of the module's names.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::names::{Names, declared, name_for};
use super::{Binding, Module};

/// A module of a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Taken {
    pub(super) module: &'static Module,
    pub(super) tensor: Option<&'static str>,
}

impl From<&'static Module> for Taken {
    fn from(module: &'static Module) -> Self {
        Self { module, tensor: None }
    }
}

impl core::fmt::Display for Taken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.tensor {
            Some(tensor) => write!(f, "{tensor}:{}", self.module.name()),
            None => write!(f, "{}", self.module.name()),
        }
    }
}

impl Taken {
    pub(crate) const fn for_tensor(tensor: &'static str, module: &'static Module) -> Self {
        Self { module, tensor: Some(tensor) }
    }

    /// Modules as they stand.
    pub(crate) fn all(modules: impl IntoIterator<Item = &'static Module>) -> Vec<Self> {
        modules.into_iter().map(Self::from).collect()
    }

    /// The module's bindings, under the names that they have in the variant.
    pub(super) fn bindings(&self) -> impl Iterator<Item = Binding> {
        let tensor = self.tensor;
        self.module.bindings().iter().map(move |&binding| match tensor {
            Some(tensor) => Binding { name: interned(name_for(binding.name, tensor)), ..binding },
            None => binding,
        })
    }

    /// The name of a module's binding where the module is taken for a tensor.
    pub(crate) fn binding_name(binding: &str, tensor: &str) -> &'static str {
        interned(name_for(binding, tensor))
    }

    /// The names of its text, and what they are in the variant.
    pub(super) fn names(&self) -> Names {
        let Some(tensor) = self.tensor else { return Names::new() };
        let numbers = self.module.bindings().iter().map(|binding| {
            let number = |name: &str| format!("{}_BINDING", name.to_uppercase());
            (number(binding.name), number(&name_for(binding.name, tensor)))
        });
        declared(self.module.wgsl())
            .into_iter()
            .map(|name| (name.to_owned(), name_for(name, tensor)))
            .chain(numbers)
            .collect()
    }
}

/// A name that lives as long as the program, as those in the descriptors do. There are few: one for each binding of a module and tensor.
fn interned(name: String) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    // A panic while the lock is held leaves the set whole: insertion is its only change.
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name.as_str()) {
        return known;
    }
    let name: &'static str = Box::leak(name.into_boxed_str());
    names.insert(name);
    name
}
