//! Where a record's partition key comes from.

use serde_json::Value;

/// Characters of a partition key.
const KEY_CHARS_MAX: usize = 256;

/// How keys are chosen.
#[derive(Debug)]
pub(super) enum KeyChoice {
    /// A random one for each record.
    Random(u64),
    /// The same for all.
    Fixed(String),
    /// A field of the record's JSON.
    Field(Vec<String>),
}

impl KeyChoice {
    /// Makes the choice that the command line asks for.
    ///
    /// # Errors
    /// When a key or a field cannot be one.
    pub(super) fn new(key: Option<String>, field: Option<&str>) -> Result<Self, String> {
        match (key, field) {
            (Some(key), _) => {
                check(&key).map_err(|reason| format!("--key: {reason}"))?;
                Ok(Self::Fixed(key))
            }
            (None, Some(field)) => {
                let path: Vec<String> = field.split('.').map(str::to_owned).collect();
                if path.iter().any(String::is_empty) {
                    return Err(format!(
                        "--key-field {field:?} is no field; write it like user or user.id"
                    ));
                }
                Ok(Self::Field(path))
            }
            (None, None) => getrandom::u64()
                .map(Self::Random)
                .map_err(|error| format!("no entropy for random keys: {error}; use --key or --key-field")),
        }
    }

    /// The key of a record.
    ///
    /// # Errors
    /// When its data has none.
    pub(super) fn of(&mut self, data: &[u8]) -> Result<String, String> {
        match self {
            Self::Fixed(key) => Ok(key.clone()),
            Self::Random(state) => {
                // splitmix64: keys need to differ and to spread, not to be secret.
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = *state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                Ok(format!("{:016x}", mixed ^ (mixed >> 31)))
            }
            Self::Field(path) => {
                let name = path.join(".");
                let value: Value = serde_json::from_slice(data)
                    .map_err(|error| format!("this is not JSON, so it has no field {name}: {error}"))?;
                let found = path.iter().try_fold(&value, |value, part| value.get(part));
                let key = match found {
                    Some(Value::String(text)) => text.clone(),
                    Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                    Some(Value::Null) => return Err(format!("the field {name} is null, and so no key")),
                    Some(_) => return Err(format!("the field {name} is not a text or a number, and so no key")),
                    None => return Err(format!("there is no field {name}")),
                };
                check(&key).map_err(|reason| format!("the field {name}: {reason}"))?;
                Ok(key)
            }
        }
    }
}

fn check(key: &str) -> Result<(), String> {
    match key.chars().count() {
        1..=KEY_CHARS_MAX => Ok(()),
        count => Err(format!(
            "a partition key has 1 to {KEY_CHARS_MAX} characters, this has {count}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(field: &str, data: &str) -> Result<String, String> {
        KeyChoice::new(None, Some(field)).unwrap().of(data.as_bytes())
    }

    #[test]
    fn a_field_may_lie_in_an_object_and_be_a_number() {
        assert_eq!(field("user", r#"{"user":"ann"}"#), Ok("ann".into()));
        assert_eq!(field("user.id", r#"{"user":{"id":7}}"#), Ok("7".into()));
        assert_eq!(field("ok", r#"{"ok":true}"#), Ok("true".into()));
    }

    #[test]
    fn a_record_without_the_key_is_refused_with_the_reason() {
        for (data, reason) in [
            ("", "not JSON"),
            ("x", "not JSON"),
            ("{}", "no field user"),
            ("[1]", "no field user"),
            (r#"{"user":null}"#, "is null"),
            (r#"{"user":{}}"#, "not a text"),
            (r#"{"user":""}"#, "1 to 256"),
        ] {
            let error = field("user", data).unwrap_err();
            assert!(error.contains(reason), "{data}: {error}");
        }
        assert!(KeyChoice::new(Some(String::new()), None).is_err());
        assert!(KeyChoice::new(Some("k".repeat(257)), None).is_err());
        assert!(KeyChoice::new(Some("ä".repeat(256)), None).is_ok());
        assert!(KeyChoice::new(None, Some("a..b")).is_err());
    }

    #[test]
    fn random_keys_differ() {
        let mut keys = KeyChoice::Random(1);
        let seen: std::collections::BTreeSet<String> = (0..1_000).map(|_| keys.of(b"").unwrap()).collect();
        assert_eq!(seen.len(), 1_000);
    }
}
