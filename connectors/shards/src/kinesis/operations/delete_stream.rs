//! DeleteStream. Registered consumers go with the stream, if the request says so.

use super::store_error;
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{Field, Kind, STREAM_ARN, STREAM_ID, STREAM_NAME};
use crate::kinesis::stream_ref;
use crate::store::ShardStore;

pub(super) const SHAPE: &[Field] = &[
    STREAM_NAME,
    Field::new("EnforceConsumerDeletion", Kind::Boolean),
    STREAM_ARN,
    STREAM_ID,
];

pub(super) async fn run(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = stream_ref::name(store, &fields)?;
    let enforced = fields.flag("EnforceConsumerDeletion");
    if !enforced && store.has_consumers(&stream).map_err(store_error(store))? {
        return Err(ApiError::in_use(format!(
            "Stream {stream} under account {} has registered consumers: deregister them, or set EnforceConsumerDeletion.",
            store.options().account
        )));
    }
    store.delete_stream(&stream).await.map_err(store_error(store))
}
