//! What the operators of one worker share, on one thread.

use super::message::TickClosed;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use tidemill_checkpoints::Attempt;
use timely::scheduling::Activator;

/// A hold that this worker has been told of.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) tick: u64,
    pub(super) attempt: Attempt,
}

/// Closed ticks, the hold, and timers of one worker.
#[derive(Default)]
pub(super) struct Board {
    closed: RefCell<BTreeMap<u64, Rc<TickClosed>>>,
    /// True once the clock will close no more ticks.
    ended: Cell<bool>,
    subscribers: RefCell<Vec<Activator>>,
    hold: RefCell<Option<Hold>>,
    /// The tick whose state was captured and must be reported.
    captured: Cell<Option<u64>>,
    timers: RefCell<BTreeMap<usize, i64>>,
}

impl Board {
    /// Adds an operator that is to run whenever a tick closes; returns its number.
    pub(super) fn subscribe(&self, activator: Activator) -> usize {
        let mut subscribers = self.subscribers.borrow_mut();
        subscribers.push(activator);
        subscribers.len() - 1
    }

    /// Notes that a tick is closed.
    pub(super) fn close(&self, closed: TickClosed) {
        self.closed.borrow_mut().insert(closed.tick, Rc::new(closed));
        self.wake();
    }

    /// Notes that no more ticks will be closed.
    pub(super) fn end(&self) {
        if !self.ended.replace(true) {
            self.wake();
        }
    }

    fn wake(&self) {
        self.subscribers.borrow().iter().for_each(Activator::activate);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Returns a closed tick.
    pub(super) fn closed(&self, tick: u64) -> Option<Rc<TickClosed>> {
        self.closed.borrow().get(&tick).cloned()
    }

    /// Forgets ticks that every operator of this worker is through with.
    pub(super) fn forget_before(&self, tick: u64) {
        let mut closed = self.closed.borrow_mut();
        while let Some(entry) = closed.first_entry()
            && *entry.key() < tick
        {
            entry.remove();
        }
    }

    pub(super) fn set_hold(&self, hold: Hold) {
        *self.hold.borrow_mut() = Some(hold);
    }

    /// Returns the hold if every tick before it is through: `frontier` is the worker's own probe.
    pub(super) fn take_hold(&self, frontier: Option<u64>) -> Option<Hold> {
        let mut hold = self.hold.borrow_mut();
        if hold
            .as_ref()
            .is_some_and(|hold| frontier.is_none_or(|frontier| frontier >= hold.tick))
        {
            hold.take()
        } else {
            None
        }
    }

    pub(super) fn set_captured(&self, tick: u64) {
        self.captured.set(Some(tick));
    }

    pub(super) fn take_captured(&self) -> Option<u64> {
        self.captured.take()
    }

    pub(super) fn set_timer(&self, subscriber: usize, at_ms: Option<i64>) {
        let mut timers = self.timers.borrow_mut();
        match at_ms {
            Some(at_ms) => timers.insert(subscriber, at_ms),
            None => timers.remove(&subscriber),
        };
    }

    /// Returns the earliest timer of all operators.
    pub(super) fn timer(&self) -> Option<i64> {
        self.timers.borrow().values().copied().min()
    }
}
