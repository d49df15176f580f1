//! The relation of a join, and what its condition says of time.

use super::identity::Identity;
use super::prepare::Prepared;
use super::{Names, Rel, RelColumn, RelId, RelKind, Rels, Role, WindowOf};
use crate::error::{Result, SqlError};
use crate::functions::ambient::draws_numbers;
use crate::functions::window::WindowSide;
use crate::window_function::WindowSpec;
use std::collections::BTreeSet;
use tidemill_engine::graph::{JoinInput, JoinKind};

/// `earlier <= later + offset`, of a column of each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimeBound {
    pub(crate) earlier: (JoinInput, usize),
    pub(crate) later: (JoinInput, usize),
    pub(crate) offset_ms: i64,
}

/// A timestamp column and what is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shifted {
    pub(crate) column: usize,
    pub(crate) offset_ms: i64,
}

/// What a join does.
#[derive(Clone, Debug)]
pub(crate) struct JoinSpec {
    pub(crate) kind: JoinKind,
    /// The columns that must be equal, left and right.
    pub(crate) keys: Vec<(usize, usize)>,
    /// What else must be true, over the names of `reads`.
    pub(crate) condition: Option<Prepared>,
    /// The columns that the condition reads: name, side, place.
    pub(crate) reads: Vec<(String, JoinInput, usize)>,
    /// What the relation's columns are.
    pub(crate) outputs: Vec<(JoinInput, usize)>,
    /// The event time of each side, where the other side's rows are dropped by it.
    pub(crate) times: [Option<Shifted>; 2],
    /// Until when each side's rows are kept, by the watermark of the other side; empty: they are not dropped by it.
    pub(crate) until: [Vec<Shifted>; 2],
    /// For a join with the version of a row at a time: the columns of the stream's time and of the versions'.
    pub(crate) as_of: Option<[usize; 2]>,
    /// How far each side's watermark is held back for the time columns that come out.
    pub(crate) delays_ms: [i64; 2],
}

impl JoinSpec {
    /// Returns the columns of a side that the join reads, besides those that only come out.
    pub(crate) fn read_of(&self, input: JoinInput) -> BTreeSet<usize> {
        let key = |&(left, right): &(usize, usize)| if input == JoinInput::Left { left } else { right };
        let read = self
            .reads
            .iter()
            .filter(|(_, of, _)| *of == input)
            .map(|(_, _, place)| *place);
        let times = self.times[input as usize].iter().chain(&self.until[input as usize]);
        let times = times.map(|time| time.column);
        let as_of = self.as_of.map(|as_of| as_of[input as usize]);
        let columns = self.keys.iter().map(key).chain(read).chain(times);
        columns.chain(as_of).collect()
    }

    /// Returns the join with its columns in other places, and only the `kept` ones of its outputs.
    pub(crate) fn moved(
        &self,
        kept: impl Iterator<Item = usize>,
        place: impl Fn(JoinInput, usize) -> Result<usize>,
    ) -> Result<Self> {
        let (left, right) = (JoinInput::Left, JoinInput::Right);
        let mut moved = self.clone();
        for (of_left, of_right) in &mut moved.keys {
            (*of_left, *of_right) = (place(left, *of_left)?, place(right, *of_right)?);
        }
        for (_, input, column) in &mut moved.reads {
            *column = place(*input, *column)?;
        }
        moved.outputs = kept
            .map(|index| {
                let (input, column) = self.outputs[index];
                Ok((input, place(input, column)?))
            })
            .collect::<Result<_>>()?;
        if let Some([of_left, of_right]) = &mut moved.as_of {
            (*of_left, *of_right) = (place(left, *of_left)?, place(right, *of_right)?);
        }
        for input in JoinInput::BOTH {
            let times = moved.times[input as usize].iter_mut();
            for time in times.chain(&mut moved.until[input as usize]) {
                time.column = place(input, time.column)?;
            }
        }
        Ok(moved)
    }
}

/// A time column of a relation: its event time is the column plus so many milliseconds.
fn event_times(rel: &Rel) -> impl Iterator<Item = Shifted> {
    rel.columns.iter().enumerate().filter_map(|(column, known)| {
        let offset_ms = match known.role {
            Role::EventTime | Role::Window(WindowSide::Time, ..) => 0,
            // Rows of a window come before the watermark passes its last millisecond.
            Role::Window(WindowSide::End, ..) => -1,
            Role::Window(
                WindowSide::Start,
                WindowSpec::Tumble { size_ms, .. } | WindowSpec::Hop { size_ms, .. },
                _,
            ) => size_ms - 1,
            _ => return None,
        };
        Some(Shifted { column, offset_ms })
    })
}

/// What the bounds of a join say.
struct Timing {
    times: [Option<Shifted>; 2],
    until: [Vec<Shifted>; 2],
    delays_ms: [i64; 2],
    /// The time columns that stay such.
    retained: BTreeSet<(JoinInput, usize)>,
}

impl Timing {
    /// Derives how long rows must be kept. A row can have no match any more when the other side's event time, which is not
    /// before its watermark, would have to be earlier than the row allows.
    fn of(kind: JoinKind, bounds: &[TimeBound], rels: [&Rel; 2]) -> Self {
        let mut timing = Self {
            times: [None, None],
            until: [Vec::new(), Vec::new()],
            delays_ms: [0, 0],
            retained: BTreeSet::new(),
        };
        for input in JoinInput::BOTH {
            // The first event time that something is said of; all of a relation's are in order with its watermark.
            let bounded = |time: &Shifted| bounds.iter().any(|bound| bound.earlier == (input, time.column));
            let Some(time) = event_times(rels[input as usize]).find(bounded) else {
                continue;
            };
            timing.times[input as usize] = Some(time);
            let other = input.other();
            let of_time = bounds.iter().filter(|bound| bound.earlier == (input, time.column));
            let until = of_time.map(|bound| Shifted {
                column: bound.later.1,
                offset_ms: bound.offset_ms.saturating_add(time.offset_ms),
            });
            let mut until: Vec<Shifted> = until.collect();
            until.sort_unstable();
            // Of bounds by one column the least decides.
            until.dedup_by_key(|shifted| shifted.column);
            timing.until[other as usize] = until;
        }
        for input in JoinInput::BOTH {
            if kind.pads(input) || (kind.is_of_left_rows() && input == JoinInput::Right) {
                continue;
            }
            for time in event_times(rels[input as usize]) {
                // Rows that come later with the other side's rows are at most so much later.
                let until = timing.until[input as usize]
                    .iter()
                    .find(|until| until.column == time.column);
                if let Some(until) = until {
                    let delay_ms = until.offset_ms.saturating_sub(time.offset_ms).max(0);
                    let known = &mut timing.delays_ms[input.other() as usize];
                    *known = (*known).max(delay_ms);
                    timing.retained.insert((input, time.column));
                }
            }
        }
        timing
    }

    /// Of a join with versions, the time of the stream's row is that of the joined one, and no other is: the row may have
    /// waited for the versions' watermark.
    fn as_of(time: usize) -> Self {
        Self {
            times: [None, None],
            until: [Vec::new(), Vec::new()],
            delays_ms: [0, 0],
            retained: BTreeSet::from([(JoinInput::Left, time)]),
        }
    }

    /// Says what a column is to time behind the join.
    fn role(&self, input: JoinInput, place: usize, rel: &Rel) -> Role {
        let role = rel.columns[place].role;
        let is_retained = match role {
            // A row that waited for its match comes in a later tick than its processing time says.
            Role::Plain | Role::Rank | Role::ProcessingTime | Role::ProcessingWindow(..) => false,
            Role::EventTime => self.retained.contains(&(input, place)),
            // The sides of a window go together.
            Role::Window(..) => self.retained.iter().any(|(of, column)| {
                let known = rel.columns.get(*column).map(|column| column.role);
                *of == input && known.is_some_and(|known| known.which_window() == role.which_window())
            }),
        };
        if is_retained { role } else { Role::Plain }
    }
}

/// A join before it is a relation.
pub(crate) struct NewJoin {
    pub(crate) kind: JoinKind,
    pub(crate) keys: Vec<(usize, usize)>,
    pub(crate) condition: Option<Prepared>,
    pub(crate) reads: Vec<(String, JoinInput, usize)>,
    pub(crate) bounds: Vec<TimeBound>,
    /// How many columns of each side come out: the first ones.
    pub(crate) widths: [usize; 2],
    /// For a join with the version of a row at a time: the stream's time, and the versions'.
    pub(crate) as_of: Option<[usize; 2]>,
}

impl Rels {
    /// Joins two relations.
    ///
    /// # Errors
    /// When rows without a match are wanted and nothing says when none can come any more; the error has no place.
    pub(crate) fn join(&mut self, left: RelId, right: RelId, join: NewJoin) -> Result<RelId> {
        let rels = [self.get(left), self.get(right)];
        let timing = match join.as_of {
            Some([time, _]) => Timing::as_of(time),
            None => Timing::of(join.kind, &join.bounds, rels),
        };
        for input in JoinInput::BOTH {
            if join.as_of.is_none() && join.kind.preserves(input) && timing.until[input as usize].is_empty() {
                return Err(unbounded(join.kind));
            }
        }
        let mut words = vec![format!("join {:?}", join.kind).to_lowercase()];
        words.extend(rels.iter().map(|rel| rel.rows.text().to_owned()));
        for (of_left, of_right) in &join.keys {
            let identity = |rel: &Rel, column: usize| rel.columns[column].identity.text().to_owned();
            words.push(format!(
                "{} = {}",
                identity(rels[0], *of_left),
                identity(rels[1], *of_right)
            ));
        }
        words.extend(
            join.condition
                .iter()
                .map(|condition| condition.identity.text().to_owned()),
        );
        if let Some([time, version]) = join.as_of {
            let (time, version) = (&rels[0].columns[time].identity, &rels[1].columns[version].identity);
            words.push(format!("as of {} {}", time.text(), version.text()));
        }
        let rows = Identity::of(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let mut names = Names::default();
        let (mut columns, mut outputs) = (Vec::new(), Vec::new());
        let mut windows: Vec<(JoinInput, WindowSpec)> = Vec::new();
        for input in JoinInput::BOTH {
            let width = if join.kind.is_of_left_rows() && input == JoinInput::Right {
                0
            } else {
                join.widths[input as usize]
            };
            let rel = rels[input as usize];
            for (place, column) in rel.columns[..width].iter().enumerate() {
                let mut role = timing.role(input, place, rel);
                let name_of = |input| if input == JoinInput::Left { "left" } else { "right" };
                let side = name_of(input);
                if let Role::Window(of_window, spec, of) = role {
                    // Windows of both sides can be told apart only if they are the same: then they are the left ones.
                    let is_other = windows.iter().any(|known| *known == (input.other(), spec));
                    let same = match is_other {
                        true => same_windows(&join.keys, rels, spec, of).map(|left| (input.other(), left)),
                        false => Some((input, of)),
                    };
                    role = Role::Plain;
                    if let Some((from, of)) = same {
                        windows.push((input, spec));
                        let of = Identity::of(&["of", rows.text(), name_of(from), &of.text()]);
                        role = Role::Window(of_window, spec, WindowOf::of(&of));
                    }
                }
                columns.push(RelColumn {
                    name: names.unique(&column.name),
                    data_type: column.data_type.clone(),
                    identity: Identity::of(&["of", rows.text(), side, column.identity.text()]),
                    role,
                });
                outputs.push((input, place));
            }
        }
        let mut key = format!("join {} {} {}", left.0, right.0, rows.text());
        if join
            .condition
            .as_ref()
            .is_some_and(|condition| draws_numbers(&condition.expr))
        {
            // Every use draws its own numbers.
            key = format!("{key} volatile {}", self.len());
        }
        let spec = JoinSpec {
            kind: join.kind,
            keys: join.keys,
            condition: join.condition,
            reads: join.reads,
            as_of: join.as_of,
            outputs,
            times: timing.times,
            until: timing.until,
            delays_ms: timing.delays_ms,
        };
        let kind = RelKind::Join {
            left,
            right,
            spec: Box::new(spec),
        };
        let rel = Rel {
            kind,
            columns,
            rows,
            changes: false,
        };
        Ok(self.add(key, rel))
    }
}

/// Returns what the left windows are of that the keys make equal to these of the right side.
fn same_windows(keys: &[(usize, usize)], rels: [&Rel; 2], spec: WindowSpec, of: WindowOf) -> Option<WindowOf> {
    let equal = |side: WindowSide| {
        keys.iter().filter_map(move |&(left, right)| {
            let is_right = rels[1].columns[right].role == Role::Window(side, spec, of);
            match rels[0].columns[left].role {
                Role::Window(found, known, of_left) if is_right && (found, known) == (side, spec) => Some(of_left),
                _ => None,
            }
        })
    };
    equal(WindowSide::Start).find(|start| equal(WindowSide::End).any(|end| end == *start))
}

fn unbounded(kind: JoinKind) -> SqlError {
    let (what, hint) = match kind {
        JoinKind::Anti => (
            "NOT EXISTS",
            "compare the windows of both sides (window_start and window_end), or bound the time: r.ts BETWEEN l.ts - \
             INTERVAL '5' MINUTE AND l.ts",
        ),
        _ => (
            "an outer join",
            "bound the event times in ON: r.ts BETWEEN l.ts - INTERVAL '5' MINUTE AND l.ts, or join window_start and \
             window_end",
        ),
    };
    let message = format!(
        "{what} without a bound on time is not supported yet: no watermark would say that a row has found no match"
    );
    SqlError::new(message).hint(hint)
}
