//! Fields of a JSON object, each with its rule.

use serde_json::{Map, Value};

use crate::lm::error::{LmError, LmResult};
use crate::lm::json;

/// The fields of a file, or of an object in it.
pub(in crate::lm) struct Fields<'a> {
    file: &'static str,
    /// The object's own name, where it lies in another.
    within: Option<&'static str>,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(in crate::lm) const fn new(file: &'static str, object: &'a Map<String, Value>) -> Self {
        Self { file, within: None, object }
    }

    /// The object of a field; `None` where it is absent or empty.
    pub(super) fn within(&self, field: &'static str) -> LmResult<Option<Self>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(object)) if object.is_empty() => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Self { file: self.file, within: Some(field), object })),
            Some(_) => Err(self.error(field, "must be an object")),
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.object.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether a field is there, be it null.
    pub(super) fn has(&self, field: &str) -> bool {
        self.object.contains_key(field)
    }

    /// A field that exists and is not null.
    pub(super) fn get(&self, field: &str) -> Option<&'a Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    pub(in crate::lm) fn error(&self, field: &str, rule: &'static str) -> LmError {
        let value = self.object.get(field).map_or_else(|| "missing".to_owned(), json::shown);
        let field = self.within.map_or_else(|| field.to_owned(), |within| format!("{within}.{field}"));
        LmError::Config { file: self.file, field, value, rule }
    }

    /// A count: the default where the field is left out.
    pub(super) fn u32(&self, field: &str, default: u32) -> LmResult<u32> {
        if self.has(field) { self.to_u32(field) } else { Ok(default) }
    }

    /// A count, or null.
    pub(super) fn u32_or_null(&self, field: &str, default: Option<u32>) -> LmResult<Option<u32>> {
        match self.object.get(field) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.to_u32(field).map(Some),
        }
    }

    fn to_u32(&self, field: &str) -> LmResult<u32> {
        let value = self.get(field).and_then(Value::as_u64).and_then(|value| u32::try_from(value).ok());
        value.filter(|&value| value > 0).ok_or_else(|| self.error(field, "must be a positive integer below 2^32"))
    }

    /// A number; `None` where it is left out or null.
    pub(super) fn number(&self, field: &str) -> LmResult<Option<f64>> {
        let read = |value: &Value| value.as_f64().ok_or_else(|| self.error(field, "must be a finite number"));
        self.get(field).map(read).transpose()
    }

    /// A number above zero; `None` where it is left out or null.
    pub(super) fn positive(&self, field: &str) -> LmResult<Option<f64>> {
        match self.number(field)? {
            Some(value) if value <= 0.0 => Err(self.error(field, "must be above 0")),
            value => Ok(value),
        }
    }

    /// A number above zero that has to be there.
    pub(super) fn needed(&self, field: &str) -> LmResult<f64> {
        self.positive(field)?.ok_or_else(|| self.error(field, "must be a number above 0"))
    }

    pub(super) fn bool(&self, field: &str, default: bool) -> LmResult<bool> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.error(field, "must be true or false")),
        }
    }

    /// A token, a list of tokens, or none. Tokens outside the vocabulary, which converted models have, are dropped: no text has them.
    pub(in crate::lm) fn tokens(&self, field: &str, vocab_size: u32) -> LmResult<Vec<u32>> {
        let values = match self.get(field) {
            None => &[],
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        if !values.iter().all(|value| value.is_i64() || value.is_u64()) {
            return Err(self.error(field, "must be a token, a list of tokens or null"));
        }
        let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
        Ok(values.iter().filter_map(token).filter(|&token| token < vocab_size).collect())
    }
}
