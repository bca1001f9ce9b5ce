//! The command line as shown and parsed: each command lists the values that it takes, and no others.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser as _, ValueParser};
use clap::{Command, CommandFactory as _, ValueEnum};
use wattn::Preset;
use wattn::bench::Series;

use super::sparse::AttentionArg;
use super::{Backend, Cli};

/// A parser of some of the values of a type.
fn only<T: ValueEnum + PartialEq + Send + Sync + 'static>(taken: &[T]) -> ValueParser {
    let values: Vec<PossibleValue> = taken.iter().filter_map(ValueEnum::to_possible_value).collect();
    PossibleValuesParser::new(values).try_map(|name| T::from_str(&name, false)).into()
}

/// A command without the values that only other commands take.
fn without(command: Command, backends: &[Backend], no_tier: bool) -> Command {
    let command = command.mut_arg("backend", |arg| arg.value_parser(only(backends)).help("Where to compute"));
    if no_tier { command.mut_arg("tier", |arg| arg.hide(true)) } else { command }
}

/// All of it.
pub(crate) fn command() -> Command {
    use Backend::{Auto, Cpu, Gpu};
    let searched = || only(&[AttentionArg::Dense, AttentionArg::Hip, AttentionArg::InfiniteHip]);
    let presets = || PossibleValuesParser::new(Preset::ALL.map(Preset::name));
    let layer = format!(
        "How one layer attends, different from the others: N=dense, N=hip, N=infinite-hip or N=PRESET, with a preset of {}",
        Preset::ALL.map(Preset::name).join(", ")
    );
    let cases = format!(
        "Only cases with one of these texts in their name, such as `decode/` or `131072`; names begin with {}",
        Series::ALL.map(|series| format!("{}/", series.name())).join(", ")
    );
    let cases = |command: Command| command.mut_arg("cases", |arg| arg.help(&cases));
    Cli::command()
        .mut_subcommand("recall", |recall| recall.mut_arg("attention", |arg| arg.value_parser(searched())))
        .mut_subcommand("lm", |lm| {
            let lm =
                lm.mut_arg("attention", |arg| arg.value_parser(searched())).mut_arg("layer", |arg| arg.help(&layer));
            without(lm, &[Auto, Gpu, Cpu], true).mut_subcommand("eval", |eval| {
                let eval = eval.mut_arg("presets", |arg| arg.value_parser(presets()));
                without(eval, &[Auto, Gpu, Cpu], true)
            })
        })
        .mut_subcommand("bench", |bench| cases(without(bench, &[Auto, Gpu, Cpu], false)))
        .mut_subcommand("tune", |tune| {
            let tune = without(tune, &[Auto, Gpu], true);
            cases(tune).mut_arg("no_tune", |arg| arg.hide(true)).mut_arg("tuning", |arg| arg.hide(true))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }
}
