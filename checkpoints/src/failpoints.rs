//! Named places in the protocol where a test makes a fault happen.
//!
//! A registry is a value handed to whoever passes failpoints: nothing is global, and two jobs in one process do not disturb each
//! other. The one without any is free of cost. The names in [`CHECKPOINT_FAILPOINTS`] are passed in this crate; the engine passes
//! others with the same registry.
//!
//! A real binary takes them as text, for example `ckpt.manifest.put.after=abort@3,sink.commit.before=sleep:200`.

use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An attempt is about to begin.
pub const CKPT_BEGIN: &str = "ckpt.begin";
/// A worker's state is about to be uploaded.
pub const CKPT_STATE_PUT_BEFORE: &str = "ckpt.state.put.before";
/// A worker's state has been uploaded.
pub const CKPT_STATE_PUT_AFTER: &str = "ckpt.state.put.after";
/// The manifest is about to be created.
pub const CKPT_MANIFEST_PUT_BEFORE: &str = "ckpt.manifest.put.before";
/// The manifest has been created: the checkpoint exists.
pub const CKPT_MANIFEST_PUT_AFTER: &str = "ckpt.manifest.put.after";
/// A permit to publish is about to be given.
pub const CKPT_PERMIT: &str = "ckpt.permit";
/// All sinks have published; the savepoint and the marker are about to be created.
pub const CKPT_COMMITTED_PUT_BEFORE: &str = "ckpt.committed.put.before";
/// The marker has been created.
pub const CKPT_COMMITTED_PUT_AFTER: &str = "ckpt.committed.put.after";
/// Objects without use are about to be removed.
pub const CKPT_GC_BEFORE: &str = "ckpt.gc.before";
/// Some of the objects without use have been removed; passed after every kind of them.
pub const CKPT_GC_AFTER: &str = "ckpt.gc.after";
/// The manifest to restore is about to be read.
pub const RESTORE_READ: &str = "restore.read";
/// A permit to publish once more after a restore is about to be given.
pub const RESTORE_REPLAY_COMMIT: &str = "restore.replay_commit";

/// All failpoints that this crate passes.
pub const CHECKPOINT_FAILPOINTS: &[&str] = &[
    CKPT_BEGIN,
    CKPT_STATE_PUT_BEFORE,
    CKPT_STATE_PUT_AFTER,
    CKPT_MANIFEST_PUT_BEFORE,
    CKPT_MANIFEST_PUT_AFTER,
    CKPT_PERMIT,
    CKPT_COMMITTED_PUT_BEFORE,
    CKPT_COMMITTED_PUT_AFTER,
    CKPT_GC_BEFORE,
    CKPT_GC_AFTER,
    RESTORE_READ,
    RESTORE_REPLAY_COMMIT,
];

/// A registry of failpoints. Cloning is cheap; clones share hits and actions. The default is [`Failpoints::none`].
#[derive(Clone, Default)]
pub struct Failpoints(Option<Arc<Mutex<Registry>>>);

#[derive(Default)]
struct Registry {
    hits: BTreeMap<String, u64>,
    armed: BTreeMap<String, Vec<(When, Action)>>,
}

/// What happens at a failpoint.
#[derive(Clone)]
pub enum Action {
    /// The step fails with [`crate::Error::Failpoint`].
    Error,
    /// The thread panics.
    Panic,
    /// The process ends at once, as by SIGKILL.
    Abort,
    /// The step is delayed.
    Sleep(Duration),
    /// The step waits until it is released.
    Pause(Pause),
    /// The function is called with the name and the hit, from 1.
    Call(Arc<dyn Fn(&str, u64) + Send + Sync>),
}

/// Which hits of a failpoint fire it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Every hit.
    Always,
    /// Only this hit, from 1.
    At(u64),
    /// This hit and all later ones.
    From(u64),
}

impl When {
    fn fires(self, hit: u64) -> bool {
        match self {
            When::Always => true,
            When::At(n) => hit == n,
            When::From(n) => hit >= n,
        }
    }
}

/// Holds whoever reaches a failpoint until it is released. Clones are the same pause.
#[derive(Clone, Debug, Default)]
pub struct Pause(Arc<PauseState>);

#[derive(Debug, Default)]
struct PauseState {
    reached: AtomicBool,
    released: AtomicBool,
}

/// How often a pause looks whether it has been released. Only tests wait here.
const PAUSE_POLL: Duration = Duration::from_millis(1);

impl Pause {
    /// Makes a pause that holds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets go whoever waits, now and later.
    pub fn release(&self) {
        self.0.released.store(true, Ordering::Release);
    }

    /// Returns whether somebody has reached the failpoint.
    pub fn is_reached(&self) -> bool {
        self.0.reached.load(Ordering::Acquire)
    }

    /// Waits until somebody has reached the failpoint.
    pub async fn reached(&self) {
        while !self.is_reached() {
            tokio::time::sleep(PAUSE_POLL).await;
        }
    }

    fn arrive(&self) -> bool {
        self.0.reached.store(true, Ordering::Release);
        self.is_released()
    }

    fn is_released(&self) -> bool {
        self.0.released.load(Ordering::Acquire)
    }
}

impl Failpoints {
    /// Makes a registry in which nothing ever happens and nothing is counted.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Makes an empty registry that counts hits and can be armed.
    pub fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// Reads `name=action[@when],...`: the actions are `error`, `panic`, `abort` and `sleep:MS`; `@3` is the third hit only, `@3+` the
    /// third and all later ones, and without it every hit counts. An empty text gives [`Failpoints::none`].
    ///
    /// # Errors
    /// When the text cannot be read, or a name is not in `known`.
    ///
    /// # Examples
    /// ```
    /// use tidemill_checkpoints::failpoints::{CHECKPOINT_FAILPOINTS, Failpoints};
    /// let failpoints = Failpoints::parse("ckpt.begin=error@2", CHECKPOINT_FAILPOINTS)?;
    /// assert!(failpoints.hit("ckpt.begin").is_ok());
    /// assert!(failpoints.hit("ckpt.begin").is_err());
    /// assert!(Failpoints::parse("ckpt.begni=error", CHECKPOINT_FAILPOINTS).is_err());
    /// # Ok::<(), tidemill_checkpoints::Error>(())
    /// ```
    pub fn parse(spec: &str, known: &[&str]) -> Result<Self> {
        if spec.trim().is_empty() {
            return Ok(Self::none());
        }
        let failpoints = Self::new();
        for entry in spec.split(',').map(str::trim) {
            let (name, when, action) = parse_entry(entry, known).map_err(|reason| Error::InvalidSetting {
                what: "failpoint",
                value: entry.to_owned(),
                reason,
            })?;
            failpoints.set(name, when, action);
        }
        Ok(failpoints)
    }

    /// Sets what happens at a failpoint, in addition to what was set before. The first action that fires is taken.
    ///
    /// # Panics
    /// On [`Failpoints::none`], where it would be ignored.
    pub fn set(&self, name: &str, when: When, action: Action) {
        let mut registry = self
            .lock()
            .expect("failpoints are set on a registry made with Failpoints::new");
        registry.armed.entry(name.to_owned()).or_default().push((when, action));
    }

    /// Takes back everything that was set. Hits stay counted.
    pub fn clear(&self) {
        if let Some(mut registry) = self.lock() {
            registry.armed.clear();
        }
    }

    /// Passes a failpoint, on a thread that may block.
    ///
    /// # Errors
    /// [`crate::Error::Failpoint`] when [`Action::Error`] fires.
    ///
    /// # Panics
    /// When [`Action::Panic`] fires.
    pub fn hit(&self, name: &str) -> Result<()> {
        match self.count(name) {
            Some((_, Action::Sleep(time))) => std::thread::sleep(time),
            Some((_, Action::Pause(pause))) => {
                pause.arrive();
                while !pause.is_released() {
                    std::thread::sleep(PAUSE_POLL);
                }
            }
            Some((hit, action)) => return fire(name, hit, action),
            None => {}
        }
        Ok(())
    }

    /// Passes a failpoint in asynchronous code.
    ///
    /// # Errors
    /// As [`Failpoints::hit`].
    ///
    /// # Panics
    /// As [`Failpoints::hit`].
    pub async fn reach(&self, name: &str) -> Result<()> {
        match self.count(name) {
            Some((_, Action::Sleep(time))) => tokio::time::sleep(time).await,
            Some((_, Action::Pause(pause))) => {
                pause.arrive();
                while !pause.is_released() {
                    tokio::time::sleep(PAUSE_POLL).await;
                }
            }
            Some((hit, action)) => return fire(name, hit, action),
            None => {}
        }
        Ok(())
    }

    /// Returns how often a failpoint was passed.
    pub fn hits(&self, name: &str) -> u64 {
        self.lock()
            .and_then(|registry| registry.hits.get(name).copied())
            .unwrap_or(0)
    }

    /// Returns all failpoints passed so far with their hits, for tests that go through every one of them.
    pub fn all_hits(&self) -> BTreeMap<String, u64> {
        self.lock().map(|registry| registry.hits.clone()).unwrap_or_default()
    }

    fn count(&self, name: &str) -> Option<(u64, Action)> {
        let mut registry = self.lock()?;
        let hit = match registry.hits.get_mut(name) {
            Some(hits) => {
                *hits += 1;
                *hits
            }
            None => {
                registry.hits.insert(name.to_owned(), 1);
                1
            }
        };
        let (_, action) = registry.armed.get(name)?.iter().find(|(when, _)| when.fires(hit))?;
        Some((hit, action.clone()))
    }

    fn lock(&self) -> Option<MutexGuard<'_, Registry>> {
        // A panic in the middle cannot leave the registry inconsistent.
        Some(self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Failpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lock() {
            None => f.write_str("Failpoints::none"),
            Some(registry) => f.debug_tuple("Failpoints").field(&registry.armed.keys()).finish(),
        }
    }
}

fn fire(name: &str, hit: u64, action: Action) -> Result<()> {
    match action {
        Action::Error => Err(Error::Failpoint {
            name: name.to_owned(),
            hit,
        }),
        Action::Panic => panic!("failpoint {name} fired (hit {hit})"),
        Action::Abort => std::process::abort(),
        Action::Call(call) => {
            call(name, hit);
            Ok(())
        }
        Action::Sleep(_) | Action::Pause(_) => unreachable!("waiting is done by the caller"),
    }
}

fn parse_entry<'a>(entry: &'a str, known: &[&str]) -> Result<(&'a str, When, Action), String> {
    let (name, rest) = entry
        .split_once('=')
        .ok_or("write it as name=action or name=action@hit")?;
    if !known.contains(&name) {
        return Err(format!(
            "there is no failpoint {name:?}; there are {}",
            known.join(", ")
        ));
    }
    let (action, when) = match rest.split_once('@') {
        None => (rest, When::Always),
        Some((action, hits)) => {
            let (digits, later) = hits.strip_suffix('+').map_or((hits, false), |digits| (digits, true));
            let hit = digits.parse().ok().filter(|&hit: &u64| hit > 0);
            let hit =
                hit.ok_or_else(|| format!("{hits:?} is no hit; write @3 for the third, @3+ for it and all later"))?;
            (action, if later { When::From(hit) } else { When::At(hit) })
        }
    };
    let action = match action.split_once(':') {
        Some(("sleep", ms)) => {
            let ms = ms.parse().map_err(|_| format!("{ms:?} is no number of milliseconds"))?;
            Action::Sleep(Duration::from_millis(ms))
        }
        None if action == "error" => Action::Error,
        None if action == "panic" => Action::Panic,
        None if action == "abort" => Action::Abort,
        _ => {
            return Err(format!(
                "{action:?} is no action; there are error, panic, abort and sleep:MS"
            ));
        }
    };
    Ok((name, when, action))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn actions_fire_at_their_hits() {
        let failpoints = Failpoints::parse("a=error@2, b=error@2+,c=error", &["a", "b", "c"]).unwrap();
        let fired = |name| (1..=4).map(|_| failpoints.hit(name).is_err()).collect::<Vec<_>>();
        assert_eq!(fired("a"), [false, true, false, false]);
        assert_eq!(fired("b"), [false, true, true, true]);
        assert_eq!(fired("c"), [true; 4]);
        assert_eq!(fired("d"), [false; 4]);
        assert_eq!(failpoints.hits("d"), 4);
        failpoints.clear();
        assert_eq!(fired("c"), [false; 4]);
    }

    #[test]
    fn text_that_is_not_understood_is_refused() {
        for bad in [
            "a",
            "a=",
            "a=die",
            "a=error@",
            "a=error@0",
            "a=error@x",
            "a=sleep",
            "a=sleep:x",
            "b=error",
            "a=error,,",
        ] {
            let error = Failpoints::parse(bad, &["a"]).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::User, "{bad}: {error}");
        }
        assert!(Failpoints::parse("", &[]).unwrap().0.is_none());
        assert!(Failpoints::parse("a=abort@3,a=panic,a=sleep:5", &["a"]).is_ok());
    }

    #[test]
    fn a_callback_learns_name_and_hit() {
        let failpoints = Failpoints::new();
        let seen = Arc::new(AtomicU64::new(0));
        let inside = Arc::clone(&seen);
        failpoints.set(
            "a",
            When::Always,
            Action::Call(Arc::new(move |_, hit| inside.store(hit, Ordering::SeqCst))),
        );
        failpoints.clone().hit("a").unwrap();
        failpoints.hit("a").unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), 2);
    }

    #[test]
    #[should_panic(expected = "failpoint a fired (hit 1)")]
    fn a_panic_names_the_failpoint() {
        let failpoints = Failpoints::new();
        failpoints.set("a", When::Always, Action::Panic);
        let _ = failpoints.hit("a");
    }

    #[tokio::test]
    async fn a_pause_holds_until_released() {
        let failpoints = Failpoints::new();
        let pause = Pause::new();
        failpoints.set("a", When::At(1), Action::Pause(pause.clone()));
        let inside = failpoints.clone();
        let task = tokio::spawn(async move { inside.reach("a").await });
        pause.reached().await;
        assert!(!task.is_finished());
        pause.release();
        task.await.unwrap().unwrap();
    }
}
