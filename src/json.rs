//! Reads and writes JSON; a reader sees repeated fields instead of losing them.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A JSON value with every field of an object, so that a repeated one can be refused.
///
/// The value lies in a list of parts that its neighbours share. The list is used again for the next
/// entry: a policy may have thousands of callers, and every new instance parses it.
#[derive(Clone, Copy)]
pub(crate) struct Json<'p, 'a>(&'p [Part<'a>]);

/// The beginning of a value. The values in a list, or the names and values in an object, follow it.
enum Part<'a> {
    Null,
    Bool(bool),
    Number(f64),
    /// Copied only if it contains an escape.
    Text(Cow<'a, str>),
    List {
        parts: usize,
    },
    Object {
        parts: usize,
    },
}

impl<'p, 'a> Json<'p, 'a> {
    /// Whether the value is null.
    pub(crate) fn is_null(self) -> bool {
        matches!(self.0, [Part::Null, ..])
    }

    /// The text, if the value is a string.
    pub(crate) fn text(self) -> Option<&'p Cow<'a, str>> {
        match self.0 {
            [Part::Text(text), ..] => Some(text),
            _ => None,
        }
    }

    /// The number, if the value is one.
    pub(crate) fn number(self) -> Option<f64> {
        match self.0 {
            [Part::Number(number), ..] => Some(*number),
            _ => None,
        }
    }

    /// The truth value, if the value is one.
    pub(crate) fn boolean(self) -> Option<bool> {
        match self.0 {
            [Part::Bool(value), ..] => Some(*value),
            _ => None,
        }
    }

    /// The values, if the value is a list.
    pub(crate) fn values(self) -> Option<impl Iterator<Item = Self> + Clone> {
        match self.0 {
            [Part::List { .. }, parts @ ..] => Some(Values(parts)),
            _ => None,
        }
    }

    /// Names and values, if the value is an object.
    pub(crate) fn fields(self) -> Option<impl Iterator<Item = (&'p str, Self)> + Clone> {
        let [Part::Object { .. }, parts @ ..] = self.0 else { return None };
        let mut values = Values(parts);
        Some(std::iter::from_fn(move || Some((&**values.next()?.text()?, values.next()?))))
    }
}

/// Values that lie one after the other.
#[derive(Clone)]
struct Values<'p, 'a>(&'p [Part<'a>]);

impl<'p, 'a> Iterator for Values<'p, 'a> {
    type Item = Json<'p, 'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let within = match self.0.first()? {
            Part::List { parts } | Part::Object { parts } => *parts,
            _ => 0,
        };
        let (value, others) = self.0.split_at_checked(1 + within)?;
        self.0 = others;
        Some(Json(value))
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
    is_wanted: &mut dyn FnMut(&str) -> bool,
    take: &mut dyn FnMut(&str, Json<'_, 'a>),
) -> Result<(), String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_map(Entries { is_wanted, take }).and_then(|()| deserializer.end());
    read.map_err(|error| match (error.line(), error.column()) {
        (1, 0) => String::new(),
        _ if error.is_data() => String::new(),
        (line, column) => format!("line {line} column {column}"),
    })
}

struct Entries<'f, 'a> {
    is_wanted: &'f mut dyn FnMut(&str) -> bool,
    take: &'f mut dyn FnMut(&str, Json<'_, 'a>),
}

impl<'de> Visitor<'de> for Entries<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut parts = Vec::with_capacity(TYPICAL_PARTS);
        while map.next_key_seed(Reader(&mut parts))?.is_some() {
            if Json(&parts).text().is_some_and(|name| (self.is_wanted)(name)) {
                map.next_value_seed(Reader(&mut parts))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            if let [Part::Text(name), value @ ..] = &parts[..]
                && !value.is_empty()
            {
                (self.take)(name, Json(value));
            }
            parts.clear();
        }
        Ok(())
    }
}

/// Most entries have fewer parts, so their list need not grow.
const TYPICAL_PARTS: usize = 16;

/// Reads a value into a list of parts, in one pass.
struct Reader<'r, 'a>(&'r mut Vec<Part<'a>>);

impl<'r, 'a> Reader<'r, 'a> {
    fn note<E>(self, part: Part<'a>) -> Result<(), E> {
        self.0.push(part);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.note(Part::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.note(Part::Bool(value))
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.note(Part::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.note(Part::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.note(Part::Number(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        self.note(Part::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.note(Part::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let place = self.0.len();
        self.0.push(Part::List { parts: 0 });
        while list.next_element_seed(Reader(self.0))?.is_some() {}
        self.0[place] = Part::List { parts: self.0.len() - place - 1 };
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let place = self.0.len();
        self.0.push(Part::Object { parts: 0 });
        while map.next_key_seed(Reader(self.0))?.is_some() {
            map.next_value_seed(Reader(self.0))?;
        }
        self.0[place] = Part::Object { parts: self.0.len() - place - 1 };
        Ok(())
    }
}

/// Passes a whole JSON text to `take`; `None` if it is not JSON.
pub(crate) fn read_value<T>(text: &str, take: impl FnOnce(Json<'_, '_>) -> T) -> Option<T> {
    let mut parts = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Reader(&mut parts).deserialize(&mut deserializer).and_then(|()| deserializer.end()).ok()?;
    Some(take(Json(&parts)))
}

/// Serializes `value`. Allocates once if the JSON takes at most `capacity` bytes.
pub(crate) fn to_json(value: &impl Serialize, capacity: usize) -> Vec<u8> {
    let mut json = Vec::with_capacity(capacity);
    serde_json::to_writer(&mut json, value).expect("numbers and strings always serialize");
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints a value again, with each text copied by the reader in capitals.
    fn print(value: Json<'_, '_>) -> String {
        if let Some(values) = value.values() {
            format!("[{}]", values.map(print).collect::<Vec<_>>().join(","))
        } else if let Some(fields) = value.fields() {
            let fields = fields.map(|(name, value)| format!("{name}:{}", print(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        } else if let Some(number) = value.number() {
            number.to_string()
        } else {
            match value.text() {
                Some(Cow::Borrowed(text)) => (*text).to_owned(),
                Some(Cow::Owned(text)) => text.to_uppercase(),
                None => if value.is_null() { "null" } else { "bool" }.to_owned(),
            }
        }
    }

    #[test]
    fn entry_is_read_with_every_value_and_every_repeated_field() {
        let check = |text: &str, expected: &[&str]| {
            let mut entries = Vec::new();
            let mut take = |name: &str, value: Json<'_, '_>| entries.push(format!("{name}={}", print(value)));
            for_each_entry(text, &mut |name| name != "unwanted", &mut take).unwrap();
            assert_eq!(entries, expected, "{text}");
        };
        check("{}", &[]);
        check(r#"{"a": 1, "a": null}"#, &["a=1", "a=null"]);
        check(r#"{"a": true, "unwanted": "\ud800", "b": -1.5}"#, &["a=bool", "b=-1.5"]);
        check(r#"{"a": [[], [1, [2]], {}, 3], "b": []}"#, &["a=[[],[1,[2]],{},3]", "b=[]"]);
        check(r#"{"a": {"b": {"c": [1]}, "b": 2, "d": {}}, "e": 3}"#, &["a={b:{c:[1]},b:2,d:{}}", "e=3"]);
        check(r#"{"\u0061": {"\u0062": ["plain", "\u0063"]}}"#, &["a={b:[plain,C]}"]);
    }

    #[test]
    fn text_that_is_no_object_has_the_place_where_json_ends() {
        let check = |text: &str, expected: &str| {
            assert_eq!(for_each_entry(text, &mut |_| true, &mut |_, _| {}), Err(expected.to_owned()), "{text}");
        };
        check("", "");
        check("[]", "");
        check("1", "");
        check(r#"{"a": 1} x"#, "line 1 column 10");
        check("{\"a\": [1,\n]}", "line 2 column 1");
        check("{1: 2}", "line 1 column 2");
    }
}
