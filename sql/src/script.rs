//! SQL text with its tokens: finds places in it and shows them.

use crate::dialect::TidemillDialect;
use crate::error::{Position, Result, SqlError};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

/// The most characters of a line that an excerpt shows.
const EXCERPT_CHARS_MAX: usize = 120;

/// SQL text and its tokens, white space and comments included.
pub(crate) struct Script<'a> {
    text: &'a str,
    tokens: Vec<TokenWithSpan>,
}

impl<'a> Script<'a> {
    /// Reads the tokens of a text.
    ///
    /// # Errors
    /// On text that is not made of tokens: an open quote or comment, a stray character.
    pub(crate) fn new(text: &'a str) -> Result<Self> {
        let mut tokens = Vec::new();
        match Tokenizer::new(&TidemillDialect, text).tokenize_with_location_into_buf(&mut tokens) {
            Ok(()) => Ok(Self { text, tokens }),
            Err(error) => {
                let message = lower_first(error.message.trim());
                Err(locate_in(text, SqlError::at(position(error.location), message)))
            }
        }
    }

    /// Returns all tokens.
    pub(crate) fn tokens(&self) -> &[TokenWithSpan] {
        &self.tokens
    }

    /// Adds the excerpt to an error that has a position.
    pub(crate) fn locate(&self, mut error: SqlError) -> SqlError {
        // The parser knows where an interval's text stands, people see where the interval begins.
        error.position = self.back_to(error.position, &["INTERVAL"], 1);
        locate_in(self.text, error)
    }

    /// Places an error of the parser that names what it found and not where.
    pub(crate) fn place_found(&self, error: SqlError, from: Option<Position>) -> SqlError {
        let found = error.message.rsplit_once("found: ").map(|(_, found)| found.to_owned());
        let at = found.and_then(|found| self.find_token(from, |token| token.to_string() == found));
        error.or_at(at).or_at(from)
    }

    /// Returns the position of the first token for which `matches` holds at or behind `from`, within one statement.
    pub(crate) fn find_token(&self, from: Option<Position>, matches: impl Fn(&Token) -> bool) -> Option<Position> {
        let from = from?;
        self.tokens
            .iter()
            .skip_while(|token| position(token.span.start).is_none_or(|at| at < from))
            .take_while(|token| token.token != Token::SemiColon)
            .find(|token| matches(&token.token))
            .and_then(|token| position(token.span.start))
    }

    /// Returns the position of the last of these words that stands at most `distance` tokens before `at`, else `at`.
    pub(crate) fn back_to(&self, at: Option<Position>, words: &[&str], distance: usize) -> Option<Position> {
        let here = at?;
        let before = self
            .tokens
            .iter()
            .filter(|token| !matches!(token.token, Token::Whitespace(_)));
        let before: Vec<_> = before
            .take_while(|token| position(token.span.start).is_some_and(|p| p < here))
            .collect();
        let found = before
            .iter()
            .rev()
            .take(distance)
            .find(|token| is_word(&token.token, words));
        found.and_then(|token| position(token.span.start)).or(at)
    }

    /// Returns the position of the first of these words (upper case) at or behind `from`, else `from`.
    pub(crate) fn find_word(&self, from: Option<Position>, words: &[&str]) -> Option<Position> {
        self.find_token(from, |token| is_word(token, words)).or(from)
    }
}

fn is_word(token: &Token, words: &[&str]) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none()
        && words.iter().any(|expected| word.value.eq_ignore_ascii_case(expected)))
}

/// Adds the excerpt of `text` to an error that has a position.
pub(crate) fn locate_in(text: &str, mut error: SqlError) -> SqlError {
    let Some(at) = error.position else { return error };
    let Some(line) = usize::try_from(at.line)
        .ok()
        .and_then(|line| text.lines().nth(line.checked_sub(1)?))
    else {
        return error;
    };
    let characters: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let column = usize::try_from(at.column).unwrap_or(1).clamp(1, characters.len() + 1) - 1;
    let start = if characters.len() > EXCERPT_CHARS_MAX {
        column.saturating_sub(EXCERPT_CHARS_MAX / 2)
    } else {
        0
    };
    let shown: String = characters.iter().skip(start).take(EXCERPT_CHARS_MAX).collect();
    error.excerpt = Some(format!("{shown}\n{}^", " ".repeat(column - start)));
    error
}

/// Returns the position of a location; `None` for the parser's empty one.
pub(crate) fn position(location: Location) -> Option<Position> {
    (location.line > 0).then_some(Position {
        line: location.line,
        column: location.column.max(1),
    })
}

/// Returns the position at which a span starts.
pub(crate) fn start_of(span: Span) -> Option<Position> {
    position(span.start)
}

/// Turns the parser's error into ours: its message ends with the position.
pub(crate) fn from_parser(error: sqlparser::parser::ParserError) -> SqlError {
    use sqlparser::parser::ParserError;
    match error {
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => {
            let Some((message, place)) = text.rsplit_once(" at Line: ") else {
                return SqlError::new(lower_first(&text));
            };
            let at = place.split_once(", Column: ").and_then(|(line, column)| {
                Some(Position {
                    line: line.trim().parse().ok()?,
                    column: column.trim().parse().ok()?,
                })
            });
            SqlError::at(at.filter(|at| at.line > 0), lower_first(message))
        }
        ParserError::RecursionLimitExceeded => {
            SqlError::new("the statement is nested too deeply").hint("split it with views or WITH")
        }
    }
}

/// Makes the first letter small, as our messages begin; names in capitals stay.
fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(_) if characters.as_str().starts_with(char::is_uppercase) => text.to_owned(),
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpt_of_a_long_line_shows_the_place() {
        let text = format!("{}x{}", "a ".repeat(200), " b".repeat(200));
        let error = locate_in(&text, SqlError::at(Position { line: 1, column: 401 }, "m"));
        let excerpt = error.excerpt.unwrap();
        let (line, caret) = excerpt.split_once('\n').unwrap();
        assert_eq!(line.chars().nth(caret.find('^').unwrap()), Some('x'));
    }

    #[test]
    fn open_quote_is_refused_where_it_begins() {
        let error = Script::new("SELECT\n  'abc").err().unwrap();
        assert_eq!(error.position, Some(Position { line: 2, column: 3 }));
        assert_eq!(error.excerpt.unwrap(), "  'abc\n  ^");
    }
}
