//! Tables that are looked up: `JOIN table FOR SYSTEM_TIME AS OF stream.p`.
//!
//! | connector | asked by key | read whole |
//! |---|---|---|
//! | `filesystem` | | yes |
//! | `http` | yes | |
//! | `jdbc` (SQLite) | yes | yes |
//!
//! A connector answers a [`LookupSource`] and how it is to be asked; caches, and the join itself, are the engine's.
//!
//! File map: `options` reads the options `lookup.*`, which all have in common; `file`, `http` and `jdbc` are the connectors.

pub(crate) mod file;
#[cfg(feature = "http")]
pub(crate) mod http;
#[cfg(feature = "sqlite")]
pub(crate) mod jdbc;
pub(crate) mod options;

use crate::error::ConnectorError;
use crate::table::TableDefinition;
use std::sync::Arc;
use tidemill_engine::lookup::{LookupOptions, LookupSource};

/// A table to look up.
#[derive(Clone)]
pub struct Lookup {
    /// What is asked.
    pub source: Arc<dyn LookupSource>,
    /// How it is asked.
    pub options: LookupOptions,
}

/// The columns that are wanted of a table, and those it is looked up by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// Indexes into the table's schema.
    pub(crate) projection: &'a [usize],
    /// Indexes into the table's schema; all of them are in the projection.
    pub(crate) keys: &'a [usize],
}

impl Wanted<'_> {
    /// Checks that keys are columns, and wanted.
    ///
    /// # Errors
    /// When one is not: a bug of the planner.
    pub(crate) fn check(&self, table: &TableDefinition) -> Result<(), ConnectorError> {
        let is_known = |key: &usize| self.projection.contains(key) && *key < table.schema.fields().len();
        if self.keys.is_empty() || !self.keys.iter().all(is_known) {
            let message = format!("table {} is looked up by columns that are not read", table.name);
            return Err(ConnectorError::new(message));
        }
        Ok(())
    }
}
