//! The clauses inside calls of JSON functions: their grammar, and how they become arguments.
//!
//! | written | called |
//! |---|---|
//! | `JSON_OBJECT([KEY] k VALUE v, ... [NULL or ABSENT ON NULL])` | `JSON_OBJECT(flags, k, v, ...)` |
//! | `JSON_ARRAY(v, ... [NULL or ABSENT ON NULL])` | `JSON_ARRAY(flags, v, ...)` |
//! | `JSON_OBJECTAGG([KEY] k VALUE v [...])` | `JSON_OBJECTAGG(json_entry(flags, k, v))` |
//! | `JSON_ARRAYAGG(v [...])` | `JSON_ARRAYAGG(json_element(flags, v))` |
//! | `JSON_VALUE(x, path [RETURNING type] [... ON EMPTY] [... ON ERROR])` | `JSON_VALUE(x, path, behaviours, default, default)` |
//! | `JSON_QUERY(x, path [RETURNING type] [... WRAPPER] [... ON EMPTY] [... ON ERROR])` | `JSON_QUERY(x, path, behaviours, type)` |
//! | `JSON_EXISTS(x, path [... ON ERROR])` | `JSON_EXISTS(x, path, behaviour)` |
//!
//! Flags are a text: `n` where nulls are written and `a` where they are left out, then for each value `r` if it is JSON
//! already, which is not quoted again, and `.` else.
//!
//! The parser's tree has no place for the clauses behind a path. Until they are rewritten they stand there as operators
//! behind the path, so that the tree is written out as it was read: `SHOW CREATE VIEW` does.

use crate::syntax::{call, text};
use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgOperator,
    FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident, JsonNullClause, JsonReturningClause,
    ObjectName, ObjectNamePart, Spanned, Value,
};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

/// The function that marks text as JSON.
pub(crate) const JSON: &str = "json";

/// A function with clauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Object,
    Array,
    ObjectAgg,
    ArrayAgg,
    Value,
    Query,
    Exists,
}

impl Form {
    fn of(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "json_object" => Self::Object,
            "json_array" => Self::Array,
            "json_objectagg" => Self::ObjectAgg,
            "json_arrayagg" => Self::ArrayAgg,
            "json_value" => Self::Value,
            "json_query" => Self::Query,
            "json_exists" => Self::Exists,
            _ => return None,
        })
    }

    fn of_function(function: &Function) -> Option<Self> {
        Self::of(name_of(function)?)
    }

    fn has_entries(self) -> bool {
        matches!(self, Self::Object | Self::ObjectAgg)
    }

    fn is_aggregate(self) -> bool {
        matches!(self, Self::ObjectAgg | Self::ArrayAgg)
    }

    fn has_path(self) -> bool {
        matches!(self, Self::Value | Self::Query | Self::Exists)
    }
}

/// Returns a function's name without back-ticks; none with a dot.
fn name_of(function: &Function) -> Option<&str> {
    match function.name.0.as_slice() {
        [part] => Some(&part.as_ident()?.value),
        _ => None,
    }
}

/// Parses a call of a function with clauses, if one stands here.
pub(crate) fn parse(parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
    let token = parser.peek_token_ref();
    let Token::Word(word) = &token.token else { return None };
    let form = Form::of(&word.value)?;
    let name = Ident {
        value: word.value.clone(),
        quote_style: word.quote_style,
        span: token.span,
    };
    if parser.peek_nth_token_ref(1).token != Token::LParen {
        return None;
    }
    (0..2).for_each(|_| parser.advance_token());
    Some(parse_call(parser, name, form))
}

fn parse_call(parser: &mut Parser, name: Ident, form: Form) -> Result<Expr, ParserError> {
    let list = match form.has_path() {
        true => parse_of_path(parser, form)?,
        false => parse_values(parser, form)?,
    };
    parser.expect_token(&Token::RParen)?;
    let mut filter = None;
    if parser.parse_keyword(Keyword::FILTER) {
        parser.expect_token(&Token::LParen)?;
        parser.expect_keyword(Keyword::WHERE)?;
        filter = Some(Box::new(parser.parse_expr()?));
        parser.expect_token(&Token::RParen)?;
    }
    if peek_word(parser, 0, "OVER") {
        let name = name.value.to_uppercase();
        return refused(
            parser,
            &format!("{name} with OVER is not supported; use it with GROUP BY"),
        );
    }
    Ok(Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    }))
}

/// Parses values or entries, and what is done with nulls.
fn parse_values(parser: &mut Parser, form: Form) -> Result<FunctionArgumentList, ParserError> {
    let (mut args, mut clauses) = (Vec::new(), Vec::new());
    loop {
        if let Some(clause) = parse_on_null(parser) {
            clauses.push(FunctionArgumentClause::JsonNullClause(clause));
            break;
        }
        if args.is_empty() && !form.is_aggregate() && parser.peek_token_ref().token == Token::RParen {
            break;
        }
        args.push(match form.has_entries() {
            true => parse_entry(parser)?,
            false => FunctionArg::Unnamed(FunctionArgExpr::Expr(parser.parse_expr()?)),
        });
        if form.is_aggregate() || !parser.consume_token(&Token::Comma) {
            let clause = parse_on_null(parser).map(FunctionArgumentClause::JsonNullClause);
            clauses.extend(clause);
            break;
        }
    }
    if args.is_empty() && form.is_aggregate() {
        return refused(parser, "a value is missing");
    }
    Ok(FunctionArgumentList {
        duplicate_treatment: None,
        args,
        clauses,
    })
}

/// Parses `[KEY] key VALUE value`.
fn parse_entry(parser: &mut Parser) -> Result<FunctionArg, ParserError> {
    if peek_word(parser, 0, "KEY") && !peek_word(parser, 1, "VALUE") {
        parser.advance_token();
    }
    let name = parser.parse_expr()?;
    if !take_words(parser, &["VALUE"]) {
        return refused(parser, "expected VALUE: write KEY 'name' VALUE x");
    }
    let value = parser.parse_expr()?;
    Ok(FunctionArg::ExprNamed {
        name,
        arg: FunctionArgExpr::Expr(value),
        operator: FunctionArgOperator::Value,
    })
}

fn parse_on_null(parser: &mut Parser) -> Option<JsonNullClause> {
    if take_words(parser, &["NULL", "ON", "NULL"]) {
        return Some(JsonNullClause::NullOnNull);
    }
    take_words(parser, &["ABSENT", "ON", "NULL"]).then_some(JsonNullClause::AbsentOnNull)
}

/// What a path's clauses may be, with the name of each in a behaviour.
const QUERY_BEHAVIOURS: &[&str] = &["NULL", "ERROR", "EMPTY ARRAY", "EMPTY OBJECT"];
const EXISTS_BEHAVIOURS: &[&str] = &["TRUE", "FALSE", "UNKNOWN", "ERROR"];
const WRAPPERS: &[(&str, &str)] = &[
    ("WITHOUT ARRAY WRAPPER", "WITHOUT"),
    ("WITHOUT WRAPPER", "WITHOUT"),
    ("WITH CONDITIONAL ARRAY WRAPPER", "CONDITIONAL"),
    ("WITH CONDITIONAL WRAPPER", "CONDITIONAL"),
    ("WITH UNCONDITIONAL ARRAY WRAPPER", "UNCONDITIONAL"),
    ("WITH UNCONDITIONAL WRAPPER", "UNCONDITIONAL"),
    ("WITH ARRAY WRAPPER", "UNCONDITIONAL"),
    ("WITH WRAPPER", "UNCONDITIONAL"),
];

/// Parses a document, a path, and the clauses behind it.
fn parse_of_path(parser: &mut Parser, form: Form) -> Result<FunctionArgumentList, ParserError> {
    let document = parser.parse_expr()?;
    parser.expect_token(&Token::Comma)?;
    let mut path = parser.parse_expr()?;
    let mut clauses = Vec::new();
    let (mut wrapped, mut empty, mut error) = (false, false, false);
    while parser.peek_token_ref().token != Token::RParen {
        if form != Form::Exists && take_words(parser, &["RETURNING"]) {
            let data_type = parser.parse_data_type()?;
            if !clauses.is_empty() {
                return refused(parser, "RETURNING stands here twice");
            }
            clauses.push(FunctionArgumentClause::JsonReturningClause(JsonReturningClause {
                data_type,
            }));
            continue;
        }
        let wrapper = WRAPPERS
            .iter()
            .find(|(words, _)| take_words(parser, &words.split(' ').collect::<Vec<_>>()));
        if let (Form::Query, Some((words, _))) = (form, wrapper) {
            if std::mem::replace(&mut wrapped, true) {
                return refused(parser, "a WRAPPER stands here twice");
            }
            path = behind(path, words);
            continue;
        }
        let behaviours = match form {
            Form::Query => QUERY_BEHAVIOURS,
            Form::Exists => EXISTS_BEHAVIOURS,
            _ => &["NULL", "ERROR"],
        };
        let known = behaviours
            .iter()
            .find(|words| take_words(parser, &words.split(' ').collect::<Vec<_>>()));
        let default = match known {
            None if form == Form::Value && take_words(parser, &["DEFAULT"]) => Some(parser.parse_expr()?),
            None => return unknown_clause(parser, form),
            Some(_) => None,
        };
        let on = match form {
            Form::Exists => None,
            _ => take_words(parser, &["ON", "EMPTY"]).then_some("EMPTY"),
        };
        let on = on.or_else(|| take_words(parser, &["ON", "ERROR"]).then_some("ERROR"));
        let Some(on) = on else {
            return unknown_clause(parser, form);
        };
        let seen = if on == "EMPTY" { &mut empty } else { &mut error };
        if std::mem::replace(seen, true) {
            return refused(parser, &format!("ON {on} stands here twice"));
        }
        path = match (known, default) {
            (Some(words), _) => behind(path, &format!("{words} ON {on}")),
            (None, Some(default)) => behind(operator(path, "DEFAULT", default), &format!("ON {on}")),
            (None, None) => return unknown_clause(parser, form),
        };
    }
    Ok(FunctionArgumentList {
        duplicate_treatment: None,
        args: vec![
            FunctionArg::Unnamed(FunctionArgExpr::Expr(document)),
            FunctionArg::Unnamed(FunctionArgExpr::Expr(path)),
        ],
        clauses,
    })
}

fn unknown_clause<T>(parser: &Parser, form: Form) -> Result<T, ParserError> {
    refused(
        parser,
        match form {
            Form::Value => "JSON_VALUE takes RETURNING type, { NULL | ERROR | DEFAULT x } ON { EMPTY | ERROR }",
            Form::Query => {
                "JSON_QUERY takes RETURNING type, { WITHOUT | WITH CONDITIONAL | WITH UNCONDITIONAL } ARRAY WRAPPER, \
                 { NULL | ERROR | EMPTY ARRAY | EMPTY OBJECT } ON { EMPTY | ERROR }"
            }
            _ => "JSON_EXISTS takes { TRUE | FALSE | UNKNOWN | ERROR } ON ERROR",
        },
    )
}

fn refused<T>(parser: &Parser, message: &str) -> Result<T, ParserError> {
    let place = parser.peek_token_ref().span.start;
    Err(ParserError::ParserError(format!(
        "{message} at Line: {}, Column: {}",
        place.line, place.column
    )))
}

fn peek_word(parser: &Parser, index: usize, expected: &str) -> bool {
    match &parser.peek_nth_token_ref(index).token {
        Token::Word(word) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected),
        _ => false,
    }
}

/// Takes words if all of them stand here.
fn take_words(parser: &mut Parser, words: &[&str]) -> bool {
    let found = words
        .iter()
        .enumerate()
        .all(|(index, word)| peek_word(parser, index, word));
    if found {
        words.iter().for_each(|_| parser.advance_token());
    }
    found
}

fn operator(left: Expr, words: &str, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::Custom(words.to_owned()),
        right: Box::new(right),
    }
}

/// Puts words behind a path.
fn behind(path: Expr, words: &str) -> Expr {
    operator(path, words, Expr::Identifier(Ident::new("")))
}

/// A path and the clauses behind it.
#[derive(Default)]
struct Clauses<'a> {
    wrapper: Option<&'static str>,
    on_empty: Option<Behaviour<'a>>,
    on_error: Option<Behaviour<'a>>,
}

impl Clauses<'_> {
    /// Says whether there are none.
    fn is_plain(&self) -> bool {
        self.wrapper.is_none() && self.on_empty.is_none() && self.on_error.is_none()
    }
}

/// What is given instead.
#[derive(Clone, Copy)]
enum Behaviour<'a> {
    Words(&'a str),
    Default(&'a Expr),
}

impl Behaviour<'_> {
    /// Says in one word what is given; nothing is `NULL`.
    fn word(this: Option<Self>) -> String {
        match this {
            None => "NULL".to_owned(),
            Some(Behaviour::Words(words)) => words.replace(' ', "_"),
            Some(Behaviour::Default(_)) => "DEFAULT".to_owned(),
        }
    }

    fn default(this: Option<Self>) -> Expr {
        match this {
            Some(Behaviour::Default(expr)) => expr.clone(),
            _ => Expr::Value(Value::Null.into()),
        }
    }
}

/// Takes the clauses off a path.
fn clauses(mut path: &Expr) -> (&Expr, Clauses<'_>) {
    let mut found = Clauses::default();
    while let Expr::BinaryOp {
        left,
        op: BinaryOperator::Custom(words),
        ..
    } = path
    {
        path = left;
        if let Some((_, wrapper)) = WRAPPERS.iter().find(|(known, _)| known == words) {
            found.wrapper = Some(wrapper);
            continue;
        }
        let (given, on) = words.rsplit_once("ON ").unwrap_or((words, ""));
        let mut behaviour = Behaviour::Words(given.trim_end());
        if given.is_empty()
            && let Expr::BinaryOp { left, right, .. } = path
        {
            path = left;
            behaviour = Behaviour::Default(right);
        }
        match on {
            "EMPTY" => found.on_empty = Some(behaviour),
            _ => found.on_error = Some(behaviour),
        }
    }
    (path, found)
}

/// What a call is made of, for checks.
pub(crate) struct Inside<'a> {
    /// The expressions in it.
    pub(crate) exprs: Vec<&'a Expr>,
    /// The type behind `RETURNING`.
    pub(crate) returning: Option<&'a DataType>,
}

/// Takes a call with clauses apart; none for another function.
pub(crate) fn inside(function: &Function) -> Option<Inside<'_>> {
    let form = Form::of_function(function)?;
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let mut inside = Inside {
        exprs: Vec::new(),
        returning: returning(list),
    };
    for (index, (key, value)) in entries(list)?.into_iter().enumerate() {
        inside.exprs.extend(key);
        if form.has_path() && index == 1 {
            let (path, found) = clauses(value);
            inside.exprs.push(path);
            for behaviour in [found.on_empty, found.on_error] {
                inside.exprs.extend(match behaviour {
                    Some(Behaviour::Default(default)) => Some(default),
                    _ => None,
                });
            }
        } else {
            inside.exprs.push(json_text(value).unwrap_or(value));
        }
    }
    Some(inside)
}

/// Returns the type behind `RETURNING`.
fn returning(list: &FunctionArgumentList) -> Option<&DataType> {
    list.clauses.iter().find_map(|clause| match clause {
        FunctionArgumentClause::JsonReturningClause(returning) => Some(&returning.data_type),
        _ => None,
    })
}

/// Returns the arguments, those of entries with their keys.
fn entries(list: &FunctionArgumentList) -> Option<Vec<(Option<&Expr>, &Expr)>> {
    let entry = |arg| match arg {
        &FunctionArg::Unnamed(FunctionArgExpr::Expr(ref value)) => Some((None, value)),
        FunctionArg::ExprNamed {
            name,
            arg: FunctionArgExpr::Expr(value),
            operator: FunctionArgOperator::Value,
        } => Some((Some(name), value)),
        _ => None,
    };
    list.args.iter().map(entry).collect()
}

/// Returns the argument of `JSON(text)`.
fn json_text(value: &Expr) -> Option<&Expr> {
    let Expr::Function(function) = value else {
        return match value {
            Expr::Nested(inner) => json_text(inner),
            _ => None,
        };
    };
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let is_json = name_of(function).is_some_and(|name| name.eq_ignore_ascii_case(JSON));
    match entries(list)?.as_slice() {
        [(None, text)] if is_json => Some(text),
        _ => None,
    }
}

/// Says whether a value is JSON already: a call that makes an object or an array.
fn makes_json(value: &Expr) -> bool {
    match value {
        Expr::Nested(inner) => makes_json(inner),
        Expr::Function(function) => matches!(Form::of_function(function), Some(Form::Object | Form::Array)),
        _ => false,
    }
}

/// Writes a call's clauses as arguments; none for another function.
pub(crate) fn rewritten(function: &Function) -> Option<Expr> {
    let form = Form::of_function(function)?;
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let span = function.name.span();
    let entries = entries(list)?;
    let name = name_of(function)?.to_ascii_lowercase();
    let mut arguments = Vec::new();
    if form.has_path() {
        let [(_, document), (_, path)] = entries.as_slice() else {
            return None;
        };
        let (path, found) = clauses(path);
        let returning = returning(list).cloned();
        arguments.extend([(*document).clone(), path.clone()]);
        if returning.is_none() && found.is_plain() {
            return Some(call(&name, span, arguments));
        }
        let as_type = |expr: Expr| Expr::Cast {
            kind: CastKind::Cast,
            expr: Box::new(expr),
            data_type: returning.clone().unwrap_or(DataType::String(None)),
            array: false,
            format: None,
        };
        let (empty, error) = (Behaviour::word(found.on_empty), Behaviour::word(found.on_error));
        match form {
            Form::Value => {
                arguments.push(text(format!("{empty} {error}")));
                arguments.push(as_type(Behaviour::default(found.on_empty)));
                arguments.push(as_type(Behaviour::default(found.on_error)));
            }
            Form::Query => {
                let wrapper = found.wrapper.unwrap_or("WITHOUT");
                arguments.push(text(format!("{wrapper} {empty} {error}")));
                arguments.push(as_type(Expr::Value(Value::Null.into())));
            }
            _ => arguments.push(text(match found.on_error {
                None => "FALSE".to_owned(),
                behaviour => Behaviour::word(behaviour),
            })),
        }
        return Some(call(&name, span, arguments));
    }
    let written = match list.clauses.first() {
        Some(FunctionArgumentClause::JsonNullClause(JsonNullClause::NullOnNull)) => true,
        Some(FunctionArgumentClause::JsonNullClause(JsonNullClause::AbsentOnNull)) => false,
        _ => form.has_entries(),
    };
    let mut flags = String::from(if written { "n" } else { "a" });
    arguments.push(text(""));
    for (key, value) in entries {
        arguments.extend(key.cloned());
        let (flag, value) = match json_text(value) {
            Some(json) => ('r', call("json_checked", span, vec![json.clone()])),
            None if makes_json(value) => ('r', value.clone()),
            None => ('.', value.clone()),
        };
        flags.push(flag);
        arguments.push(value);
    }
    arguments[0] = text(flags);
    Some(match form {
        Form::ObjectAgg | Form::ArrayAgg => {
            let part = match form {
                Form::ObjectAgg => "json_entry",
                _ => "json_element",
            };
            let part = call(part, span, arguments);
            // What the filter leaves out is not looked at: its key may be null.
            let part = match &function.filter {
                Some(filter) => Expr::Case {
                    case_token: AttachedToken::empty(),
                    end_token: AttachedToken::empty(),
                    operand: None,
                    conditions: vec![CaseWhen {
                        condition: filter.as_ref().clone(),
                        result: part,
                    }],
                    else_result: None,
                },
                None => part,
            };
            let mut made = call(&name, span, vec![part]);
            if let Expr::Function(made) = &mut made {
                made.filter = function.filter.clone();
            }
            made
        }
        _ => call(&name, span, arguments),
    })
}
