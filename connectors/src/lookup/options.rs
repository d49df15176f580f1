//! The options `lookup.*` of a table: the names of Flink.

use crate::error::ConnectorError;
use crate::options::{Flag, Options};
use crate::table::TableDefinition;
use std::time::Duration;
use tidemill_engine::lookup::{FullCacheOptions, LookupCache, LookupOptions, PartialCacheOptions};

const CACHE: &str = "lookup.cache";
const PARTIAL: &str = "lookup.partial-cache.";
const FULL: &str = "lookup.full-cache.";
const INTERVAL: &str = "lookup.full-cache.periodic-reload.interval";
const STRATEGY: &str = "lookup.full-cache.reload-strategy";
/// Batches of a worker that wait for answers at most.
const REQUESTS_MAX: usize = 16;
const RETRIES_MAX: u32 = 100;
/// A whole table may take long to read.
const LOAD_TIMEOUT: Duration = Duration::from_secs(3_600);

/// The caches there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheKind {
    None,
    Partial,
    Full,
}

impl CacheKind {
    fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Partial => "PARTIAL",
            Self::Full => "FULL",
        }
    }
}

/// Reads the options `lookup.*`; `offered` are the caches that the connector can have, the default first. Returns the table
/// without these options, too.
///
/// # Errors
/// When an option is not valid, or has no effect with this cache.
pub(crate) fn split(
    table: &TableDefinition,
    offered: &[CacheKind],
) -> Result<(LookupOptions, TableDefinition), ConnectorError> {
    let mut rest = table.clone();
    rest.options.retain(|name, _| !name.starts_with("lookup."));
    let mut ours = table.options.clone();
    ours.retain(|name, _| name.starts_with("lookup.") || name == "connector");
    let options = Options::new(&table.name, &ours);

    let kinds = [CacheKind::None, CacheKind::Partial, CacheKind::Full].map(|kind| (kind.name(), kind));
    let kind = options.choice(CACHE, &kinds)?.unwrap_or(offered[0]);
    if !offered.contains(&kind) {
        let names: Vec<_> = offered.iter().map(|kind| kind.name()).collect();
        let message = format!(
            "the connector '{}' cannot be looked up with {}",
            options.connector(),
            kind.name()
        );
        return Err(ConnectorError::option(CACHE, message).with_hint(format!("it offers {}", names.join(", "))));
    }
    let has_no_effect = |prefix: &str, of: CacheKind| match kind == of {
        true => Ok(()),
        false => {
            let message = format!("has no effect with 'lookup.cache' = '{}'", kind.name());
            options.refuse_prefix(prefix, &message)
        }
    };
    has_no_effect(PARTIAL, CacheKind::Partial)?;
    has_no_effect(FULL, CacheKind::Full)?;
    let cache = match kind {
        CacheKind::None => LookupCache::None,
        CacheKind::Partial => LookupCache::Partial(partial(&options)?),
        CacheKind::Full => LookupCache::Full(full(&options)?),
    };
    let retries_max = options
        .parsed("lookup.max-retries", "a whole number, such as '3'")?
        .unwrap_or(3);
    if retries_max > RETRIES_MAX {
        return Err(options.out_of_range("lookup.max-retries", "at most 100"));
    }
    let is_async = options.boolean("lookup.async", Flag::On)?.is_on();
    let timeout = options.duration("lookup.timeout")?;
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        return Err(options.out_of_range("lookup.timeout", "above 0, such as '3 min'"));
    }
    options.finish()?;
    let defaults = LookupOptions::default();
    let lookup = LookupOptions {
        timeout: timeout.unwrap_or(match kind {
            CacheKind::Full => LOAD_TIMEOUT,
            CacheKind::None | CacheKind::Partial => defaults.timeout,
        }),
        cache,
        retries_max,
        requests_max: if is_async { REQUESTS_MAX } else { 1 },
        ..defaults
    };
    Ok((lookup, rest))
}

fn partial(options: &Options<'_>) -> Result<PartialCacheOptions, ConnectorError> {
    let name = |option: &str| format!("{PARTIAL}{option}");
    let defaults = PartialCacheOptions::default();
    let rows_max = options.parsed(&name("max-rows"), "a whole number, such as '100000'")?;
    if rows_max == Some(0) {
        return Err(options.out_of_range(
            &name("max-rows"),
            "at least 1; 'lookup.cache' = 'NONE' remembers nothing",
        ));
    }
    let remembers_missing = options.boolean(&name("cache-missing-key"), Flag::On)?;
    Ok(PartialCacheOptions {
        rows_max: rows_max.unwrap_or(defaults.rows_max),
        expire_after_write: options.duration(&name("expire-after-write"))?,
        expire_after_access: options.duration(&name("expire-after-access"))?,
        remembers_missing: remembers_missing.is_on(),
    })
}

fn full(options: &Options<'_>) -> Result<FullCacheOptions, ConnectorError> {
    let strategy = options.text(STRATEGY);
    let reload_interval = options.duration(INTERVAL)?;
    match strategy {
        None => {}
        Some(text) if text.eq_ignore_ascii_case("PERIODIC") && reload_interval.is_some() => {}
        Some(text) if text.eq_ignore_ascii_case("PERIODIC") => {
            let error = ConnectorError::option(STRATEGY, "PERIODIC needs an interval");
            return Err(error.with_hint(format!("add '{INTERVAL}' = '10 min'")));
        }
        Some(text) if text.eq_ignore_ascii_case("TIMED") => {
            let error = ConnectorError::option(STRATEGY, "TIMED is not supported");
            return Err(error.with_hint("write 'PERIODIC' and an interval"));
        }
        Some(text) => {
            return Err(ConnectorError::option(STRATEGY, format!("'{text}' is not PERIODIC")));
        }
    }
    if reload_interval.is_some_and(|interval| interval < Duration::from_millis(10)) {
        return Err(options.out_of_range(INTERVAL, "at least 10 ms, such as '10 min'"));
    }
    let mode = format!("{FULL}periodic-reload.schedule-mode");
    if options.choice(&mode, &[("FIXED_DELAY", true), ("FIXED_RATE", false)])? == Some(false) {
        let error = ConnectorError::option(mode, "FIXED_RATE is not supported");
        return Err(error.with_hint("FIXED_DELAY waits for the interval behind every load"));
    }
    options.refuse_prefix(
        "lookup.full-cache.timed-reload.",
        "not supported; use a periodic reload",
    )?;
    let rows_max = format!("{FULL}max-rows");
    let found = options.parsed(&rows_max, "a whole number, such as '10000000'")?;
    if found == Some(0) {
        return Err(options.out_of_range(&rows_max, "at least 1"));
    }
    Ok(FullCacheOptions {
        reload_interval,
        rows_max: found.unwrap_or(FullCacheOptions::default().rows_max),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema;
    use std::sync::Arc;

    fn table(options: &[(&str, &str)]) -> TableDefinition {
        TableDefinition {
            name: "t".into(),
            schema: Arc::new(Schema::empty()),
            metadata_columns: Vec::new(),
            options: options
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            partition_keys: Vec::new(),
            primary_key: Vec::new(),
        }
    }

    #[test]
    fn options_of_the_cache_are_read_and_the_others_stay() {
        let given = table(&[
            ("connector", "jdbc"),
            ("url", "jdbc:sqlite:x"),
            ("lookup.cache", "partial"),
            ("lookup.partial-cache.max-rows", "7"),
            ("lookup.partial-cache.expire-after-write", "5 s"),
            ("lookup.partial-cache.cache-missing-key", "false"),
            ("lookup.max-retries", "1"),
            ("lookup.async", "false"),
        ]);
        let (options, rest) = split(&given, &[CacheKind::None, CacheKind::Partial]).unwrap();
        let expected = PartialCacheOptions {
            rows_max: 7,
            expire_after_write: Some(Duration::from_secs(5)),
            expire_after_access: None,
            remembers_missing: false,
        };
        assert_eq!(options.cache, LookupCache::Partial(expected));
        assert_eq!((options.retries_max, options.requests_max), (1, 1));
        assert_eq!(rest.options.keys().collect::<Vec<_>>(), ["connector", "url"]);
    }

    #[test]
    fn options_that_are_wrong_or_without_effect_are_refused_by_name() {
        let all = [CacheKind::Full, CacheKind::None, CacheKind::Partial];
        for (options, named, said) in [
            (
                vec![("lookup.cache", "SOME")],
                "lookup.cache",
                "not one of NONE, PARTIAL, FULL",
            ),
            (
                vec![("lookup.partial-cache.max-rows", "5")],
                "lookup.partial-cache.max-rows",
                "no effect",
            ),
            (
                vec![("lookup.cache", "NONE"), ("lookup.full-cache.max-rows", "5")],
                "lookup.full-cache.max-rows",
                "no effect",
            ),
            (
                vec![("lookup.full-cache.reload-strategy", "PERIODIC")],
                STRATEGY,
                "needs an interval",
            ),
            (
                vec![("lookup.full-cache.reload-strategy", "TIMED")],
                STRATEGY,
                "not supported",
            ),
            (vec![(INTERVAL, "0 s")], INTERVAL, "at least 10 ms"),
            (
                vec![("lookup.max-retry", "5")],
                "lookup.max-retry",
                "did you mean 'lookup.max-retries'",
            ),
        ] {
            let error = split(&table(&options), &all).unwrap_err();
            assert_eq!(error.option.as_deref(), Some(named), "{error}");
            assert!(error.to_string().contains(said), "{error}");
        }
        let error = split(&table(&[("lookup.cache", "FULL")]), &[CacheKind::None]).unwrap_err();
        assert!(error.to_string().contains("it offers NONE"), "{error}");
    }
}
