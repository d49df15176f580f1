//! The connector `datagen`: a source that makes its rows up.
//!
//! Row *i* is a function of the seed, the column and *i* alone. The rows are dealt out to a fixed number of splits,
//! row *i* to split *i mod n*, so that the same rows come at any parallelism, and a restored job continues with
//! exactly the row that follows. `generator` makes columns from numbers, `reader` batches from columns at the rate that
//! was asked for.

mod generator;
mod reader;
#[cfg(test)]
mod tests;

use crate::environment::ConnectorEnvironment;
use crate::error::ConnectorError;
use crate::options::Options;
use crate::table::TableDefinition;
use arrow::datatypes::SchemaRef;
use generator::Generator;
use reader::GeneratedSplit;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_engine::source::{
    Discovery, Source, Split, SplitContext, SplitEnumerator, SplitId, SplitReader, SplitState,
};
use tidemill_engine::time::TimeSource;
use tidemill_engine::{Error, Result};

/// Flink's default rate.
const ROWS_PER_SECOND_DEFAULT: u64 = 10_000;
/// What options of whole numbers hold.
const WHOLE: &str = "a whole number such as 1000";
const SPLITS_DEFAULT: u64 = 8;
const SPLITS_MAX: u64 = 4_096;

/// What a table of made-up rows is made of.
#[derive(Clone, Debug)]
struct Recipe {
    generators: Vec<Generator>,
    /// Rows in all; `None` without end.
    rows: Option<u64>,
    /// `None` as fast as possible.
    rows_per_second: Option<u64>,
    splits: u64,
}

impl Recipe {
    fn parse(table: &TableDefinition) -> Result<Self, ConnectorError> {
        if let Some(metadata) = table.metadata_columns.first() {
            let message = format!("column {}: the connector datagen has no metadata", metadata.column);
            return Err(ConnectorError::new(message));
        }
        let options = Options::new(&table.name, &table.options);
        let rows_per_second = match options.text("rows-per-second") {
            Some("unlimited") => None,
            _ => {
                let rate = options.parsed("rows-per-second", "a whole number such as 1000, nor 'unlimited'")?;
                Some(rate.unwrap_or(ROWS_PER_SECOND_DEFAULT))
            }
        };
        if rows_per_second == Some(0) {
            return Err(options.out_of_range("rows-per-second", "at least 1, such as 1000, or 'unlimited'"));
        }
        let mut rows = options.parsed::<u64>("number-of-rows", WHOLE)?;
        let seed = options.parsed::<u64>("seed", WHOLE)?.unwrap_or(0);
        let splits = options.parsed::<u64>("splits", WHOLE)?.unwrap_or(SPLITS_DEFAULT);
        if !(1..=SPLITS_MAX).contains(&splits) {
            return Err(options.out_of_range("splits", &format!("from 1 to {SPLITS_MAX}")));
        }
        options.refuse(
            "scan.parallelism",
            "a source runs on every worker of its job; leave the option out",
        )?;
        let mut generators = Vec::new();
        for field in table.schema.fields() {
            let generator = Generator::parse(field, seed, &options)?;
            // The table ends with the shortest sequence.
            rows = [rows, generator.rows()].into_iter().flatten().min();
            generators.push(generator);
        }
        options.finish()?;
        Ok(Self {
            generators,
            rows,
            rows_per_second,
            splits,
        })
    }
}

/// Checks the options of a table.
///
/// # Errors
/// When one is not valid or a column cannot be generated.
pub(crate) fn check(table: &TableDefinition) -> Result<(), ConnectorError> {
    Recipe::parse(table).map(|_| ())
}

/// The source.
pub(crate) struct DatagenSource {
    table: String,
    recipe: Arc<Recipe>,
    schema: SchemaRef,
    time: Arc<dyn TimeSource>,
}

impl DatagenSource {
    /// Makes the source of some of a table's columns; the others are not generated.
    ///
    /// # Errors
    /// When the table's options are not valid.
    pub(crate) fn new(
        table: &TableDefinition,
        projection: &[usize],
        env: &ConnectorEnvironment,
    ) -> Result<Self, ConnectorError> {
        let mut recipe = Recipe::parse(table)?;
        let schema = table.project(projection)?;
        recipe.generators = projection.iter().map(|&i| recipe.generators[i].clone()).collect();
        Ok(Self {
            table: table.name.clone(),
            recipe: Arc::new(recipe),
            schema,
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
        match id
            .0
            .split_once('/')
            .map(|(number, count)| (number.parse::<u64>(), count.parse::<u64>()))
        {
            Some((Ok(number), Ok(count))) if count == splits && number < count => Ok(number),
            Some((Ok(_), Ok(count))) if count != splits => Err(self.error(format!(
                "the checkpoint was taken with 'splits' = '{count}', and now it is '{splits}': the rows would not be \
                 the same; set it back, or start the job afresh"
            ))),
            _ => Err(self.error(format!("the split {id} is not one of datagen's"))),
        }
    }
}

impl Source for DatagenSource {
    fn enumerator(&self) -> Result<Box<dyn SplitEnumerator>> {
        Ok(Box::new(DatagenEnumerator {
            splits: self.recipe.splits,
        }))
    }

    fn open_split(&self, split: &Split, _context: SplitContext) -> Result<Box<dyn SplitReader>> {
        let number = self.split_number(&split.id)?;
        let next = split.position.parse::<u64>();
        let next = next.map_err(|_| self.error(format!("'{}' is not a position of datagen", split.position)))?;
        let recipe = Arc::clone(&self.recipe);
        Ok(Box::new(GeneratedSplit::new(
            recipe,
            Arc::clone(&self.schema),
            Arc::clone(&self.time),
            number,
            next,
        )))
    }
}

struct DatagenEnumerator {
    splits: u64,
}

#[async_trait::async_trait]
impl SplitEnumerator for DatagenEnumerator {
    async fn discover(&mut self, known: &BTreeMap<SplitId, SplitState>) -> Result<Discovery> {
        // A known split of another number of splits is refused when it is opened.
        if !known.is_empty() {
            return Ok(Discovery {
                complete: true,
                ..Discovery::default()
            });
        }
        let splits = self.splits;
        let split = |number| Split {
            id: SplitId(format!("{number}/{splits}")),
            position: "0".to_owned(),
        };
        Ok(Discovery {
            new: (0..splits).map(split).collect(),
            complete: true,
            ..Discovery::default()
        })
    }
}
