//! The grammar of `CREATE TABLE`.
//!
//! ```text
//! CREATE [TEMPORARY] TABLE [IF NOT EXISTS] name (
//!   column type [NOT NULL] [PRIMARY KEY NOT ENFORCED] [METADATA [FROM 'key'] [VIRTUAL]] [COMMENT '...'],
//!   column AS expression [COMMENT '...'],
//!   WATERMARK FOR column AS expression,
//!   [CONSTRAINT name] PRIMARY KEY (columns) NOT ENFORCED
//! ) [COMMENT '...'] [PARTITIONED BY (columns)] WITH ('key' = 'value', ...)
//!   [LIKE table [(INCLUDING | EXCLUDING | OVERWRITING feature ...)]] | [AS query]
//! ```

use super::{Like, Name, like, parse_comment, parse_name, parse_names, parse_query, parse_text};
use crate::error::{Position, Result, SqlError};
use crate::script::{from_parser, start_of};
use crate::types::{SqlType, parse_type};
use sqlparser::ast::{Expr, Query};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

/// `CREATE TABLE`.
#[derive(Clone, Debug)]
pub(crate) struct CreateTable {
    pub(crate) name: Name,
    pub(crate) if_not_exists: bool,
    pub(crate) columns: Vec<ColumnDefinition>,
    pub(crate) watermark: Option<WatermarkDefinition>,
    pub(crate) primary_key: Vec<Name>,
    pub(crate) partition_keys: Vec<Name>,
    pub(crate) options: Vec<TableOption>,
    pub(crate) comment: Option<String>,
    /// `LIKE table`: what is taken over from it.
    pub(crate) like: Option<Like>,
    /// `AS query`: what its columns are and what it is filled with.
    pub(crate) query: Option<Box<Query>>,
}

/// A column.
#[derive(Clone, Debug)]
pub(crate) struct ColumnDefinition {
    pub(crate) name: Name,
    pub(crate) kind: ColumnKind,
    pub(crate) comment: Option<String>,
}

/// Where a column's values come from.
#[derive(Clone, Debug)]
pub(crate) enum ColumnKind {
    /// The record.
    Physical { sql_type: SqlType, nullable: bool },
    /// The record's metadata; a virtual one is not written.
    Metadata {
        sql_type: SqlType,
        nullable: bool,
        key: String,
        is_virtual: bool,
    },
    /// The other columns.
    Computed { expr: Box<Expr>, at: Option<Position> },
}

/// `WATERMARK FOR column AS expr`.
#[derive(Clone, Debug)]
pub(crate) struct WatermarkDefinition {
    pub(crate) column: Name,
    pub(crate) expr: Expr,
    pub(crate) at: Option<Position>,
}

/// An option of the WITH clause.
#[derive(Clone, Debug)]
pub(crate) struct TableOption {
    pub(crate) key: Name,
    pub(crate) value: Name,
}

/// Parses what follows `CREATE TABLE`.
pub(super) fn parse(parser: &mut Parser<'_>) -> Result<CreateTable> {
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let name = parse_name(parser)?;
    let mut table = CreateTable {
        name,
        if_not_exists,
        columns: Vec::new(),
        watermark: None,
        primary_key: Vec::new(),
        partition_keys: Vec::new(),
        options: Vec::new(),
        comment: None,
        like: None,
        query: None,
    };
    if !parser.consume_token(&Token::LParen) {
        let next = parser.peek_token();
        // LIKE and AS bring columns of their own.
        if matches!(&next.token, Token::Word(word) if word.quote_style.is_none()) {
            parse_rest(parser, &mut table)?;
            if table.like.is_some() || table.query.is_some() {
                return Ok(table);
            }
        }
        let error = SqlError::at(
            start_of(next.span),
            format!("expected the columns of the table, found {next}"),
        );
        return Err(error.hint("write CREATE TABLE name (column type, ...) WITH ('connector' = '...')"));
    }
    loop {
        parse_element(parser, &mut table)?;
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    parser.expect_token(&Token::RParen).map_err(from_parser)?;
    parse_rest(parser, &mut table)?;
    if table.query.is_some() {
        return Err(SqlError::at(
            table.columns.first().map_or(table.name.at, |column| column.name.at),
            "a table AS SELECT has the columns of its query and no others",
        )
        .hint("remove the column list; or declare the table first and fill it with INSERT INTO ... SELECT"));
    }
    Ok(table)
}

fn parse_rest(parser: &mut Parser<'_>, table: &mut CreateTable) -> Result<()> {
    table.comment = parse_comment(parser)?;
    let next = parser.peek_token();
    if super::is_word(&next.token, "DISTRIBUTED") {
        return Err(SqlError::at(start_of(next.span), "DISTRIBUTED BY is not supported yet")
            .hint("set the partitioner in the WITH clause"));
    }
    if parser.parse_keyword(Keyword::PARTITIONED) {
        parser.expect_keyword(Keyword::BY).map_err(from_parser)?;
        parser.expect_token(&Token::LParen).map_err(from_parser)?;
        table.partition_keys = parse_names(parser)?;
    }
    if parser.parse_keyword(Keyword::WITH) {
        parser.expect_token(&Token::LParen).map_err(from_parser)?;
        loop {
            let key = parse_text(parser)?;
            parser.expect_token(&Token::Eq).map_err(from_parser)?;
            let value = parse_text(parser)?;
            table.options.push(TableOption { key, value });
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        parser.expect_token(&Token::RParen).map_err(from_parser)?;
    }
    if parser.parse_keyword(Keyword::LIKE) {
        table.like = Some(like::parse(parser)?);
    } else if parser.parse_keyword(Keyword::AS) {
        table.query = Some(parse_query(parser)?);
    }
    Ok(())
}

fn parse_element(parser: &mut Parser<'_>, table: &mut CreateTable) -> Result<()> {
    let first = parser.peek_token();
    let at = start_of(first.span);
    let second = parser.peek_nth_token_ref(1).token.to_string().to_ascii_uppercase();
    let word = match &first.token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
        _ => String::new(),
    };
    match (word.as_str(), second.as_str()) {
        ("WATERMARK", "FOR") => {
            parser.advance_token();
            parser.advance_token();
            let column = parse_name(parser)?;
            parser.expect_keyword(Keyword::AS).map_err(from_parser)?;
            let expr_at = start_of(parser.peek_token_ref().span);
            let expr = parser.parse_expr().map_err(from_parser)?;
            if table.watermark.is_some() {
                return Err(SqlError::at(at, "a table has one watermark").hint("remove this one"));
            }
            table.watermark = Some(WatermarkDefinition {
                column,
                expr,
                at: expr_at,
            });
            Ok(())
        }
        ("CONSTRAINT", _) if second != "AS" => {
            parser.advance_token();
            parse_name(parser)?;
            parse_key(parser, table, at)
        }
        ("PRIMARY", "KEY") | ("UNIQUE", "(") => parse_key(parser, table, at),
        _ => parse_column(parser, table),
    }
}

fn parse_key(parser: &mut Parser<'_>, table: &mut CreateTable, at: Option<Position>) -> Result<()> {
    let next = parser.peek_token();
    if !parser.parse_keywords(&[Keyword::PRIMARY, Keyword::KEY]) {
        let error = SqlError::at(start_of(next.span), format!("the constraint {next} is not supported"));
        return Err(error.hint("write PRIMARY KEY (columns) NOT ENFORCED"));
    }
    parser.expect_token(&Token::LParen).map_err(from_parser)?;
    let columns = parse_names(parser)?;
    set_key(parser, table, columns, at)
}

fn set_key(parser: &mut Parser<'_>, table: &mut CreateTable, key: Vec<Name>, at: Option<Position>) -> Result<()> {
    if !parser.parse_keywords(&[Keyword::NOT, Keyword::ENFORCED]) {
        return Err(SqlError::at(at, "a primary key cannot be enforced over a stream")
            .hint("write PRIMARY KEY (columns) NOT ENFORCED"));
    }
    if !table.primary_key.is_empty() {
        return Err(SqlError::at(at, "a table has one primary key").hint("remove this one"));
    }
    table.primary_key = key;
    Ok(())
}

fn parse_column(parser: &mut Parser<'_>, table: &mut CreateTable) -> Result<()> {
    let name = parse_name(parser)?;
    if parser.parse_keyword(Keyword::AS) {
        let at = start_of(parser.peek_token_ref().span);
        let expr = parser.parse_expr().map_err(from_parser)?;
        let comment = parse_comment(parser)?;
        let kind = ColumnKind::Computed {
            expr: Box::new(expr),
            at,
        };
        table.columns.push(ColumnDefinition { name, kind, comment });
        return Ok(());
    }
    let sql_type = parse_type(parser)?;
    let mut nullable = true;
    let mut metadata = None;
    let mut is_virtual = false;
    let mut comment = None;
    loop {
        let next = parser.peek_token();
        let at = start_of(next.span);
        match next.token.to_string().to_ascii_uppercase().as_str() {
            "NOT" => {
                parser
                    .expect_keywords(&[Keyword::NOT, Keyword::NULL])
                    .map_err(from_parser)?;
                nullable = false;
            }
            "NULL" => parser.advance_token(),
            "PRIMARY" => {
                parser
                    .expect_keywords(&[Keyword::PRIMARY, Keyword::KEY])
                    .map_err(from_parser)?;
                set_key(parser, table, vec![name.clone()], at)?;
            }
            "METADATA" => {
                parser.advance_token();
                metadata = Some(if parser.parse_keyword(Keyword::FROM) {
                    parse_text(parser)?.value
                } else {
                    name.value.clone()
                });
            }
            "VIRTUAL" if metadata.is_some() => {
                parser.advance_token();
                is_virtual = true;
            }
            "COMMENT" => comment = parse_comment(parser)?,
            "," | ")" | "EOF" => break,
            other => {
                return Err(SqlError::at(
                    at,
                    format!("unexpected {other} after the type of column {}", name.value),
                )
                .hint(
                    "after the type may stand NOT NULL, PRIMARY KEY NOT ENFORCED, METADATA [FROM 'key'] [VIRTUAL] and \
                     COMMENT",
                ));
            }
        }
    }
    let kind = match metadata {
        Some(key) => ColumnKind::Metadata {
            sql_type,
            nullable,
            key,
            is_virtual,
        },
        None => ColumnKind::Physical { sql_type, nullable },
    };
    table.columns.push(ColumnDefinition { name, kind, comment });
    Ok(())
}
