//! Every golden vector of the specification, through every implementation on the CPU.

mod common;

use common::golden;
use wattn::cpu::{self, oracle};
use wattn::{AttentionProblem, DType, Mask};

#[test]
fn the_oracle_finds_every_list() {
    golden::check_selector(&oracle::select, "oracle");
}

#[test]
fn the_oracle_goes_through_the_same_rounds_and_stages() {
    let (mut rounds, mut stages) = (0, 0);
    for golden in golden::all() {
        let (_, traces) = oracle::select_traced(&golden.problem, &golden.selection_inputs()).unwrap();
        for (round, begins) in golden.rounds.iter().enumerate() {
            // The first entry of a trace is what the first round begins with.
            assert!(traces[0].rounds[round + 1].starts_with(begins), "{} after round {}", golden.name, round + 1);
            rounds += 1;
        }
        if !golden.rounds.is_empty() {
            assert_eq!(traces[0].rounds.len(), golden.rounds.len() + 1, "{}: rounds", golden.name);
        }
        if !golden.survivors.is_empty() {
            assert_eq!(traces[0].survivors, golden.survivors, "{}", golden.name);
            stages += golden.survivors.len();
        }
    }
    assert_eq!((rounds, stages), (3, 9), "rounds and stages that the specification gives");
}

#[test]
fn the_cpu_path_finds_every_list() {
    golden::check_selector(&cpu::select, "CPU");
}

#[test]
fn the_oracle_attends_to_every_list() {
    // The specification prints 7 decimals of attention and 5 of the mass, and scales by 1 / sqrt(8) in f64; a problem
    // holds its scale in f32, which moves scores of up to 16 by up to half a unit in the last place.
    const PRINTED: f64 = 6e-8 + 16.0 * common::UNIT;
    let mut rows = 0;
    for golden in golden::all() {
        let (problem, inputs, q_index) = (golden.attention(), golden.inputs(), golden.q_index());
        let blocks = oracle::select(&golden.problem, &golden.selection_inputs()).unwrap();
        for row in &golden.rows {
            let what = format!("{}, head {}", golden.name, row.q_head);
            let keys = oracle::attended_keys(&problem, 512, &blocks, 0, q_index, row.q_head);
            assert!(row.num_keys.is_none_or(|expected| keys.len() == expected), "{what}: {} keys", keys.len());
            let (out, lse) = oracle::attend_row(&problem, &inputs.with_blocks(&blocks), 0, q_index, row.q_head);
            assert!((lse - row.lse).abs() <= PRINTED, "{what}: lse {lse}, expected {}", row.lse);
            if let Some(expected) = row.out {
                assert!(out.iter().zip(expected).all(|(x, y)| (x - y).abs() <= PRINTED), "{what}: {out:?}");
            }
            if let Some((dense_lse, mass)) = row.dense {
                let dense = AttentionProblem::new(*problem.shape(), DType::F32).with_mask(Mask::Causal);
                let (_, got) = oracle::attend_row(&dense, &inputs, 0, q_index, row.q_head);
                assert!((got - dense_lse).abs() <= PRINTED, "{what}: dense lse {got}, expected {dense_lse}");
                assert!(((lse - got).exp() - mass).abs() <= 6e-6, "{what}: mass {}", (lse - got).exp());
            }
            rows += 1;
        }
    }
    assert_eq!(rows, 5, "rows that the specification gives");
}

#[test]
fn the_cpu_path_attends_to_every_list() {
    // f32: sums of 144 weights, each exact to a few units in the last place.
    let near = |got: f32, expected: f64| (f64::from(got) - expected).abs() <= 4e-6 * expected.abs().max(1.0);
    for golden in golden::all() {
        let (problem, inputs, q_index) = (golden.attention(), golden.inputs(), golden.q_index() as usize);
        let blocks = oracle::select(&golden.problem, &golden.selection_inputs()).unwrap();
        let got = cpu::attend(&problem, &inputs.with_blocks(&blocks)).unwrap();
        for row in &golden.rows {
            let what = format!("{}, head {}", golden.name, row.q_head);
            let lse = got.lse.row(0, q_index, row.q_head as usize)[0];
            assert!(near(lse, row.lse), "{what}: lse {lse}, expected {}", row.lse);
            let out = got.out.row(0, q_index, row.q_head as usize);
            if let Some(expected) = row.out {
                assert!(out.iter().zip(expected).all(|(&x, y)| near(x, y)), "{what}: {out:?}");
            }
        }
    }
}
