//! Signatures first; bodies follow in the next commits.

use crate::Result;
use std::sync::Arc;
use std::time::Duration;

/// Named places where a test makes a fault happen. Cloning is cheap; clones share hits and actions. The default has none.
#[derive(Clone, Default)]
pub struct Failpoints {}

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

impl std::fmt::Debug for Failpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Failpoints")
    }
}

impl Failpoints {
    /// Reads `name=action[@when],...`, with the actions `error`, `panic`, `abort`, `sleep:MS` and `when` of `3` or `3+`. Names not in
    /// `known` are refused.
    pub fn parse(spec: &str, known: &[&str]) -> Result<Self> {
        let _ = (spec, known);
        todo!()
    }
    /// Sets what happens at a failpoint.
    pub fn set(&self, name: &str, when: When, action: Action) {
        let _ = (name, when, action);
    }
    /// Passes a failpoint, on a thread that may block.
    pub fn hit(&self, name: &str) -> Result<()> {
        let _ = name;
        Ok(())
    }
    /// Passes a failpoint in asynchronous code.
    pub async fn reach(&self, name: &str) -> Result<()> {
        let _ = name;
        Ok(())
    }
    /// Returns how often a failpoint was passed.
    pub fn hits(&self, name: &str) -> u64 {
        let _ = name;
        0
    }
}
