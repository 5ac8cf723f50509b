//! A document in which an object has a key twice: one reader takes the first value, another the last.

use std::collections::HashSet;
use std::fmt;

use serde::de::DeserializeSeed;
use serde::de::Error as _;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

/// Whether the bytes are JSON whose objects have each key once. Depth is bounded by the parser.
///
/// # Errors
///
/// The bytes are not JSON, or the key that stands twice.
pub(super) fn check_keys(bytes: &[u8]) -> Result<(), serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    Checked.deserialize(&mut parser)?;
    parser.end()
}

/// Any value, looked through and not kept.
#[derive(Clone, Copy)]
struct Checked;

impl<'de> DeserializeSeed<'de> for Checked {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value_seed(self)?;
            if let Some(key) = keys.replace(key) {
                return Err(A::Error::custom(format!("the key `{key}` stands twice in one object")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_found_at_any_depth() {
        for (text, good) in [
            (r#"{"a":1,"b":{"a":2},"c":[{"a":1},{"a":1}]}"#, true),
            (r#"{"a":1,"a":1}"#, false),
            // The same key in another spelling.
            (r#"{"a":1,"\u0061":1}"#, false),
            (r#"{"annotations":{"x":"1","x":"2"}}"#, false),
            (r#"[[[{"a":null,"b":true,"a":-1.5}]]]"#, false),
            ("{}", true),
            ("{} {}", false),
            ("", false),
        ] {
            assert_eq!(check_keys(text.as_bytes()).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_document_of_any_depth_ends_without_a_full_stack() {
        let deep = "[".repeat(100_000);
        assert!(check_keys(deep.as_bytes()).is_err());
    }
}
