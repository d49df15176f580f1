//! Tests of the store as a whole, mostly on a disk in memory.
//!
//! | module | why |
//! |---|---|
//! | `support` | a store in memory and short ways to use it |
//! | `basics` | put, read, starting points, restart |
//! | `crash` | power cuts after every disk operation; failing disks |
//! | `damage` | every byte of a small log cut and flipped |
//! | `model` | random histories against a model in memory |
//! | `reshard` | split, merge and scale: lineage, order of each key, what was on its way meanwhile |
//! | `lifecycle` | states of streams, retention, forgotten shards |
//! | `control` | the operations on streams as a client sees them |
//! | `sinks` | stage, publish, replay, fence |
//! | `retention` | expiry, its crashes, a wrong clock, a full log |
//! | `retention_model` | random histories with time and expiry against a model in memory |
//! | `tiering` | segments in objects, crashes and failures on the way |
//! | `kill` | a child process killed with SIGKILL under load |
//! | `kinesis` | the API as a client sees it |
//! | `files` | real files: second owner, reader beside the owner, many putters |

#[path = "store/basics.rs"]
mod basics;
#[path = "store/control.rs"]
mod control;
#[path = "store/crash.rs"]
mod crash;
#[path = "store/damage.rs"]
mod damage;
#[path = "store/files.rs"]
mod files;
#[path = "store/kill.rs"]
mod kill;
#[path = "store/kinesis.rs"]
mod kinesis;
#[path = "store/lifecycle.rs"]
mod lifecycle;
#[path = "store/model.rs"]
mod model;
#[path = "store/reshard.rs"]
mod reshard;
#[path = "store/retention.rs"]
mod retention;
#[path = "store/retention_model.rs"]
mod retention_model;
#[path = "store/sinks.rs"]
mod sinks;
#[path = "store/support.rs"]
mod support;
#[path = "store/tiering.rs"]
mod tiering;
