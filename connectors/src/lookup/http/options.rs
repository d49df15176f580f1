//! The options of an `http` table.

use super::template::Template;
use crate::error::ConnectorError;
use crate::formats::RecordFormat;
use crate::formats::json::JsonOptions;
use crate::options::Options;
use crate::table::TableDefinition;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

const BODY_BYTES_DEFAULT: u64 = 8 << 20;
const BODY_BYTES_MAX: u64 = 1 << 30;
const CONCURRENCY_MAX: usize = 1_000;
const BATCH_ROWS_MAX: usize = 10_000;

/// What a table's options say.
#[derive(Clone, Debug)]
pub(super) struct HttpOptions {
    pub(super) url: String,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) timeout: Duration,
    /// Requests at once, of all workers of the process.
    pub(super) concurrency: usize,
    /// A longer answer is an error.
    pub(super) body_bytes_max: u64,
    pub(super) json: JsonOptions,
}

/// How a key is asked for.
#[derive(Clone, Debug)]
pub(super) enum Method {
    /// In the URL, one key a request.
    Get(Template),
    /// In a JSON array.
    Post {
        /// Keys in a request.
        batch_rows: usize,
    },
}

impl HttpOptions {
    /// Reads all options of a table that is looked up by the columns `keys`.
    ///
    /// # Errors
    /// When one is not valid, or the URL does not fit the keys.
    pub(super) fn parse(table: &TableDefinition, keys: &[&str]) -> Result<Self, ConnectorError> {
        let options = Options::new(&table.name, &table.options);
        let url = options.required("url")?.to_owned();
        let json = match RecordFormat::parse(&options, &["json"])? {
            Some(RecordFormat::Json(json)) => json,
            _ => return Err(ConnectorError::option("format", "must be 'json'")),
        };
        if json.ignore_parse_errors.is_on() {
            let error = ConnectorError::option("json.ignore-parse-errors", "not supported for answers of a service");
            return Err(error.with_hint("declare fewer columns, or as STRING"));
        }
        let template = Template::parse(&url).map_err(|message| ConnectorError::option("url", message))?;
        let is_get = options
            .choice("method", &[("GET", true), ("POST", false)])?
            .unwrap_or(true);
        let batch_rows = options.parsed("request.batch-size", "a whole number, such as '100'")?;
        let method = match is_get {
            true => {
                if batch_rows.is_some() {
                    let error = ConnectorError::option("request.batch-size", "a GET asks for one key");
                    return Err(error.with_hint("use 'method' = 'POST' to ask for many at once"));
                }
                fits(&template, table, keys)?;
                Method::Get(template)
            }
            false => {
                if let Some(name) = template.names().next() {
                    let message = format!("a POST asks for many keys at once, and the URL holds {{{name}}}");
                    let error = ConnectorError::option("url", message);
                    return Err(error.with_hint("write the URL without it; the keys are in the request's body"));
                }
                Method::Post {
                    batch_rows: batch_rows.unwrap_or(100),
                }
            }
        };
        if batch_rows.is_some_and(|rows| rows == 0 || rows > BATCH_ROWS_MAX) {
            return Err(options.out_of_range("request.batch-size", "from 1 to 10000"));
        }
        let timeout = options.duration("request.timeout")?.unwrap_or(Duration::from_secs(10));
        if timeout.is_zero() {
            return Err(options.out_of_range("request.timeout", "above 0, such as '10 s'"));
        }
        let concurrency = options
            .parsed("request.concurrency", "a whole number, such as '8'")?
            .unwrap_or(8);
        if concurrency == 0 || concurrency > CONCURRENCY_MAX {
            return Err(options.out_of_range("request.concurrency", "from 1 to 1000"));
        }
        let body_bytes_max = options.memory_size("response.max-size")?.unwrap_or(BODY_BYTES_DEFAULT);
        if body_bytes_max == 0 || body_bytes_max > BODY_BYTES_MAX {
            return Err(options.out_of_range("response.max-size", "from 1 byte to '1 gb'"));
        }
        let headers = headers(table, &options)?;
        options.finish()?;
        Ok(Self {
            url,
            method,
            headers,
            timeout,
            concurrency,
            body_bytes_max,
            json,
        })
    }
}

/// Checks that the URL's columns are those that keys are given for.
fn fits(template: &Template, table: &TableDefinition, keys: &[&str]) -> Result<(), ConnectorError> {
    for name in template.names() {
        let error = |message: String| ConnectorError::option("url", message);
        if table.schema.column_with_name(name).is_none() {
            return Err(error(format!("{{{name}}} is no column of the table")));
        }
        if !keys.contains(&name) {
            let error = error(format!("{{{name}}} is not given by the join"));
            return Err(error.with_hint(format!("add ... = {name} to its ON")));
        }
    }
    if template.names().next().is_none() {
        let error = ConnectorError::option("url", "holds no key");
        return Err(error.with_hint("write the column in braces: https://host/users/{id}; or use 'method' = 'POST'"));
    }
    Ok(())
}

fn headers(table: &TableDefinition, options: &Options<'_>) -> Result<HeaderMap, ConnectorError> {
    let mut headers = HeaderMap::new();
    headers.insert(reqwest::header::ACCEPT, HeaderValue::from_static("application/json"));
    for option in table.options.keys() {
        let Some(name) = option.strip_prefix("header.") else {
            continue;
        };
        let value = options.text(option).unwrap_or_default();
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            return Err(ConnectorError::option(
                option,
                format!("'{name}' is no name of a header"),
            ));
        };
        if ["host", "content-length", "transfer-encoding", "connection"].contains(&name.as_str()) {
            return Err(ConnectorError::option(
                option,
                "the client sets this header; leave it out",
            ));
        }
        let Ok(mut value) = HeaderValue::from_str(value) else {
            return Err(ConnectorError::option(
                option,
                "holds a character that a header cannot have",
            ));
        };
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}
