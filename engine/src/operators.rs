//! The engine's own operators, one per file.
//!
//! File map: `asynchronous` asks services outside, `lookup_join` asks tables, `calc` projects and filters (stateless),
//! `consolidate` brings the changes of a tick together, `join` joins two streams, `temporal_join` a stream with versions,
//! `late_rows` selects late rows, `window_aggregate` aggregates per key and window, `window_rows` gives rows all their windows,
//! `group_table` finds a key's dense group number.

pub(crate) mod asynchronous;
pub(crate) mod calc;
pub(crate) mod consolidate;
mod group_table;
pub(crate) mod join;
pub(crate) mod late_rows;
pub(crate) mod lookup_join;
pub(crate) mod temporal_join;
pub(crate) mod window_aggregate;
pub(crate) mod window_rows;
