//! Functions of arrays and maps with Flink's meaning.

use super::native::{Args, Gives, Native, Takes};
use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use datafusion_common::{Result, exec_err};

use Takes::{Any, Text};

pub(super) const FUNCTIONS: &[Native] = &[
    Native {
        name: "cardinality",
        takes: &[Any],
        needed: 1,
        gives: Gives::Int,
        eval: cardinality,
    },
    Native {
        name: "element",
        takes: &[Any],
        needed: 1,
        gives: Gives::Element,
        eval: element,
    },
    Native {
        name: "item",
        takes: &[Any, Any],
        needed: 2,
        gives: Gives::Element,
        eval: item,
    },
    Native {
        name: "str_to_map",
        takes: &[Text, Text, Text],
        needed: 1,
        gives: Gives::TextMap,
        eval: str_to_map,
    },
];

/// Returns where the elements of each row are, and whether the row is null.
fn offsets(values: &ArrayRef) -> Result<&[i32]> {
    match values.data_type() {
        DataType::List(_) => Ok(values.as_list::<i32>().value_offsets()),
        DataType::Map(..) => Ok(values.as_map().value_offsets()),
        other => exec_err!("an ARRAY or a MAP is needed, not {}", crate::types::sql_name(other)),
    }
}

/// Counts the elements of an array or the entries of a map.
fn cardinality(args: &Args<'_>) -> Result<ArrayRef> {
    let values = args.array(0)?;
    if values.data_type().is_null() {
        return args.ints(|_| None);
    }
    let offsets = offsets(&values)?;
    args.ints(|row| values.is_valid(row).then(|| offsets[row + 1] - offsets[row]))
}

/// The one element of an array; null of an empty one.
fn element(args: &Args<'_>) -> Result<ArrayRef> {
    let values = args.array(0)?;
    let DataType::List(_) = values.data_type() else {
        return exec_err!(
            "ELEMENT takes an ARRAY, not {}",
            crate::types::sql_name(values.data_type())
        );
    };
    let offsets = offsets(&values)?;
    let mut places = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        let length = if values.is_valid(row) {
            offsets[row + 1] - offsets[row]
        } else {
            0
        };
        if length > 1 {
            return exec_err!("ELEMENT of an ARRAY with {length} elements; it takes one with at most one");
        }
        places.push((length == 1).then_some(offsets[row] as u32));
    }
    Ok(take(
        values.as_list::<i32>().values(),
        &UInt32Array::from(places),
        None,
    )?)
}

/// The element of an array at a place from 1, or the value of a map at a key; null where there is none.
fn item(args: &Args<'_>) -> Result<ArrayRef> {
    let (values, keys) = (args.array(0)?, args.array(1)?);
    let offsets = offsets(&values)?;
    let mut places: Vec<Option<u32>> = vec![None; args.rows];
    match values.data_type() {
        DataType::List(_) => {
            let keys = arrow::compute::cast(&keys, &DataType::Int64)?;
            let keys = keys.as_primitive::<arrow::datatypes::Int64Type>();
            for (row, place) in places.iter_mut().enumerate() {
                if keys.is_null(row) || values.is_null(row) {
                    continue;
                }
                let index = keys.value(row);
                if index < 1 {
                    return exec_err!("the index {index} of an ARRAY is below 1, where arrays begin");
                }
                let length = i64::from(offsets[row + 1] - offsets[row]);
                *place = (index <= length).then(|| (i64::from(offsets[row]) + index - 1) as u32);
            }
            Ok(take(
                values.as_list::<i32>().values(),
                &UInt32Array::from(places),
                None,
            )?)
        }
        _ => {
            let map = values.as_map();
            let keys = arrow::compute::cast(&keys, map.keys().data_type())?;
            for (row, place) in places.iter_mut().enumerate() {
                let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
                if keys.is_null(row) || values.is_null(row) || start == end {
                    continue;
                }
                let entries = map.keys().slice(start, end - start);
                let key = arrow::array::Scalar::new(keys.slice(row, 1));
                let equal = arrow::compute::kernels::cmp::eq(&entries, &key)?;
                // The last entry of a key counts.
                let found = (0..equal.len())
                    .rev()
                    .find(|index| equal.is_valid(*index) && equal.value(*index));
                *place = found.map(|index| (start + index) as u32);
            }
            Ok(take(map.values(), &UInt32Array::from(places), None)?)
        }
    }
}

/// Splits `k1=v1,k2=v2`; the delimiters of pairs and of keys may be given. The last value of a key counts.
fn str_to_map(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, pairs, keys) = (args.text(0), args.text(1), args.text(2));
    let names = arrow::array::MapFieldNames {
        entry: "entries".into(),
        key: "key".into(),
        value: "value".into(),
    };
    let (text_builder, value_builder) = (arrow::array::StringBuilder::new(), arrow::array::StringBuilder::new());
    let mut builder = arrow::array::MapBuilder::new(Some(names), text_builder, value_builder);
    for row in 0..args.rows {
        let given = |place: usize, found: Option<&str>, default: &str| match place < args.len() {
            true => found.map(str::to_owned),
            false => Some(default.to_owned()),
        };
        let delimiters = (given(1, pairs.get(row), ","), given(2, keys.get(row), "="));
        let (Some(text), (Some(pair), Some(key))) = (text.get(row), delimiters) else {
            builder.append(false)?;
            continue;
        };
        if pair.is_empty() || key.is_empty() {
            return exec_err!("a delimiter of STR_TO_MAP is empty");
        }
        let mut entries: Vec<(&str, Option<&str>)> = Vec::new();
        for part in text.split(pair.as_str()) {
            let (name, value) = match part.split_once(key.as_str()) {
                Some((name, value)) => (name, Some(value)),
                None => (part, None),
            };
            match entries.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = value,
                None => entries.push((name, value)),
            }
        }
        for (name, value) in entries {
            builder.keys().append_value(name);
            builder.values().append_option(value);
        }
        builder.append(true)?;
    }
    arrow::compute::cast(&builder.finish(), args.gives).map_err(Into::into)
}
