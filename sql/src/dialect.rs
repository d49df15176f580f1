//! The lexical rules of our SQL: Flink's, as a `sqlparser` dialect.
//!
//! Flink's names are case-sensitive, quoted with back-ticks, and may hold `$`. Text stands in single quotes only.

use crate::{json_syntax, syntax};
use sqlparser::ast::{Array, Expr, Ident, UnaryOperator};
use sqlparser::dialect::Dialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token};

/// How [`TidemillDialect`] hands `TABLE t`, an argument of a window function, to the planner: an `Expr::Prefixed` with
/// this prefix around the name, or around a tuple of the name and the columns of `PARTITION BY`.
pub(crate) const TABLE_ARGUMENT: &str = "TABLE";

/// Flink's lexical rules.
#[derive(Debug)]
pub(crate) struct TidemillDialect;

impl Dialect for TidemillDialect {
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '`'
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        ch.is_alphabetic() || ch == '_'
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch.is_alphanumeric() || ch == '_' || ch == '$'
    }

    fn identifier_quote_style(&self, _identifier: &str) -> Option<char> {
        Some('`')
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true // grouping sets
    }

    fn supports_match_recognize(&self) -> bool {
        true // so that it is refused by name
    }

    fn supports_table_versioning(&self) -> bool {
        true // likewise: FOR SYSTEM_TIME AS OF
    }

    fn supports_window_function_null_treatment_arg(&self) -> bool {
        true // likewise
    }

    fn supports_named_fn_args_with_rarrow_operator(&self) -> bool {
        true
    }

    fn supports_boolean_literals(&self) -> bool {
        true
    }

    fn require_interval_qualifier(&self) -> bool {
        true
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        if let Some(call) = json_syntax::parse(parser) {
            return Some(call);
        }
        let table = parser.peek_token_ref();
        let Token::Word(word) = &table.token else { return None };
        let span = table.span;
        if word.keyword == Keyword::MAP && word.quote_style.is_none() {
            if parser.peek_nth_token_ref(1).token != Token::LBracket {
                return None;
            }
            parser.advance_token();
            return Some(parse_map(parser, span));
        }
        if word.keyword != Keyword::TABLE || word.quote_style.is_some() {
            return None;
        }
        let prefix = Ident::with_span(table.span, TABLE_ARGUMENT);
        if !matches!(parser.peek_nth_token_ref(1).token, Token::Word(_)) {
            return None;
        }
        parser.advance_token();
        Some(parse_table(parser).map(|value| Expr::Prefixed {
            prefix,
            value: Box::new(value),
        }))
    }

    fn parse_infix(&self, parser: &mut Parser, expr: &Expr, _precedence: u8) -> Option<Result<Expr, ParserError>> {
        let is_word = |parser: &Parser, index: usize, expected: &str| match &parser.peek_nth_token_ref(index).token {
            Token::Word(word) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected),
            _ => false,
        };
        let negated = is_word(parser, 1, "NOT");
        if !is_word(parser, 0, "IS") || !is_word(parser, 1 + usize::from(negated), "JSON") {
            return None;
        }
        (0..2 + usize::from(negated)).for_each(|_| parser.advance_token());
        let span = sqlparser::ast::Spanned::span(expr);
        let mut args = vec![expr.clone()];
        if let Some(kind) = ["VALUE", "SCALAR", "ARRAY", "OBJECT"]
            .into_iter()
            .find(|kind| is_word(parser, 0, kind))
        {
            parser.advance_token();
            args.push(syntax::text(kind));
        }
        let is_json = syntax::call("is_json", span, args);
        Some(Ok(match negated {
            true => Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr: Box::new(is_json),
            },
            false => is_json,
        }))
    }
}

/// Parses the rest of `MAP[key, value, ...]`.
fn parse_map(parser: &mut Parser, span: Span) -> Result<Expr, ParserError> {
    parser.expect_token(&Token::LBracket)?;
    let entries = parser.parse_comma_separated0(Parser::parse_expr, Token::RBracket)?;
    parser.expect_token(&Token::RBracket)?;
    if entries.is_empty() || entries.len() % 2 == 1 {
        let Location { line, column } = span.start;
        return Err(ParserError::ParserError(format!(
            "a MAP is made of keys and values, MAP['a', 1] at Line: {line}, Column: {column}"
        )));
    }
    let (keys, values): (Vec<_>, Vec<_>) = entries.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
    let array = |entries: Vec<(usize, Expr)>| {
        Expr::Array(Array {
            elem: entries.into_iter().map(|(_, entry)| entry).collect(),
            named: true,
        })
    };
    Ok(syntax::call("map", span, vec![array(keys), array(values)]))
}

/// Parses `t [PARTITION BY column | (columns)]`.
fn parse_table(parser: &mut Parser) -> Result<Expr, ParserError> {
    let name = parser.parse_object_name(false)?;
    let table = Expr::CompoundIdentifier(name.0.iter().filter_map(|part| part.as_ident().cloned()).collect());
    if !parser.parse_keywords(&[Keyword::PARTITION, Keyword::BY]) {
        return Ok(table);
    }
    let mut table_and_columns = vec![table];
    if parser.consume_token(&Token::LParen) {
        table_and_columns.extend(parser.parse_comma_separated(Parser::parse_expr)?);
        parser.expect_token(&Token::RParen)?;
    } else {
        table_and_columns.push(parser.parse_expr()?);
    }
    Ok(Expr::Tuple(table_and_columns))
}
