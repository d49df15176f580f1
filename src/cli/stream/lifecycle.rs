//! `create`, `set` and `delete`.

use super::Endpoint;
use super::failure::{Failure, note, print};
use super::show::{Description, summary_text};
use super::values::{parse_retention, parse_tag, tag_map};
use crate::cli::kinesis::{KinesisClient, KinesisError};
use clap::{ArgGroup, Args, ValueEnum};
use serde_json::{Value, json};
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// What a stream has unless somebody says otherwise.
const RETENTION_HOURS_DEFAULT: u32 = 24;
/// The delay between two looks at a stream that is being deleted.
const LOOK_DELAY: Duration = Duration::from_millis(100);

/// The arguments of `create`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill stream create clicks                                on-demand, as many shards as the service chooses
  tidemill stream create clicks --shards 4 --retention 7d
  tidemill stream create clicks --shards 1 --tag team=web --tag stage=test")]
pub(in crate::cli) struct CreateArguments {
    /// The stream's name: 1 to 128 letters, digits, and any of _ . -
    name: String,
    /// A provisioned stream with this number of shards.
    #[arg(long, value_name = "N", conflicts_with = "on_demand", value_parser = clap::value_parser!(u32).range(1..))]
    shards: Option<u32>,
    /// A stream whose shards the service looks after; the default.
    #[arg(long)]
    on_demand: bool,
    /// How long records are kept, like 48h or 7d [default: 24h].
    #[arg(long, value_name = "TIME", value_parser = parse_retention)]
    retention: Option<u32>,
    /// A tag; can be repeated.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
    /// Print the stream as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    endpoint: Endpoint,
}

/// A capacity mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// A fixed number of shards.
    Provisioned,
    /// The service looks after the shards.
    OnDemand,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Provisioned => "PROVISIONED",
            Self::OnDemand => "ON_DEMAND",
        }
    }
}

/// The arguments of `set`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").args(["shards", "retention", "mode", "tags", "untag"]).multiple(true).required(true))]
#[command(after_help = "Changes are made one after the other; each is waited for.

Examples:
  tidemill stream set clicks --shards 8
  tidemill stream set clicks --retention 48h
  tidemill stream set clicks --mode on-demand --tag team=web --untag stage")]
pub(in crate::cli) struct SetArguments {
    /// The stream.
    name: String,
    /// The number of open shards; splits and merges evenly.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    shards: Option<u32>,
    /// How long records are kept, like 48h or 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_retention)]
    retention: Option<u32>,
    /// Who looks after the number of shards.
    #[arg(long, value_name = "MODE", value_enum)]
    mode: Option<Mode>,
    /// A tag to add or change; can be repeated.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
    /// A tag to remove; can be repeated.
    #[arg(long, value_name = "KEY")]
    untag: Vec<String>,
    /// Print the stream as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    endpoint: Endpoint,
}

/// The arguments of `delete`.
#[derive(Debug, Args)]
#[command(after_help = "On a terminal you are asked first. Everywhere else --yes is needed.")]
pub(in crate::cli) struct DeleteArguments {
    /// The stream.
    name: String,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Delete it also when consumers are registered with it.
    #[arg(long)]
    with_consumers: bool,
    #[command(flatten)]
    endpoint: Endpoint,
}

/// Creates a stream and waits until it can be used.
pub(super) async fn create(arguments: CreateArguments) -> Result<(), Failure> {
    let client = arguments.endpoint.client()?;
    let name = &arguments.name;
    let mut body = json!({ "StreamName": name });
    if let Some(shards) = arguments.shards {
        body["ShardCount"] = shards.into();
        body["StreamModeDetails"] = json!({ "StreamMode": Mode::Provisioned.name() });
    } else {
        body["StreamModeDetails"] = json!({ "StreamMode": Mode::OnDemand.name() });
    }
    if !arguments.tags.is_empty() {
        body["Tags"] = tag_map(&arguments.tags).into();
    }
    client.call("CreateStream", &body).await?;
    let mut summary = client.wait_until_active(name).await?;
    if let Some(hours) = arguments.retention {
        summary = set_retention(&client, name, summary, hours)
            .await
            .map_err(|failure| failure.after(format!("stream {name} is created, but its retention is not set")))?;
    }
    tell(&summary, arguments.json)
}

/// Changes a stream.
pub(super) async fn set(arguments: SetArguments) -> Result<(), Failure> {
    let client = arguments.endpoint.client()?;
    let name = &arguments.name;
    let mut summary = client.wait_until_active(name).await?;
    if let Some(mode) = arguments.mode {
        let current = summary.pointer("/StreamModeDetails/StreamMode").and_then(Value::as_str);
        if current != Some(mode.name()) {
            let body = json!({
                "StreamARN": summary.get("StreamARN"),
                "StreamModeDetails": { "StreamMode": mode.name() },
            });
            client.call("UpdateStreamMode", &body).await?;
            summary = client.wait_until_active(name).await?;
        }
    }
    if let Some(hours) = arguments.retention {
        summary = set_retention(&client, name, summary, hours).await?;
    }
    if !arguments.tags.is_empty() {
        let body = json!({ "StreamName": name, "Tags": tag_map(&arguments.tags) });
        client.call("AddTagsToStream", &body).await?;
    }
    if !arguments.untag.is_empty() {
        let body = json!({ "StreamName": name, "TagKeys": arguments.untag });
        client.call("RemoveTagsFromStream", &body).await?;
    }
    if let Some(shards) = arguments.shards
        && summary.get("OpenShardCount").and_then(Value::as_u64) != Some(shards.into())
    {
        let body = json!({ "StreamName": name, "TargetShardCount": shards, "ScalingType": "UNIFORM_SCALING" });
        client.call("UpdateShardCount", &body).await?;
        summary = client.wait_until_active(name).await?;
    }
    tell(&summary, arguments.json)
}

/// Sets how long records are kept: the service has one operation for more and one for less.
async fn set_retention(client: &KinesisClient, name: &str, summary: Value, hours: u32) -> Result<Value, Failure> {
    let current = summary.get("RetentionPeriodHours").and_then(Value::as_u64);
    let operation = match u64::from(hours).cmp(&current.unwrap_or(RETENTION_HOURS_DEFAULT.into())) {
        std::cmp::Ordering::Greater => "IncreaseStreamRetentionPeriod",
        std::cmp::Ordering::Less => "DecreaseStreamRetentionPeriod",
        std::cmp::Ordering::Equal => return Ok(summary),
    };
    let body = json!({ "StreamName": name, "RetentionPeriodHours": hours });
    client.call(operation, &body).await?;
    Ok(client.wait_until_active(name).await?)
}

fn tell(summary: &Value, json: bool) -> Result<(), Failure> {
    let description = Description::read(summary);
    if json {
        print(description.json())
    } else {
        print(summary_text(&description))
    }
}

/// Deletes a stream and waits until it is gone.
pub(super) async fn delete(arguments: DeleteArguments) -> Result<(), Failure> {
    let client = arguments.endpoint.client()?;
    let name = &arguments.name;
    // A name that does not exist is told before anybody is asked anything.
    let summary = client.summary(name).await?;
    if !arguments.yes && !confirmed(name, &summary)? {
        return Err(Failure::Refused(format!("stream {name} is kept")));
    }
    let mut body = json!({ "StreamName": name });
    if arguments.with_consumers {
        body["EnforceConsumerDeletion"] = true.into();
    }
    client.call("DeleteStream", &body).await.map_err(|error| {
        let in_use = error.is("ResourceInUseException") && !arguments.with_consumers;
        let failure = Failure::from(error);
        if in_use {
            Failure::Refused(format!(
                "{failure}\nhint: with --with-consumers its consumers are deleted too"
            ))
        } else {
            failure
        }
    })?;
    loop {
        match client.summary(name).await {
            Err(error) if error.is("ResourceNotFoundException") => break,
            Err(error) => return Err(error.into()),
            // Somebody has made a new one of the same name.
            Ok(now) if now.get("StreamStatus").and_then(Value::as_str) != Some("DELETING") => break,
            Ok(_) => tokio::time::sleep(LOOK_DELAY).await,
        }
    }
    print(format_args!("deleted {name}"))
}

/// Asks whoever sits at the terminal.
fn confirmed(name: &str, summary: &Value) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Refused(format!(
            "deleting {name} deletes all its records; add --yes if that is what you want"
        )));
    }
    let shards = summary.get("OpenShardCount").and_then(Value::as_u64).unwrap_or(0);
    let _ = write!(
        std::io::stderr(),
        "delete stream {name} ({shards} open shards) and all its records? Type its name: "
    );
    let mut answer = String::new();
    match std::io::stdin().read_line(&mut answer) {
        Ok(_) => Ok(answer.trim() == name),
        Err(error) => {
            note("");
            Err(Failure::Failed(format!("cannot read the answer: {error}")))
        }
    }
}

/// A stream that does not know an operation has not the property either.
pub(super) fn unless_unsupported<T: Default>(result: Result<T, KinesisError>) -> Result<T, KinesisError> {
    match result {
        Err(error) if error.is("UnsupportedOperationException") || error.is("UnknownOperationException") => {
            Ok(T::default())
        }
        other => other,
    }
}
