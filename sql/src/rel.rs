//! Our own plan: streams of rows with what the engine must know about each column.
//!
//! ```text
//!  DataFusion's LogicalPlan ── lower ──▶ Rels ── fuse, prune ── emit ──▶ engine JobGraph
//! ```
//! DataFusion's plan says what a query means, in types and names that change with its versions. A [`Rel`] keeps what
//! lasts: its columns with their types, which of them are time attributes, and *identities*, hashes of how the rows and
//! each column came to be. Identities name the state of operators, so they are made of our own words only, before
//! anything is optimised, and do not change with columns that are added or dropped elsewhere.
//!
//! Equal relations are one node: two statements over one view share it.
//!
//! File map: `identity` writes and hashes expressions, `prepare` turns a query's expression into one over a [`Rel`],
//! `lower` a query, `group` adds aggregations without a window, `join` says what joins do, `lookup` joins with a table that is
//! looked up, `rank` are the relations of `OVER`, `changes` says what cannot read a result that changes, `emit` makes the job
//! graph (with `prune`, which drops what nobody `needs`, `flatten` and `fuse`).

pub(crate) mod changes;
pub(crate) mod emit;
mod flatten;
mod fuse;
mod group;
pub(crate) mod identity;
pub(crate) mod join;
pub(crate) mod lookup;
pub(crate) mod lower;
pub(crate) mod needs;
pub(crate) mod prepare;
mod prune;
pub(crate) mod rank;

use crate::error::{Result, SqlError};
use crate::functions::aggregates::AggregateKind;
use crate::functions::ambient::draws_numbers;
use crate::functions::elements::row_elements;
use crate::functions::window::{RowWindows, WindowSide, row_windows};
use crate::window_function::WindowSpec;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::{Column, DFSchema};
use datafusion_expr::Expr;
use identity::Identity;
use join::JoinSpec;
use lookup::Lookup;
use prepare::Prepared;
use rank::{Over, Rank};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tidemill_engine::aggregate::AggregateFunction;
use tidemill_engine::graph::{TimeDomain, Updates};

/// A relation's place in [`Rels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RelId(pub(crate) usize);

/// What a window is of: the time column that it was found by, or the aggregation that it comes out of. It follows what
/// becomes of the time column's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WindowOf(u128);

impl WindowOf {
    /// Returns what the windows of a time column, or of the rows of an aggregation, are of.
    pub(crate) fn of(identity: &Identity) -> Self {
        Self(u128::from_str_radix(identity.text(), 16).unwrap_or_default())
    }

    /// Returns the identity's text.
    pub(crate) fn text(self) -> String {
        format!("{:032x}", self.0)
    }
}

/// What a column means to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Nothing.
    Plain,
    /// The event time that watermarks speak of.
    EventTime,
    /// A side of the row's window; its last millisecond is an event time, too.
    Window(WindowSide, WindowSpec, WindowOf),
    /// The row's number among the rows of its partition, which a filter may bound.
    Rank,
    /// The wall time of the row's tick.
    ProcessingTime,
    /// A side of the row's window in processing time; its last millisecond is a processing time, too.
    ProcessingWindow(WindowSide, WindowSpec, WindowOf),
}

impl Role {
    /// Says whether the column is an event time.
    pub(crate) fn is_event_time(self) -> bool {
        matches!(self, Self::EventTime | Self::Window(WindowSide::Time, ..))
    }

    /// Returns the clock of the column, if windows can be made over it.
    pub(crate) fn time(self) -> Option<TimeDomain> {
        match self {
            _ if self.is_event_time() => Some(TimeDomain::EventTime),
            Self::ProcessingTime | Self::ProcessingWindow(WindowSide::Time, ..) => Some(TimeDomain::ProcessingTime),
            _ => None,
        }
    }

    /// Makes the role of a side of a window.
    pub(crate) fn window(time: TimeDomain, side: WindowSide, spec: WindowSpec, of: WindowOf) -> Self {
        match time {
            TimeDomain::EventTime => Self::Window(side, spec, of),
            TimeDomain::ProcessingTime => Self::ProcessingWindow(side, spec, of),
        }
    }

    /// Returns the clock, the side and the windows of a column that is a side of a window.
    pub(crate) fn as_window(self) -> Option<(TimeDomain, WindowSide, WindowSpec)> {
        match self {
            Self::Window(side, spec, _) => Some((TimeDomain::EventTime, side, spec)),
            Self::ProcessingWindow(side, spec, _) => Some((TimeDomain::ProcessingTime, side, spec)),
            _ => None,
        }
    }

    /// Returns which window a column is a side of: two columns are of one window only if this is the same.
    pub(crate) fn which_window(self) -> Option<(TimeDomain, WindowSpec, WindowOf)> {
        match self {
            Self::Window(_, spec, of) => Some((TimeDomain::EventTime, spec, of)),
            Self::ProcessingWindow(_, spec, of) => Some((TimeDomain::ProcessingTime, spec, of)),
            _ => None,
        }
    }

    /// Returns what a column is that holds these columns of several relations. A window is then of all of theirs.
    fn united(roles: &[Self]) -> Self {
        let Some(first) = roles.first() else { return Self::Plain };
        let same = |other: &Self| match first.as_window() {
            Some(window) => other.as_window() == Some(window),
            None => other == first,
        };
        match (roles.iter().all(same), first.as_window()) {
            (false, _) => Self::Plain,
            (true, None) => *first,
            (true, Some((time, side, spec))) => {
                let of = roles.iter().filter_map(|role| role.which_window());
                let of: Vec<String> = of.map(|(.., of)| of.text()).collect();
                let words: Vec<&str> = std::iter::once("union").chain(of.iter().map(String::as_str)).collect();
                Self::window(time, side, spec, WindowOf::of(&Identity::of(&words)))
            }
        }
    }
}

/// A column of a relation.
#[derive(Clone, Debug)]
pub(crate) struct RelColumn {
    /// Its name, unique in the relation.
    pub(crate) name: String,
    pub(crate) data_type: DataType,
    pub(crate) identity: Identity,
    pub(crate) role: Role,
}

/// How the rows of a window aggregation get their windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Windowing {
    /// By a time column.
    Time { time: usize, spec: WindowSpec },
    /// They carry them.
    Attached { start: usize, end: usize },
}

/// A call of an aggregate over columns of the input.
#[derive(Clone, Debug)]
pub(crate) struct AggregateCall {
    pub(crate) kind: AggregateKind,
    pub(crate) distinct: bool,
    /// The columns that it takes; none for `COUNT(*)`.
    pub(crate) arguments: Vec<usize>,
    pub(crate) filter: Option<usize>,
}

impl AggregateCall {
    /// Returns the engine's function; `data_type` is that of a column.
    pub(crate) fn function<'a>(&self, data_type: &dyn Fn(usize) -> &'a DataType) -> Result<Arc<dyn AggregateFunction>> {
        let types: Vec<DataType> = self.arguments.iter().map(|index| data_type(*index).clone()).collect();
        self.kind.function(&types, self.distinct).map_err(SqlError::new)
    }

    /// Returns the columns that are read.
    pub(crate) fn reads(&self) -> impl Iterator<Item = usize> {
        self.arguments.iter().copied().chain(self.filter)
    }

    /// Returns the call over columns that are now in other places.
    pub(crate) fn moved(&self, place: &dyn Fn(usize) -> Result<usize>) -> Result<Self> {
        let arguments = self.arguments.iter().map(|index| place(*index));
        Ok(Self {
            arguments: arguments.collect::<Result<_>>()?,
            filter: self.filter.map(place).transpose()?,
            ..self.clone()
        })
    }

    /// Says what is computed; `identity` writes a column of the input.
    pub(crate) fn word<'a>(&self, identity: &dyn Fn(usize) -> &'a str) -> String {
        let distinct = if self.distinct { "distinct " } else { "" };
        let arguments: Vec<&str> = match self.arguments.as_slice() {
            [] => vec!["*"],
            arguments => arguments.iter().map(|index| identity(*index)).collect(),
        };
        let filter = self.filter.map_or("", identity);
        format!("{} {distinct}{} filter {filter}", self.kind.word(), arguments.join(" "))
    }

    /// Returns the column of the results over rows of `source`, and adds what the call is to `words`.
    fn column(&self, source: &Rel, names: &mut Names, words: &mut Vec<String>) -> Result<RelColumn> {
        let function = self.function(&|index| &source.columns[index].data_type)?;
        let shown: Vec<&str> = match self.arguments.as_slice() {
            [] => vec!["*"],
            arguments => arguments
                .iter()
                .map(|index| source.columns[*index].name.as_str())
                .collect(),
        };
        let distinct = if self.distinct { "distinct " } else { "" };
        let name = names.unique(&format!("{}({distinct}{})", self.kind.name(), shown.join(", ")));
        let word = self.word(&|index| source.columns[index].identity.text());
        let identity = Identity::of(&[&word]);
        words.push(word);
        Ok(RelColumn {
            name,
            data_type: function.return_type(),
            identity,
            role: Role::Plain,
        })
    }
}

/// What a relation does.
#[derive(Clone, Debug)]
pub(crate) enum RelKind {
    /// A table of the catalog, by its place there.
    Table(usize),
    /// A projection with an optional filter, over the names of the input's columns.
    Calc {
        input: RelId,
        predicate: Option<Prepared>,
        outputs: Vec<Expr>,
    },
    /// Several inputs of the same column types.
    Union { inputs: Vec<RelId> },
    /// A join. Its columns: those of its spec's outputs.
    Join {
        left: RelId,
        right: RelId,
        spec: Box<JoinSpec>,
    },
    /// An aggregation per key and window. Its columns: keys, start, end, aggregates.
    WindowAggregate {
        input: RelId,
        keys: Vec<usize>,
        windowing: Windowing,
        calls: Vec<AggregateCall>,
        /// When windows are told besides when they end; the result then changes.
        updates: Option<Updates>,
    },
    /// The first rows of each partition.
    Rank(Box<Rank>),
    /// Rows with what is computed of the rows before them.
    Over(Box<Over>),
    /// An aggregation per key over everything that has come. Its columns: keys, aggregates.
    GroupAggregate {
        input: RelId,
        keys: Vec<usize>,
        calls: Vec<AggregateCall>,
    },
    /// A join with a table that is looked up for each row.
    LookupJoin { input: RelId, lookup: Box<Lookup> },
}

/// A stream of rows.
#[derive(Clone, Debug)]
pub(crate) struct Rel {
    pub(crate) kind: RelKind,
    pub(crate) columns: Vec<RelColumn>,
    /// How the rows came to be, whatever their columns.
    pub(crate) rows: Identity,
    /// True for a result that changes. Its stream has the weight as its last column, which is none of `columns`.
    pub(crate) changes: bool,
}

impl Rel {
    /// Returns the columns as an Arrow schema; every column may be null.
    pub(crate) fn schema(&self) -> Schema {
        let field = |column: &RelColumn| Field::new(&column.name, column.data_type.clone(), true);
        Schema::new(self.columns.iter().map(field).collect::<Vec<_>>())
    }

    /// Returns the columns as DataFusion's schema.
    pub(crate) fn df_schema(&self) -> Result<DFSchema> {
        DFSchema::try_from(self.schema()).map_err(SqlError::internal)
    }
}

/// All relations of a job; every one comes after its inputs.
#[derive(Default)]
pub(crate) struct Rels {
    rels: Vec<Rel>,
    known: HashMap<String, RelId>,
    /// Of rows that are there once per window: what they are without it, by the identity of the rows.
    windowed: HashMap<Identity, Windowed>,
}

/// What rows are but for their windows, and the columns that are sides of these.
#[derive(Clone)]
struct Windowed {
    rows: Identity,
    sides: Vec<Identity>,
}

impl Rels {
    /// Returns a relation.
    pub(crate) fn get(&self, id: RelId) -> &Rel {
        &self.rels[id.0]
    }

    /// Returns how many relations there are.
    pub(crate) fn len(&self) -> usize {
        self.rels.len()
    }

    /// Adds a table.
    pub(crate) fn table(&mut self, index: usize, name: &str, columns: Vec<RelColumn>) -> RelId {
        let rows = Identity::of(&["table", name]);
        self.add(
            format!("table {index}"),
            Rel {
                kind: RelKind::Table(index),
                columns,
                rows,
                changes: false,
            },
        )
    }

    /// Adds a projection with an optional filter.
    pub(crate) fn calc(
        &mut self,
        input: RelId,
        predicate: Option<Prepared>,
        outputs: Vec<(String, Prepared)>,
    ) -> RelId {
        let source = self.get(input);
        let changes = source.changes;
        let filtered = |rows: &Identity| match &predicate {
            Some(predicate) => Identity::of(&["filter", rows.text(), predicate.identity.text()]),
            None => rows.clone(),
        };
        let mut rows = filtered(&source.rows);
        let mut windowed = self.windowed.get(&source.rows).cloned();
        if let Some(windowed) = &mut windowed {
            windowed.rows = filtered(&windowed.rows);
        }
        if let Some(of) = outputs
            .iter()
            .find_map(|(_, output)| multiplied_by(&output.expr, source))
        {
            let per_window = |output: &Prepared| row_windows(&output.expr).is_some();
            let sides = outputs.iter().filter(|(_, output)| per_window(output));
            let sides: Vec<Identity> = sides.map(|(_, output)| output.identity.clone()).collect();
            let many = Identity::of(&["multiplied", rows.text(), &of]);
            let before = std::mem::replace(&mut rows, many);
            windowed = (!sides.is_empty()).then_some(Windowed { rows: before, sides });
        }
        let is_session = |windows: RowWindows| matches!(windows.spec, WindowSpec::Session { .. });
        let waits = outputs
            .iter()
            .any(|(_, output)| row_windows(&output.expr).is_some_and(is_session));
        let mut names = Names::default();
        let mut key = format!("calc {} {}", input.0, rows.text());
        let mut columns = Vec::with_capacity(outputs.len());
        let mut exprs = Vec::with_capacity(outputs.len());
        let mut volatile = predicate
            .as_ref()
            .is_some_and(|predicate| draws_numbers(&predicate.expr));
        for (
            name,
            Prepared {
                expr,
                identity,
                data_type,
                role,
            },
        ) in outputs
        {
            let name = names.unique(&name);
            key.push_str(&format!(" {name:?}={}", identity.text()));
            volatile |= draws_numbers(&expr);
            let role = match &expr {
                // A row waits for its session: what was a time attribute is behind the watermark then.
                Expr::Column(_) if waits && role != Role::Rank => Role::Plain,
                _ => role,
            };
            columns.push(RelColumn {
                name,
                data_type,
                identity,
                role,
            });
            exprs.push(expr);
        }
        if volatile {
            // Every use draws its own numbers.
            key = format!("{key} volatile {}", self.rels.len());
        }
        if let Some(windowed) = windowed {
            self.windowed.insert(rows.clone(), windowed);
        }
        let kind = RelKind::Calc {
            input,
            predicate,
            outputs: exprs,
        };
        let rel = Rel {
            kind,
            columns,
            rows,
            changes,
        };
        self.add(key, rel)
    }

    /// Puts relations of the same column types together.
    pub(crate) fn union(&mut self, inputs: Vec<RelId>) -> RelId {
        let key = format!("union {inputs:?}");
        let identities: Vec<&str> = inputs.iter().map(|input| self.get(*input).rows.text()).collect();
        let rows = Identity::of(&[&["union"], identities.as_slice()].concat());
        let first = self.get(inputs[0]);
        let columns = first.columns.iter().enumerate().map(|(index, column)| {
            let others = inputs.iter().map(|input| &self.get(*input).columns[index]);
            let identities: Vec<&str> = others.clone().map(|column| column.identity.text()).collect();
            let roles: Vec<Role> = others.clone().map(|column| column.role).collect();
            RelColumn {
                name: column.name.clone(),
                data_type: column.data_type.clone(),
                identity: Identity::of(&[&["union"], identities.as_slice()].concat()),
                role: Role::united(&roles),
            }
        });
        let columns: Vec<RelColumn> = columns.collect();
        let changes = inputs.iter().any(|input| self.get(*input).changes);
        if let Some(windowed) = self.windowed_union(&inputs) {
            self.windowed.insert(rows.clone(), windowed);
        }
        self.add(
            key,
            Rel {
                kind: RelKind::Union { inputs },
                columns,
                rows,
                changes,
            },
        )
    }

    /// Says what the rows of a union are without their windows, if all inputs have some.
    fn windowed_union(&self, inputs: &[RelId]) -> Option<Windowed> {
        let of = |input: &RelId| self.windowed.get(&self.get(*input).rows);
        let windowed = inputs.iter().map(of).collect::<Option<Vec<_>>>()?;
        let union = |identities: Vec<&str>| Identity::of(&[&["union"], identities.as_slice()].concat());
        let places = 0..self.get(*inputs.first()?).columns.len();
        let sides = places.filter_map(|place| {
            let column = |input: &RelId| &self.get(*input).columns[place].identity;
            let mut both = inputs.iter().zip(&windowed);
            both.all(|(input, windowed)| windowed.sides.contains(column(input)))
                .then(|| union(inputs.iter().map(|input| column(input).text()).collect()))
        });
        Some(Windowed {
            sides: sides.collect(),
            rows: union(windowed.iter().map(|windowed| windowed.rows.text()).collect()),
        })
    }

    /// Adds an aggregation per key and window.
    ///
    /// # Errors
    /// When an aggregate does not take its argument.
    pub(crate) fn window_aggregate(
        &mut self,
        input: RelId,
        keys: Vec<usize>,
        windowing: Windowing,
        spec: WindowSpec,
        calls: Vec<AggregateCall>,
        updates: Option<Updates>,
    ) -> Result<RelId> {
        let source = self.get(input);
        let column = |index: usize| &source.columns[index];
        // The windows that rows bring are words of their own.
        let counted = match (windowing, self.windowed.get(&source.rows)) {
            (Windowing::Attached { start, .. }, Some(of)) if of.sides.contains(&column(start).identity) => &of.rows,
            _ => &source.rows,
        };
        let mut words = vec!["window-aggregate".to_owned(), counted.text().to_owned()];
        let (windowed_by, domain) = match windowing {
            Windowing::Time { time, .. } => (time, column(time).role.time()),
            Windowing::Attached { start, .. } => (start, column(start).role.as_window().map(|(time, ..)| time)),
        };
        let domain = domain.ok_or_else(|| {
            let name = &column(windowed_by).name;
            SqlError::internal(format!("{name} is no time attribute of an aggregation by windows"))
        })?;
        let window_type = match windowing {
            Windowing::Time { time, .. } => {
                words.push(format!("time {}", column(time).identity.text()));
                column(time).data_type.clone()
            }
            Windowing::Attached { start, end } => {
                words.push(format!(
                    "window {} {}",
                    column(start).identity.text(),
                    column(end).identity.text()
                ));
                column(start).data_type.clone()
            }
        };
        words.push(match spec {
            WindowSpec::Tumble { .. } => format!("tumble {}", spec.text()),
            _ => spec.text(),
        });
        words.extend(keys.iter().map(|key| format!("key {}", column(*key).identity.text())));
        let mut names = Names::default();
        let mut columns: Vec<RelColumn> = Vec::new();
        for key in &keys {
            let RelColumn {
                name,
                data_type,
                identity,
                role: _,
            } = column(*key).clone();
            columns.push(RelColumn {
                name: names.unique(&name),
                data_type,
                identity,
                role: Role::Plain,
            });
        }
        for (name, side) in [("window_start", WindowSide::Start), ("window_end", WindowSide::End)] {
            let identity = Identity::of(&[name, &spec.text()]);
            columns.push(RelColumn {
                name: names.unique(name),
                data_type: window_type.clone(),
                identity,
                // Of what is said below.
                role: Role::window(domain, side, spec, WindowOf(0)),
            });
        }
        for call in &calls {
            columns.push(call.column(source, &mut names, &mut words)?);
        }
        if let Some(updates) = updates {
            // The state is not that of windows that are told once; how often they are told is nothing that lasts.
            words.push(format!("updates, lateness {}", updates.allowed_lateness_ms));
        }
        let rows = Identity::of(&words.iter().map(String::as_str).collect::<Vec<_>>());
        // What a column means depends on the rows it is in.
        for column in &mut columns {
            column.identity = Identity::of(&["of", rows.text(), column.identity.text(), &column.name]);
            if let Some((time, side, spec)) = column.role.as_window() {
                column.role = Role::window(time, side, spec, WindowOf::of(&rows));
            }
        }
        let key = format!("window-aggregate {} {} {updates:?}", input.0, rows.text());
        Ok(self.add(
            key,
            Rel {
                kind: RelKind::WindowAggregate {
                    input,
                    keys,
                    windowing,
                    calls,
                    updates,
                },
                columns,
                rows,
                changes: updates.is_some(),
            },
        ))
    }

    fn add(&mut self, key: String, rel: Rel) -> RelId {
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let id = RelId(self.rels.len());
        self.rels.push(rel);
        self.known.insert(key, id);
        id
    }
}

/// Says whether an expression makes several rows of one: a window of many, or the elements of an array.
pub(crate) fn multiplies(expr: &Expr) -> bool {
    row_windows(expr).is_some() || row_elements(expr).is_some()
}

/// Says by what an expression over `source` makes several rows of one, if it does.
fn multiplied_by(expr: &Expr, source: &Rel) -> Option<String> {
    let column = |column: &Column| {
        let known = source.columns.iter().find(|known| known.name == column.name);
        known.map_or_else(|| column.name.clone(), |known| known.identity.text().to_owned())
    };
    if let Some(windows) = row_windows(expr) {
        let named = |name: &str| column(&Column::new_unqualified(name));
        let of = windows.time().into_iter().chain(windows.partition()).map(named);
        let of: Vec<String> = of.collect();
        return Some(format!("windows {} {}", windows.spec.text(), of.join(" ")));
    }
    let (of, childless) = row_elements(expr)?;
    Some(format!("elements {childless:?} {}", identity::write(&of, &column)))
}

/// Makes names unique.
#[derive(Default)]
pub(crate) struct Names(HashSet<String>);

impl Names {
    /// Returns the name, with a number behind it if it is taken.
    pub(crate) fn unique(&mut self, name: &str) -> String {
        let mut candidate = name.to_owned();
        let mut number = 0;
        while !self.0.insert(candidate.clone()) {
            candidate = format!("{name}_{number}");
            number += 1;
        }
        candidate
    }
}
