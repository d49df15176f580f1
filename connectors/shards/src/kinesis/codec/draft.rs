//! A structure while its fields come in, in whatever order.

use super::super::item::{Fields, Item};
use super::super::shape::Field;

/// The fields so far.
pub(super) struct Draft {
    shape: &'static [Field],
    /// Bits of the fields that came, with a value or null.
    seen: u64,
    fields: Vec<(&'static str, Item)>,
    in_order: bool,
}

/// Whether a field came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    First,
    Again,
}

impl Draft {
    pub(super) fn new(shape: &'static [Field]) -> Self {
        debug_assert!(shape.len() <= 64, "a bit per field");
        Self {
            shape,
            seen: 0,
            fields: Vec::new(),
            in_order: true,
        }
    }

    /// The place of a field in the shape.
    pub(super) fn index(&self, name: &str) -> Option<usize> {
        self.shape.iter().position(|field| field.name == name)
    }

    pub(super) fn field(&self, index: usize) -> &'static Field {
        &self.shape[index]
    }

    /// Takes the value of a field; `None` is null. The last one counts.
    pub(super) fn put(&mut self, index: usize, item: Option<Item>) -> Came {
        let bit = 1 << index;
        let came = if self.seen & bit == 0 { Came::First } else { Came::Again };
        let name = self.shape[index].name;
        if came == Came::Again {
            self.fields.retain(|(known, _)| *known != name);
        }
        if self.seen >= bit {
            self.in_order = false;
        }
        self.seen |= bit;
        if let Some(item) = item {
            self.fields.push((name, item));
        }
        came
    }

    /// The fields in the order of the shape.
    pub(super) fn finish(self) -> Fields {
        let Self {
            shape,
            mut fields,
            in_order,
            ..
        } = self;
        if !in_order {
            fields.sort_by_key(|(name, _)| shape.iter().position(|field| field.name == *name));
        }
        Fields(fields)
    }
}

/// Entries of a map in the order of their keys, and whether a key came twice; the last one counts.
pub(super) fn entries(mut entries: Vec<(String, Item)>) -> (Vec<(String, Item)>, Came) {
    let count = entries.len();
    entries.reverse();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    entries.dedup_by(|later, kept| later.0 == kept.0);
    let came = if entries.len() == count {
        Came::First
    } else {
        Came::Again
    };
    (entries, came)
}
