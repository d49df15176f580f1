//! The protocol against stores with faults: `faulty` is the store, `model` a small job that checks what every restart must keep,
//! and each other file one family of faults.

mod collect;
mod crash;
mod fencing;
mod model;
mod restoring;
mod store_faults;
