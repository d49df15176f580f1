//! Relations made by `OVER`: the first rows of each partition (top-N, deduplication), and rows with what is computed of the
//! rows before them.

use super::identity::Identity;
use super::{AggregateCall, Names, Rel, RelColumn, RelId, RelKind, Rels, Role, WindowOf};
use crate::error::{Position, Result};
use arrow::datatypes::DataType;
use std::collections::BTreeSet;
use tidemill_engine::graph::{JoinInput, TimeDomain};

/// A column of the order in which rows are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrderColumn {
    pub(crate) column: usize,
    pub(crate) descending: bool,
    pub(crate) nulls_first: bool,
}

/// Which of equal rows is before the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ties {
    /// The one that came first.
    First,
    /// The one that came last.
    Last,
}

/// A column of ranked rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RankOutput {
    /// A column of the input.
    Column(usize),
    /// The row's number in its partition.
    Number,
}

/// The rows of each partition whose number lies in a range.
#[derive(Clone, Debug)]
pub(crate) struct Rank {
    pub(crate) input: RelId,
    pub(crate) partition: Vec<usize>,
    /// Empty: the order in which rows come.
    pub(crate) order: Vec<OrderColumn>,
    pub(crate) ties: Ties,
    /// The column of the window's end, where the partition names the sides of a window: its rows are ranked once, when
    /// it is complete.
    pub(crate) window_end: Option<usize>,
    /// The first and the last number, from 1. `None`: no filter has said so yet.
    pub(crate) range: Option<(u64, u64)>,
    pub(crate) outputs: Vec<RankOutput>,
    /// Where the function stands, for messages.
    pub(crate) at: Option<Position>,
}

impl Rank {
    /// Says whether a result may go again.
    pub(crate) fn changes(&self) -> bool {
        let by_arrival = self.order.is_empty() && self.ties == Ties::First;
        self.range.is_some() && self.window_end.is_none() && !by_arrival
    }

    /// Returns the columns of the input that are read.
    pub(crate) fn reads(&self) -> impl Iterator<Item = usize> + '_ {
        let order = self.order.iter().map(|order| order.column);
        self.partition.iter().copied().chain(order).chain(self.window_end)
    }
}

/// From where on a frame counts; it ends with the row itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// This many rows before the row; `None`: all.
    Rows(Option<u64>),
    /// Rows at most this much earlier, with those of the same time; `None`: all.
    Range(Option<i64>),
}

/// What is computed of a frame.
#[derive(Clone, Debug)]
pub(crate) enum OverCall {
    Aggregate(AggregateCall),
    /// The row's number in its partition, in the order of time.
    RowNumber,
    /// The value of the row so many before this one, or else the default.
    Lag {
        value: usize,
        offset: u64,
        default: Option<usize>,
    },
    FirstValue(usize),
    LastValue(usize),
}

impl OverCall {
    /// Returns the columns of the input that are read.
    pub(crate) fn reads(&self) -> Vec<usize> {
        match self {
            Self::Aggregate(call) => call.reads().collect(),
            Self::RowNumber => Vec::new(),
            Self::Lag { value, default, .. } => std::iter::once(*value).chain(*default).collect(),
            Self::FirstValue(value) | Self::LastValue(value) => vec![*value],
        }
    }

    /// Says what is computed; `identity` writes a column of the input.
    fn word<'a>(&self, identity: &dyn Fn(usize) -> &'a str) -> String {
        match self {
            Self::Aggregate(call) => call.word(identity),
            Self::RowNumber => "row_number".to_owned(),
            Self::Lag { value, offset, default } => {
                format!("lag {} {offset} {}", identity(*value), default.map_or("", identity))
            }
            Self::FirstValue(value) => format!("first_value {}", identity(*value)),
            Self::LastValue(value) => format!("last_value {}", identity(*value)),
        }
    }

    /// Returns the call over columns that are now in other places.
    pub(crate) fn moved(&self, place: &dyn Fn(usize) -> Result<usize>) -> Result<Self> {
        Ok(match self {
            Self::Aggregate(call) => Self::Aggregate(call.moved(place)?),
            Self::RowNumber => Self::RowNumber,
            Self::Lag { value, offset, default } => Self::Lag {
                value: place(*value)?,
                offset: *offset,
                default: default.map(place).transpose()?,
            },
            Self::FirstValue(value) => Self::FirstValue(place(*value)?),
            Self::LastValue(value) => Self::LastValue(place(*value)?),
        })
    }
}

/// The rows of the input with what is computed of the rows before them, in the order of event time.
#[derive(Clone, Debug)]
pub(crate) struct Over {
    pub(crate) input: RelId,
    pub(crate) partition: Vec<usize>,
    pub(crate) time: usize,
    pub(crate) domain: TimeDomain,
    pub(crate) frame: Frame,
    /// The columns of the input that go on, in front of the results.
    pub(crate) passed: Vec<usize>,
    pub(crate) calls: Vec<OverCall>,
    /// Where it stands, for messages.
    pub(crate) at: Option<Position>,
}

impl Over {
    /// Returns the columns that are read whatever becomes of the results.
    pub(crate) fn reads(&self) -> impl Iterator<Item = usize> + '_ {
        self.partition.iter().copied().chain([self.time])
    }
}

impl Rels {
    /// Adds the ranked rows of an input. The columns are its first `width`, then the number.
    pub(crate) fn rank(&mut self, rank: Rank) -> RelId {
        let source = self.get(rank.input);
        let column = |index: usize| source.columns[index].identity.text();
        let mut words = vec!["rank".to_owned(), source.rows.text().to_owned()];
        words.extend(rank.partition.iter().map(|key| format!("key {}", column(*key))));
        for order in &rank.order {
            let direction = if order.descending { "desc" } else { "asc" };
            let nulls = if order.nulls_first { "first" } else { "last" };
            words.push(format!("order {} {direction} nulls {nulls}", column(order.column)));
        }
        words.push(format!("ties {:?}", rank.ties));
        if let Some(end) = rank.window_end {
            words.push(format!("window {}", column(end)));
        }
        words.extend(rank.range.map(|(from, to)| format!("from {from} to {to}")));
        let ranked = Identity::of(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let rows = if rank.range.is_some() {
            ranked.clone()
        } else {
            source.rows.clone()
        };
        let windows_of = |column: &RelColumn| column.role.which_window();
        let windows = rank.window_end.and_then(|end| windows_of(&source.columns[end]));
        let mut names = Names::default();
        let mut columns = Vec::with_capacity(rank.outputs.len());
        for output in &rank.outputs {
            columns.push(match output {
                RankOutput::Column(index) => {
                    let mut column = source.columns[*index].clone();
                    let is_window = windows.is_some() && windows == windows_of(&column);
                    if rank.window_end.is_some() && rank.range.is_some() && !is_window {
                        // The row comes when its window is complete, behind its own time.
                        column.role = Role::Plain;
                    }
                    column.name = names.unique(&column.name);
                    column
                }
                RankOutput::Number => RelColumn {
                    name: names.unique("row_number"),
                    data_type: DataType::Int64,
                    identity: Identity::of(&["row number", ranked.text()]),
                    role: if rank.range.is_some() { Role::Plain } else { Role::Rank },
                },
            });
        }
        let key = format!("rank {} {} {:?}", rank.input.0, ranked.text(), rank.outputs);
        let changes = rank.changes();
        self.add(
            key,
            Rel {
                kind: RelKind::Rank(Box::new(rank)),
                columns,
                rows,
                changes,
            },
        )
    }

    /// Adds rows with what is computed of the rows before them.
    ///
    /// # Errors
    /// When an aggregate does not take its argument.
    pub(crate) fn over(&mut self, over: Over) -> Result<RelId> {
        let source = self.get(over.input);
        let column = |index: usize| &source.columns[index];
        let identity = |index: usize| column(index).identity.text();
        let mut words = vec!["over".to_owned(), source.rows.text().to_owned()];
        words.push(format!("time {} {:?}", identity(over.time), over.frame));
        if over.domain == TimeDomain::ProcessingTime {
            words.push("processing time".to_owned());
        }
        words.extend(over.partition.iter().map(|key| format!("key {}", identity(*key))));
        let place = words.clone();
        let mut names = Names::default();
        let mut columns = Vec::with_capacity(over.passed.len() + over.calls.len());
        for index in &over.passed {
            let mut passed = column(*index).clone();
            passed.name = names.unique(&passed.name);
            if over.domain == TimeDomain::EventTime && !is_in_order_of(&passed, column(over.time)) {
                // The row may come long after the watermark has passed its other times.
                passed.role = match passed.role {
                    Role::Rank => Role::Rank,
                    _ => Role::Plain,
                };
            }
            columns.push(passed);
        }
        for call in &over.calls {
            let (name, data_type) = match call {
                OverCall::Aggregate(call) => {
                    let function = call.function(&|index| &column(index).data_type)?;
                    (call.kind.name(), function.return_type())
                }
                OverCall::RowNumber => ("row_number", DataType::Int64),
                OverCall::Lag { value, .. } => ("lag", column(*value).data_type.clone()),
                OverCall::FirstValue(value) => ("first_value", column(*value).data_type.clone()),
                OverCall::LastValue(value) => ("last_value", column(*value).data_type.clone()),
            };
            let word = call.word(&identity);
            words.push(word.clone());
            let mut of: Vec<&str> = place.iter().map(String::as_str).collect();
            of.push(&word);
            columns.push(RelColumn {
                name: names.unique(name),
                data_type,
                identity: Identity::of(&of),
                role: if over.is_row_number() { Role::Rank } else { Role::Plain },
            });
        }
        // The rows are those of the input, only in another order.
        let rows = source.rows.clone();
        let key = Identity::of(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let key = format!("over {} {} {:?}", over.input.0, key.text(), over.passed);
        Ok(self.add(
            key,
            Rel {
                kind: RelKind::Over(Box::new(over)),
                columns,
                rows,
                changes: false,
            },
        ))
    }
}

/// Says whether a column is a time that is not before the `order` in which rows come: that time itself, or a window of it.
fn is_in_order_of(column: &RelColumn, order: &RelColumn) -> bool {
    match column.role.which_window() {
        Some(window) => order.role.which_window() == Some(window) || window.2 == WindowOf::of(&order.identity),
        None => column.identity == order.identity,
    }
}

impl Over {
    /// Says whether rows are only numbered: a filter may turn that into a [`Rank`].
    pub(crate) fn is_row_number(&self) -> bool {
        matches!(self.calls.as_slice(), [OverCall::RowNumber])
    }
}

/// Returns the name under which the state of a join, a top-N or an `OVER` is stored; unlike the identity of its rows it says
/// what the operator computes and which columns it keeps.
pub(crate) fn operator_identity(rel: &Rel, rels: &[Rel]) -> Identity {
    let mut words: Vec<String> = vec![rel.rows.text().to_owned()];
    match &rel.kind {
        RelKind::Over(over) => {
            let source = &rels[over.input.0];
            let column = |index: usize| source.columns[index].identity.text();
            words.push(format!("time {} {:?}", column(over.time), over.frame));
            words.extend(over.partition.iter().map(|key| format!("key {}", column(*key))));
            // Their state is stored under names that say nothing of the arguments.
            words.extend(over.calls.iter().map(|call| call.word(&column)));
            let read = over.calls.iter().flat_map(OverCall::reads);
            words.push(kept(
                source,
                over.passed.iter().copied().chain(over.reads()).chain(read),
            ));
        }
        RelKind::Rank(rank) => {
            let passed = rank.outputs.iter().filter_map(|output| match output {
                RankOutput::Column(column) => Some(*column),
                RankOutput::Number => None,
            });
            words.push(kept(&rels[rank.input.0], passed.chain(rank.reads())));
        }
        RelKind::Join { left, right, spec } => {
            for (input, id) in [(JoinInput::Left, left), (JoinInput::Right, right)] {
                let outputs = spec.outputs.iter().filter(|(of, _)| *of == input);
                let passed = outputs.map(|(_, column)| *column);
                words.push(kept(&rels[id.0], passed.chain(spec.read_of(input))));
            }
        }
        _ => {}
    }
    Identity::of(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Says which columns rows are kept with, whatever their order: state is stored under their names.
fn kept(source: &Rel, columns: impl Iterator<Item = usize>) -> String {
    let column = |index: usize| &source.columns[index];
    let columns: BTreeSet<_> = columns
        .map(|index| (&column(index).name, &column(index).identity))
        .collect();
    let words = columns
        .into_iter()
        .flat_map(|(name, identity)| [name.as_str(), identity.text()]);
    format!("keeps {}", Identity::of(&words.collect::<Vec<_>>()).text())
}
