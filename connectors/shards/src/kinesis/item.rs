//! Typed values of requests and answers, whatever the codec.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    Text(String),
    Integer(i64),
    Flag(bool),
    /// Milliseconds since 1970. In JSON seconds with a fraction.
    Time(i64),
    Blob(Bytes),
    List(Vec<Item>),
    /// Fields of a structure, in their order.
    Structure(Fields),
    /// Entries of a map whose keys the caller chose.
    Map(Vec<(String, Item)>),
}

impl From<&str> for Item {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Item {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Fields of a structure.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Fields(pub(crate) Vec<(&'static str, Item)>);

impl Fields {
    /// An empty structure.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a field.
    pub(crate) fn with(mut self, name: &'static str, item: impl Into<Item>) -> Self {
        self.0.push((name, item.into()));
        self
    }

    /// Adds a field when there is a value.
    pub(crate) fn with_some(self, name: &'static str, item: Option<impl Into<Item>>) -> Self {
        match item {
            Some(item) => self.with(name, item),
            None => self,
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Item> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, item)| item)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Item::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(Item::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Item::Flag(true)))
    }

    pub(crate) fn time(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            Some(Item::Time(ms)) => Some(*ms),
            _ => None,
        }
    }

    pub(crate) fn blob(&self, name: &str) -> Bytes {
        match self.get(name) {
            Some(Item::Blob(bytes)) => bytes.clone(),
            _ => Bytes::new(),
        }
    }

    pub(crate) fn structure(&self, name: &str) -> Option<&Fields> {
        match self.get(name) {
            Some(Item::Structure(fields)) => Some(fields),
            _ => None,
        }
    }

    /// The entries of a map of texts.
    pub(crate) fn text_map(&self, name: &str) -> Vec<(String, String)> {
        let entries = match self.get(name) {
            Some(Item::Map(entries)) => &entries[..],
            _ => &[],
        };
        let texts = entries.iter().filter_map(|(key, value)| {
            if let Item::Text(value) = value {
                Some((key.clone(), value.clone()))
            } else {
                None
            }
        });
        texts.collect()
    }

    /// The members of a list of texts.
    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        let items = match self.get(name) {
            Some(Item::List(items)) => &items[..],
            _ => &[],
        };
        let texts = items.iter().filter_map(|item| {
            if let Item::Text(text) = item {
                Some(text.clone())
            } else {
                None
            }
        });
        texts.collect()
    }

    pub(crate) fn structures(&self, name: &str) -> impl Iterator<Item = &Fields> {
        let items = match self.get(name) {
            Some(Item::List(items)) => &items[..],
            _ => &[],
        };
        items.iter().filter_map(|item| {
            if let Item::Structure(fields) = item {
                Some(fields)
            } else {
                None
            }
        })
    }
}

impl From<Fields> for Item {
    fn from(fields: Fields) -> Self {
        Self::Structure(fields)
    }
}

impl From<Vec<Item>> for Item {
    fn from(items: Vec<Item>) -> Self {
        Self::List(items)
    }
}

impl From<bool> for Item {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<i64> for Item {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Time(ms) => serializer.serialize_f64(*ms as f64 / 1000.0),
            Self::Blob(bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Structure(fields) => {
                let mut map = serializer.serialize_map(Some(fields.0.len()))?;
                fields
                    .0
                    .iter()
                    .try_for_each(|(name, item)| map.serialize_entry(name, item))?;
                map.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries
                    .iter()
                    .try_for_each(|(name, item)| map.serialize_entry(name, item))?;
                map.end()
            }
        }
    }
}
