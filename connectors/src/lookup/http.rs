//! The connector `http`: a service that is asked for the rows of keys, with JSON answers.
//!
//! ```text
//!  GET   one request a key       https://host/users/{id}        ◀─ an object, an array of objects, or 404
//!  POST  one request many keys   [{"id":1},{"id":2}]            ◀─ an array of objects, each with its key
//! ```
//! File map: `options` reads the options, `template` makes URLs, `exchange` makes requests, again if they fail.

mod exchange;
mod options;
mod template;
#[cfg(test)]
mod tests;

use super::options::{CacheKind, split};
use super::{Lookup, Wanted};
use crate::error::ConnectorError;
use crate::formats::json::{JsonDecoder, JsonEncoder, elements};
use crate::formats::{RecordDecoder as _, RecordSchema, RowEncoder as _};
use crate::table::TableDefinition;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::SchemaRef;
use exchange::{Exchange, Retries};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use options::{HttpOptions, Method};
use std::sync::Arc;
use template::Template;
use tidemill_engine::lookup::{LookupFuture, LookupOptions, LookupSource};
use tidemill_engine::{Error, Result};

/// Checks that a table can be looked up by some of its columns.
///
/// # Errors
/// When it cannot.
pub(crate) fn check(table: &TableDefinition, keys: &[usize]) -> Result<(), ConnectorError> {
    parse(table, keys).map(|_| ())
}

/// Makes the lookup of a table.
///
/// # Errors
/// When the options are not valid.
pub(crate) fn create(table: &TableDefinition, wanted: Wanted<'_>) -> Result<Lookup, ConnectorError> {
    let (lookup, options) = parse(table, wanted.keys)?;
    let retries = Retries {
        max: lookup.retries_max,
        pause: lookup.retry_pause,
    };
    let service = Service {
        schema: table.project(wanted.projection)?,
        exchange: Exchange::new(&options, retries)?,
        options,
    };
    // A request is made again where it failed, not with all the others of its batch.
    let options = LookupOptions {
        retries_max: 0,
        ..lookup
    };
    Ok(Lookup {
        source: Arc::new(HttpLookup {
            table: table.name.clone(),
            service: Arc::new(service),
        }),
        options,
    })
}

fn parse(table: &TableDefinition, keys: &[usize]) -> Result<(LookupOptions, HttpOptions), ConnectorError> {
    let (lookup, rest) = split(table, &[CacheKind::None, CacheKind::Partial])?;
    let names: Vec<&str> = keys.iter().map(|key| rest.schema.field(*key).name().as_str()).collect();
    let options = HttpOptions::parse(&rest, &names)?;
    if let Some(metadata) = rest.metadata_columns.first() {
        return Err(ConnectorError::new(format!(
            "column {}: http has no metadata",
            metadata.column
        )));
    }
    if !rest.partition_keys.is_empty() {
        return Err(ConnectorError::new("an http table has no PARTITIONED BY"));
    }
    let all = (0..rest.schema.fields().len()).collect();
    JsonDecoder::new(&RecordSchema::new(Arc::clone(&rest.schema), all), options.json)?;
    for key in keys {
        let field = rest.schema.field(*key);
        crate::formats::values::check_writable(field.name(), field.data_type())?;
    }
    Ok((lookup, options))
}

struct HttpLookup {
    table: String,
    service: Arc<Service>,
}

struct Service {
    /// What is answered.
    schema: SchemaRef,
    options: HttpOptions,
    exchange: Exchange,
}

impl LookupSource for HttpLookup {
    fn lookup(&self, keys: RecordBatch) -> LookupFuture<RecordBatch> {
        let (table, service) = (self.table.clone(), Arc::clone(&self.service));
        async move {
            let answered = match &service.options.method {
                Method::Get(template) => service.get(template, &keys).await,
                Method::Post { batch_rows } => service.post(*batch_rows, &keys).await,
            };
            answered.map_err(|message| Error::Source { table, message })
        }
        .boxed()
    }

    fn load(&self) -> LookupFuture<Vec<RecordBatch>> {
        std::future::ready(Err(Error::Internal("a service is not read whole".into()))).boxed()
    }
}

impl Service {
    /// Asks for each key of its own.
    async fn get(&self, template: &Template, keys: &RecordBatch) -> Result<RecordBatch, String> {
        let urls = template.urls(keys)?;
        let asked = urls.into_iter().enumerate().map(|(row, url)| async move {
            let answer = self
                .exchange
                .get(&url)
                .await
                .map_err(|message| format!("{url}: {message}"))?;
            self.rows(&answer, Some((template, keys, row)))
                .map_err(|message| format!("{url}: {message}"))
        });
        self.all(asked).await
    }

    /// Asks for many keys at once.
    async fn post(&self, batch_rows: usize, keys: &RecordBatch) -> Result<RecordBatch, String> {
        let url = self.options.url.as_str();
        let encoder = JsonEncoder::new(keys.schema_ref(), self.options.json).map_err(|error| error.to_string())?;
        let mut bodies = Vec::new();
        for first in (0..keys.num_rows()).step_by(batch_rows) {
            let part = keys.slice(first, batch_rows.min(keys.num_rows() - first));
            let mut body = vec![b'['];
            encoder
                .encode(&part, &mut body, &mut |body| body.push(b','))
                .map_err(|error| error.to_string())?;
            // In place of the comma behind the last one.
            body.pop();
            body.push(b']');
            bodies.push(body);
        }
        let asked = bodies.into_iter().map(|body| async move {
            let answer = self
                .exchange
                .post(url, body)
                .await
                .map_err(|message| format!("{url}: {message}"))?;
            self.rows(&answer, None).map_err(|message| format!("{url}: {message}"))
        });
        self.all(asked).await
    }

    async fn all<F>(&self, asked: impl Iterator<Item = F>) -> Result<RecordBatch, String>
    where
        F: Future<Output = Result<RecordBatch, String>>,
    {
        let found: Vec<RecordBatch> = futures::stream::iter(asked)
            .buffered(self.options.concurrency)
            .try_collect()
            .await?;
        concat_batches(&self.schema, &found).map_err(|error| error.to_string())
    }

    /// Reads the rows of an answer. What stands in the URL of a key need not stand in its answer.
    fn rows(&self, answer: &[u8], key: Option<(&Template, &RecordBatch, usize)>) -> Result<RecordBatch, String> {
        let text = std::str::from_utf8(answer).map_err(|error| format!("the answer is not UTF-8: {error}"))?;
        let in_url = |name: &str| {
            let (template, keys, row) = key?;
            template.names().any(|known| known == name).then_some(())?;
            Some((keys.column_by_name(name)?, row))
        };
        let fields = self.schema.fields();
        let decoded: Vec<usize> = (0..fields.len())
            .filter(|place| in_url(fields[*place].name()).is_none())
            .collect();
        let record = RecordSchema::new(Arc::clone(&self.schema), decoded.clone());
        let mut decoder = JsonDecoder::new(&record, self.options.json).map_err(|error| error.to_string())?;
        let mut count = 0;
        if !text.trim().is_empty() {
            for element in elements(text).map_err(|error| format!("the answer is no JSON: {error}"))? {
                let decoded = decoder.decode(element.as_bytes());
                decoded.map_err(|error| format!("row {count} of the answer: {error}"))?;
                count += 1;
            }
        }
        let columns = decoder.finish().map_err(|error| error.to_string())?;
        let of_key = |(keys, row): (&ArrayRef, usize)| {
            take(keys, &UInt32Array::from(vec![row as u32; count]), None).map_err(|error| error.to_string())
        };
        let column = |place: usize| match in_url(fields[place].name()) {
            Some(key) => of_key(key),
            None => {
                let found = decoded
                    .iter()
                    .position(|known| *known == place)
                    .and_then(|place| columns.get(place));
                found.cloned().ok_or_else(|| "a column was not decoded".to_owned())
            }
        };
        let columns = (0..fields.len()).map(column).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| error.to_string())
    }
}
