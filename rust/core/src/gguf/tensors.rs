//! The list of tensors in a GGUF file.

use std::collections::HashSet;
use std::path::Path;

use arrow_buffer::Buffer;

use super::cursor::{Cursor, Read};
use super::types::GgmlType;
use crate::error::{Error, Result};

/// Dimensions that a tensor has, at most.
const MOST_DIMENSIONS: u32 = 4;
/// The shortest entry: an empty name, one dimension, a type and an offset.
const SHORTEST_ENTRY: usize = 8 + 4 + 8 + 4 + 8;

/// A tensor as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct GgufTensor {
    /// Name, as llama.cpp has it.
    pub(crate) name: String,
    /// Row-major shape, the contiguous dimension last: `[out_features, in_features]`.
    pub(crate) shape: Vec<usize>,
    /// How the elements are stored.
    pub(crate) kind: GgmlType,
    /// The elements, in the map.
    pub(crate) data: Buffer,
}

impl GgufTensor {
    /// Elements in a row.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(0)
    }

    /// All elements.
    pub(crate) fn elements(&self) -> usize {
        // No overflow: checked when the file was opened.
        self.shape.iter().product()
    }
}

/// A tensor's entry: where it lies is not known to be in the file yet.
struct Entry<'a> {
    name: &'a str,
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

/// The entries of a file, read but not looked at.
pub(super) struct Entries<'a>(Vec<Entry<'a>>);

impl<'a> Entries<'a> {
    /// Reads how many entries there are.
    pub(super) fn count(cursor: &mut Cursor<'_>) -> Read<usize> {
        cursor.count(SHORTEST_ENTRY, "tensors")
    }

    pub(super) fn read(cursor: &mut Cursor<'a>, count: usize) -> Read<Self> {
        let mut names = HashSet::with_capacity(count);
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = Entry::read(cursor)?;
            if !names.insert(entry.name) {
                return Err(format!("it has two tensors named {:?}", entry.name));
            }
            entries.push(entry);
        }
        Ok(Self(entries))
    }

    /// The tensors, whose data begin at `start` of the file and are aligned there.
    ///
    /// # Errors
    /// If a tensor is of an unsupported type or does not lie in the file on its own.
    pub(super) fn tensors(
        self,
        file: &Buffer,
        start: usize,
        alignment: usize,
        path: &Path,
    ) -> Result<Vec<GgufTensor>> {
        let section = file.len().saturating_sub(start);
        let mut tensors = Vec::with_capacity(self.0.len());
        let mut places = Vec::with_capacity(self.0.len());
        for entry in self.0 {
            let kind = GgmlType::from_number(entry.kind, entry.name)?;
            let (from, bytes) = entry.place(kind, section, alignment).map_err(|reason| {
                Error::invalid_file(path, format!("tensor {:?}: {reason}", entry.name))
            })?;
            places.push((from, from + bytes));
            tensors.push(GgufTensor {
                name: entry.name.to_owned(),
                shape: entry.shape,
                kind,
                data: file.slice_with_length(start + from, bytes),
            });
        }
        // Without this a small file could stand for any amount of memory.
        places.sort_unstable();
        if places.windows(2).any(|pair| matches!(pair, [(_, end), (next, _)] if next < end)) {
            return Err(Error::invalid_file(path, "two of its tensors share bytes"));
        }
        Ok(tensors)
    }
}

impl<'a> Entry<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Read<Self> {
        let name = cursor.string()?;
        let named = |reason: String| format!("tensor {name:?}: {reason}");
        let dimensions = cursor.u32()?;
        if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
            return Err(named(format!("it has {dimensions} dimensions")));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            let size = cursor.u64()?;
            match usize::try_from(size) {
                Ok(size) if size > 0 => shape.push(size),
                _ => return Err(named(format!("one of its dimensions is {size}"))),
            }
        }
        // The file has the contiguous dimension first.
        shape.reverse();
        Ok(Self { name, shape, kind: cursor.u32()?, offset: cursor.u64()? })
    }

    /// Offset and length in the data section.
    fn place(&self, kind: GgmlType, section: usize, alignment: usize) -> Read<(usize, usize)> {
        let row = self.shape.last().copied().unwrap_or(0);
        if !row.is_multiple_of(kind.block_len()) {
            let (name, block) = (kind.name(), kind.block_len());
            return Err(format!("its rows of {row} are no whole blocks of {block} ({name})"));
        }
        let outside = || "it lies outside of the file".to_owned();
        let rows = self.shape.iter().rev().skip(1).try_fold(1_usize, |n, &d| n.checked_mul(d));
        // The elements too must be countable.
        let bytes = rows
            .filter(|rows| rows.checked_mul(row).is_some())
            .and_then(|rows| rows.checked_mul(kind.row_bytes(row)?))
            .ok_or_else(outside)?;
        let from = usize::try_from(self.offset).map_err(|_| outside())?;
        if !from.is_multiple_of(alignment) {
            return Err(format!("its offset {from} is not a multiple of {alignment}"));
        }
        match from.checked_add(bytes) {
            Some(end) if end <= section => Ok((from, bytes)),
            _ => Err(outside()),
        }
    }
}
