//! The connector `nexmark`: the event stream of an online auction, for benchmarks.
//!
//! ```text
//!  event n ── n mod 50 ──┬── 0        a person registers
//!                        ├── 1 to 3   an auction is opened
//!                        └── 4 to 49  a bid
//! ```
//! A row has the kind in `event_type` and the columns of that kind in `person`, `auction` or `bid`; the other two are
//! null. Everything about event *n* is a function of the seed and *n* alone. Fifty events in a row are an *epoch*;
//! epoch *e* is dealt to split *e mod splits*, so that the same rows come at any parallelism, on one timeline, and a
//! restored job continues with exactly the event that follows. Only the fields that are asked for are made.
//!
//! File map: `events` numbers and dates events, `model` says what is in them, `vocabulary` has their texts, `text`
//! makes random ones, `columns` fills Arrow arrays, `reader` reads a split.

mod columns;
mod events;
mod model;
mod reader;
#[cfg(test)]
mod tests;
mod text;
mod vocabulary;

use crate::environment::ConnectorEnvironment;
use crate::error::ConnectorError;
use crate::options::{Options, closest};
use crate::table::TableDefinition;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use events::Timeline;
use model::Model;
use reader::{EventReader, Recipe};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_engine::source::{
    Discovery, Source, Split, SplitContext, SplitEnumerator, SplitId, SplitReader, SplitState,
};
use tidemill_engine::time::TimeSource;
use tidemill_engine::{Error, Result};

/// What options of whole numbers hold.
const WHOLE: &str = "a whole number such as 1000";
/// Events per second of event time when nothing is said, as in the original.
const EVENT_RATE_DEFAULT: u64 = 10_000;
/// The densest event time: a thousand events in a microsecond.
const EVENT_RATE_MAX: u64 = 1_000_000_000;
/// The most events: their times stay within what a timestamp holds.
const EVENTS_MAX: u64 = 1_000_000_000_000_000;
const SPLITS_DEFAULT: u64 = 8;
const SPLITS_MAX: u64 = 4_096;

/// The event time that all events follow, in milliseconds since 1970: event n of the stream is n event-time intervals later.
pub const NEXMARK_BASE_MS: i64 = events::BASE_MS;

/// Returns the columns of a nexmark table with all their fields.
#[must_use]
pub fn nexmark_schema() -> SchemaRef {
    let text = |name: &'static str| (name, DataType::Utf8);
    let number = |name: &'static str| (name, DataType::Int64);
    let time = |name: &'static str| (name, DataType::Timestamp(TimeUnit::Millisecond, None));
    let row = |name: &str, fields: Vec<(&str, DataType)>| {
        let fields: Fields = fields
            .into_iter()
            .map(|(name, data_type)| Field::new(name, data_type, true))
            .collect();
        Field::new(name, DataType::Struct(fields), true)
    };
    Arc::new(Schema::new(vec![
        Field::new("event_type", DataType::Int32, true),
        row(
            "person",
            vec![
                number("id"),
                text("name"),
                text("emailAddress"),
                text("creditCard"),
                text("city"),
                text("state"),
                time("dateTime"),
                text("extra"),
            ],
        ),
        row(
            "auction",
            vec![
                number("id"),
                text("itemName"),
                text("description"),
                number("initialBid"),
                number("reserve"),
                time("dateTime"),
                time("expires"),
                number("seller"),
                number("category"),
                text("extra"),
            ],
        ),
        row(
            "bid",
            vec![
                number("auction"),
                number("bidder"),
                number("price"),
                text("channel"),
                text("url"),
                time("dateTime"),
                text("extra"),
            ],
        ),
    ]))
}

fn parse(table: &TableDefinition) -> Result<Recipe, ConnectorError> {
    if let Some(metadata) = table.metadata_columns.first() {
        let message = format!("column {}: the connector nexmark has no metadata", metadata.column);
        return Err(ConnectorError::new(message));
    }
    check_fields("table", table.schema.fields(), nexmark_schema().fields())?;
    let options = Options::new(&table.name, &table.options);
    let events = options.parsed::<u64>("events", WHOLE)?;
    if events.is_some_and(|events| events > EVENTS_MAX) {
        return Err(options.out_of_range("events", &format!("at most {EVENTS_MAX}")));
    }
    let number = |name: &str, default: Option<u64>, max: u64| match options.parsed::<u64>(name, WHOLE)? {
        Some(value) if !(1..=max).contains(&value) => Err(options.out_of_range(name, &format!("from 1 to {max}"))),
        value => Ok(value.or(default)),
    };
    let event_rate = number("first.event.rate", Some(EVENT_RATE_DEFAULT), EVENT_RATE_MAX)?;
    let events_per_second = number("events-per-second", None, EVENT_RATE_MAX)?;
    let splits = number("splits", Some(SPLITS_DEFAULT), SPLITS_MAX)?;
    let seed = options.parsed::<u64>("seed", WHOLE)?.unwrap_or(0);
    options.refuse(
        "scan.parallelism",
        "a source runs on every worker of its job; leave the option out",
    )?;
    options.finish()?;
    let timeline = Timeline::new(event_rate.unwrap_or(EVENT_RATE_DEFAULT));
    Ok(Recipe {
        model: Model::new(seed, timeline),
        last: events.unwrap_or(EVENTS_MAX),
        events_per_second,
        splits: splits.unwrap_or(SPLITS_DEFAULT),
    })
}

/// Checks that columns are nexmark's; some may be left out.
fn check_fields(of: &str, fields: &Fields, known: &Fields) -> Result<(), ConnectorError> {
    for field in fields {
        let name = field.name();
        let Some((_, expected)) = known.find(name) else {
            let error = ConnectorError::new(format!("the {of} of the connector nexmark has no column {name}"));
            let names: Vec<&str> = known.iter().map(|field| field.name().as_str()).collect();
            return Err(match closest(name, names.iter().copied()) {
                Some(near) => error.with_hint(format!("did you mean {near}?")),
                None => error.with_hint(format!("there are {}", names.join(", "))),
            });
        };
        match (field.data_type(), expected.data_type()) {
            (DataType::Struct(fields), DataType::Struct(known)) => {
                if !field.is_nullable() {
                    let message = format!("column {name} cannot be NOT NULL: it is null in rows of another kind");
                    return Err(ConnectorError::new(message));
                }
                check_fields(name, fields, known)?;
            }
            // With or without a local time zone: times are UTC.
            (DataType::Timestamp(TimeUnit::Millisecond, _), DataType::Timestamp(..)) => {}
            (found, expected) if found == expected => {}
            (found, expected) => {
                let expected = match expected {
                    DataType::Struct(_) => "ROW<...>".to_owned(),
                    DataType::Timestamp(..) => "TIMESTAMP(3)".to_owned(),
                    DataType::Utf8 => "STRING".to_owned(),
                    DataType::Int64 => "BIGINT".to_owned(),
                    DataType::Int32 => "INT".to_owned(),
                    other => other.to_string(),
                };
                let error = ConnectorError::new(format!("column {name} of the {of} is {found}"));
                return Err(error.with_hint(format!("declare it {expected}")));
            }
        }
    }
    Ok(())
}

/// Checks the options and columns of a table.
///
/// # Errors
/// When one is not valid.
pub(crate) fn check(table: &TableDefinition) -> Result<(), ConnectorError> {
    parse(table).map(|_| ())
}

/// The source.
pub(crate) struct NexmarkSource {
    table: String,
    recipe: Arc<Recipe>,
    schema: SchemaRef,
    time: Arc<dyn TimeSource>,
}

impl NexmarkSource {
    /// Makes the source of some of a table's columns; others are not generated, nor are fields that they lack.
    ///
    /// # Errors
    /// When the table is not valid.
    pub(crate) fn new(
        table: &TableDefinition,
        projection: &[usize],
        env: &ConnectorEnvironment,
    ) -> Result<Self, ConnectorError> {
        Ok(Self {
            table: table.name.clone(),
            recipe: Arc::new(parse(table)?),
            schema: table.project(projection)?,
            time: Arc::clone(env.time()),
        })
    }

    fn error(&self, message: String) -> Error {
        Error::Source {
            table: self.table.clone(),
            message,
        }
    }

    /// Reads the number of a split from its name, `number/count`.
    fn split_number(&self, id: &SplitId) -> Result<u64> {
        let splits = self.recipe.splits;
        let parts = id.0.split_once('/');
        match parts.map(|(number, count)| (number.parse::<u64>(), count.parse::<u64>())) {
            Some((Ok(number), Ok(count))) if count == splits && number < count => Ok(number),
            Some((Ok(_), Ok(count))) if count != splits => Err(self.error(format!(
                "the checkpoint was taken with 'splits' = '{count}', and now it is '{splits}': events would be lost or \
                 come twice; set it back, or start the job afresh"
            ))),
            _ => Err(self.error(format!("the split {id} is not one of nexmark's"))),
        }
    }
}

impl Source for NexmarkSource {
    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>> {
        Ok(Box::new(NexmarkEnumerator {
            splits: self.recipe.splits,
        }))
    }

    fn open_split(&self, split: &Split, _context: SplitContext) -> Result<Box<dyn SplitReader>> {
        let number = self.split_number(&split.id)?;
        let next = split.position.parse::<u64>().ok();
        let next = next.filter(|next| events::belongs_to(*next, number, self.recipe.splits));
        let next = next.ok_or_else(|| {
            let (position, id) = (&split.position, &split.id);
            self.error(format!("'{position}' is not the number of an event of split {id}"))
        })?;
        Ok(Box::new(EventReader::new(
            Arc::clone(&self.recipe),
            Arc::clone(&self.schema),
            Arc::clone(&self.time),
            next,
        )))
    }
}

struct NexmarkEnumerator {
    splits: u64,
}

#[async_trait::async_trait]
impl SplitEnumerator for NexmarkEnumerator {
    async fn discover(&mut self, known: &BTreeMap<SplitId, SplitState>) -> Result<Discovery> {
        let splits = self.splits;
        // A known split of another number of splits is refused when it is opened.
        let numbers = if known.is_empty() { 0..splits } else { 0..0 };
        let split = |number| Split {
            id: SplitId(format!("{number}/{splits}")),
            position: events::first_of(number).to_string(),
        };
        Ok(Discovery {
            new: numbers.map(split).collect(),
            complete: true,
            ..Discovery::default()
        })
    }
}
