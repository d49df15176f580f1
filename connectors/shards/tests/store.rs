//! Tests of the store as a whole, mostly on a disk in memory.
//!
//! | module | why |
//! |---|---|
//! | `support` | a store in memory and short ways to use it |
//! | `basics` | put, read, starting points, restart |
//! | `crash` | power cuts after every disk operation; failing disks |
//! | `damage` | every byte of a small log cut and flipped |
//! | `flips` | any byte of any file flipped |
//! | `surgery` | garbage tails; files that are gone, swapped, foreign or of a later release |
//! | `kernel` | short writes, EIO, no room, little memory: faults of the operating system, without root |
//! | `slow` | syncs that take long |
//! | `model` | random histories against a model in memory |
//! | `reshard` | split, merge and scale: lineage, order of each key, what was on its way meanwhile |
//! | `lifecycle` | states of streams, retention, forgotten shards |
//! | `control` | the operations on streams as a client sees them |
//! | `producers` | requests of producers that number them: repeated, refused, forgotten |
//! | `producers_crash` | the same over power cuts, kills and damage |
//! | `producers_model` | random histories of them against a model |
//! | `producers_api` | the same as a client sees it |
//! | `sinks` | stage, publish, replay, fence |
//! | `retention` | expiry, its crashes, a wrong clock, a full log |
//! | `retention_model` | random histories with time and expiry against a model in memory |
//! | `tiering` | segments in objects, crashes and failures on the way |
//! | `kill` | a child process killed with SIGKILL under load |
//! | `kinesis` | the API as a client sees it |
//! | `cbor` | the same in CBOR |
//! | `boundaries` | limits to the byte, times at the ends of their range, names that are taken again |
//! | `names` | no name makes a file |
//! | `consumers` | registered consumers: states, limits, restart |
//! | `subscribe` | SubscribeToShard: what is sent, and how it ends |
//! | `files` | real files: second owner, reader beside the owner, many putters |

#![allow(clippy::disallowed_methods, reason = "tests set their stage with files")]

#[path = "store/basics.rs"]
mod basics;
#[path = "store/boundaries.rs"]
mod boundaries;
#[path = "store/capacity.rs"]
mod capacity;
#[path = "store/cbor.rs"]
mod cbor;
#[path = "store/consumers.rs"]
mod consumers;
#[path = "store/control.rs"]
mod control;
#[path = "store/crash.rs"]
mod crash;
#[path = "store/damage.rs"]
mod damage;
#[path = "store/files.rs"]
mod files;
#[path = "store/flips.rs"]
mod flips;
#[path = "store/kernel.rs"]
mod kernel;
#[path = "store/kill.rs"]
mod kill;
#[path = "store/kinesis.rs"]
mod kinesis;
#[path = "store/lifecycle.rs"]
mod lifecycle;
#[path = "store/model.rs"]
mod model;
#[path = "store/names.rs"]
mod names;
#[path = "store/producers.rs"]
mod producers;
#[path = "store/producers_api.rs"]
mod producers_api;
#[path = "store/producers_crash.rs"]
mod producers_crash;
#[path = "store/producers_model.rs"]
mod producers_model;
#[path = "store/reshard.rs"]
mod reshard;
#[path = "store/retention.rs"]
mod retention;
#[path = "store/retention_model.rs"]
mod retention_model;
#[path = "store/sinks.rs"]
mod sinks;
#[path = "store/slow.rs"]
mod slow;
#[path = "store/subscribe.rs"]
mod subscribe;
#[path = "store/support.rs"]
mod support;
#[path = "store/surgery.rs"]
mod surgery;
#[path = "store/tiering.rs"]
mod tiering;
