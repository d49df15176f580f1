//! The durable form of accumulators by key alone: that of one window without sides.

use super::Window;
use super::snapshot::{self, CHUNK_GROUPS, Chunk, Restored};
use crate::aggregate::{Accumulator, AggregateCall};
use crate::error::Result;
use crate::key::{KeyDecoder, KeyGroupRange};
use crate::operator::StateSection;
use crate::operators::group_table::GroupTable;
use arrow::datatypes::Field;

const ALL: Window = Window {
    end_ms: i64::MAX,
    start_ms: i64::MIN,
};

/// Accumulators whose groups are those of a table of keys.
pub(crate) struct Keyed<'a> {
    pub(in crate::operators) keys: &'a GroupTable,
    pub(crate) accumulators: &'a [Box<dyn Accumulator>],
}

/// Encodes the states of all keys.
///
/// # Errors
/// When a state cannot be encoded.
pub(crate) fn capture_keyed(
    keyed: &Keyed<'_>,
    key_fields: &[Field],
    decoder: &KeyDecoder,
    aggregates: &[AggregateCall],
    key_groups: KeyGroupRange,
) -> Result<Vec<StateSection>> {
    let count = keyed.keys.len();
    let chunks = (0..count).step_by(CHUNK_GROUPS).map(|start| {
        let groups: Vec<u32> = (start as u32..(start + CHUNK_GROUPS).min(count) as u32).collect();
        Chunk {
            windows: vec![ALL; groups.len()],
            keys: groups.iter().map(|&group| keyed.keys.key(group)).collect(),
            accumulators: keyed.accumulators,
            groups,
        }
    });
    snapshot::capture(i64::MIN, chunks, key_fields, decoder, aggregates, key_groups)
}

struct Restoring<'a> {
    keys: &'a mut GroupTable,
    accumulators: &'a mut [Box<dyn Accumulator>],
}

impl Restored for Restoring<'_> {
    fn place(&mut self, window: Window, hash: u64, key: &[u8]) -> (Window, u32) {
        let group = self.keys.group(hash, key);
        for accumulator in &mut *self.accumulators {
            accumulator.resize(self.keys.len());
        }
        (window, group)
    }

    fn accumulators(&mut self, _: Window) -> Option<&mut [Box<dyn Accumulator>]> {
        Some(self.accumulators)
    }
}

/// Adds the states of the keys that belong to these key groups.
///
/// # Errors
/// When a section is not of these aggregates.
pub(in crate::operators) fn restore_keyed(
    sections: &[StateSection],
    keys: &mut GroupTable,
    accumulators: &mut [Box<dyn Accumulator>],
    key_fields: &[Field],
    aggregates: &[AggregateCall],
    key_groups: KeyGroupRange,
) -> Result<()> {
    let mut restoring = Restoring { keys, accumulators };
    snapshot::restore(sections, &mut restoring, key_fields, aggregates, key_groups)?;
    Ok(())
}
