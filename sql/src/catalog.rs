//! The tables and views of one text: the only things a query can name.
//!
//! There is no catalog behind it: no files, no URLs, no information schema.
//!
//! File map: `table` makes a table of its `CREATE TABLE`, `provider` and `elements` show the catalog to DataFusion's planner.

mod elements;
mod provider;
mod table;

pub(crate) use provider::Provider;
pub(crate) use table::{Origin, Table, TableColumn};

use crate::error::{Position, Result, SqlError};
use crate::functions::nearest;
use crate::statement::CreateView;
use arrow::datatypes::{Field, Schema};
use datafusion_expr::LogicalPlan;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// How the refusal of an unknown name begins.
pub(crate) const NO_TABLE: &str = "there is no table or view ";

/// What follows a table's name in the name of the table of its late rows.
const LATE: &str = "$late";

/// Returns the table whose late rows a name stands for.
pub(crate) fn of_late_rows(name: &str) -> Option<&str> {
    name.strip_suffix(LATE)
}

/// A view.
pub(crate) struct View {
    /// What it stands for; its columns have the view's names.
    pub(crate) plan: Arc<LogicalPlan>,
    /// The statement that made it.
    pub(crate) definition: CreateView,
}

/// The tables and views of a text.
#[derive(Default)]
pub(crate) struct Catalog {
    tables: Vec<Table>,
    /// The places of tables that no name leads to any more.
    dropped: BTreeSet<usize>,
    views: HashMap<String, View>,
    /// How many table references each view stands for.
    pub(crate) weights: HashMap<String, u64>,
}

impl Catalog {
    /// Adds a table.
    ///
    /// # Errors
    /// When the name is taken.
    pub(crate) fn add_table(&mut self, table: Table) -> Result<()> {
        self.check_free(&table.name.value, table.name.at)?;
        self.tables.push(table);
        Ok(())
    }

    /// Adds a view.
    pub(crate) fn add_view(&mut self, name: String, view: View, weight: u64) {
        self.weights.insert(name.clone(), weight.max(1));
        self.views.insert(name, view);
    }

    /// Checks that a name is free.
    ///
    /// # Errors
    /// When it is taken.
    pub(crate) fn check_free(&self, name: &str, at: Option<Position>) -> Result<()> {
        if of_late_rows(name).is_some() {
            let message = format!("names that end in {LATE} are those of the late rows of tables");
            return Err(SqlError::at(at, message).hint("choose another name"));
        }
        if self.is_taken(name) {
            let message = format!("there is already a table or view {name}");
            return Err(SqlError::at(at, message).hint("choose another name"));
        }
        Ok(())
    }

    /// Says whether a table or view has the name.
    pub(crate) fn is_taken(&self, name: &str) -> bool {
        self.table(name).is_some() || self.views.contains_key(name)
    }

    /// Returns a table and its place.
    pub(crate) fn table(&self, name: &str) -> Option<(usize, &Table)> {
        self.scanned(name).filter(|(index, _)| !self.dropped.contains(index))
    }

    /// Returns the newest table of a name and its place, also when it was dropped: views made before still read it.
    pub(crate) fn scanned(&self, name: &str) -> Option<(usize, &Table)> {
        let mut tables = self.tables.iter().enumerate().rev();
        tables.find(|(_, table)| table.name.value == name)
    }

    /// Takes the name of a table away.
    pub(crate) fn drop_table(&mut self, index: usize) {
        self.dropped.insert(index);
    }

    /// Takes a view away; what was made of it stays.
    pub(crate) fn drop_view(&mut self, name: &str) -> Option<View> {
        self.weights.remove(name);
        self.views.remove(name)
    }

    /// Returns the names of all tables and of all views, in order.
    pub(crate) fn names(&self) -> (BTreeSet<&str>, BTreeSet<&str>) {
        let tables = self.tables.iter().enumerate();
        let tables = tables.filter(|(index, table)| !self.dropped.contains(index) && table.declared.is_none());
        (
            tables.map(|(_, table)| table.name.value.as_str()).collect(),
            self.views.keys().map(String::as_str).collect(),
        )
    }

    /// Returns the table whose late rows a name stands for.
    ///
    /// # Errors
    /// When the table has none, for it has no watermark.
    pub(crate) fn late_rows_of(&self, name: &str) -> Option<Result<&Table>> {
        let (_, table) = self.table(of_late_rows(name)?)?;
        Some(match table.watermark {
            Some(_) => Ok(table),
            None => {
                let message = format!(
                    "table {} has no watermark, so none of its rows is late",
                    table.name.value
                );
                Err(SqlError::new(message).hint("add WATERMARK FOR column AS column - INTERVAL '2' SECOND"))
            }
        })
    }

    /// Returns how many columns the tables have.
    pub(crate) fn columns(&self) -> usize {
        self.tables.iter().map(|table| table.columns.len()).sum()
    }

    /// Returns the table at a place.
    pub(crate) fn table_at(&self, index: usize) -> &Table {
        &self.tables[index]
    }

    /// Returns a view.
    pub(crate) fn view(&self, name: &str) -> Option<&View> {
        self.views.get(name)
    }

    /// Makes the error of a name that is neither table nor view.
    pub(crate) fn no_such_table(&self, name: &str, at: Option<Position>) -> SqlError {
        let (tables, views) = self.names();
        let names = tables.into_iter().chain(views);
        let error = SqlError::at(at, format!("{NO_TABLE}{name}"));
        match nearest(name, names) {
            Some(nearest) => error.hint(format!("did you mean {nearest}? names are case-sensitive")),
            None => error.hint("declare it with CREATE TABLE before the statement that uses it"),
        }
    }
}

/// Returns the schema that queries see of a table.
pub(crate) fn query_schema(table: &Table) -> Schema {
    let field = |column: &TableColumn| Field::new(&column.name, column.sql_type.data_type.clone(), column.nullable);
    Schema::new(table.columns.iter().map(field).collect::<Vec<_>>())
}
