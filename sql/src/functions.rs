//! The functions that SQL may call.
//!
//! The scalar ones are DataFusion's, named one by one: a function that a newer version adds, or whose meaning differs
//! from Flink's function of the same name, is not callable until somebody has decided about it. Those that read the
//! clock or draw numbers, and all aggregates, are ours.
//!
//! File map: `aggregates` are names and types of the engine's aggregates, `ambient` the functions that read more than
//! their arguments, `bounded` keeps text functions from growing without limit, `checks` guards what sinks write, `late` is the condition of late rows,
//! `regexp_extract` and `row_field` (fields of rows) are functions of ours, `window` computes a row's window; [`crate::rewrite`] turns Flink's meanings into DataFusion's.

pub(crate) mod aggregates;
pub(crate) mod ambient;
mod bounded;
pub(crate) mod checks;
pub(crate) mod late;
pub(crate) mod regexp_extract;
pub(crate) mod row_field;
pub(crate) mod window;

use crate::rewrite::Macro;
use datafusion_common::DataFusionError;
use datafusion_expr::planner::ExprPlanner;
use datafusion_expr::{AggregateUDF, ScalarUDF};
use std::collections::BTreeMap;
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
    "left",
    "levenshtein",
    "lower",
    "lpad",
    "ltrim",
    "octet_length",
    "overlay",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_replace",
    "repeat",
    "replace",
    "reverse",
    "right",
    "rpad",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
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
    "power",
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
    // conditions
    "coalesce",
    "greatest",
    "least",
    "nullif",
    "nvl",
    "nvl2",
];

/// Aliases of DataFusion's whose name means something else in Flink.
const ALIASES_REFUSED: &[&str] = &["date_format", "today", "row"];

/// Flink's functions that are still to come, with what to use meanwhile.
const NOT_YET: &[(&str, &str)] = &[
    ("approx_count_distinct", "use COUNT(DISTINCT x)"),
    ("array_agg", "aggregate with COUNT, SUM, MIN, MAX or AVG"),
    ("collect", "aggregate with COUNT, SUM, MIN, MAX or AVG"),
    (
        "cumulate",
        "write TABLE(CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '1' MINUTE)) in FROM",
    ),
    ("date_format", "use to_char(x, '%Y-%m-%d') with the letters of strftime"),
    ("dense_rank", "aggregate in a window with MAX or MIN"),
    ("first_value", "use MIN of the value"),
    ("from_unixtime", "use TO_TIMESTAMP_LTZ(x, 0)"),
    (
        "hop",
        "write TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '1' MINUTE)) in FROM",
    ),
    ("json_query", "let the format decode the field into a column"),
    ("json_value", "let the format decode the field into a column"),
    ("last_value", "use MAX of the value"),
    ("listagg", "aggregate with COUNT, SUM, MIN, MAX or AVG"),
    ("rank", "aggregate in a window with MAX or MIN"),
    ("row_number", "aggregate in a window with MAX or MIN"),
    (
        "session",
        "write TABLE(SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '5' MINUTE)) in FROM",
    ),
    ("split_index", "use split_part(x, delimiter, n), which counts from 1"),
    ("stddev_pop", "compute it from SUM(x), SUM(x * x) and COUNT(x)"),
    ("stddev_samp", "compute it from SUM(x), SUM(x * x) and COUNT(x)"),
    ("to_date", "use CAST(x AS DATE)"),
    (
        "tumble",
        "write TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND)) in FROM",
    ),
    ("tumble_end", "select window_end from TABLE(TUMBLE(...))"),
    ("tumble_rowtime", "select window_time from TABLE(TUMBLE(...))"),
    ("tumble_start", "select window_start from TABLE(TUMBLE(...))"),
    ("unix_timestamp", "use EXTRACT(EPOCH FROM x)"),
    ("var_pop", "compute it from SUM(x), SUM(x * x) and COUNT(x)"),
    ("var_samp", "compute it from SUM(x), SUM(x * x) and COUNT(x)"),
];

/// What a name in a call means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// A function of one row.
    Scalar,
    /// A function of many rows.
    Aggregate,
    /// Not yet, with what to use meanwhile.
    NotYet(&'static str),
    /// No function; with a name that looks like it.
    Unknown(Option<String>),
}

/// All functions, by name in small letters.
pub(crate) struct Functions {
    scalars: BTreeMap<String, Arc<ScalarUDF>>,
    aggregates: BTreeMap<String, Arc<AggregateUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

impl Functions {
    /// Collects all functions.
    pub(crate) fn new() -> Self {
        let mut scalars = BTreeMap::new();
        for function in datafusion_functions::all_default_functions() {
            if SCALARS.contains(&function.name()) {
                let function = bounded::bound(function);
                for alias in function
                    .aliases()
                    .iter()
                    .filter(|alias| !ALIASES_REFUSED.contains(&alias.as_str()))
                {
                    scalars.insert(alias.clone(), Arc::clone(&function));
                }
                scalars.insert(function.name().to_owned(), function);
            }
        }
        for (name, function) in ambient::functions().into_iter().chain(Macro::functions()) {
            scalars.insert(name, function);
        }
        scalars.insert(regexp_extract::NAME.to_owned(), regexp_extract::function());
        let aggregates = aggregates::functions()
            .into_iter()
            .map(|f| (f.name().to_owned(), f))
            .collect();
        let planners: Vec<Arc<dyn ExprPlanner>> = vec![
            Arc::new(aggregates::CountStar),
            Arc::new(row_field::RowFieldPlanner),
            Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
            Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
            Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
        ];
        Self {
            scalars,
            aggregates,
            planners,
        }
    }

    /// Returns what a name in small letters means.
    pub(crate) fn find(&self, name: &str) -> Known {
        if self.aggregates.contains_key(name) {
            return Known::Aggregate;
        }
        if self.scalars.contains_key(name) {
            return Known::Scalar;
        }
        if let Some((_, hint)) = NOT_YET.iter().find(|(known, _)| *known == name) {
            return Known::NotYet(hint);
        }
        let names = self.scalars.keys().chain(self.aggregates.keys()).map(String::as_str);
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

    /// Returns the names of all scalar functions.
    pub(crate) fn scalar_names(&self) -> Vec<String> {
        self.scalars.keys().cloned().collect()
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
        for name in SCALARS {
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
