//! Resources by their ARN: TagResource, UntagResource, ListTagsForResource, PutResourcePolicy, GetResourcePolicy and
//! DeleteResourcePolicy. A policy is checked and kept, but not enforced.

use super::{change, tag_list};
use crate::kinesis::error::ApiError;
use crate::kinesis::item::Fields;
use crate::kinesis::shape::{self, Field, Kind, RESOURCE_ARN, STREAM_ID, TAG_KEYS, TAGS};
use crate::kinesis::stream_ref::{self, Stream};
use crate::store::ShardStore;
use crate::update::StreamUpdate;

pub(super) const TAG: &[Field] = &[TAGS.required(), RESOURCE_ARN, STREAM_ID];
pub(super) const UNTAG: &[Field] = &[TAG_KEYS, RESOURCE_ARN, STREAM_ID];
/// Of ListTagsForResource, GetResourcePolicy and DeleteResourcePolicy.
pub(super) const NAMED: &[Field] = &[RESOURCE_ARN, STREAM_ID];
pub(super) const PUT_POLICY: &[Field] = &[RESOURCE_ARN, STREAM_ID, Field::new("Policy", Kind::Text).required()];

pub(super) async fn tag(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = resource(store, &fields)?;
    change(store, &stream, StreamUpdate::AddTags(fields.text_map("Tags")))
        .await
        .map(drop)
}

pub(super) async fn untag(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = resource(store, &fields)?;
    change(store, &stream, StreamUpdate::RemoveTags(fields.texts("TagKeys")))
        .await
        .map(drop)
}

pub(super) fn list_tags(store: &ShardStore, fields: &Fields) -> Result<Fields, ApiError> {
    let stream = resource(store, fields)?;
    let mut tags: Vec<_> = stream.tags.iter().collect();
    tags.sort();
    Ok(Fields::new().with("Tags", tag_list(tags)))
}

pub(super) async fn put_policy(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = resource(store, &fields)?;
    let policy = fields.text("Policy").unwrap_or_default().to_owned();
    change(store, &stream, StreamUpdate::Policy(Some(policy)))
        .await
        .map(drop)
}

pub(super) fn get_policy(store: &ShardStore, fields: &Fields) -> Result<Fields, ApiError> {
    let stream = resource(store, fields)?;
    let policy = stream.policy.as_deref().ok_or_else(|| no_policy(&stream))?;
    Ok(Fields::new().with("Policy", policy))
}

pub(super) async fn delete_policy(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let stream = resource(store, &fields)?;
    if stream.policy.is_none() {
        return Err(no_policy(&stream));
    }
    change(store, &stream, StreamUpdate::Policy(None)).await.map(drop)
}

fn no_policy(stream: &Stream) -> ApiError {
    ApiError::not_found(format!("No resource policy found for resource ARN {}", stream.arn))
}

/// The stream that an ARN names. Other resources do not exist, so none is found.
fn resource(store: &ShardStore, fields: &Fields) -> Result<Stream, ApiError> {
    stream_ref::no_stream_id(fields)?;
    let text = fields.text("ResourceARN").unwrap_or_default();
    let is_stream = shape::resource(text)
        .and_then(|resource| resource.strip_prefix("stream/"))
        .is_some_and(|name| !name.contains('/'));
    if !is_stream {
        return Err(ApiError::not_found(format!("Resource {text} not found.")));
    }
    stream_ref::by_arn(store, text)
}
