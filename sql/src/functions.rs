//! The functions that SQL may call.
//!
//! The scalar ones are DataFusion's, named one by one: a function that a newer version adds, or whose meaning differs
//! from Flink's function of the same name, is not callable until somebody has decided about it. Those that read the
//! clock or draw numbers, and all aggregates, are ours.
//!
//! File map: `aggregates` are names and types of the engine's aggregates, `foreign` the aggregates that are
//! DataFusion's, `ambient` the functions that read more than their arguments, `user` those of a program's own, `native` the table of our own scalar functions, whose families are `collections`, `encoding`, `json`,
//! `numbers`, `text` and `time`; `bounded` keeps text functions from growing without limit, `checks` guards what sinks write,
//! `grouping` says which columns a row is grouped by, `late` is the condition of late rows, `over` are the functions that need
//! `OVER`, `to_char` makes text once for rows that have the same,
//! `regexp_extract` and `row_field` (fields of rows) are functions of ours, `window` computes a row's window; [`crate::rewrite`] turns Flink's meanings into DataFusion's.

mod access;
pub(crate) mod aggregates;
pub(crate) mod ambient;
mod bounded;
pub(crate) mod checks;
mod collections;
pub(crate) mod elements;
mod encoding;
mod foreign;
pub(crate) mod grouping;
mod json;
pub(crate) mod late;
mod native;
mod numbers;
pub(crate) mod over;
pub(crate) mod regexp_extract;
#[cfg(test)]
mod registry;
pub(crate) mod row_field;
mod text;
mod time;
mod to_char;
mod user;
pub(crate) mod window;

pub(crate) use user::UserAggregate;
pub use user::{FunctionError, RowAggregate, UserFunctions, Value};

use crate::rewrite::Macro;
use datafusion_common::DataFusionError;
use datafusion_expr::planner::ExprPlanner;
use datafusion_expr::{AggregateUDF, ScalarUDF, WindowUDF};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// DataFusion's functions that mean here what they mean there, or what Flink means by the name.
const SCALARS: &[&str] = &[
    // text
    "ascii",
    "bit_length",
    "btrim",
    "character_length",
    "chr",
    "concat",
    "concat_ws",
    "contains",
    "decode",
    "encode",
    "ends_with",
    "find_in_set",
    "initcap",
    "levenshtein",
    "lower",
    "lpad",
    "ltrim",
    "octet_length",
    "overlay",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "repeat",
    "replace",
    "reverse",
    "rpad",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr_index",
    "to_hex",
    "translate",
    "upper",
    // numbers
    "abs",
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "cos",
    "cosh",
    "cot",
    "degrees",
    "exp",
    "factorial",
    "floor",
    "gcd",
    "isnan",
    "iszero",
    "lcm",
    "ln",
    "log",
    "log10",
    "log2",
    "nanvl",
    "pi",
    "radians",
    "round",
    "signum",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
    // time
    "date_bin",
    "date_part",
    "date_trunc",
    "make_date",
    "to_char",
    "to_local_time",
    "to_unixtime",
    // conditions
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "nvl",
    "nvl2",
    // arrays and maps
    "array_add",
    "array_any_value",
    "array_append",
    "array_avg",
    "array_compact",
    "array_concat",
    "array_dims",
    "array_distance",
    "array_distinct",
    "array_except",
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_intersect",
    "array_length",
    "array_max",
    "array_min",
    "array_ndims",
    "array_normalize",
    "array_pop_back",
    "array_pop_front",
    "array_position",
    "array_positions",
    "array_prepend",
    "array_product",
    "array_remove_all",
    "array_remove_n",
    "array_repeat",
    "array_replace",
    "array_replace_all",
    "array_replace_n",
    "array_resize",
    "array_reverse",
    "array_scale",
    "array_slice",
    "array_sort",
    "array_subtract",
    "array_sum",
    "array_to_string",
    "array_union",
    "arrays_zip",
    "cosine_distance",
    "empty",
    "flatten",
    "inner_product",
    "make_array",
    "map",
    "map_entries",
    "map_extract",
    "map_keys",
    "map_values",
    "string_to_array",
];

/// Flink's names of DataFusion's functions.
const NAMES: &[(&str, &str)] = &[
    ("array_contains", "array_has"),
    ("array_join", "array_to_string"),
    ("array_remove", "array_remove_all"),
    ("map_from_arrays", "map"),
];

/// Other names of aggregates: Flink's, and DataFusion's for the engine's.
const AGGREGATE_NAMES: &[(&str, &str)] = &[
    ("any_value", "first_value"),
    ("covar", "covar_samp"),
    ("percentile_cont", "percentile"),
    ("quantile_cont", "percentile"),
    ("stddev", "stddev_samp"),
    ("string_agg", "listagg"),
    ("var", "var_samp"),
    ("var_population", "var_pop"),
    ("var_sample", "var_samp"),
    ("variance", "var_samp"),
];

/// Functions of ours that syntax is written with, and no call.
const HIDDEN: &[&str] = &[
    "ceil_to",
    "decode_text",
    "encode_text",
    "floor_to",
    "item",
    "json_checked",
    "json_element",
    "json_entry",
    "make_array",
    "to_timestamp_by",
    "unix_timestamp_of",
];

/// Aliases of DataFusion's whose name means something else in Flink.
const ALIASES_REFUSED: &[&str] = &["date_format", "today", "row", "array_remove"];

/// Flink's functions that are still to come, with what to use meanwhile.
const NOT_YET: &[(&str, &str)] = &[
    (
        "current_watermark",
        "late rows are dropped and counted where windows are made",
    ),
    ("printf", "use CONCAT and LPAD"),
    ("map_union", "join the entries in the producer"),
    (
        "cumulate",
        "write TABLE(CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '1' MINUTE)) in FROM",
    ),
    (
        "cube",
        "write CUBE beside the other keys of GROUP BY, not inside GROUPING SETS",
    ),
    ("cume_dist", "use ROW_NUMBER"),
    ("group_id", "use GROUPING_ID of the columns of GROUP BY"),
    (
        "hop",
        "write TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '1' MINUTE)) in FROM",
    ),
    ("lead", "the next row is not known yet: use LAG, in the row behind"),
    (
        "rollup",
        "write ROLLUP beside the other keys of GROUP BY, not inside GROUPING SETS",
    ),
    (
        "session",
        "write TABLE(SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '5' MINUTE)) in FROM",
    ),
    ("ntile", "use ROW_NUMBER"),
    ("nth_value", "use FIRST_VALUE, LAST_VALUE or LAG"),
    ("percent_rank", "use ROW_NUMBER"),
    (
        "tumble",
        "write TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND)) in FROM",
    ),
    ("tumble_end", "select window_end from TABLE(TUMBLE(...))"),
    ("tumble_rowtime", "select window_time from TABLE(TUMBLE(...))"),
    ("tumble_start", "select window_start from TABLE(TUMBLE(...))"),
];

/// What a name in a call means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// A function of one row.
    Scalar,
    /// A function of many rows.
    Aggregate,
    /// A function that needs `OVER`.
    Over,
    /// Not yet, with what to use meanwhile.
    NotYet(&'static str),
    /// No function; with a name that looks like it.
    Unknown(Option<String>),
}

/// All functions, by name in small letters.
pub(crate) struct Functions {
    scalars: BTreeMap<String, Arc<ScalarUDF>>,
    aggregates: BTreeMap<String, Arc<AggregateUDF>>,
    over: BTreeMap<String, Arc<WindowUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    /// The names of the functions that the text made.
    user: BTreeSet<String>,
}

impl Functions {
    /// Collects all functions.
    pub(crate) fn new() -> Self {
        let mut scalars = BTreeMap::new();
        let nested = datafusion_functions_nested::all_default_nested_functions();
        for function in datafusion_functions::all_default_functions().into_iter().chain(nested) {
            if SCALARS.contains(&function.name()) {
                let function = to_char::over_runs(bounded::bound(function));
                let foreign = |alias: &str| ALIASES_REFUSED.contains(&alias) || alias.starts_with("list_");
                for alias in function.aliases().iter().filter(|alias| !foreign(alias)) {
                    scalars.insert(alias.clone(), Arc::clone(&function));
                }
                scalars.insert(function.name().to_owned(), function);
            }
        }
        for (name, function) in ambient::functions().into_iter().chain(Macro::functions()) {
            scalars.insert(name, function);
        }
        for (name, known) in NAMES {
            if let Some(function) = scalars.get(*known).cloned() {
                scalars.insert((*name).to_owned(), function);
            }
        }
        for function in native::functions() {
            scalars.insert(function.name().to_owned(), function);
        }
        if let Some(function) = scalars.get("substr").cloned() {
            scalars.insert("substring".to_owned(), function);
        }
        scalars.insert(regexp_extract::NAME.to_owned(), regexp_extract::function());
        let mut aggregates: BTreeMap<String, Arc<AggregateUDF>> = aggregates::functions()
            .into_iter()
            .chain(grouping::functions())
            .map(|f| (f.name().to_owned(), f))
            .collect();
        let over = over::functions()
            .into_iter()
            .map(|f| (f.name().to_owned(), f))
            .collect();
        for (name, known) in AGGREGATE_NAMES {
            if let Some(function) = aggregates.get(*known).cloned() {
                aggregates.insert((*name).to_owned(), function);
            }
        }
        let planners: Vec<Arc<dyn ExprPlanner>> = vec![
            Arc::new(aggregates::CountStar),
            Arc::new(row_field::RowFieldPlanner),
            Arc::new(access::AccessPlanner::new(&scalars)),
            Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
            Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
            Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
        ];
        Self {
            scalars,
            aggregates,
            over,
            planners,
            user: BTreeSet::new(),
        }
    }

    /// Adds a function of the program's own; false when the name, in small letters, is taken.
    pub(crate) fn add(&mut self, function: Arc<ScalarUDF>) -> bool {
        let name = function.name().to_owned();
        if self.scalars.contains_key(&name) || self.aggregates.contains_key(&name) {
            return false;
        }
        self.user.insert(name.clone());
        self.scalars.insert(name, function);
        true
    }

    /// Adds an aggregate function of the program's own; false when the name, in small letters, is taken.
    pub(crate) fn add_aggregate(&mut self, name: &str, function: Arc<UserAggregate>) -> bool {
        let taken =
            self.scalars.contains_key(name) || self.aggregates.contains_key(name) || self.over.contains_key(name);
        if !taken {
            let function = aggregates::function(aggregates::AggregateKind::User(name.to_owned(), function));
            self.user.insert(name.to_owned());
            self.aggregates.insert(name.to_owned(), function);
        }
        !taken
    }

    /// Returns the names of the functions that the text made.
    pub(crate) fn user_names(&self) -> Vec<String> {
        self.user.iter().cloned().collect()
    }

    /// Returns what a name in small letters means.
    pub(crate) fn find(&self, name: &str) -> Known {
        if self.aggregates.contains_key(name) {
            return Known::Aggregate;
        }
        if self.scalars.contains_key(name) && !HIDDEN.contains(&name) {
            return Known::Scalar;
        }
        if self.over.contains_key(name) {
            return Known::Over;
        }
        if let Some((_, hint)) = NOT_YET.iter().find(|(known, _)| *known == name) {
            return Known::NotYet(hint);
        }
        let names = self
            .scalars
            .keys()
            .chain(self.aggregates.keys())
            .chain(self.over.keys());
        let names = names.map(String::as_str).filter(|name| !HIDDEN.contains(name));
        Known::Unknown(nearest(name, names).map(str::to_uppercase))
    }

    /// Returns a scalar function.
    pub(crate) fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalars.get(name).cloned()
    }

    /// Returns an aggregate function.
    pub(crate) fn aggregate(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.aggregates.get(name).cloned()
    }

    /// Returns a function that needs `OVER`.
    pub(crate) fn over(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.over.get(name).cloned()
    }

    /// Returns the names of all functions that need `OVER`.
    pub(crate) fn over_names(&self) -> Vec<String> {
        self.over.keys().cloned().collect()
    }

    /// Returns the names of all scalar functions.
    pub(crate) fn scalar_names(&self) -> Vec<String> {
        let names = self.scalars.keys().filter(|name| !HIDDEN.contains(&name.as_str()));
        names.cloned().collect()
    }

    /// Returns the names of all aggregate functions.
    pub(crate) fn aggregate_names(&self) -> Vec<String> {
        self.aggregates.keys().cloned().collect()
    }

    /// Returns what turns syntax (`EXTRACT`, `COUNT(*)`) into calls.
    pub(crate) fn planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }
}

/// Returns the name most like a given one, if any is like it.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Names from SQL text may be long; nothing is like those.
    if name.len() > 64 {
        return None;
    }
    let lower = name.to_lowercase();
    let allowed = 1 + name.len() / 4;
    names
        .map(|known| (distance(&lower, &known.to_lowercase()), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, known)| known)
}

/// Counts the letters to insert, remove or change between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Makes the error of a function that is replaced before evaluation.
pub(crate) fn never_evaluated<T>(name: &str) -> datafusion_common::Result<T> {
    Err(DataFusionError::Internal(format!(
        "{name} is replaced at planning and was evaluated"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_function_exists() {
        let functions = Functions::new();
        for name in SCALARS.iter().filter(|name| !HIDDEN.contains(name)) {
            assert_eq!(functions.find(name), Known::Scalar, "{name}");
        }
    }

    #[test]
    fn documentation_lists_every_function() {
        let text = include_str!("../../docs/SQL.md");
        let (_, text) = text.split_once("## Functions").unwrap();
        let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        let functions = Functions::new();
        let names = functions.scalar_names().into_iter().chain(functions.aggregate_names());
        let names = names.chain(functions.over_names());
        let missing: Vec<String> = names
            .filter(|name| !words.contains(&name.to_uppercase().as_str()))
            .collect();
        assert!(missing.is_empty(), "not in docs/SQL.md: {missing:?}");
    }

    #[test]
    fn functions_still_to_come_are_not_callable() {
        let functions = Functions::new();
        for (name, _) in NOT_YET {
            assert!(matches!(functions.find(name), Known::NotYet(_)), "{name}");
        }
    }

    #[test]
    fn unknown_function_names_a_similar_one() {
        assert_eq!(Functions::new().find("uper"), Known::Unknown(Some("UPPER".into())));
        assert_eq!(Functions::new().find("input_file_name"), Known::Unknown(None));
    }
}
