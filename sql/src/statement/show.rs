//! The grammar of statements that only answer: `SHOW` and `DESCRIBE`.

use super::{Name, is_word, parse_name, parse_text, parse_word};
use crate::error::{Result, SqlError};
use crate::script::start_of;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

/// A statement that answers.
#[derive(Clone, Debug)]
pub(crate) struct Show {
    pub(crate) what: Shown,
    /// `[NOT] LIKE 'pattern'`.
    pub(crate) like: Option<Pattern>,
}

/// What is shown.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    /// The names of tables and views.
    Tables,
    Views,
    Functions,
    UserFunctions,
    /// The columns of a table or view: also `DESCRIBE`.
    Columns(Name),
    CreateTable(Name),
    CreateView(Name),
}

/// A pattern of `LIKE` over names.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: String,
    is_negated: bool,
    ignores_case: bool,
}

impl Pattern {
    /// Says whether a name fits; `%` stands for any text, `_` for one character.
    pub(crate) fn fits(&self, name: &str) -> bool {
        let letters = |text: &str| match self.ignores_case {
            true => text.to_lowercase().chars().collect::<Vec<_>>(),
            false => text.chars().collect(),
        };
        like(&letters(&self.text), &letters(name)) != self.is_negated
    }
}

/// Compares a name with a pattern, going back to the last `%` where they differ.
fn like(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut last = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('%') => {
                last = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '_' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match &mut last {
                Some((star, from)) => {
                    *from += 1;
                    (p, n) = (*star + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '%')
}

const HINT: &str =
    "SHOW TABLES, SHOW VIEWS, SHOW [USER] FUNCTIONS, SHOW COLUMNS FROM t, SHOW CREATE TABLE t, SHOW CREATE VIEW v";

/// Parses what follows `SHOW`.
pub(super) fn parse_show(parser: &mut Parser<'_>) -> Result<Show> {
    let first = parser.next_token();
    let at = start_of(first.span);
    let what = match first.token.to_string().to_ascii_uppercase().as_str() {
        "TABLES" => Shown::Tables,
        "VIEWS" => Shown::Views,
        "FUNCTIONS" => Shown::Functions,
        "USER" if parse_word(parser, "FUNCTIONS") => Shown::UserFunctions,
        "COLUMNS" => {
            if !parse_word(parser, "FROM") && !parse_word(parser, "IN") {
                return Err(SqlError::at(at, "SHOW COLUMNS needs a table").hint("write SHOW COLUMNS FROM t"));
            }
            Shown::Columns(parse_name(parser)?)
        }
        "CREATE" if parse_word(parser, "TABLE") => Shown::CreateTable(parse_name(parser)?),
        "CREATE" if parse_word(parser, "VIEW") => Shown::CreateView(parse_name(parser)?),
        "CATALOGS" | "DATABASES" | "CURRENT" => {
            return Err(SqlError::at(at, "there are no catalogs and databases")
                .hint("a job has one name space: SHOW TABLES lists it"));
        }
        "JOBS" => return Err(SqlError::at(at, "SHOW JOBS is not supported").hint("run: tidemill job list")),
        other => return Err(SqlError::at(at, format!("SHOW {other} is not supported")).hint(HINT)),
    };
    let next = parser.peek_token();
    if is_word(&next.token, "FROM") || is_word(&next.token, "IN") {
        return Err(
            SqlError::at(start_of(next.span), "there are no catalogs and databases to show from")
                .hint("leave it out: a job has one name space"),
        );
    }
    let is_negated = parse_word(parser, "NOT");
    let ignores_case = is_word(&parser.peek_token_ref().token, "ILIKE");
    let like = if ignores_case || is_word(&parser.peek_token_ref().token, "LIKE") {
        parser.advance_token();
        let text = parse_text(parser)?.value;
        Some(Pattern {
            text,
            is_negated,
            ignores_case,
        })
    } else {
        None
    };
    if is_negated && like.is_none() {
        return Err(
            SqlError::at(start_of(next.span), "expected LIKE after NOT").hint("write SHOW TABLES NOT LIKE 'a%'")
        );
    }
    if like.is_some() && matches!(what, Shown::CreateTable(_) | Shown::CreateView(_)) {
        return Err(SqlError::at(start_of(next.span), "SHOW CREATE takes no LIKE").hint("remove it"));
    }
    Ok(Show { what, like })
}

/// Parses what follows `DESCRIBE`.
pub(super) fn parse_describe(parser: &mut Parser<'_>) -> Result<Show> {
    let first = parser.peek_token();
    for other in ["CATALOG", "DATABASE", "JOB", "FUNCTION", "MODEL"] {
        let names_another = matches!(
            parser.peek_nth_token_ref(1).token,
            Token::Word(_) | Token::SingleQuotedString(_)
        );
        if is_word(&first.token, other) && names_another {
            return Err(
                SqlError::at(start_of(first.span), format!("DESCRIBE {other} is not supported"))
                    .hint("write DESCRIBE and the name of a table or view"),
            );
        }
    }
    let has_more = matches!(parser.peek_nth_token_ref(1).token, Token::Word(_));
    if is_word(&first.token, "EXTENDED") && has_more {
        parser.advance_token();
    }
    let what = Shown::Columns(parse_name(parser)?);
    Ok(Show { what, like: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_names() {
        let fits = |text: &str, name: &str| {
            let pattern = Pattern {
                text: text.into(),
                is_negated: false,
                ignores_case: false,
            };
            pattern.fits(name)
        };
        assert!(fits("%", "") && fits("b%s", "bids") && fits("_ids", "bids") && fits("%d%", "bids"));
        assert!(!fits("b", "bids") && !fits("B%", "bids") && !fits("_", "") && !fits("%x", "bids"));
        assert!(fits("%ab%ab", "abxabab"));
    }
}
