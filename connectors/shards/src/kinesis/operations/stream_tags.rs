//! AddTagsToStream, RemoveTagsFromStream and ListTagsForStream.

use super::{change, page, tag_list};
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{Field, Kind, STREAM_ARN, STREAM_ID, STREAM_NAME, TAG_KEYS, TAGS};
use crate::kinesis::stream_ref;
use crate::limits;
use crate::store::ShardStore;
use crate::update::StreamUpdate;

pub(super) const ADD: &[Field] = &[STREAM_NAME, TAGS.required(), STREAM_ARN, STREAM_ID];
pub(super) const REMOVE: &[Field] = &[STREAM_NAME, TAG_KEYS, STREAM_ARN, STREAM_ID];
pub(super) const LIST: &[Field] = &[
    STREAM_NAME,
    Field::new("ExclusiveStartTagKey", Kind::Text).range(1, 128),
    Field::new("Limit", Kind::Integer).range(1, limits::TAGS_MAX as i64),
    STREAM_ARN,
    STREAM_ID,
];

pub(super) async fn add(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = stream_ref::stream(store, &fields)?;
    change(store, &stream, StreamUpdate::AddTags(fields.text_map("Tags")))
        .await
        .map(drop)
}

pub(super) async fn remove(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = stream_ref::stream(store, &fields)?;
    change(store, &stream, StreamUpdate::RemoveTags(fields.texts("TagKeys")))
        .await
        .map(drop)
}

pub(super) fn list(store: &ShardStore, fields: &Fields) -> Result<Fields, ApiError> {
    let stream = stream_ref::stream(store, fields)?;
    let after = fields.text("ExclusiveStartTagKey");
    let limit = page(fields, "Limit", limits::TAGS_MAX, limits::TAGS_MAX);
    let mut tags: Vec<_> = stream
        .tags
        .iter()
        .filter(|(key, _)| after.is_none_or(|after| key.as_str() > after))
        .collect();
    // Those given at creation are in the order of the request.
    tags.sort();
    let more = tags.len() > limit;
    Ok(Fields::new()
        .with("Tags", tag_list(tags.into_iter().take(limit)))
        .with("HasMoreTags", more))
}
