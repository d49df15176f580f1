//! Jobs under a server: what server and job process say to each other, and how the server keeps its jobs running.
//!
//! ```text
//!   REST ─▶ Supervisor ─▶ one actor per job ─▶ one process per job ─▶ engine
//!                          │   decide(observed)      ▲      │
//!                          ▼                         │      ▼ store calls
//!                       Registry (definitions)    protocol over a socket pair ─▶ StoreService ─▶ shard store
//! ```
//! Invariants:
//! - what a definition on disk says is done, also by the next server;
//! - a job has one process at most, and none survives its server;
//! - a job that was submitted has been planned; one that could not be planned never was.
//!
//! File map: [`protocol`] and [`remote_store`] belong to both processes; the rest is the server's: `definition` and
//! `registry` what lies on disk, `decide` what to do, `actor` does it, `child`, `spawner`, `log` and `store_service` deal
//! with a process, `supervisor` with all jobs, `view` and `error` with those who ask.

#[cfg(feature = "server")]
pub(crate) mod actor;
#[cfg(feature = "server")]
pub(crate) mod child;
#[cfg(feature = "server")]
pub(crate) mod decide;
#[cfg(feature = "server")]
pub(crate) mod definition;
#[cfg(feature = "server")]
pub(crate) mod error;
#[cfg(feature = "server")]
pub(crate) mod log;
pub(crate) mod protocol;
#[cfg(feature = "server")]
pub(crate) mod registry;
pub(crate) mod remote_store;
#[cfg(feature = "server")]
pub(crate) mod spawner;
#[cfg(feature = "server")]
pub(crate) mod store_service;
#[cfg(feature = "server")]
pub(crate) mod supervisor;
#[cfg(feature = "server")]
pub(crate) mod view;
