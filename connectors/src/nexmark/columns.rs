//! Fills arrays, one column at a time: a loop per epoch over the events of the column's kind, nulls around them.

use super::events::{Event, Kind, Span};
use super::model::Model;
use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray, StructArray, TimestampMillisecondArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use std::sync::Arc;

/// Events to make rows of.
pub(super) struct Rows<'a> {
    pub(super) model: &'a Model,
    pub(super) spans: &'a [Span],
    pub(super) count: usize,
}

impl Rows<'_> {
    /// Makes a column of the table.
    ///
    /// # Errors
    /// When the column is not one of nexmark's, or a batch has more text than an array holds.
    pub(super) fn column(&self, field: &Field) -> Result<ArrayRef, ArrowError> {
        match field.name().as_str() {
            "event_type" => Ok(Arc::new(Int32Array::from(self.event_types()))),
            "person" => self.row(field, Kind::Person, Self::person_field),
            "auction" => self.row(field, Kind::Auction, Self::auction_field),
            "bid" => self.row(field, Kind::Bid, Self::bid_field),
            other => Err(unknown(other)),
        }
    }

    fn event_types(&self) -> Vec<i32> {
        let mut types = Vec::with_capacity(self.count);
        for span in self.spans {
            for (value, kind) in (0..).zip([Kind::Person, Kind::Auction, Kind::Bid]) {
                let (_, offsets, _) = span.parts(kind);
                types.resize(types.len() + offsets.count(), value);
            }
        }
        types
    }

    fn row(
        &self,
        field: &Field,
        kind: Kind,
        make: fn(&Self, &Field, &NullBuffer) -> Result<ArrayRef, ArrowError>,
    ) -> Result<ArrayRef, ArrowError> {
        let DataType::Struct(fields) = field.data_type() else {
            return Err(unknown(field.name()));
        };
        let nulls = self.nulls(kind);
        // The fields share the row's nulls: who takes one out need not look at the row again.
        let columns = fields.iter().map(|field| make(self, field, &nulls));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let rows = StructArray::try_new_with_length(fields.clone(), columns, Some(nulls), self.count)?;
        Ok(Arc::new(rows))
    }

    fn nulls(&self, kind: Kind) -> NullBuffer {
        let mut words = arrow::array::BooleanBufferBuilder::new(self.count);
        for span in self.spans {
            let (before, offsets, behind) = span.parts(kind);
            words.append_n(before, false);
            words.append_n(offsets.count(), true);
            words.append_n(behind, false);
        }
        let valid: BooleanBuffer = words.finish();
        NullBuffer::new(valid)
    }

    fn person_field(&self, field: &Field, nulls: &NullBuffer) -> Result<ArrayRef, ArrowError> {
        let (model, kind) = (self.model, Kind::Person);
        match field.name().as_str() {
            "id" => self.numbers(kind, nulls, |event| model.person_id(event)),
            "name" => self.texts(kind, nulls, 16, |event, out| model.person_name(event, out)),
            "emailAddress" => self.texts(kind, nulls, 17, |event, out| model.person_email(event, out)),
            "creditCard" => self.texts(kind, nulls, 19, |event, out| model.person_card(event, out)),
            "city" => self.texts(kind, nulls, 12, |event, out| model.person_city(event, out)),
            "state" => self.texts(kind, nulls, 2, |event, out| model.person_state(event, out)),
            "dateTime" => times(field, nulls, self.event_times(kind)),
            "extra" => self.texts(kind, nulls, 180, |event, out| model.person_extra(event, out)),
            other => Err(unknown(other)),
        }
    }

    fn auction_field(&self, field: &Field, nulls: &NullBuffer) -> Result<ArrayRef, ArrowError> {
        let (model, kind) = (self.model, Kind::Auction);
        match field.name().as_str() {
            "id" => self.numbers(kind, nulls, |event| model.auction_id(event)),
            "itemName" => self.texts(kind, nulls, 20, |event, out| model.item_name(event, out)),
            "description" => self.texts(kind, nulls, 100, |event, out| model.description(event, out)),
            "initialBid" => self.numbers(kind, nulls, |event| model.first_price(event)),
            "reserve" => self.numbers(kind, nulls, |event| model.reserve(event)),
            "dateTime" => times(field, nulls, self.event_times(kind)),
            "expires" => times(field, nulls, self.values(kind, |event| model.expires_ms(event))),
            "seller" => self.numbers(kind, nulls, |event| model.seller(event)),
            "category" => self.numbers(kind, nulls, |event| model.category(event)),
            "extra" => self.texts(kind, nulls, 480, |event, out| model.auction_extra(event, out)),
            other => Err(unknown(other)),
        }
    }

    fn bid_field(&self, field: &Field, nulls: &NullBuffer) -> Result<ArrayRef, ArrowError> {
        let (model, kind) = (self.model, Kind::Bid);
        match field.name().as_str() {
            "auction" => self.numbers(kind, nulls, |event| model.bid_auction(event)),
            "bidder" => self.numbers(kind, nulls, |event| model.bidder(event)),
            "price" => self.numbers(kind, nulls, |event| model.price(event)),
            "channel" => self.texts(kind, nulls, 12, |event, out| {
                out.extend_from_slice(model.channel(event));
            }),
            "url" => self.texts(kind, nulls, 78, |event, out| out.extend_from_slice(model.url(event))),
            "dateTime" => times(field, nulls, self.event_times(kind)),
            "extra" => self.texts(kind, nulls, 82, |event, out| model.bid_extra(event, out)),
            other => Err(unknown(other)),
        }
    }

    fn values(&self, kind: Kind, mut value: impl FnMut(Event) -> i64) -> Vec<i64> {
        let mut values = Vec::with_capacity(self.count);
        for span in self.spans {
            let (before, offsets, behind) = span.parts(kind);
            values.resize(values.len() + before, 0);
            values.extend(offsets.map(|offset| value(span.event(offset))));
            values.resize(values.len() + behind, 0);
        }
        values
    }

    fn numbers(&self, kind: Kind, nulls: &NullBuffer, value: impl FnMut(Event) -> i64) -> Result<ArrayRef, ArrowError> {
        let values = self.values(kind, value);
        Ok(Arc::new(Int64Array::try_new(values.into(), Some(nulls.clone()))?))
    }

    fn event_times(&self, kind: Kind) -> Vec<i64> {
        let timeline = self.model.timeline();
        let mut times = Vec::with_capacity(self.count);
        for span in self.spans {
            let (before, offsets, behind) = span.parts(kind);
            times.resize(times.len() + before, 0);
            let first = span.event(offsets.start).number;
            timeline.times_ms(first, offsets.end - offsets.start, |time| times.push(time));
            times.resize(times.len() + behind, 0);
        }
        times
    }

    /// Makes texts; `width` is about how long the longest are.
    fn texts(
        &self,
        kind: Kind,
        nulls: &NullBuffer,
        width: usize,
        mut append: impl FnMut(Event, &mut Vec<u8>),
    ) -> Result<ArrayRef, ArrowError> {
        let (share, of) = (kind.offsets().count(), super::events::EPOCH as usize);
        let mut data: Vec<u8> = Vec::with_capacity((self.count * share / of + share) * width + 8);
        // Lengths become offsets without being compared with each other.
        let mut lengths: Vec<u32> = Vec::with_capacity(self.count);
        for span in self.spans {
            let (before, events, behind) = span.parts(kind);
            lengths.resize(lengths.len() + before, 0);
            for offset in events {
                let start = data.len();
                append(span.event(offset), &mut data);
                lengths.push((data.len() - start) as u32);
            }
            lengths.resize(lengths.len() + behind, 0);
        }
        if i32::try_from(data.len()).is_err() {
            return Err(too_long());
        }
        let array = StringArray::try_new(
            OffsetBuffer::from_lengths(lengths.into_iter().map(|length| length as usize)),
            Buffer::from_vec(data),
            Some(nulls.clone()),
        )?;
        Ok(Arc::new(array))
    }
}

fn times(field: &Field, nulls: &NullBuffer, values: Vec<i64>) -> Result<ArrayRef, ArrowError> {
    let array = TimestampMillisecondArray::try_new(values.into(), Some(nulls.clone()))?;
    let zone = match field.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    Ok(Arc::new(array.with_timezone_opt(zone)))
}

fn too_long() -> ArrowError {
    ArrowError::InvalidArgumentError("more than 2 GiB of text in one column of a batch".to_owned())
}

fn unknown(name: &str) -> ArrowError {
    ArrowError::SchemaError(format!("nexmark has no column {name}"))
}
