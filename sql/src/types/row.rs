//! `ROW<name type, ...>`, also written `ROW(name type, ...)`.

use super::{SqlType, parse_type};
use crate::error::{Result, SqlError};
use crate::script::start_of;
use crate::statement::parse_name;
use arrow::datatypes::{DataType, Field};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

/// How deep rows may lie in rows.
pub(crate) const ROW_DEPTH_MAX: usize = 8;

/// A parsed row type.
pub(super) struct Row {
    pub(super) sql_type: SqlType,
    /// True when its end was the first half of `>>`, so that the row around it has ended, too.
    ends_outer: bool,
}

/// Parses a row type, from the word `ROW`.
///
/// # Errors
/// On fields whose type is not supported, and on promises that would not be kept.
pub(super) fn parse(parser: &mut Parser<'_>) -> Result<Row> {
    let at = start_of(parser.peek_token_ref().span);
    let row = parse_nested(parser, 1)?;
    if row.ends_outer {
        return Err(SqlError::at(at, "this ROW<...> is closed by one > too many").hint("remove it"));
    }
    Ok(row)
}

fn parse_nested(parser: &mut Parser<'_>, depth: usize) -> Result<Row> {
    let at = start_of(parser.peek_token_ref().span);
    if depth > ROW_DEPTH_MAX {
        return Err(SqlError::at(at, format!("rows lie more than {ROW_DEPTH_MAX} deep in rows")).hint("flatten some"));
    }
    parser.advance_token();
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
        let row = |fields: Vec<Field>, ends_outer| Row {
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
                return Err(
                    SqlError::at(start_of(next.span), "NOT NULL inside a ROW is not supported yet")
                        .hint("declare the whole column NOT NULL, or filter with row.field IS NOT NULL"),
                );
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
    let is_row = match &parser.peek_token_ref().token {
        Token::Word(word) => word.value.eq_ignore_ascii_case("ROW"),
        _ => false,
    };
    if is_row {
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
            ("ROW<a MAP<INT, INT>>", "MAP"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.message.contains(reason), "{text}: {}", error.message);
        }
        let deep = format!("{}INT{}", "ROW<a ".repeat(40), ">".repeat(40));
        assert!(parsed(&deep).unwrap_err().message.contains("deep"));
    }
}
