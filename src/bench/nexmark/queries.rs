//! The queries, as they stand in `benches/nexmark/`.

use super::NexmarkOptions;
use anyhow::Context as _;
use serde::Serialize;
use std::path::Path;
use tidemill_connectors::ConnectorEnvironment;
use tidemill_engine::graph::{Node, weight_of};
use tidemill_sql::{Connectors, JobPlan, Plan, PlanOptions, SqlError};

/// What every query begins with: the events and their views.
const TABLES: &str = include_str!("../../../benches/nexmark/tables.sql");

/// Splits per worker: so many that each worker has as much to do as any other.
const SPLITS_PER_WORKER: usize = 4;

/// A query.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) name: &'static str,
    text: &'static str,
}

macro_rules! queries {
    ($($name:literal),* $(,)?) => {
        &[$(Query { name: $name, text: include_str!(concat!("../../../benches/nexmark/", $name, ".sql")) }),*]
    };
}

/// All queries. q6 is not among them: it ranks over rows that change.
const QUERIES: &[Query] = queries![
    "q0", "q1", "q2", "q3", "q4", "q5", "q5-part", "q7", "q7-part", "q8", "q9", "q9-part", "q10", "q11", "q12",
    "q12-part", "q13", "q14", "q15", "q16", "q17", "q18", "q19", "q20", "q21", "q22", "q23",
];

/// What is told of a query.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    pub(crate) query: &'static str,
    /// What it asks.
    pub(crate) asks: String,
    /// True when it runs.
    pub(crate) supported: bool,
    /// True when its result changes: how many rows come out then depends on the ticks.
    pub(crate) changes: bool,
    /// What the planner says to one that does not.
    pub(crate) reason: Option<String>,
}

impl Query {
    /// Finds a query by its name.
    ///
    /// # Errors
    /// Says which there are.
    pub(crate) fn find(name: &str) -> Result<&'static Self, String> {
        let found = QUERIES.iter().find(|query| query.name == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = QUERIES.iter().map(|query| query.name).collect();
            format!("there is no query {name}; there are {}", names.join(", "))
        })
    }

    /// The whole SQL text. Paths of files are below `directory`.
    pub(crate) fn sql(&self, options: &NexmarkOptions, directory: &Path) -> String {
        let splits = (options.parallelism * SPLITS_PER_WORKER).max(1);
        let pace = options.events_per_second;
        let pace = pace.map_or_else(String::new, |pace| format!("\n  'events-per-second' = '{pace}',"));
        format!("{TABLES}\n{}", self.text)
            .replace("${pace}", &pace)
            .replace("${events}", &options.events.to_string())
            .replace("${event-rate}", &options.event_rate.to_string())
            .replace("${seed}", &options.seed.to_string())
            .replace("${splits}", &splits.to_string())
            .replace("${directory}", &directory.to_string_lossy())
    }

    /// What the query asks, from the comment at its beginning.
    fn asks(&self) -> String {
        let comment = self.text.lines().map_while(|line| line.strip_prefix("-- "));
        comment.collect::<Vec<_>>().join(" ")
    }

    /// Plans the query.
    ///
    /// # Errors
    /// When the planner refuses it.
    pub(super) fn plan(
        &self,
        options: &NexmarkOptions,
        connectors: &dyn Connectors,
        directory: &Path,
    ) -> Result<Box<JobPlan>, SqlError> {
        match tidemill_sql::plan_with(&self.sql(options, directory), connectors, &PlanOptions::default())? {
            Plan::Job(plan) => Ok(plan),
            Plan::Explain(_) => unreachable!("no query explains"),
        }
    }
}

/// Lists all queries; those that cannot be planned with the planner's reason.
pub(crate) fn list(options: &NexmarkOptions) -> Vec<Listed> {
    let directory = std::env::temp_dir();
    let environment = ConnectorEnvironment::new().with_data_directory(&directory);
    let listed = |query: &'static Query| {
        let planned = query.plan(options, &environment, &directory);
        let changes = |node: &Node| weight_of(&node.schema).is_some();
        Listed {
            query: query.name,
            asks: query.asks(),
            supported: planned.is_ok(),
            changes: planned
                .as_ref()
                .is_ok_and(|plan| plan.graph.nodes().iter().any(changes)),
            reason: planned.err().map(|error| error.message),
        }
    };
    QUERIES.iter().map(listed).collect()
}

/// Writes the side table of q13: 10,000 keys, each with a value.
pub(super) fn write_side_input(directory: &Path) -> anyhow::Result<()> {
    use std::io::Write as _;
    let path = directory.join("side_input.csv");
    let mut text = Vec::new();
    for key in 0..10_000 {
        writeln!(text, "{key},value-{key}")?;
    }
    #[allow(
        clippy::disallowed_methods,
        reason = "a file in the benchmark's own directory, which goes with it"
    )]
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_is_planned_or_refused_with_a_reason() {
        let options = NexmarkOptions {
            query: None,
            events: 1_000,
            parallelism: 2,
            event_rate: 10_000_000,
            events_per_second: None,
            seed: 0,
            checkpoints: None,
            directory: None,
        };
        let listed = list(&options);
        for name in [
            "q0", "q1", "q2", "q3", "q4", "q5", "q5-part", "q7", "q7-part", "q8", "q9", "q9-part", "q10", "q11", "q12",
            "q12-part", "q13", "q14", "q15", "q16", "q17", "q18", "q19", "q20", "q21", "q22", "q23",
        ] {
            let query = listed.iter().find(|listed| listed.query == name).unwrap();
            assert!(query.supported, "{name}: {:?}", query.reason);
        }
        for query in &listed {
            assert!(!query.asks.is_empty(), "{}", query.query);
            assert_eq!(query.supported, query.reason.is_none(), "{}", query.query);
            if ["q11", "q15", "q16", "q17"].contains(&query.query) {
                assert_eq!(query.changes, query.query != "q11", "{}", query.query);
            }
            // What the planner refuses is no mistake in the text, which would be told differently.
            let reason = query.reason.as_deref().unwrap_or_default();
            let is_told = ["not supported", "not the event time"]
                .iter()
                .any(|words| reason.contains(words));
            assert!(query.supported || is_told, "{}: {reason}", query.query);
        }
        assert!(Query::find("q6").unwrap_err().contains("q22"));
    }

    #[test]
    fn only_what_a_query_reads_is_made() {
        let options = NexmarkOptions {
            query: None,
            events: 1,
            parallelism: 1,
            event_rate: 1,
            events_per_second: None,
            seed: 0,
            checkpoints: None,
            directory: None,
        };
        let environment = ConnectorEnvironment::new();
        let plan = Query::find("q2")
            .unwrap()
            .plan(&options, &environment, Path::new("/"))
            .unwrap();
        let read = plan.tables.iter().find(|table| table.name == "nexmark").unwrap();
        let expected = [
            "event_type",
            "person.dateTime",
            "auction.dateTime",
            "bid.auction",
            "bid.price",
            "bid.dateTime",
        ];
        assert_eq!(read.columns_read, expected);
    }
}
