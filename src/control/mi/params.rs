//! Parameters of a command: by place or by name, numbers also as strings.

use super::MiError;
use serde_json::Value;

/// The parameters of one call, under their declared names.
#[derive(Debug, Default)]
pub struct Args<'a>(Vec<(&'static str, &'a Value)>);

impl<'a> Args<'a> {
    /// Fits what was given to one of the declared sets. Names that the caller may use for another stand in one
    /// declaration with `|` between them.
    ///
    /// # Errors
    /// -32602, with the reference's words.
    pub fn read(sets: &'static [&'static [&'static str]], given: Option<&'a Value>) -> Result<Args<'a>, MiError> {
        let count = match given {
            Some(Value::Array(list)) => list.len(),
            Some(Value::Object(map)) => map.len(),
            _ => 0,
        };
        let mut fitting = sets.iter().filter(|set| set.len() == count).peekable();
        if fitting.peek().is_none() {
            return Err(MiError::invalid_params("Too few or too many parameters"));
        }
        for set in fitting {
            let found: Option<Vec<_>> = match given {
                Some(Value::Array(list)) => Some(set.iter().copied().zip(list).collect()),
                Some(Value::Object(map)) => {
                    set.iter().map(|name| name.split('|').find_map(|n| map.get(n)).map(|v| (*name, v))).collect()
                }
                _ => Some(vec![]),
            };
            if let Some(found) = found {
                let named = found.into_iter().map(|(name, v)| (name.split('|').next().unwrap_or(name), v));
                return Ok(Args(named.collect()));
            }
        }
        Err(MiError::invalid_params("Named parameters do not match"))
    }

    fn get(&self, name: &'static str) -> Option<&'a Value> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    /// A string; a number stands for its digits. `None` when it was not given.
    pub fn text(&self, name: &'static str) -> Result<Option<String>, MiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s.clone())),
            Some(Value::Number(n)) => Ok(Some(n.to_string())),
            Some(_) => Err(bad_type(name)),
        }
    }

    /// A whole number, or a string of one.
    pub fn integer(&self, name: &'static str) -> Result<Option<i64>, MiError> {
        let number = match self.get(name) {
            None => return Ok(None),
            Some(Value::Number(n)) => n.as_i64(),
            Some(Value::String(s)) => s.trim().parse().ok(),
            Some(_) => None,
        };
        number.map(Some).ok_or_else(|| bad_type(name))
    }

    /// An array of strings.
    pub fn texts(&self, name: &'static str) -> Result<Vec<&'a str>, MiError> {
        let list = self.get(name).and_then(Value::as_array).ok_or_else(|| bad_type(name))?;
        list.iter().map(|v| v.as_str().ok_or_else(|| bad_type(name))).collect()
    }
}

fn bad_type(name: &str) -> MiError {
    MiError::invalid_params(format!("Bad type for parameter '{name}'"))
}
