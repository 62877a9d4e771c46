//! The values in a GGUF file's metadata: numbers, flags, texts and arrays of them.

use std::fmt;

use arrow_buffer::Buffer;

use super::cursor::{Cursor, Read};

/// Arrays within arrays, at most; no known file has any.
pub(super) const DEPTH: usize = 4;

/// Number of a value's type in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    pub(super) fn read(cursor: &mut Cursor<'_>) -> Read<Self> {
        let number = cursor.u32()?;
        let kind = Self::ALL.get(number as usize).copied();
        kind.ok_or_else(|| format!("a metadata value is of the unknown type {number}"))
    }

    /// Bytes that a value takes, at least.
    const fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

/// A value; every integer is kept as `i128`, which holds them all, and every float as `f64`.
#[derive(Clone, PartialEq)]
pub(crate) enum Value {
    Integer(i128),
    Float(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "the integer {value}"),
            Self::Float(value) => write!(f, "the number {value}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::String(value) if value.len() <= 100 => write!(f, "the text {value:?}"),
            Self::String(_) => write!(f, "a long text"),
            Self::Array(array) => write!(f, "an array of {}", array.len()),
        }
    }
}

/// Many values of one type, still in the map.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Array {
    /// Numbers and flags, little-endian.
    Numbers(Kind, Buffer),
    Strings(Strings),
    Arrays(Vec<Array>),
}

impl Array {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Numbers(kind, data) => data.len() / kind.size(),
            Self::Strings(strings) => strings.len(),
            Self::Arrays(arrays) => arrays.len(),
        }
    }
}

/// Texts in the map, with where each of them is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Strings {
    data: Buffer,
    /// Start and length of each.
    places: Vec<(usize, u32)>,
}

impl Strings {
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The text at a position.
    pub(crate) fn get(&self, index: usize) -> Option<&str> {
        let &(start, length) = self.places.get(index)?;
        // Checked to be UTF-8 when the file was opened.
        std::str::from_utf8(self.data.get(start..start + length as usize)?).ok()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|i| self.get(i).unwrap_or_default())
    }
}

pub(super) fn read_value(cursor: &mut Cursor<'_>, kind: Kind, file: &Buffer) -> Read<Value> {
    Ok(match kind {
        Kind::U8 => Value::Integer(cursor.u8()?.into()),
        Kind::I8 => Value::Integer((cursor.u8()? as i8).into()),
        Kind::U16 => Value::Integer(cursor.u16()?.into()),
        Kind::I16 => Value::Integer((cursor.u16()? as i16).into()),
        Kind::U32 => Value::Integer(cursor.u32()?.into()),
        Kind::I32 => Value::Integer((cursor.u32()? as i32).into()),
        Kind::U64 => Value::Integer(cursor.u64()?.into()),
        Kind::I64 => Value::Integer((cursor.u64()? as i64).into()),
        Kind::F32 => Value::Float(f32::from_bits(cursor.u32()?).into()),
        Kind::F64 => Value::Float(f64::from_bits(cursor.u64()?)),
        Kind::Bool => Value::Bool(boolean(cursor.u8()?)?),
        Kind::String => Value::String(cursor.string()?.to_owned()),
        Kind::Array => Value::Array(read_array(cursor, file, 1)?),
    })
}

fn boolean(byte: u8) -> Read<bool> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(format!("{byte} is neither true nor false")),
    }
}

fn read_array(cursor: &mut Cursor<'_>, file: &Buffer, depth: usize) -> Read<Array> {
    let kind = Kind::read(cursor)?;
    let count = cursor.count(kind.size(), "array elements")?;
    match kind {
        Kind::String => {
            let start = cursor.position();
            let mut places = Vec::with_capacity(count);
            for _ in 0..count {
                let length = cursor.string()?.len();
                let short = u32::try_from(length).map_err(|_| "a text is too long".to_owned())?;
                places.push((cursor.position() - length - start, short));
            }
            let data = file.slice_with_length(start, cursor.position() - start);
            Ok(Array::Strings(Strings { data, places }))
        }
        Kind::Array if depth >= DEPTH => Err("arrays are nested too deep".to_owned()),
        Kind::Array => {
            let inner = (0..count).map(|_| read_array(cursor, file, depth + 1));
            Ok(Array::Arrays(inner.collect::<Read<_>>()?))
        }
        _ => {
            let start = cursor.position();
            // No overflow: the count was checked against the size of the file.
            let bytes = cursor.take(count * kind.size())?;
            if kind == Kind::Bool {
                bytes.iter().try_for_each(|&byte| boolean(byte).map(drop))?;
            }
            Ok(Array::Numbers(kind, file.slice_with_length(start, bytes.len())))
        }
    }
}

/// Numbers of `N` bytes each, converted one by one.
fn each<const N: usize, T>(data: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks().0.iter().map(|&bytes| convert(bytes)).collect()
}

pub(super) fn integers(kind: Kind, data: &[u8]) -> Option<Vec<i64>> {
    Some(match kind {
        Kind::U8 | Kind::Bool => each(data, |b| u8::from_le_bytes(b).into()),
        Kind::I8 => each(data, |b| i8::from_le_bytes(b).into()),
        Kind::U16 => each(data, |b| u16::from_le_bytes(b).into()),
        Kind::I16 => each(data, |b| i16::from_le_bytes(b).into()),
        Kind::U32 => each(data, |b| u32::from_le_bytes(b).into()),
        Kind::I32 => each(data, |b| i32::from_le_bytes(b).into()),
        Kind::I64 => each(data, i64::from_le_bytes),
        Kind::U64 => {
            let numbers = each(data, |b| i64::try_from(u64::from_le_bytes(b)).ok());
            numbers.into_iter().collect::<Option<_>>()?
        }
        Kind::F32 | Kind::F64 | Kind::String | Kind::Array => return None,
    })
}

pub(super) fn floats(kind: Kind, data: &[u8]) -> Option<Vec<f64>> {
    match kind {
        Kind::F32 => Some(each(data, |b| f32::from_le_bytes(b).into())),
        Kind::F64 => Some(each(data, f64::from_le_bytes)),
        _ => Some(integers(kind, data)?.into_iter().map(|number| number as f64).collect()),
    }
}
