//! The rotary embedding of a configuration.

use serde_json::Value;

use super::fields::Fields;
use super::keys;
use crate::lm::error::LmResult;
use crate::lm::rope::{Rope, RopeScaling};

/// `rope_theta` beside `rope_scaling`, as in older files, or `rope_parameters` with both. Where a file has both, the older fields were added
/// by hand, and count.
pub(super) fn rope(fields: &Fields<'_>, trained_len: u32) -> LmResult<Rope> {
    let [scaling, parameters] = ["rope_scaling", "rope_parameters"].map(|field| fields.within(field));
    let (scaling, parameters) = (scaling?, parameters?);
    let Some(within) = scaling.or(parameters) else {
        return Ok(Rope { theta: fields.positive("rope_theta")?.unwrap_or(THETA), scaling: RopeScaling::None });
    };
    keys::check_rope(&within)?;
    let theta = match within.positive("rope_theta")? {
        Some(theta) => theta,
        None => fields.positive("rope_theta")?.unwrap_or(THETA),
    };
    let kind_field = if within.has("rope_type") { "rope_type" } else { "type" };
    let kind = match within.get(kind_field) {
        None if !within.has(kind_field) => "default",
        kind => kind.and_then(Value::as_str).unwrap_or_default(),
    };
    if kind != "default" {
        // The type `default` rotates whole heads, whatever this says.
        for fields in [&within, fields] {
            if fields.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
                return Err(fields.error("partial_rotary_factor", "must be 1: heads rotate as a whole"));
            }
        }
    }
    let original_len = || -> LmResult<f64> {
        // The field above takes precedence.
        let above = fields.positive("original_max_position_embeddings")?;
        let original =
            above.map_or_else(|| within.positive("original_max_position_embeddings"), |len| Ok(Some(len)))?;
        Ok(original.unwrap_or(f64::from(trained_len)))
    };
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: within.needed("factor")? },
        "dynamic" => RopeScaling::Dynamic { factor: within.needed("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: within.needed("factor")?,
            low_freq_factor: within.needed("low_freq_factor")?,
            high_freq_factor: within.needed("high_freq_factor")?,
            original_len: original_len()?,
        },
        "yarn" => yarn(&within, f64::from(trained_len), original_len()?)?,
        _ => return Err(within.error(kind_field, "must be default, linear, dynamic, llama3 or yarn")),
    };
    Ok(Rope { theta, scaling })
}

/// The base where a file gives none.
const THETA: f64 = 10000.0;

fn yarn(fields: &Fields<'_>, trained_len: f64, original_len: f64) -> LmResult<RopeScaling> {
    let factor = match fields.positive("factor")? {
        Some(factor) => factor,
        None if fields.has("factor") => trained_len / original_len,
        None => return Err(fields.error("factor", "must be a number above 0, or null")),
    };
    // 0 and null stand for a missing value.
    let or_nothing = |field| -> LmResult<Option<f64>> { Ok(fields.number(field)?.filter(|&number| number != 0.0)) };
    let attention_factor = match fields.positive("attention_factor")? {
        Some(factor) => factor,
        None => {
            let scale = |weight: f64| if factor > 1.0 { 0.1 * weight * factor.ln() + 1.0 } else { 1.0 };
            match (or_nothing("mscale")?, or_nothing("mscale_all_dim")?) {
                (Some(mscale), Some(all_dim)) => scale(mscale) / scale(all_dim),
                _ => scale(1.0),
            }
        }
    };
    let beta = |field, default| -> LmResult<f64> {
        match or_nothing(field)? {
            Some(beta) if beta < 0.0 => Err(fields.error(field, "must not be below 0")),
            beta => Ok(beta.unwrap_or(default)),
        }
    };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: beta("beta_fast", 32.0)?,
        beta_slow: beta("beta_slow", 1.0)?,
        original_len,
        attention_factor,
        // Null counts as false.
        truncate: !fields.has("truncate") || fields.bool("truncate", false)?,
    })
}
