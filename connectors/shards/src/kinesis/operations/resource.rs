//! Resources by their ARN: TagResource, UntagResource, ListTagsForResource, PutResourcePolicy, GetResourcePolicy and
//! DeleteResourcePolicy. A policy is checked and kept, but not enforced.

use super::{change, store_error, tag_list};
use crate::consumers::ConsumerUpdate;
use crate::kinesis::consumer_ref::{self, ConsumerRef};
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

/// What an ARN names.
enum Resource {
    Stream(Stream),
    Consumer(ConsumerRef),
}

impl Resource {
    fn arn(&self) -> &str {
        match self {
            Self::Stream(stream) => &stream.arn,
            Self::Consumer(found) => &found.consumer.arn,
        }
    }

    fn tags(&self) -> &[(String, String)] {
        match self {
            Self::Stream(stream) => &stream.tags,
            Self::Consumer(found) => &found.consumer.tags,
        }
    }

    fn policy(&self) -> Result<&str, ApiError> {
        let policy = match self {
            Self::Stream(stream) => &stream.policy,
            Self::Consumer(found) => &found.consumer.policy,
        };
        policy
            .as_deref()
            .ok_or_else(|| ApiError::not_found(format!("No resource policy found for resource ARN {}", self.arn())))
    }

    /// Streams and consumers have the same attributes here.
    async fn change(&self, store: &ShardStore, update: ConsumerUpdate) -> Result<(), ApiError> {
        match self {
            Self::Stream(stream) => {
                let update = match update {
                    ConsumerUpdate::AddTags(tags) => StreamUpdate::AddTags(tags),
                    ConsumerUpdate::RemoveTags(keys) => StreamUpdate::RemoveTags(keys),
                    ConsumerUpdate::Policy(policy) => StreamUpdate::Policy(policy),
                };
                change(store, stream, update).await.map(drop)
            }
            Self::Consumer(found) => store
                .update_consumer(&found.stream.name, &found.consumer, update)
                .await
                .map(drop)
                .map_err(store_error(store)),
        }
    }
}

pub(super) async fn tag(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let update = ConsumerUpdate::AddTags(fields.text_map("Tags"));
    resource(store, &fields)?.change(store, update).await
}

pub(super) async fn untag(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let update = ConsumerUpdate::RemoveTags(fields.texts("TagKeys"));
    resource(store, &fields)?.change(store, update).await
}

pub(super) fn list_tags(store: &ShardStore, fields: &Fields) -> Result<Fields, ApiError> {
    let resource = resource(store, fields)?;
    let mut tags: Vec<_> = resource.tags().iter().collect();
    tags.sort();
    Ok(Fields::new().with("Tags", tag_list(tags)))
}

pub(super) async fn put_policy(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let policy = fields.text("Policy").unwrap_or_default().to_owned();
    let update = ConsumerUpdate::Policy(Some(policy));
    resource(store, &fields)?.change(store, update).await
}

pub(super) fn get_policy(store: &ShardStore, fields: &Fields) -> Result<Fields, ApiError> {
    Ok(Fields::new().with("Policy", resource(store, fields)?.policy()?))
}

pub(super) async fn delete_policy(store: &ShardStore, fields: Fields) -> Result<(), ApiError> {
    let resource = resource(store, &fields)?;
    resource.policy()?;
    resource.change(store, ConsumerUpdate::Policy(None)).await
}

/// The stream or consumer that an ARN names. Other resources do not exist, so none is found.
fn resource(store: &ShardStore, fields: &Fields) -> Result<Resource, ApiError> {
    stream_ref::no_stream_id(fields)?;
    let text = fields.text("ResourceARN").unwrap_or_default();
    if shape::consumer_arn(text).is_some() {
        return consumer_ref::by_arn(store, text).map(Resource::Consumer);
    }
    let is_stream = shape::resource(text)
        .and_then(|resource| resource.strip_prefix("stream/"))
        .is_some_and(|name| !name.contains('/'));
    if !is_stream {
        return Err(ApiError::not_found(format!("Resource {text} not found.")));
    }
    stream_ref::by_arn(store, text).map(Resource::Stream)
}
