//! Reads a segment frame by frame and tells a torn tail from damage.
//!
//! One group commit is one write of several frames, and after a power cut any of its sectors may be missing. So a bad
//! frame with sound ones behind it is still a torn tail as long as those belong to the same batch: nothing of that
//! batch was acknowledged. Once a frame of a *later* batch stands behind it, the batch was synced, and the bad frame is
//! damage.
//!
//! Frames that are one piece (`FrameHeader::joined`) are told together, when the last of them is found: a piece that a torn
//! tail cut is torn from its first frame on.

use bytes::Bytes;

use super::frame::{FrameFault, FrameHeader, HEADER_BYTES};
use super::segment::SEGMENT_HEADER_BYTES;
use crate::ids::Uuid;

/// What lies at a place of a segment.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A sound frame.
    Frame {
        offset: u64,
        header: FrameHeader,
        payload: Bytes,
    },
    /// A frame whose payload is damaged.
    DamagedPayload { offset: u64, header: FrameHeader },
    /// Bytes without a sound header. `next` is the sound frame behind them.
    DamagedRange {
        offset: u64,
        len: u64,
        next: Option<FrameHeader>,
    },
}

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// Where the next frame would go.
    pub(crate) offset: u64,
    /// Bytes of a torn tail from there; 0 when there is none.
    pub(crate) torn: u64,
}

/// What is known about the end of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// It is the last with frames: a torn batch may be found.
    Open,
    /// A later segment has frames, so all bytes up to here were synced; `None` when the place is not known.
    Sealed(Option<u64>),
}

/// Reads all of `bytes`, the contents of a segment file, and hands its pieces to `each`.
pub(crate) fn scan<E>(
    bytes: &Bytes,
    uuid: Uuid,
    tail: Tail,
    mut each: impl FnMut(Piece) -> Result<(), E>,
) -> Result<End, E> {
    let mut at = SEGMENT_HEADER_BYTES as usize;
    let (limit, sealed) = match tail {
        Tail::Open => (bytes.len(), false),
        Tail::Sealed(end) => (end.map_or(bytes.len(), |end| (end as usize).min(bytes.len())), true),
    };
    // Frames of a piece whose last one has not been found.
    let mut held: Vec<(usize, Piece)> = Vec::new();
    let end = |at: usize, written: usize, held: &[(usize, Piece)]| {
        let offset = held.first().map_or(at, |(first, _)| *first);
        End {
            offset: offset as u64,
            torn: (written - offset) as u64,
        }
    };
    loop {
        if at >= limit {
            return Ok(end(at, at, &held));
        }
        let fault = match FrameHeader::open(&bytes[at..], uuid, at as u64) {
            Ok((header, payload)) => {
                let next = at + header.frame_len();
                let payload = bytes.slice_ref(payload);
                let joined = header.joined;
                let frame = Piece::Frame {
                    offset: at as u64,
                    header,
                    payload,
                };
                if joined && !sealed {
                    held.push((at, frame));
                } else {
                    for (_, frame) in held.drain(..) {
                        each(frame)?;
                    }
                    each(frame)?;
                }
                at = next;
                continue;
            }
            Err(fault) => fault,
        };
        let written = end_of_written(bytes, at);
        if written == at && !matches!(tail, Tail::Sealed(Some(_))) {
            return Ok(end(at, at, &held));
        }
        let next = next_sound(bytes, uuid, at + 8);
        if !sealed && !later_batch(bytes, uuid, at, next.clone()) {
            return Ok(end(at, written, &held));
        }
        // It was synced as a whole.
        for (_, frame) in held.drain(..) {
            each(frame)?;
        }
        let header = (fault == FrameFault::Payload)
            .then(|| FrameHeader::parse(&bytes[at..], uuid, at as u64))
            .flatten();
        // A sound header says where its frame ends; what it claims beyond the next sound frame is not believed.
        let end = next
            .as_ref()
            .map_or(limit.max(written.next_multiple_of(8)), |(next, _)| *next)
            .min(bytes.len());
        match header {
            Some(header) if at + header.frame_len() <= end => {
                let length = header.frame_len();
                each(Piece::DamagedPayload {
                    offset: at as u64,
                    header,
                })?;
                at += length;
            }
            _ => {
                let len = (end - at) as u64;
                each(Piece::DamagedRange {
                    offset: at as u64,
                    len,
                    next: next.map(|(_, header)| header),
                })?;
                at = end;
            }
        }
    }
}

/// Where the last byte that is not zero ends, at least `from`.
fn end_of_written(bytes: &[u8], from: usize) -> usize {
    from + bytes[from..]
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1)
}

/// The first sound frame at or behind `from`.
fn next_sound(bytes: &[u8], uuid: Uuid, from: usize) -> Option<(usize, FrameHeader)> {
    (from..bytes.len().saturating_sub(HEADER_BYTES - 1))
        .step_by(8)
        .find_map(|at| {
            // Most places are ruled out by the magic, before any checksum.
            let (header, _) = FrameHeader::open(&bytes[at..], uuid, at as u64).ok()?;
            Some((at, header))
        })
}

/// Whether a sound frame stands behind `bad` that was written after the batch of `bad` was synced.
fn later_batch(bytes: &[u8], uuid: Uuid, bad: usize, mut next: Option<(usize, FrameHeader)>) -> bool {
    while let Some((at, header)) = next {
        if header.batch_start as usize > bad {
            return true;
        }
        next = next_sound(bytes, uuid, at + header.frame_len());
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardKey;
    use crate::log::frame::{FrameKind, frame_len};

    const UUID: Uuid = Uuid([3; 16]);

    /// A segment with frames of these (batch, payload length), padded with zeros.
    fn segment(frames: &[(usize, usize)]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
        let mut offsets = Vec::new();
        let mut starts = std::collections::HashMap::new();
        for &(batch, length) in frames {
            let at = bytes.len();
            let start = *starts.entry(batch).or_insert(at);
            let header = FrameHeader {
                kind: FrameKind::Records,
                joined: false,
                payload_len: length as u32,
                count: 1,
                shard: ShardKey(1),
                first: 1,
                time_ms: 0,
                before: 0,
                previous_len: 0,
                batch_start: start as u32,
                previous_shard: ShardKey(0),
            };
            bytes.resize(at + frame_len(length), 0);
            bytes[at + HEADER_BYTES..at + HEADER_BYTES + length].fill(0xaa);
            header.seal(&mut bytes[at..], UUID, at as u64);
            offsets.push(at);
        }
        bytes.resize(bytes.len() + 256, 0);
        (bytes, offsets)
    }

    /// Makes a frame one piece with the next.
    fn join(bytes: &mut [u8], at: usize) {
        let (mut header, payload) = FrameHeader::open(&bytes[at..], UUID, at as u64).unwrap();
        let length = frame_len(payload.len());
        header.joined = true;
        header.seal(&mut bytes[at..at + length], UUID, at as u64);
    }

    #[test]
    fn frames_that_are_one_piece_are_told_together_or_not_at_all() {
        let frames = [(0, 10), (1, 20), (1, 30), (1, 40)];
        let (mut bytes, offsets) = segment(&frames);
        for &at in &offsets[1..3] {
            join(&mut bytes, at);
        }
        let (pieces, end) = run(bytes.clone(), Tail::Open);
        assert_eq!((pieces.len(), end.torn), (4, 0));
        for (cut, torn) in [
            // Behind a whole frame, where nothing looks torn, and within one.
            (offsets[2], true),
            (offsets[3], true),
            (offsets[2] + 7, true),
            (offsets[3] + HEADER_BYTES + 9, true),
            (offsets[1], false),
        ] {
            let mut shorter = bytes.clone();
            shorter[cut..].fill(0);
            let (pieces, end) = run(shorter.clone(), Tail::Open);
            assert_eq!(pieces, [format!("ok {}", offsets[0])], "{cut}");
            assert_eq!((end.offset, end.torn > 0), (offsets[1] as u64, torn), "{cut}");
            assert!(!torn || end.offset + end.torn >= offsets[2] as u64, "{cut}");
            // The same at the end of the file, and what was synced is told frame by frame.
            shorter.truncate(cut);
            assert_eq!(run(shorter.clone(), Tail::Open).1.offset, offsets[1] as u64, "{cut}");
            let (pieces, _) = run(shorter, Tail::Sealed(None));
            assert_eq!(pieces.len() > 1, torn, "{cut}");
        }
    }

    #[test]
    fn a_damaged_frame_of_a_piece_before_a_later_batch_is_damage_of_that_frame_alone() {
        let (mut bytes, offsets) = segment(&[(0, 10), (1, 20), (1, 30), (1, 40), (2, 8)]);
        for &at in &offsets[1..3] {
            join(&mut bytes, at);
        }
        bytes[offsets[2] + HEADER_BYTES] ^= 1;
        let (pieces, end) = run(bytes, Tail::Open);
        assert_eq!(
            pieces[1..3],
            [format!("ok {}", offsets[1]), format!("payload {}", offsets[2])]
        );
        assert_eq!((pieces.len(), end.torn), (5, 0));
    }

    fn run(bytes: Vec<u8>, tail: Tail) -> (Vec<String>, End) {
        let mut pieces = Vec::new();
        let end = scan(&Bytes::from(bytes), UUID, tail, |piece| {
            pieces.push(match piece {
                Piece::Frame { offset, .. } => format!("ok {offset}"),
                Piece::DamagedPayload { offset, .. } => format!("payload {offset}"),
                Piece::DamagedRange { offset, len, .. } => format!("range {offset}+{len}"),
            });
            Ok::<_, ()>(())
        })
        .unwrap();
        (pieces, end)
    }

    #[test]
    fn sound_segment_is_read_to_its_end() {
        let (bytes, offsets) = segment(&[(0, 10), (0, 20), (1, 30)]);
        let (pieces, end) = run(bytes, Tail::Open);
        assert_eq!(pieces.len(), 3);
        assert_eq!(
            end,
            End {
                offset: (offsets[2] + frame_len(30)) as u64,
                torn: 0
            }
        );
    }

    #[test]
    fn bad_frame_of_the_last_batch_is_torn_with_sound_ones_behind() {
        let (mut bytes, offsets) = segment(&[(0, 10), (1, 20), (1, 30)]);
        bytes[offsets[1]] ^= 1;
        let (pieces, end) = run(bytes, Tail::Open);
        assert_eq!(pieces, [format!("ok {}", offsets[0])]);
        assert_eq!(end.offset, offsets[1] as u64);
        assert!(end.torn > 0);
    }

    #[test]
    fn bad_frame_before_a_later_batch_is_damage() {
        let (mut bytes, offsets) = segment(&[(0, 10), (1, 20), (1, 30), (2, 8)]);
        let sound = bytes.clone();
        bytes[offsets[1]] ^= 1;
        let (pieces, end) = run(bytes, Tail::Open);
        assert_eq!(pieces[1], format!("range {}+{}", offsets[1], frame_len(20)));
        assert_eq!(pieces.len(), 4);
        assert_eq!(end.torn, 0);
        let mut bytes = sound;
        bytes[offsets[2] + HEADER_BYTES] ^= 1;
        let (pieces, _) = run(bytes, Tail::Open);
        assert_eq!(pieces[2], format!("payload {}", offsets[2]));
        assert_eq!(pieces[3], format!("ok {}", offsets[3]));
    }

    #[test]
    fn nothing_is_torn_in_a_sealed_segment() {
        let (mut bytes, offsets) = segment(&[(0, 10), (1, 20)]);
        let end = (offsets[1] + frame_len(20)) as u64;
        bytes[offsets[1] + HEADER_BYTES] ^= 1;
        let (pieces, _) = run(bytes.clone(), Tail::Sealed(None));
        assert_eq!(pieces[1], format!("payload {}", offsets[1]));
        bytes[offsets[1]..].fill(0);
        let (pieces, found) = run(bytes, Tail::Sealed(Some(end)));
        assert_eq!(pieces[1], format!("range {}+{}", offsets[1], frame_len(20)));
        assert_eq!(found.offset, end);
    }
}
