//! What is remembered of all producers of a store. Bounded: by requests of a producer, producers of a stream, and bytes of
//! a store; whoever has stored nothing for longest is forgotten first.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::outcome::Outcome;
use super::{Numbered, ProducerId};
use crate::error::StoreError;
use crate::ids::{StreamName, Uuid};
use crate::limits;

/// A request that was stored, as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Produced {
    pub(crate) stream: StreamName,
    pub(crate) stream_id: Uuid,
    pub(crate) id: ProducerId,
    pub(crate) epoch: u64,
    pub(crate) request: Outcome,
}

/// What is to be done with a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict<'a> {
    /// It is the next one.
    Store,
    /// It is stored already.
    Repeat(&'a Outcome),
    Refuse(StoreError),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    epoch: u64,
    /// Key in [`OfStream::order`].
    used: u64,
    /// The last ones, of this epoch; never empty.
    requests: VecDeque<Outcome>,
}

impl Known {
    fn bytes(&self, id: &ProducerId) -> usize {
        let requests: usize = self.requests.iter().map(Outcome::bytes).sum();
        requests + 2 * id.as_str().len() + limits::PRODUCER_BYTES
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OfStream {
    known: BTreeMap<ProducerId, Known>,
    /// By their last use.
    order: BTreeMap<u64, ProducerId>,
}

/// All producers of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    streams: BTreeMap<Uuid, OfStream>,
    /// Counts requests.
    uses: u64,
    bytes: usize,
}

impl Producers {
    pub(crate) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Decides on a request.
    pub(crate) fn decide(&self, request: &Numbered) -> Verdict<'_> {
        let Numbered {
            stream_id,
            stream,
            producer,
            content,
            ..
        } = request;
        let (stream, id) = (stream.clone(), producer.id.clone());
        let (epoch, sequence) = (producer.epoch, producer.sequence);
        let known = self
            .streams
            .get(stream_id)
            .and_then(|of_stream| of_stream.known.get(&producer.id));
        let Some(known) = known else {
            return match sequence {
                0 => Verdict::Store,
                _ => Verdict::Refuse(StoreError::ProducerUnknown {
                    stream,
                    producer: id,
                    sequence,
                }),
            };
        };
        if epoch < known.epoch {
            return Verdict::Refuse(StoreError::ProducerFenced {
                stream,
                producer: id,
                epoch,
                newest: known.epoch,
            });
        }
        let expected = match known.requests.back() {
            Some(last) if epoch == known.epoch => last.sequence.saturating_add(1),
            _ => 0,
        };
        if sequence >= expected {
            return if sequence == expected {
                Verdict::Store
            } else {
                Verdict::Refuse(StoreError::SequenceGap {
                    stream,
                    producer: id,
                    sequence,
                    expected,
                })
            };
        }
        match known.requests.iter().find(|request| request.sequence == sequence) {
            Some(request) if request.content == *content => Verdict::Repeat(request),
            Some(_) => Verdict::Refuse(StoreError::SequenceReused {
                stream,
                producer: id,
                sequence,
            }),
            None => Verdict::Refuse(StoreError::SequenceForgotten {
                stream,
                producer: id,
                sequence,
            }),
        }
    }

    /// Remembers a request that was stored. Doing it again at once changes nothing.
    pub(crate) fn remember(&mut self, produced: Produced) {
        let Produced {
            stream_id,
            id,
            epoch,
            request,
            ..
        } = produced;
        let of_stream = self.streams.entry(stream_id).or_default();
        let mut requests = VecDeque::new();
        if let Some(before) = of_stream.known.get(&id) {
            let is_old = before.epoch > epoch
                || (before.epoch == epoch
                    && before
                        .requests
                        .back()
                        .is_some_and(|last| last.sequence >= request.sequence));
            if is_old {
                return;
            }
        }
        if let Some(before) = of_stream.known.remove(&id) {
            self.bytes -= before.bytes(&id);
            of_stream.order.remove(&before.used);
            if before.epoch == epoch {
                requests = before.requests;
            }
        }
        requests.push_back(request);
        while requests.len() > limits::PRODUCER_REQUESTS_MAX {
            requests.pop_front();
        }
        self.uses += 1;
        let known = Known {
            epoch,
            used: self.uses,
            requests,
        };
        self.bytes += known.bytes(&id);
        of_stream.order.insert(self.uses, id.clone());
        of_stream.known.insert(id, known);
        if of_stream.known.len() > limits::PRODUCERS_PER_STREAM_MAX {
            self.forget_oldest(stream_id);
        }
        while self.bytes > limits::PRODUCERS_BYTES_MAX && self.uses_known() > 1 {
            let oldest = self
                .streams
                .iter()
                .filter_map(|(stream, of_stream)| Some((*of_stream.order.first_key_value()?.0, *stream)))
                .min();
            match oldest {
                Some((_, stream)) => self.forget_oldest(stream),
                None => break,
            }
        }
    }

    /// Number of producers, as far as it matters: none, one, more.
    fn uses_known(&self) -> usize {
        self.streams
            .values()
            .map(|of_stream| of_stream.known.len())
            .take(2)
            .sum()
    }

    fn forget_oldest(&mut self, stream_id: Uuid) {
        let Some(of_stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        if let Some((_, id)) = of_stream.order.pop_first()
            && let Some(known) = of_stream.known.remove(&id)
        {
            self.bytes -= known.bytes(&id);
        }
        if of_stream.known.is_empty() {
            self.streams.remove(&stream_id);
        }
    }

    /// Forgets the producers of a stream that is deleted.
    pub(crate) fn forget_stream(&mut self, stream_id: Uuid) {
        if let Some(of_stream) = self.streams.remove(&stream_id) {
            let bytes: usize = of_stream.known.iter().map(|(id, known)| known.bytes(id)).sum();
            self.bytes -= bytes;
        }
    }

    /// Forgets all producers.
    pub(crate) fn forget_all(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.streams.values().map(|of_stream| of_stream.known.len()).sum()
    }
}

/// A producer in a snapshot.
#[derive(Serialize)]
struct Entry<'a> {
    stream: Uuid,
    id: &'a ProducerId,
    epoch: u64,
    requests: &'a VecDeque<Outcome>,
}

#[derive(Deserialize)]
struct OwnedEntry {
    stream: Uuid,
    id: ProducerId,
    epoch: u64,
    requests: VecDeque<Outcome>,
}

/// In the order of their last use.
impl Serialize for Producers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries: Vec<(u64, Entry<'_>)> = Vec::new();
        for (stream, of_stream) in &self.streams {
            for (id, known) in &of_stream.known {
                let entry = Entry {
                    stream: *stream,
                    id,
                    epoch: known.epoch,
                    requests: &known.requests,
                };
                entries.push((known.used, entry));
            }
        }
        entries.sort_by_key(|(used, _)| *used);
        serializer.collect_seq(entries.into_iter().map(|(_, entry)| entry))
    }
}

impl<'de> Deserialize<'de> for Producers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut producers = Self::default();
        for entry in Vec::<OwnedEntry>::deserialize(deserializer)? {
            producers.uses += 1;
            let known = Known {
                epoch: entry.epoch,
                used: producers.uses,
                requests: entry.requests,
            };
            producers.bytes += known.bytes(&entry.id);
            let of_stream = producers.streams.entry(entry.stream).or_default();
            of_stream.order.insert(producers.uses, entry.id.clone());
            of_stream.known.insert(entry.id, known);
        }
        Ok(producers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardKey;
    use crate::log::writer::Assigned;
    use crate::producers::Producer;

    fn numbered(stream: u8, id: &str, epoch: u64, sequence: u64) -> Numbered {
        Numbered {
            stream_id: Uuid([stream; 16]),
            stream: StreamName::new("s").unwrap(),
            producer: Producer {
                id: ProducerId::new(id).unwrap(),
                epoch,
                sequence,
            },
            content: Uuid([sequence as u8; 16]),
            refused: Vec::new(),
        }
    }

    fn produced(request: &Numbered) -> Produced {
        let assigned = Assigned {
            shard: ShardKey(1),
            counter: 10 + request.producer.sequence,
            arrival_ms: 5,
        };
        Produced {
            stream: request.stream.clone(),
            stream_id: request.stream_id,
            id: request.producer.id.clone(),
            epoch: request.producer.epoch,
            request: Outcome::new(request.producer.sequence, request.content, &vec![Ok(assigned)]),
        }
    }

    fn store(producers: &mut Producers, request: &Numbered) {
        assert_eq!(producers.decide(request), Verdict::Store, "{request:?}");
        producers.remember(produced(request));
    }

    fn refusal(producers: &Producers, request: &Numbered) -> StoreError {
        match producers.decide(request) {
            Verdict::Refuse(error) => error,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    #[test]
    fn a_sequence_is_stored_once_and_only_behind_the_one_before() {
        let mut producers = Producers::default();
        assert!(matches!(
            refusal(&producers, &numbered(1, "p", 0, 1)),
            StoreError::ProducerUnknown { sequence: 1, .. }
        ));
        for sequence in 0..10 {
            store(&mut producers, &numbered(1, "p", 3, sequence));
            let again = numbered(1, "p", 3, sequence);
            let Verdict::Repeat(outcome) = producers.decide(&again) else {
                panic!("{sequence} was to be repeated")
            };
            assert_eq!(outcome.each()[0].as_ref().unwrap().counter, 10 + sequence);
            let gap = refusal(&producers, &numbered(1, "p", 3, sequence + 2));
            assert!(matches!(gap, StoreError::SequenceGap { expected, .. } if expected == sequence + 1));
        }
        let window = limits::PRODUCER_REQUESTS_MAX as u64;
        for sequence in 0..10 - window {
            let old = refusal(&producers, &numbered(1, "p", 3, sequence));
            assert!(matches!(old, StoreError::SequenceForgotten { .. }), "{old}");
        }
        for sequence in 10 - window..10 {
            assert!(matches!(
                producers.decide(&numbered(1, "p", 3, sequence)),
                Verdict::Repeat(_)
            ));
            let other = Numbered {
                content: Uuid([99; 16]),
                ..numbered(1, "p", 3, sequence)
            };
            assert!(matches!(refusal(&producers, &other), StoreError::SequenceReused { .. }));
        }
        // Another stream and another producer are others.
        assert_eq!(producers.decide(&numbered(2, "p", 0, 0)), Verdict::Store);
        assert_eq!(producers.decide(&numbered(1, "q", 0, 0)), Verdict::Store);
    }

    #[test]
    fn a_higher_epoch_begins_anew_and_fences() {
        let mut producers = Producers::default();
        store(&mut producers, &numbered(1, "p", 1, 0));
        store(&mut producers, &numbered(1, "p", 1, 1));
        assert!(matches!(
            refusal(&producers, &numbered(1, "p", 2, 2)),
            StoreError::SequenceGap { expected: 0, .. }
        ));
        store(&mut producers, &numbered(1, "p", 7, 0));
        for (epoch, sequence) in [(1, 1), (1, 2), (6, 0), (0, 0)] {
            let fenced = refusal(&producers, &numbered(1, "p", epoch, sequence));
            assert!(
                matches!(fenced, StoreError::ProducerFenced { newest: 7, .. }),
                "{fenced}"
            );
        }
        // Sequence 1 of the epoch before is not mistaken for one of this.
        store(&mut producers, &numbered(1, "p", 7, 1));
    }

    #[test]
    fn remembering_twice_is_remembering_once_and_what_is_old_changes_nothing() {
        let mut producers = Producers::default();
        store(&mut producers, &numbered(1, "p", 1, 0));
        store(&mut producers, &numbered(1, "p", 1, 1));
        let once = producers.clone();
        producers.remember(produced(&numbered(1, "p", 1, 1)));
        producers.remember(produced(&numbered(1, "p", 1, 0)));
        producers.remember(produced(&numbered(1, "p", 0, 9)));
        assert_eq!(producers, once);
    }

    #[test]
    fn the_one_that_stored_nothing_for_longest_is_forgotten_and_then_refused() {
        let mut producers = Producers::default();
        let id = |at: usize| format!("p-{at}");
        for at in 0..limits::PRODUCERS_PER_STREAM_MAX {
            store(&mut producers, &numbered(1, &id(at), 0, 0));
        }
        // A use brings it to the end.
        store(&mut producers, &numbered(1, &id(0), 0, 1));
        store(&mut producers, &numbered(1, "one-more", 0, 0));
        assert_eq!(producers.len(), limits::PRODUCERS_PER_STREAM_MAX);
        assert!(matches!(
            producers.decide(&numbered(1, &id(0), 0, 1)),
            Verdict::Repeat(_)
        ));
        assert!(matches!(
            refusal(&producers, &numbered(1, &id(1), 0, 1)),
            StoreError::ProducerUnknown { .. }
        ));
        // Those of another stream are counted by themselves.
        store(&mut producers, &numbered(2, "other", 0, 0));
        assert_eq!(producers.len(), limits::PRODUCERS_PER_STREAM_MAX + 1);
    }

    #[test]
    fn all_streams_share_the_bytes() {
        let mut producers = Producers::default();
        let mut stored = 0u32;
        // One more stream each time its thousand are full.
        while producers.len() as u32 == stored {
            let stream = (stored / limits::PRODUCERS_PER_STREAM_MAX as u32) as u8;
            store(&mut producers, &numbered(stream, &format!("{stored:0100}"), 0, 0));
            stored += 1;
        }
        assert!(producers.bytes <= limits::PRODUCERS_BYTES_MAX);
        assert!(matches!(
            producers.decide(&numbered(0, &format!("{:0100}", 1), 0, 0)),
            Verdict::Repeat(_)
        ));
        assert_eq!(
            producers.decide(&numbered(0, &format!("{:0100}", 0), 0, 0)),
            Verdict::Store
        );
        let all: usize = producers
            .streams
            .values()
            .flat_map(|of_stream| of_stream.known.iter().map(|(id, known)| known.bytes(id)))
            .sum();
        assert_eq!(producers.bytes, all);
        for stream in 0..=255 {
            producers.forget_stream(Uuid([stream; 16]));
        }
        assert_eq!(producers.bytes, 0);
        assert!(producers.is_empty());
    }

    #[test]
    fn a_snapshot_keeps_everything_and_the_order_of_use() {
        let mut producers = Producers::default();
        for (stream, id, epoch, sequence) in [(2, "b", 1, 0), (1, "a", 0, 0), (1, "c", 4, 0), (2, "b", 1, 1)] {
            store(&mut producers, &numbered(stream, id, epoch, sequence));
        }
        let json = serde_json::to_string(&producers).unwrap();
        let mut again: Producers = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), json);
        assert_eq!(again.bytes, producers.bytes);
        let order = |producers: &Producers| -> Vec<String> {
            let of_stream = &producers.streams[&Uuid([1; 16])];
            of_stream.order.values().map(ToString::to_string).collect()
        };
        assert_eq!(order(&again), ["a", "c"]);
        store(&mut again, &numbered(1, "a", 0, 1));
        assert_eq!(order(&again), ["c", "a"]);
        assert!(matches!(again.decide(&numbered(2, "b", 1, 0)), Verdict::Repeat(_)));
    }
}
