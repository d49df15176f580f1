//! What `SHOW` and `DESCRIBE` say, as text.

use crate::catalog::{Catalog, Origin, Table};
use crate::error::Result;
use crate::functions::Functions;
use crate::statement::{ColumnKind, CreateTable, CreateView, Name, Show, Shown};
use crate::types::sql_name;
use std::fmt::Write as _;

/// Answers a statement.
///
/// # Errors
/// When it names no table or view.
pub(crate) fn answer(show: &Show, catalog: &Catalog, functions: &Functions) -> Result<String> {
    let fits = |name: &str| show.like.as_ref().is_none_or(|like| like.fits(name));
    let list = |heading: &str, names: Vec<String>| {
        let rows = names.into_iter().filter(|name| fits(name)).map(|name| vec![name]);
        table_of(&[heading], rows.collect())
    };
    let (tables, views) = catalog.names();
    match &show.what {
        Shown::Tables => {
            let mut names: Vec<String> = tables.iter().chain(&views).map(|name| (*name).to_owned()).collect();
            names.sort_unstable();
            Ok(list("table name", names))
        }
        Shown::Views => Ok(list("view name", views.iter().map(|name| (*name).to_owned()).collect())),
        Shown::Functions => {
            let mut names: Vec<String> = functions.scalar_names();
            names.extend(functions.aggregate_names());
            names.extend(functions.over_names());
            names.sort_unstable();
            names.dedup();
            Ok(list("function name", names))
        }
        Shown::UserFunctions => Ok(list("function name", functions.user_names())),
        Shown::Columns(name) => {
            let headings = ["name", "type", "null", "key", "extras", "watermark"];
            let rows = columns(name, catalog)?;
            Ok(table_of(
                &headings,
                rows.into_iter().filter(|row| fits(&row[0])).collect(),
            ))
        }
        Shown::CreateTable(name) => match catalog.table(&name.value) {
            Some((_, table)) => Ok(create_table(&table.definition)),
            None => Err(wrong_kind(name, catalog, "SHOW CREATE VIEW")),
        },
        Shown::CreateView(name) => match catalog.view(&name.value) {
            Some(view) => Ok(create_view(&view.definition)),
            None => Err(wrong_kind(name, catalog, "SHOW CREATE TABLE")),
        },
    }
}

fn wrong_kind(name: &Name, catalog: &Catalog, other: &str) -> crate::SqlError {
    if catalog.is_taken(&name.value) {
        let what = if catalog.view(&name.value).is_some() {
            "view"
        } else {
            "table"
        };
        return crate::SqlError::at(name.at, format!("{} is a {what}", name.value))
            .hint(format!("write {other} {}", name.value));
    }
    catalog.no_such_table(&name.value, name.at)
}

/// Returns a row of text for each column of a table or view.
fn columns(name: &Name, catalog: &Catalog) -> Result<Vec<Vec<String>>> {
    if let Some((_, table)) = catalog.table(&name.value) {
        return Ok((0..table.columns.len()).map(|index| column(table, index)).collect());
    }
    let Some(view) = catalog.view(&name.value) else {
        return Err(catalog.no_such_table(&name.value, name.at));
    };
    let row = |field: &arrow::datatypes::FieldRef| {
        let mut row = vec![field.name().clone(), sql_name(field.data_type()), "TRUE".to_owned()];
        row.resize(6, String::new());
        row
    };
    Ok(view.plan.schema().fields().iter().map(row).collect())
}

fn column(table: &Table, index: usize) -> Vec<String> {
    let column = &table.columns[index];
    let key = &table.definition.primary_key;
    let key = if key.iter().any(|name| name.value == column.name) {
        let names: Vec<&str> = key.iter().map(|name| name.value.as_str()).collect();
        format!("PRI({})", names.join(", "))
    } else {
        String::new()
    };
    let extras = match &column.origin {
        Origin::Physical => String::new(),
        Origin::Metadata { key, is_virtual } => {
            let word = if *is_virtual { " VIRTUAL" } else { "" };
            format!("METADATA FROM {}{word}", quoted(key))
        }
        Origin::Computed { expr, .. } => format!("AS {expr}"),
    };
    let mut sql_type = column.sql_type.text();
    let watermark = match (&table.watermark, &table.definition.watermark) {
        (Some(found), Some(definition)) if found.column == index => {
            sql_type.push_str(" *ROWTIME*");
            definition.expr.to_string()
        }
        _ => String::new(),
    };
    let null = if column.nullable { "TRUE" } else { "FALSE" };
    vec![column.name.clone(), sql_type, null.to_owned(), key, extras, watermark]
}

/// Writes rows under headings, each column as wide as its widest value.
fn table_of(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let width = |index: usize| {
        let values = rows.iter().map(|row| row[index].chars().count());
        values.chain([headings[index].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |values: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = values
            .zip(&widths)
            .map(|(value, width)| format!("{value:width$}"))
            .collect();
        let _ = writeln!(text, "{}", cells.join(" | ").trim_end());
    };
    line(&mut headings.iter().copied());
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    line(&mut rules.iter().map(String::as_str));
    for row in &rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn named(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Writes a table's statement.
fn create_table(create: &CreateTable) -> String {
    let mut elements: Vec<String> = Vec::new();
    for column in &create.columns {
        let mut text = named(&column.name.value);
        let not_null = |nullable: &bool| if *nullable { "" } else { " NOT NULL" };
        match &column.kind {
            ColumnKind::Physical { sql_type, nullable } => {
                let _ = write!(text, " {}{}", sql_type.text(), not_null(nullable));
            }
            ColumnKind::Metadata {
                sql_type,
                nullable,
                key,
                is_virtual,
            } => {
                let (not_null, word) = (not_null(nullable), if *is_virtual { " VIRTUAL" } else { "" });
                let _ = write!(
                    text,
                    " {}{not_null} METADATA FROM {}{word}",
                    sql_type.text(),
                    quoted(key)
                );
            }
            ColumnKind::Computed { expr, .. } => {
                let _ = write!(text, " AS {expr}");
            }
        }
        if let Some(comment) = &column.comment {
            let _ = write!(text, " COMMENT {}", quoted(comment));
        }
        elements.push(text);
    }
    if let Some(watermark) = &create.watermark {
        elements.push(format!(
            "WATERMARK FOR {} AS {}",
            named(&watermark.column.value),
            watermark.expr
        ));
    }
    let names = |names: &[Name]| {
        let names: Vec<String> = names.iter().map(|name| named(&name.value)).collect();
        names.join(", ")
    };
    if !create.primary_key.is_empty() {
        elements.push(format!("PRIMARY KEY ({}) NOT ENFORCED", names(&create.primary_key)));
    }
    let mut text = format!(
        "CREATE TABLE {} (\n  {}\n)",
        named(&create.name.value),
        elements.join(",\n  ")
    );
    if let Some(comment) = &create.comment {
        let _ = write!(text, " COMMENT {}", quoted(comment));
    }
    if !create.partition_keys.is_empty() {
        let _ = write!(text, " PARTITIONED BY ({})", names(&create.partition_keys));
    }
    let options: Vec<String> = create
        .options
        .iter()
        .map(|option| format!("{} = {}", quoted(&option.key.value), quoted(&option.value.value)))
        .collect();
    if !options.is_empty() {
        let _ = write!(text, " WITH (\n  {}\n)", options.join(",\n  "));
    }
    text.push('\n');
    text
}

/// Writes a view's statement.
fn create_view(create: &CreateView) -> String {
    let mut text = format!("CREATE VIEW {}", named(&create.name.value));
    if !create.columns.is_empty() {
        let columns: Vec<String> = create.columns.iter().map(|name| named(&name.value)).collect();
        let _ = write!(text, " ({})", columns.join(", "));
    }
    if let Some(comment) = &create.comment {
        let _ = write!(text, " COMMENT {}", quoted(comment));
    }
    let _ = writeln!(text, " AS {}", create.query);
    text
}
