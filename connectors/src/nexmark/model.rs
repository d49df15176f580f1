//! What is in an event: ids, prices, the sizes of texts.

use super::events::{Event, Timeline};
use super::text::Letters;
use super::vocabulary::{CHANNEL_COUNT, CITIES, Channels, FIRST_NAMES, HOT_CHANNEL_COUNT, LAST_NAMES, STATES};
use crate::random::{Randomness, scale};
use std::io::Write as _;

/// Ids begin here.
const FIRST_ID: u64 = 1_000;
/// Persons that take part at a time.
const ACTIVE_PERSONS: u64 = 1_000;
/// How far ids may run ahead: of persons that will register and auctions that will open.
const ID_LEAD: u64 = 10;
/// Auctions that are bid on at a time.
const AUCTIONS_IN_FLIGHT: u64 = 100;
/// Hot persons and auctions are the first of so many.
const HOT_STEP: u64 = 100;
/// Events in which so many auctions are opened.
const EVENTS_OF_AUCTIONS_IN_FLIGHT: u64 = 1_666;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// Average sizes of rows, in bytes.
const PERSON_BYTES: usize = 200;
const AUCTION_BYTES: usize = 500;
const BID_BYTES: usize = 100;

/// Everything that is random, each by itself.
#[derive(Clone, Debug)]
struct Chances {
    person_name: Randomness,
    person_email: Randomness,
    person_card: Randomness,
    person_city: Randomness,
    person_state: Randomness,
    person_extra: Randomness,
    item_name: Randomness,
    description: Randomness,
    first_price: Randomness,
    reserve: Randomness,
    expires: Randomness,
    seller: Randomness,
    category: Randomness,
    auction_extra: Randomness,
    auction: Randomness,
    bidder: Randomness,
    price: Randomness,
    channel: Randomness,
    bid_extra: Randomness,
}

/// The stream of a seed.
#[derive(Clone, Debug)]
pub(super) struct Model {
    timeline: Timeline,
    chances: Chances,
    channels: Channels,
    prices: Prices,
}

impl Model {
    /// Makes the model of a seed.
    pub(super) fn new(seed: u64, timeline: Timeline) -> Self {
        let chance = |name| Randomness::new(seed, name, 0);
        Self {
            timeline,
            chances: Chances {
                person_name: chance("person.name"),
                person_email: chance("person.emailAddress"),
                person_card: chance("person.creditCard"),
                person_city: chance("person.city"),
                person_state: chance("person.state"),
                person_extra: chance("person.extra"),
                item_name: chance("auction.itemName"),
                description: chance("auction.description"),
                first_price: chance("auction.initialBid"),
                reserve: chance("auction.reserve"),
                expires: chance("auction.expires"),
                seller: chance("auction.seller"),
                category: chance("auction.category"),
                auction_extra: chance("auction.extra"),
                auction: chance("bid.auction"),
                bidder: chance("bid.bidder"),
                price: chance("bid.price"),
                channel: chance("bid.channel"),
                bid_extra: chance("bid.extra"),
            },
            channels: Channels::new(seed),
            prices: Prices::new(),
        }
    }

    pub(super) fn timeline(&self) -> Timeline {
        self.timeline
    }

    #[inline]
    pub(super) fn person_id(&self, event: Event) -> i64 {
        id(last_person(event))
    }

    pub(super) fn person_name(&self, event: Event, out: &mut Vec<u8>) {
        let random = self.chances.person_name;
        out.extend_from_slice(pick(&FIRST_NAMES, random.at(event.number * 2)).as_bytes());
        out.push(b' ');
        out.extend_from_slice(pick(&LAST_NAMES, random.at(event.number * 2 + 1)).as_bytes());
    }

    pub(super) fn person_email(&self, event: Event, out: &mut Vec<u8>) {
        let mut letters = Letters::new(self.chances.person_email, event.number);
        letters.append(7, out);
        out.push(b'@');
        letters.append(5, out);
        out.extend_from_slice(b".com");
    }

    pub(super) fn person_card(&self, event: Event, out: &mut Vec<u8>) {
        for part in 0..4 {
            let digits = self.chances.person_card.below(event.number * 4 + part, 10_000);
            // Writing to a vector cannot fail.
            let _ = write!(out, "{}{digits:04}", if part > 0 { " " } else { "" });
        }
    }

    pub(super) fn person_city(&self, event: Event, out: &mut Vec<u8>) {
        out.extend_from_slice(pick(&CITIES, self.chances.person_city.at(event.number)).as_bytes());
    }

    pub(super) fn person_state(&self, event: Event, out: &mut Vec<u8>) {
        out.extend_from_slice(pick(&STATES, self.chances.person_state.at(event.number)).as_bytes());
    }

    pub(super) fn person_extra(&self, event: Event, out: &mut Vec<u8>) {
        let start = out.len();
        self.person_name(event, out);
        self.person_email(event, out);
        self.person_card(event, out);
        self.person_city(event, out);
        self.person_state(event, out);
        let size = 8 + out.len() - start;
        out.truncate(start);
        append_extra(self.chances.person_extra, event, size, PERSON_BYTES, out);
    }

    #[inline]
    pub(super) fn auction_id(&self, event: Event) -> i64 {
        id(last_auction(event))
    }

    pub(super) fn item_name(&self, event: Event, out: &mut Vec<u8>) {
        append_words(self.chances.item_name, event, 20, out);
    }

    pub(super) fn description(&self, event: Event, out: &mut Vec<u8>) {
        append_words(self.chances.description, event, 100, out);
    }

    pub(super) fn first_price(&self, event: Event) -> i64 {
        self.prices.at(self.chances.first_price.at(event.number))
    }

    pub(super) fn reserve(&self, event: Event) -> i64 {
        self.first_price(event) + self.prices.at(self.chances.reserve.at(event.number))
    }

    pub(super) fn expires_ms(&self, event: Event) -> i64 {
        let horizon = self.timeline.span_ms(event.number, EVENTS_OF_AUCTIONS_IN_FLIGHT).max(1);
        self.timeline.time_ms(event.number) + 1 + self.chances.expires.below(event.number, horizon * 2) as i64
    }

    pub(super) fn seller(&self, event: Event) -> i64 {
        let random = self.chances.seller.at(event.number);
        let person = match hot(random, 3, 4) {
            Hot::Yes => last_person(event) / HOT_STEP * HOT_STEP,
            Hot::No(random) => active_person(event, random),
        };
        id(person)
    }

    pub(super) fn category(&self, event: Event) -> i64 {
        (FIRST_CATEGORY + self.chances.category.below(event.number, CATEGORIES)) as i64
    }

    pub(super) fn auction_extra(&self, event: Event, out: &mut Vec<u8>) {
        let size = word_length(self.chances.item_name, event, 20) + word_length(self.chances.description, event, 100);
        append_extra(self.chances.auction_extra, event, 48 + size, AUCTION_BYTES, out);
    }

    #[inline]
    pub(super) fn bid_auction(&self, event: Event) -> i64 {
        let last = last_auction(event);
        let auction = match hot(self.chances.auction.at(event.number), 1, 2) {
            Hot::Yes => last / HOT_STEP * HOT_STEP,
            Hot::No(random) => {
                let first = last.saturating_sub(AUCTIONS_IN_FLIGHT);
                first + scale(random, last + ID_LEAD - first + 1)
            }
        };
        id(auction)
    }

    #[inline]
    pub(super) fn bidder(&self, event: Event) -> i64 {
        let person = match hot(self.chances.bidder.at(event.number), 3, 4) {
            Hot::Yes => last_person(event) / HOT_STEP * HOT_STEP + 1,
            Hot::No(random) => active_person(event, random),
        };
        id(person)
    }

    #[inline]
    pub(super) fn price(&self, event: Event) -> i64 {
        self.prices.at(self.chances.price.at(event.number))
    }

    #[inline]
    pub(super) fn channel(&self, event: Event) -> &[u8] {
        self.channels.names.get(self.channel_index(event))
    }

    #[inline]
    pub(super) fn url(&self, event: Event) -> &[u8] {
        self.channels.urls.get(self.channel_index(event))
    }

    #[inline]
    fn channel_index(&self, event: Event) -> usize {
        let index = match hot(self.chances.channel.at(event.number), 1, 2) {
            // What is left of the number after the first choice.
            Hot::Yes => self.chances.channel.at(event.number) & (HOT_CHANNEL_COUNT - 1),
            Hot::No(random) => HOT_CHANNEL_COUNT + scale(random, CHANNEL_COUNT),
        };
        index as usize
    }

    #[inline]
    pub(super) fn bid_extra(&self, event: Event, out: &mut Vec<u8>) {
        append_extra(self.chances.bid_extra, event, 32, BID_BYTES, out);
    }
}

#[inline]
fn id(number: u64) -> i64 {
    (FIRST_ID + number) as i64
}

/// Returns the last person that has registered, from 0.
#[inline]
pub(super) fn last_person(event: Event) -> u64 {
    event.epoch
}

/// Returns the last auction that was opened, from 0.
#[inline]
pub(super) fn last_auction(event: Event) -> u64 {
    match event.offset {
        0 => (event.epoch * 3).saturating_sub(1),
        offset => event.epoch * 3 + offset.min(3) - 1,
    }
}

/// Returns one of the persons that registered last, or that will register soon.
#[inline]
fn active_person(event: Event, random: u64) -> u64 {
    let persons = last_person(event) + 1;
    let active = persons.min(ACTIVE_PERSONS);
    persons - active + scale(random, active + ID_LEAD)
}

/// Whether the hot one is taken.
enum Hot {
    Yes,
    /// No, with a random number for the choice that is left.
    No(u64),
}

/// Takes the hot one `yes` times of `of`, a power of two; what decides is not used again.
#[inline]
fn hot(random: u64, yes: u64, of: u64) -> Hot {
    let bits = of.trailing_zeros();
    if random >> (64 - bits) < yes {
        Hot::Yes
    } else {
        Hot::No(random << bits)
    }
}

fn pick<'a>(words: &[&'a str], random: u64) -> &'a str {
    words[scale(random, words.len() as u64) as usize]
}

/// The place of a text's length; its letters begin at the number itself.
fn word_length(random: Randomness, event: Event, max: u64) -> usize {
    3 + random.below(!event.number, max - 2) as usize
}

fn append_words(random: Randomness, event: Event, max: u64, out: &mut Vec<u8>) {
    let length = word_length(random, event, max);
    Letters::new(random, event.number).append(length, out);
}

/// Fills a row of `size` bytes up to the average, give or take a fifth of what is missing.
#[inline]
fn append_extra(random: Randomness, event: Event, size: usize, average: usize, out: &mut Vec<u8>) {
    let missing = average.saturating_sub(size);
    let spread = (missing + 2) / 5;
    let length = missing - spread + random.below(!event.number, (spread as u64 * 2).max(1)) as usize;
    Letters::new(random, event.number).append(length, out);
}

/// Prices: 100 x 10^(6u), u even from 0 to 1, by a table and a short series. The table is made by multiplication alone,
/// so that it is the same on every machine.
#[derive(Clone, Debug)]
struct Prices(Vec<f64>);

/// Bits of the table's index.
const PRICE_BITS: u32 = 10;
/// ln(10^6) / 1024.
const PRICE_STEP: f64 = 0.013_491_709_529_261_988;

impl Prices {
    fn new() -> Self {
        let factor = exp(PRICE_STEP);
        let mut price = 100.0;
        let mut prices = Vec::with_capacity(1 << PRICE_BITS);
        for _ in 0..1 << PRICE_BITS {
            prices.push(price);
            price *= factor;
        }
        Self(prices)
    }

    #[inline]
    fn at(&self, random: u64) -> i64 {
        let rest = ((random << PRICE_BITS) >> 11) as f64 / (1_u64 << 53) as f64;
        let price = self.0[(random >> (64 - PRICE_BITS)) as usize] * exp(rest * PRICE_STEP);
        (price + 0.5) as i64
    }
}

/// e^x for x from 0 to 1/64, to twelve digits.
#[inline]
fn exp(x: f64) -> f64 {
    1.0 + x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> Event {
        Event {
            number,
            epoch: number / 50,
            offset: number % 50,
        }
    }

    #[test]
    fn last_ids_follow_the_formulas() {
        // Epoch and offset as the description says it.
        for number in 1..1_000_u64 {
            let (e, o) = ((number / 50) as i64, (number % 50) as i64);
            let auction = match o {
                0 => (e - 1) * 3 + 2,
                o if o >= 4 => e * 3 + 2,
                o => e * 3 + o - 1,
            };
            assert_eq!(last_auction(event(number)) as i64, auction, "event {number}");
            assert_eq!(last_person(event(number)) as i64, e);
        }
    }

    #[test]
    fn prices_are_log_uniform() {
        let prices = Prices::new();
        assert_eq!(prices.at(0), 100);
        assert_eq!(prices.at(u64::MAX), 100_000_000);
        for sixth in 0..6 {
            let random = ((u128::from(u64::MAX) + 1) * sixth / 6) as u64;
            let expected = 100.0 * 10_f64.powf(random as f64 / 2_f64.powi(64) * 6.0);
            let found = prices.at(random) as f64;
            assert!((found / expected - 1.0).abs() < 0.005, "{found} {expected}");
        }
    }
}
