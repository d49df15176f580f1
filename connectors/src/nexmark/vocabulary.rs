//! The texts that events are made of: names, places, and the channels with their addresses.

use super::text::Letters;
use crate::random::{Randomness, mix};
use std::io::Write as _;

pub(super) const FIRST_NAMES: [&str; 11] = [
    "Ada", "Bruno", "Clara", "Daniel", "Edith", "Felix", "Grace", "Hugo", "Ines", "Jonas", "Karin",
];
pub(super) const LAST_NAMES: [&str; 9] = [
    "Abbott", "Brandt", "Carver", "Dalton", "Ellis", "Fischer", "Garner", "Holm", "Ibsen",
];
pub(super) const CITIES: [&str; 10] = [
    "Phoenix",
    "Tucson",
    "Los Angeles",
    "Sacramento",
    "Boise",
    "Portland",
    "Salem",
    "Seattle",
    "Spokane",
    "Cheyenne",
];
pub(super) const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];

/// The channels that half of all bids come through.
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
pub(super) const HOT_CHANNEL_COUNT: u64 = HOT_CHANNELS.len() as u64;
/// The other channels.
pub(super) const CHANNEL_COUNT: u64 = 10_000;

/// Texts laid end to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts {
    data: Vec<u8>,
    ends: Vec<u32>,
}

impl Texts {
    fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.data);
        self.ends.push(self.data.len() as u32);
    }

    /// Returns a text.
    #[inline]
    pub(super) fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.data[start..self.ends[index] as usize]
    }
}

/// The channels: first the hot ones, then the others.
#[derive(Clone, Debug)]
pub(super) struct Channels {
    pub(super) names: Texts,
    pub(super) urls: Texts,
}

impl Channels {
    /// Makes the channels of a seed.
    pub(super) fn new(seed: u64) -> Self {
        let random = Randomness::new(seed, "bid.url", 0);
        let (mut names, mut urls) = (Texts::default(), Texts::default());
        for (index, name) in (0_u64..).zip(HOT_CHANNELS) {
            names.push(|out| out.extend_from_slice(name.as_bytes()));
            urls.push(|out| write_url(random, index, out));
        }
        for channel in 0..CHANNEL_COUNT {
            let index = HOT_CHANNEL_COUNT + channel;
            // Writing to a vector cannot fail.
            names.push(|out| {
                let _ = write!(out, "channel-{channel}");
            });
            urls.push(|out| {
                write_url(random, index, out);
                if random.below(index * 8 + 7, 10) > 0 {
                    let _ = write!(out, "&channel_id={}", mix(channel) >> 33);
                }
            });
        }
        Self { names, urls }
    }
}

/// Writes an address like `https://www.nexmark.com/abc/de_/fghi/item.htm?query=1`.
fn write_url(random: Randomness, index: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"https://www.nexmark.com/");
    for part in 0..3 {
        let place = index * 8 + part;
        let start = out.len();
        Letters::new(random, place).append(3 + random.below(place, 3) as usize, out);
        // One letter in eight is a low line.
        let mut bits = random.at(place + 3);
        for letter in &mut out[start..] {
            if bits & 7 == 0 {
                *letter = b'_';
            }
            bits >>= 3;
        }
        out.push(b'/');
    }
    out.extend_from_slice(b"item.htm?query=1");
}
