//! Windows as nodes: aggregation by window, rows with their windows, late rows.

use super::{CustomOperator, Distribution, JobGraph, NodeKind, StreamId, check_timestamp, field_at, weight_field};
use crate::aggregate::AggregateCall;
use crate::error::{Error, Result};
use crate::operators::late_rows::LateRowsOperator;
use crate::operators::window_rows::WindowRowsOperator;
use arrow::datatypes::{DataType, Field, Schema};
use std::sync::Arc;

/// How rows get their window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowAssigner {
    /// Tumbling windows of `size_ms`, aligned to the epoch plus `offset_ms`, over a timestamp column.
    Tumble {
        /// The timestamp column.
        time: usize,
        /// The windows' length in milliseconds, above 0.
        size_ms: i64,
        /// The windows' shift against the epoch in milliseconds.
        offset_ms: i64,
    },
    /// Windows of `size_ms` that begin every `slide_ms`, aligned to the epoch plus `offset_ms`.
    Hop {
        /// The timestamp column.
        time: usize,
        /// The windows' length in milliseconds, at least the slide; need not be a multiple of it.
        size_ms: i64,
        /// How far apart windows begin, in milliseconds, above 0.
        slide_ms: i64,
        /// The windows' shift against the epoch in milliseconds.
        offset_ms: i64,
    },
    /// Within every `size_ms` windows with the same start that grow by `step_ms`, aligned as the others.
    Cumulate {
        /// The timestamp column.
        time: usize,
        /// The length of the longest window in milliseconds, a multiple of the step.
        size_ms: i64,
        /// How much longer each window is than the one before, in milliseconds, above 0.
        step_ms: i64,
        /// The windows' shift against the epoch in milliseconds.
        offset_ms: i64,
    },
    /// The rows of a key without a pause of more than `gap_ms`; the window ends that long after the last one.
    Session {
        /// The timestamp column.
        time: usize,
        /// The pause that ends a session, in milliseconds, above 0.
        gap_ms: i64,
    },
    /// The rows carry their window, in two timestamp columns.
    Attached {
        /// The column of the window's start.
        start: usize,
        /// The column of the window's end (exclusive).
        end: usize,
    },
}

/// The clock that windows are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeDomain {
    /// Rows carry their time, and a window ends when the watermark passes its end.
    #[default]
    EventTime,
    /// A row's time is the wall time of its tick, and a window ends with the first tick whose wall time reaches its end. No
    /// row is late. Windows that are open when bounded input ends do not fire, as in Flink.
    ProcessingTime,
}

/// When windows are told besides when they end.
///
/// What is told of a key and window is taken back when something else is told of it; what did not change is not told again.
/// Delays are in wall time: what changed is told with the first tick that has reached the next multiple of the delay, and
/// without a delay at the close of each tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Updates {
    /// The delay of windows that have not ended, in milliseconds, at least 0; `None`: they are not told.
    pub early_ms: Option<i64>,
    /// The delay of windows that have ended, in milliseconds, at least 0.
    pub late_ms: i64,
    /// For how long behind its end a window takes in rows, in milliseconds of event time, at least 0.
    pub allowed_lateness_ms: i64,
}

/// An aggregation per key and window that emits each window once, when time passes its end, unless it is told to do more
/// ([`Updates`]).
///
/// Output columns: the keys, `window_start`, `window_end`, then one column per aggregate. Rows of a window that has
/// fired are dropped and counted as late; where a row is in several windows, it is late when all of them have fired.
#[derive(Clone, Debug)]
pub struct WindowAggregate {
    /// The input columns that make the key; may be empty.
    pub keys: Vec<usize>,
    /// How rows get their window.
    pub window: WindowAssigner,
    /// The aggregates.
    pub aggregates: Vec<AggregateCall>,
    /// The names of the output's window columns (start, end).
    pub window_names: (String, String),
    /// The clock that ends windows.
    pub time: TimeDomain,
    /// Whether windows are told more than once; the stream is then a changelog. `None`: once, when they end.
    pub updates: Option<Updates>,
}

impl JobGraph {
    /// Adds an aggregation per key and window.
    ///
    /// # Errors
    /// When a column does not exist or has the wrong type, or the window's size is not above 0.
    pub fn window_aggregate(
        &mut self,
        uid: impl Into<String>,
        input: StreamId,
        spec: WindowAggregate,
    ) -> Result<StreamId> {
        self.check_append_only(input, "an aggregation per window")?;
        let schema = Arc::clone(self.schema(input));
        let window_type = check_window(&schema, &spec.window)?;
        let mut fields = Vec::new();
        for &key in &spec.keys {
            let field = field_at(&schema, key)?;
            if !crate::key::supports_key_type(field.data_type()) {
                let found = field.data_type();
                return Err(Error::Graph(format!(
                    "column {} of {found} cannot be a grouping key",
                    field.name()
                )));
            }
            fields.push(field.clone());
        }
        fields.push(Field::new(&spec.window_names.0, window_type.clone(), false));
        fields.push(Field::new(&spec.window_names.1, window_type, false));
        for (index, call) in spec.aggregates.iter().enumerate() {
            // State is stored under the aggregates' names.
            if spec.aggregates[..index].iter().any(|other| other.name == call.name) {
                return Err(Error::Graph(format!(
                    "two aggregates are named {}; give each its own name",
                    call.name
                )));
            }
            for &argument in call.arguments.iter().chain(&call.filter) {
                field_at(&schema, argument)?;
            }
            fields.push(Field::new(&call.name, call.function.return_type(), true));
        }
        if let Some(updates) = spec.updates {
            check_updates(updates)?;
            fields.push(weight_field());
        }
        let watermark = self.watermark(input).clone();
        let output = Arc::new(Schema::new(fields));
        self.push(
            uid.into(),
            NodeKind::WindowAggregate(spec),
            vec![input],
            output,
            watermark,
        )
    }

    /// Gives rows all their windows: a row of overlapping windows goes on once per window, with `names` (start, end) behind
    /// its columns.
    ///
    /// # Errors
    /// When the windows cannot be, or are not [`WindowAssigner::Hop`] or [`WindowAssigner::Cumulate`].
    pub fn window_rows(
        &mut self,
        uid: impl Into<String>,
        input: StreamId,
        window: WindowAssigner,
        names: (&str, &str),
    ) -> Result<StreamId> {
        let (WindowAssigner::Hop { time, .. } | WindowAssigner::Cumulate { time, .. }) = window else {
            return Err(Error::Graph("only windows that overlap are given to rows".into()));
        };
        self.check_append_only(input, "a window")?;
        let schema = Arc::clone(self.schema(input));
        let window_type = check_window(&schema, &window)?;
        let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        for name in [names.0, names.1] {
            fields.push(Field::new(name, window_type.clone(), false));
        }
        let output = Arc::new(Schema::new(fields));
        let of_worker = Arc::clone(&output);
        let custom = CustomOperator {
            name: "windows of rows".into(),
            distributions: vec![Distribution::Local],
            schema: output,
            factory: Arc::new(move |_| {
                let operator = WindowRowsOperator::new(time, &window, Arc::clone(&of_worker))?;
                Ok(Box::new(operator))
            }),
            watermark_delay_ms: 0,
        };
        self.operator(uid, vec![input], custom)
    }

    /// Selects the late rows of a stream: those whose `time` is at or before the stream's watermark at the close of the tick
    /// before.
    ///
    /// # Errors
    /// When `time` is no timestamp column, or rows are taken back.
    pub fn late_rows(&mut self, uid: impl Into<String>, input: StreamId, time: usize) -> Result<StreamId> {
        self.check_append_only(input, "a selection of late rows")?;
        check_timestamp(self.schema(input), time, "the event time of late rows")?;
        let custom = CustomOperator {
            name: "late rows".into(),
            distributions: vec![Distribution::Local],
            schema: Arc::clone(self.schema(input)),
            factory: Arc::new(move |_| Ok(Box::new(LateRowsOperator { time }))),
            watermark_delay_ms: 0,
        };
        self.operator(uid, vec![input], custom)
    }
}

/// Checks windows; returns the type of their bounds.
pub(super) fn check_window(schema: &Schema, window: &WindowAssigner) -> Result<DataType> {
    Ok(match window {
        WindowAssigner::Tumble { time, size_ms, .. } => {
            if *size_ms <= 0 {
                return Err(Error::Graph(format!(
                    "a window of {size_ms} ms cannot be; make its size at least 1 ms"
                )));
            }
            check_timestamp(schema, *time, "the window's time")?
        }
        WindowAssigner::Hop {
            time,
            size_ms,
            slide_ms,
            ..
        } => {
            if *slide_ms <= 0 || size_ms < slide_ms {
                return Err(Error::Graph(format!(
                    "hopping windows of {size_ms} ms every {slide_ms} ms cannot be; the slide is at least 1 ms and \
                         the size at least the slide"
                )));
            }
            check_timestamp(schema, *time, "the window's time")?
        }
        WindowAssigner::Cumulate {
            time, size_ms, step_ms, ..
        } => {
            if *step_ms <= 0 || *size_ms <= 0 || size_ms % step_ms != 0 {
                return Err(Error::Graph(format!(
                    "windows that grow by {step_ms} ms to {size_ms} ms cannot be; the step is at least 1 ms and the \
                         size a multiple of it"
                )));
            }
            check_timestamp(schema, *time, "the window's time")?
        }
        WindowAssigner::Session { time, gap_ms } => {
            if *gap_ms <= 0 {
                return Err(Error::Graph(format!(
                    "sessions with a gap of {gap_ms} ms cannot be; make it at least 1 ms"
                )));
            }
            check_timestamp(schema, *time, "the window's time")?
        }
        WindowAssigner::Attached { start, end } => {
            check_timestamp(schema, *start, "the window's start")?;
            check_timestamp(schema, *end, "the window's end")?
        }
    })
}

/// Checks when windows are told.
fn check_updates(updates: Updates) -> Result<()> {
    let Updates {
        early_ms,
        late_ms,
        allowed_lateness_ms,
    } = updates;
    if early_ms.is_some_and(|early_ms| early_ms < 0) || late_ms < 0 || allowed_lateness_ms < 0 {
        return Err(Error::Graph(
            "the delays of windows and their allowed lateness are at least 0 ms".into(),
        ));
    }
    Ok(())
}
