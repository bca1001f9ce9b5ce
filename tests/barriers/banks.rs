//! Banks of workgroup memory, from the same runs: of the tiles that groups share no two lanes may want different words of one bank
//! at a time.

use wattn::{AttentionShape, DType, DeviceCaps, Sharing};

use super::attend::chosen;

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
