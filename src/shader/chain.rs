//! The text that passes a score through the modifiers of a variant: what `modify/chain.wgsl` calls.

use core::fmt::Write as _;

use super::names::name_for;

/// A row's part of each modifier, and the modifiers one after the other. They are taken under `names`.
pub(super) fn chain_of(names: &[&str]) -> String {
    let (mut fields, mut parts, mut calls) = (String::new(), String::new(), String::new());
    for name in names {
        let [part_type, row_part, modify] = ["RowPart", "row_part", "modify"].map(|of| name_for(of, name));
        // Writing to a String cannot fail.
        let _ = writeln!(fields, "    {name}: {part_type},");
        let _ = write!(parts, ", {row_part}(query)");
        let _ = writeln!(calls, "    modified = {modify}(modified, row.query, row.{name}, key);");
    }
    format!(
        "struct ScoreRow {{\n    query: ScoreQuery,\n{fields}}}\n\n\
         fn score_row_of(query: ScoreQuery) -> ScoreRow {{\n    return ScoreRow(query{parts});\n}}\n\n\
         fn chain(score: f32, row: ScoreRow, key: u32) -> f32 {{\n    var modified = score;\n{calls}    return modified;\n}}\n"
    )
}
