//! Reads and writes JSON; a reader sees repeated fields instead of losing them.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// A JSON value with every field of an object, so that a repeated one can be refused. Parsing
/// takes one pass and copies no text without escapes: a policy may have thousands of callers,
/// and every new instance parses it.
pub(crate) enum Json<'a> {
    Null,
    Bool,
    Number(f64),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl Json<'_> {
    /// The text, if the value is a string.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if the value is one.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

/// Passes each entry of a JSON object to `take`. Unwanted entries are skipped unread, so that
/// half a surrogate pair or an excessive number in them does no harm.
///
/// # Errors
/// The line and column at which the text ceases to be JSON; an empty place if it is not an
/// object.
pub(crate) fn for_each_entry<'a>(
    text: &'a str,
    is_wanted: impl FnMut(&str) -> bool,
    take: impl FnMut(Cow<'a, str>, Json<'a>),
) -> Result<(), String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_map(Entries { is_wanted, take }).and_then(|()| deserializer.end());
    read.map_err(|error| match (error.line(), error.column()) {
        (1, 0) => String::new(),
        _ if error.is_data() => String::new(),
        (line, column) => format!("line {line} column {column}"),
    })
}

struct Entries<W, T> {
    is_wanted: W,
    take: T,
}

impl<'de, W: FnMut(&str) -> bool, T: FnMut(Cow<'de, str>, Json<'de>)> Visitor<'de> for Entries<W, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(name)) = map.next_key()? {
            if (self.is_wanted)(&name) {
                (self.take)(name, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Most lists and objects have no more entries, so their vectors need not grow.
const TYPICAL_ENTRIES: usize = 4;

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Json<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Json::Null)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Json::Bool)
            }

            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Json::Number(number as f64))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Json::Number(number as f64))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Json::Number(number))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Json::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Json::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::with_capacity(TYPICAL_ENTRIES);
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Json::List(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(TYPICAL_ENTRIES);
                Entries { is_wanted: |_: &str| true, take: |name, value| fields.push((name, value)) }.visit_map(map)?;
                Ok(Json::Object(fields))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// Serializes `value`. Allocates once if the JSON takes at most `capacity` bytes.
pub(crate) fn to_json(value: &impl Serialize, capacity: usize) -> Vec<u8> {
    let mut json = Vec::with_capacity(capacity);
    serde_json::to_writer(&mut json, value).expect("numbers and strings always serialize");
    json
}
