//! `listagg(x, sep)`, `json_arrayagg(x)` and `array_agg(x)`: all values of a group, in the order they come.

use super::values::Values;
use super::{Accumulator, AggregateFunction, EncodedState, passes};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, BooleanArray, ListArray, StringBuilder};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use std::collections::VecDeque;
use std::sync::Arc;

/// The most bytes that the values of one group may take.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most bytes of text in one batch of results.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// Bytes of values per encoded piece at most, but for a single value.
const PIECE_BYTES: usize = 1 << 24;

/// Joins the texts of a group; null when it has none. Nulls are left out.
#[derive(Clone, Debug)]
pub struct ListAgg {
    separator: String,
}

impl ListAgg {
    /// Makes the function for arguments of a type.
    ///
    /// # Errors
    /// When the type is not text.
    pub fn try_new(argument: &DataType, separator: &str) -> Result<Self> {
        match argument {
            DataType::Utf8 => Ok(Self {
                separator: separator.to_owned(),
            }),
            other => Err(Error::Graph(format!(
                "listagg joins texts, and its argument is {other}"
            ))),
        }
    }
}

/// Joins the texts of a group, each a value of JSON, into an array of JSON; an empty one when it has none. Nulls are left out.
#[derive(Clone, Debug)]
pub struct JsonArrayAgg;

impl JsonArrayAgg {
    /// Makes the function for arguments of a type.
    ///
    /// # Errors
    /// When the type is not text.
    pub fn try_new(argument: &DataType) -> Result<Self> {
        match argument {
            DataType::Utf8 => Ok(Self),
            other => Err(Error::Graph(format!(
                "json_arrayagg joins texts, and its argument is {other}"
            ))),
        }
    }
}

/// Collects the values of a group into an array, nulls too; null when it has no rows.
#[derive(Clone, Debug)]
pub struct ArrayAgg(DataType);

impl ArrayAgg {
    /// Makes the function for arguments of a type.
    ///
    /// # Errors
    /// When values of the type cannot be held.
    pub fn try_new(argument: &DataType) -> Result<Self> {
        match Values::supports(argument) {
            true => Ok(Self(argument.clone())),
            false => Err(Error::Graph(format!("array_agg cannot hold values of {argument}"))),
        }
    }
}

impl AggregateFunction for ListAgg {
    fn name(&self) -> &str {
        "listagg"
    }

    fn return_type(&self) -> DataType {
        DataType::Utf8
    }

    fn state_types(&self) -> Vec<DataType> {
        Vec::new()
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        Box::new(Lists::new(DataType::Utf8, Gives::Text(self.separator.clone())))
    }

    fn needs_order(&self) -> bool {
        true
    }
}

impl AggregateFunction for JsonArrayAgg {
    fn name(&self) -> &str {
        "json_arrayagg"
    }

    fn return_type(&self) -> DataType {
        DataType::Utf8
    }

    fn state_types(&self) -> Vec<DataType> {
        Vec::new()
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        Box::new(Lists::new(DataType::Utf8, Gives::Json))
    }

    fn needs_order(&self) -> bool {
        true
    }
}

impl AggregateFunction for ArrayAgg {
    fn name(&self) -> &str {
        "array_agg"
    }

    fn return_type(&self) -> DataType {
        DataType::List(Arc::new(Field::new_list_field(self.0.clone(), true)))
    }

    fn state_types(&self) -> Vec<DataType> {
        Vec::new()
    }

    fn accumulator(&self) -> Box<dyn Accumulator> {
        Box::new(Lists::new(self.0.clone(), Gives::Array))
    }

    fn needs_order(&self) -> bool {
        true
    }
}

/// What is made of the values.
#[derive(Clone, Debug)]
enum Gives {
    /// One text, with this between the values.
    Text(String),
    /// The text of an array of JSON.
    Json,
    /// An array, which holds nulls, too.
    Array,
}

impl Gives {
    /// Returns what stands between texts; none for arrays.
    fn separator(&self) -> Option<&str> {
        match self {
            Self::Text(separator) => Some(separator),
            Self::Json => Some(","),
            Self::Array => None,
        }
    }
}

/// The values of each group.
struct Lists {
    data_type: DataType,
    gives: Gives,
    held: Vec<List>,
    members: usize,
    bytes: usize,
}

#[derive(Clone, Default)]
struct List {
    values: VecDeque<Option<Box<[u8]>>>,
    bytes: usize,
}

impl Lists {
    fn new(data_type: DataType, gives: Gives) -> Self {
        Self {
            data_type,
            gives,
            held: Vec::new(),
            members: 0,
            bytes: 0,
        }
    }

    fn name(&self) -> &'static str {
        match self.gives {
            Gives::Text(_) => "LISTAGG",
            Gives::Json => "JSON_ARRAYAGG",
            Gives::Array => "ARRAY_AGG",
        }
    }

    /// How many bytes a value counts for: with its separator, or its place in the array.
    fn cost(&self, value: Option<&[u8]>) -> usize {
        value.map_or(0, <[u8]>::len) + self.gives.separator().map_or(1, str::len)
    }

    fn push(&mut self, group: u32, value: Option<&[u8]>) -> Result<()> {
        let (cost, name) = (self.cost(value), self.name());
        let list = &mut self.held[group as usize];
        // The last text has no separator behind it.
        let beyond = self.gives.separator().map_or(0, str::len);
        if list.bytes + cost > GROUP_BYTES_MAX + beyond {
            return Err(Error::operator(format!(
                "the values of one {name} take more than 16 MiB; aggregate over shorter windows, or fewer rows with FILTER"
            )));
        }
        list.values.push_back(value.map(Into::into));
        list.bytes += cost;
        self.bytes += cost;
        self.members += 1;
        Ok(())
    }

    fn encoded(&self, owners: Vec<u32>, values: &[Option<&[u8]>]) -> Result<EncodedState> {
        Ok(EncodedState {
            owners: Some(owners),
            columns: vec![Values::new(&self.data_type)?.decode(values.iter().copied())?],
        })
    }

    /// Calls `visit` with the group and the bytes of each value of a state.
    fn visit(
        &mut self,
        state: &EncodedState,
        groups: &[u32],
        mut visit: impl FnMut(&mut Self, u32, Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        let wrong = || Error::Checkpoint("the state of a list is not of values with their groups".into());
        let (Some(owners), [values]) = (&state.owners, state.columns.as_slice()) else {
            return Err(wrong());
        };
        if values.data_type() != &self.data_type || owners.len() != values.len() {
            return Err(wrong());
        }
        Values::new(&self.data_type)?.encode(values, |place, value| {
            let group = groups.get(owners[place] as usize).copied().ok_or_else(wrong)?;
            visit(self, group, value)
        })
    }
}

impl Accumulator for Lists {
    fn resize(&mut self, groups: usize) {
        self.held.resize(groups, List::default());
    }

    fn update(&mut self, arguments: &[ArrayRef], groups: &[u32], filter: Option<&BooleanArray>) -> Result<()> {
        let [argument] = arguments else {
            return Err(Error::Internal("listagg and array_agg have one column".into()));
        };
        let takes_nulls = self.gives.separator().is_none();
        Values::new(&self.data_type)?.encode(argument, |row, value| {
            if (value.is_some() || takes_nulls) && passes(filter, row) {
                self.push(groups[row], value)?;
            }
            Ok(())
        })
    }

    fn merge(&mut self, _state: &[ArrayRef], _groups: &[u32]) -> Result<()> {
        Err(Error::Internal("lists are not merged as columns".into()))
    }

    fn state(&self, _groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Err(Error::Internal("a list of values is not a column".into()))
    }

    fn evaluate(&self, groups: &[u32]) -> Result<ArrayRef> {
        let lists = groups.iter().map(|&group| &self.held[group as usize]);
        let Some(separator) = self.gives.separator() else {
            let valid: Vec<bool> = lists.clone().map(|list| !list.values.is_empty()).collect();
            let offsets = OffsetBuffer::from_lengths(lists.clone().map(|list| list.values.len()));
            let values = lists.flat_map(|list| list.values.iter().map(Option::as_deref));
            let values = Values::new(&self.data_type)?.decode(values)?;
            let item = Arc::new(Field::new_list_field(self.data_type.clone(), true));
            let lists = ListArray::try_new(item, offsets, values, Some(NullBuffer::from(valid)))?;
            return Ok(Arc::new(lists));
        };
        let bytes: usize = lists.clone().map(|list| list.bytes).sum();
        if bytes > BATCH_BYTES_MAX {
            return Err(Error::operator(
                "the texts of LISTAGG or JSON_ARRAYAGG of one batch of groups take more than 1 GiB; aggregate over shorter windows",
            ));
        }
        let mut builder = StringBuilder::with_capacity(groups.len(), bytes);
        let mut text = String::new();
        let is_json = matches!(self.gives, Gives::Json);
        for list in lists {
            text.clear();
            text.extend(is_json.then_some('['));
            for (place, value) in list.values.iter().enumerate() {
                if place > 0 {
                    text.push_str(separator);
                }
                let value = std::str::from_utf8(value.as_deref().unwrap_or_default());
                text.push_str(value.map_err(|_| Error::Internal("a held text is none".into()))?);
            }
            text.extend(is_json.then_some(']'));
            builder.append_option((is_json || !list.values.is_empty()).then_some(text.as_str()));
        }
        Ok(Arc::new(builder.finish()))
    }

    fn encode(&self, groups: &[u32]) -> Result<EncodedState> {
        let (mut owners, mut values) = (Vec::new(), Vec::new());
        for (position, &group) in groups.iter().enumerate() {
            for value in &self.held[group as usize].values {
                owners.push(position as u32);
                values.push(value.as_deref());
            }
        }
        self.encoded(owners, &values)
    }

    fn encode_pieces(&self, groups: &[u32]) -> Result<Vec<EncodedState>> {
        let (mut pieces, mut owners, mut values, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (position, &group) in groups.iter().enumerate() {
            for value in &self.held[group as usize].values {
                let cost = self.cost(value.as_deref()) + 1;
                if bytes + cost > PIECE_BYTES && !values.is_empty() {
                    pieces.push(self.encoded(std::mem::take(&mut owners), &values)?);
                    values.clear();
                    bytes = 0;
                }
                owners.push(position as u32);
                values.push(value.as_deref());
                bytes += cost;
            }
        }
        if !values.is_empty() || pieces.is_empty() {
            pieces.push(self.encoded(owners, &values)?);
        }
        Ok(pieces)
    }

    fn decode(&mut self, state: &EncodedState, groups: &[u32]) -> Result<()> {
        self.visit(state, groups, |lists, group, value| lists.push(group, value))
    }

    fn can_retract(&self) -> bool {
        true
    }

    /// Takes values back from the front: what came first goes first.
    fn retract(&mut self, state: &EncodedState, groups: &[u32]) -> Result<()> {
        self.visit(state, groups, |lists, group, value| {
            let cost = lists.cost(value);
            let list = &mut lists.held[group as usize];
            if list.values.pop_front().is_none_or(|oldest| oldest.as_deref() != value) {
                return Err(Error::Internal(
                    "a value of a list was taken back out of its turn".into(),
                ));
            }
            list.bytes -= cost;
            lists.bytes -= cost;
            lists.members -= 1;
            Ok(())
        })
    }

    fn members(&self, group: u32) -> usize {
        self.held[group as usize].values.len()
    }

    fn members_count(&self) -> usize {
        self.members
    }

    fn size(&self) -> usize {
        self.held.capacity() * size_of::<List>() + self.members * size_of::<Option<Box<[u8]>>>() + self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    fn texts(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn joined(lists: &dyn Accumulator, group: u32) -> Option<String> {
        let found = lists.evaluate(&[group]).unwrap();
        let found = found.as_string::<i32>();
        found.is_valid(0).then(|| found.value(0).to_owned())
    }

    #[test]
    fn texts_are_joined_in_the_order_they_come_and_survive_a_checkpoint() {
        let function = ListAgg::try_new(&DataType::Utf8, "; ").unwrap();
        let mut held = function.accumulator();
        held.resize(3);
        let filter = BooleanArray::from(vec![true, true, true, false, true]);
        let values = texts(&[Some("b"), None, Some("x"), Some("left out"), Some("a")]);
        held.update(&[values], &[0, 0, 1, 0, 0], Some(&filter)).unwrap();
        assert_eq!(joined(held.as_ref(), 0).as_deref(), Some("b; a"));
        assert_eq!(joined(held.as_ref(), 1).as_deref(), Some("x"));
        assert_eq!(joined(held.as_ref(), 2), None);

        let mut restored = function.accumulator();
        restored.resize(5);
        restored.decode(&held.encode(&[1, 0]).unwrap(), &[3, 4]).unwrap();
        restored
            .update(&[texts(&[Some(""), Some("z")])], &[4, 3], None)
            .unwrap();
        assert_eq!(joined(restored.as_ref(), 4).as_deref(), Some("b; a; "));
        assert_eq!(joined(restored.as_ref(), 3).as_deref(), Some("x; z"));
        assert_eq!((restored.members(4), restored.members_count()), (3, 5));
    }

    #[test]
    fn what_came_first_is_taken_back_first() {
        let function = ListAgg::try_new(&DataType::Utf8, ",").unwrap();
        let state = |values: &[Option<&str>]| {
            let mut lists = function.accumulator();
            lists.resize(1);
            lists.update(&[texts(values)], &vec![0; values.len()], None).unwrap();
            lists.encode(&[0]).unwrap()
        };
        let (older, newer) = (state(&[Some("a"), Some("b")]), state(&[Some("c")]));
        let mut lists = function.accumulator();
        lists.resize(2);
        lists.decode(&older, &[1]).unwrap();
        lists.decode(&newer, &[1]).unwrap();
        assert!(lists.retract(&newer, &[1]).is_err(), "it is not its turn");
        let mut lists = function.accumulator();
        lists.resize(2);
        lists.decode(&older, &[1]).unwrap();
        lists.decode(&newer, &[1]).unwrap();
        lists.retract(&older, &[1]).unwrap();
        assert_eq!(joined(lists.as_ref(), 1).as_deref(), Some("c"));
        lists.retract(&newer, &[1]).unwrap();
        assert_eq!((joined(lists.as_ref(), 1), lists.members_count()), (None, 0));
    }

    #[test]
    fn arrays_hold_nulls_and_survive_a_checkpoint() {
        let function = ArrayAgg::try_new(&DataType::Int64).unwrap();
        let mut held = function.accumulator();
        held.resize(2);
        let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(2), None, Some(1)]));
        held.update(&[values], &[0, 0, 0], None).unwrap();
        let mut restored = function.accumulator();
        restored.resize(2);
        restored.decode(&held.encode(&[0, 1]).unwrap(), &[0, 1]).unwrap();
        let expected: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([
            Some(vec![Some(2), None, Some(1)]),
            None,
        ]));
        assert_eq!(&restored.evaluate(&[0, 1]).unwrap(), &expected);
    }

    #[test]
    fn list_that_grows_beyond_the_limit_says_so() {
        let mut lists = ListAgg::try_new(&DataType::Utf8, ",").unwrap().accumulator();
        lists.resize(2);
        let mib = "x".repeat((1 << 20) - 1);
        for _ in 0..16 {
            lists
                .update(&[texts(&[Some(&mib), Some(&mib)])], &[0, 1], None)
                .unwrap();
        }
        let error = lists.update(&[texts(&[Some("xx")])], &[0], None).unwrap_err();
        assert!(error.to_string().contains("LISTAGG take more than 16 MiB"), "{error}");

        // What is held is encoded in pieces, and comes back.
        let pieces = lists.encode_pieces(&[0, 1]).unwrap();
        assert!(pieces.len() > 1);
        let mut restored = ListAgg::try_new(&DataType::Utf8, ",").unwrap().accumulator();
        restored.resize(2);
        for piece in &pieces {
            restored.decode(piece, &[0, 1]).unwrap();
        }
        assert_eq!(&restored.evaluate(&[0, 1]).unwrap(), &lists.evaluate(&[0, 1]).unwrap());
    }
}
