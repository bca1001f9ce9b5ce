//! Needles: facts hidden in text, asked for at its end.

use core::fmt;
use core::ops::ControlFlow;

use serde::Serialize;
use wattn::lm::Sampling;

use super::bar;
use super::bench::Bench;
use super::compare::{Method, keys};
use crate::failure::Failure;
use crate::recall::context::splitmix64;

/// Depth of the fact, as a share of the context.
const DEPTHS: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.9];

/// Facts in the text of the harder task, which asks for one of them.
const MANY: usize = 4;

const NAMES: [&str; 16] = [
    "window", "garden", "river", "stone", "letter", "signal", "bridge", "market", "candle", "silver", "planet",
    "button", "forest", "engine", "mirror", "harbor",
];

/// How often a kind of attention found the needle.
#[derive(Serialize)]
pub(super) struct Needles {
    attention: String,
    budget: Option<u32>,
    facts: usize,
    context: u32,
    trials: u32,
    /// `(depth, share of the trials)`.
    accuracy: Vec<(f64, f64)>,
}

/// Random numbers in a row.
struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        let bits = splitmix64(self.seed, self.drawn);
        self.drawn += 1;
        (bits % limit as u64) as usize
    }
}

/// A text with facts and a question at its end, and the answer.
struct Trial {
    tokens: Vec<u32>,
    answer: Vec<u32>,
}

pub(super) fn run(bench: &Bench<'_>, methods: &[Method], context: u32) -> Result<Vec<Needles>, Failure> {
    let (trials, kinds) = (bench.args.needles, [1, MANY]);
    if trials == 0 {
        return Ok(Vec::new());
    }
    let progress = bar((methods.len() * kinds.len() * DEPTHS.len()) as u64 * u64::from(trials), "asking");
    let mut all = Vec::new();
    for facts in kinds {
        for method in methods.iter().filter(|method| method.budget.is_none_or(|budget| budget < context)) {
            let mut session = bench.session(&bench.loaded.engine, method, context)?;
            let mut accuracy = Vec::new();
            for (row, depth) in DEPTHS.into_iter().enumerate() {
                let mut found = 0;
                for trial in 0..trials {
                    let seed = bench.args.seed + 1000 * row as u64 + u64::from(trial);
                    let Trial { tokens, answer } = trial_of(bench, context as usize, depth, facts, seed)?;
                    session.truncate(0);
                    session.read(&tokens)?;
                    let mut told = Vec::new();
                    session.generate(answer.len(), &Sampling::GREEDY, |token| {
                        told.push(token);
                        ControlFlow::Continue(())
                    })?;
                    found += u32::from(told == answer);
                    progress.inc(1);
                }
                accuracy.push((depth, f64::from(found) / f64::from(trials)));
            }
            let (attention, budget) = (method.name.clone(), method.budget);
            all.push(Needles { attention, budget, facts, context, trials, accuracy });
        }
    }
    progress.finish_and_clear();
    Ok(all)
}

fn trial_of(bench: &Bench<'_>, context: usize, depth: f64, facts: usize, seed: u64) -> Result<Trial, Failure> {
    let tokenizer = bench.model().tokenizer();
    let mut random = Random { seed: seed.wrapping_mul(0x2545_f491_4f6c_dd1d), drawn: 0 };
    let first = random.below(NAMES.len());
    let fact = |name: &str, key: usize| format!("\nThe pass key of {name} is {key}.\n");
    let pairs: Vec<(&str, usize)> =
        (0..facts).map(|at| (NAMES[(first + at) % NAMES.len()], 10000 + random.below(90000))).collect();
    let facts = pairs.iter().map(|(name, key)| tokenizer.encode(&fact(name, *key))).collect::<Result<Vec<_>, _>>()?;
    let (name, key) = pairs[0];
    // The answer as it stands in the text; the question includes everything before it.
    let whole = tokenizer.encode(&fact(name, key))?;
    let question = tokenizer.encode(&format!("\nThe pass key of {name} is"))?;
    let question_len = whole.iter().zip(&question).take_while(|(a, b)| a == b).count();
    let (question, answer) = whole.split_at(question_len);
    // The full stop and the line after it do not belong to the key.
    let key_len = tokenizer.encode(&format!(" {key}"))?.len();
    let answer = answer[..key_len.min(answer.len())].to_vec();

    let longest = bench.documents.iter().max_by_key(|tokens| tokens.ids.len());
    let text = longest.map_or(&[][..], |tokens| &tokens.ids);
    let used: usize = facts.iter().map(Vec::len).sum::<usize>() + question.len() + answer.len();
    let room = context.saturating_sub(used);
    let offset = random.below(text.len().saturating_sub(room).max(1));
    let filler: Vec<u32> = text.iter().cycle().skip(offset).take(room).copied().collect();
    // The wanted fact goes to its depth, the others anywhere.
    let mut places: Vec<(usize, &Vec<u32>)> = vec![((depth * room as f64) as usize, &facts[0])];
    places.extend(facts[1..].iter().map(|fact| (random.below(room.max(1)), fact)));
    places.sort_by_key(|&(place, _)| place);
    let (mut tokens, mut done) = (Vec::with_capacity(context), 0);
    for (place, fact) in places {
        tokens.extend_from_slice(&filler[done..place]);
        tokens.extend_from_slice(fact);
        done = place;
    }
    tokens.extend_from_slice(&filler[done..]);
    tokens.extend_from_slice(question);
    Ok(Trial { tokens, answer })
}

pub(super) fn table(f: &mut fmt::Formatter<'_>, all: &[Needles]) -> fmt::Result {
    for facts in [1, MANY] {
        let of: Vec<&Needles> = all.iter().filter(|needles| needles.facts == facts).collect();
        let Some(any) = of.first() else { continue };
        let what = if facts == 1 { "one key".to_owned() } else { format!("one of {facts} keys") };
        writeln!(f, "\nKeys found in {} tokens ({what}, {} trials), by depth\n", any.context, any.trials)?;
        write!(f, "  {:<18} {:>6}", "attention", "keys")?;
        for depth in DEPTHS {
            write!(f, " {:>6.0} %", 100.0 * depth)?;
        }
        writeln!(f)?;
        for needles in of {
            write!(f, "  {:<18} {:>6}", needles.attention, keys(needles.budget))?;
            for (_, share) in &needles.accuracy {
                write!(f, " {share:>8.2}")?;
            }
            writeln!(f)?;
        }
    }
    Ok(())
}
