//! Limits on SQL text, checked before it is parsed and before it is planned.
//!
//! ```text
//!  text ── bytes ──▶ tokens ── count, nesting, chains, set operations ──▶ parser ──▶ names ── WITH, views ──▶ planner
//! ```
//! The planner's cost grows faster than the text, and its stack with the depth of expressions; a few kilobytes of
//! `1+1+...` or a few doubling WITH queries would keep it busy for minutes or overflow its stack. Every refusal names
//! the limit and the place where it was exceeded. `names` is the check that needs parsed statements.

mod names;

pub(crate) use names::ReferenceCounter;

use crate::error::{Position, Result, SqlError};
use crate::script::{Script, start_of};
use serde::{Deserialize, Serialize};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

/// The limits on SQL text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of the whole text.
    pub bytes_max: usize,
    /// Tokens of the whole text, without white space.
    pub tokens_max: usize,
    /// Statements.
    pub statements_max: usize,
    /// Operators in one chain without a comma or a new clause: `a + b + ...`, `a OR b OR ...`.
    pub chain_max: usize,
    /// Open parentheses and `CASE`s.
    pub nesting_max: usize,
    /// `UNION`s and the like in one statement.
    pub set_operations_max: usize,
    /// `WITH` queries in one statement.
    pub ctes_max: usize,
    /// Table references of one statement after all WITH queries and views are written out.
    pub references_max: u64,
    /// Columns of all tables, also those that `LIKE` and `OPTIONS` repeat.
    pub columns_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: 256 * 1024,
            tokens_max: 20_000,
            statements_max: 200,
            chain_max: 500,
            nesting_max: 32,
            set_operations_max: 200,
            ctes_max: 64,
            references_max: 1_000,
            columns_max: 10_000,
        }
    }
}

/// Checks the length of a text.
pub(crate) fn check_text(text: &str, limits: &Limits) -> Result<()> {
    if text.len() > limits.bytes_max {
        let message = format!(
            "the text has {} bytes and the limit is {}",
            text.len(),
            limits.bytes_max
        );
        return Err(SqlError::new(message).hint("split it into several jobs"));
    }
    Ok(())
}

/// Checks how many columns the tables have with a new one, whose name stands at a place.
pub(crate) fn check_columns(columns: usize, at: Option<Position>, limits: &Limits) -> Result<()> {
    if columns > limits.columns_max {
        let message = format!(
            "the tables of the text have {columns} columns and the limit is {}",
            limits.columns_max
        );
        return Err(SqlError::at(at, message).hint("declare the columns that are read, or split it into several jobs"));
    }
    Ok(())
}

/// Checks the tokens of a text: their number, nesting, chains and set operations.
pub(crate) fn check_tokens(script: &Script<'_>, limits: &Limits) -> Result<()> {
    let mut count = 0usize;
    let mut set_operations = 0usize;
    let mut prefixes = 0usize;
    // One chain length per open parenthesis; `CASE` adds a level of nesting, not a chain of its own.
    let mut chains = vec![0usize];
    let mut cases = 0usize;
    for token in script.tokens() {
        let at = start_of(token.span);
        match &token.token {
            Token::Whitespace(_) => continue,
            Token::EOF => break,
            Token::LParen | Token::LBracket | Token::LBrace => chains.push(0),
            Token::RParen | Token::RBracket | Token::RBrace => {
                chains.pop();
                if chains.is_empty() {
                    chains.push(0);
                }
            }
            Token::SemiColon => {
                chains = vec![0];
                cases = 0;
                set_operations = 0;
            }
            Token::Comma => reset(&mut chains),
            Token::Word(word) => match word.keyword {
                Keyword::CASE => cases += 1,
                Keyword::END => cases = cases.saturating_sub(1),
                Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT => {
                    set_operations += 1;
                    reset(&mut chains);
                }
                Keyword::SELECT | Keyword::FROM | Keyword::WHERE | Keyword::HAVING | Keyword::GROUP => {
                    reset(&mut chains);
                }
                Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::IN
                | Keyword::BETWEEN
                | Keyword::JOIN
                | Keyword::SIMILAR
                | Keyword::WHEN => extend(&mut chains),
                _ => {}
            },
            other if is_operator(other) => extend(&mut chains),
            _ => {}
        }
        prefixes = if is_prefix(&token.token) { prefixes + 1 } else { 0 };
        count += 1;
        let refuse = |what: &str, limit: usize, hint: &str| {
            Err(SqlError::at(at, format!("{what} here and the limit is {limit}")).hint(hint))
        };
        if count > limits.tokens_max {
            return refuse(
                &format!("the text reaches {count} tokens"),
                limits.tokens_max,
                "split it into several jobs",
            );
        }
        let chain = chains.last().copied().unwrap_or(0);
        if chain > limits.chain_max {
            let hint = "compare with IN (...), join with a table, or split the expression over a view";
            return refuse(&format!("a chain of operators reaches {chain}"), limits.chain_max, hint);
        }
        let nesting = (chains.len() - 1 + cases).max(prefixes);
        if nesting > limits.nesting_max {
            let hint = "split the expression or the query with views";
            return refuse(&format!("nesting reaches depth {nesting}"), limits.nesting_max, hint);
        }
        if set_operations > limits.set_operations_max {
            let what = format!("the statement reaches {set_operations} set operations");
            return refuse(
                &what,
                limits.set_operations_max,
                "read one table with a pattern or split the statement",
            );
        }
    }
    Ok(())
}

/// Counts an operator of the innermost open chain.
fn extend(chains: &mut [usize]) {
    if let Some(last) = chains.last_mut() {
        *last += 1;
    }
}

/// Begins a new chain in the innermost parenthesis.
fn reset(chains: &mut [usize]) {
    if let Some(last) = chains.last_mut() {
        *last = 0;
    }
}

fn is_operator(token: &Token) -> bool {
    !matches!(
        token,
        Token::Word(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Period
            | Token::Colon
            | Token::RArrow
            | Token::LParen
            | Token::RParen
            | Token::LBracket
            | Token::RBracket
            | Token::LBrace
            | Token::RBrace
    )
}

fn is_prefix(token: &Token) -> bool {
    match token {
        Token::Plus | Token::Minus | Token::Tilde => true,
        Token::Word(word) => word.keyword == Keyword::NOT,
        _ => false,
    }
}
