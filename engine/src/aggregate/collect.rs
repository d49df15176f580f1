//! `collect(x)`: how often each value of a group is there; and what is made of such counts, `json_objectagg` and percentiles.

use super::values::Values;
use super::{Accumulator, AggregateFunction, EncodedState, passes};
use crate::error::{Error, Result};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, MapArray, StringBuilder, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// The most bytes that the different values of one group may take.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of values per encoded piece at most, but for a single value.
const PIECE_BYTES: usize = 1 << 24;

/// Values per encoded piece at most.
const PIECE_VALUES: usize = 1 << 16;

/// Collects the values of a group into a multiset: a map from each different value to how often it is there, in the order of
/// the values. Nulls are left out; a group without values has an empty map.
#[derive(Clone, Debug)]
pub struct Collect {
    data_type: DataType,
    /// Whether each value counts once.
    distinct: bool,
}

impl Collect {
    /// Makes the function for arguments of a type.
    ///
    /// # Errors
    /// When values of the type cannot be held, or have no order.
    pub fn try_new(argument: &DataType, distinct: bool) -> Result<Self> {
        match Values::supports(argument) && !argument.is_nested() {
            true => Ok(Self {
                data_type: argument.clone(),
                distinct,
            }),
            false => Err(Error::Graph(format!("collect cannot hold values of {argument}"))),
        }
    }
}

/// Makes one JSON object of the entries of a group, each a text `"name":value`; nulls are left out. A name that is there more
/// than once is an error.
#[derive(Clone, Debug)]
pub struct JsonObjectAgg;

impl JsonObjectAgg {
    /// Makes the function for arguments of a type.
    ///
    /// # Errors
    /// When the type is not text.
    pub fn try_new(argument: &DataType) -> Result<Self> {
        match argument {
            DataType::Utf8 => Ok(Self),
            other => Err(Error::Graph(format!(
                "json_objectagg puts texts together, and its argument is {other}"
            ))),
        }
    }
}

/// Finds the number below which a share of a group's numbers lies, between the two nearest of them; the share of 0.5 is the
/// median. Nulls are left out; null when a group has no numbers.
#[derive(Clone, Debug)]
pub struct Percentile(f64);

impl Percentile {
    /// Makes the function for arguments of a type.
    ///
    /// # Errors
    /// When the type is not a double, or the share is not from 0 to 1.
    pub fn try_new(argument: &DataType, share: f64) -> Result<Self> {
        if *argument != DataType::Float64 {
            return Err(Error::Graph(format!(
                "a percentile is of doubles, and its argument is {argument}"
            )));
        }
        match (0.0..=1.0).contains(&share) {
            true => Ok(Self(share)),
            false => Err(Error::Graph(format!(
                "a percentile is of a share from 0 to 1, not of {share}"
            ))),
        }
    }
}

impl AggregateFunction for Percentile {
    fn name(&self) -> &str {
        "percentile"
    }

    fn return_type(&self) -> DataType {
        DataType::Float64
    }

    fn state_types(&self) -> Vec<DataType> {
        Vec::new()
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        Box::new(Counts::new(DataType::Float64, Gives::Percentile(self.0)))
    }

    fn changing_accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(self.accumulator())
    }
}

impl AggregateFunction for Collect {
    fn name(&self) -> &str {
        "collect"
    }

    fn return_type(&self) -> DataType {
        DataType::Map(Arc::new(entries_field(&self.data_type)), false)
    }

    fn state_types(&self) -> Vec<DataType> {
        Vec::new()
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        let gives = match self.distinct {
            true => Gives::Set,
            false => Gives::Multiset,
        };
        Box::new(Counts::new(self.data_type.clone(), gives))
    }

    fn changing_accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(self.accumulator())
    }
}

impl AggregateFunction for JsonObjectAgg {
    fn name(&self) -> &str {
        "json_objectagg"
    }

    fn return_type(&self) -> DataType {
        DataType::Utf8
    }

    fn state_types(&self) -> Vec<DataType> {
        Vec::new()
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        Box::new(Counts::new(DataType::Utf8, Gives::JsonObject))
    }

    fn changing_accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(self.accumulator())
    }
}

fn entry_fields(key: &DataType) -> Fields {
    Fields::from(vec![
        Field::new("key", key.clone(), false),
        Field::new("value", DataType::Int32, true),
    ])
}

fn entries_field(key: &DataType) -> Field {
    Field::new("entries", DataType::Struct(entry_fields(key)), false)
}

/// What is made of the values.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Gives {
    Multiset,
    Set,
    JsonObject,
    /// The number at a share of all.
    Percentile(f64),
}

impl Gives {
    fn name(self) -> &'static str {
        match self {
            Self::Multiset | Self::Set => "COLLECT",
            Self::JsonObject => "JSON_OBJECTAGG",
            Self::Percentile(_) => "MEDIAN or PERCENTILE",
        }
    }
}

/// How often each value of each group is there. A count below zero is of a value that was taken back before it came; between
/// two ticks there is none.
struct Counts {
    data_type: DataType,
    gives: Gives,
    held: Vec<Group>,
    members: usize,
    bytes: usize,
}

#[derive(Clone, Default)]
struct Group {
    counts: BTreeMap<Box<[u8]>, i64>,
    bytes: usize,
}

impl Group {
    /// Returns the values that are there.
    fn present(&self) -> impl Iterator<Item = (&[u8], i64)> {
        let counts = self.counts.iter().filter(|(_, count)| **count > 0);
        counts.map(|(value, count)| (value.as_ref(), *count))
    }
}

impl Counts {
    fn new(data_type: DataType, gives: Gives) -> Self {
        Self {
            data_type,
            gives,
            held: Vec::new(),
            members: 0,
            bytes: 0,
        }
    }

    fn add(&mut self, group: u32, value: &[u8], weight: i64) -> Result<()> {
        let name = self.gives.name();
        let group = &mut self.held[group as usize];
        let cost = value.len() + 1;
        match group.counts.entry(value.into()) {
            Entry::Vacant(_) if weight == 0 => {}
            Entry::Vacant(entry) => {
                if group.bytes + cost > GROUP_BYTES_MAX {
                    return Err(Error::operator(format!(
                        "the values of one {name} take more than 16 MiB; aggregate over shorter windows, or fewer rows with FILTER"
                    )));
                }
                entry.insert(weight);
                group.bytes += cost;
                self.bytes += cost;
                self.members += 1;
            }
            Entry::Occupied(mut entry) => {
                *entry.get_mut() += weight;
                if *entry.get() == 0 {
                    entry.remove();
                    group.bytes -= cost;
                    self.bytes -= cost;
                    self.members -= 1;
                }
            }
        }
        Ok(())
    }

    fn encoded(&self, owners: Vec<u32>, values: &[Option<&[u8]>], counts: Vec<i64>) -> Result<EncodedState> {
        Ok(EncodedState {
            owners: Some(owners),
            columns: vec![
                Values::new(&self.data_type)?.decode(values.iter().copied())?,
                Arc::new(Int64Array::from(counts)),
            ],
        })
    }

    /// Adds the counts of a state, or takes them back.
    fn add_state(&mut self, state: &EncodedState, groups: &[u32], sign: i64) -> Result<()> {
        let wrong = || Error::Checkpoint("the state of a multiset is not of values and counts".into());
        let (Some(owners), [values, counts]) = (&state.owners, state.columns.as_slice()) else {
            return Err(wrong());
        };
        let counts = counts.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        if values.data_type() != &self.data_type || owners.len() != values.len() || counts.len() != values.len() {
            return Err(wrong());
        }
        Values::new(&self.data_type)?.encode(values, |place, value| {
            let group = groups.get(owners[place] as usize).copied().ok_or_else(wrong)?;
            self.add(group, value.ok_or_else(wrong)?, sign * counts.value(place))
        })
    }

    fn maps(&self, groups: &[u32]) -> Result<ArrayRef> {
        let present = || groups.iter().map(|&group| self.held[group as usize].present());
        let offsets = OffsetBuffer::from_lengths(present().map(Iterator::count));
        let keys = present().flatten().map(|(value, _)| Some(value));
        let keys = Values::new(&self.data_type)?.decode(keys)?;
        let mut counts = Vec::with_capacity(keys.len());
        for (_, count) in present().flatten() {
            let count = if self.gives == Gives::Set { 1 } else { count };
            let fits = i32::try_from(count);
            counts.push(fits.map_err(|_| Error::operator("a value is in COLLECT more often than an INT can say"))?);
        }
        let counts: ArrayRef = Arc::new(Int32Array::from(counts));
        let entries = StructArray::try_new(entry_fields(&self.data_type), vec![keys, counts], None)?;
        let field = Arc::new(entries_field(&self.data_type));
        Ok(Arc::new(MapArray::try_new(field, offsets, entries, None, false)?))
    }

    fn percentiles(&self, groups: &[u32], share: f64) -> Result<ArrayRef> {
        // Of each group with numbers: how far the percentile is between two of them, which stand behind one another.
        let (mut nearest, mut between) = (Vec::new(), Vec::with_capacity(groups.len()));
        for &group in groups {
            let present = || self.held[group as usize].present();
            let numbers: i64 = present().map(|(_, count)| count).sum();
            let last = (numbers - 1) as f64;
            between.push((numbers > 0).then_some((last * share).fract()));
            let mut before = 0;
            let mut wanted = [(last * share).floor() as i64, (last * share).ceil() as i64]
                .into_iter()
                .peekable();
            for (value, count) in present() {
                before += count;
                while wanted.next_if(|place| *place < before).is_some() {
                    nearest.push(Some(value));
                }
            }
        }
        let nearest = Values::new(&self.data_type)?.decode(nearest.into_iter())?;
        let mut nearest = nearest.as_primitive::<Float64Type>().values().chunks_exact(2);
        let percentile = between.into_iter().map(|between| {
            let (between, pair) = (between?, nearest.next()?);
            let [low, high] = [pair[0], pair[1]];
            Some(if between == 0.0 {
                low
            } else {
                low + (high - low) * between
            })
        });
        Ok(Arc::new(Float64Array::from_iter(percentile)))
    }

    fn objects(&self, groups: &[u32]) -> Result<ArrayRef> {
        let mut builder = StringBuilder::new();
        let mut text = String::new();
        for &group in groups {
            // By name: `"a"` is behind `"a b"` in the order of the entries.
            let mut entries = Vec::new();
            for (entry, count) in self.held[group as usize].present() {
                let entry = std::str::from_utf8(entry).map_err(|_| Error::Internal("a held text is none".into()))?;
                entries.push((name_of(entry), entry));
                if count > 1 {
                    return Err(twice(name_of(entry)));
                }
            }
            entries.sort_unstable();
            text.clear();
            text.push('{');
            for (place, (name, entry)) in entries.iter().enumerate() {
                if place > 0 {
                    if entries[place - 1].0 == *name {
                        return Err(twice(name));
                    }
                    text.push(',');
                }
                text.push_str(entry);
            }
            text.push('}');
            builder.append_value(&text);
        }
        Ok(Arc::new(builder.finish()))
    }
}

/// Returns the name of an entry, between its quotes.
fn name_of(entry: &str) -> &str {
    let mut escaped = false;
    let inside = entry.strip_prefix('"').unwrap_or(entry);
    let end = inside.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    &inside[..end.unwrap_or(inside.len())]
}

fn twice(name: &str) -> Error {
    Error::operator(format!(
        "JSON_OBJECTAGG has the key \"{name}\" more than once in a group; keys are different, so group by more, or filter"
    ))
}

impl Accumulator for Counts {
    fn resize(&mut self, groups: usize) {
        self.held.resize(groups, Group::default());
    }

    fn update(&mut self, arguments: &[ArrayRef], groups: &[u32], filter: Option<&BooleanArray>) -> Result<()> {
        let [argument] = arguments else {
            return Err(Error::Internal("a multiset has one column".into()));
        };
        Values::new(&self.data_type)?.encode(argument, |row, value| match value {
            Some(value) if passes(filter, row) => self.add(groups[row], value, 1),
            _ => Ok(()),
        })
    }

    fn update_changes(
        &mut self,
        arguments: &[ArrayRef],
        groups: &[u32],
        filter: Option<&BooleanArray>,
        weights: &[i64],
    ) -> Result<()> {
        let [argument] = arguments else {
            return Err(Error::Internal("a multiset has one column".into()));
        };
        Values::new(&self.data_type)?.encode(argument, |row, value| match value {
            Some(value) if passes(filter, row) => self.add(groups[row], value, weights[row]),
            _ => Ok(()),
        })
    }

    fn merge(&mut self, _state: &[ArrayRef], _groups: &[u32]) -> Result<()> {
        Err(Error::Internal("multisets are not merged as columns".into()))
    }

    fn state(&self, _groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Err(Error::Internal("a multiset is not a column".into()))
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        match self.gives {
            Gives::JsonObject => self.objects(groups),
            Gives::Percentile(share) => self.percentiles(groups, share),
            Gives::Multiset | Gives::Set => self.maps(groups),
        }
    }

    fn encode(&self, groups: &[u32]) -> Result<EncodedState> {
        let (mut owners, mut values, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for (position, &group) in groups.iter().enumerate() {
            for (value, count) in &self.held[group as usize].counts {
                owners.push(position as u32);
                values.push(Some(value.as_ref()));
                counts.push(*count);
            }
        }
        self.encoded(owners, &values, counts)
    }

    fn encode_pieces(&self, groups: &[u32]) -> Result<Vec<EncodedState>> {
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        let (mut owners, mut values, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for (position, &group) in groups.iter().enumerate() {
            for (value, count) in &self.held[group as usize].counts {
                let is_full = bytes + value.len() > PIECE_BYTES || values.len() == PIECE_VALUES;
                if is_full && !values.is_empty() {
                    let (owners, counts) = (std::mem::take(&mut owners), std::mem::take(&mut counts));
                    pieces.push(self.encoded(owners, &values, counts)?);
                    values.clear();
                    bytes = 0;
                }
                owners.push(position as u32);
                values.push(Some(value.as_ref()));
                counts.push(*count);
                bytes += value.len();
            }
        }
        if !values.is_empty() || pieces.is_empty() {
            pieces.push(self.encoded(owners, &values, counts)?);
        }
        Ok(pieces)
    }

    fn decode(&mut self, state: &EncodedState, groups: &[u32]) -> Result<()> {
        self.add_state(state, groups, 1)
    }

    fn can_retract(&self) -> bool {
        true
    }

    fn retract(&mut self, state: &EncodedState, groups: &[u32]) -> Result<()> {
        self.add_state(state, groups, -1)
    }

    fn members(&self, group: u32) -> usize {
        self.held[group as usize].counts.len()
    }

    fn members_count(&self) -> usize {
        self.members
    }

    fn size(&self) -> usize {
        self.held.capacity() * size_of::<Group>() + self.members * (size_of::<Box<[u8]>>() + 8) + self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;
    use arrow::datatypes::Int32Type;
    use proptest::prelude::*;

    fn texts(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn counts(found: &ArrayRef, row: usize) -> Vec<(i64, i32)> {
        let entries = found.as_map().value(row);
        let keys = entries.column(0).as_primitive::<Int64Type>().values().to_vec();
        let counts = entries.column(1).as_primitive::<Int32Type>().values().to_vec();
        keys.into_iter().zip(counts).collect()
    }

    proptest! {
        /// Changes in any order, with a checkpoint in pieces in the middle, against a map.
        #[test]
        fn counts_are_those_of_the_rows(
            rows in prop::collection::vec((0u32..3, prop::option::of(-3i64..3), 1i64..3, any::<bool>()), 0..60),
            cut in 0usize..60,
        ) {
            let function = Collect::try_new(&DataType::Int64, false).unwrap();
            let mut held = function.changing_accumulator().unwrap();
            held.resize(3);
            let mut expected: BTreeMap<(u32, i64), i64> = BTreeMap::new();
            for (place, (group, value, weight, counted)) in rows.iter().enumerate() {
                if place == cut {
                    let mut restored = function.changing_accumulator().unwrap();
                    restored.resize(3);
                    for piece in held.encode_pieces(&[2, 0, 1]).unwrap() {
                        restored.decode(&piece, &[2, 0, 1]).unwrap();
                    }
                    prop_assert_eq!(restored.members_count(), held.members_count());
                    held = restored;
                }
                let filter = BooleanArray::from(vec![*counted]);
                let column: ArrayRef = Arc::new(Int64Array::from(vec![*value]));
                held.update_changes(std::slice::from_ref(&column), &[*group], Some(&filter), &[*weight]).unwrap();
                // What has come goes, but for one.
                if *weight > 1 {
                    held.update_changes(&[column], &[*group], Some(&filter), &[1 - weight]).unwrap();
                }
                if let (Some(value), true) = (value, counted) {
                    *expected.entry((*group, *value)).or_default() += 1;
                }
            }
            let found = held.evaluate(&[0, 1, 2]).unwrap();
            prop_assert_eq!(found.data_type(), &function.return_type());
            for group in 0..3u32 {
                let of_group = expected.iter().filter(|((owner, _), _)| *owner == group);
                let of_group: Vec<(i64, i32)> = of_group.map(|((_, value), count)| (*value, *count as i32)).collect();
                prop_assert_eq!(counts(&found, group as usize), of_group);
            }
        }
    }

    #[test]
    fn panes_that_leave_a_window_take_their_counts_along() {
        let function = Collect::try_new(&DataType::Int64, true).unwrap();
        let mut pane = function.accumulator();
        pane.resize(1);
        let values: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 2]));
        pane.update(&[values], &[0, 0, 0], None).unwrap();
        let state = pane.encode(&[0]).unwrap();
        let mut window = function.accumulator();
        window.resize(1);
        window.decode(&state, &[0]).unwrap();
        window.decode(&state, &[0]).unwrap();
        assert_eq!(counts(&window.evaluate(&[0]).unwrap(), 0), [(1, 1), (2, 1)]);
        window.retract(&state, &[0]).unwrap();
        window.retract(&state, &[0]).unwrap();
        assert_eq!(counts(&window.evaluate(&[0]).unwrap(), 0), []);
        assert_eq!((window.members(0), window.members_count()), (0, 0));
    }

    #[test]
    fn an_object_has_its_names_in_order_and_each_once() {
        let mut held = JsonObjectAgg.accumulator();
        held.resize(2);
        let entries = [Some(r#""a b":1"#), Some(r#""a":[2]"#), None, Some(r#""a\"":null"#)];
        held.update(&[texts(&entries)], &[0; 4], None).unwrap();
        let found = held.evaluate(&[0, 1]).unwrap();
        let found: Vec<_> = found.as_string::<i32>().iter().flatten().collect();
        assert_eq!(found, [r#"{"a":[2],"a b":1,"a\"":null}"#, "{}"]);
        held.update(&[texts(&[Some(r#""a":3"#)])], &[0], None).unwrap();
        let error = held.evaluate(&[0]).unwrap_err().to_string();
        assert!(error.contains(r#"the key "a" more than once"#), "{error}");
    }

    proptest! {
        /// Numbers that come and go, against those that are left in order.
        #[test]
        fn percentiles_are_between_the_nearest_numbers(
            rows in prop::collection::vec((0u32..2, -4i32..4, any::<bool>()), 0..40),
            share in 0.0f64..=1.0,
        ) {
            let mut held = Percentile::try_new(&DataType::Float64, share).unwrap().changing_accumulator().unwrap();
            held.resize(2);
            let mut left: [Vec<f64>; 2] = Default::default();
            for (group, number, stays) in rows {
                let number = f64::from(number) / 2.0;
                let column: ArrayRef = Arc::new(Float64Array::from(vec![Some(number), None]));
                held.update_changes(std::slice::from_ref(&column), &[group; 2], None, &[1, 1]).unwrap();
                match stays {
                    true => left[group as usize].push(number),
                    false => held.update_changes(&[column], &[group; 2], None, &[-1, -1]).unwrap(),
                }
            }
            let found = held.evaluate(&[1, 0]).unwrap();
            for (row, numbers) in left.iter_mut().rev().enumerate() {
                numbers.sort_by(f64::total_cmp);
                let found = found.as_primitive::<Float64Type>();
                if numbers.is_empty() {
                    prop_assert!(found.is_null(row));
                    continue;
                }
                let place = share * (numbers.len() - 1) as f64;
                let (low, high) = (numbers[place.floor() as usize], numbers[place.ceil() as usize]);
                let expected = low + (high - low) * place.fract();
                prop_assert!((found.value(row) - expected).abs() < 1e-9, "{} is not {expected}", found.value(row));
            }
        }
    }

    #[test]
    fn values_without_an_order_are_refused() {
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
        assert!(Collect::try_new(&list, false).is_err());
        assert!(JsonObjectAgg::try_new(&DataType::Int64).is_err());
        assert!(Percentile::try_new(&DataType::Int64, 0.5).is_err());
        assert!(Percentile::try_new(&DataType::Float64, 1.01).is_err());
    }
}
