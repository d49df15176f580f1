//! Tidemill's sources, sinks and formats: what a table's `WITH (...)` options name.
//!
//! ```text
//!  TableDefinition ── check_source / check_sink ──▶ a ConnectorError that says what to mend (no I/O)
//!         │
//!         ├── create_source(projection) ──▶ engine Source ── splits ── bytes ── format decoder ──▶ record batches
//!         └── create_sink ────────────────▶ engine Sink   ◀─ format encoder ◀── record batches
//! ```
//!
//! Who uses it: the SQL planner makes its tables with it, a Rust job may do the same. Options have the names and
//! meanings of Flink's connectors; docs/CONNECTORS.md lists each with its default and what differs.
//!
//! Invariants:
//! - no option is ignored: one that is unknown, or has no effect here, is an error;
//! - a projection reaches the decoder: what is not read is not decoded;
//! - a position restores exactly the rows that follow it, whatever the sizes of the reads;
//! - a record that cannot be decoded names its coordinates, the field and the reason, and never panics.
//!
//! File map: [`table`] and [`environment`] come in, [`registry`] (the functions above) finds the connector. One module
//! per connector: `kinesis`, `filesystem`, `datagen`, `nexmark`, `print`, `blackhole`. `formats` is between bytes and
//! columns, `changes` tells sinks what rows do to a result that changes, `options` reads what `WITH` says, `random` has the numbers of generators, `conformance` is what every
//! connector is tested with.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests set their stage with files"))]

mod blackhole;
mod changes;
#[cfg(test)]
mod conformance;
mod datagen;
mod decode;
pub mod environment;
pub mod error;
mod filesystem;
mod formats;
mod kinesis;
mod nexmark;
mod options;
mod print;
mod random;
pub mod registry;
mod sinks;
pub mod table;

pub use decode::decode_records;
pub use environment::ConnectorEnvironment;
pub use error::ConnectorError;
pub use nexmark::{NEXMARK_BASE_MS, nexmark_schema};
pub use registry::{check_sink, check_source, create_sink, create_source};
pub use table::{MetadataColumn, TableDefinition};
