//! The engine's own operators, one per file.
//!
//! File map: `asynchronous` asks services outside, `calc` projects and filters (stateless), `consolidate` brings the changes of
//! a tick together, `elements` gives rows their elements, `group_aggregate` aggregates per key, `join` joins two streams, `late_rows` selects late rows, `over` computes
//! of the rows before each row, `top_n` keeps the first rows of each key, `window_aggregate` aggregates per key and window,
//! `window_rows` gives rows all their windows, `group_table` finds a key's dense group number.

pub(crate) mod asynchronous;
pub(crate) mod calc;
pub(crate) mod consolidate;
pub(crate) mod elements;
pub(crate) mod group_aggregate;
mod group_table;
pub(crate) mod join;
pub(crate) mod late_rows;
pub(crate) mod over;
pub(crate) mod top_n;
pub(crate) mod window_aggregate;
pub(crate) mod window_rows;
