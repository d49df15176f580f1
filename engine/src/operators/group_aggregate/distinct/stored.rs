//! Sets at a checkpoint: copied as they are while the stream stands still, encoded behind its back.

use super::super::values::FrozenValues;
use super::{Counted, DistinctSets, Member, Members, NO_ROW};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Int64Type};
use std::sync::Arc;

/// Members per encoded piece: a piece's text must stay far below the 2 GiB that one array can hold.
const PIECE_MEMBERS: usize = 1 << 16;

/// Members per part: a part is encoded into one piece of memory, which is not to be large.
const PART_MEMBERS: usize = 1 << 18;

/// Some members of all groups' sets.
pub(crate) struct FrozenSets {
    filters: usize,
    values: Arc<FrozenValues>,
    members: FrozenMembers,
}

enum FrozenMembers {
    Added(Vec<Member>),
    /// Places are those in `times` here.
    Changing {
        members: Vec<Counted>,
        times: Vec<i64>,
    },
}

/// Members as they are stored.
pub(crate) struct EncodedMembers {
    /// For each the position of its group.
    pub(crate) owners: Vec<u32>,
    pub(crate) values: ArrayRef,
    /// For each filter whether it passed, as booleans, or over what changes how often it is there.
    pub(crate) passed: Vec<ArrayRef>,
}

impl DistinctSets {
    /// Copies the sets, in one part or several.
    pub(crate) fn freeze(&self) -> Vec<FrozenSets> {
        let values = Arc::new(self.values.freeze());
        let part = |members| FrozenSets {
            filters: self.filters,
            values: Arc::clone(&values),
            members,
        };
        // There is a part even of nothing, so that its absence is an error.
        let counts = (0..self.len().max(1)).step_by(PART_MEMBERS);
        let counts = counts.map(|first| (self.len() - first).min(PART_MEMBERS));
        match &self.members {
            Members::Added { table, .. } => {
                let mut all = table.iter().copied();
                let parts = counts.map(|count| {
                    let mut members = Vec::with_capacity(count);
                    members.extend(all.by_ref().take(count));
                    part(FrozenMembers::Added(members))
                });
                parts.collect()
            }
            Members::Changing { table, times, .. } => {
                let mut all = table.iter().copied();
                let parts = counts.map(|count| {
                    let (mut members, mut copied) =
                        (Vec::with_capacity(count), Vec::with_capacity(count * self.filters));
                    for (member, place) in all.by_ref().take(count).zip(0..) {
                        let first = member.place as usize * self.filters;
                        copied.extend_from_slice(&times[first..first + self.filters]);
                        members.push(Counted { place, ..member });
                    }
                    part(FrozenMembers::Changing { members, times: copied })
                });
                parts.collect()
            }
        }
    }

    /// Adds members as [`FrozenSets::encode`] gave them; `groups` are those of the rows, [`NO_ROW`] for those of others.
    pub(crate) fn decode(&mut self, values: &ArrayRef, passed: &[ArrayRef], groups: &[u32]) -> Result<()> {
        let numbers = self.values.numbers(values, |row| groups[row] != NO_ROW)?;
        let passed = passed.iter().map(Stored::try_new).collect::<Result<Vec<_>>>()?;
        let mut of_row = vec![0; self.filters];
        for (row, (&group, &value)) in groups.iter().zip(&numbers).enumerate() {
            if group != NO_ROW {
                for (count, passed) in of_row.iter_mut().zip(&passed) {
                    *count = passed.count(row);
                }
                self.insert(group, value, &of_row);
            }
        }
        Ok(())
    }
}

/// What is stored of one filter.
enum Stored<'a> {
    Passed(&'a BooleanArray),
    Counts(&'a Int64Array),
}

impl<'a> Stored<'a> {
    fn try_new(column: &'a ArrayRef) -> Result<Self> {
        let wrong = || Error::Checkpoint("the counts of a set's members are no numbers".into());
        match column.data_type() {
            DataType::Boolean => Ok(Self::Passed(column.as_boolean())),
            _ => Ok(Self::Counts(column.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?)),
        }
    }

    fn count(&self, row: usize) -> i64 {
        match self {
            Self::Passed(passed) => i64::from(passed.value(row)),
            Self::Counts(counts) => counts.value(row),
        }
    }
}

impl FrozenSets {
    /// Encodes the members whose groups have a place, piece by piece; there is at least one.
    pub(crate) fn encode(&self, places: &[u32], mut write: impl FnMut(EncodedMembers) -> Result<()>) -> Result<()> {
        let mut is_first = true;
        let mut piece = |encoded: EncodedMembers| match encoded.owners.is_empty() && !std::mem::take(&mut is_first) {
            true => Ok(()),
            false => write(encoded),
        };
        match &self.members {
            FrozenMembers::Added(members) => {
                for part in pieces(members) {
                    let kept = part.iter().filter(|member| places[member.group as usize] != NO_ROW);
                    let kept: Vec<&Member> = kept.collect();
                    let passed = (0..self.filters).map(|bit| {
                        let bits = BooleanBuffer::collect_bool(kept.len(), |row| kept[row].filters >> bit & 1 == 1);
                        Arc::new(BooleanArray::new(bits, None)) as ArrayRef
                    });
                    piece(EncodedMembers {
                        owners: kept.iter().map(|member| places[member.group as usize]).collect(),
                        values: self.values.array(kept.iter().map(|member| member.value).collect())?,
                        passed: passed.collect(),
                    })?;
                }
            }
            FrozenMembers::Changing { members, times } => {
                for part in pieces(members) {
                    let kept = part.iter().filter(|member| places[member.group as usize] != NO_ROW);
                    let kept: Vec<&Counted> = kept.collect();
                    let passed = (0..self.filters).map(|filter| {
                        let times = kept
                            .iter()
                            .map(|member| times[member.place as usize * self.filters + filter]);
                        Arc::new(Int64Array::from_iter_values(times)) as ArrayRef
                    });
                    piece(EncodedMembers {
                        owners: kept.iter().map(|member| places[member.group as usize]).collect(),
                        values: self.values.array(kept.iter().map(|member| member.value).collect())?,
                        passed: passed.collect(),
                    })?;
                }
            }
        }
        Ok(())
    }
}

/// Returns pieces of members, one even of none.
fn pieces<T>(members: &[T]) -> Vec<&[T]> {
    match members.is_empty() {
        true => vec![members],
        false => members.chunks(PIECE_MEMBERS).collect(),
    }
}
