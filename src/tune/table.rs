//! The table of measured tilings, by device: kept in a file, shipped with a program.

use serde::{Deserialize, Serialize};

use super::{Candidate, TuneError, TuneResult};
use crate::{AttentionClass, Context, SelectionClass, SelectionTiling, Tiling, Tuning};

/// The version of the format.
pub const SCHEMA: u32 = 1;

/// The key of measurements: another driver compiles other code, another version of this library has other kernels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceKey {
    /// The adapter's name.
    pub adapter: String,
    /// PCI vendor and device, where the back end reports them.
    pub pci: [u32; 2],
    /// The back end of wgpu.
    pub backend: String,
    /// The driver's name and version.
    pub driver: [String; 2],
    /// The version of this library.
    pub version: String,
}

impl DeviceKey {
    /// The key of a device.
    #[must_use]
    pub fn of(ctx: &Context) -> Self {
        let info = ctx.device().adapter_info();
        Self {
            adapter: info.name,
            pci: [info.vendor, info.device],
            backend: info.backend.to_string(),
            driver: [info.driver, info.driver_info],
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl core::fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { adapter, backend, driver: [driver, driver_info], version, .. } = self;
        write!(f, "{adapter} ({backend}, {driver} {driver_info}), wattn {version}")
    }
}

/// The fastest tiling of a measured class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry<C, T> {
    /// The class of problems.
    pub class: C,
    /// The tier and the tiling.
    #[serde(flatten)]
    pub candidate: Candidate<T>,
    /// Seconds of a call of the measured problem.
    pub seconds: f64,
    /// The same for the plan without tuning, measured in turns.
    pub untuned_seconds: f64,
    /// Number of candidates that time did not suffice for: 0 where the search was complete.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl<C, T> Entry<C, T> {
    /// The speed relative to the plan without tuning; 1 where that was the fastest.
    #[must_use]
    pub fn speedup(&self) -> f64 {
        if self.seconds > 0.0 { self.untuned_seconds / self.seconds } else { 1.0 }
    }
}

/// The entries of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceEntries {
    /// The device.
    #[serde(flatten)]
    pub key: DeviceKey,
    /// For attention, each class once.
    pub attention: Vec<Entry<AttentionClass, Tiling>>,
    /// For selections, each class once.
    pub selection: Vec<Entry<SelectionClass, SelectionTiling>>,
}

/// Tilings for any number of devices.
///
/// ```no_run
/// # fn open(context: wattn::Context, shipped: &[u8]) -> wattn::tune::TuneResult<()> {
/// use wattn::tune::{DeviceKey, TuningTable};
/// let table = TuningTable::from_json(shipped)?;
/// let context = context.with_tuning(table.tuning(&DeviceKey::of(&context))); // plans for it take what was measured
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TuningTable {
    schema: u32,
    devices: Vec<DeviceEntries>,
}

impl Default for TuningTable {
    fn default() -> Self {
        Self { schema: SCHEMA, devices: Vec::new() }
    }
}

impl TuningTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the output of [`to_json`](Self::to_json). Tilings are checked when a plan uses them, not here.
    ///
    /// # Errors
    /// [`TuneError::Json`], or [`TuneError::Schema`] for a table of another version.
    pub fn from_json(text: &[u8]) -> TuneResult<Self> {
        #[derive(Deserialize)]
        struct Head {
            schema: u64,
        }
        let Head { schema } = serde_json::from_slice(text)?;
        if schema != u64::from(SCHEMA) {
            return Err(TuneError::Schema { found: schema, expected: SCHEMA });
        }
        Ok(serde_json::from_slice(text)?)
    }

    /// The table as text.
    ///
    /// # Errors
    /// [`TuneError::Json`], which only non-finite seconds can cause.
    pub fn to_json(&self) -> TuneResult<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The devices.
    #[must_use]
    pub fn devices(&self) -> &[DeviceEntries] {
        &self.devices
    }

    /// Adds an entry, in place of the class's earlier one.
    pub fn set_attention(&mut self, key: &DeviceKey, entry: Entry<AttentionClass, Tiling>) {
        let entries = &mut self.entries(key).attention;
        entries.retain(|old| old.class != entry.class);
        entries.push(entry);
    }

    /// Adds an entry, in place of the class's earlier one.
    pub fn set_selection(&mut self, key: &DeviceKey, entry: Entry<SelectionClass, SelectionTiling>) {
        let entries = &mut self.entries(key).selection;
        entries.retain(|old| old.class != entry.class);
        entries.push(entry);
    }

    /// Whether a class was measured on a device, with time for all candidates.
    #[must_use]
    pub fn has_attention(&self, key: &DeviceKey, class: AttentionClass) -> bool {
        let entries = self.devices.iter().filter(|entries| entries.key == *key);
        entries.flat_map(|entries| &entries.attention).any(|entry| entry.class == class && entry.left_out == 0)
    }

    /// Whether a class was measured on a device, with time for all candidates.
    #[must_use]
    pub fn has_selection(&self, key: &DeviceKey, class: SelectionClass) -> bool {
        let entries = self.devices.iter().filter(|entries| entries.key == *key);
        entries.flat_map(|entries| &entries.selection).any(|entry| entry.class == class && entry.left_out == 0)
    }

    /// Adds the entries of another table, in place of earlier ones of the same classes.
    pub fn merge(&mut self, other: Self) {
        for DeviceEntries { key, attention, selection } in other.devices {
            attention.into_iter().for_each(|entry| self.set_attention(&key, entry));
            selection.into_iter().for_each(|entry| self.set_selection(&key, entry));
        }
    }

    /// The measurements for exactly this device, driver and version; empty if there are none.
    #[must_use]
    pub fn tuning(&self, key: &DeviceKey) -> Tuning {
        let mut tuning = Tuning::new();
        for entries in self.devices.iter().filter(|entries| entries.key == *key) {
            for Entry { class, candidate: Candidate { tier, tiling }, .. } in &entries.attention {
                tuning.set_attention(*class, *tier, *tiling);
            }
            for Entry { class, candidate: Candidate { tier, tiling }, .. } in &entries.selection {
                tuning.set_selection(*class, *tier, *tiling);
            }
        }
        tuning
    }

    fn entries(&mut self, key: &DeviceKey) -> &mut DeviceEntries {
        let at = self.devices.iter().position(|entries| entries.key == *key).unwrap_or_else(|| {
            let (attention, selection) = (Vec::new(), Vec::new());
            self.devices.push(DeviceEntries { key: key.clone(), attention, selection });
            self.devices.len() - 1
        });
        &mut self.devices[at]
    }
}
