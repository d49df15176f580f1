//! The statements of a job, as parsed: our own grammar on `sqlparser`'s public methods.
//!
//! Only `CREATE TABLE`, `CREATE VIEW`, `INSERT INTO`, `EXPLAIN` and `SET` exist; everything else is refused where it
//! begins. Queries inside are `sqlparser`'s; [`crate::whitelist`] checks them.
//!
//! File map: `create_table` is the grammar of tables, this file that of the rest.

mod create_table;

pub(crate) use create_table::{ColumnKind, CreateTable};

use crate::dialect::TidemillDialect;
use crate::error::{Position, Result, SqlError};
use crate::guard::Limits;
use crate::script::{Script, from_parser, start_of};
use sqlparser::ast::{Ident, Query, SetExpr};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

/// How deep the parser may recurse; [`Limits::nesting_max`] is reached first.
const PARSER_RECURSION_MAX: usize = 100;

/// A name and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// The name, as written: names are case-sensitive.
    pub(crate) value: String,
    /// Where it stands.
    pub(crate) at: Option<Position>,
}

impl From<Ident> for Name {
    fn from(ident: Ident) -> Self {
        Self {
            value: ident.value,
            at: start_of(ident.span),
        }
    }
}

/// `CREATE VIEW name [(columns)] AS query`.
#[derive(Clone, Debug)]
pub(crate) struct CreateView {
    pub(crate) name: Name,
    pub(crate) columns: Vec<Name>,
    pub(crate) query: Box<Query>,
    pub(crate) if_not_exists: bool,
}

/// `INSERT INTO table [(columns)] query`.
#[derive(Clone, Debug)]
pub(crate) struct Insert {
    pub(crate) table: Name,
    pub(crate) columns: Vec<Name>,
    pub(crate) query: Box<Query>,
}

/// What is explained.
#[derive(Clone, Debug)]
pub(crate) enum Explained {
    Insert(Insert),
    Query(Box<Query>),
}

/// `SET 'key' = 'value'`.
#[derive(Clone, Debug)]
pub(crate) struct SetOption {
    pub(crate) key: Name,
    pub(crate) value: Name,
}

/// A statement.
#[derive(Clone, Debug)]
pub(crate) enum Statement {
    CreateTable(Box<CreateTable>),
    CreateView(CreateView),
    Insert(Insert),
    Explain(Explained),
    Set(SetOption),
}

/// Parses all statements of a script; each with the place where it begins.
///
/// # Errors
/// On text that is not a statement of ours, at the place where it stops being one.
pub(crate) fn parse(script: &Script<'_>, limits: &Limits) -> Result<Vec<(Option<Position>, Statement)>> {
    let mut parser = Parser::new(&TidemillDialect)
        .with_recursion_limit(PARSER_RECURSION_MAX)
        .with_tokens_with_locations(script.tokens().to_vec());
    let mut statements = Vec::new();
    loop {
        while parser.consume_token(&Token::SemiColon) {}
        let first = parser.peek_token();
        if first.token == Token::EOF {
            return Ok(statements);
        }
        let at = start_of(first.span);
        if statements.len() == limits.statements_max {
            let message = format!("more than {} statements, which is the limit", limits.statements_max);
            return Err(SqlError::at(at, message).hint("split the text into several jobs"));
        }
        let statement = parse_statement(&mut parser).map_err(|error| script.place_found(error, at))?;
        statements.push((at, statement));
        let next = parser.peek_token();
        if next.token != Token::EOF && next.token != Token::SemiColon {
            return Err(SqlError::at(
                start_of(next.span),
                format!("expected the end of the statement, found {next}"),
            )
            .hint("end each statement with a semicolon"));
        }
    }
}

fn parse_statement(parser: &mut Parser<'_>) -> Result<Statement> {
    let first = parser.peek_token();
    let at = start_of(first.span);
    let Token::Word(word) = &first.token else {
        if first.token == Token::LParen {
            return Err(bare_query(at));
        }
        return Err(SqlError::at(at, format!("expected a statement, found {first}")).hint(STATEMENTS));
    };
    match word.value.to_ascii_uppercase().as_str() {
        "CREATE" => {
            parser.advance_token();
            parse_create(parser)
        }
        "INSERT" => {
            parser.advance_token();
            parse_insert(parser).map(Statement::Insert)
        }
        "EXPLAIN" => {
            parser.advance_token();
            parse_explain(parser).map(Statement::Explain)
        }
        "SET" => {
            parser.advance_token();
            parse_set(parser).map(Statement::Set)
        }
        "SELECT" | "WITH" | "VALUES" => Err(bare_query(at)),
        "EXECUTE" | "BEGIN" => Err(SqlError::at(at, "statement sets are not supported yet")
            .hint("write the INSERT statements one after the other: all of a text are one job")),
        "SHOW" | "DESCRIBE" | "DESC" | "DROP" | "ALTER" | "USE" | "LOAD" | "UNLOAD" | "RESET" | "ADD" | "REMOVE"
        | "ANALYZE" | "CALL" | "TRUNCATE" | "UPDATE" | "DELETE" | "MERGE" | "COPY" => {
            Err(SqlError::at(at, format!("{} is not supported", word.value.to_ascii_uppercase())).hint(STATEMENTS))
        }
        _ => Err(SqlError::at(at, format!("expected a statement, found {first}")).hint(STATEMENTS)),
    }
}

const STATEMENTS: &str = "statements are CREATE TABLE, CREATE VIEW, INSERT INTO ... SELECT, EXPLAIN and SET";

fn bare_query(at: Option<Position>) -> SqlError {
    SqlError::at(at, "a query alone leads nowhere")
        .hint("write INSERT INTO table SELECT ...; a table WITH ('connector' = 'print') shows rows")
}

fn parse_create(parser: &mut Parser<'_>) -> Result<Statement> {
    let temporary = parser.parse_keyword(Keyword::TEMPORARY);
    let what = parser.next_token();
    let at = start_of(what.span);
    match what.token.to_string().to_ascii_uppercase().as_str() {
        "TABLE" => create_table::parse(parser).map(|table| Statement::CreateTable(Box::new(table))),
        "VIEW" => parse_view(parser).map(Statement::CreateView),
        "OR" => Err(SqlError::at(at, "CREATE OR REPLACE is not supported")
            .hint("every text begins without tables: write the newer definition only")),
        "FUNCTION" | "SYSTEM" if temporary || what.token.to_string().eq_ignore_ascii_case("FUNCTION") => {
            Err(SqlError::at(at, "CREATE FUNCTION is not supported yet").hint("use the built-in functions"))
        }
        other => Err(SqlError::at(at, format!("CREATE {other} is not supported")).hint(STATEMENTS)),
    }
}

fn parse_view(parser: &mut Parser<'_>) -> Result<CreateView> {
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    let name = parse_name(parser)?;
    let columns = if parser.consume_token(&Token::LParen) {
        parse_names(parser)?
    } else {
        Vec::new()
    };
    if parser.parse_keyword(Keyword::COMMENT) {
        parse_text(parser)?;
    }
    parser.expect_keyword(Keyword::AS).map_err(from_parser)?;
    let query = parse_query(parser)?;
    Ok(CreateView {
        name,
        columns,
        query,
        if_not_exists,
    })
}

fn parse_insert(parser: &mut Parser<'_>) -> Result<Insert> {
    let next = parser.peek_token();
    if parser.parse_keyword(Keyword::OVERWRITE) {
        return Err(SqlError::at(start_of(next.span), "INSERT OVERWRITE is not supported")
            .hint("a job appends: use INSERT INTO"));
    }
    parser.expect_keyword(Keyword::INTO).map_err(from_parser)?;
    let table = parse_name(parser)?;
    let next = parser.peek_token();
    if parser.parse_keyword(Keyword::PARTITION) {
        return Err(
            SqlError::at(start_of(next.span), "INSERT INTO ... PARTITION is not supported")
                .hint("select the partition's value as a column"),
        );
    }
    let columns = if parser.peek_token_ref().token == Token::LParen && is_column_list(parser) {
        parser.advance_token();
        parse_names(parser)?
    } else {
        Vec::new()
    };
    let query = parse_query(parser)?;
    Ok(Insert { table, columns, query })
}

/// Tells `(a, b)` from a query in parentheses.
fn is_column_list(parser: &Parser<'_>) -> bool {
    match &parser.peek_nth_token_ref(1).token {
        Token::Word(word) => {
            !(word.quote_style.is_none() && matches!(word.keyword, Keyword::SELECT | Keyword::WITH | Keyword::VALUES))
        }
        _ => false,
    }
}

fn parse_explain(parser: &mut Parser<'_>) -> Result<Explained> {
    if parser.parse_keyword(Keyword::PLAN) {
        parser.expect_keyword(Keyword::FOR).map_err(from_parser)?;
    }
    let next = parser.peek_token();
    if parser.parse_keyword(Keyword::INSERT) {
        return parse_insert(parser).map(Explained::Insert);
    }
    let starts_query = match &next.token {
        Token::LParen => true,
        Token::Word(word) => matches!(word.keyword, Keyword::SELECT | Keyword::WITH | Keyword::VALUES),
        _ => false,
    };
    if !starts_query {
        return Err(SqlError::at(
            start_of(next.span),
            format!("expected INSERT or SELECT after EXPLAIN, found {next}"),
        )
        .hint("write EXPLAIN INSERT INTO ... or EXPLAIN SELECT ..."));
    }
    parse_query(parser).map(Explained::Query)
}

fn parse_set(parser: &mut Parser<'_>) -> Result<SetOption> {
    let token = parser.peek_token();
    if !matches!(token.token, Token::SingleQuotedString(_)) {
        return Err(SqlError::at(
            start_of(token.span),
            format!("expected a key in quotes after SET, found {token}"),
        )
        .hint("write SET 'key' = 'value'"));
    }
    let key = parse_text(parser)?;
    parser.expect_token(&Token::Eq).map_err(from_parser)?;
    let value = parse_text(parser)?;
    Ok(SetOption { key, value })
}

/// Parses a query.
fn parse_query(parser: &mut Parser<'_>) -> Result<Box<Query>> {
    let first = parser.peek_token();
    let query = parser.parse_query().map_err(from_parser)?;
    // `sqlparser` reads INSERT, UPDATE and the like as queries, too.
    match query.body.as_ref() {
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            Err(SqlError::at(start_of(first.span), "a query is expected here").hint("write SELECT ..."))
        }
        _ => Ok(query),
    }
}

/// Parses a name of one part.
pub(crate) fn parse_name(parser: &mut Parser<'_>) -> Result<Name> {
    let name = Name::from(parser.parse_identifier().map_err(from_parser)?);
    let next = parser.peek_token();
    if next.token == Token::Period {
        return Err(SqlError::at(
            start_of(next.span),
            "names with a catalog or database are not supported",
        )
        .hint("a job has one name space: write the table's name alone"));
    }
    Ok(name)
}

/// Parses names after an open parenthesis, and the closing one.
fn parse_names(parser: &mut Parser<'_>) -> Result<Vec<Name>> {
    let mut names = vec![parse_name(parser)?];
    while parser.consume_token(&Token::Comma) {
        names.push(parse_name(parser)?);
    }
    parser.expect_token(&Token::RParen).map_err(from_parser)?;
    Ok(names)
}

/// Parses text in single quotes.
fn parse_text(parser: &mut Parser<'_>) -> Result<Name> {
    let token = parser.next_token();
    let at = start_of(token.span);
    match token.token {
        Token::SingleQuotedString(value) => Ok(Name { value, at }),
        _ => Err(SqlError::at(
            at,
            format!("expected text in single quotes, found {token}"),
        )),
    }
}
