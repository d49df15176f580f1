//! Date and time functions with Flink's meaning. The session's time zone is UTC.

use super::native::{Args, Gives, Native, Takes};
use crate::calendar::{Moment, Pattern, days};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType};
use datafusion_common::{DataFusionError, Result, exec_err};
use std::sync::Arc;

use Takes::{Any, Integer, Text, Time};

const US_PER_SECOND: i64 = 1_000_000;
const US_PER_DAY: i64 = 86_400 * US_PER_SECOND;
const DEFAULT_PATTERN: &str = "yyyy-MM-dd HH:mm:ss";

pub(super) const FUNCTIONS: &[Native] = &[
    Native {
        name: "date_format",
        takes: &[Time, Text],
        needed: 2,
        gives: Gives::Text,
        eval: date_format,
    },
    Native {
        name: "from_unixtime",
        takes: &[Integer, Text],
        needed: 1,
        gives: Gives::Text,
        eval: from_unixtime,
    },
    Native {
        name: "unix_timestamp_of",
        takes: &[Text, Text],
        needed: 1,
        gives: Gives::BigInt,
        eval: unix_timestamp,
    },
    Native {
        name: "to_date",
        takes: &[Text, Text],
        needed: 1,
        gives: Gives::Date,
        eval: to_date,
    },
    Native {
        name: "to_timestamp_by",
        takes: &[Text, Text],
        needed: 2,
        gives: Gives::Timestamp,
        eval: to_timestamp,
    },
    Native {
        name: "timestampadd",
        takes: &[Text, Integer, Any],
        needed: 3,
        gives: Gives::Same(2),
        eval: timestampadd,
    },
    Native {
        name: "timestampdiff",
        takes: &[Text, Time, Time],
        needed: 3,
        gives: Gives::Int,
        eval: timestampdiff,
    },
    Native {
        name: "floor_to",
        takes: &[Any, Text],
        needed: 2,
        gives: Gives::Same(0),
        eval: |args| to_unit(args, false),
    },
    Native {
        name: "ceil_to",
        takes: &[Any, Text],
        needed: 2,
        gives: Gives::Same(0),
        eval: |args| to_unit(args, true),
    },
    Native {
        name: "dayofweek",
        takes: &[Time],
        needed: 1,
        gives: Gives::BigInt,
        eval: day_of_week,
    },
    Native {
        name: "convert_tz",
        takes: &[Text, Text, Text],
        needed: 3,
        gives: Gives::Text,
        eval: convert_tz,
    },
];

/// Finds the pattern of each row; a literal is understood once.
fn with_patterns<T>(args: &Args<'_>, place: usize, mut of: impl FnMut(usize, &Pattern) -> T) -> Result<Vec<Option<T>>> {
    let texts = args.text(place);
    let mut known: Option<(String, Pattern)> = None;
    let mut values = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        let text = if place < args.len() {
            texts.get(row)
        } else {
            Some(DEFAULT_PATTERN)
        };
        let Some(text) = text else {
            values.push(None);
            continue;
        };
        if known.as_ref().is_none_or(|(written, _)| written != text) {
            known = Some((
                text.to_owned(),
                Pattern::parse(text).map_err(DataFusionError::Execution)?,
            ));
        }
        values.push(known.as_ref().map(|(_, pattern)| of(row, pattern)));
    }
    Ok(values)
}

fn date_format(args: &Args<'_>) -> Result<ArrayRef> {
    let time = args.time(0);
    let values = with_patterns(args, 1, |row, pattern| time.get(row).map(|us| pattern.format(us)))?;
    args.texts(|row| values[row].as_ref()?.as_deref())
}

fn from_unixtime(args: &Args<'_>) -> Result<ArrayRef> {
    let seconds = args.integer(0);
    let values = with_patterns(args, 1, |row, pattern| {
        Some(pattern.format(seconds.get(row)?.checked_mul(US_PER_SECOND)?))
    })?;
    args.texts(|row| values[row].as_ref()?.as_deref())
}

fn read(args: &Args<'_>) -> Result<Vec<Option<i64>>> {
    let text = args.text(0);
    let values = with_patterns(args, 1, |row, pattern| pattern.read(text.get(row)?))?;
    Ok(values.into_iter().map(Option::flatten).collect())
}

fn unix_timestamp(args: &Args<'_>) -> Result<ArrayRef> {
    let values = read(args)?;
    args.primitives::<Int64Type>(|row| Some(values[row]?.div_euclid(US_PER_SECOND)))
}

fn to_date(args: &Args<'_>) -> Result<ArrayRef> {
    let day = |us: i64| i32::try_from(us.div_euclid(US_PER_DAY)).ok();
    if args.len() == 1 {
        let text = args.text(0);
        let pattern = Pattern::parse("yyyy-MM-dd").map_err(DataFusionError::Execution)?;
        return args.primitives::<Date32Type>(|row| pattern.read(text.get(row)?).and_then(day));
    }
    let values = read(args)?;
    args.primitives::<Date32Type>(|row| values[row].and_then(day))
}

fn to_timestamp(args: &Args<'_>) -> Result<ArrayRef> {
    let values = read(args)?;
    args.primitives::<TimestampMillisecondType>(|row| Some(values[row]?.div_euclid(1_000)))
}

/// A unit of time: months, or microseconds.
#[derive(Clone, Copy)]
enum Unit {
    Months(i64),
    Us(i64),
}

fn unit(name: &str) -> Result<Unit> {
    let name = name.to_ascii_uppercase();
    Ok(match name.strip_prefix("SQL_TSI_").unwrap_or(&name) {
        "YEAR" => Unit::Months(12),
        "QUARTER" => Unit::Months(3),
        "MONTH" => Unit::Months(1),
        "WEEK" => Unit::Us(7 * US_PER_DAY),
        "DAY" => Unit::Us(US_PER_DAY),
        "HOUR" => Unit::Us(3_600 * US_PER_SECOND),
        "MINUTE" => Unit::Us(60 * US_PER_SECOND),
        "SECOND" => Unit::Us(US_PER_SECOND),
        "MILLISECOND" => Unit::Us(1_000),
        "MICROSECOND" => Unit::Us(1),
        other => {
            return exec_err!(
                "{other} is no unit of time here; use YEAR, QUARTER, MONTH, WEEK, DAY, HOUR, MINUTE, SECOND or MILLISECOND"
            );
        }
    })
}

/// Reads an argument as microseconds, and writes them in its type again.
fn microseconds(args: &Args<'_>, index: usize) -> Result<ArrayRef> {
    let values = args.array(index)?;
    match values.data_type() {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Null => {}
        other => return exec_err!("a TIMESTAMP or DATE is needed, not {}", crate::types::sql_name(other)),
    }
    Ok(cast(&values, &DataType::Timestamp(TimeUnit::Microsecond, None))?)
}

fn in_type(values: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    Ok(cast(&values, data_type)?)
}

fn timestampadd(args: &Args<'_>) -> Result<ArrayRef> {
    let (units, count) = (args.text(0), args.integer(1));
    let times = microseconds(args, 2)?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let mut values = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        let (Some(name), Some(count), true) = (units.get(row), count.get(row), times.is_valid(row)) else {
            values.push(None);
            continue;
        };
        let us = times.value(row);
        let added = match unit(name)? {
            Unit::Months(months) => count
                .checked_mul(months)
                .and_then(|months| Moment::of_us(us).plus_months(months)?.us()),
            Unit::Us(length) => count.checked_mul(length).and_then(|length| us.checked_add(length)),
        };
        match added {
            Some(added) => values.push(Some(added)),
            None => return exec_err!("TIMESTAMPADD goes beyond the times that a TIMESTAMP holds"),
        }
    }
    let added = args.primitives::<TimestampMicrosecondType>(|row| values[row])?;
    in_type(added, args.gives)
}

/// Whole units between two times, towards zero.
fn timestampdiff(args: &Args<'_>) -> Result<ArrayRef> {
    let (units, from, to) = (args.text(0), args.time(1), args.time(2));
    let mut values = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        let (Some(name), Some(from), Some(to)) = (units.get(row), from.get(row), to.get(row)) else {
            values.push(None);
            continue;
        };
        let difference = match unit(name)? {
            Unit::Us(length) => to.wrapping_sub(from) / length,
            Unit::Months(length) => months_between(from, to) / length,
        };
        match i32::try_from(difference) {
            Ok(difference) => values.push(Some(difference)),
            Err(_) => return exec_err!("TIMESTAMPDIFF of {difference} is more than an INT holds; use a greater unit"),
        }
    }
    args.ints(|row| values[row])
}

fn months_between(from: i64, to: i64) -> i64 {
    if from > to {
        return -months_between(to, from);
    }
    let (a, b) = (Moment::of_us(from), Moment::of_us(to));
    let months = (b.year - a.year) * 12 + b.month - a.month;
    months - i64::from((b.day, b.us) < (a.day, a.us))
}

fn floor(us: i64, unit: Unit) -> Option<i64> {
    match unit {
        // Weeks begin on Sunday, as Flink has it; the epoch was a Thursday.
        Unit::Us(length) if length == 7 * US_PER_DAY => {
            let shifted = us.checked_add(4 * US_PER_DAY)?;
            Some(shifted - shifted.rem_euclid(length) - 4 * US_PER_DAY)
        }
        Unit::Us(length) => Some(us - us.rem_euclid(length)),
        Unit::Months(length) => {
            let moment = Moment::of_us(us);
            let month = (moment.month - 1) / length * length + 1;
            days(moment.year, month, 1).checked_mul(US_PER_DAY)
        }
    }
}

fn to_unit(args: &Args<'_>, up: bool) -> Result<ArrayRef> {
    let times = microseconds(args, 0)?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let units = args.text(1);
    let mut values = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        let (Some(name), true) = (units.get(row), times.is_valid(row)) else {
            values.push(None);
            continue;
        };
        let (us, unit) = (times.value(row), unit(name)?);
        let floored = floor(us, unit);
        values.push(match floored {
            Some(floored) if up && floored < us => match unit {
                Unit::Us(length) => floored.checked_add(length),
                Unit::Months(length) => Moment::of_us(floored).plus_months(length).and_then(Moment::us),
            },
            floored => floored,
        });
    }
    let rounded = args.primitives::<TimestampMicrosecondType>(|row| values[row])?;
    in_type(rounded, args.gives)
}

/// 1 for Sunday to 7 for Saturday.
fn day_of_week(args: &Args<'_>) -> Result<ArrayRef> {
    let time = args.time(0);
    args.primitives::<Int64Type>(|row| Some((time.get(row)?.div_euclid(US_PER_DAY) + 4).rem_euclid(7) + 1))
}

/// Moves the text of a time from one zone to another; null for what is no time.
fn convert_tz(args: &Args<'_>) -> Result<ArrayRef> {
    let (text, from, to) = (args.text(0), args.text(1), args.text(2));
    let pattern = Pattern::parse(DEFAULT_PATTERN).map_err(DataFusionError::Execution)?;
    let mut values: Vec<Option<String>> = vec![None; args.rows];
    let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let mut row = 0;
    while row < args.rows {
        // Rows of the same zones are moved together.
        let zones = (from.get(row), to.get(row));
        let end = (row..args.rows).find(|next| (from.get(*next), to.get(*next)) != zones);
        let rows = row..end.unwrap_or(args.rows);
        if let (Some(from), Some(to)) = zones {
            let read = rows.clone().map(|row| pattern.read(text.get(row)?));
            let local: ArrayRef = Arc::new(arrow::array::TimestampMicrosecondArray::from_iter(read));
            let instants = cast(&local, &micros(Some(zone(from))))?;
            // Written as text, an instant is the local time of its zone, and the offset behind it.
            let written = cast(&cast(&instants, &micros(Some(zone(to))))?, &DataType::Utf8)?;
            let written = written.as_string::<i32>();
            for (index, row) in rows.clone().enumerate() {
                let local = written
                    .is_valid(index)
                    .then(|| written.value(index).get(..19))
                    .flatten();
                values[row] = local.map(|local| local.replace('T', " "));
            }
        }
        row = rows.end;
    }
    args.texts(|row| values[row].as_deref())
}

/// Java calls the zero offset by more names.
fn zone(name: &str) -> &str {
    match name {
        "Z" | "GMT" => "UTC",
        other => other,
    }
}
