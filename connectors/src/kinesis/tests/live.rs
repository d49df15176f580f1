//! Reading a stream that the real store splits and merges: in process, and through the store's own Kinesis API.

use super::resharding::{
    Action, Stream, actions, check_a_checkpoint_that_coincides_with_a_split, check_any_resharding,
    check_parents_are_read_before_their_children,
};
use super::*;
use proptest::prelude::*;
use std::cell::Cell;
use tidemill_shards::{HashKey, ShardId, ShardMeta};

/// How the source gets at the stream.
#[derive(Clone, Copy, Debug)]
enum Access {
    Embedded,
    #[cfg(feature = "aws")]
    Endpoint,
}

const ACCESSES: &[Access] = &[
    Access::Embedded,
    #[cfg(feature = "aws")]
    Access::Endpoint,
];

/// A stream of the real store.
struct LiveStream {
    store: Store,
    /// Where the store's API is served, for sources that use it.
    url: Option<String>,
    rows: Cell<usize>,
}

impl LiveStream {
    fn new(shards: u32, access: Access) -> Self {
        let store = Store::new(shards);
        let url = match access {
            Access::Embedded => None,
            #[cfg(feature = "aws")]
            Access::Endpoint => Some(store.runtime.block_on(serve(&store.store))),
        };
        Self {
            store,
            url,
            rows: Cell::new(0),
        }
    }

    fn open(&self) -> Vec<ShardMeta> {
        let shards = self.store.runtime.block_on(self.store.store.list_shards(&name()));
        shards.unwrap().into_iter().filter(ShardMeta::is_open).collect()
    }

    fn shard(&self, id: u32) -> ShardMeta {
        let mut open = self.open().into_iter();
        open.find(|shard| shard.id.0 == id).expect("an open shard")
    }
}

#[cfg(feature = "aws")]
async fn serve(store: &ShardStore) -> String {
    use tidemill_shards::kinesis::{ApiBody, KinesisApi, RequestContext};
    let api = KinesisApi::new(store.clone());
    let answer = move |request: http::Request| {
        let api = api.clone();
        async move {
            let context = RequestContext::default();
            let body = request.body.into();
            let answer = api
                .handle(&request.target, "application/x-amz-json-1.1", body, &context)
                .await;
            match answer.body {
                ApiBody::Full(body) => (answer.status, body),
                ApiBody::Events(_) => panic!("a source does not subscribe"),
            }
        }
    };
    http::serve(answer).await
}

impl Stream for LiveStream {
    fn put_row(&self, key: &str) {
        let row = self.rows.replace(self.rows.get() + 1);
        let entry = PutEntry {
            partition_key: key.to_owned(),
            explicit_hash_key: None,
            data: format!(r#"{{"id":{row},"name":"{key}"}}"#).into_bytes().into(),
        };
        let stream = name();
        let put = ShardAccess::put_records(&self.store.store, &stream, vec![entry]);
        self.store.runtime.block_on(put).unwrap().remove(0).unwrap();
    }

    fn rows(&self) -> usize {
        self.rows.get()
    }

    fn open_shards(&self) -> Vec<u32> {
        self.open().iter().map(|shard| shard.id.0).collect()
    }

    fn split(&self, parent: u32) {
        let range = self.shard(parent).hash_range;
        let middle = HashKey(range.start.0 + (range.end.0 - range.start.0) / 2 + 1);
        let stream = name();
        let split = self.store.store.split_shard(&stream, ShardId(parent), middle);
        self.store.runtime.block_on(split).unwrap();
    }

    fn merge(&self, left: u32, right: u32) -> bool {
        let (low, high) = (self.shard(left).hash_range, self.shard(right).hash_range);
        if low.end.0.checked_add(1) != Some(high.start.0) {
            return false;
        }
        let stream = name();
        let merge = self.store.store.merge_shards(&stream, ShardId(left), ShardId(right));
        self.store.runtime.block_on(merge).unwrap();
        true
    }

    fn source(&self, options: &[(&str, &str)]) -> Arc<dyn Source> {
        let mut options = options.to_vec();
        if let Some(url) = &self.url {
            options.extend([
                ("aws.endpoint", url.as_str()),
                ("aws.region", "us-east-1"),
                ("aws.credentials.provider", "BASIC"),
                ("aws.credentials.basic.accesskeyid", "any"),
                ("aws.credentials.basic.secretkey", "any"),
                // Ends of answers are everywhere.
                ("source.shard.get-records.max-record-count", "3"),
                ("source.reader.empty-records-fetch-interval", "1 ms"),
                ("source.reader.nonempty-records-fetch-interval", "0 ms"),
            ]);
        }
        crate::create_source(&table(schema(), &options), &[0, 1], &self.store.environment()).unwrap()
    }
}

#[test]
fn parents_are_read_before_their_children() {
    for access in ACCESSES {
        check_parents_are_read_before_their_children(&LiveStream::new(1, *access));
    }
}

#[test]
fn a_checkpoint_that_coincides_with_a_split_loses_nothing() {
    for access in ACCESSES {
        check_a_checkpoint_that_coincides_with_a_split(|| LiveStream::new(1, *access));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_resharding_keeps_every_row_and_the_order_of_keys(actions in actions()) {
        for access in ACCESSES {
            let actions: Vec<Action> = actions.clone();
            check_any_resharding(&LiveStream::new(2, *access), actions);
        }
    }
}
