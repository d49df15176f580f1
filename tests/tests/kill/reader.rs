//! Follows a stream while the test runs, as a consumer would: what it has seen is never taken back, and nothing appears behind it.

use super::client::{Clients, Read, iterator, read};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

/// The time between two looks at a shard that has nothing new.
const POLL: Duration = Duration::from_millis(50);

type Seen = Arc<Mutex<BTreeMap<String, Vec<Read>>>>;

/// A reader of all shards of a stream. Dropping it ends it.
#[derive(Debug)]
pub(super) struct LiveReader {
    seen: Seen,
    _tasks: JoinSet<()>,
}

impl LiveReader {
    pub(super) async fn start(clients: &Clients, stream: &'static str) -> Self {
        let seen = Seen::default();
        let mut tasks = JoinSet::new();
        for (shard, _) in clients.shards(stream).await {
            seen.lock().unwrap().insert(shard.clone(), Vec::new());
            tasks.spawn(follow(clients.clone(), stream, shard, Arc::clone(&seen)));
        }
        Self { seen, _tasks: tasks }
    }

    /// Returns what was seen until now, by shard, in its order.
    pub(super) fn seen(&self) -> Vec<(String, Vec<Read>)> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .map(|(shard, records)| (shard.clone(), records.clone()))
            .collect()
    }

    /// Returns the number of records seen until now.
    pub(super) fn count(&self) -> usize {
        self.seen.lock().unwrap().values().map(Vec::len).sum()
    }
}

/// Reads on; when the server is gone, continues behind the last record once it is back.
async fn follow(clients: Clients, stream: &'static str, shard: String, seen: Seen) {
    let mut last: Option<String> = None;
    loop {
        let client = clients.now();
        let mut at = iterator(&client, stream, &shard, last.as_deref()).await;
        while let Ok(current) = at {
            at = match read(&client, &current).await {
                Ok((next, records, _)) => {
                    let is_idle = records.is_empty();
                    last = records.last().map(|record| record.sequence.clone()).or(last);
                    seen.lock().unwrap().entry(shard.clone()).or_default().extend(records);
                    if is_idle {
                        tokio::time::sleep(POLL).await;
                    }
                    Ok(next.expect("an open shard has a next iterator"))
                }
                Err(error) => Err(error),
            };
        }
        tokio::time::sleep(POLL).await;
    }
}
