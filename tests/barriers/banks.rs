//! Banks of workgroup memory, from the same runs: in tiles that groups share, no two lanes may access different words of one bank at the
//! same time.

use wattn::{AttentionShape, DType, DeviceCaps, Sharing};

use super::attend::chosen;
use super::machine::{Machine, Mask};
use super::program::{Place, Root, Space};
use super::shadow::Fault;

impl Machine<'_> {
    /// Records the lanes that meet on a bank of workgroup memory. Hardware serves a vec4 of eight lanes at a time, from 32 banks of 4
    /// bytes; lanes that want the same vec4 are served together.
    pub(crate) fn note_banks(&mut self, place: &Place, active: Mask, line: u32) -> Result<(), Fault> {
        let Root::Memory(memory) = place.root else { return Ok(()) };
        let variable = &self.program.memories[memory];
        if variable.space != Space::Workgroup || place.size != 4 || variable.kind.size_bytes() != 4 {
            return Ok(());
        }
        for first in (0..self.program.lanes).step_by(8) {
            let mut wanted: [Vec<usize>; 8] = Default::default();
            for lane in (first..(first + 8).min(self.program.lanes)).filter(|&lane| active.has(lane)) {
                let at = self.offset(place, lane, line)? / 4;
                let bank = &mut wanted[at % 8];
                if !bank.contains(&at) {
                    bank.push(at);
                }
            }
            let met = wanted.iter().map(Vec::len).max().unwrap_or(0);
            let most = self.banks.entry((line, memory)).or_default();
            *most = met.max(*most);
        }
        Ok(())
    }
}

/// Devices by their subgroups, and whether they have f16.
fn devices() -> Vec<DeviceCaps> {
    let mut devices = Vec::new();
    for subgroup_size in [None, Some(32..=32), Some(8..=16), Some(64..=64)] {
        let mut caps = DeviceCaps::BASELINE;
        caps.shader_f16 = true;
        caps.max_workgroup_storage_bytes = 48 << 10;
        caps.subgroup_size = subgroup_size;
        devices.push(caps);
    }
    devices.push(DeviceCaps::BASELINE);
    devices
}

#[test]
fn no_two_lanes_meet_on_a_bank() {
    for caps in devices() {
        for [head_dim, head_dim_v] in [[64, 64], [128, 128], [20, 36], [8, 256]] {
            for dtype in [DType::F32, DType::F16] {
                let shape = AttentionShape {
                    batch_size: 1,
                    seq_len_q: 40,
                    seq_len_kv: 40,
                    num_q_heads: 1,
                    num_kv_heads: 1,
                    head_dim,
                    head_dim_v,
                };
                let (launch, mut buffers, tiling) = chosen(&caps, shape, dtype);
                assert_eq!(tiling.sharing, Sharing::Tiles, "{tiling}");
                let ran = launch.run_all(&launch.rolled, &mut buffers).unwrap_or_else(|fault| panic!("{fault}"));
                let staged: Vec<_> =
                    ran.iter().flat_map(|ran| &ran.banks).filter(|(line, _)| line.contains("staged[")).collect();
                assert!(staged.len() >= 8, "{staged:?}");
                for (line, met) in staged {
                    assert_eq!(*met, 1, "{tiling}, {head_dim}/{head_dim_v} {dtype}: {line}");
                }
            }
        }
    }
}
