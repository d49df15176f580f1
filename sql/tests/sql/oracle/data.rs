//! Two tables of rows out of order, and what windows make of them.
//!
//! | table | columns |
//! |---|---|
//! | `e`, events | `id` (unique), `k` (few values), `g` (text or null), `v` (or null), `f` (quarters), `ts` |
//! | `o`, others | `id` (unique), `k` (few values, or null), `w`, `ts` |

use super::draw::Draw;
use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMillisecondType};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How far rows may be out of order.
pub(super) const DELAY_MS: i64 = 2_000;

/// How both tables are declared.
pub(super) const TABLES: &str = "CREATE TABLE e (id BIGINT, k BIGINT, g STRING, v INT, f DOUBLE, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '2' SECOND) WITH ('connector' = 'memory');
CREATE TABLE o (id BIGINT, k BIGINT, w INT, ts TIMESTAMP(3),
  WATERMARK FOR ts AS ts - INTERVAL '2' SECOND) WITH ('connector' = 'memory');
";

/// The rows of both tables, in the order in which they arrive.
pub(super) struct Data {
    pub(super) e: RecordBatch,
    pub(super) o: RecordBatch,
}

/// Windows of the table `e`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Windows {
    Tumble {
        size_ms: i64,
    },
    Hop {
        slide_ms: i64,
        size_ms: i64,
    },
    Cumulate {
        step_ms: i64,
        size_ms: i64,
    },
    /// Of the column `k`.
    Session {
        gap_ms: i64,
    },
}

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, None)
}

/// Times in the order of arrival, out of order by less than the delay; sometimes there is a pause.
fn times(draw: &mut Draw, count: usize) -> TimestampMillisecondArray {
    let mut now = 1_767_225_600_000 + draw.within(0, 10_000);
    let step = draw.within(1, 400);
    let mut next = || {
        now += if draw.once_in(40) {
            draw.within(0, 20_000)
        } else {
            draw.within(0, step)
        };
        now - draw.within(0, DELAY_MS - 1)
    };
    TimestampMillisecondArray::from_iter_values((0..count).map(|_| next()))
}

impl Data {
    pub(super) fn draw(draw: &mut Draw) -> Self {
        let count = 1 + draw.below(400) as usize;
        let keys = draw.within(1, 12);
        let ts: ArrayRef = Arc::new(times(draw, count));
        let texts = ["a", "b", "B", "abc", ""];
        let mut optional = |of: u64, make: &mut dyn FnMut(&mut Draw) -> i64| -> Vec<Option<i64>> {
            (0..count).map(|_| (!draw.once_in(of)).then(|| make(draw))).collect()
        };
        let k = optional(u64::MAX, &mut |draw| draw.within(0, keys));
        let g = optional(9, &mut |draw| draw.within(0, 4));
        let v = optional(7, &mut |draw| draw.within(-20, 100));
        let f = optional(u64::MAX, &mut |draw| draw.within(-40, 400));
        let text = |g: Option<i64>| g.map(|g| texts[g as usize]);
        let e = RecordBatch::try_new(
            Arc::new(Schema::new(vec![
                field("id", DataType::Int64),
                field("k", DataType::Int64),
                field("g", DataType::Utf8),
                field("v", DataType::Int32),
                field("f", DataType::Float64),
                field("ts", timestamp()),
            ])),
            vec![
                Arc::new(Int64Array::from_iter_values(0..count as i64)),
                Arc::new(Int64Array::from(k)),
                Arc::new(g.into_iter().map(text).collect::<StringArray>()),
                Arc::new(v.into_iter().map(|v| v.map(|v| v as i32)).collect::<Int32Array>()),
                Arc::new(
                    f.into_iter()
                        .map(|f| f.map(|f| f as f64 / 4.0))
                        .collect::<Float64Array>(),
                ),
                ts,
            ],
        );
        let count = 1 + draw.below(120) as usize;
        let ts: ArrayRef = Arc::new(times(draw, count));
        let k: Vec<Option<i64>> = (0..count)
            .map(|_| (!draw.once_in(15)).then(|| draw.within(0, keys)))
            .collect();
        let w: Vec<i32> = (0..count).map(|_| draw.within(-20, 100) as i32).collect();
        let o = RecordBatch::try_new(
            Arc::new(Schema::new(vec![
                field("id", DataType::Int64),
                field("k", DataType::Int64),
                field("w", DataType::Int32),
                field("ts", timestamp()),
            ])),
            vec![
                Arc::new(Int64Array::from_iter_values(0..count as i64)),
                Arc::new(Int64Array::from(k)),
                Arc::new(Int32Array::from(w)),
                ts,
            ],
        );
        Self {
            e: e.unwrap(),
            o: o.unwrap(),
        }
    }

    /// Returns the rows of `e` with each of their windows: `window_start`, `window_end` and `window_time` behind the columns.
    pub(super) fn with_windows(&self, windows: Windows) -> RecordBatch {
        let times = self.e["ts"].as_primitive::<TimestampMillisecondType>().values();
        let down = |time: i64, unit: i64| time - time.rem_euclid(unit);
        let mut found: Vec<(i64, i64, i64)> = Vec::new();
        for (row, &time) in times.iter().enumerate() {
            let mut add = |start: i64, end: i64| found.push((row as i64, start, end));
            match windows {
                Windows::Tumble { size_ms } => add(down(time, size_ms), down(time, size_ms) + size_ms),
                Windows::Hop { slide_ms, size_ms } => {
                    let mut start = down(time, slide_ms);
                    while start + size_ms > time {
                        add(start, start + size_ms);
                        start -= slide_ms;
                    }
                }
                Windows::Cumulate { step_ms, size_ms } => {
                    let start = down(time, size_ms);
                    let mut end = start + step_ms;
                    while end <= start + size_ms {
                        if end > time {
                            add(start, end);
                        }
                        end += step_ms;
                    }
                }
                Windows::Session { .. } => {}
            }
        }
        if let Windows::Session { gap_ms } = windows {
            let keys = self.e["k"].as_primitive::<arrow::datatypes::Int64Type>();
            let mut rows: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
            for (row, &time) in times.iter().enumerate() {
                rows.entry(keys.value(row)).or_default().push((time, row as i64));
            }
            for mut rows in rows.into_values() {
                rows.sort_unstable();
                for session in rows.chunk_by(|(one, _), (next, _)| next - one <= gap_ms) {
                    let (start, end) = (session[0].0, session[session.len() - 1].0 + gap_ms);
                    found.extend(session.iter().map(|(_, row)| (*row, start, end)));
                }
            }
        }
        let rows = Int64Array::from_iter_values(found.iter().map(|found| found.0));
        let taken = arrow::compute::take_record_batch(&self.e, &rows).unwrap();
        let mut fields: Vec<_> = taken.schema().fields().iter().cloned().collect();
        let mut columns = taken.columns().to_vec();
        let sides: [(&str, fn(&(i64, i64, i64)) -> i64); 3] = [
            ("window_start", |found| found.1),
            ("window_end", |found| found.2),
            ("window_time", |found| found.2 - 1),
        ];
        for (name, side) in sides {
            fields.push(Arc::new(field(name, timestamp())));
            columns.push(Arc::new(TimestampMillisecondArray::from_iter_values(
                found.iter().map(side),
            )));
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }
}

impl Windows {
    pub(super) fn draw(draw: &mut Draw, sessions: bool) -> Self {
        let seconds = |n: i64| n * 1_000;
        let unit = seconds(draw.within(1, 6));
        match draw.below(if sessions { 4 } else { 3 }) {
            0 => Self::Tumble { size_ms: unit },
            1 => Self::Hop {
                slide_ms: unit,
                size_ms: unit + seconds(draw.within(0, 9)),
            },
            2 => Self::Cumulate {
                step_ms: unit,
                size_ms: unit * draw.within(1, 6),
            },
            _ => Self::Session { gap_ms: unit },
        }
    }

    /// Returns the window function over a table or view of the events.
    pub(super) fn sql(self, table: &str) -> String {
        let seconds = |ms: i64| format!("INTERVAL '{}' SECOND", ms / 1_000);
        let (name, partition, arguments) = match self {
            Self::Tumble { size_ms } => ("TUMBLE", "", seconds(size_ms)),
            Self::Hop { slide_ms, size_ms } => ("HOP", "", format!("{}, {}", seconds(slide_ms), seconds(size_ms))),
            Self::Cumulate { step_ms, size_ms } => {
                ("CUMULATE", "", format!("{}, {}", seconds(step_ms), seconds(size_ms)))
            }
            Self::Session { gap_ms } => ("SESSION", " PARTITION BY k", seconds(gap_ms)),
        };
        format!("TABLE({name}(TABLE {table}{partition}, DESCRIPTOR(ts), {arguments}))")
    }
}
