//! When an on-demand stream is split and merged: a pure decision from the load of its shards.
//!
//! As the service does it, a stream is kept at twice the peak of what it was asked to take in, and a single shard that
//! is close to its limit is split alone. Merging is slow on purpose: a stream that was busy today will be tomorrow.

use crate::hashkey::HashRange;
use crate::ids::ShardId;
use crate::limits;

/// An open shard as the decision sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ShardLoad {
    pub(crate) id: ShardId,
    pub(crate) range: HashRange,
    /// The share of its limits that its busiest recent minute asked for.
    pub(crate) recent: f64,
    /// The same over the whole time that is looked back on.
    pub(crate) longest: f64,
}

/// What is to be done with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scaling {
    /// Split this shard in the middle of its range.
    Split(ShardId),
    /// Merge these two, which are neighbours, the lower first.
    Merge(ShardId, ShardId),
}

/// Shards of more than this share of their limits are split.
const HOT: f64 = 0.8;
/// A stream has this many times the capacity of its peak.
const HEADROOM: f64 = 2.0;
/// A stream with this many times the capacity of its peak gives some back.
const SPARE: f64 = 4.0;

/// Decides on one stream. `shards` are its open shards; `watched` says that the whole time looked back on has been
/// watched, so that a low peak means something. One step at a time: the next look sees what the last one did.
pub(crate) fn decide(shards: &[ShardLoad], shards_max: usize, watched: bool) -> Option<Scaling> {
    let mut shards: Vec<ShardLoad> = shards.to_vec();
    shards.sort_unstable_by_key(|shard| shard.range.start);
    let hottest = shards
        .iter()
        .filter(|shard| shard.range.start < shard.range.end)
        .max_by(|a, b| a.recent.total_cmp(&b.recent))?;
    let recent: f64 = shards.iter().map(|shard| shard.recent).sum();
    let needs_more = hottest.recent > 0.0 && recent * HEADROOM > shards.len() as f64;
    if (hottest.recent > HOT || needs_more) && shards.len() < shards_max {
        return Some(Scaling::Split(hottest.id));
    }
    let longest: f64 = shards.iter().map(|shard| shard.longest).sum();
    let gives_back =
        watched && shards.len() > limits::ON_DEMAND_SHARDS as usize && longest * SPARE < shards.len() as f64;
    if !gives_back {
        return None;
    }
    let coldest = shards
        .windows(2)
        .min_by(|a, b| (a[0].longest + a[1].longest).total_cmp(&(b[0].longest + b[1].longest)))?;
    let [lower, upper] = coldest else { return None };
    (lower.longest + upper.longest < HOT / HEADROOM).then_some(Scaling::Merge(lower.id, upper.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(loads: &[(f64, f64)]) -> Vec<ShardLoad> {
        HashRange::tiles(loads.len() as u32)
            .zip(loads)
            .zip(0..)
            .map(|((range, &(recent, longest)), id)| ShardLoad {
                id: ShardId(id),
                range,
                recent,
                longest,
            })
            .collect()
    }

    #[test]
    fn every_case() {
        let quiet = [(0.0, 0.0); 4];
        assert_eq!(
            decide(&stream(&quiet), 100, true),
            None,
            "never below what a new stream has"
        );
        let hot = [(0.0, 0.0), (0.9, 0.9), (0.0, 0.0), (0.1, 0.1)];
        assert_eq!(
            decide(&stream(&hot), 100, true),
            Some(Scaling::Split(ShardId(1))),
            "one hot shard"
        );
        assert_eq!(decide(&stream(&hot), 4, true), None, "at the limit");
        let busy = [(0.6, 0.6), (0.6, 0.6), (0.55, 0.6), (0.61, 0.61)];
        assert_eq!(
            decide(&stream(&busy), 100, true),
            Some(Scaling::Split(ShardId(3))),
            "less than twice the peak"
        );
        let calm = [(0.4, 0.4); 4];
        assert_eq!(decide(&stream(&calm), 100, true), None, "just enough");
        let mut faded = vec![(0.0, 0.1); 8];
        faded[5] = (0.0, 0.0);
        faded[6] = (0.0, 0.05);
        assert_eq!(
            decide(&stream(&faded), 100, true),
            Some(Scaling::Merge(ShardId(5), ShardId(6)))
        );
        assert_eq!(decide(&stream(&faded), 100, false), None, "not watched for long enough");
        assert_eq!(decide(&[], 100, true), None);
    }

    #[test]
    fn settles_under_any_steady_load() {
        for total in [0.0, 0.5, 1.9, 2.1, 7.0, 40.0] {
            let mut count = 4usize;
            let mut steps = 0;
            loop {
                let each = total / count as f64;
                let loads = vec![(each, each); count];
                match decide(&stream(&loads), 1_000, true) {
                    Some(Scaling::Split(_)) => count += 1,
                    Some(Scaling::Merge(..)) => count -= 1,
                    None => break,
                }
                steps += 1;
                assert!(steps < 1_000, "{total} goes back and forth at {count} shards");
            }
            assert!(count as f64 >= total * HEADROOM && count >= 4, "{total}: {count}");
        }
    }
}
