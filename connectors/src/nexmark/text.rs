//! Random text, eight letters at a time.

use crate::random::Randomness;

/// Eight bytes that are `a`.
const LETTER_A: u64 = 0x6161_6161_6161_6161;
/// The lower byte of each 16 bits.
const LOW_BYTES: u64 = 0x00ff_00ff_00ff_00ff;
/// Letters that are made before they are appended: a whole `extra` of a bid.
const BLOCK: usize = 88;
/// The golden ratio's fraction in 64 bits: steps of it fall evenly.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Letters that are taken in order: one sequence per text.
pub(super) struct Letters(u64);

impl Letters {
    /// Begins the text at a place.
    #[inline]
    pub(super) fn new(random: Randomness, place: u64) -> Self {
        Self(random.at(place))
    }

    /// Returns the next eight letters, from a to z.
    #[inline]
    fn next8(&mut self) -> [u8; 8] {
        self.0 = self.0.wrapping_add(STEP);
        // One wide multiplication, folded: each bit depends on all.
        let product = u128::from(self.0) * u128::from(self.0 ^ LETTER_A);
        let random = (product as u64) ^ ((product >> 64) as u64);
        // Each byte times 26, of which the upper byte is below 26.
        let even = (((random & LOW_BYTES) * 26) >> 8) & LOW_BYTES;
        let odd = ((((random >> 8) & LOW_BYTES) * 26) >> 8) & LOW_BYTES;
        (even | (odd << 8)).wrapping_add(LETTER_A).to_le_bytes()
    }

    /// Appends so many letters.
    #[inline]
    pub(super) fn append(&mut self, count: usize, out: &mut Vec<u8>) {
        // A block is filled whole and then cut: no branch per letter.
        let mut block = [0; BLOCK];
        let mut left = count;
        while left > 0 {
            let taken = left.min(BLOCK);
            for eight in block[..taken.next_multiple_of(8)].chunks_exact_mut(8) {
                eight.copy_from_slice(&self.next8());
            }
            out.extend_from_slice(&block[..taken]);
            left -= taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_even_and_as_many_as_asked_for() {
        let random = Randomness::new(3, "text", 0);
        let mut counts = [0_u32; 26];
        for place in 0..2_000 {
            let mut text = vec![b'-'];
            Letters::new(random, place).append(100, &mut text);
            assert_eq!(text.len(), 101);
            assert_eq!(text[0], b'-');
            for letter in &text[1..] {
                counts[usize::from(letter - b'a')] += 1;
            }
        }
        // 256 is no multiple of 26: some letters come 10 times of 256, others 9 times.
        assert!(counts.iter().all(|count| (6_700..8_200).contains(count)), "{counts:?}");
    }
}
