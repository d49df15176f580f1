//! Retention as callers see it: looking for what has expired, and how much disk the store takes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use tokio::sync::{mpsc, oneshot};

use super::ShardStore;
use crate::error::StoreError;
use crate::log::writer::{Command, Queued};
use crate::retention::StoreUsage;
use crate::view::{View, read};

impl ShardStore {
    /// Lets go of what has expired, and removes the segment files that nothing needs any more. With
    /// [`crate::Housekeeping::Background`] this happens by itself.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`], [`StoreError::NoSpace`], [`StoreError::Closed`]; nothing is removed then.
    pub async fn expire(&self) -> Result<(), StoreError> {
        self.ask(0, |reply| Command::Expire { reply }).await
    }

    /// How much disk the store takes, and what became of old data. Looks at the first record of every shard.
    pub fn usage(&self) -> StoreUsage {
        let now = self.trusted_ms();
        let oldest = self
            .view()
            .streams()
            .iter()
            .flat_map(|stream| &stream.shards)
            .filter_map(|shard| read(&shard.index).oldest().map(|entry| entry.first_arrival_ms))
            .filter(|arrival| *arrival > 0)
            .min();
        StoreUsage {
            log_bytes_max: self.options().retention.disk_bytes_max.unwrap_or(0),
            oldest_record_age_ms: oldest.map_or(0, |oldest| now.saturating_sub(oldest)),
            ..self.view().usage.read()
        }
    }
}

/// A thread that asks the writer to expire what is due, until it is dropped.
pub(super) struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(
        queue: mpsc::WeakSender<Queued>,
        interval_ms: u64,
        view: Arc<View>,
    ) -> Result<Self, StoreError> {
        let (stop, stopped) = bounded::<()>(0);
        let thread = std::thread::Builder::new()
            .name("shards-retention".to_owned())
            .spawn(move || {
                let interval = Duration::from_millis(interval_ms);
                while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                    // The store may be closed meanwhile.
                    let Some(sender) = queue.upgrade() else { return };
                    let (reply, answer) = oneshot::channel();
                    let queued = Queued {
                        command: Command::Expire { reply },
                        bytes: 0,
                        permit: None,
                    };
                    // When it cannot be sent, the reply's end is dropped with it.
                    let _ = sender.blocking_send(queued);
                    drop(sender);
                    match answer.blocking_recv() {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            tracing::warn!(%error, "could not look for expired records; trying again later");
                            view.usage.failures.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => return,
                    }
                }
            })
            .map_err(|error| StoreError::io("start", "the retention thread", &error))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the retention thread panicked");
        }
    }
}
