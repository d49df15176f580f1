//! Tidemill's SQL: Flink-style statements planned into the engine's job graph.
//!
//! ```text
//!  text ─ guard ─ tokens ─ statement ─ whitelist ─ DataFusion's SqlToRel ─ lower ─▶ Rels ─ prune, fuse, emit ─▶ JobGraph
//!         limits           our grammar  what is     names and types         our plan, with time
//!                                       understood                          attributes and identities
//! ```
//! Who uses it: `tidemill run` and the process of a SQL job. It is the only crate that names DataFusion, of which it
//! uses the query planner, the types of expressions and their vectorised evaluation; it has no session, no catalog and
//! no optimiser rules of DataFusion's: [`plan`] is a function of the text and the connectors.
//!
//! Invariants:
//! - what is not understood is refused with its place in the text; nothing is dropped silently;
//! - limits are checked before the parser and the planner run, and planning needs no I/O except the connectors' own;
//! - a job reads each table once, and of it only the columns that some statement needs;
//! - operators' uids are hashes of our own words, taken before anything is optimised.
//!
//! File map: [`plan`](plan()) runs the steps; `guard`, `script`, `dialect`, `statement` and `whitelist` read text;
//! `hints` finds what stands in comments; `json_syntax` reads the clauses inside calls of JSON functions; `answers` writes what `SHOW` and `DESCRIBE` say;
//! `catalog`, `types`, `functions`, `calendar`, `naming`, `rewrite`, `syntax`, `group_window` `unnest` and `window_function` give it meaning; `rel` is our plan and makes the
//! job graph; `expr` evaluates; `insert` and `settings` are statements.

mod answers;
mod calendar;
mod catalog;
mod connectors;
mod dialect;
mod duration;
mod error;
mod expr;
mod functions;
mod group_window;
mod grouping_sets;
mod guard;
mod hints;
mod insert;
mod json_syntax;
mod naming;
mod plan;
mod rel;
mod rewrite;
mod script;
mod settings;
mod statement;
mod syntax;
mod temporal;
mod types;
mod unnest;
mod whitelist;
mod window_function;

pub use connectors::Connectors;
pub use error::{Position, SqlError};
pub use functions::{FunctionError, RowAggregate, UserFunctions, Value};
pub use guard::Limits;
pub use plan::{JobPlan, Plan, PlanOptions, TableSummary, plan, plan_with};
pub use settings::{EmitSettings, Settings};
