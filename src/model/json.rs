//! JSON as Go's `encoding/json` reads it, which is what wrote and reads these documents elsewhere.
//!
//! The idea to hold: types are derived as usual; this deserializer alone knows that the keys of a struct are found in any
//! letter case, what a key means that stands twice, and that `null` leaves a value empty. Structs need `#[serde(default)]`.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::error::{Error, ErrorKind, Result};

type Failure = serde_json::Error;
type Outcome<T> = std::result::Result<T, Failure>;

/// A document, every key of it kept in its place.
#[derive(Debug, Clone)]
enum Json {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Reads a document; `what` is what messages call it. Bytes that are not UTF-8 and halves of surrogate pairs are read as
/// U+FFFD.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] when it is not JSON of that shape.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    serde_json::from_str(&json_text(bytes))
        .and_then(|json: Json| T::deserialize(json))
        .map_err(|error| Error::new(ErrorKind::InvalidImage, format!("this is not {what}: {error}")))
}

/// A document's bytes as the text that is read.
pub(super) fn json_text(bytes: &[u8]) -> String {
    #[expect(clippy::disallowed_methods, reason = "JSON text, not a file name; documents that are kept stay bytes")]
    let text = String::from_utf8_lossy(bytes);
    without_lone_surrogates(&text).unwrap_or_else(|| text.into_owned())
}

/// An element of a list that is read for itself: what is wrong with one keeps nobody from reading the others.
#[derive(Debug)]
pub(super) struct Each<T>(pub(super) Result<T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Each<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let json = Json::deserialize(deserializer)?;
        Ok(Each(T::deserialize(json).map_err(|error| Error::new(ErrorKind::InvalidImage, error))))
    }
}

/// The text with `\ufffd` for every escaped half of a surrogate pair; `None` where there is none.
fn without_lone_surrogates(text: &str) -> Option<String> {
    let unit = |at: usize| -> Option<u16> {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut out = String::with_capacity(text.len());
    let (mut at, mut found) = (0, false);
    while let Some(backslash) = text[at..].find('\\').map(|offset| at + offset) {
        out.push_str(&text[at..backslash]);
        let pair = (unit(backslash), unit(backslash + 6));
        let taken = match pair {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                found = true;
                out.push_str("\\ufffd");
                at = backslash + 6;
                continue;
            }
            (Some(_), _) => 6,
            (None, _) => 1 + text[backslash + 1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&text[backslash..backslash + taken]);
        at = backslash + taken;
    }
    out.push_str(&text[at..]);
    found.then_some(out)
}

/// Whether Go takes `key` for the field `name`, whose name is ASCII: Unicode folds two more letters to `k` and `s`.
pub(crate) fn is_key(key: &str, name: &str) -> bool {
    let folded = |letter: char| match letter {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        _ => letter.to_ascii_lowercase(),
    };
    key.chars().map(folded).eq(name.chars().map(folded))
}

/// What the field `name` of a struct is set to. The exact spelling goes before others; what stands twice is read twice: the
/// later value wins, objects become one, and `null` empties what is a list or an object.
fn field(entries: &mut [(String, Json)], name: &str) -> Option<Json> {
    let exact = entries.iter().any(|(key, _)| key == name);
    let mut value: Option<Json> = None;
    for (key, newer) in entries {
        if if exact { key == name } else { is_key(key, name) } {
            let newer = std::mem::replace(newer, Json::Null);
            value = Some(match (value, newer) {
                (Some(Json::Object(mut older)), Json::Object(newer)) => {
                    older.extend(newer);
                    Json::Object(older)
                }
                (Some(older @ (Json::Bool(_) | Json::Text(_))), Json::Null) => older,
                (Some(older @ (Json::Unsigned(_) | Json::Signed(_) | Json::Float(_))), Json::Null) => older,
                (_, newer) => newer,
            });
        }
    }
    value
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Json, E> {
        Ok(Json::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Json, E> {
        Ok(Json::Signed(value))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Json, E> {
        Ok(Json::Text(value.to_string()))
    }

    fn visit_string<E>(self, value: String) -> std::result::Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> std::result::Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = access.next_element()? {
            list.push(element);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<Json, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Json::Object(entries))
    }
}

/// `null` stands for the empty value of whatever is wanted.
macro_rules! empty_for_null {
    ($($method:ident => $visit:ident($empty:expr)),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
            match self {
                Json::Null => visitor.$visit($empty),
                json => json.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Json {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        match self {
            Json::Null => visitor.visit_unit(),
            Json::Bool(value) => visitor.visit_bool(value),
            Json::Unsigned(value) => visitor.visit_u64(value),
            Json::Signed(value) => visitor.visit_i64(value),
            Json::Float(value) => visitor.visit_f64(value),
            Json::Text(value) => visitor.visit_string(value),
            Json::List(list) => visitor.visit_seq(List(list.into_iter())),
            Json::Object(entries) => visitor.visit_map(Object { entries: entries.into_iter(), value: None }),
        }
    }

    empty_for_null! {
        deserialize_bool => visit_bool(false),
        deserialize_u8 => visit_u64(0),
        deserialize_u16 => visit_u64(0),
        deserialize_u32 => visit_u64(0),
        deserialize_u64 => visit_u64(0),
        deserialize_i8 => visit_u64(0),
        deserialize_i16 => visit_u64(0),
        deserialize_i32 => visit_u64(0),
        deserialize_i64 => visit_u64(0),
        deserialize_f32 => visit_u64(0),
        deserialize_f64 => visit_u64(0),
        deserialize_str => visit_str(""),
        deserialize_string => visit_str(""),
        deserialize_seq => visit_seq(List(Vec::new().into_iter())),
        deserialize_map => visit_map(Object { entries: Vec::new().into_iter(), value: None }),
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Outcome<V::Value> {
        match self {
            Json::Null => visitor.visit_none(),
            json => visitor.visit_some(json),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Outcome<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Outcome<V::Value> {
        let mut entries = match self {
            Json::Null => Vec::new(),
            Json::Object(entries) => entries,
            Json::List(_) => return Err(Failure::custom("invalid type: sequence, expected an object")),
            other => return other.deserialize_any(visitor),
        };
        let found: Vec<(String, Json)> =
            fields.iter().filter_map(|name| Some((name.to_string(), field(&mut entries, name)?))).collect();
        visitor.visit_map(Object { entries: found.into_iter(), value: None })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Outcome<V::Value> {
        match self {
            Json::Text(name) => visitor.visit_enum(Word(name)),
            _ => Err(Failure::custom("expected a word")),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct List(std::vec::IntoIter<Json>);

impl<'de> SeqAccess<'de> for List {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Outcome<Option<T::Value>> {
        self.0.next().map(|element| seed.deserialize(element)).transpose()
    }
}

struct Object {
    entries: std::vec::IntoIter<(String, Json)>,
    value: Option<(String, Json)>,
}

impl<'de> MapAccess<'de> for Object {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Outcome<Option<K::Value>> {
        self.value = self.entries.next();
        let key = self.value.as_ref().map(|(key, _)| key.as_str().into_deserializer());
        key.map(|key| seed.deserialize(key)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Outcome<V::Value> {
        let (key, value) = self.value.take().ok_or_else(|| Failure::custom("a value has no key"))?;
        seed.deserialize(value).map_err(|error| Failure::custom(format!("{key}: {error}")))
    }
}

/// A variant without contents.
struct Word(String);

impl<'de> EnumAccess<'de> for Word {
    type Error = Failure;
    type Variant = NoContents;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Outcome<(V::Value, NoContents)> {
        Ok((seed.deserialize(self.0.into_deserializer())?, NoContents))
    }
}

struct NoContents;

impl<'de> VariantAccess<'de> for NoContents {
    type Error = Failure;

    fn unit_variant(self) -> Outcome<()> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Outcome<T::Value> {
        Err(Failure::custom("expected a word"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Outcome<V::Value> {
        Err(Failure::custom("expected a word"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Outcome<V::Value> {
        Err(Failure::custom("expected a word"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Sample {
        #[serde(rename = "Env")]
        env: Vec<String>,
        #[serde(rename = "Labels")]
        labels: BTreeMap<String, String>,
        #[serde(rename = "User")]
        user: String,
        #[serde(rename = "WorkingDir")]
        directory: Option<String>,
        #[serde(rename = "Inner")]
        inner: Inner,
        size: u64,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Inner {
        a: String,
        b: String,
    }

    fn sample(text: &str) -> Sample {
        parse_json(text.as_bytes(), "a sample").unwrap()
    }

    /// Each right side is what `docker load` and `docker inspect` (20.10) show of a config with the left one.
    #[test]
    fn keys_and_duplicates_are_read_as_docker_reads_them() {
        let env = |text: &str| sample(text).env.join(" ");
        assert_eq!(env(r#"{"eNV":["A=1"]}"#), "A=1");
        assert_eq!(env(r#"{"Env":["A=1","B=1"],"Env":["A=2"]}"#), "A=2");
        assert_eq!(env(r#"{"env":["A=1"],"ENV":["A=2"]}"#), "A=2");
        assert_eq!(env(r#"{"Env":["A=1"],"Env":null}"#), "");
        assert_eq!(env(r#"{"Env":["A=1",null]}"#), "A=1 ");
        assert_eq!(sample(r#"{"User":"u","User":null}"#).user, "u");
        let labels = sample(r#"{"Labels":{"a":"1","b":"1"},"labels":null,"Labels":{"a":"2","c":null}}"#).labels;
        assert_eq!(format!("{labels:?}"), r#"{"a": "2", "b": "1", "c": ""}"#);
        let folded = sample("{\"wor\u{212a}ingdir\":\"/x\",\"label\u{17f}\":{\"A\":\"b\"},\"u\u{17f}er\":\"me\"}");
        assert_eq!(
            (folded.directory.as_deref(), folded.labels["A"].as_str(), folded.user.as_str()),
            (Some("/x"), "b", "me")
        );
        let inner = sample(r#"{"Inner":{"a":"1","b":"1"},"inner":{"b":"2"}}"#).inner;
        assert_eq!(inner, Inner { a: "1".into(), b: "1".into() });
        let inner = sample(r#"{"Inner":{"a":"1","b":"1"},"Inner":{"B":"2"}}"#).inner;
        assert_eq!(inner, Inner { a: "1".into(), b: "1".into() });
        let inner = sample(r#"{"Inner":{"a":"1","b":"1"},"Inner":{"b":"2"}}"#).inner;
        assert_eq!(inner, Inner { a: "1".into(), b: "2".into() });
    }

    #[test]
    fn the_exact_spelling_goes_first() {
        for text in [r#"{"Env":["A=1"],"env":["A=2"]}"#, r#"{"env":["A=2"],"Env":["A=1"]}"#] {
            assert_eq!(sample(text).env, ["A=1"], "{text}");
        }
    }

    #[test]
    fn null_is_the_empty_value() {
        let nulls = r#"{"Env":null,"Labels":null,"User":null,"WorkingDir":null,"Inner":null,"size":null,"other":null}"#;
        assert_eq!(sample(nulls), Sample::default());
        assert_eq!(sample("null"), Sample::default());
        assert_eq!(parse_json::<Vec<Inner>>(b"[null]", "a list").unwrap(), [Inner::default()]);
    }

    #[test]
    fn text_that_is_not_unicode_is_replaced() {
        let user = |text: &[u8]| parse_json::<Sample>(text, "a sample").unwrap().user;
        assert_eq!(user(b"{\"User\":\"a\xffb\"}"), "a\u{fffd}b");
        assert_eq!(user(br#"{"User":"a\ud800b\\ud800\udc00\ud83d\ude00"}"#), "a\u{fffd}b\\ud800\u{fffd}\u{1f600}");
    }

    #[test]
    fn what_has_another_shape_is_refused_by_name() {
        for (text, message) in [
            (r#"{"Inner":{"b":5}}"#, "Inner: b: invalid type: integer `5`, expected a string"),
            (r#"{"ENV":"A=1"}"#, "Env: invalid type: string"),
            (r#"{"Env":[{}]}"#, "Env: invalid type: map"),
            (r#"{"Inner":["a","b"]}"#, "Inner: invalid type: sequence"),
            ("[", "EOF while parsing"),
        ] {
            let error = parse_json::<Sample>(text.as_bytes(), "a sample").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidImage);
            assert!(error.to_string().contains(message), "{error}");
        }
    }
}
