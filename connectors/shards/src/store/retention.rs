//! Retention as callers see it: looking for what has expired, and how much disk the store takes.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded, select};
use tokio::sync::mpsc;

use super::ShardStore;
use crate::env::Environment;
use crate::error::StoreError;
use crate::ids::SegmentNumber;
use crate::log::writer::{Command, Queued};
use crate::retention::StoreUsage;
use crate::tier::{ObjectTier, Port, Round, round};
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

    /// Moves sealed segments that are due to the object store, and deletes objects that nothing needs. With
    /// [`crate::Housekeeping::Background`] this happens by itself. Does nothing without a tier.
    ///
    /// # Errors
    /// [`StoreError::TierUnavailable`] and [`StoreError::Io`]: what was not done is done the next time. As
    /// [`Self::expire`].
    pub async fn tier(&self) -> Result<(), StoreError> {
        let (Some(tier), Some(queue)) = (&self.0.tier, &self.0.queue) else {
            return Ok(());
        };
        let work = TierWork {
            environment: self.0.environment.clone(),
            view: Arc::clone(&self.0.view),
            tier: Arc::clone(tier),
            local_retention_ms: self.options().retention.local_retention_ms,
            damaged: Arc::clone(&self.0.tiering),
        };
        let port = Port(queue.clone());
        super::blocking(move || work.run(&port)).await
    }

    /// How much disk the store takes, and what became of old data. Looks at the first record of every shard.
    pub fn usage(&self) -> StoreUsage {
        let now = self.trusted_ms();
        let (mut oldest, mut index_entries): (Option<u64>, u64) = (None, 0);
        for stream in self.view().streams() {
            let horizon_ms = stream.meta.trim_horizon_ms(now);
            for shard in &stream.shards {
                let index = read(&shard.index);
                index_entries += index.entries().len() as u64;
                let first = index.oldest().map(|entry| entry.first_arrival_ms);
                // The first records of an extent may be gone already; those of unknown age are damaged.
                if let Some(first) = first.filter(|first| *first > 0) {
                    oldest = Some(oldest.unwrap_or(u64::MAX).min(first.max(horizon_ms)));
                }
            }
        }
        StoreUsage {
            index_entries,
            log_bytes_max: self.options().retention.disk_bytes_max.unwrap_or(0),
            oldest_record_age_ms: oldest.map_or(0, |oldest| now.saturating_sub(oldest)),
            ..self.view().usage.read()
        }
    }
}

/// What a round of tiering needs, without keeping the store open.
pub(super) struct TierWork {
    pub(super) environment: Environment,
    pub(super) view: Arc<View>,
    pub(super) tier: Arc<dyn ObjectTier>,
    pub(super) local_retention_ms: u64,
    pub(super) damaged: Arc<Mutex<HashSet<SegmentNumber>>>,
}

impl TierWork {
    fn run(&self, port: &Port) -> Result<(), StoreError> {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = round(Round {
            port,
            environment: &self.environment,
            view: &self.view,
            tier: &*self.tier,
            local_retention_ms: self.local_retention_ms,
            damaged: &mut damaged,
        });
        if outcome.is_err() {
            self.view.usage.tier_failures.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }
}

/// A thread that asks the writer to expire what is due, and moves segments, until it is dropped.
pub(super) struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(
        queue: mpsc::WeakUnboundedSender<Queued>,
        interval_ms: u64,
        view: Arc<View>,
        tier: Option<TierWork>,
    ) -> Result<Self, StoreError> {
        let (stop, stopped) = bounded::<()>(0);
        let thread = std::thread::Builder::new()
            .name("shards-retention".to_owned())
            .spawn(move || {
                let interval = Duration::from_millis(interval_ms);
                loop {
                    select! {
                        recv(stopped) -> _ => return,
                        recv(view.woken()) -> _ => {}
                        default(interval) => {}
                    }
                    // The store may be closed meanwhile; it waits for this thread before it ends the writer.
                    let Some(sender) = queue.upgrade() else { return };
                    let port = Port(sender);
                    match port.ask(|reply| Command::Expire { reply }) {
                        Ok(()) => {}
                        Err(StoreError::Closed) => return,
                        Err(error) => {
                            tracing::warn!(%error, "could not look for expired records; trying again later");
                            view.usage.failures.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    let Some(tier) = &tier else { continue };
                    match tier.run(&port) {
                        Ok(()) => {}
                        Err(StoreError::Closed) => return,
                        Err(error) => {
                            tracing::warn!(%error, "could not move segments to the object store; trying again later");
                            drop(port);
                            // Woken or not: a store that does not answer is left alone for a while.
                            if stopped.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                                return;
                            }
                        }
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
