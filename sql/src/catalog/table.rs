//! A table, made of its `CREATE TABLE`.

use crate::duration::parse_duration;
use crate::error::{Position, Result, SqlError};
use crate::rel::identity::Identity;
use crate::rel::{Rel, RelColumn, RelKind, Role};
use crate::statement::{ColumnKind, CreateTable, Name};
use crate::types::SqlType;
use crate::window_function::interval_ms;
use arrow::datatypes::{DataType, Field, Schema};
use sqlparser::ast::{BinaryOperator, Expr as SqlAst};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_connectors::{ConnectorError, MetadataColumn, TableDefinition};
use tidemill_engine::graph::{WEIGHT, weight_field};

/// Options that the planner reads; all others are the connector's.
const IDLE_TIMEOUT: &str = "scan.watermark.idle-timeout";
const MAX_DRIFT: &str = "scan.watermark.alignment.max-drift";

/// Where a column's values come from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    Physical,
    Metadata { key: String, is_virtual: bool },
    Computed { expr: Box<SqlAst>, at: Option<Position> },
}

/// A column of a table.
#[derive(Clone, Debug)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    pub(crate) sql_type: SqlType,
    pub(crate) nullable: bool,
    pub(crate) origin: Origin,
}

impl TableColumn {
    /// Says whether the connector gives the column.
    pub(crate) fn is_physical(&self) -> bool {
        !matches!(self.origin, Origin::Computed { .. })
    }

    /// Says whether the column is written.
    pub(crate) fn is_written(&self) -> bool {
        matches!(
            self.origin,
            Origin::Physical | Origin::Metadata { is_virtual: false, .. }
        )
    }
}

/// `WATERMARK FOR column AS column - delay`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableWatermark {
    pub(crate) column: usize,
    pub(crate) delay_ms: i64,
}

/// A table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) name: Name,
    /// The name of the table of which this is a variation, with other options: see [`crate::hints`].
    pub(crate) declared: Option<String>,
    /// The statement that made it.
    pub(crate) definition: CreateTable,
    pub(crate) columns: Vec<TableColumn>,
    /// Computed columns over the other ones; set by the planner, by column.
    pub(crate) computed: BTreeMap<usize, crate::rel::prepare::Prepared>,
    pub(crate) watermark: Option<TableWatermark>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_drift_ms: Option<i64>,
    primary_key: Vec<String>,
    partition_keys: Vec<String>,
    options: BTreeMap<String, Name>,
}

impl Table {
    /// Makes a table. The types of computed columns are still to be found, and then the watermark.
    ///
    /// # Errors
    /// When columns or options are named twice or do not exist.
    pub(crate) fn new(create: &CreateTable) -> Result<Self> {
        let mut columns: Vec<TableColumn> = Vec::new();
        for definition in &create.columns {
            let Name { value: name, at } = definition.name.clone();
            if name == WEIGHT {
                return Err(SqlError::at(at, format!("no column can be named {name}")).hint("choose another name"));
            }
            if columns.iter().any(|known| known.name == name) {
                return Err(SqlError::at(at, format!("column {name} is declared twice")).hint("rename one of them"));
            }
            let (sql_type, nullable, origin) = match &definition.kind {
                ColumnKind::Physical { sql_type, nullable } => (sql_type.clone(), *nullable, Origin::Physical),
                ColumnKind::Metadata {
                    sql_type,
                    nullable,
                    key,
                    is_virtual,
                } => {
                    let origin = Origin::Metadata {
                        key: key.clone(),
                        is_virtual: *is_virtual,
                    };
                    (sql_type.clone(), *nullable, origin)
                }
                ColumnKind::Computed { expr, at } => (
                    DataType::Null.into(),
                    true,
                    Origin::Computed {
                        expr: expr.clone(),
                        at: *at,
                    },
                ),
            };
            columns.push(TableColumn {
                name,
                sql_type,
                nullable,
                origin,
            });
        }
        if !columns.iter().any(TableColumn::is_physical) {
            return Err(
                SqlError::at(create.name.at, "a table needs a column that is not computed")
                    .hint("declare the columns of the record"),
            );
        }
        let mut options = BTreeMap::new();
        let (mut idle_timeout, mut max_drift_ms) = (None, None);
        for option in &create.options {
            let (key, value) = (&option.key, &option.value);
            let duration = || {
                parse_duration(&value.value).ok_or_else(|| {
                    SqlError::at(value.at, format!("'{}' is not a duration", value.value))
                        .hint("write '30 s' or '5 min'")
                })
            };
            match key.value.as_str() {
                IDLE_TIMEOUT => idle_timeout = Some(duration()?).filter(|timeout| !timeout.is_zero()),
                MAX_DRIFT => max_drift_ms = Some(i64::try_from(duration()?.as_millis()).unwrap_or(i64::MAX)),
                other if other.starts_with("scan.watermark.") => {
                    return Err(
                        SqlError::at(key.at, format!("the option '{other}' is not supported yet")).hint(format!(
                            "supported: '{IDLE_TIMEOUT}' and '{MAX_DRIFT}', which aligns the table's splits"
                        )),
                    );
                }
                _ => {
                    if options
                        .insert(
                            key.value.clone(),
                            Name {
                                value: value.value.clone(),
                                at: key.at,
                            },
                        )
                        .is_some()
                    {
                        return Err(SqlError::at(
                            key.at,
                            format!("the option '{}' is given twice", key.value),
                        ));
                    }
                }
            }
        }
        let column_names = |names: &[Name], what: &str| -> Result<Vec<String>> {
            let mut found = Vec::new();
            for name in names {
                match columns.iter().find(|column| column.name == name.value) {
                    Some(column) if column.is_physical() && !found.contains(&name.value) => {
                        found.push(name.value.clone());
                    }
                    Some(column) if column.is_physical() => {
                        return Err(SqlError::at(
                            name.at,
                            format!("{what} names column {} twice", name.value),
                        ));
                    }
                    Some(_) => {
                        return Err(SqlError::at(
                            name.at,
                            format!("{what} cannot name the computed column {}", name.value),
                        ));
                    }
                    None => return Err(no_such_column(&columns, name)),
                }
            }
            Ok(found)
        };
        let primary_key = column_names(&create.primary_key, "PRIMARY KEY")?;
        let partition_keys = column_names(&create.partition_keys, "PARTITIONED BY")?;
        for column in &mut columns {
            // As in Flink, a key's columns are never null.
            column.nullable &= !primary_key.contains(&column.name);
        }
        let name = create.name.clone();
        let computed = BTreeMap::new();
        let watermark = None;
        Ok(Self {
            name,
            declared: None,
            definition: create.clone(),
            columns,
            computed,
            watermark,
            idle_timeout,
            max_drift_ms,
            primary_key,
            partition_keys,
            options,
        })
    }

    /// Sets the watermark, once the types of all columns are known.
    ///
    /// # Errors
    /// When it is not `column` or `column - INTERVAL`, or the column is no timestamp.
    pub(crate) fn set_watermark(&mut self, create: &CreateTable) -> Result<()> {
        let Some(definition) = &create.watermark else {
            if self.idle_timeout.is_some() || self.max_drift_ms.is_some() {
                return Err(
                    SqlError::at(self.name.at, "the table has options of a watermark and no watermark")
                        .hint("add WATERMARK FOR column AS column - INTERVAL '2' SECOND"),
                );
            }
            return Ok(());
        };
        let name = &definition.column;
        let Some(column) = self.columns.iter().position(|column| column.name == name.value) else {
            return Err(no_such_column(&self.columns, name));
        };
        let found = &self.columns[column].sql_type.data_type;
        if !matches!(found, DataType::Timestamp(..)) {
            let message = format!(
                "the watermark's column must be a TIMESTAMP, and {} is {}",
                name.value,
                crate::types::sql_name(found)
            );
            return Err(SqlError::at(name.at, message)
                .hint("compute one: ts AS TO_TIMESTAMP_LTZ(millis, 3), and write WATERMARK FOR ts AS ts - ..."));
        }
        let computed = self.computed.get(&column);
        if computed.is_some_and(|computed| computed.role == Role::ProcessingTime) {
            let message = format!("{} is a processing time, which has no watermark", name.value);
            return Err(SqlError::at(name.at, message).hint(
                "a window over it ends by the wall clock: leave WATERMARK FOR out, or take the time from the record",
            ));
        }
        let is_column = |expr: &SqlAst| matches!(expr, SqlAst::Identifier(ident) if ident.value == name.value);
        let refusal = || {
            SqlError::at(definition.at, "this watermark is not supported").hint(format!(
                "write WATERMARK FOR {0} AS {0} or WATERMARK FOR {0} AS {0} - INTERVAL '2' SECOND",
                name.value
            ))
        };
        let delay_ms = match &definition.expr {
            expr if is_column(expr) => 0,
            SqlAst::BinaryOp {
                left,
                op: BinaryOperator::Minus,
                right,
            } if is_column(left) => interval_ms(right).map_err(|error| error.or_at(definition.at))?,
            _ => return Err(refusal()),
        };
        if delay_ms < 0 {
            return Err(refusal());
        }
        self.watermark = Some(TableWatermark { column, delay_ms });
        Ok(())
    }

    /// Returns the columns as a relation shows them.
    pub(crate) fn rel_columns(&self) -> Vec<RelColumn> {
        let column = |(index, column): (usize, &TableColumn)| {
            let mut words = vec!["column", self.name.value.as_str(), column.name.as_str()];
            let mut role = Role::Plain;
            if let Some(computed) = self.computed.get(&index) {
                words.push(computed.identity.text());
                if computed.role == Role::ProcessingTime {
                    role = Role::ProcessingTime;
                }
            }
            if self.watermark.is_some_and(|watermark| watermark.column == index) {
                role = Role::EventTime;
            }
            RelColumn {
                name: column.name.clone(),
                data_type: column.sql_type.data_type.clone(),
                identity: Identity::of(&words),
                role,
            }
        };
        self.columns.iter().enumerate().map(column).collect()
    }

    /// Returns the columns that the connector gives as a relation, for computed columns.
    pub(crate) fn physical_rel(&self) -> Rel {
        let name = &self.name.value;
        let column = |column: &TableColumn| RelColumn {
            name: column.name.clone(),
            data_type: column.sql_type.data_type.clone(),
            identity: Identity::of(&["column", name, &column.name]),
            role: Role::Plain,
        };
        Rel {
            kind: RelKind::Table(0),
            columns: self
                .columns
                .iter()
                .filter(|column| column.is_physical())
                .map(column)
                .collect(),
            rows: Identity::of(&["table", name]),
            changes: false,
        }
    }

    /// Returns the table as its connector reads it, with the places of its columns in the table.
    pub(crate) fn source_definition(&self) -> (TableDefinition, Vec<usize>) {
        self.definition(TableColumn::is_physical)
    }

    /// Returns the table as its connector writes it, with the places of its columns in the table.
    pub(crate) fn sink_definition(&self) -> (TableDefinition, Vec<usize>) {
        self.definition(TableColumn::is_written)
    }

    /// Returns the names of the columns of the primary key; empty without one.
    pub(crate) fn primary_key(&self) -> &[String] {
        &self.primary_key
    }

    /// Returns the table as its connector writes the changes of a result into it.
    pub(crate) fn changes_definition(&self) -> TableDefinition {
        let (definition, _) = self.sink_definition();
        let fields = definition.schema.fields().iter().map(|field| field.as_ref().clone());
        let schema = Schema::new(fields.chain([weight_field()]).collect::<Vec<_>>());
        TableDefinition {
            schema: Arc::new(schema),
            ..definition
        }
    }

    fn definition(&self, keep: fn(&TableColumn) -> bool) -> (TableDefinition, Vec<usize>) {
        let places: Vec<usize> = (0..self.columns.len())
            .filter(|index| keep(&self.columns[*index]))
            .collect();
        let kept = || places.iter().map(|place| &self.columns[*place]);
        let field = |c: &TableColumn| Field::new(&c.name, c.sql_type.data_type.clone(), c.nullable);
        let metadata = |column: &TableColumn| match &column.origin {
            Origin::Metadata { key, .. } => Some(MetadataColumn {
                column: column.name.clone(),
                key: key.clone(),
            }),
            _ => None,
        };
        let definition = TableDefinition {
            name: self.shown_name().to_owned(),
            schema: Arc::new(Schema::new(kept().map(field).collect::<Vec<_>>())),
            metadata_columns: kept().filter_map(metadata).collect(),
            options: self
                .options
                .iter()
                .map(|(key, value)| (key.clone(), value.value.clone()))
                .collect(),
            partition_keys: self.partition_keys.clone(),
            primary_key: self.primary_key.clone(),
        };
        (definition, places)
    }

    /// Returns the name that the text declares.
    pub(crate) fn shown_name(&self) -> &str {
        self.declared.as_deref().unwrap_or(&self.name.value)
    }

    /// Returns the name of the table's connector; empty when it has none.
    pub(crate) fn connector(&self) -> &str {
        self.options.get("connector").map_or("", |name| name.value.as_str())
    }

    /// Turns a connector's refusal into ours, at the option it is about.
    pub(crate) fn connector_error(&self, error: &ConnectorError) -> SqlError {
        let at = error
            .option
            .as_ref()
            .and_then(|option| self.options.get(option))
            .and_then(|value| value.at);
        let message = match &error.option {
            Some(option) => format!("table {}: option '{option}': {}", self.shown_name(), error.message),
            None => format!("table {}: {}", self.shown_name(), error.message),
        };
        let refusal = SqlError::at(at.or(self.name.at), message);
        match &error.hint {
            Some(hint) => refusal.hint(hint),
            None => refusal,
        }
    }
}

fn no_such_column(columns: &[TableColumn], name: &Name) -> SqlError {
    let error = SqlError::at(name.at, format!("there is no column {}", name.value));
    match crate::functions::nearest(&name.value, columns.iter().map(|column| column.name.as_str())) {
        Some(nearest) => error.hint(format!("did you mean {nearest}? names are case-sensitive")),
        None => error,
    }
}
