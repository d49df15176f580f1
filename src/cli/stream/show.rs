//! `list` and `describe`.

use super::Endpoint;
use super::failure::{Failure, print};
use super::lifecycle::unless_unsupported;
use crate::cli::kinesis::{KinesisClient, KinesisError, Shard, moment_ms, moment_text};
use crate::cli::table::table;
use crate::timestamp;
use clap::Args;
use serde_json::{Map, Value, json};

/// The arguments of `list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArguments {
    /// Show shards and retention too; asks once for each stream.
    #[arg(long, short)]
    long: bool,
    /// Print the streams as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    endpoint: Endpoint,
}

/// The arguments of `describe`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DescribeArguments {
    /// The stream.
    name: String,
    /// Only open shards.
    #[arg(long)]
    open: bool,
    /// Print the stream as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    endpoint: Endpoint,
}

/// A stream without its shards.
#[derive(Debug)]
pub(super) struct Description {
    name: String,
    arn: Option<String>,
    status: String,
    mode: Option<String>,
    retention_hours: Option<u64>,
    open_shards: Option<u64>,
    consumers: Option<u64>,
    record_kib_max: Option<u64>,
    encryption: Option<String>,
    created_ms: Option<i64>,
}

impl Description {
    /// Reads what DescribeStreamSummary, or ListStreams, tells of a stream.
    pub(super) fn read(summary: &Value) -> Self {
        let text = |pointer: &str| summary.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let number = |field: &str| summary.get(field).and_then(Value::as_u64);
        Self {
            name: text("/StreamName").unwrap_or_default(),
            arn: text("/StreamARN"),
            status: text("/StreamStatus").unwrap_or_else(|| "-".into()),
            mode: text("/StreamModeDetails/StreamMode"),
            retention_hours: number("RetentionPeriodHours"),
            open_shards: number("OpenShardCount"),
            consumers: number("ConsumerCount"),
            record_kib_max: number("MaxRecordSizeInKiB"),
            encryption: text("/EncryptionType"),
            created_ms: moment_ms(summary.get("StreamCreationTimestamp")),
        }
    }

    /// The stream for programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "name": self.name, "arn": self.arn, "status": self.status, "mode": self.mode,
            "retention_hours": self.retention_hours, "open_shards": self.open_shards, "consumers": self.consumers,
            "record_kib_max": self.record_kib_max, "encryption": self.encryption, "created_ms": self.created_ms,
        })
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// Writes hours as days where that is a whole number.
fn retention_text(hours: Option<u64>) -> String {
    match hours {
        Some(hours) if hours % 24 == 0 && hours > 24 => format!("{hours} h ({} days)", hours / 24),
        Some(hours) => format!("{hours} h"),
        None => "-".into(),
    }
}

/// The stream for people.
pub(super) fn summary_text(stream: &Description) -> String {
    let record = stream.record_kib_max.map(|kib| format!("{kib} KiB"));
    let rows = [
        ("name", stream.name.clone()),
        ("arn", or_dash(stream.arn.as_deref())),
        ("status", stream.status.clone()),
        ("mode", or_dash(stream.mode.as_deref())),
        ("open shards", or_dash(stream.open_shards)),
        ("retention", retention_text(stream.retention_hours)),
        ("record size max", or_dash(record)),
        ("consumers", or_dash(stream.consumers)),
        ("encryption", or_dash(stream.encryption.as_deref())),
        ("created", or_dash(stream.created_ms.map(timestamp::rfc3339))),
    ];
    let lines = rows.map(|(title, value)| format!("{title:<17}{value}"));
    lines.join("\n")
}

/// Lists all streams.
pub(super) async fn list(arguments: ListArguments) -> Result<(), Failure> {
    let client = arguments.endpoint.client()?;
    let mut streams = all_streams(&client).await?;
    if arguments.long {
        for stream in &mut streams {
            let name = stream.get("StreamName").and_then(Value::as_str).unwrap_or_default();
            match client.summary(name).await {
                Ok(summary) => *stream = summary,
                // Deleted since it was listed.
                Err(error) if error.is("ResourceNotFoundException") => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    if arguments.json {
        let streams: Vec<Value> = streams.iter().map(|stream| Description::read(stream).json()).collect();
        return print(json!({ "streams": streams }));
    }
    let created = |stream: &Value| moment_text(stream.get("StreamCreationTimestamp"));
    let rows = streams.iter().map(|stream| {
        let description = Description::read(stream);
        let mut row = vec![
            description.name,
            description.status,
            or_dash(description.mode),
            created(stream),
        ];
        if arguments.long {
            row.extend([
                or_dash(description.open_shards),
                retention_text(description.retention_hours),
            ]);
        }
        row
    });
    let titles = ["NAME", "STATUS", "MODE", "CREATED", "SHARDS", "RETENTION"];
    let shown = if arguments.long { &titles[..] } else { &titles[..4] };
    print(table(shown, rows.collect()))
}

async fn all_streams(client: &KinesisClient) -> Result<Vec<Value>, KinesisError> {
    let mut streams: Vec<Value> = Vec::new();
    let mut request = json!({});
    loop {
        let answer = client.call("ListStreams", &request).await?;
        let names = answer.get("StreamNames").and_then(Value::as_array);
        let names = names.ok_or_else(|| client.incomplete("ListStreams", "StreamNames"))?;
        // Older servers tell only names.
        match answer.get("StreamSummaries").and_then(Value::as_array) {
            Some(summaries) => streams.extend(summaries.iter().cloned()),
            None => streams.extend(names.iter().map(|name| json!({ "StreamName": name }))),
        }
        let more = answer.get("HasMoreStreams").and_then(Value::as_bool).unwrap_or(false);
        request = match (more, answer.get("NextToken"), names.last()) {
            (true, Some(token), _) if !token.is_null() => json!({ "NextToken": token }),
            (true, _, Some(last)) => json!({ "ExclusiveStartStreamName": last }),
            _ => return Ok(streams),
        };
    }
}

/// Shows a stream with its shards.
pub(super) async fn describe(arguments: DescribeArguments) -> Result<(), Failure> {
    let client = arguments.endpoint.client()?;
    let description = Description::read(&client.summary(&arguments.name).await?);
    let mut shards = client.shards(&arguments.name).await?;
    if arguments.open {
        shards.retain(Shard::is_open);
    }
    let tags = unless_unsupported(tags(&client, &arguments.name).await)?;
    if arguments.json {
        let mut stream = description.json();
        stream["tags"] = tags.into();
        stream["shards"] = shards.iter().map(shard_json).collect();
        return print(stream);
    }
    let mut text = summary_text(&description);
    if !tags.is_empty() {
        let tags: Vec<String> = tags
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect();
        text.push_str(&format!("\n{:<17}{}", "tags", tags.join(", ")));
    }
    print(format_args!("{text}\n\n{}", shard_table(&shards)))
}

async fn tags(client: &KinesisClient, stream: &str) -> Result<Map<String, Value>, KinesisError> {
    let mut tags = Map::new();
    let mut request = json!({ "StreamName": stream });
    loop {
        let answer = client.call("ListTagsForStream", &request).await?;
        let page = answer.get("Tags").and_then(Value::as_array);
        let page = page.ok_or_else(|| client.incomplete("ListTagsForStream", "Tags"))?;
        let text = |tag: &Value, field: &str| tag.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        tags.extend(page.iter().map(|tag| (text(tag, "Key"), text(tag, "Value").into())));
        let more = answer.get("HasMoreTags").and_then(Value::as_bool).unwrap_or(false);
        match page.last() {
            Some(last) if more => request["ExclusiveStartTagKey"] = text(last, "Key").into(),
            _ => return Ok(tags),
        }
    }
}

fn shard_json(shard: &Shard) -> Value {
    json!({
        "id": shard.id, "open": shard.is_open(), "parents": shard.parents,
        "hash_keys": { "first": shard.first_key.to_string(), "last": shard.last_key.to_string() },
        "sequence_numbers": { "first": shard.first_sequence, "last": shard.last_sequence },
    })
}

/// Writes shards in a table. The share is that of all hash keys.
pub(super) fn shard_table(shards: &[Shard]) -> String {
    let rows = shards.iter().map(|shard| {
        let share = (shard.last_key - shard.first_key) as f64 / u128::MAX as f64 * 100.0;
        vec![
            shard.id.clone(),
            if shard.is_open() { "open" } else { "closed" }.to_owned(),
            if shard.parents.is_empty() {
                "-".to_owned()
            } else {
                shard.parents.join(" + ")
            },
            format!("{share:.1} %"),
            shard.first_key.to_string(),
            shard.last_key.to_string(),
            shard.first_sequence.clone(),
            or_dash(shard.last_sequence.as_deref()),
        ]
    });
    let titles = [
        "SHARD",
        "STATE",
        "PARENTS",
        "SHARE",
        "FIRST HASH KEY",
        "LAST HASH KEY",
        "FIRST SEQUENCE NUMBER",
        "LAST SEQUENCE NUMBER",
    ];
    table(&titles, rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: &str, first_key: u128, last_key: u128, closed: bool) -> Shard {
        Shard {
            id: id.into(),
            parents: if closed { vec![] } else { vec!["p".into(), "q".into()] },
            first_key,
            last_key,
            first_sequence: "1".into(),
            last_sequence: closed.then(|| "9".into()),
        }
    }

    #[test]
    fn shards_say_their_state_parents_and_share() {
        let text = shard_table(&[shard("a", 0, u128::MAX / 2, true), shard("b", 0, u128::MAX, false)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("a      closed  -        50.0 %"), "{text}");
        assert!(lines[1].ends_with('9'), "{text}");
        assert!(lines[2].starts_with("b      open    p + q    100.0 %"), "{text}");
        assert!(lines[2].ends_with('-'), "{text}");
    }

    #[test]
    fn a_stream_without_a_property_shows_a_dash() {
        let text = summary_text(&Description::read(
            &json!({ "StreamName": "a", "RetentionPeriodHours": 48 }),
        ));
        assert!(text.contains("retention        48 h (2 days)"), "{text}");
        assert!(text.contains("open shards      -"), "{text}");
    }
}
