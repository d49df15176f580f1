//! Joins with a table as of a time.

use super::relation::check_alias;
use super::{Whitelist, expr};
use crate::error::{Position, Result};
use crate::script::start_of;
use sqlparser::ast::{Join, JoinConstraint, JoinOperator, Spanned, TableFactor, TableVersion};

const HINT: &str = "write stream [LEFT] JOIN table FOR SYSTEM_TIME AS OF stream.time ON stream.key = table.key";

/// Checks a join with a table as of a time; false when it is another join.
pub(super) fn check_join(list: &Whitelist<'_>, join: &Join, at: Option<Position>) -> Result<bool> {
    let Join {
        relation,
        global,
        join_operator,
    } = join;
    let TableFactor::Table {
        name,
        alias,
        args,
        with_hints,
        version: Some(version),
        with_ordinality,
        partitions,
        json_path,
        sample,
        index_hints,
    } = relation
    else {
        return Ok(false);
    };
    let here = start_of(relation.span()).or(at);
    let words = &["FOR", "VERSION", "TIMESTAMP", "AT", "CHANGES"];
    let TableVersion::ForSystemTimeAsOf(time) = version else {
        return Err(list.unknown(here, words, "this version of a table", HINT));
    };
    if args.is_some() || name.0.len() != 1 || name.0[0].as_ident().is_none() {
        return Err(list.unknown(here, words, "FOR SYSTEM_TIME AS OF behind anything but a table", HINT));
    }
    if sample.is_some() || !with_hints.is_empty() || !index_hints.is_empty() {
        return Err(list.unknown(
            here,
            &["TABLESAMPLE", "WITH", "USE"],
            "this clause behind a table",
            "remove it",
        ));
    }
    if *with_ordinality || !partitions.is_empty() || json_path.is_some() || *global {
        return Err(list.unknown(here, &["WITH", "PARTITION"], "this clause behind a table", "remove it"));
    }
    check_alias(alias.as_ref())?;
    let condition = match join_operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint) => match constraint {
            JoinConstraint::On(condition) => condition,
            JoinConstraint::Using(_) | JoinConstraint::Natural | JoinConstraint::None => {
                return Err(list.not_yet(here, &[], "a join as of a time without ON", HINT));
            }
        },
        _ => {
            let what = "a join as of a time that is neither INNER nor LEFT";
            return Err(list.unknown(
                here,
                &[],
                what,
                "the table is looked up for each row of the stream, never the other way",
            ));
        }
    };
    expr::check(list, time, expr::Place::Row)?;
    expr::check(list, condition, expr::Place::Row)?;
    Ok(true)
}
