//! `CREATE TABLE ... LIKE table [(like options)]`.
//!
//! The columns that a record holds are always taken over; of the rest each feature goes by what is said of it. Without a
//! word, everything is taken over, and options that both tables have are the new table's: Flink's rules.

use super::{ColumnDefinition, ColumnKind, CreateTable, Name, parse_name};
use crate::error::{Position, Result, SqlError};
use crate::script::{from_parser, start_of};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

/// `LIKE table [(...)]`.
#[derive(Clone, Debug)]
pub(crate) struct Like {
    /// The table that is repeated.
    pub(crate) table: Name,
    strategies: Vec<(Strategy, Feature, Option<Position>)>,
}

/// What becomes of a feature of the other table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// It is taken over, and must not be there twice.
    Including,
    /// It is left out.
    Excluding,
    /// It is taken over where the new table has none of its own.
    Overwriting,
}

/// A feature of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Feature {
    All,
    Constraints,
    Distribution,
    Partitions,
    Generated,
    Options,
    Watermarks,
    Metadata,
}

impl Feature {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "ALL" => Self::All,
            "CONSTRAINTS" => Self::Constraints,
            "DISTRIBUTION" => Self::Distribution,
            "PARTITIONS" => Self::Partitions,
            "GENERATED" => Self::Generated,
            "OPTIONS" => Self::Options,
            "WATERMARKS" => Self::Watermarks,
            "METADATA" => Self::Metadata,
            _ => return None,
        })
    }
}

/// Parses what follows `LIKE`.
pub(super) fn parse(parser: &mut Parser<'_>) -> Result<Like> {
    let table = parse_name(parser)?;
    let mut strategies: Vec<(Strategy, Feature, Option<Position>)> = Vec::new();
    if parser.consume_token(&Token::LParen) {
        while parser.peek_token_ref().token != Token::RParen {
            let token = parser.next_token();
            let at = start_of(token.span);
            let strategy = match token.token.to_string().to_ascii_uppercase().as_str() {
                "INCLUDING" => Strategy::Including,
                "EXCLUDING" => Strategy::Excluding,
                "OVERWRITING" => Strategy::Overwriting,
                _ => {
                    return Err(SqlError::at(at, format!("expected a like option, found {token}"))
                        .hint("write INCLUDING, EXCLUDING or OVERWRITING and a feature"));
                }
            };
            let word = parser.next_token();
            let feature = Feature::parse(&word.token.to_string().to_ascii_uppercase());
            let Some(feature) = feature else {
                let at = start_of(word.span);
                return Err(SqlError::at(at, format!("{word} is no feature of a table")).hint(
                    "features are ALL, CONSTRAINTS, DISTRIBUTION, PARTITIONS, GENERATED, OPTIONS, WATERMARKS, METADATA",
                ));
            };
            let only_taken = matches!(
                feature,
                Feature::All | Feature::Constraints | Feature::Distribution | Feature::Partitions
            );
            if strategy == Strategy::Overwriting && only_taken {
                return Err(
                    SqlError::at(at, format!("{word} cannot be OVERWRITING")).hint("write INCLUDING or EXCLUDING")
                );
            }
            if strategies.iter().any(|(_, known, _)| *known == feature) {
                return Err(SqlError::at(at, format!("{word} is there twice")).hint("keep one of them"));
            }
            strategies.push((strategy, feature, at));
            let _ = parser.consume_token(&Token::Comma);
        }
        parser.expect_token(&Token::RParen).map_err(from_parser)?;
    }
    Ok(Like { table, strategies })
}

impl Like {
    fn strategy(&self, feature: Feature) -> Strategy {
        let said = |wanted: Feature| {
            let found = self.strategies.iter().find(|(_, known, _)| *known == wanted);
            found.map(|(strategy, _, _)| *strategy)
        };
        said(feature).or_else(|| said(Feature::All)).unwrap_or(match feature {
            Feature::Options => Strategy::Overwriting,
            _ => Strategy::Including,
        })
    }

    /// Adds to a table what is taken over of the other one.
    ///
    /// # Errors
    /// When both have what only one may have.
    pub(crate) fn merge(&self, mut table: CreateTable, other: &CreateTable) -> Result<CreateTable> {
        let own = std::mem::take(&mut table.columns);
        let mut columns: Vec<ColumnDefinition> = Vec::new();
        for column in &other.columns {
            let feature = match column.kind {
                ColumnKind::Physical { .. } => None,
                ColumnKind::Metadata { .. } => Some(Feature::Metadata),
                ColumnKind::Computed { .. } => Some(Feature::Generated),
            };
            let strategy = feature.map_or(Strategy::Including, |feature| self.strategy(feature));
            let again = own.iter().find(|known| known.name.value == column.name.value);
            match (strategy, again) {
                (Strategy::Excluding, _) => {}
                (Strategy::Overwriting, Some(again)) if same_kind(&column.kind, &again.kind) => {}
                (_, Some(again)) => {
                    let message = format!("table {} has a column {} already", self.table.value, again.name.value);
                    let hint = match feature {
                        None => "leave it out, or give it another name",
                        Some(_) => "leave it out, or write OVERWRITING GENERATED or OVERWRITING METADATA",
                    };
                    return Err(SqlError::at(again.name.at, message).hint(hint));
                }
                (_, None) => columns.push(column.clone()),
            }
        }
        columns.extend(own);
        table.columns = columns;

        match (self.strategy(Feature::Watermarks), &table.watermark) {
            (Strategy::Excluding, _) | (Strategy::Overwriting, Some(_)) => {}
            (_, None) => table.watermark = other.watermark.clone(),
            (_, Some(own)) if other.watermark.is_some() => {
                let message = format!("table {} has a watermark already", self.table.value);
                return Err(SqlError::at(own.column.at, message).hint("leave it out, or write OVERWRITING WATERMARKS"));
            }
            (_, Some(_)) => {}
        }
        let keys = [
            (
                Feature::Constraints,
                &mut table.primary_key,
                &other.primary_key,
                "a primary key",
                "CONSTRAINTS",
            ),
            (
                Feature::Partitions,
                &mut table.partition_keys,
                &other.partition_keys,
                "partitions",
                "PARTITIONS",
            ),
        ];
        for (feature, own, theirs, what, word) in keys {
            match (self.strategy(feature), own.first()) {
                (Strategy::Excluding, _) => {}
                (_, Some(first)) if !theirs.is_empty() => {
                    let message = format!("table {} has {what} already", self.table.value);
                    return Err(
                        SqlError::at(first.at, message).hint(format!("leave it out, or write EXCLUDING {word}"))
                    );
                }
                (_, Some(_)) => {}
                (_, None) => own.clone_from(theirs),
            }
        }
        let strategy = self.strategy(Feature::Options);
        for option in other.options.iter().filter(|_| strategy != Strategy::Excluding) {
            match table.options.iter().find(|own| own.key.value == option.key.value) {
                Some(own) if strategy == Strategy::Including => {
                    let message = format!("table {} has the option '{}' already", self.table.value, own.key.value);
                    return Err(SqlError::at(own.key.at, message).hint("leave it out, or write OVERWRITING OPTIONS"));
                }
                Some(_) => {}
                None => table.options.push(option.clone()),
            }
        }
        table.like = None;
        Ok(table)
    }
}

fn same_kind(one: &ColumnKind, other: &ColumnKind) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}
