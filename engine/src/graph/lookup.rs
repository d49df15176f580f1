//! Lookup joins in the job graph.

use super::{AsyncNode, JobGraph, StreamId, field_at};
use crate::error::{Error, Result};
use crate::key::supports_key_type;
use crate::lookup::{LookupCache, LookupJoin};
use crate::operator::{AsyncOptions, AsyncOrder};
use crate::operators::lookup_join::LookupJoinOperator;
use arrow::datatypes::Schema;
use std::sync::Arc;

impl JobGraph {
    /// Joins a stream with a table that is looked up.
    ///
    /// # Errors
    /// When a column does not exist, cannot be a key, or has another type than what it is to equal.
    pub fn lookup_join(&mut self, uid: impl Into<String>, input: StreamId, join: LookupJoin) -> Result<StreamId> {
        let stream = Arc::clone(self.schema(input));
        if join.keys.is_empty() {
            return Err(Error::Graph(format!("table {} is looked up without a key", join.table)));
        }
        for (of_stream, of_table) in &join.keys {
            let (left, right) = (field_at(&stream, *of_stream)?, field_at(&join.schema, *of_table)?);
            let (found, wanted) = (left.data_type(), right.data_type());
            if found != wanted {
                let name = right.name();
                return Err(Error::Graph(format!(
                    "column {name} is {wanted} and is compared with {found}"
                )));
            }
            if !supports_key_type(found) {
                return Err(Error::Graph(format!(
                    "column {} of {found} cannot be a key",
                    right.name()
                )));
            }
        }
        for (field, place) in &join.outputs {
            let found = match place.checked_sub(stream.fields().len()) {
                None => field_at(&stream, *place)?,
                Some(place) => field_at(&join.schema, place)?,
            };
            if found.data_type() != field.data_type() {
                let (name, expected, found) = (field.name(), field.data_type(), found.data_type());
                return Err(Error::Graph(format!(
                    "column {name} is declared {expected} and is {found}"
                )));
            }
        }
        if matches!(&join.options.cache, LookupCache::Partial(cache) if cache.rows_max == 0) {
            return Err(Error::Graph(
                "a cache of 0 rows holds nothing; use LookupCache::None".into(),
            ));
        }
        let options = AsyncOptions {
            capacity: join.options.requests_max,
            order: AsyncOrder::Ordered,
            timeout: join.options.timeout,
        };
        let fields: Vec<_> = join.outputs.iter().map(|(field, _)| field.clone()).collect();
        let schema = Arc::new(Schema::new(fields));
        let node = AsyncNode {
            name: format!("lookup join {}", join.table),
            schema: Arc::clone(&schema),
            operator: Arc::new(LookupJoinOperator::new(join, &stream, schema)),
            options,
        };
        self.async_operator(uid, input, node)
    }
}
