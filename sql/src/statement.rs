//! The statements of a job, as parsed: our own grammar on `sqlparser`'s public methods.
//!
//! What is not a statement of ours is refused where it begins. Queries inside are `sqlparser`'s; [`crate::whitelist`]
//! checks them.
//!
//! File map: `create_table` is the grammar of tables, `like` that of `LIKE` behind one, `show` that of statements that only
//! answer, `refused` says what other statements of Flink's are not here, this file is the rest.

mod create_table;
mod like;
mod refused;
mod show;

pub(crate) use create_table::{ColumnDefinition, ColumnKind, CreateTable, TableOption};
pub(crate) use like::Like;
pub(crate) use show::{Show, Shown};

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
    pub(crate) comment: Option<String>,
}

/// What a statement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Table,
    View,
}

impl Kind {
    /// Returns the word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::View => "view",
        }
    }
}

/// `DROP TABLE | VIEW [IF EXISTS] name`.
#[derive(Clone, Debug)]
pub(crate) struct Drop {
    pub(crate) kind: Kind,
    pub(crate) name: Name,
    pub(crate) if_exists: bool,
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
    Drop(Drop),
    Insert(Insert),
    Explain(Explained),
    Show(Show),
    Set(SetOption),
    /// `RESET ['key']`.
    Reset(Option<Name>),
}

/// `STATEMENT SET` between its `BEGIN` and `END`.
struct StatementSet {
    at: Option<Position>,
    explains: bool,
    statements: usize,
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
    let mut set: Option<StatementSet> = None;
    loop {
        while parser.consume_token(&Token::SemiColon) {}
        let first = parser.peek_token();
        let at = start_of(first.span);
        if first.token == Token::EOF {
            return match set {
                None => Ok(statements),
                Some(set) => Err(SqlError::at(set.at, "this statement set has no END").hint("write END; behind it")),
            };
        }
        match &mut set {
            None => {
                if let Some(explains) = begins_set(&mut parser)? {
                    set = Some(StatementSet {
                        at,
                        explains,
                        statements: 0,
                    });
                    continue;
                }
            }
            Some(open) => {
                if parser.parse_keyword(Keyword::END) {
                    if open.statements == 0 {
                        return Err(SqlError::at(open.at, "this statement set is empty")
                            .hint("write INSERT statements between BEGIN and END"));
                    }
                    set = None;
                    end_statement(&parser)?;
                    continue;
                }
                if !is_word(&first.token, "INSERT") {
                    return Err(
                        SqlError::at(at, format!("only INSERT may stand in a statement set, found {first}"))
                            .hint("write the other statements before it, or END; if it ends here"),
                    );
                }
                open.statements += 1;
            }
        }
        if statements.len() == limits.statements_max {
            let message = format!("more than {} statements, which is the limit", limits.statements_max);
            return Err(SqlError::at(at, message).hint("split the text into several jobs"));
        }
        let statement = parse_statement(&mut parser).map_err(|error| script.place_found(error, at))?;
        let statement = match (statement, &set) {
            (Statement::Insert(insert), Some(StatementSet { explains: true, .. })) => {
                Statement::Explain(Explained::Insert(insert))
            }
            (statement, _) => statement,
        };
        statements.push((at, statement));
        end_statement(&parser)?;
    }
}

fn end_statement(parser: &Parser<'_>) -> Result<()> {
    let next = parser.peek_token();
    if next.token != Token::EOF && next.token != Token::SemiColon {
        return Err(SqlError::at(
            start_of(next.span),
            format!("expected the end of the statement, found {next}"),
        )
        .hint("end each statement with a semicolon"));
    }
    Ok(())
}

/// Parses `EXECUTE STATEMENT SET [AS] BEGIN`, `BEGIN STATEMENT SET` or `EXPLAIN STATEMENT SET [AS] BEGIN`; says whether the
/// set explains. `None` when none of them stands here.
fn begins_set(parser: &mut Parser<'_>) -> Result<Option<bool>> {
    let first = &parser.peek_token_ref().token;
    let (starts, explains) = (is_word(first, "BEGIN"), is_word(first, "EXPLAIN"));
    if !starts && !explains && !is_word(first, "EXECUTE") {
        return Ok(None);
    }
    let is_set = is_word(&parser.peek_nth_token_ref(1).token, "STATEMENT")
        && is_word(&parser.peek_nth_token_ref(2).token, "SET");
    if !is_set {
        return Ok(None);
    }
    (0..3).for_each(|_| parser.advance_token());
    if starts {
        return Ok(Some(false));
    }
    let _ = parser.parse_keyword(Keyword::AS);
    let next = parser.peek_token();
    if !is_word(&next.token, "BEGIN") {
        return Err(
            SqlError::at(start_of(next.span), format!("expected BEGIN, found {next}"))
                .hint("write EXECUTE STATEMENT SET BEGIN INSERT ...; INSERT ...; END;"),
        );
    }
    parser.advance_token();
    Ok(Some(explains))
}

/// Says whether a token is a word (upper case) without quotes.
fn is_word(token: &Token, expected: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected))
}

/// Takes a word (upper case) if it comes next.
fn parse_word(parser: &mut Parser<'_>, expected: &str) -> bool {
    let found = is_word(&parser.peek_token_ref().token, expected);
    if found {
        parser.advance_token();
    }
    found
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
        "RESET" => {
            parser.advance_token();
            let is_all = matches!(parser.peek_token_ref().token, Token::SemiColon | Token::EOF);
            Ok(Statement::Reset(if is_all { None } else { Some(parse_text(parser)?) }))
        }
        "DROP" => {
            parser.advance_token();
            parse_drop(parser).map(Statement::Drop)
        }
        "EXECUTE" => {
            parser.advance_token();
            let next = parser.peek_token();
            if !parse_word(parser, "INSERT") {
                let error = SqlError::at(
                    start_of(next.span),
                    format!("expected INSERT after EXECUTE, found {next}"),
                );
                return Err(error.hint("write EXECUTE INSERT INTO ... or EXECUTE STATEMENT SET BEGIN ... END"));
            }
            parse_insert(parser).map(Statement::Insert)
        }
        "SHOW" => {
            parser.advance_token();
            show::parse_show(parser).map(Statement::Show)
        }
        "DESCRIBE" | "DESC" => {
            parser.advance_token();
            show::parse_describe(parser).map(Statement::Show)
        }
        "SELECT" | "WITH" | "VALUES" => Err(bare_query(at)),
        "BEGIN" => {
            let at = start_of(parser.peek_nth_token_ref(1).span).or(at);
            Err(SqlError::at(at, "expected STATEMENT SET after BEGIN").hint("write BEGIN STATEMENT SET; ... END;"))
        }
        "END" => Err(SqlError::at(at, "there is no statement set to END").hint("write BEGIN STATEMENT SET; before it")),
        other => match refused::hint(other) {
            Some(hint) => Err(SqlError::at(at, format!("{other} is not supported")).hint(hint)),
            None => Err(SqlError::at(at, format!("expected a statement, found {first}")).hint(STATEMENTS)),
        },
    }
}

const STATEMENTS: &str = "statements are CREATE TABLE, CREATE VIEW, CREATE FUNCTION, DROP, INSERT INTO ... SELECT, \
                          EXECUTE STATEMENT SET, EXPLAIN, DESCRIBE, SHOW, SET and RESET";

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
    let comment = parse_comment(parser)?;
    parser.expect_keyword(Keyword::AS).map_err(from_parser)?;
    let query = parse_query(parser)?;
    Ok(CreateView {
        name,
        columns,
        query,
        if_not_exists,
        comment,
    })
}

fn parse_drop(parser: &mut Parser<'_>) -> Result<Drop> {
    let temporary = parser.parse_keyword(Keyword::TEMPORARY);
    let what = parser.next_token();
    let at = start_of(what.span);
    let kind = match what.token.to_string().to_ascii_uppercase().as_str() {
        "TABLE" => Kind::Table,
        "VIEW" => Kind::View,
        other => {
            let words = if temporary { "DROP TEMPORARY" } else { "DROP" };
            let hint = "DROP TABLE and DROP VIEW exist; every text begins without tables, views and functions";
            return Err(SqlError::at(at, format!("{words} {other} is not supported")).hint(hint));
        }
    };
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let name = parse_name(parser)?;
    Ok(Drop { kind, name, if_exists })
}

/// Parses `COMMENT 'text'`, if it is there.
fn parse_comment(parser: &mut Parser<'_>) -> Result<Option<String>> {
    if parser.parse_keyword(Keyword::COMMENT) {
        return Ok(Some(parse_text(parser)?.value));
    }
    Ok(None)
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
    let details = ["ESTIMATED_COST", "CHANGELOG_MODE", "JSON_EXECUTION_PLAN", "PLAN_ADVICE"];
    if details.iter().any(|detail| is_word(&next.token, detail)) {
        return Err(
            SqlError::at(start_of(next.span), format!("EXPLAIN {next} is not supported"))
                .hint("write EXPLAIN INSERT INTO ...: it shows the logical plan and the job's dataflow"),
        );
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
