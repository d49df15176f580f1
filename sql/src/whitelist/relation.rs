//! What stands in FROM.

use super::{Whitelist, expr, expr_start, join, query};
use crate::error::{Position, Result, SqlError};
use crate::script::start_of;
use crate::unnest;
use crate::window_function::{self, WindowFunction};
use sqlparser::ast::{Expr, ObjectName, TableAlias, TableFactor, TableFunctionArgs, TableWithJoins};

pub(super) fn check_from(list: &Whitelist<'_>, from: &[TableWithJoins], at: Option<Position>) -> Result<()> {
    if from.is_empty() {
        return Err(SqlError::at(at, "a query without FROM reads no stream").hint("add FROM table"));
    }
    join::check_number(from, at)?;
    for TableWithJoins { relation, joins } in from {
        check_factor(list, relation, at)?;
        if let [join] = joins.as_slice()
            && let Some(elements) = unnest::of_join(join)?
        {
            check_alias(elements.alias.as_ref())?;
            expr::check(list, &elements.of, expr::Place::Row)?;
            continue;
        }
        let behind = crate::script::position(sqlparser::ast::Spanned::span(relation).end).or(at);
        join::check(list, joins, behind)?;
    }
    Ok(())
}

const LATERAL_HINT: &str = "join with a query that does not refer to the tables beside it";

pub(super) fn check_factor(list: &Whitelist<'_>, factor: &TableFactor, at: Option<Position>) -> Result<()> {
    let here = start_of(sqlparser::ast::Spanned::span(factor)).or(at);
    match factor {
        TableFactor::Table {
            name,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            if version.is_some() {
                let hint = "a table is joined as of a time: stream JOIN table FOR SYSTEM_TIME AS OF stream.ts ON ...";
                let words = &["FOR", "VERSION", "TIMESTAMP"];
                return Err(list.not_yet(here, words, "FOR SYSTEM_TIME AS OF outside of a join", hint));
            }
            if sample.is_some() {
                let words = &["TABLESAMPLE", "SAMPLE"];
                return Err(list.unknown(here, words, "TABLESAMPLE", "filter with WHERE RANDOM() < 0.1"));
            }
            if !with_hints.is_empty() || !index_hints.is_empty() {
                let words = &["WITH", "USE", "FORCE", "IGNORE"];
                return Err(list.unknown(here, words, "a hint behind a table", "remove it"));
            }
            if *with_ordinality || !partitions.is_empty() || json_path.is_some() {
                let words = &["WITH", "PARTITION"];
                return Err(list.unknown(here, words, "this clause behind a table", "remove it"));
            }
            check_alias(alias.as_ref())?;
            match args {
                Some(TableFunctionArgs { args, settings: None }) => check_function(name, args, here),
                Some(_) => Err(list.unknown(here, &["SETTINGS"], "SETTINGS", "remove it")),
                None => check_name(name, here),
            }
        }
        TableFactor::Derived {
            lateral,
            subquery,
            alias,
            sample,
        } => {
            if *lateral {
                let at = list.script.back_to(here, &["LATERAL"], 2);
                return Err(list.not_yet(at, &[], "LATERAL", LATERAL_HINT));
            }
            if sample.is_some() {
                let words = &["TABLESAMPLE", "SAMPLE"];
                return Err(list.unknown(here, words, "TABLESAMPLE", "filter with WHERE RANDOM() < 0.1"));
            }
            check_alias(alias.as_ref())?;
            query::check(list, subquery)
        }
        TableFactor::TableFunction { expr, alias } => {
            check_alias(alias.as_ref())?;
            let Expr::Function(function) = expr else {
                let at = expr_start(expr).or(here);
                return Err(list.unknown(at, &[], "this inside TABLE(...)", window_function::HINT));
            };
            let parts = window_function::call_of(function)?;
            check_function(&function.name, parts, here)
        }
        TableFactor::NestedJoin {
            table_with_joins,
            alias,
        } => {
            check_alias(alias.as_ref())?;
            check_from(list, std::slice::from_ref(table_with_joins.as_ref()), at)
        }
        TableFactor::Function { lateral, .. } => {
            let words = if *lateral { &["LATERAL"] } else { &["TABLE"] };
            Err(list.not_yet(here, words, "a table function", window_function::HINT))
        }
        TableFactor::UNNEST { .. } => {
            let hint = "write FROM t CROSS JOIN UNNEST(t.list) AS e (x): the array is of a table before it";
            Err(list.unknown(here, &["UNNEST"], "UNNEST without a table before it", hint))
        }
        TableFactor::MatchRecognize { .. } => {
            let hint = "aggregate in windows instead";
            Err(list.not_yet(here, &["MATCH_RECOGNIZE"], "MATCH_RECOGNIZE", hint))
        }
        TableFactor::JsonTable { .. }
        | TableFactor::OpenJsonTable { .. }
        | TableFactor::Pivot { .. }
        | TableFactor::Unpivot { .. }
        | TableFactor::XmlTable { .. }
        | TableFactor::SemanticView { .. } => {
            let words = &[
                "PIVOT",
                "UNPIVOT",
                "JSON_TABLE",
                "OPENJSON",
                "XMLTABLE",
                "SEMANTIC_VIEW",
            ];
            Err(list.unknown(
                here,
                words,
                "this table",
                "read a table, a view, a query or TABLE(TUMBLE(...))",
            ))
        }
    }
}

pub(super) fn check_alias(alias: Option<&TableAlias>) -> Result<()> {
    let Some(TableAlias {
        explicit: _,
        name,
        columns,
        at,
    }) = alias
    else {
        return Ok(());
    };
    if let Some(at) = at {
        return Err(SqlError::at(start_of(at.span), "this clause behind an alias is not supported").hint("remove it"));
    }
    match columns.iter().find(|column| column.data_type.is_some()) {
        Some(column) => Err(SqlError::at(
            start_of(column.name.span).or(start_of(name.span)),
            "the columns of an alias have no types",
        )
        .hint("write the names only")),
        None => Ok(()),
    }
}

fn check_name(name: &ObjectName, at: Option<Position>) -> Result<()> {
    if name.0.len() == 1 && name.0[0].as_ident().is_some() {
        return Ok(());
    }
    Err(SqlError::at(at, "names with a catalog or database are not supported")
        .hint("a job has one name space: write the table's name alone"))
}

fn check_function(name: &ObjectName, args: &[sqlparser::ast::FunctionArg], at: Option<Position>) -> Result<()> {
    check_name(name, at)?;
    WindowFunction::parse(name, args)
        .map(|_| ())
        .map_err(|error| error.or_at(at))
}
