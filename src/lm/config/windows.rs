//! The layers that see only a window.

use super::Architecture;
use super::fields::Fields;
use crate::lm::error::LmResult;

/// For each layer the number of keys that a query sees.
pub(super) fn sliding_windows(
    fields: &Fields<'_>,
    architecture: Architecture,
    num_layers: u32,
) -> LmResult<Vec<Option<u32>>> {
    let qwen = match architecture {
        Architecture::Llama => return Ok(vec![None; num_layers as usize]),
        Architecture::Mistral => false,
        Architecture::Qwen2 | Architecture::Qwen3 => true,
    };
    let is_used = !qwen || fields.bool("use_sliding_window", false)?;
    let window = if is_used { fields.u32_or_null("sliding_window", Some(4096))? } else { None };
    if let Some(types) = fields.get("layer_types") {
        let rule = "must name full_attention or sliding_attention for each layer";
        let types = types.as_array().filter(|types| types.len() == num_layers as usize);
        let one = |kind: &serde_json::Value| match kind.as_str() {
            Some("full_attention" | "attention") => Ok(None),
            Some("sliding_attention") if window.is_some() => Ok(window),
            Some("sliding_attention") => {
                Err(fields.error("layer_types", "names layers with a window, and none is given"))
            }
            _ => Err(fields.error("layer_types", rule)),
        };
        return types.ok_or_else(|| fields.error("layer_types", rule))?.iter().map(one).collect();
    }
    // The first layers of Qwen see everything.
    let first = match fields.get("max_window_layers") {
        Some(first) if qwen => {
            first.as_u64().ok_or_else(|| fields.error("max_window_layers", "must be a number of layers"))?
        }
        _ if qwen => 28,
        _ => 0,
    };
    Ok((0..u64::from(num_layers)).map(|layer| window.filter(|_| layer >= first)).collect())
}
