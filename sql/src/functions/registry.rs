//! What becomes of each of DataFusion's functions: none is callable, or missing, without somebody having decided.

use super::{Functions, Known, SCALARS};
use std::collections::BTreeMap;

/// How a function of DataFusion's stands here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// It is called by its name, and is DataFusion's.
    Theirs,
    /// Its name is that of a function of ours, with Flink's meaning or by the engine's accumulators.
    Ours,
    /// It is written as syntax, by an operator or a cast.
    Syntax(&'static str),
    /// It is not there.
    Refused(&'static str),
}

use Stands::{Ours, Refused, Syntax};

const ARROW: Stands = Refused("types of Arrow are no types of SQL");
const FILES: Stands = Refused("a stream is not read from files that a query knows");
const LENGTH: Stands = Refused("it makes arrays of any length of a few bytes of text");
const ROWS: Stands = Refused("rows cannot be made yet");
const SCALE: Stands = Refused("TO_TIMESTAMP_LTZ(n, 0) and (n, 3) are Flink's");
const TIMES: Stands = Refused("its TIME has nanoseconds, and TIME(3) is the finest here");
const UNIONS: Stands = Refused("there is no type that is one of several");

/// The scalar functions that are not called as DataFusion's.
const SCALARS_ELSEWHERE: &[(&str, Stands)] = &[
    ("array_element", Syntax("list[n]")),
    ("array_remove", Ours),
    ("arrow_cast", ARROW),
    ("arrow_field", ARROW),
    ("arrow_metadata", ARROW),
    ("arrow_try_cast", ARROW),
    ("arrow_typeof", ARROW),
    ("cardinality", Ours),
    ("cast_to_type", Syntax("CAST(x AS type)")),
    ("current_date", Ours),
    ("current_time", Ours),
    ("file_row_index", FILES),
    ("from_unixtime", Ours),
    ("generate_series", LENGTH),
    ("get_field", Syntax("row.field")),
    ("input_file_name", FILES),
    ("left", Ours),
    ("make_array", Syntax("ARRAY[a, b]")),
    ("make_time", TIMES),
    ("named_struct", ROWS),
    ("now", Ours),
    ("power", Ours),
    ("random", Ours),
    ("range", LENGTH),
    ("right", Ours),
    ("struct", ROWS),
    ("substr", Ours),
    ("to_date", Ours),
    ("to_time", TIMES),
    ("to_timestamp", Ours),
    ("to_timestamp_micros", SCALE),
    ("to_timestamp_millis", SCALE),
    ("to_timestamp_nanos", SCALE),
    ("to_timestamp_seconds", SCALE),
    ("try_cast_to_type", Syntax("TRY_CAST(x AS type)")),
    ("union_extract", UNIONS),
    ("union_tag", UNIONS),
    ("uuid", Ours),
    (
        "version",
        Refused("a result would change with the version of a library"),
    ),
    ("with_metadata", ARROW),
];

/// The aggregates that DataFusion's accumulators do not compute.
const AGGREGATES: &[(&str, Stands)] = &[
    ("any_value", Ours),
    ("array_agg", Ours),
    ("avg", Ours),
    ("count", Ours),
    ("first_value", Ours),
    ("grouping", Ours),
    ("last_value", Ours),
    ("max", Ours),
    ("median", Ours),
    ("min", Ours),
    (
        "nth_value",
        Refused("it needs an order inside the call; ARRAY_AGG(x)[n] is that of arrival"),
    ),
    ("percentile_cont", Ours),
    ("stddev", Ours),
    ("stddev_pop", Ours),
    ("string_agg", Ours),
    ("sum", Ours),
    ("var", Ours),
    ("var_pop", Ours),
];

const AHEAD: Stands = Refused("the rows behind a row are not known when it is emitted");

/// The functions that need OVER: all of them are the engine's.
const OVER: &[(&str, Stands)] = &[
    ("cume_dist", AHEAD),
    ("dense_rank", Refused("of the numbers of rows only ROW_NUMBER is kept")),
    ("first_value", Ours),
    ("lag", Ours),
    ("last_value", Ours),
    ("lead", AHEAD),
    ("nth_value", Refused("FIRST_VALUE, LAST_VALUE and LAG are there")),
    ("ntile", AHEAD),
    ("percent_rank", AHEAD),
    ("rank", Refused("of the numbers of rows only ROW_NUMBER is kept")),
    ("row_number", Ours),
];

/// Compares what DataFusion has with what is said of it.
fn check(names: Vec<String>, said: &[(&str, Stands)], theirs: &dyn Fn(&str) -> bool, callable: &dyn Fn(&str) -> bool) {
    let said: BTreeMap<&str, Stands> = said.iter().copied().collect();
    let mut wrong = Vec::new();
    for name in &names {
        let stands = match said.get(name.as_str()) {
            None if theirs(name) => Stands::Theirs,
            None => {
                wrong.push(format!("{name}: nobody has decided about it"));
                continue;
            }
            Some(stands) => *stands,
        };
        let expected = matches!(stands, Stands::Theirs | Ours);
        if callable(name) != expected {
            wrong.push(format!("{name}: {stands:?}, and callable: {}", callable(name)));
        }
        if matches!(stands, Ours | Syntax(_) | Refused(_)) && theirs(name) {
            wrong.push(format!("{name}: {stands:?}, and DataFusion's is called"));
        }
    }
    let gone = said.keys().filter(|name| !names.iter().any(|known| known == *name));
    wrong.extend(gone.map(|name| format!("{name}: DataFusion has none")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_scalar_function_of_datafusion_is_decided_about() {
    let functions = Functions::new();
    let nested = datafusion_functions_nested::all_default_nested_functions();
    let all = datafusion_functions::all_default_functions().into_iter().chain(nested);
    let names = all.map(|function| function.name().to_owned()).collect();
    let callable = |name: &str| functions.find(name) == Known::Scalar;
    check(
        names,
        SCALARS_ELSEWHERE,
        &|name| SCALARS.contains(&name) && name != "make_array",
        &callable,
    );
}

#[test]
fn every_aggregate_of_datafusion_is_decided_about() {
    let functions = Functions::new();
    let all = datafusion_functions_aggregate::all_default_aggregate_functions();
    let names = all.iter().map(|function| function.name().to_owned()).collect();
    let foreign: Vec<&str> = super::foreign::all().iter().map(|function| function.name()).collect();
    let callable = |name: &str| functions.find(name) == Known::Aggregate;
    check(names, AGGREGATES, &|name| foreign.contains(&name), &callable);
}

#[test]
fn every_window_function_of_datafusion_is_decided_about() {
    let functions = Functions::new();
    let all = datafusion::functions_window::all_default_window_functions();
    let names = all.iter().map(|function| function.name().to_owned()).collect();
    // These are known, so that they are refused with a word about top-N.
    let is_refused_later = |name: &str| ["dense_rank", "rank"].contains(&name);
    let callable = |name: &str| functions.over(name).is_some() && !is_refused_later(name);
    check(names, OVER, &|_| false, &callable);
}
