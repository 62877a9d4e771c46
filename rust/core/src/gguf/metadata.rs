//! What a GGUF file says about its model: names with values.

use std::collections::BTreeMap;

use arrow_buffer::Buffer;

use super::cursor::{Cursor, Read};
use super::values::{Array, Kind, Strings, Value, floats, integers, read_value};
use crate::error::{Error, Result};

/// The longest name that the format allows.
const LONGEST_KEY: usize = 65_535;
/// The shortest entry: an empty name, a type and a byte.
const SHORTEST_ENTRY: usize = 8 + 4 + 1;

/// The names and values of a file.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// Reads that many entries; `file` is all that the cursor is in.
    pub(super) fn read(cursor: &mut Cursor<'_>, count: usize, file: &Buffer) -> Read<Self> {
        let mut values = BTreeMap::new();
        for _ in 0..count {
            let key = cursor.string()?;
            if key.len() > LONGEST_KEY {
                return Err(format!("a metadata name has {} bytes", key.len()));
            }
            let kind = Kind::read(cursor)?;
            let value = read_value(cursor, kind, file).map_err(|e| format!("{key}: {e}"))?;
            if values.insert(key.to_owned(), value).is_some() {
                return Err(format!("the metadata have {key:?} twice"));
            }
        }
        Ok(Self { values })
    }

    /// Reads how many entries there are.
    pub(super) fn count(cursor: &mut Cursor<'_>) -> Read<usize> {
        cursor.count(SHORTEST_ENTRY, "metadata entries")
    }

    #[cfg(test)]
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// All names, sorted.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// A text.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a text", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// An integer that is not negative, of whatever width.
    pub(crate) fn unsigned(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a size", |value| match value {
            Value::Integer(number) => usize::try_from(*number).ok(),
            _ => None,
        })
    }

    /// A number.
    pub(crate) fn float(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", |value| match value {
            Value::Float(number) => Some(*number),
            Value::Integer(number) => Some(*number as f64),
            _ => None,
        })
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    pub(crate) fn strings(&self, key: &str) -> Result<Option<&Strings>> {
        self.typed(key, "an array of texts", |value| match value {
            Value::Array(Array::Strings(strings)) => Some(strings),
            _ => None,
        })
    }

    /// An array of integers of whatever width; flags are 0 and 1.
    pub(crate) fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.typed(key, "an array of integers", |value| match value {
            Value::Array(Array::Numbers(kind, data)) => integers(*kind, data),
            _ => None,
        })
    }

    /// An array of numbers of whatever type.
    pub(crate) fn floats(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.typed(key, "an array of numbers", |value| match value {
            Value::Array(Array::Numbers(kind, data)) => floats(*kind, data),
            _ => None,
        })
    }

    /// An array of bytes.
    pub(crate) fn bytes(&self, key: &str) -> Result<Option<&[u8]>> {
        self.typed(key, "an array of bytes", |value| match value {
            Value::Array(Array::Numbers(Kind::U8 | Kind::I8, data)) => Some(data.as_slice()),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let wrong = || Error::config(key, format!("is {value:?} instead of {wanted}"));
        convert(value).map(Some).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::file::GgufFile;
    use crate::gguf::fixtures::{Writer, text};
    use crate::gguf::values::DEPTH;

    fn reason(writer: &Writer) -> String {
        GgufFile::from_bytes(&writer.bytes()).unwrap_err().to_string()
    }

    #[test]
    fn every_type_is_read() {
        let bytes = Writer::new()
            .value("u8", 0, &[200])
            .value("i8", 1, &[0xff])
            .value("u16", 2, &50_000_u16.to_le_bytes())
            .value("i16", 3, &(-2_i16).to_le_bytes())
            .u32("u32", u32::MAX)
            .value("i32", 5, &(-3_i32).to_le_bytes())
            .value("f32", 6, &0.5_f32.to_le_bytes())
            .flag("bool", true)
            .string("text", "é")
            .strings("texts", &["", "ab", "ü"])
            .i32s("numbers", &[-1, 2])
            .array("flags", 7, 2, &[1, 0])
            .array("bytes", 0, 2, &[1, 255])
            .array("floats", 12, 1, &0.25_f64.to_le_bytes())
            .value("u64", 10, &u64::MAX.to_le_bytes())
            .value("i64", 11, &(-4_i64).to_le_bytes())
            .value("f64", 12, &0.125_f64.to_le_bytes())
            .bytes();
        let file = GgufFile::from_bytes(&bytes).unwrap();
        let values = file.metadata();
        for (key, expected) in [
            ("u8", 200),
            ("i8", -1),
            ("u16", 50_000),
            ("i16", -2),
            ("u32", u32::MAX.into()),
            ("i32", -3),
            ("u64", u64::MAX.into()),
            ("i64", -4),
        ] {
            assert_eq!(values.get(key), Some(&Value::Integer(expected)), "{key}");
            let size = values.unsigned(key);
            assert_eq!(size.ok().flatten(), usize::try_from(expected).ok(), "{key}");
        }
        assert_eq!(values.float("f32").unwrap(), Some(0.5));
        assert_eq!(values.float("f64").unwrap(), Some(0.125));
        assert_eq!(values.float("i16").unwrap(), Some(-2.0));
        assert_eq!(values.flag("bool").unwrap(), Some(true));
        assert_eq!(values.text("text").unwrap(), Some("é"));
        let texts = values.strings("texts").unwrap().unwrap();
        assert_eq!(texts.iter().collect::<Vec<_>>(), ["", "ab", "ü"]);
        assert_eq!(texts.get(3), None);
        assert_eq!(values.integers("numbers").unwrap(), Some(vec![-1, 2]));
        assert_eq!(values.integers("flags").unwrap(), Some(vec![1, 0]));
        assert_eq!(values.floats("floats").unwrap(), Some(vec![0.25]));
        assert_eq!(values.bytes("bytes").unwrap(), Some(&[1, 255][..]));
        assert_eq!(values.text("nothing").unwrap(), None);
        assert_eq!(values.keys().count(), 17);
        let error = values.unsigned("text").unwrap_err();
        assert!(error.to_string().contains("the text \"é\" instead of a size"), "{error}");
        assert_eq!(values.integers("floats").unwrap_err().code(), "invalid_config");
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let new = Writer::new;
        let nested = |depth: usize| {
            let level = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat();
            let mut bytes = level.repeat(depth);
            bytes.extend([&0_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &[7]].concat());
            new().value("nested", 9, &bytes)
        };
        GgufFile::from_bytes(&nested(DEPTH - 1).bytes()).unwrap();
        let long = "k".repeat(LONGEST_KEY + 1);
        for (writer, expected) in [
            (new().u32("a", 1).u32("a", 2), "\"a\" twice"),
            (new().value("a", 13, &[0; 8]), "unknown type 13"),
            (new().value("a", 7, &[2]), "neither true nor false"),
            (new().array("a", 7, 2, &[1, 2]), "neither true nor false"),
            (new().value("a", 8, &[2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), "UTF-8"),
            (new().array("a", 8, u64::MAX, &text("b")), "array elements"),
            (new().array("a", 10, u64::MAX / 8 + 2, &[0; 16]), "array elements"),
            (new().array("a", 8, 1, &(1_u64 << 60).to_le_bytes()), "bytes of text"),
            (nested(DEPTH), "too deep"),
            (nested(100_000), "too deep"),
            (new().u32(&long, 1), "65536 bytes"),
        ] {
            let reason = reason(&writer);
            assert!(reason.contains(expected), "{expected}: {reason}");
        }
    }

    #[test]
    fn many_texts_are_read_at_once() {
        let texts: Vec<String> = (0..200_000).map(|i| format!("token {i}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let file = GgufFile::from_bytes(&Writer::new().strings("a", &texts).bytes()).unwrap();
        let read = file.metadata().strings("a").unwrap().unwrap();
        assert!(read.iter().eq(texts));
    }
}
