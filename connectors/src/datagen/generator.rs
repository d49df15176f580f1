//! Makes columns of made-up values.

use super::random::{Randomness, scale};
use crate::error::ConnectorError;
use crate::formats::time_text::{TimestampStandard, Zone, parse_timestamp};
use crate::options::{Flag, Options};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
    Time64NanosecondArray, TimestampMillisecondArray, make_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use arrow::error::ArrowError;
use std::sync::Arc;

/// Flink's length of random strings.
const LENGTH_DEFAULT: u32 = 100;
const LENGTH_MAX: u32 = 1_000_000;
/// What options of numbers hold.
const NUMBER: &str = "a number such as 0.5";
const WHOLE: &str = "a whole number such as 100";
const WHOLE_SIGNED: &str = "a whole number such as 100 or -5";
const DAY_MS: i64 = 86_400_000;

/// The rows of a split that are to be made: `first`, `first + stride`, ...
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    pub(super) first: u64,
    pub(super) stride: u64,
    pub(super) count: usize,
    /// The wall time in milliseconds, for what is relative to now.
    pub(super) now_ms: i64,
}

impl Rows {
    #[inline]
    fn indexes(self) -> impl Iterator<Item = u64> {
        (0..self.count as u64).map(move |j| self.first.wrapping_add(j.wrapping_mul(self.stride)))
    }
}

/// Makes one column.
#[derive(Clone, Debug)]
pub(super) struct Generator {
    field: FieldRef,
    kind: Kind,
    /// Nulls where a random number is below this.
    null_below: u64,
    values: Randomness,
    nulls: Randomness,
}

#[derive(Clone, Debug)]
enum Kind {
    Boolean,
    /// Whole numbers from `min`, `bound` many; 0 for 2^64.
    Integer {
        min: i64,
        bound: u64,
    },
    Float {
        min: f64,
        max: f64,
    },
    /// Whole numbers scaled by the column's scale.
    Decimal {
        min: i128,
        bound: u64,
    },
    Text {
        length: u32,
        varying: bool,
    },
    Binary {
        length: u32,
        varying: bool,
    },
    /// `start + i * step`.
    Sequence {
        start: i64,
        step: i64,
        rows: Option<u64>,
    },
    /// Now, less a random time.
    Now {
        max_past_ms: u64,
    },
    Today,
    TimeOfDay,
    /// `start + i * step`, less a random time.
    TimeSequence {
        start_ms: i64,
        step_ms: i64,
        jitter_ms: u64,
        rows: Option<u64>,
    },
}

impl Generator {
    /// Reads the options `fields.<column>.*`.
    ///
    /// # Errors
    /// When one is not valid, or the column's type cannot be generated.
    pub(super) fn parse(field: &FieldRef, seed: u64, options: &Options<'_>) -> Result<Self, ConnectorError> {
        let name = |option: &str| format!("fields.{}.{option}", field.name());
        let is_timestamp = matches!(field.data_type(), DataType::Timestamp(..));
        let sequence = match options.choice(&name("kind"), &[("random", false), ("sequence", true)])? {
            Some(sequence) => sequence,
            // A timestamp with a start can only be meant as a sequence.
            None => is_timestamp && options.text(&name("start")).is_some(),
        };
        let kind = match (sequence, is_timestamp) {
            (true, true) => time_sequence(field, options)?,
            (true, false) => sequence_kind(field, options)?,
            (false, _) => random_kind(field, options)?,
        };
        let null_rate = options.parsed::<f64>(&name("null-rate"), NUMBER)?.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&null_rate) {
            return Err(options.out_of_range(&name("null-rate"), "from 0 to 1, such as 0.1"));
        }
        if null_rate > 0.0 && !field.is_nullable() {
            return Err(ConnectorError::option(name("null-rate"), "the column is NOT NULL"));
        }
        // As a float has fewer bits than the limit, 1.0 comes out as the limit itself.
        let null_below = (null_rate * u64::MAX as f64) as u64;
        Ok(Self {
            field: Arc::clone(field),
            kind,
            null_below,
            values: Randomness::new(seed, field.name(), 0),
            nulls: Randomness::new(seed, field.name(), 1),
        })
    }

    /// Returns how many rows the column has, if it ends.
    pub(super) fn rows(&self) -> Option<u64> {
        match self.kind {
            Kind::Sequence { rows, .. } | Kind::TimeSequence { rows, .. } => rows,
            _ => None,
        }
    }

    /// Returns about how many bytes a value has.
    pub(super) fn width(&self) -> usize {
        match self.kind {
            Kind::Text { length, .. } | Kind::Binary { length, .. } => length as usize + 4,
            Kind::Decimal { .. } => 16,
            _ => 8,
        }
    }

    /// Makes the values of some rows.
    pub(super) fn column(&self, rows: Rows) -> Result<ArrayRef, ArrowError> {
        let array = self.plain_column(rows)?;
        let array = if array.data_type() == self.field.data_type() {
            array
        } else {
            cast(&array, self.field.data_type())?
        };
        if self.null_below == 0 {
            return Ok(array);
        }
        let valid: BooleanBuffer = rows.indexes().map(|i| self.nulls.at(i) >= self.null_below).collect();
        let data = array
            .to_data()
            .into_builder()
            .nulls(Some(NullBuffer::new(valid)))
            .build()?;
        Ok(make_array(data))
    }

    /// Makes the values in the type that is nearest to how they are made.
    fn plain_column(&self, rows: Rows) -> Result<ArrayRef, ArrowError> {
        let random = self.values;
        Ok(match self.kind {
            Kind::Boolean => Arc::new(BooleanArray::new(
                rows.indexes().map(|i| random.at(i) & 1 == 1).collect(),
                None,
            )),
            Kind::Integer { min, bound } => self.integers(rows, |i| min.wrapping_add(random.below(i, bound) as i64)),
            Kind::Sequence { start, step, .. } => {
                self.integers(rows, |i| start.wrapping_add(step.wrapping_mul(i as i64)))
            }
            Kind::Float { min, max } => Arc::new(Float64Array::from_iter_values(rows.indexes().map(|i| {
                let unit = random.unit(i);
                min * (1.0 - unit) + max * unit
            }))),
            Kind::Decimal { min, bound } => {
                let values = rows.indexes().map(|i| min + i128::from(random.below(i, bound)));
                let array = Decimal128Array::from_iter_values(values);
                Arc::new(array.with_data_type(self.field.data_type().clone()))
            }
            Kind::Text { length, varying } => {
                let (offsets, bytes) = random_bytes(random, rows, length, varying, write_hex);
                Arc::new(StringArray::try_new(offsets, bytes, None)?)
            }
            Kind::Binary { length, varying } => {
                let (offsets, bytes) = random_bytes(random, rows, length, varying, write_random);
                Arc::new(BinaryArray::try_new(offsets, bytes, None)?)
            }
            Kind::Now { max_past_ms } => self.timestamps(rows, |i| {
                rows.now_ms
                    .saturating_sub(random.below(i, max_past_ms.saturating_add(1)) as i64)
            }),
            Kind::TimeSequence {
                start_ms,
                step_ms,
                jitter_ms,
                ..
            } => self.timestamps(rows, |i| {
                let time = start_ms.saturating_add(step_ms.saturating_mul(i64::try_from(i).unwrap_or(i64::MAX)));
                if jitter_ms == 0 {
                    time
                } else {
                    time.saturating_sub(random.below(i, jitter_ms) as i64)
                }
            }),
            Kind::Today => {
                let days = i32::try_from(rows.now_ms.div_euclid(DAY_MS)).unwrap_or(0);
                Arc::new(Date32Array::from_iter_values((0..rows.count).map(|_| days)))
            }
            Kind::TimeOfDay => {
                let nanos = rows.now_ms.rem_euclid(DAY_MS) * 1_000_000;
                Arc::new(Time64NanosecondArray::from_iter_values((0..rows.count).map(|_| nanos)))
            }
        })
    }

    /// Makes whole numbers; the two widest types without a detour.
    #[inline]
    fn integers(&self, rows: Rows, value: impl Fn(u64) -> i64) -> ArrayRef {
        match self.field.data_type() {
            DataType::Int32 => {
                let values = rows.indexes().map(|i| value(i) as i32).collect::<Vec<_>>();
                Arc::new(arrow::array::Int32Array::new(ScalarBuffer::from(values), None))
            }
            DataType::UInt64 => {
                let values = rows.indexes().map(|i| value(i) as u64).collect::<Vec<_>>();
                Arc::new(arrow::array::UInt64Array::new(ScalarBuffer::from(values), None))
            }
            _ => {
                let values = rows.indexes().map(value).collect::<Vec<_>>();
                Arc::new(Int64Array::new(ScalarBuffer::from(values), None))
            }
        }
    }

    #[inline]
    fn timestamps(&self, rows: Rows, value: impl Fn(u64) -> i64) -> ArrayRef {
        let values = rows.indexes().map(value).collect::<Vec<_>>();
        let zone = match self.field.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        Arc::new(TimestampMillisecondArray::new(ScalarBuffer::from(values), None).with_timezone_opt(zone))
    }
}

/// The least and the greatest value of a type of whole numbers.
fn integer_limits(data_type: &DataType) -> Option<(i64, i64)> {
    Some(match data_type {
        DataType::Int8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
        DataType::Int16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DataType::Int32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        DataType::Int64 => (i64::MIN, i64::MAX),
        DataType::UInt8 => (0, i64::from(u8::MAX)),
        DataType::UInt16 => (0, i64::from(u16::MAX)),
        DataType::UInt32 => (0, i64::from(u32::MAX)),
        DataType::UInt64 => (0, i64::MAX),
        _ => return None,
    })
}

fn random_kind(field: &Field, options: &Options<'_>) -> Result<Kind, ConnectorError> {
    let name = |option: &str| format!("fields.{}.{option}", field.name());
    if let Some((least, greatest)) = integer_limits(field.data_type()) {
        let min = options.parsed::<i64>(&name("min"), WHOLE_SIGNED)?.unwrap_or(least);
        let max = options.parsed::<i64>(&name("max"), WHOLE_SIGNED)?.unwrap_or(greatest);
        for (option, value) in [("min", min), ("max", max)] {
            if value < least || value > greatest {
                return Err(options.out_of_range(&name(option), &format!("from {least} to {greatest}, as its type")));
            }
        }
        if min > max {
            return Err(options.out_of_range(&name("max"), &format!("at least {min}, the minimum")));
        }
        // The whole range of 64 bits wraps to 0, which stands for it.
        return Ok(Kind::Integer {
            min,
            bound: (max.wrapping_sub(min) as u64).wrapping_add(1),
        });
    }
    let length = |fixed: Flag| -> Result<(u32, bool), ConnectorError> {
        let length = options.parsed::<u32>(&name("length"), WHOLE)?.unwrap_or(LENGTH_DEFAULT);
        if length > LENGTH_MAX {
            return Err(options.out_of_range(&name("length"), &format!("at most {LENGTH_MAX}")));
        }
        Ok((length, options.boolean(&name("var-len"), fixed)?.is_on()))
    };
    Ok(match field.data_type() {
        DataType::Boolean => Kind::Boolean,
        DataType::Float32 | DataType::Float64 => {
            let single = *field.data_type() == DataType::Float32;
            let greatest = if single { f64::from(f32::MAX) } else { f64::MAX };
            let min = options.parsed::<f64>(&name("min"), NUMBER)?.unwrap_or(-greatest);
            let max = options.parsed::<f64>(&name("max"), NUMBER)?.unwrap_or(greatest);
            if !(min.abs() <= greatest && max.abs() <= greatest && min <= max) {
                return Err(ConnectorError::option(
                    name("max"),
                    "must be a number of the type, and at least the minimum",
                ));
            }
            Kind::Float { min, max }
        }
        DataType::Decimal128(precision, scale) => {
            let digits = u32::from((*precision).min(18));
            let greatest = 10_i64.pow(digits) - 1;
            let factor = 10_f64.powi(i32::from(*scale));
            let parse = |option: &str, default: i64| -> Result<i64, ConnectorError> {
                match options.parsed::<f64>(&name(option), NUMBER)? {
                    Some(value) if (value * factor).abs() <= greatest as f64 => Ok((value * factor).round() as i64),
                    Some(_) => Err(options.out_of_range(&name(option), "a number that the column holds")),
                    None => Ok(default),
                }
            };
            let (min, max) = (parse("min", -greatest)?, parse("max", greatest)?);
            if min > max {
                return Err(ConnectorError::option(name("max"), "must be at least the minimum"));
            }
            Kind::Decimal {
                min: i128::from(min),
                bound: (max - min) as u64 + 1,
            }
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let (length, varying) = length(Flag::Off)?;
            Kind::Text { length, varying }
        }
        DataType::Binary | DataType::LargeBinary => {
            let (length, varying) = length(Flag::Off)?;
            Kind::Binary { length, varying }
        }
        DataType::Timestamp(..) => {
            let max_past = options.duration(&name("max-past"))?.unwrap_or_default();
            Kind::Now {
                max_past_ms: u64::try_from(max_past.as_millis()).unwrap_or(u64::MAX),
            }
        }
        DataType::Date32 => Kind::Today,
        DataType::Time32(_) | DataType::Time64(_) => Kind::TimeOfDay,
        other => {
            let message = format!(
                "column {} has the type {other}, which datagen does not generate",
                field.name()
            );
            return Err(ConnectorError::new(message));
        }
    })
}

fn sequence_kind(field: &Field, options: &Options<'_>) -> Result<Kind, ConnectorError> {
    let name = |option: &str| format!("fields.{}.{option}", field.name());
    options.required(&name("start"))?;
    let start = options.parsed::<i64>(&name("start"), WHOLE_SIGNED)?.unwrap_or(0);
    let end = options.parsed::<i64>(&name("end"), WHOLE_SIGNED)?;
    let step = options.parsed::<i64>(&name("step"), WHOLE_SIGNED)?.unwrap_or(1);
    if step < 1 {
        return Err(options.out_of_range(&name("step"), "at least 1"));
    }
    let numeric = matches!(
        field.data_type(),
        DataType::Float32 | DataType::Float64 | DataType::Decimal128(..)
    );
    let text = matches!(
        field.data_type(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    );
    let (least, greatest) = match integer_limits(field.data_type()) {
        Some(limits) => limits,
        None if numeric || text => (i64::MIN, i64::MAX),
        None => {
            let message = format!("a column of the type {} cannot be a sequence", field.data_type());
            return Err(ConnectorError::option(name("kind"), message));
        }
    };
    if start < least || end.is_some_and(|end| end > greatest) {
        let option = if start < least { "start" } else { "end" };
        return Err(options.out_of_range(&name(option), &format!("from {least} to {greatest}, as its type")));
    }
    let rows = end.map(|end| rows_between(start, end, step)).transpose();
    let rows = rows.map_err(|()| options.out_of_range(&name("end"), "at least the start"))?;
    // Without an end the sequence stops where the type does.
    let rows = rows.or_else(|| (greatest < i64::MAX).then(|| rows_between(start, greatest, step).unwrap_or(0)));
    Ok(Kind::Sequence { start, step, rows })
}

fn time_sequence(field: &Field, options: &Options<'_>) -> Result<Kind, ConnectorError> {
    let name = |option: &str| format!("fields.{}.{option}", field.name());
    let time = |option: &str, text: &str| {
        let read = |standard, zone| parse_timestamp(text, standard, zone, TimeUnit::Millisecond).ok();
        let standards = [TimestampStandard::Sql, TimestampStandard::Iso8601];
        let zones = [Zone::None, Zone::Utc];
        let found = standards
            .iter()
            .flat_map(|s| zones.iter().map(|z| (*s, *z)))
            .find_map(|(s, z)| read(s, z));
        let message = || format!("'{text}' is not a timestamp such as 2024-05-01 12:13:14.123");
        found.ok_or_else(|| ConnectorError::option(name(option), message()))
    };
    let start_ms = time("start", options.required(&name("start"))?)?;
    let end_ms = options.text(&name("end")).map(|text| time("end", text)).transpose()?;
    let ms = |option: &str| -> Result<Option<i64>, ConnectorError> {
        let duration = options.duration(&name(option))?;
        Ok(duration.map(|d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    };
    let step_ms = ms("step")?.unwrap_or(1);
    if step_ms == 0 {
        return Err(options.out_of_range(&name("step"), "at least 1 ms, such as '10 ms'"));
    }
    let jitter_ms = u64::try_from(ms("jitter")?.unwrap_or(0)).unwrap_or(0);
    let rows = end_ms.map(|end_ms| rows_between(start_ms, end_ms, step_ms)).transpose();
    let rows = rows.map_err(|()| options.out_of_range(&name("end"), "at least the start"))?;
    Ok(Kind::TimeSequence {
        start_ms,
        step_ms,
        jitter_ms,
        rows,
    })
}

/// Counts the steps from `start` to `end`, both included.
fn rows_between(start: i64, end: i64, step: i64) -> Result<u64, ()> {
    if end < start {
        return Err(());
    }
    Ok((end.wrapping_sub(start) as u64 / step as u64).saturating_add(1))
}

/// Makes strings of a length, or of any length from 1 to it.
fn random_bytes(
    random: Randomness,
    rows: Rows,
    length: u32,
    varying: bool,
    write: fn(Randomness, &mut Vec<u8>, usize),
) -> (OffsetBuffer<i32>, Buffer) {
    let mut bytes = Vec::with_capacity(rows.count * length as usize);
    let mut offsets = Vec::with_capacity(rows.count + 1);
    offsets.push(0);
    for i in rows.indexes() {
        // Each row has a sequence of its own: its words are at the places from 1 on.
        let row = Randomness::new(random.at(i), "", 0);
        let length = if varying {
            scale(row.at(0), u64::from(length)) as usize + 1
        } else {
            length as usize
        };
        write(row, &mut bytes, length);
        offsets.push(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
    }
    (OffsetBuffer::new(offsets.into()), Buffer::from_vec(bytes))
}

fn write_random(row: Randomness, out: &mut Vec<u8>, length: usize) {
    let mut left = length;
    for place in 1.. {
        let take = left.min(8);
        out.extend_from_slice(&row.at(place).to_le_bytes()[..take]);
        left -= take;
        if left == 0 {
            break;
        }
    }
}

fn write_hex(row: Randomness, out: &mut Vec<u8>, length: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut left = length;
    for place in 1.. {
        let mut word = row.at(place);
        let take = left.min(16);
        for _ in 0..take {
            out.push(HEX[(word & 15) as usize]);
            word >>= 4;
        }
        left -= take;
        if left == 0 {
            break;
        }
    }
}
