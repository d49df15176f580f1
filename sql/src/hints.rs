//! Hints: `/*+ OPTIONS('key' = 'value') */` behind a table's name, and those behind `SELECT`.
//!
//! The tokenizer reads a hint as a comment. So hints are found among the comments, understood here, and put into effect on
//! the parsed statement: a table with options becomes another table, whose name holds the options. A hint that no place
//! of a statement takes is refused; one that has no effect here is told.

use crate::dialect::TidemillDialect;
use crate::error::{Position, Result, SqlError};
use crate::script::{Script, start_of};
use crate::statement::{Name, TableOption};
use sqlparser::ast::{Expr, Ident, ObjectNamePart, Query, TableAlias, TableFactor, VisitMut, VisitorMut};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Token, Tokenizer, Whitespace};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Hints on how to run a query. They are advice, and there is nothing to choose here.
const NO_EFFECT: &[&str] = &["BROADCAST", "SHUFFLE_HASH", "SHUFFLE_MERGE", "NEST_LOOP", "MULTI_JOIN"];

/// A hint.
#[derive(Clone, Debug)]
struct Hint {
    name: String,
    at: Option<Position>,
    options: Vec<TableOption>,
}

/// The hints behind one token.
#[derive(Clone, Debug)]
struct Place {
    hints: Vec<Hint>,
    is_select: bool,
    is_used: bool,
}

/// The hints of a text, by the place of the token before them.
#[derive(Debug, Default)]
pub(crate) struct Hints(BTreeMap<Position, Place>);

impl Hints {
    /// Finds the hints of a text.
    ///
    /// # Errors
    /// On a hint that is not understood, at its place.
    pub(crate) fn find(script: &Script<'_>) -> Result<Self> {
        let mut places: BTreeMap<Position, Place> = BTreeMap::new();
        let mut before = None;
        for token in script.tokens() {
            let at = start_of(token.span);
            match &token.token {
                Token::Whitespace(Whitespace::MultiLineComment(text)) if text.trim_start().starts_with('+') => {
                    let hints = parse(text, token.span.start)?;
                    let (Some(before), Some(is_select)) = (before, is_select_at(script, before)) else {
                        return Err(misplaced(at));
                    };
                    let known = places.entry(before).or_insert(Place {
                        hints: Vec::new(),
                        is_select,
                        is_used: false,
                    });
                    known.hints.extend(hints);
                }
                Token::Whitespace(_) => {}
                _ => before = at,
            }
        }
        Ok(Self(places))
    }

    /// Takes the options behind a table's name.
    ///
    /// # Errors
    /// When the hint there is not one of options.
    pub(crate) fn options_at(&mut self, at: Option<Position>) -> Result<Vec<TableOption>> {
        let Some(place) = at.and_then(|at| self.0.get_mut(&at)) else {
            return Ok(Vec::new());
        };
        place.is_used = true;
        let mut options: Vec<TableOption> = Vec::new();
        for hint in &place.hints {
            if hint.name != "OPTIONS" {
                return Err(unknown(hint));
            }
            for option in &hint.options {
                if options.iter().any(|known| known.key.value == option.key.value) {
                    let message = format!("the option '{}' is given twice", option.key.value);
                    return Err(SqlError::at(option.key.at, message).hint("keep one of them"));
                }
                options.push(option.clone());
            }
        }
        Ok(options)
    }

    /// Returns the hints that nothing took: those behind `SELECT` as notes for the user.
    ///
    /// # Errors
    /// On one that stands where no hint can be, or that would change the result and is not supported.
    pub(crate) fn leftover(&self) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for place in self.0.values().filter(|place| !place.is_used) {
            for hint in &place.hints {
                if !place.is_select {
                    return Err(misplaced(hint.at));
                }
                match hint.name.as_str() {
                    name if NO_EFFECT.contains(&name) => {
                        let at = hint.at.map(|at| format!("{at}: ")).unwrap_or_default();
                        notes.push(format!(
                            "{at}the hint {name} has no effect: the planner has one way to join"
                        ));
                    }
                    "STATE_TTL" => {
                        return Err(SqlError::at(hint.at, "the hint STATE_TTL is not supported yet")
                            .hint("write SET 'table.exec.state.ttl' = '1 d' for the whole job"));
                    }
                    "LOOKUP" => {
                        return Err(SqlError::at(hint.at, "the hint LOOKUP is not supported")
                            .hint("write the options of a lookup into the WITH clause of its table"));
                    }
                    _ => return Err(unknown(hint)),
                }
            }
        }
        Ok(notes)
    }
}

fn misplaced(at: Option<Position>) -> SqlError {
    SqlError::at(at, "a hint cannot stand here").hint(
        "write OPTIONS directly behind a table's name, other hints directly behind SELECT; or remove the + to keep a \
         comment",
    )
}

fn unknown(hint: &Hint) -> SqlError {
    let message = format!("the hint {} is not known here", hint.name);
    SqlError::at(hint.at, message)
        .hint("behind a table stands OPTIONS('key' = 'value'); behind SELECT stand join hints")
}

/// Says whether the word at a place is the keyword SELECT; `None` when no word stands there.
fn is_select_at(script: &Script<'_>, at: Option<Position>) -> Option<bool> {
    let token = script.tokens().iter().find(|token| start_of(token.span) == at)?;
    match &token.token {
        Token::Word(word) => Some(word.keyword == Keyword::SELECT && word.quote_style.is_none()),
        _ => None,
    }
}

/// Understands the text of a comment from its `+` on; `from` is where the comment begins.
fn parse(text: &str, from: Location) -> Result<Vec<Hint>> {
    let mut tokens = Vec::new();
    let read = Tokenizer::new(&TidemillDialect, text).tokenize_with_location_into_buf(&mut tokens);
    // Behind the `/*` on the first line.
    let place = |location: Location| {
        let column = match location.line {
            1 => from.column + 1 + location.column,
            _ => location.column,
        };
        crate::script::position(Location::new(from.line + location.line.max(1) - 1, column))
    };
    if let Err(error) = read {
        return Err(SqlError::at(place(error.location), error.message).hint(HINT));
    }
    let mut tokens = tokens
        .into_iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF))
        .map(|token| (place(token.span.start), token.token))
        .peekable();
    let end = crate::script::position(from);
    let wrong = |found: Option<(Option<Position>, Token)>, expected: &str| {
        let (at, found) = match found {
            Some((at, token)) => (at, token.to_string()),
            None => (end, "the end of the hint".to_owned()),
        };
        SqlError::at(at, format!("expected {expected} in a hint, found {found}")).hint(HINT)
    };
    let _plus = tokens.next();
    let mut hints = Vec::new();
    while let Some((at, token)) = tokens.next() {
        let Token::Word(word) = &token else {
            return Err(wrong(Some((at, token)), "a name"));
        };
        let name = word.value.to_ascii_uppercase();
        let mut options = Vec::new();
        if tokens.next_if(|(_, token)| *token == Token::LParen).is_some() {
            loop {
                match tokens.next() {
                    Some((_, Token::RParen)) => break,
                    Some((_, Token::Comma)) => {}
                    Some((at, Token::SingleQuotedString(key))) => {
                        let key = Name { value: key, at };
                        if tokens.next_if(|(_, token)| *token == Token::Eq).is_none() {
                            return Err(wrong(tokens.next(), "="));
                        }
                        match tokens.next() {
                            Some((at, Token::SingleQuotedString(value))) => {
                                let value = Name { value, at };
                                options.push(TableOption { key, value });
                            }
                            other => return Err(wrong(other, "a value in single quotes")),
                        }
                    }
                    // The tables of a join hint, which name nothing here.
                    Some((_, Token::Word(_) | Token::Period | Token::Number(..))) if name != "OPTIONS" => {}
                    other => return Err(wrong(other, "'key' = 'value'")),
                }
            }
        }
        if name == "OPTIONS" && options.is_empty() {
            return Err(SqlError::at(at, "OPTIONS names no option").hint(HINT));
        }
        hints.push(Hint { name, at, options });
        let _ = tokens.next_if(|(_, token)| *token == Token::Comma);
    }
    if hints.is_empty() {
        return Err(SqlError::at(end, "the hint is empty").hint("remove it"));
    }
    Ok(hints)
}

const HINT: &str = "write /*+ OPTIONS('key' = 'value') */, or remove the + to keep a comment";

/// Makes the name under which a table with other options is known.
pub(crate) fn name_with(table: &str, options: &[TableOption]) -> String {
    let options: Vec<String> = options
        .iter()
        .map(|option| format!("'{}'='{}'", option.key.value, option.value.value))
        .collect();
    format!("{table} /*+ OPTIONS({}) */", options.join(", "))
}

/// Puts the options behind tables in a query into effect: `declare` makes the table with other options and gives its name.
///
/// # Errors
/// As `declare`, and on options behind the name of a `WITH` query.
pub(crate) fn apply(
    query: &mut Query,
    hints: &mut Hints,
    declare: &mut dyn FnMut(&Name, Vec<TableOption>) -> Result<String>,
) -> Result<()> {
    if hints.0.is_empty() {
        return Ok(());
    }
    let mut walk = Apply {
        hints,
        declare,
        ctes: BTreeSet::new(),
    };
    match VisitMut::visit(query, &mut walk) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Apply<'a> {
    hints: &'a mut Hints,
    declare: &'a mut dyn FnMut(&Name, Vec<TableOption>) -> Result<String>,
    /// The names of the WITH queries so far.
    ctes: BTreeSet<String>,
}

impl Apply<'_> {
    /// Renames a table that has options behind it; gives the name it had.
    fn rename(&mut self, ident: &mut Ident) -> Result<Option<Ident>> {
        let at = start_of(ident.span);
        let options = self.hints.options_at(at)?;
        if options.is_empty() {
            return Ok(None);
        }
        if self.ctes.contains(&ident.value) {
            let message = format!("{} is a WITH query and has no options", ident.value);
            return Err(SqlError::at(at, message).hint("write OPTIONS behind the name of a table"));
        }
        let name = Name {
            value: ident.value.clone(),
            at,
        };
        let before = ident.clone();
        ident.value = (self.declare)(&name, options)?;
        ident.quote_style = Some('`');
        Ok(Some(before))
    }

    fn factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        let TableFactor::Table {
            name,
            alias,
            args: None,
            ..
        } = factor
        else {
            return Ok(());
        };
        let Some(ObjectNamePart::Identifier(ident)) = name.0.last_mut() else {
            return Ok(());
        };
        if let Some(before) = self.rename(ident)?
            && alias.is_none()
        {
            *alias = Some(TableAlias {
                explicit: true,
                name: before,
                columns: Vec::new(),
                at: None,
            });
        }
        Ok(())
    }

    fn argument(&mut self, expr: &mut Expr) -> Result<()> {
        let Expr::Prefixed { value, .. } = expr else {
            return Ok(());
        };
        let parts = match value.as_mut() {
            Expr::CompoundIdentifier(parts) => parts,
            Expr::Tuple(parts) => match parts.first_mut() {
                Some(Expr::CompoundIdentifier(parts)) => parts,
                _ => return Ok(()),
            },
            _ => return Ok(()),
        };
        match parts.last_mut() {
            Some(ident) => self.rename(ident).map(|_| ()),
            None => Ok(()),
        }
    }
}

impl VisitorMut for Apply<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.ctes.extend(ctes.map(|cte| cte.alias.name.value.clone()));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<SqlError> {
        match self.factor(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        match self.argument(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}
