//! Where a writer's records go: to the embedded store, or to an endpoint.

#[cfg(feature = "aws")]
use super::endpoint::sender::{PutRecords, Sender};
use super::error::{StreamError, sink_error};
use super::options::KinesisOptions;
use super::outbox::{Outbox, find_stream};
use futures::future::BoxFuture;
use std::sync::Arc;
use tidemill_engine::Result;
use tidemill_engine::sink::SinkContext;
use tidemill_shards::limits::{PUT_BYTES_MAX, PUT_RECORDS_MAX};
use tidemill_shards::{PutEntry, ShardAccess, StageRequest, StagedRef};
use tokio::sync::oneshot;

/// What a sink writes to.
#[derive(Clone)]
pub(super) enum Target {
    /// The embedded store.
    Store(Arc<dyn ShardAccess>),
    /// A stream behind an endpoint.
    #[cfg(feature = "aws")]
    Endpoint(Arc<dyn PutRecords>),
}

impl Target {
    /// Looks once whether the stream that the options mean is there.
    pub(super) async fn find(&self, options: &KinesisOptions) -> Result<(), StreamError> {
        match self {
            Self::Store(shards) => find_stream(shards.as_ref(), options).await.map(drop),
            #[cfg(feature = "aws")]
            Self::Endpoint(target) => {
                let arn = target.find().await?;
                options.check_arn(&arn).map_err(StreamError::Unfit)
            }
        }
    }
}

/// A writer's way to its target.
pub(super) enum Outlet {
    Store(Outbox),
    #[cfg(feature = "aws")]
    Endpoint(Sender, Arc<dyn PutRecords>),
}

impl Outlet {
    /// Starts the task that sends.
    pub(super) fn start(target: &Target, options: &KinesisOptions, context: &SinkContext) -> Self {
        let wake = Arc::clone(&context.waker);
        match target {
            Target::Store(shards) => {
                let shards = Arc::clone(shards);
                Self::Store(Outbox::start(shards, options.clone(), &context.runtime, wake))
            }
            #[cfg(feature = "aws")]
            Target::Endpoint(target) => {
                let batching = options.batching;
                let sender = Sender::start(Arc::clone(target), batching, &context.runtime, wake);
                Self::Endpoint(sender, Arc::clone(target))
            }
        }
    }

    /// Stores records, visible at once, in requests within the limits.
    pub(super) fn put(&self, options: &KinesisOptions, entries: Vec<PutEntry>) {
        match self {
            Self::Store(outbox) => {
                let (mut request, mut bytes) = (Vec::new(), 0);
                for entry in entries {
                    let size = entry.data.len() + entry.partition_key.len();
                    if !request.is_empty() && (request.len() >= PUT_RECORDS_MAX || bytes + size > PUT_BYTES_MAX) {
                        outbox.put(&options.stream, std::mem::take(&mut request));
                        bytes = 0;
                    }
                    bytes += size;
                    request.push(entry);
                }
                if !request.is_empty() {
                    outbox.put(&options.stream, request);
                }
            }
            #[cfg(feature = "aws")]
            Self::Endpoint(sender, _) => sender.put(entries),
        }
    }

    /// Stores records, invisible. An endpoint has no such thing, and its tables are never written exactly once.
    pub(super) fn stage(&self, request: StageRequest) {
        match self {
            Self::Store(outbox) => outbox.stage(request),
            #[cfg(feature = "aws")]
            Self::Endpoint(sender, _) => sender.put(request.entries),
        }
    }

    /// Waits for everything before and gives what was staged since the last flush.
    pub(super) fn flush(&self, name: &Arc<str>) -> BoxFuture<'static, Result<Vec<StagedRef>>> {
        let name = Arc::clone(name);
        let gone = |name: &str, _: oneshot::error::RecvError| sink_error(name, "the task that sends records is gone");
        match self {
            Self::Store(outbox) => {
                let answer = outbox.flush();
                Box::pin(async move {
                    let answer = answer.await.map_err(|error| gone(&name, error))?;
                    answer.map_err(|error| error.of_sink(&name))
                })
            }
            #[cfg(feature = "aws")]
            Self::Endpoint(sender, target) => {
                let (answer, target) = (sender.flush(), Arc::clone(target));
                Box::pin(async move {
                    let mut answer = answer.await.map_err(|error| gone(&name, error))?;
                    if answer.is_ok() {
                        answer = target.look_again().await;
                    }
                    answer.map(|()| Vec::new()).map_err(|error| error.of_sink(&name))
                })
            }
        }
    }

    /// Returns an error when a request has failed.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        match self {
            Self::Store(outbox) => outbox.failure().map_or(Ok(()), |error| Err(error.of_sink(name))),
            #[cfg(feature = "aws")]
            Self::Endpoint(sender, _) => sender.failure().map_or(Ok(()), |error| Err(error.of_sink(name))),
        }
    }

    /// Says whether ticks should be held back; the worker is woken when that changes.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Store(outbox) => outbox.is_full(),
            #[cfg(feature = "aws")]
            Self::Endpoint(sender, _) => sender.is_full(),
        }
    }
}
