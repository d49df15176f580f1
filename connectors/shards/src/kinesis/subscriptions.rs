//! Who is subscribed to what: one subscription per consumer and shard.
//!
//! A call within [`SubscriptionOptions::again_after`] of the last successful one is refused, whether that subscription
//! still lives or not, as the service does it; a later call takes over, and the subscription before ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::ApiError;
use crate::ids::{ShardId, ShardKey};
use crate::limits;

/// Times of subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// After this a subscription ends; the client begins another.
    pub life: Duration,
    /// After this without records an event says that there are none, and how far the shard was read.
    pub heartbeat: Duration,
    /// Within this the same consumer cannot subscribe to the same shard again.
    pub again_after: Duration,
    /// Subscriptions at a time.
    pub subscriptions_max: usize,
}

impl Default for SubscriptionOptions {
    fn default() -> Self {
        Self {
            life: Duration::from_secs(limits::SUBSCRIPTION_LIFE_S),
            heartbeat: Duration::from_secs(limits::SUBSCRIPTION_HEARTBEAT_S),
            again_after: Duration::from_secs(limits::SUBSCRIPTION_AGAIN_S),
            subscriptions_max: limits::SUBSCRIPTIONS_MAX,
        }
    }
}

/// A consumer at a shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Subscriber {
    pub(crate) consumer: String,
    /// Of the consumer: one of the same name is another.
    pub(crate) created_ms: u64,
    pub(crate) shard: ShardKey,
}

/// Why a subscription cannot begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    TooSoon(Duration),
    TooMany(usize),
}

impl Refusal {
    pub(crate) fn into_error(self, consumer: &str, shard: ShardId, account: &str) -> ApiError {
        match self {
            Self::TooSoon(again_after) => ApiError::in_use(format!(
                "Another active subscription exists for this consumer: {account}:{consumer}:{shard}. It can be taken over \
                 {} seconds after it began.",
                again_after.as_secs_f32()
            )),
            Self::TooMany(limit) => ApiError::limit(format!(
                "{limit} subscriptions are open, the limit of this server: end one first, or wait until one ends."
            )),
        }
    }
}

/// All subscriptions of an API.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    pub(crate) options: SubscriptionOptions,
    slots: Mutex<Slots>,
    stopping: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Slots {
    taken: HashMap<Subscriber, Slot>,
    /// Slots whose subscription lives.
    live: usize,
    next: u64,
    /// Finished slots are looked for when there are this many.
    clean_at: usize,
}

#[derive(Debug)]
struct Slot {
    /// The number of the subscription; `None` when it is over.
    number: Option<u64>,
    began: Instant,
    over: watch::Sender<bool>,
}

impl Subscriptions {
    pub(crate) fn new(options: SubscriptionOptions) -> Self {
        Self {
            options,
            slots: Mutex::default(),
            stopping: watch::Sender::new(false),
        }
    }

    /// Takes the place of a subscriber; a subscription that has it ends.
    pub(crate) fn begin(self: &Arc<Self>, subscriber: Subscriber) -> Result<Place, Refusal> {
        let now = Instant::now();
        let again_after = self.options.again_after;
        let mut slots = self.slots();
        let before = slots.taken.get(&subscriber);
        if before.is_some_and(|slot| now - slot.began < again_after) {
            return Err(Refusal::TooSoon(again_after));
        }
        let replaces = before.is_some_and(|slot| slot.number.is_some());
        if !replaces && slots.live >= self.options.subscriptions_max {
            return Err(Refusal::TooMany(self.options.subscriptions_max));
        }
        if slots.taken.len() >= slots.clean_at {
            slots
                .taken
                .retain(|_, slot| slot.number.is_some() || now - slot.began < again_after);
            slots.clean_at = 2 * slots.taken.len() + 64;
        }
        slots.next += 1;
        let number = slots.next;
        let slot = Slot {
            number: Some(number),
            began: now,
            over: watch::Sender::new(false),
        };
        let over = slot.over.subscribe();
        match slots.taken.insert(subscriber.clone(), slot) {
            Some(old) if old.number.is_some() => drop(old.over.send_replace(true)),
            _ => slots.live += 1,
        }
        drop(slots);
        Ok(Place {
            subscriptions: self.clone(),
            subscriber,
            number,
            over,
            stopping: self.stopping.subscribe(),
            began: now,
        })
    }

    /// Subscriptions that live.
    pub(crate) fn live(&self) -> usize {
        self.slots().live
    }

    /// Ends all, and those that begin from now on.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // Nothing panics half-way through a change.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a subscription among all; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    subscriptions: Arc<Subscriptions>,
    subscriber: Subscriber,
    number: u64,
    over: watch::Receiver<bool>,
    stopping: watch::Receiver<bool>,
    began: Instant,
}

impl Place {
    pub(crate) fn options(&self) -> SubscriptionOptions {
        self.subscriptions.options
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    pub(crate) fn subscriber(&self) -> &Subscriber {
        &self.subscriber
    }

    /// Another subscription has taken over.
    pub(crate) fn is_taken(&self) -> bool {
        *self.over.borrow()
    }

    /// The server stops.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until one of these is so.
    pub(crate) async fn ended(&mut self) {
        // A sender that is gone ends it as well.
        tokio::select! {
            _ = self.over.wait_for(|over| *over) => {}
            _ = self.stopping.wait_for(|stopping| *stopping) => {}
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut slots = self.subscriptions.slots();
        if let Some(slot) = slots.taken.get_mut(&self.subscriber)
            && slot.number == Some(self.number)
        {
            slot.number = None;
            slots.live -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn subscriptions(again_after: Duration) -> Arc<Subscriptions> {
        Arc::new(Subscriptions::new(SubscriptionOptions {
            again_after,
            subscriptions_max: 2,
            ..SubscriptionOptions::default()
        }))
    }

    fn subscriber(shard: u64) -> Subscriber {
        Subscriber {
            consumer: "c".to_owned(),
            created_ms: 1,
            shard: ShardKey(shard),
        }
    }

    #[test]
    fn the_next_takes_over_and_the_place_is_that_of_the_last() {
        let all = subscriptions(Duration::ZERO);
        let first = all.begin(subscriber(1)).unwrap();
        let second = all.begin(subscriber(1)).unwrap();
        assert!(first.is_taken() && !second.is_taken());
        assert_eq!(all.live(), 1);
        drop(first);
        assert_eq!(all.live(), 1);
        drop(second);
        assert_eq!(all.live(), 0);
    }

    #[test]
    fn a_second_call_is_refused_for_a_while_although_the_first_is_over() {
        let all = subscriptions(HOUR);
        let first = all.begin(subscriber(1)).unwrap();
        assert_eq!(all.begin(subscriber(1)).unwrap_err(), Refusal::TooSoon(HOUR));
        assert!(!first.is_taken());
        drop(first);
        assert_eq!(all.begin(subscriber(1)).unwrap_err(), Refusal::TooSoon(HOUR));
        let mut later = subscriber(1);
        later.created_ms = 2;
        all.begin(later).unwrap();
    }

    #[test]
    fn there_are_no_more_than_the_limit_and_places_do_not_pile_up() {
        let all = subscriptions(Duration::ZERO);
        let places = [1, 2].map(|shard| all.begin(subscriber(shard)).unwrap());
        assert_eq!(all.begin(subscriber(3)).unwrap_err(), Refusal::TooMany(2));
        drop(places);
        for shard in 0..10_000 {
            all.begin(subscriber(shard)).unwrap();
        }
        assert!(all.slots().taken.len() <= 256);
        assert_eq!(all.live(), 0);
    }

    #[test]
    fn those_that_begin_while_all_stop_are_over_at_once() {
        let all = subscriptions(Duration::ZERO);
        let first = all.begin(subscriber(1)).unwrap();
        all.stop();
        assert!(first.is_stopping() && all.begin(subscriber(2)).unwrap().is_stopping());
    }
}
