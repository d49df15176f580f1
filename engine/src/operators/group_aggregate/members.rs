//! What a tick's rows put into the sets of `COUNT(DISTINCT ...)`, before the exchange.
//!
//! A value that comes again and again within a tick goes to its set once, with all filters it passed. Over what changes it goes
//! once per combination of filters, with its rows added up. Where values hardly repeat, they go as they come for some ticks.

use super::values::Values;
use super::{ROWS_WORTH_A_LOOK, TICKS_UNTIL_NEXT_LOOK};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StructArray, UInt16Array, UInt32Array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, UInt16Type};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::sync::Arc;

/// Values of which more than one in so many is new within its tick are not worth looking for.
const ROWS_PER_MEMBER_MIN: usize = 2;

/// The type of the column of members: for each group a list of values, with the filters that each passed as bits and, over what
/// changes, how many rows it has more.
pub(super) fn members_type(values: &DataType, changes: bool) -> DataType {
    DataType::List(Arc::new(item(values, changes)))
}

fn item(values: &DataType, changes: bool) -> Field {
    Field::new("member", DataType::Struct(fields(values, changes)), false)
}

fn fields(values: &DataType, changes: bool) -> Fields {
    let mut fields = vec![
        Field::new("value", values.clone(), true),
        Field::new("filters", DataType::UInt16, false),
    ];
    if changes {
        fields.push(Field::new("rows", DataType::Int64, false));
    }
    fields.into()
}

/// Members of some groups, as they go over the exchange.
pub(super) struct Listed<'a> {
    offsets: &'a [i32],
    pub(super) values: &'a ArrayRef,
    pub(super) filters: &'a [u16],
    /// How many rows each has more; `None` over rows that are only added.
    pub(super) rows: Option<&'a [i64]>,
}

impl<'a> Listed<'a> {
    /// Reads a column of members.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn try_new(column: &'a ArrayRef) -> Result<Self> {
        let wrong = || Error::Internal(format!("{} is no list of members", column.data_type()));
        let lists = column.as_list_opt::<i32>().ok_or_else(wrong)?;
        let members = lists.values().as_struct_opt().ok_or_else(wrong)?;
        let [values, filters, rows @ ..] = members.columns() else {
            return Err(wrong());
        };
        Ok(Self {
            offsets: lists.value_offsets(),
            values,
            filters: filters.as_primitive_opt::<UInt16Type>().ok_or_else(wrong)?.values(),
            rows: match rows {
                [] => None,
                [rows, ..] => Some(rows.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?.values()),
            },
        })
    }

    /// Returns the members of a row, by their places.
    pub(super) fn of_row(&self, row: usize) -> std::ops::Range<usize> {
        self.offsets[row] as usize..self.offsets[row + 1] as usize
    }
}

#[derive(Clone, Copy)]
struct Member {
    value: i64,
    rows: i64,
    group: u32,
    filters: u16,
}

fn hash_of(group: u32, value: i64) -> u64 {
    let mixed = (value as u64) ^ u64::from(group).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    let product = u128::from(mixed ^ 0xA076_1D64_78BD_642F) * u128::from(0xE703_7ED1_A0B4_28DBu64);
    (product as u64) ^ (product >> 64) as u64
}

/// The members of the open tick, for the filters over one argument.
pub(super) struct TickMembers {
    changes: bool,
    /// In the order they came.
    members: Vec<Member>,
    /// Places in `members`; unused while members go as they come.
    table: HashTable<u32>,
    values: Values,
    /// The values of members that go as they come: of these `Member::value` is the place in all of them.
    pieces: Vec<ArrayRef>,
    rows_of_tick: usize,
    /// For so many ticks members go as they come.
    ticks_without: u32,
    sorted: Option<Sorted>,
}

/// The members by group.
struct Sorted {
    /// Where each group's begin in `order`, and where the last one's end.
    bounds: Vec<u32>,
    order: Vec<u32>,
    /// The values of members that go as they come.
    values: Option<ArrayRef>,
}

impl TickMembers {
    pub(super) fn new(values: &DataType, changes: bool) -> Self {
        Self {
            changes,
            members: Vec::new(),
            table: HashTable::new(),
            values: Values::new(values),
            pieces: Vec::new(),
            rows_of_tick: 0,
            ticks_without: 0,
            sorted: None,
        }
    }

    /// Makes what is used for one batch, of rows that are each a group of their own.
    pub(super) fn of_single_rows(values: &DataType, changes: bool) -> Self {
        Self {
            ticks_without: 1,
            ..Self::new(values, changes)
        }
    }

    /// Adds rows, or takes them back by their weights; `passed` are the filters that each row passes.
    pub(super) fn update(
        &mut self,
        argument: &ArrayRef,
        passed: &[u16],
        groups: &[u32],
        weights: Option<&[i64]>,
    ) -> Result<()> {
        self.rows_of_tick += groups.len();
        if self.ticks_without > 0 {
            return self.append(argument, passed, groups, weights);
        }
        let counts = |row: usize| passed[row] != 0 && weights.is_none_or(|weights| weights[row] != 0);
        let values = self.values.numbers(argument, counts)?;
        for (row, (&group, &value)) in groups.iter().zip(&values).enumerate() {
            if counts(row) {
                self.add(Member {
                    value,
                    rows: weights.map_or(1, |weights| weights[row]),
                    group,
                    filters: passed[row],
                });
            }
        }
        Ok(())
    }

    #[inline]
    fn add(&mut self, member: Member) {
        let (changes, members) = (self.changes, &mut self.members);
        let same = |&place: &u32| {
            let known = &members[place as usize];
            known.value == member.value && known.group == member.group && (!changes || known.filters == member.filters)
        };
        let rehash = |&place: &u32| {
            let known = &members[place as usize];
            hash_of(known.group, known.value)
        };
        match self.table.entry(hash_of(member.group, member.value), same, rehash) {
            Entry::Occupied(entry) => {
                let known = &mut self.members[*entry.get() as usize];
                match changes {
                    true => known.rows += member.rows,
                    false => known.filters |= member.filters,
                }
            }
            Entry::Vacant(entry) => {
                entry.insert(self.members.len() as u32);
                self.members.push(member);
            }
        }
    }

    fn append(&mut self, argument: &ArrayRef, passed: &[u16], groups: &[u32], weights: Option<&[i64]>) -> Result<()> {
        let rows: Vec<u32> = (0..passed.len() as u32)
            .filter(|&row| passed[row as usize] != 0)
            .collect();
        let first = self.members.len() as i64;
        self.members
            .extend(rows.iter().zip(first..).map(|(&row, value)| Member {
                value,
                rows: weights.map_or(1, |weights| weights[row as usize]),
                group: groups[row as usize],
                filters: passed[row as usize],
            }));
        self.pieces.push(match rows.len() == passed.len() {
            true => Arc::clone(argument),
            false => take(argument, &UInt32Array::from(rows), None)?,
        });
        Ok(())
    }

    fn sort(&mut self, groups: usize) -> Result<Sorted> {
        let counts = |member: &&Member| member.rows != 0;
        let mut bounds = vec![0u32; groups + 1];
        for member in self.members.iter().filter(counts) {
            bounds[member.group as usize + 1] += 1;
        }
        for group in 0..groups {
            bounds[group + 1] += bounds[group];
        }
        let mut next = bounds.clone();
        let mut order = vec![0; bounds[groups] as usize];
        for (place, member) in (0..).zip(&self.members).filter(|(_, member)| counts(member)) {
            let next = &mut next[member.group as usize];
            order[*next as usize] = place;
            *next += 1;
        }
        let pieces: Vec<&dyn Array> = self.pieces.iter().map(AsRef::as_ref).collect();
        Ok(Sorted {
            bounds,
            order,
            values: (!pieces.is_empty()).then(|| concat(&pieces)).transpose()?,
        })
    }

    /// Returns the members of some of the tick's `groups` groups, one list each. Nothing may be added behind it.
    pub(super) fn lists(&mut self, of: std::ops::Range<usize>, groups: usize) -> Result<ArrayRef> {
        let sorted = match self.sorted.take() {
            Some(sorted) => sorted,
            None => self.sort(groups)?,
        };
        let bounds = &sorted.bounds[of.start..=of.end];
        let first = bounds[0];
        let offsets: Vec<i32> = bounds.iter().map(|bound| (bound - first) as i32).collect();
        let order = &sorted.order[first as usize..sorted.bounds[of.end] as usize];
        let members = || order.iter().map(|&place| &self.members[place as usize]);
        let numbers = members().map(|member| member.value);
        let values = match &sorted.values {
            Some(values) => take(values, &Int64Array::from_iter_values(numbers), None)?,
            None => self.values.array(numbers.collect())?,
        };
        let mut columns: Vec<ArrayRef> = vec![
            values,
            Arc::new(UInt16Array::from_iter_values(members().map(|member| member.filters))),
        ];
        if self.changes {
            columns.push(Arc::new(Int64Array::from_iter_values(
                members().map(|member| member.rows),
            )));
        }
        let values = self.values.data_type();
        let members = StructArray::try_new(fields(values, self.changes), columns, None)?;
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let item = Arc::new(item(values, self.changes));
        let lists = ListArray::try_new(item, offsets, Arc::new(members), None)?;
        self.sorted = Some(sorted);
        Ok(Arc::new(lists))
    }

    /// Begins the next tick.
    pub(super) fn next_tick(&mut self) {
        if self.ticks_without > 0 {
            self.ticks_without -= 1;
        } else if self.rows_of_tick >= ROWS_WORTH_A_LOOK && self.rows_of_tick < self.members.len() * ROWS_PER_MEMBER_MIN
        {
            self.ticks_without = TICKS_UNTIL_NEXT_LOOK;
        }
        self.members.clear();
        self.table.clear();
        self.values.clear();
        self.pieces.clear();
        (self.rows_of_tick, self.sorted) = (0, None);
    }
}
