//! The report of a run of the suite, as JSON.

use serde::{Deserialize, Serialize};

use super::ceilings::{Ceiling, CeilingKind};
use super::processor;
use super::samples::{Noise, Samples};
use super::subject::PartPlan;
use super::{BenchError, BenchResult, Case, Check, Clocks, Counts, Crossover, Part, Rotation, Scope, Series, Target};
use crate::{AttentionShape, Tier};

/// Version of the format of reports. Version 1 is read too; its numbers were measured without waiting for clocks and on one set of tensors,
/// so that no run resumes from them.
pub const SCHEMA: u32 = 2;

/// The oldest version that is read.
const OLDEST_SCHEMA: u32 = 1;

/// A run of the suite, complete or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of this crate.
    pub version: String,
    /// The build's commit, where it is known.
    pub commit: Option<String>,
    /// The scope of cases.
    pub scope: Scope,
    /// The filter: cases with one of these texts in their name; all cases where it is empty.
    pub filter: Vec<String>,
    /// The machine and device.
    pub machine: Machine,
    /// How time was measured.
    pub timing: Timing,
    /// The ceilings of the machine.
    pub ceilings: Vec<Ceiling>,
    /// The finished cases, in order.
    pub cases: Vec<CaseResult>,
    /// Times that the device was lost and opened again.
    pub lost_devices: u32,
    /// Where sparse attention becomes faster, once the run is complete.
    pub crossovers: Vec<Crossover>,
    /// Whether the numbers are repeatable, once the run is complete.
    pub noise: Option<Noise>,
}

/// The machine and device of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the adapter, or `CPU`.
    pub adapter: String,
    /// `cpu`, or the back end of wgpu.
    pub backend: String,
    /// Kind of device.
    pub kind: String,
    /// Driver and its version.
    pub driver: String,
    /// Tier that the kernels are forced to; `None` where each problem takes the best, and on the CPU.
    pub tier: Option<String>,
    /// The device computes on the CPU's cores.
    pub software: bool,
    /// The processor of the host, where the system names it: the CPU path and software devices compute on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
    /// Threads of the host that the CPU path uses.
    pub threads: usize,
    /// The relevant limits and features.
    pub caps: Option<Caps>,
}

/// The part of [`DeviceCaps`](crate::DeviceCaps) that explains numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Caps {
    /// Sizes that a subgroup may have.
    pub subgroup_size: Option<[u32; 2]>,
    /// f16 in shaders.
    pub shader_f16: bool,
    /// Tier of the kernels where no other is forced, but for f16 attention on matrix units.
    pub best_tier: String,
    /// Edge of the square matrices of f16 into f32 that the device multiplies in hardware.
    pub matrix_edge: Option<u32>,
    /// Bytes of memory of a workgroup.
    pub workgroup_storage_bytes: u32,
    /// Bytes of a binding.
    pub storage_binding_bytes: u64,
    /// Bytes of a buffer.
    pub buffer_bytes: u64,
}

impl Machine {
    /// The place of a target.
    #[must_use]
    pub fn of(target: &Target) -> Self {
        let (threads, processor) = (rayon::current_num_threads(), processor::name());
        let Target::Gpu(context) = target else {
            let [adapter, backend, kind] = ["CPU", "cpu", "CPU path"].map(str::to_owned);
            let (driver, tier, caps) = (std::env::consts::ARCH.to_owned(), None, None);
            return Self { adapter, backend, kind, driver, tier, software: false, processor, threads, caps };
        };
        let (info, caps) = (context.device().adapter_info(), context.caps());
        Self {
            adapter: info.name.clone(),
            backend: info.backend.to_string(),
            kind: format!("{:?}", info.device_type),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            tier: caps.tier().map(|tier| tier.to_string()),
            software: caps.software,
            processor,
            threads,
            caps: Some(Caps {
                subgroup_size: caps.subgroup_size.as_ref().map(|size| [*size.start(), *size.end()]),
                shader_f16: caps.shader_f16,
                best_tier: caps.best_tier().to_string(),
                matrix_edge: caps.matrix_edge(),
                workgroup_storage_bytes: caps.max_workgroup_storage_bytes,
                storage_binding_bytes: caps.max_storage_binding_bytes,
                buffer_bytes: caps.max_buffer_bytes,
            }),
        }
    }
}

impl Machine {
    /// The tier of the kernels, in words.
    #[must_use]
    pub fn describe_tier(&self) -> String {
        match (&self.tier, &self.caps) {
            (Some(tier), _) => format!("{tier} tier, forced"),
            (None, Some(caps)) => match caps.matrix_edge {
                Some(edge) => format!("{} tier, {edge} x {edge} matrices where f16 fills them", caps.best_tier),
                None => format!("{} tier", caps.best_tier),
            },
            (None, None) => "CPU path".to_owned(),
        }
    }
}

/// How time was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The clock.
    pub method: TimingMethod,
    /// The properties of this clock here, or the reason why no other clock is used.
    pub note: String,
}

/// A clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TimingMethod {
    /// The device's own clock.
    Timestamps,
    /// The host's, from before encoding to the end of the work.
    WallClock,
}

impl TimingMethod {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timestamps => "timestamp queries",
            Self::WallClock => "the host's clock, from encoding to completion",
        }
    }
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseResult {
    /// [`Case::id`] of the case as it was asked for.
    pub id: String,
    /// [`Case::name`] of the case as it ran: heads are narrower where keys did not fit the device.
    pub name: String,
    /// The series it belongs to.
    pub series: Series,
    /// The sizes.
    pub shape: AttentionShape,
    /// Storage of q, k and v.
    pub dtype: String,
    /// Which keys a query sees.
    pub mask: String,
    /// The selection: `HiP`, `InfiniteHiP`; `None` for a case without a selection.
    pub method: Option<String>,
    /// The outcomes of its parts.
    pub parts: Vec<PartResult>,
    /// The clocks around its timings; `None` where nothing was timed.
    #[serde(default)]
    pub clocks: Option<Clocks>,
    /// The tensors that it was timed on; `None` where nothing was timed.
    #[serde(default)]
    pub rotation: Option<Rotation>,
}

/// One part of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartResult {
    /// The part.
    pub part: Part,
    /// Its outcome.
    pub outcome: Outcome,
    /// How it was computed, if it was.
    pub plan: Option<PartPlan>,
    /// The distance of its result from the oracle's.
    pub check: Option<Check>,
    /// Bytes that it must move at the least.
    pub bytes: u64,
    /// Operations of its products.
    pub operations: u64,
    /// Its timings.
    pub samples: Option<Samples>,
    /// The rates that follow from its time.
    pub rate: Option<Rate>,
    /// Seconds that the host needs to encode a call; `None` where nothing is encoded.
    pub host_encode_seconds: Option<f64>,
}

/// The outcome of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", content = "reason", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// Right, and timed.
    Measured,
    /// Right, and not timed.
    Checked(String),
    /// Not run.
    Skipped(String),
    /// Not run: the run's time was used up.
    OutOfTime(String),
    /// Wrong; not timed.
    Wrong(String),
    /// The device was lost twice, or refused.
    Failed(String),
}

impl Outcome {
    /// The reason why it was not timed.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Measured => None,
            Self::Checked(reason)
            | Self::Skipped(reason)
            | Self::OutOfTime(reason)
            | Self::Wrong(reason)
            | Self::Failed(reason) => Some(reason),
        }
    }
}

/// The rates that follow from a part's time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Operations a second.
    pub operations_per_second: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// The time that the ceilings would allow over the actual time; `None` where a ceiling is not known.
    pub share: Option<f64>,
    /// The ceiling that limits it most.
    pub ceiling: Option<CeilingKind>,
}

impl Rate {
    /// Compared with the ceilings of copies and of the arithmetic that the kernels use.
    #[must_use]
    pub fn new(counts: Counts, seconds: f64, copy: Option<f64>, arithmetic: Option<(CeilingKind, f64)>) -> Self {
        let (bytes, operations) = (counts.bytes as f64, counts.operations as f64);
        let bounds = copy.zip(arithmetic).map(|(copy, (kind, rate))| {
            let (moving, computing) = (bytes / copy, operations / rate);
            if moving > computing { (CeilingKind::Copy, moving) } else { (kind, computing) }
        });
        Self {
            operations_per_second: operations / seconds,
            bytes_per_second: bytes / seconds,
            share: bounds.map(|(_, bound)| bound / seconds),
            ceiling: bounds.map(|(kind, _)| kind),
        }
    }
}

impl CaseResult {
    /// Without parts yet.
    #[must_use]
    pub fn new(asked: &Case, fitted: &Case) -> Self {
        Self {
            id: asked.id(),
            name: fitted.name().to_owned(),
            series: fitted.series(),
            shape: *fitted.problem().shape(),
            dtype: fitted.problem().dtype().to_string(),
            mask: fitted.problem().mask().to_string(),
            method: fitted.selection().map(|selection| selection.method().selector().name().to_owned()),
            parts: Vec::new(),
            clocks: None,
            rotation: None,
        }
    }

    /// A part, if the case has it.
    #[must_use]
    pub fn part(&self, part: Part) -> Option<&PartResult> {
        self.parts.iter().find(|result| result.part == part)
    }

    /// Median seconds of a part that was timed.
    #[must_use]
    pub fn seconds(&self, part: Part) -> Option<f64> {
        self.part(part)?.samples.as_ref().map(|samples| samples.median)
    }

    /// Seconds of selection and attention to its lists: of both together where that was timed, else the sum of the two.
    #[must_use]
    pub fn sparse_seconds(&self) -> Option<f64> {
        let apart = || Some(self.seconds(Part::Select)? + self.seconds(Part::Attend)?);
        self.seconds(Part::Sparse).or_else(apart)
    }

    /// Whether a resumed run must do it again.
    #[must_use]
    pub fn unfinished(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.outcome, Outcome::Failed(_) | Outcome::OutOfTime(_)))
    }
}

impl PartResult {
    /// Not computed.
    #[must_use]
    pub fn without_result(part: Part, outcome: Outcome, counts: Counts) -> Self {
        let Counts { bytes, operations } = counts;
        Self {
            part,
            outcome,
            plan: None,
            check: None,
            bytes,
            operations,
            samples: None,
            rate: None,
            host_encode_seconds: None,
        }
    }
}

impl PartResult {
    /// The arithmetic of its kernels: sums are f32 whatever is stored, and products too, except on matrix units.
    pub(super) fn arithmetic(&self) -> CeilingKind {
        let tier = self.plan.as_ref().and_then(|plan| plan.tier.as_deref());
        if tier == Some(Tier::Matrix.name()) { CeilingKind::Matrix } else { CeilingKind::F32 }
    }
}

impl Report {
    /// Reads the JSON of [`serde_json`].
    ///
    /// # Errors
    /// [`BenchError::Schema`] for a report of a version that is not read, [`BenchError::Json`] for no report.
    pub fn from_json(text: &[u8]) -> BenchResult<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            schema: u64,
        }
        let Versioned { schema } = serde_json::from_slice(text)?;
        if !(u64::from(OLDEST_SCHEMA)..=u64::from(SCHEMA)).contains(&schema) {
            return Err(BenchError::Schema { found: schema, expected: SCHEMA });
        }
        Ok(serde_json::from_slice(text)?)
    }

    /// Recomputes the rates of all timings with the present ceilings.
    pub(super) fn settle(&mut self) {
        let [copy, f32, matrix] =
            [CeilingKind::Copy, CeilingKind::F32, CeilingKind::Matrix].map(|kind| self.ceiling(kind));
        for part in self.cases.iter_mut().flat_map(|case| &mut case.parts) {
            let Some(samples) = &part.samples else { continue };
            let arithmetic = match part.arithmetic() {
                CeilingKind::Matrix => matrix.map(|rate| (CeilingKind::Matrix, rate)),
                kind => f32.map(|rate| (kind, rate)),
            };
            let counts = Counts { bytes: part.bytes, operations: part.operations };
            part.rate = Some(Rate::new(counts, samples.median, copy, arithmetic));
        }
    }

    /// The rate of a ceiling that no part of any case exceeded.
    #[must_use]
    pub fn ceiling(&self, kind: CeilingKind) -> Option<f64> {
        self.ceilings.iter().find(|ceiling| ceiling.kind == kind)?.rate
    }

    /// Parts whose results are wrong, as `case: part`.
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        let of = |case: &CaseResult| {
            let wrong = case.parts.iter().filter(|part| matches!(part.outcome, Outcome::Wrong(_)));
            wrong.map(|part| format!("{}: {}", case.id, part.part.name())).collect::<Vec<_>>()
        };
        self.cases.iter().flat_map(of).collect()
    }

    /// Whether all cases are done.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.noise.is_some()
    }
}
