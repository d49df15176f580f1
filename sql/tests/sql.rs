//! SQL text against plans, refusals and results; one binary, for each links DataFusion.
//!
//! `support` has connectors without I/O and a slow interpreter of job graphs: the reference that says what a plan means.

mod sql {
    mod aggregates;
    mod changes;
    mod emit;
    mod engine;
    mod expressions;
    mod functions;
    mod fuzz;
    mod grouping_sets;
    mod hostile;
    mod identities;
    mod inserts;
    mod joins;
    mod late_rows;
    mod live;
    mod lookups;
    mod nested;
    mod oracle;
    mod over;
    mod plans;
    mod processing_time;
    mod refusals;
    mod rows;
    mod statements;
    mod support;
    mod time_columns;
    mod user_functions;
    mod window_matrix;
    mod windows;
}
