//! Which shards are read, from where, and when: children only when all their parents are printed to the end.

use super::cursor::Start;
use crate::cli::kinesis::Shard;
use crate::cli::stream::values::From;
use std::collections::BTreeSet;

/// The shards of a stream as they are followed.
#[derive(Debug)]
pub(super) struct Lineage {
    shards: Vec<Shard>,
    /// Those that are or will be read; children of an ended one join them.
    followed: BTreeSet<String>,
    begun: BTreeSet<String>,
    ended: BTreeSet<String>,
    /// Where the first ones start.
    start: Start,
    /// Whether children are read as well.
    has_children: bool,
}

impl Lineage {
    /// Looks at the shards of a stream; `only` those are read, if there are any.
    ///
    /// # Errors
    /// When the starting point or `only` do not fit the stream.
    pub(super) fn new(
        stream: &str,
        shards: Vec<Shard>,
        from: From,
        only: &[String],
        now_ms: i64,
    ) -> Result<Self, String> {
        if let Some(unknown) = only.iter().find(|id| !shards.iter().any(|shard| shard.id == **id)) {
            return Err(format!(
                "stream {stream} has no shard {unknown}; see tidemill stream describe {stream}"
            ));
        }
        let is_chosen = |shard: &&Shard| only.is_empty() || only.contains(&shard.id);
        let mut followed: BTreeSet<String> = shards.iter().filter(is_chosen).map(|shard| shard.id.clone()).collect();
        let start = match from {
            From::TrimHorizon => Start::TrimHorizon,
            From::Ago(ms) => Start::At(now_ms.saturating_sub(ms)),
            From::At(ms) => Start::At(ms),
            From::Latest => {
                // Closed shards have nothing behind their newest record.
                let is_closed = |id: &String| shards.iter().any(|shard| shard.id == *id && !shard.is_open());
                if only.is_empty() {
                    followed.retain(|id| !is_closed(id));
                } else if let Some(closed) = only.iter().find(|id| is_closed(id)) {
                    return Err(format!(
                        "shard {closed} is closed, so nothing new comes there; read what it has with --from trim-horizon"
                    ));
                }
                Start::Latest
            }
            From::Sequence(number) => {
                if followed.len() != 1 {
                    return Err(format!(
                        "a sequence number is a place in one shard, and {} would be read; name the shard with --shard",
                        followed.len()
                    ));
                }
                Start::Sequence(number)
            }
        };
        Ok(Self {
            shards,
            followed,
            begun: BTreeSet::new(),
            ended: BTreeSet::new(),
            start,
            has_children: only.is_empty(),
        })
    }

    /// The shards to begin with.
    pub(super) fn begin(&mut self) -> Vec<(String, Start)> {
        let start = self.start.clone();
        self.ready(|| start.clone())
    }

    /// Takes the end of a shard, and all shards that there are now; says which begin.
    pub(super) fn end(&mut self, ended: &str, shards: Vec<Shard>) -> Vec<(String, Start)> {
        self.shards = shards;
        self.ended.insert(ended.to_owned());
        if self.has_children {
            self.followed.extend(self.children(ended));
        }
        // A moment may lie in a child as well; every other place is behind once a parent has ended.
        let start = match self.start {
            Start::At(ms) => Start::At(ms),
            _ => Start::TrimHorizon,
        };
        self.ready(|| start.clone())
    }

    /// The shards that a shard was split or merged into.
    pub(super) fn children(&self, parent: &str) -> Vec<String> {
        self.shards
            .iter()
            .filter(|shard| shard.parents.iter().any(|id| id == parent))
            .map(|shard| shard.id.clone())
            .collect()
    }

    fn ready(&mut self, start: impl Fn() -> Start) -> Vec<(String, Start)> {
        let is_done = |parent: &String| !self.followed.contains(parent) || self.ended.contains(parent);
        let ready: Vec<String> = self
            .shards
            .iter()
            .filter(|shard| self.followed.contains(&shard.id) && !self.begun.contains(&shard.id))
            .filter(|shard| shard.parents.iter().all(is_done))
            .map(|shard| shard.id.clone())
            .collect();
        self.begun.extend(ready.iter().cloned());
        ready.into_iter().map(|id| (id, start())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: &str, parents: &[&str], is_open: bool) -> Shard {
        Shard {
            id: id.into(),
            parents: parents.iter().map(|id| (*id).to_owned()).collect(),
            first_key: 0,
            last_key: 9,
            first_sequence: "1".into(),
            last_sequence: (!is_open).then(|| "9".into()),
        }
    }

    /// a was split into b and c; c and d were merged into e.
    fn family() -> Vec<Shard> {
        vec![
            shard("a", &[], false),
            shard("b", &["a"], true),
            shard("c", &["a"], false),
            shard("d", &[], false),
            shard("e", &["c", "d"], true),
        ]
    }

    fn lineage(from: From, only: &[&str]) -> Result<Lineage, String> {
        let only: Vec<String> = only.iter().map(|id| (*id).to_owned()).collect();
        Lineage::new("s", family(), from, &only, 10_000)
    }

    fn ids(starts: &[(String, Start)]) -> Vec<&str> {
        starts.iter().map(|(id, _)| id.as_str()).collect()
    }

    #[test]
    fn children_begin_when_all_their_parents_have_ended() {
        let mut lineage = lineage(From::TrimHorizon, &[]).unwrap();
        assert_eq!(ids(&lineage.begin()), ["a", "d"]);
        assert_eq!(ids(&lineage.end("a", family())), ["b", "c"]);
        assert_eq!(ids(&lineage.end("c", family())), [""; 0]);
        let last = lineage.end("d", family());
        assert_eq!(last, [("e".to_owned(), Start::TrimHorizon)]);
    }

    #[test]
    fn from_latest_open_shards_are_read_and_then_their_children_from_the_beginning() {
        let mut lineage = lineage(From::Latest, &[]).unwrap();
        let first = lineage.begin();
        assert_eq!(ids(&first), ["b", "e"]);
        assert!(first.iter().all(|(_, start)| *start == Start::Latest));
        let mut later = family();
        later[1].last_sequence = Some("9".into());
        later.extend([shard("f", &["b"], true), shard("g", &["b"], true)]);
        let next = lineage.end("b", later);
        assert_eq!(
            next,
            [
                ("f".to_owned(), Start::TrimHorizon),
                ("g".to_owned(), Start::TrimHorizon)
            ]
        );
    }

    #[test]
    fn from_a_moment_every_shard_starts_there() {
        let mut lineage = lineage(From::Ago(4_000), &[]).unwrap();
        assert!(lineage.begin().iter().all(|(_, start)| *start == Start::At(6_000)));
        assert!(
            lineage
                .end("a", family())
                .iter()
                .all(|(_, start)| *start == Start::At(6_000))
        );
    }

    #[test]
    fn chosen_shards_are_read_without_their_children() {
        let mut lineage = lineage(From::TrimHorizon, &["c", "d"]).unwrap();
        assert_eq!(ids(&lineage.begin()), ["c", "d"]);
        assert!(lineage.end("c", family()).is_empty() && lineage.end("d", family()).is_empty());
        assert_eq!(lineage.children("c"), ["e"]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_way_out() {
        assert!(lineage(From::Latest, &["x"]).unwrap_err().contains("has no shard x"));
        assert!(
            lineage(From::Latest, &["a"])
                .unwrap_err()
                .contains("--from trim-horizon")
        );
        let several = lineage(From::Sequence("7".into()), &[]).unwrap_err();
        assert!(several.contains("--shard"), "{several}");
        let mut one = lineage(From::Sequence("7".into()), &["d"]).unwrap();
        assert_eq!(one.begin(), [("d".to_owned(), Start::Sequence("7".into()))]);
    }
}
