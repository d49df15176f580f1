//! State objects: the bytes that one worker uploads for one checkpoint.
//!
//! An object is a row of sections; each belongs to an operator, has a name of the operator's choosing, and holds either the state of
//! a range of key groups or state that belongs to no key. The manifest repeats where each section lies, so a restore at another
//! parallelism reads only the ranges it needs. The object alone can be read too ([`StateObject::parse`]).
//!
//! Format version 1, all numbers little-endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `TMST` |
//! | 4 | 2 | format version, 1 |
//! | 6 | 10 | zero |
//!
//! then for every section:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | length `u` of the operator uid in bytes |
//! | 2 | 2 | length `n` of the section name in bytes |
//! | 4 | 2 | 1 when the section has key groups, 0 when not |
//! | 6 | 2 | first key group, 0 without |
//! | 8 | 2 | last key group, 0 without |
//! | 10 | 2 | zero |
//! | 12 | 8 | length `c` of the content in bytes |
//! | 20 | 4 | CRC-32C of the content |
//! | 24 | 4 | CRC-32C of the fields above, the uid and the name |
//! | 28 | u | operator uid, UTF-8 |
//! | 28 + u | n | section name, UTF-8 |
//! | 28 + u + n | c | content |
//!
//! [`writer`](StateWriter) and [`reader`](StateReader) have a file each.

mod reader;
mod writer;

pub use reader::{Section, StateReader};
pub use writer::{StateObject, StateWriter};

const MAGIC: &[u8; 4] = b"TMST";
const FORMAT: u16 = 1;
const HEADER_BYTES: usize = 16;
const SECTION_HEADER_BYTES: usize = 28;
