//! `wattn bench compare`: two reports side by side.

use core::fmt::Write as _;

use wattn::bench::{Compared, Verdict, compare};

use crate::args::bench::CompareArgs;
use crate::failure::Failure;
use crate::files;

pub(super) fn run(args: &CompareArgs) -> Result<(), Failure> {
    let (first, second) = (super::read(&args.first)?, super::read(&args.second)?);
    let comparison = compare(&first, &second);
    let mut text = String::new();
    // Writing to a String cannot fail.
    for (name, report) in [("first", &first), ("second", &second)] {
        let commit = report.commit.as_deref().unwrap_or("commit unknown");
        let _ = writeln!(text, "{name:<9} wattn {} ({commit}) on {}", report.version, report.machine.adapter);
    }
    for warning in &comparison.warnings {
        let _ = writeln!(text, "careful   {warning}");
    }
    let columns = ["first ms", "spread", "second ms", "spread", "ratio"];
    let _ = write!(text, "\n{:<46}", "first / second: above 1 the second is faster");
    columns.iter().for_each(|column| {
        let _ = write!(text, " {column:>10}");
    });
    text.push('\n');
    for Compared { id, part, medians, spreads, ratio, verdict } in &comparison.rows {
        let _ = write!(text, "{:<46}", format!("{id} {}", part.name()));
        for (median, spread) in medians.iter().zip(spreads) {
            let _ = write!(text, " {:>10.4} {:>8.1} %", 1e3 * median, 100.0 * spread);
        }
        let _ = writeln!(text, " {ratio:>10.3}  {}", verdict.name());
    }
    for (which, what) in &comparison.unmatched {
        let _ = writeln!(text, "{what}: in the {which} only");
    }
    let count = |wanted: Verdict| comparison.rows.iter().filter(|row| row.verdict == wanted).count();
    let _ = writeln!(
        text,
        "\n{} compared: {} faster, {} slower, {} within noise",
        comparison.rows.len(),
        count(Verdict::Faster),
        count(Verdict::Slower),
        count(Verdict::Noise)
    );
    files::print(&text)
}
