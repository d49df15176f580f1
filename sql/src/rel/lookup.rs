//! Joins with a table that is looked up.
//!
//! Its rows are made of the *joined row*: the columns of the input and then those of the table, under names that are unique
//! in it. `outputs` says which of them the relation has; the condition may name any.

use super::identity::Identity;
use super::needs::{Need, Needs};
use super::prepare::Prepared;
use super::{Names, Rel, RelColumn, RelId, RelKind, Rels, Role};
use crate::error::{Result, SqlError};
use crate::functions::ambient::draws_numbers;
use arrow::datatypes::DataType;
use std::collections::BTreeSet;
use tidemill_engine::lookup::LookupJoinKind;

/// How a table is looked up.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    /// The table, by its place in the catalog.
    pub(crate) table: usize,
    /// Those of its columns that are in the joined row, by their places in the table.
    pub(crate) columns: Vec<usize>,
    /// The names of the joined row.
    pub(crate) names: Vec<String>,
    /// What must be equal: a column of the input, and one of the table by its place in `columns`.
    pub(crate) keys: Vec<(usize, usize)>,
    pub(crate) kind: LookupJoinKind,
    /// What must be true besides, over the names of the joined row.
    pub(crate) residual: Option<Prepared>,
    /// The relation's columns, by their places in the joined row.
    pub(crate) outputs: Vec<usize>,
}

impl Lookup {
    /// Returns how many columns of the joined row are the input's.
    pub(crate) fn width(&self) -> usize {
        self.names.len() - self.columns.len()
    }

    /// Returns what is read of the joined row when so many of the relation's columns are.
    ///
    /// # Errors
    /// When the condition names a column that is not there: a bug.
    fn reads(&self, kept: &Needs) -> Result<BTreeSet<usize>> {
        let mut places: BTreeSet<usize> = kept.keys().map(|output| self.outputs[*output]).collect();
        for (of_input, of_table) in &self.keys {
            places.extend([*of_input, self.width() + of_table]);
        }
        for column in self.residual.iter().flat_map(|residual| residual.expr.column_refs()) {
            let place = self.names.iter().position(|name| *name == column.name);
            places.insert(place.ok_or_else(|| SqlError::internal(format!("the column {} was lost", column.name)))?);
        }
        Ok(places)
    }

    /// Returns what is needed of the input.
    ///
    /// # Errors
    /// Only on a bug.
    pub(crate) fn needs(&self, kept: &Needs) -> Result<Needs> {
        let places = self.reads(kept)?;
        let of_input = places.into_iter().filter(|place| *place < self.width());
        Ok(of_input.map(|place| (place, Need::All)).collect())
    }

    /// Leaves out what nobody reads; `has` are the columns that the input still has.
    ///
    /// # Errors
    /// Only on a bug.
    pub(crate) fn pruned(&self, kept: &Needs, has: &Needs) -> Result<Self> {
        let width = self.width();
        let of_table = self.reads(kept)?.into_iter().filter(|place| *place >= width);
        let places: Vec<usize> = has.keys().copied().chain(of_table).collect();
        let moved = |place: usize| {
            let found = places.iter().position(|known| *known == place);
            found.ok_or_else(|| SqlError::internal("a column of a lookup join was lost"))
        };
        let columns = places.iter().filter_map(|place| place.checked_sub(width));
        let keys = self
            .keys
            .iter()
            .map(|(of_input, of_table)| Ok((moved(*of_input)?, moved(width + of_table)? - has.len())));
        Ok(Self {
            table: self.table,
            columns: columns.map(|place| self.columns[place]).collect(),
            names: places.iter().map(|place| self.names[*place].clone()).collect(),
            keys: keys.collect::<Result<_>>()?,
            kind: self.kind,
            residual: self.residual.clone(),
            outputs: kept
                .keys()
                .map(|output| moved(self.outputs[*output]))
                .collect::<Result<_>>()?,
        })
    }
}

impl Rels {
    /// Makes the joined row of an input and columns of a table, for conditions.
    pub(crate) fn joined_row(&self, input: RelId, table: &str, columns: &[(String, DataType)]) -> Rel {
        let source = self.get(input);
        let mut names = Names::default();
        let mut joined = source.columns.clone();
        joined.iter().for_each(|column| {
            names.unique(&column.name);
        });
        for (name, data_type) in columns {
            joined.push(RelColumn {
                name: names.unique(name),
                data_type: data_type.clone(),
                identity: Identity::of(&["lookup", source.rows.text(), table, name]),
                role: Role::Plain,
            });
        }
        Rel {
            kind: RelKind::Table(0),
            columns: joined,
            rows: source.rows.clone(),
            changes: source.changes,
        }
    }

    /// Adds a join with a table that is looked up, with all columns of the joined row.
    pub(crate) fn lookup_join(&mut self, input: RelId, table: &str, row: Rel, lookup: Lookup) -> RelId {
        let text = |place: usize| row.columns[place].identity.text().to_owned();
        let mut words = vec!["lookup-join".to_owned(), row.rows.text().to_owned(), table.to_owned()];
        words.push(format!("{:?}", lookup.kind));
        for (of_input, of_table) in &lookup.keys {
            words.push(format!("{} = {}", text(*of_input), text(lookup.width() + of_table)));
        }
        words.extend(
            lookup
                .residual
                .iter()
                .map(|residual| residual.identity.text().to_owned()),
        );
        let rows = Identity::of(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let mut columns = row.columns;
        for column in &mut columns[lookup.width()..] {
            column.identity = Identity::of(&["of", rows.text(), column.identity.text(), &column.name]);
        }
        let mut key = format!("lookup-join {} {}", input.0, rows.text());
        if lookup
            .residual
            .as_ref()
            .is_some_and(|residual| draws_numbers(&residual.expr))
        {
            // Every use draws its own numbers.
            key = format!("{key} volatile {}", self.len());
        }
        let kind = RelKind::LookupJoin {
            input,
            lookup: Box::new(lookup),
        };
        self.add(
            key,
            Rel {
                kind,
                columns,
                rows,
                changes: false,
            },
        )
    }
}
