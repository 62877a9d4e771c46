//! Which rows are searched.

use std::ops::Range;

/// A bit for each row, the least significant first; or all rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep<'a>(Option<&'a [u8]>);

impl<'a> Keep<'a> {
    /// `bits` has a bit for each row.
    pub(super) fn new(bits: Option<&'a [u8]>) -> Self {
        Self(bits)
    }

    /// Whether a row is.
    pub(super) fn contains(self, row: usize) -> bool {
        self.0.is_none_or(|bits| bits[row / 8] >> (row % 8) & 1 == 1)
    }

    /// How many of some rows are; the first is a multiple of 8.
    pub(super) fn count(self, rows: Range<usize>) -> usize {
        let Some(bits) = self.0 else { return rows.len() };
        let whole = &bits[rows.start / 8..rows.end / 8];
        let rest = (rows.end / 8 * 8..rows.end).filter(|&row| self.contains(row)).count();
        whole.iter().map(|byte| byte.count_ones() as usize).sum::<usize>() + rest
    }

    /// Appends those of some rows that are; the first is a multiple of 8.
    pub(super) fn rows(self, rows: Range<usize>, to: &mut Vec<usize>) {
        let Some(bits) = self.0 else { return to.extend(rows) };
        for first in rows.clone().step_by(8) {
            let mut byte = bits[first / 8];
            while byte != 0 {
                let row = first + byte.trailing_zeros() as usize;
                if row < rows.end {
                    to.push(row);
                }
                byte &= byte - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_are_those_whose_bit_is_set(bits in prop::collection::vec(any::<u8>(), 1..9), from in 0_usize..8, until in 0_usize..64) {
            let end = until.min(8 * bits.len());
            let start = (8 * from).min(end / 8 * 8);
            let keep = Keep::new(Some(&bits));
            let expected: Vec<usize> = (start..end).filter(|&row| keep.contains(row)).collect();
            let mut rows = Vec::new();
            keep.rows(start..end, &mut rows);
            prop_assert_eq!(&rows, &expected);
            prop_assert_eq!(keep.count(start..end), expected.len());
            prop_assert_eq!(Keep::new(None).count(start..end), end - start);
        }
    }
}
