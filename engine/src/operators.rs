//! The engine's own operators, one per file.
//!
//! File map: `asynchronous` asks services outside, `calc` projects and filters (stateless), `window_aggregate` aggregates per key and window,
//! `elements` gives rows their elements, `window_rows` gives rows all their windows, `group_table` finds a key's dense group number.

pub(crate) mod asynchronous;
pub(crate) mod calc;
pub(crate) mod elements;
mod group_table;
pub(crate) mod window_aggregate;
pub(crate) mod window_rows;
