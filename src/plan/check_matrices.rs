//! A product of matrices whose result is known: `shaders/check/check_matrices.wgsl`, its operands and its expected result.

use std::collections::BTreeMap;

use half::f16;

use super::attend::matrix::{FLOATS_PADDING4, HALVES_PADDING4, modules};
use crate::DeviceCaps;
use crate::kernels::{self, modules as own};
use crate::shader::{Arrays, Module, Specialization, Taken};

/// Number of matrices side by side: of keys, of their width, of the width of values. The fewest with matrices that begin within rows
/// and below others, since a software device takes long to compile each product.
const KEY_TILES: u32 = 2;
const K_TILES: u32 = 2;
const V_TILES: u32 = 2;
const _: () = assert!(K_TILES == KEY_TILES, "queries come in through the place of the weights");

/// The check of a device's matrix products, run by [`Context::check_matrices`](crate::Context::check_matrices). Its numbers are whole,
/// so that no device may round, and no two neighbours in a row or column are equal, so that a misplaced element is noticed.
#[derive(Clone, Debug)]
pub struct MatrixCheck {
    edge: u32,
    lanes: u32,
    groups: u32,
    modules: Vec<&'static Module>,
    arrays: Arrays,
}

/// Tensor, row and column, and value.
type Element = (&'static str, [u32; 2], f32);

/// The operands, row by row.
#[derive(Clone)]
struct Operands {
    q: Vec<i32>,
    k: Vec<i32>,
    v: Vec<i32>,
    weights: Vec<i32>,
    first_sums: Vec<i32>,
}

impl MatrixCheck {
    /// The check for a device; `None` where it reports no matrices that kernels would use. An earlier fault of the matrices does not
    /// matter.
    pub fn of(caps: &DeviceCaps) -> Option<Self> {
        let edge = caps.reported_edge()?;
        let lanes = *caps.subgroup_size.as_ref()?.start();
        // A second group shows mistakes between subgroups; some devices have no room for one.
        let groups = (caps.max_invocations_per_workgroup / lanes).clamp(1, 2);
        let mut chosen = vec![&own::ELEM_F16, &own::SHUFFLE_WORKGROUP];
        chosen.extend(modules(edge, caps));
        chosen.push(if caps.matrix_from_vec4 { &own::VALUES_VEC4 } else { &own::VALUES_SCALAR });
        Some(Self { edge, lanes, groups, modules: chosen, arrays: super::arrays_of(caps) })
    }

    /// The complete WGSL.
    #[must_use]
    pub fn wgsl(&self) -> String {
        self.specialization().wgsl()
    }

    /// The kernel's text and bindings.
    #[must_use]
    pub fn specialization(&self) -> Specialization {
        Specialization {
            kernel: &kernels::CHECK_MATRICES,
            modules: Taken::all(self.modules.iter().copied()),
            constants: self.constants(),
            switches: BTreeMap::new(),
            arrays: self.arrays,
            chain: Vec::new(),
        }
    }

    /// Invocations of the one workgroup.
    #[must_use]
    pub fn workgroup_size(&self) -> u32 {
        self.lanes * self.groups
    }

    fn rows(&self) -> u32 {
        self.groups * self.edge
    }

    fn tile_kv(&self) -> u32 {
        KEY_TILES * self.edge
    }

    fn head_dim(&self) -> u32 {
        K_TILES * self.edge
    }

    fn head_dim_v(&self) -> u32 {
        V_TILES * self.edge
    }

    /// Strides as in the tilings of attention.
    fn constants(&self) -> BTreeMap<&'static str, u32> {
        let (rows, tile_kv) = (self.rows(), self.tile_kv());
        let (k_columns4, v_columns4) = (self.head_dim() / 4, self.head_dim_v() / 4);
        let a_stride4 = tile_kv / 4 + HALVES_PADDING4;
        let (k_stride4, v_stride4) = (k_columns4 + HALVES_PADDING4, v_columns4 + HALVES_PADDING4);
        let sums_stride4 = tile_kv / 4 + FLOATS_PADDING4;
        BTreeMap::from([
            ("EDGE", self.edge),
            ("LANES", self.lanes),
            ("WORKGROUP_SIZE", self.workgroup_size()),
            ("ROWS", rows),
            ("TILE_KV", tile_kv),
            ("KEY_TILES", KEY_TILES),
            ("K_TILES", K_TILES),
            ("V_TILES", V_TILES),
            ("K_COLUMNS4", k_columns4),
            ("V_COLUMNS4", v_columns4),
            ("A_STRIDE4", a_stride4),
            ("K_STRIDE4", k_stride4),
            ("V_STRIDE4", v_stride4),
            ("SUMS_STRIDE4", sums_stride4),
            ("TILE_A4", rows * a_stride4),
            ("TILE_K4", tile_kv * k_stride4),
            ("TILE_V4", tile_kv * v_stride4),
            ("TILE_SUMS4", rows * sums_stride4),
        ])
    }

    /// The kernel's input.
    #[must_use]
    pub fn operands_f16(&self) -> Vec<f16> {
        let Operands { q, k, v, weights, first_sums } = self.operands();
        // Below 2048, so f16 holds them.
        [q, k, v, weights, first_sums].concat().into_iter().map(|x| f16::from_f32(x as f32)).collect()
    }

    fn operands(&self) -> Operands {
        let (rows, tile_kv) = (self.rows(), self.tile_kv());
        Operands {
            q: painted([rows, self.head_dim()], [37, 101, 1]),
            k: painted([tile_kv, self.head_dim()], [53, 149, 2]),
            v: painted([tile_kv, self.head_dim_v()], [71, 163, 3]),
            weights: painted([rows, tile_kv], [89, 181, 4]),
            first_sums: painted([rows, self.head_dim_v()], [97, 211, 5]),
        }
    }

    /// The expected output, with the name of each element's tensor, its row and its column.
    #[must_use]
    pub fn expected(&self) -> Vec<Element> {
        self.product(&self.operands())
    }

    fn product(&self, operands: &Operands) -> Vec<Element> {
        let (rows, tile_kv, width, width_v) = (self.rows(), self.tile_kv(), self.head_dim(), self.head_dim_v());
        let at = |tensor: &[i32], row: u32, columns: u32, column: u32| tensor[(row * columns + column) as usize];
        // Whole numbers below 2^24: no rounding, in whatever order they are added. Products are below 2^16, 32 of them.
        let score = |row, key| {
            (0..width).map(|d| at(&operands.q, row, width, d) * at(&operands.k, key, width, d)).sum::<i32>() as f32
        };
        let out = |row, column| {
            let weighted = |key| at(&operands.weights, row, tile_kv, key) * at(&operands.v, key, width_v, column);
            (at(&operands.first_sums, row, width_v, column) + (0..tile_kv).map(weighted).sum::<i32>()) as f32
        };
        let pairs = |outer: u32, inner: u32| (0..outer).flat_map(move |i| (0..inner).map(move |j| [i, j]));
        let mut expected = Vec::new();
        expected.extend(pairs(rows, tile_kv).map(|[row, key]| ("scores", [row, key], score(row, key))));
        expected.extend(pairs(rows, width_v).map(|[row, column]| ("sums", [row, column], out(row, column))));
        let by_columns = pairs(width_v, rows).map(|[column, row]| ("sums by columns", [row, column], out(row, column)));
        expected.extend(by_columns);
        let arrived =
            |i| ("invocations", [0, i], (self.workgroup_size() / 4 + u32::from(i < self.workgroup_size() % 4)) as f32);
        expected.extend((0..4).map(arrived));
        expected
    }

    /// The fault in the kernel's output, if any.
    #[must_use]
    pub fn fault(&self, found: &[f32]) -> Option<String> {
        let expected = self.expected();
        assert_eq!(found.len(), expected.len(), "all of the buffer that was made for it");
        let mut wrong = expected.iter().zip(found).filter(|((.., expected), found)| expected != *found);
        let ((tensor, [row, column], expected), found) = wrong.next()?;
        let others = wrong.count();
        Some(format!(
            "a product of whole numbers is wrong: {tensor}[{row}, {column}] is {found}, not {expected}, and {others} more of \
             {} are",
            self.expected().len()
        ))
    }
}

/// Whole numbers from -254 to 254 with a prime period along rows and along columns.
fn painted([rows, columns]: [u32; 2], [by_row, by_column, first]: [u32; 3]) -> Vec<i32> {
    let number = |row: u32, column: u32| ((by_row * row + by_column * column + first) % 509) as i32 - 254;
    (0..rows).flat_map(|row| (0..columns).map(move |column| number(row, column))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MatrixTile;

    fn checks() -> Vec<MatrixCheck> {
        let check = |(edge, lanes)| {
            let mut caps = DeviceCaps::BASELINE;
            (caps.shader_f16, caps.subgroup_size) = (true, Some(lanes..=lanes));
            caps.matrix_tiles = vec![MatrixTile::square(edge)];
            MatrixCheck::of(&caps).unwrap()
        };
        [(8, 4), (8, 8), (8, 32), (16, 32), (16, 64), (16, 128), (16, 256)].map(check).to_vec()
    }

    #[test]
    fn operands_and_sums_are_exact() {
        for check in checks() {
            assert!(check.operands_f16().iter().all(|x| x.to_f32().abs() <= 254.0));
            assert!(check.expected().iter().all(|(.., x)| x.fract() == 0.0 && x.abs() < 8_388_608.0));
            assert_eq!(check.fault(&check.expected().iter().map(|element| element.2).collect::<Vec<_>>()), None);
        }
    }

    #[test]
    fn a_wrong_number_is_named() {
        let check = &checks()[3];
        let mut found: Vec<f32> = check.expected().iter().map(|element| element.2).collect();
        let columns = check.tile_kv() as usize;
        found[2 * columns + 5] = f32::NAN;
        found[2 * columns + 9] += 1.0;
        let fault = check.fault(&found).unwrap();
        assert!(fault.contains("scores[2, 5] is NaN") && fault.contains("and 1 more of"), "{fault}");

        // Every number counts.
        let check = &checks()[0];
        let expected = check.expected();
        let right: Vec<f32> = expected.iter().map(|element| element.2).collect();
        for (at, (tensor, [row, column], _)) in expected.into_iter().enumerate() {
            let mut found = right.clone();
            found[at] += 1.0;
            let fault = check.fault(&found).unwrap();
            assert!(fault.contains(&format!("{tensor}[{row}, {column}] is")), "{fault}");
        }
    }

    /// The input as read by a device that takes part of a matrix from elsewhere. Every output that depends on it, or nearly every one, must
    /// come out wrong: few are equal by chance.
    #[test]
    fn whatever_is_in_anothers_place_shows() {
        for check in checks() {
            let right = check.operands();
            let expected = check.expected();
            let wrong_parts = |operands: &Operands| {
                let product = check.product(operands);
                let mut of_tensor: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
                for (got, expected) in product.iter().zip(&expected) {
                    let [wrong, all] = of_tensor.entry(expected.0).or_default();
                    *wrong += usize::from(got != expected);
                    *all += 1;
                }
                of_tensor
            };
            type Tensor = fn(&mut Operands) -> &mut Vec<i32>;
            let tensors: [(&str, Tensor, u32, &str); 5] = [
                ("q", |operands| &mut operands.q, check.head_dim(), "scores"),
                ("k", |operands| &mut operands.k, check.head_dim(), "scores"),
                ("v", |operands| &mut operands.v, check.head_dim_v(), "sums"),
                ("weights", |operands| &mut operands.weights, check.tile_kv(), "sums"),
                ("first sums", |operands| &mut operands.first_sums, check.head_dim_v(), "sums"),
            ];
            for (name, tensor, columns, seen_in) in tensors {
                let columns = columns as usize;
                let edge = check.edge as usize;
                let shifts = (1..=edge).map(|shift| (format!("shifted by {shift}"), shift));
                let rows = (1..edge).map(|rows| (format!("{rows} rows on"), rows * columns));
                for (what, shift) in shifts.chain(rows) {
                    let mut operands = right.clone();
                    tensor(&mut operands).rotate_left(shift);
                    let [wrong, all] = wrong_parts(&operands)[seen_in];
                    assert!(wrong * 10 > all * 9, "{check:?}: {name} {what}: {wrong} of {all}");
                }
                let mut operands = right.clone();
                let data = tensor(&mut operands);
                // Each matrix across its diagonal.
                for (row, column) in
                    (0..data.len() / columns).flat_map(|row| (0..columns).map(move |column| (row, column)))
                {
                    let (r, c) = (row % edge, column % edge);
                    if r < c {
                        data.swap(row * columns + column, (row - r + c) * columns + column - c + r);
                    }
                }
                let [wrong, all] = wrong_parts(&operands)[seen_in];
                assert!(wrong * 10 > all * 8, "{check:?}: {name} transposed: {wrong} of {all}");
            }
        }
    }
}
