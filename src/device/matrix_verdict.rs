//! The verdict of trying a device's matrices, in a file beside the pipelines, so that the next start need not try them again.

use std::path::{Path, PathBuf};

use crate::kept_file::{Magic, checksum, pack, read, unpack, write};
use crate::{MatrixCheck, Result};

/// Marks a file of ours, and its format.
pub(crate) const MAGIC: Magic = *b"wattn matrices 1";

/// The device's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MatrixVerdict {
    Right,
    /// The fault.
    Faulty(String),
}

impl MatrixVerdict {
    pub(crate) fn fault(self) -> Option<String> {
        match self {
            Self::Right => None,
            Self::Faulty(reason) => Some(reason),
        }
    }
}

/// The key of a verdict: one device, one driver, one check of one version of the crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VerdictKey {
    file_name: String,
    text: String,
}

impl VerdictKey {
    pub(crate) fn new(info: &wgpu::AdapterInfo, check: &MatrixCheck) -> Self {
        let wgpu::AdapterInfo { name, vendor, device, backend, driver, driver_info, .. } = info;
        // A new version of the driver replaces the file; another driver of the same device has its own file.
        let whose = format!("{name}\n{vendor} {device}\n{backend}\n{driver}");
        let file_name = format!("wattn_matrices_{backend}_{:016x}", checksum(whose.as_bytes()));
        let shader = checksum(check.wgsl().as_bytes());
        let text = format!("{}\n{shader:016x}\n{whose}\n{driver_info}\n", env!("CARGO_PKG_VERSION"));
        Self { file_name, text }
    }

    /// The verdict in this folder; `None` where there is no usable one.
    pub(crate) fn read(&self, folder: &Path) -> Option<MatrixVerdict> {
        let data = read(&MAGIC, &folder.join(&self.file_name)).ok()?.ok()?;
        let verdict = core::str::from_utf8(&data).ok()?.strip_prefix(&self.text)?;
        match verdict.split_once('\n') {
            Some(("right", "")) => Some(MatrixVerdict::Right),
            Some(("faulty", reason)) => Some(MatrixVerdict::Faulty(reason.to_owned())),
            _ => None,
        }
    }

    /// The verdict as a file of this folder; [`UnsavedVerdict::save`] writes it.
    pub(crate) fn unsaved(&self, folder: &Path, verdict: &MatrixVerdict) -> UnsavedVerdict {
        let verdict = match verdict {
            MatrixVerdict::Right => "right\n".to_owned(),
            MatrixVerdict::Faulty(reason) => format!("faulty\n{reason}"),
        };
        let packed = pack(&MAGIC, format!("{}{verdict}", self.text).as_bytes());
        UnsavedVerdict { path: folder.join(&self.file_name), packed }
    }
}

/// A verdict and its file.
#[derive(Clone, Debug)]
pub(crate) struct UnsavedVerdict {
    path: PathBuf,
    packed: Vec<u8>,
}

impl UnsavedVerdict {
    pub(crate) fn save(&self) -> Result<()> {
        write(&self.path, &self.packed)
    }
}

/// The data in a kept file of pipelines or of a verdict. For tests, which feed it files of all kinds.
#[doc(hidden)]
pub fn unpack_kept(file: &[u8]) -> core::result::Result<Vec<u8>, &'static str> {
    unpack(&crate::device::pipeline_store::MAGIC, file).or_else(|_| unpack(&MAGIC, file))
}

/// [`unpack_kept`]'s counterpart.
#[doc(hidden)]
#[must_use]
pub fn pack_kept(data: &[u8]) -> Vec<u8> {
    pack(&crate::device::pipeline_store::MAGIC, data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceCaps, MatrixTile};

    fn info() -> wgpu::AdapterInfo {
        let mut info = wgpu::AdapterInfo::new(wgpu::DeviceType::DiscreteGpu, wgpu::Backend::Vulkan);
        info.name = "Card".to_owned();
        (info.driver, info.driver_info) = ("Driver".to_owned(), "1.0".to_owned());
        info
    }

    fn check(edge: u32) -> MatrixCheck {
        let mut caps = DeviceCaps::BASELINE;
        (caps.shader_f16, caps.subgroup_size) = (true, Some(32..=32));
        caps.matrix_tiles = vec![MatrixTile::square(edge)];
        MatrixCheck::of(&caps).unwrap()
    }

    #[test]
    fn verdicts_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        let key = VerdictKey::new(&info(), &check(16));
        assert_eq!(key.read(&below), None);
        for verdict in [MatrixVerdict::Right, MatrixVerdict::Faulty("out is shifted\nby four".to_owned())] {
            key.unsaved(&below, &verdict).save().unwrap();
            assert_eq!(key.read(&below), Some(verdict));
        }
        assert_eq!(std::fs::read_dir(&below).unwrap().count(), 1);
    }

    #[test]
    fn a_verdict_is_of_one_device_driver_and_check() {
        let folder = tempfile::tempdir().unwrap();
        VerdictKey::new(&info(), &check(16)).unsaved(folder.path(), &MatrixVerdict::Right).save().unwrap();
        let mut others = vec![(info(), check(8))];
        others.extend(
            [
                |info: &mut wgpu::AdapterInfo| info.name.push('s'),
                |info: &mut wgpu::AdapterInfo| info.driver.push('s'),
                |info: &mut wgpu::AdapterInfo| info.driver_info.push('1'),
                |info: &mut wgpu::AdapterInfo| info.device += 1,
                |info: &mut wgpu::AdapterInfo| info.backend = wgpu::Backend::Metal,
            ]
            .map(|change| {
                let mut changed = info();
                change(&mut changed);
                (changed, check(16))
            }),
        );
        for (info, check) in others {
            assert_eq!(VerdictKey::new(&info, &check).read(folder.path()), None, "{info:?}");
        }
    }

    #[test]
    fn damaged_and_foreign_files_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let key = VerdictKey::new(&info(), &check(16));
        let unsaved = key.unsaved(folder.path(), &MatrixVerdict::Faulty("reason".to_owned()));
        let path = &unsaved.path;
        for at in 0..unsaved.packed.len() {
            let mut damaged = unsaved.packed.clone();
            damaged[at] ^= 1;
            std::fs::write(path, damaged).unwrap();
            assert_eq!(key.read(folder.path()), None, "byte {at}");
            std::fs::write(path, &unsaved.packed[..at]).unwrap();
            assert_eq!(key.read(folder.path()), None, "{at} bytes");
        }
        for text in [
            "",
            "right\n",
            &format!("{}maybe\n", key.text),
            &format!("{}right", key.text),
            &format!("{}right\nnot", key.text),
        ] {
            std::fs::write(path, pack(&MAGIC, text.as_bytes())).unwrap();
            assert_eq!(key.read(folder.path()), None, "{text:?}");
        }
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
        assert_eq!(key.read(folder.path()), None);
        assert!(matches!(unsaved.save(), Err(crate::Error::File { .. })));
    }
}
