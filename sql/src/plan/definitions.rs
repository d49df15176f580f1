//! What a text declares beyond plain tables and views, and what it drops: `LIKE`, `AS SELECT`, options in hints, `DROP`.

use super::Planner;
use crate::error::{Position, Result, SqlError};
use crate::functions::nearest;
use crate::hints;
use crate::rel::{RelId, RelKind};
use crate::settings::Settings;
use crate::statement::{
    ColumnDefinition, ColumnKind, CreateFunction, CreateTable, Drop, Explained, Insert, Kind, Name, Statement,
    TableOption,
};
use crate::types::{SqlType, can_be_column, sql_name};

impl Planner<'_> {
    /// Checks that a new table or view may have a name.
    pub(super) fn check_free(&self, name: &Name) -> Result<()> {
        self.catalog.check_free(&name.value, name.at)?;
        match self.catalog.scanned(&name.value) {
            Some((index, _)) if self.is_used(index) => Err(SqlError::at(
                name.at,
                format!("a statement above uses the table {} that was dropped", name.value),
            )
            .hint("a text is one job, in which a name means one table: choose another name")),
            _ => Ok(()),
        }
    }

    /// Says whether a statement so far reads or writes a table.
    fn is_used(&self, index: usize) -> bool {
        let reads = |id| match &self.rels.get(RelId(id)).kind {
            RelKind::Table(table) => *table == index,
            RelKind::LookupJoin { lookup, .. } => lookup.table == index,
            _ => false,
        };
        let outputs = self
            .outputs
            .iter()
            .chain(self.explained.iter().map(|(_, output)| output));
        (0..self.rels.len()).any(reads) || outputs.into_iter().any(|output| output.table == Some(index))
    }

    /// Returns what `LIKE` makes of a definition; `None` when there is no `LIKE`.
    pub(super) fn like(&self, create: &CreateTable) -> Result<Option<CreateTable>> {
        let Some(like) = &create.like else { return Ok(None) };
        let name = &like.table;
        if self.catalog.view(&name.value).is_some() {
            return Err(SqlError::at(name.at, format!("{} is a view", name.value))
                .hint("LIKE repeats a table; write CREATE TABLE ... AS SELECT for the columns of a view"));
        }
        match self.catalog.table(&name.value) {
            Some((_, other)) => like.merge(create.clone(), &other.definition).map(Some),
            None => Err(self.catalog.no_such_table(&name.value, name.at)),
        }
    }

    /// Declares a table with the columns of its query, and fills it.
    pub(super) fn create_table_as(&mut self, at: Option<Position>, mut create: CreateTable) -> Result<()> {
        let Some(query) = create.query.take() else {
            return Err(SqlError::internal("a table without its query"));
        };
        if create.if_not_exists && self.catalog.is_taken(&create.name.value) {
            return Ok(());
        }
        let plan = self.query(&query)?;
        let rel = self.lower(at, &plan)?;
        for column in &self.rels.get(rel).columns {
            let name = Name {
                value: column.name.clone(),
                at: create.name.at,
            };
            if !can_be_column(&column.data_type) {
                let found = sql_name(&column.data_type);
                let message = format!("column {} of the query is {found}, which no table holds", column.name);
                return Err(SqlError::at(create.name.at, message).hint("cast it in the query"));
            }
            let kind = ColumnKind::Physical {
                sql_type: SqlType::from(column.data_type.clone()),
                nullable: true,
            };
            let comment = None;
            create.columns.push(ColumnDefinition { name, kind, comment });
        }
        self.create_table(&create)?;
        let table = create.name;
        let columns = Vec::new();
        self.run(at, &Insert { table, columns, query })
    }

    /// Gives a function of the program's own a name.
    pub(super) fn create_function(&mut self, create: &CreateFunction) -> Result<()> {
        let name = create.name.value.to_lowercase();
        if create.if_not_exists && self.functions.user_names().contains(&name) {
            return Ok(());
        }
        let registered = &create.registered;
        let scalar = self.user_functions.udf(&registered.value, &name);
        let aggregate = self.user_functions.aggregate(&registered.value);
        let is_new = match (scalar, aggregate) {
            (Some(function), _) => self.functions.add(function),
            (None, Some(function)) => self.functions.add_aggregate(&name, function),
            (None, None) => return Err(self.not_registered(registered)),
        };
        if !is_new {
            return Err(
                SqlError::at(create.name.at, format!("there is already a function {name}"))
                    .hint("choose another name; functions are not case-sensitive"),
            );
        }
        Ok(())
    }

    /// Returns the error of a name that no function of the program has.
    fn not_registered(&self, registered: &Name) -> SqlError {
        let message = format!("no function '{}' is registered", registered.value);
        let names: Vec<&str> = self.user_functions.names().collect();
        SqlError::at(registered.at, message).hint(match names.as_slice() {
            [] => "functions come from a Rust program that runs the text with tidemill::run_sql_job".to_owned(),
            names => format!("the program registers {}", names.join(", ")),
        })
    }

    /// Takes the name of a table or view away. What stands above keeps it.
    pub(super) fn drop(&mut self, drop: &Drop) -> Result<()> {
        let name = &drop.name.value;
        let table = self.catalog.table(name).map(|(index, _)| index);
        let is_view = self.catalog.view(name).is_some();
        match (drop.kind, table, is_view) {
            (Kind::Table, Some(index), _) => self.catalog.drop_table(index),
            (Kind::View, _, true) => {
                self.catalog.drop_view(name);
            }
            (_, None, false) if drop.if_exists => {}
            (_, None, false) => return Err(self.catalog.no_such_table(name, drop.name.at)),
            (kind, ..) => {
                let other = match kind {
                    Kind::Table => Kind::View,
                    Kind::View => Kind::Table,
                };
                return Err(SqlError::at(drop.name.at, format!("{name} is a {}", other.word()))
                    .hint(format!("write DROP {} {name}", other.word().to_uppercase())));
            }
        }
        Ok(())
    }

    /// Takes back what was set: one key, or all.
    pub(super) fn reset(&mut self, key: Option<Name>) -> Result<()> {
        let Some(key) = key else {
            self.set_options.clear();
            self.settings = Settings::default();
            return Ok(());
        };
        let is_set = |name: &str| self.set_options.iter().any(|option| option.key.value == name);
        if !is_set(&key.value) {
            let error = SqlError::at(key.at, format!("'{}' is not set above", key.value));
            let known = self.set_options.iter().map(|option| option.key.value.as_str());
            return Err(match nearest(&key.value, known) {
                Some(nearest) => error.hint(format!("did you mean '{nearest}'?")),
                None => error.hint("every text begins with the defaults: remove the RESET"),
            });
        }
        self.set_options.retain(|option| option.key.value != key.value);
        self.settings = Settings::default();
        for option in &self.set_options {
            self.settings.set(option)?;
        }
        Ok(())
    }

    /// Puts the options that stand in hints into effect.
    pub(super) fn apply_hints(&mut self, statement: &mut Statement) -> Result<()> {
        let mut hints = std::mem::take(&mut self.hints);
        let applied = self.apply(statement, &mut hints);
        self.hints = hints;
        applied
    }

    fn apply(&mut self, statement: &mut Statement, hints: &mut hints::Hints) -> Result<()> {
        let (table, query) = match statement {
            Statement::Insert(insert) | Statement::Explain(Explained::Insert(insert)) => {
                (Some(&mut insert.table), &mut insert.query)
            }
            Statement::Explain(Explained::Query(query)) => (None, query),
            Statement::CreateView(view) => (None, &mut view.query),
            Statement::CreateTable(create) => match &mut create.query {
                Some(query) => (None, query),
                None => return Ok(()),
            },
            Statement::CreateFunction(_)
            | Statement::Drop(_)
            | Statement::Show(_)
            | Statement::Set(_)
            | Statement::Reset(_) => return Ok(()),
        };
        if let Some(table) = table {
            let options = hints.options_at(table.at)?;
            if !options.is_empty() {
                table.value = self.with_options(table, options)?;
            }
        }
        hints::apply(query, hints, &mut |name, options| self.with_options(name, options))
    }

    /// Declares a table with other options, if it is not there yet; returns its name.
    fn with_options(&mut self, name: &Name, options: Vec<TableOption>) -> Result<String> {
        let Some((_, table)) = self.catalog.table(&name.value) else {
            if self.catalog.view(&name.value).is_some() {
                return Err(
                    SqlError::at(name.at, format!("{} is a view and has no options", name.value))
                        .hint("write OPTIONS behind the name of a table, in the view's query"),
                );
            }
            return Err(self.catalog.no_such_table(&name.value, name.at));
        };
        let with = hints::name_with(&name.value, &options);
        if self.catalog.is_taken(&with) {
            return Ok(with);
        }
        let mut definition = table.definition.clone();
        let overwritten = |known: &TableOption| options.iter().any(|option| option.key.value == known.key.value);
        definition.options.retain(|known| !overwritten(known));
        definition.options.extend(options);
        definition.name = Name {
            value: with.clone(),
            at: name.at,
        };
        let mut table = self.table(&definition)?;
        table.declared = Some(name.value.clone());
        self.catalog.add_table(table)?;
        Ok(with)
    }
}
