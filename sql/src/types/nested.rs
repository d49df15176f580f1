//! Types that hold others: `ROW<name type, ...>`, also written `ROW(name type, ...)`, `ARRAY<type>`, `MAP<key, value>` and
//! `MULTISET<type>`, which is a map from values to how often they are there.

use super::{SqlType, array_of, map_of, parse_type};
use crate::error::{Position, Result, SqlError};
use crate::script::start_of;
use crate::statement::parse_name;
use arrow::datatypes::{DataType, Field};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

/// How deep rows may lie in rows.
pub(crate) const ROW_DEPTH_MAX: usize = 8;

/// A parsed type.
pub(super) struct Nested {
    pub(super) sql_type: SqlType,
    /// True when its end was the first half of `>>`, so that the type around it has ended, too.
    ends_outer: bool,
}

/// Parses a type that holds others, from its word.
///
/// # Errors
/// On types that are not supported inside, and on promises that would not be kept.
pub(super) fn parse(parser: &mut Parser<'_>) -> Result<Nested> {
    let first = parser.peek_token();
    let nested = parse_nested(parser, 1)?;
    if nested.ends_outer {
        let message = format!("this {first}<...> is closed by one > too many");
        return Err(SqlError::at(start_of(first.span), message).hint("remove it"));
    }
    Ok(nested)
}

/// Says whether a type that holds others begins with a word.
pub(super) fn begins(word: &str) -> bool {
    ["ROW", "ARRAY", "MAP", "MULTISET"]
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known))
}

fn parse_nested(parser: &mut Parser<'_>, depth: usize) -> Result<Nested> {
    let first = parser.peek_token();
    let at = start_of(first.span);
    if depth > ROW_DEPTH_MAX {
        return Err(
            SqlError::at(at, format!("types lie more than {ROW_DEPTH_MAX} deep in types")).hint("flatten some"),
        );
    }
    parser.advance_token();
    match first.token.to_string().to_ascii_uppercase().as_str() {
        "ARRAY" => parse_array(parser, depth, at),
        "MAP" => parse_map(parser, depth, at),
        "MULTISET" => parse_multiset(parser, depth, at),
        _ => parse_row(parser, depth, at),
    }
}

/// Takes the `>` at the end of a type; true when it was the first half of `>>`.
fn parse_end(parser: &mut Parser<'_>, ended: bool, what: &str) -> Result<bool> {
    if ended {
        return Ok(false);
    }
    let next = parser.peek_token();
    match next.token {
        Token::Gt | Token::ShiftRight => {
            parser.advance_token();
            Ok(next.token == Token::ShiftRight)
        }
        Token::Word(ref word) if word.value.eq_ignore_ascii_case("NOT") => Err(not_null(start_of(next.span), what)),
        _ => Err(SqlError::at(
            start_of(next.span),
            format!("expected '>' in this {what}, found {next}"),
        )
        .hint("write ARRAY<type>, MAP<key, value> or ROW<name type, ...>")),
    }
}

fn not_null(at: Option<Position>, what: &str) -> SqlError {
    SqlError::at(at, format!("NOT NULL inside {what} is not supported yet"))
        .hint("declare the whole column NOT NULL, or filter with IS NOT NULL")
}

fn parse_array(parser: &mut Parser<'_>, depth: usize, at: Option<Position>) -> Result<Nested> {
    if !parser.consume_token(&Token::Lt) {
        return Err(SqlError::at(at, "an ARRAY needs the type of its elements").hint("write ARRAY<type>"));
    }
    let (element, ended) = parse_inner(parser, depth, "an ARRAY")?;
    let ends_outer = parse_end(parser, ended, "ARRAY")?;
    Ok(Nested {
        sql_type: array_of(element).into(),
        ends_outer,
    })
}

fn parse_map(parser: &mut Parser<'_>, depth: usize, at: Option<Position>) -> Result<Nested> {
    let hint = "write MAP<key, value>";
    if !parser.consume_token(&Token::Lt) {
        return Err(SqlError::at(at, "a MAP needs the types of its keys and values").hint(hint));
    }
    let key_at = start_of(parser.peek_token_ref().span);
    let (key, ended) = parse_inner(parser, depth, "a MAP")?;
    if ended || !parser.consume_token(&Token::Comma) {
        return Err(SqlError::at(at, "a MAP needs the type of its values").hint(hint));
    }
    if key.is_nested() {
        return Err(SqlError::at(key_at, "the keys of a MAP are single values").hint(hint));
    }
    let (value, ended) = parse_inner(parser, depth, "a MAP")?;
    let ends_outer = parse_end(parser, ended, "MAP")?;
    Ok(Nested {
        sql_type: map_of(key, value).into(),
        ends_outer,
    })
}

fn parse_multiset(parser: &mut Parser<'_>, depth: usize, at: Option<Position>) -> Result<Nested> {
    let hint = "write MULTISET<type>, or MAP<type, INT>, which is the same";
    if !parser.consume_token(&Token::Lt) {
        return Err(SqlError::at(at, "a MULTISET needs the type of its values").hint(hint));
    }
    let value_at = start_of(parser.peek_token_ref().span);
    let (value, ended) = parse_inner(parser, depth, "a MULTISET")?;
    if value.is_nested() {
        return Err(SqlError::at(value_at, "the values of a MULTISET are single values").hint(hint));
    }
    let ends_outer = parse_end(parser, ended, "MULTISET")?;
    Ok(Nested {
        sql_type: map_of(value, DataType::Int32).into(),
        ends_outer,
    })
}

/// Parses a type inside another one; true when its `>>` ended the one around it, too.
fn parse_inner(parser: &mut Parser<'_>, depth: usize, what: &str) -> Result<(DataType, bool)> {
    let at = start_of(parser.peek_token_ref().span);
    let (sql_type, ended) = parse_field_type(parser, depth)?;
    if sql_type.length.is_some() {
        let message = format!("a length in {what} is not checked yet");
        return Err(SqlError::at(at, message).hint("declare it STRING or BYTES"));
    }
    Ok((sql_type.data_type, ended))
}

fn parse_row(parser: &mut Parser<'_>, depth: usize, at: Option<Position>) -> Result<Nested> {
    let close = if parser.consume_token(&Token::Lt) {
        Token::Gt
    } else if parser.consume_token(&Token::LParen) {
        Token::RParen
    } else {
        return Err(SqlError::at(at, "a ROW needs its fields").hint("write ROW<name type, ...>"));
    };
    let mut fields: Vec<Field> = Vec::new();
    loop {
        let name = parse_name(parser)?;
        if fields.iter().any(|known| *known.name() == name.value) {
            let message = format!("field {} is declared twice in its ROW", name.value);
            return Err(SqlError::at(name.at, message).hint("rename one of them"));
        }
        let (sql_type, ended) = parse_field_type(parser, depth)?;
        if sql_type.length.is_some() {
            let message = format!("the length of field {} in a ROW is not checked yet", name.value);
            return Err(SqlError::at(name.at, message).hint("declare it STRING or BYTES"));
        }
        fields.push(Field::new(name.value, sql_type.data_type, true));
        let row = |fields: Vec<Field>, ends_outer| Nested {
            sql_type: DataType::Struct(fields.into()).into(),
            ends_outer,
        };
        if ended {
            return Ok(row(fields, false));
        }
        let next = parser.peek_token();
        match &next.token {
            token if *token == close => {
                parser.advance_token();
                return Ok(row(fields, false));
            }
            Token::ShiftRight if close == Token::Gt => {
                parser.advance_token();
                return Ok(row(fields, true));
            }
            Token::Comma => parser.advance_token(),
            Token::Word(word) if word.value.eq_ignore_ascii_case("NOT") => {
                return Err(not_null(start_of(next.span), "a ROW"));
            }
            _ => {
                let message = format!("expected ',' or '{close}' in a ROW, found {next}");
                return Err(SqlError::at(start_of(next.span), message).hint("write ROW<name type, ...>"));
            }
        }
    }
}

/// Parses a field's type; true when it was a row whose `>>` ended this row, too.
fn parse_field_type(parser: &mut Parser<'_>, depth: usize) -> Result<(SqlType, bool)> {
    let is_nested = match &parser.peek_token_ref().token {
        Token::Word(word) => begins(&word.value),
        _ => false,
    };
    if is_nested {
        let row = parse_nested(parser, depth + 1)?;
        return Ok((row.sql_type, row.ends_outer));
    }
    let sql_type = parse_type(parser).map_err(|error| error.or_at(start_of(parser.peek_token_ref().span)))?;
    // NULL is what a field may be anyway.
    if let Token::Word(word) = &parser.peek_token_ref().token
        && word.value.eq_ignore_ascii_case("NULL")
    {
        parser.advance_token();
    }
    Ok((sql_type, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::TidemillDialect;
    use crate::script::from_parser;
    use crate::types::sql_name;

    fn parsed(text: &str) -> Result<String> {
        let mut parser = Parser::new(&TidemillDialect).try_with_sql(text).map_err(from_parser)?;
        parse(&mut parser).map(|row| sql_name(&row.sql_type.data_type))
    }

    #[test]
    fn rows_lie_in_rows() {
        let written = parsed("ROW<a BIGINT, `b c` row(d VARCHAR, e ROW<f TIMESTAMP(3), g ROW<h INT NULL>>)>").unwrap();
        assert_eq!(
            written,
            "ROW<a BIGINT, b c ROW<d STRING, e ROW<f TIMESTAMP(3), g ROW<h INT>>>>"
        );
        assert!(parsed("ROW<a ROW<b ROW<c INT>>>").is_ok());
        assert_eq!(
            parsed("MAP<STRING, ARRAY<ROW<a INT, b ARRAY<ARRAY<BIGINT>>>>>").unwrap(),
            "MAP<STRING, ARRAY<ROW<a INT, b ARRAY<ARRAY<BIGINT>>>>>"
        );
    }

    #[test]
    fn what_would_not_be_kept_is_refused() {
        for (text, reason) in [
            ("ROW", "needs its fields"),
            ("ROW<>", "needs its fields"),
            ("ROW<a INT, a INT>", "twice"),
            ("ROW<a INT NOT NULL>", "NOT NULL"),
            ("ROW<a VARCHAR(3)>", "length"),
            ("ROW<a INT>>", "too many"),
            ("ROW<a INT b INT>", "expected ','"),
            ("ROW<a MAP<INT>>", "type of its values"),
            ("ARRAY", "type of its elements"),
            ("ARRAY<INT NOT NULL>", "NOT NULL"),
            ("ARRAY<VARCHAR(3)>", "length"),
            ("ARRAY<INT>>", "too many"),
            ("MAP<ROW<a INT>, INT>", "single values"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.message.contains(reason), "{text}: {}", error.message);
        }
        let deep = format!("{}INT{}", "ROW<a ".repeat(40), ">".repeat(40));
        assert!(parsed(&deep).unwrap_err().message.contains("deep"));
    }
}
