//! What values the attributes of a stream may have, in the service's words where it has some.

use crate::error::StoreError;
use crate::limits;
use crate::stream::StreamMode;

pub(super) fn check_count(current: u32, target: u32) -> Result<(), StoreError> {
    let invalid = |text: String| Err(StoreError::Invalid(text));
    if u64::from(target) > 2 * u64::from(current) {
        return invalid(format!(
            "UpdateShardCount cannot scale up over double your current open shard count. Current open shard count: \
             {current} Target shard count: {target}"
        ));
    }
    if 2 * u64::from(target) < u64::from(current) {
        return invalid(format!(
            "UpdateShardCount cannot scale down below half your current open shard count. Current open shard count: \
             {current} Target shard count: {target}"
        ));
    }
    Ok(())
}

pub(crate) fn check_retention(hours: u32) -> Result<(), StoreError> {
    let (min, max) = (limits::RETENTION_HOURS, limits::RETENTION_HOURS_MAX);
    if hours < min {
        return Err(StoreError::Invalid(format!(
            "Minimum allowed retention period is {min} hours. Requested retention period ({hours} hours) is too short."
        )));
    }
    if hours > max {
        return Err(StoreError::Invalid(format!(
            "Maximum allowed retention period is {max} hours. Requested retention period ({hours} hours) is too long."
        )));
    }
    Ok(())
}

pub(crate) fn check_record_kib(kib: u32) -> Result<(), StoreError> {
    if (limits::RECORD_KIB..=limits::RECORD_KIB_MAX).contains(&kib) {
        return Ok(());
    }
    Err(StoreError::Invalid(format!(
        "records of {kib} KiB: choose 1,024 to 10,240"
    )))
}

pub(crate) fn check_warm_throughput(mode: StreamMode, mibps: Option<u32>) -> Result<(), StoreError> {
    if mode == StreamMode::Provisioned && mibps.is_some() {
        return Err(StoreError::Invalid(
            "WarmThroughputMiBps is for streams in ON_DEMAND mode: leave it out, or change the mode".to_owned(),
        ));
    }
    Ok(())
}

pub(crate) fn check_tags(tags: &[(String, String)]) -> Result<(), StoreError> {
    if tags.len() > limits::TAGS_MAX {
        return Err(StoreError::Invalid(format!(
            "{} tags: a stream has at most {}",
            tags.len(),
            limits::TAGS_MAX
        )));
    }
    for (key, value) in tags {
        if !(1..=limits::TAG_KEY_CHARS_MAX).contains(&key.chars().count())
            || value.chars().count() > limits::TAG_VALUE_CHARS_MAX
        {
            return Err(StoreError::Invalid(format!(
                "a tag's key has 1 to {} characters and its value at most {}",
                limits::TAG_KEY_CHARS_MAX,
                limits::TAG_VALUE_CHARS_MAX
            )));
        }
        let allowed = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@%".contains(c);
        if !key.chars().chain(value.chars()).all(allowed) {
            return Err(StoreError::Invalid(
                "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, \
                 _ . : / = + - % @."
                    .to_owned(),
            ));
        }
    }
    Ok(())
}

pub(super) fn check_policy(policy: &str) -> Result<(), StoreError> {
    let invalid = |text: &str| Err(StoreError::Invalid(format!("the resource policy {text}")));
    if policy.len() > limits::POLICY_BYTES_MAX {
        return invalid(&format!("has more than {} bytes", limits::POLICY_BYTES_MAX));
    }
    let Ok(serde_json::Value::Object(document)) = serde_json::from_str(policy) else {
        return invalid("is not a JSON object");
    };
    let statements = match document.get("Statement") {
        Some(serde_json::Value::Array(statements)) => &statements[..],
        Some(statement @ serde_json::Value::Object(_)) => std::slice::from_ref(statement),
        _ => return invalid("has no Statement"),
    };
    if statements.is_empty() {
        return invalid("has no Statement");
    }
    for statement in statements {
        if !matches!(statement["Effect"].as_str(), Some("Allow" | "Deny")) {
            return invalid("has a Statement whose Effect is neither Allow nor Deny");
        }
        for field in ["Principal", "Action"] {
            if statement.get(field).is_none() {
                return invalid(&format!("has a Statement without {field}"));
            }
        }
    }
    Ok(())
}

pub(super) fn check_key_id(key: &str) -> Result<(), StoreError> {
    let chars = key.chars().count();
    if !(1..=limits::KEY_ID_CHARS_MAX).contains(&chars) {
        return Err(StoreError::Invalid(format!(
            "the KeyId has {chars} characters: it must have 1 to {}",
            limits::KEY_ID_CHARS_MAX
        )));
    }
    Ok(())
}
