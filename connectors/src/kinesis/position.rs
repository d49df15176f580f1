//! Positions of shards as checkpoints hold them: `<key>@<counter>`.
//!
//! The key is the shard's number in its whole store, never used twice, so that a stream that was deleted and created
//! again under its name is told from the one that was read. The counter is the one in the sequence number of the next
//! record, or any number up to it. The form is durable.

use tidemill_shards::{Position, ShardKey};

/// Writes a position.
pub(super) fn format(position: Position) -> String {
    format!("{}@{}", position.shard.0, position.counter)
}

/// Reads a position.
pub(super) fn parse(text: &str) -> Result<Position, String> {
    let read = || {
        let (key, counter) = text.split_once('@')?;
        Some(Position {
            shard: ShardKey(key.parse().ok()?),
            counter: counter.parse().ok()?,
        })
    };
    read().ok_or_else(|| format!("'{text}' is not a position in a shard; the checkpoint is of another connector"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_keep_their_form() {
        let position = Position {
            shard: ShardKey(17),
            counter: 42,
        };
        assert_eq!(format(position), "17@42");
        assert_eq!(parse("17@42"), Ok(position));
        for wrong in ["", "17", "17@", "@4", "x@4", "17@-1"] {
            assert!(parse(wrong).is_err());
        }
    }
}
