//! `split` and `merge`.

use super::Endpoint;
use super::failure::{Failure, print};
use super::show::shard_table;
use super::values::{parse_hash_key, parse_shard};
use crate::cli::kinesis::{KinesisClient, Shard};
use clap::Args;
use serde_json::json;

/// The arguments of `split`.
#[derive(Debug, Args)]
#[command(
    after_help = "The shard closes; its two children share its hash keys. Records keep their order per partition key.

Examples:
  tidemill stream split clicks 0                               in the middle
  tidemill stream split clicks shardId-000000000000 --at 85070591730234615865843651857942052864"
)]
pub(in crate::cli) struct SplitArguments {
    /// The stream.
    name: String,
    /// The open shard, by its id or its number.
    #[arg(value_name = "SHARD", value_parser = parse_shard)]
    shard: String,
    /// The first hash key of the second child [default: the middle].
    #[arg(long, value_name = "HASHKEY", value_parser = parse_hash_key)]
    at: Option<u128>,
    /// Print the new shards as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    endpoint: Endpoint,
}

/// The arguments of `merge`.
#[derive(Debug, Args)]
#[command(after_help = "Both shards close; their child has the hash keys of both.

Examples:
  tidemill stream merge clicks 1 2
  tidemill stream merge clicks 1                               with the open shard behind it, or before it")]
pub(in crate::cli) struct MergeArguments {
    /// The stream.
    name: String,
    /// An open shard, by its id or its number.
    #[arg(value_name = "SHARD", value_parser = parse_shard)]
    shard: String,
    /// Its neighbour [default: the open shard whose hash keys come behind, or else before].
    #[arg(value_name = "ADJACENT", value_parser = parse_shard)]
    adjacent: Option<String>,
    /// Print the new shard as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    endpoint: Endpoint,
}

/// Splits a shard and waits until its children take records.
pub(super) async fn split(arguments: SplitArguments) -> Result<(), Failure> {
    let client = arguments.endpoint.client()?;
    let shards = client.shards(&arguments.name).await?;
    let parent = open_shard(&shards, &arguments.name, &arguments.shard)?;
    let at = match arguments.at {
        Some(at) => at,
        None => middle(parent)?,
    };
    let body = json!({
        "StreamName": arguments.name, "ShardToSplit": parent.id, "NewStartingHashKey": at.to_string(),
    });
    client.call("SplitShard", &body).await?;
    tell_children(&client, &arguments.name, &parent.id, arguments.json).await
}

/// Merges two shards and waits until their child takes records.
pub(super) async fn merge(arguments: MergeArguments) -> Result<(), Failure> {
    let client = arguments.endpoint.client()?;
    let shards = client.shards(&arguments.name).await?;
    let shard = open_shard(&shards, &arguments.name, &arguments.shard)?;
    let adjacent = match &arguments.adjacent {
        Some(id) => open_shard(&shards, &arguments.name, id)?,
        None => neighbour(&shards, shard).ok_or_else(|| {
            Failure::Refused(format!(
                "{} is the only open shard of {}, so there is nothing to merge it with",
                shard.id, arguments.name
            ))
        })?,
    };
    if !are_adjacent(shard, adjacent) {
        let mut neighbours: Vec<&str> = shards
            .iter()
            .filter(|other| other.is_open() && are_adjacent(shard, other))
            .map(|other| other.id.as_str())
            .collect();
        neighbours.dedup();
        return Err(Failure::Refused(format!(
            "{} and {} are not neighbours: their hash keys do not meet; {} can be merged with {}",
            shard.id,
            adjacent.id,
            shard.id,
            neighbours.join(" or ")
        )));
    }
    let body = json!({
        "StreamName": arguments.name, "ShardToMerge": shard.id, "AdjacentShardToMerge": adjacent.id,
    });
    client.call("MergeShards", &body).await?;
    tell_children(&client, &arguments.name, &shard.id, arguments.json).await
}

async fn tell_children(client: &KinesisClient, stream: &str, parent: &str, json: bool) -> Result<(), Failure> {
    client.wait_until_active(stream).await?;
    let mut shards = client.shards(stream).await?;
    shards.retain(|shard| shard.parents.iter().any(|id| id == parent));
    if json {
        let ids: Vec<&str> = shards.iter().map(|shard| shard.id.as_str()).collect();
        return print(json!({ "shards": ids }));
    }
    print(shard_table(&shards))
}

/// The open shard of an id.
fn open_shard<'a>(shards: &'a [Shard], stream: &str, id: &str) -> Result<&'a Shard, Failure> {
    let Some(shard) = shards.iter().find(|shard| shard.id == id) else {
        return Err(Failure::Refused(format!(
            "stream {stream} has no shard {id}; see tidemill stream describe {stream}"
        )));
    };
    if shard.is_open() {
        return Ok(shard);
    }
    let children: Vec<&str> = shards
        .iter()
        .filter(|child| child.parents.iter().any(|parent| parent == id))
        .map(|child| child.id.as_str())
        .collect();
    Err(Failure::Refused(match children[..] {
        [] => format!("shard {id} of {stream} is closed"),
        _ => format!(
            "shard {id} of {stream} is closed; its records go to {} now",
            children.join(" and ")
        ),
    }))
}

/// The first hash key of the upper half.
fn middle(shard: &Shard) -> Result<u128, Failure> {
    // The service wants two hash keys on each side at least.
    let width = shard.last_key - shard.first_key;
    if width < 3 {
        return Err(Failure::Refused(format!(
            "{} has {} hash keys, too few to split",
            shard.id,
            width + 1
        )));
    }
    Ok(shard.first_key + width / 2 + 1)
}

fn are_adjacent(a: &Shard, b: &Shard) -> bool {
    a.last_key.checked_add(1) == Some(b.first_key) || b.last_key.checked_add(1) == Some(a.first_key)
}

fn neighbour<'a>(shards: &'a [Shard], shard: &Shard) -> Option<&'a Shard> {
    let mut open: Vec<&Shard> = shards
        .iter()
        .filter(|other| other.is_open() && are_adjacent(shard, other))
        .collect();
    open.sort_by_key(|other| other.first_key < shard.first_key);
    open.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: &str, first_key: u128, last_key: u128) -> Shard {
        Shard {
            id: id.into(),
            parents: Vec::new(),
            first_key,
            last_key,
            first_sequence: "1".into(),
            last_sequence: None,
        }
    }

    #[test]
    fn the_middle_halves_the_range() {
        assert_eq!(middle(&shard("a", 0, u128::MAX)).unwrap(), 1 << 127);
        assert_eq!(middle(&shard("a", 10, 13)).unwrap(), 12);
        assert!(middle(&shard("a", 10, 12)).is_err());
    }

    #[test]
    fn a_shard_merges_with_the_one_behind_it_or_else_before_it() {
        let mut shards = vec![shard("a", 0, 9), shard("b", 10, 19), shard("c", 20, u128::MAX)];
        assert_eq!(neighbour(&shards, &shards[0]).unwrap().id, "b");
        assert_eq!(neighbour(&shards, &shards[1]).unwrap().id, "c");
        assert_eq!(neighbour(&shards, &shards[2]).unwrap().id, "b");
        assert!(!are_adjacent(&shards[0], &shards[2]));
        shards[1].last_sequence = Some("9".into());
        assert_eq!(neighbour(&shards, &shards[0]), None);
    }

    #[test]
    fn a_closed_shard_is_refused_and_its_children_are_named() {
        let mut parent = shard("a", 0, 9);
        parent.last_sequence = Some("9".into());
        let child = Shard {
            parents: vec!["a".into()],
            ..shard("b", 0, 4)
        };
        let shards = [parent, child];
        let error = open_shard(&shards, "s", "a").unwrap_err().to_string();
        assert!(error.contains("closed; its records go to b now"), "{error}");
        let error = open_shard(&shards, "s", "x").unwrap_err().to_string();
        assert!(error.contains("tidemill stream describe s"), "{error}");
        assert_eq!(open_shard(&shards, "s", "b").unwrap().id, "b");
    }
}
