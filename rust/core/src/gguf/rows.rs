//! Rows of a matrix as a GGUF file stores them.
#![allow(clippy::inline_always)]

use std::ops::Range;

use arrow_buffer::Buffer;

use super::quants::dequantize;
use super::types::GgmlType;

/// Rows of a matrix as a GGUF file stores them: in the map, in blocks of floats or integers.
#[derive(Debug, Clone)]
pub struct StoredRows {
    kind: GgmlType,
    data: Buffer,
    width: usize,
    /// Bytes of a row.
    stride: usize,
}

impl StoredRows {
    /// Rows of `width` elements; `None` if `data` are no whole rows.
    pub(crate) fn new(kind: GgmlType, width: usize, data: Buffer) -> Option<Self> {
        let stride = kind.row_bytes(width).filter(|&stride| stride > 0)?;
        data.len().is_multiple_of(stride).then_some(Self { kind, data, width, stride })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.data.len() / self.stride
    }

    /// Elements of each.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Bytes of each.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// All of them.
    pub(crate) fn data(&self) -> &Buffer {
        &self.data
    }

    /// Whether their elements are integers with scales, or else floats.
    pub(crate) fn quantized(&self) -> bool {
        self.kind.block_len() > 1
    }

    /// Some of them; `None` if they are not all there.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Option<Self> {
        let (from, until) =
            (rows.start.checked_mul(self.stride)?, rows.end.checked_mul(self.stride)?);
        let bytes = until.checked_sub(from).filter(|_| until <= self.data.len())?;
        Some(Self { data: self.data.slice_with_length(from, bytes), ..self.clone() })
    }

    /// How the elements are stored.
    pub(crate) fn kind(&self) -> GgmlType {
        self.kind
    }

    /// Where the elements of a row from one on lie, as many as `count`: whole blocks. Nothing if they are not
    /// all there.
    #[inline(always)]
    pub(crate) fn bytes(&self, row: usize, from: usize, count: usize) -> &[u8] {
        let (elements, bytes) = (self.kind.block_len(), self.kind.block_bytes());
        let start = row * self.stride + from / elements * bytes;
        self.data.get(start..start + count.div_ceil(elements) * bytes).unwrap_or_default()
    }

    /// The elements of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub(crate) fn expand(&self, row: usize) -> Vec<f32> {
        self.expand_bytes(&self.data[row * self.stride..][..self.stride])
    }

    /// The elements of a row that has been read.
    pub(crate) fn expand_bytes(&self, row: &[u8]) -> Vec<f32> {
        let mut out = vec![0.0; self.width];
        dequantize(self.kind, row, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> StoredRows {
        // Three rows of two blocks of 32 with scale one.
        let block = |first: u8| [&[0, 0x3c][..], &(first..first + 32).collect::<Vec<_>>()].concat();
        let data: Vec<u8> = (0..6).flat_map(|i| block(16 * i)).collect();
        StoredRows::new(GgmlType::Q8_0, 64, Buffer::from_vec(data)).unwrap()
    }

    #[test]
    fn a_row_is_found_and_expanded() {
        let rows = rows();
        assert_eq!((rows.len(), rows.width(), rows.stride()), (3, 64, 68));
        let expected: Vec<f32> = (32..64).chain(48..80).map(|i: u8| f32::from(i)).collect();
        assert_eq!(rows.expand(1), expected);
        assert_eq!(rows.bytes(1, 32, 32), &rows.data()[68 + 34..2 * 68]);
        assert!(rows.bytes(3, 0, 32).is_empty());
        let later = rows.rows(1..3).unwrap();
        assert_eq!((later.len(), later.expand(0)), (2, expected));
    }

    #[test]
    fn what_is_not_there_is_no_row() {
        assert!(rows().rows(2..4).is_none());
        assert!(rows().rows(0..usize::MAX).is_none());
        let bytes = Buffer::from_vec(vec![0_u8; 67]);
        assert!(StoredRows::new(GgmlType::Q8_0, 64, bytes.clone()).is_none());
        assert!(StoredRows::new(GgmlType::Q8_0, 33, bytes.clone()).is_none());
        assert!(StoredRows::new(GgmlType::F32, 0, bytes).is_none());
    }
}
