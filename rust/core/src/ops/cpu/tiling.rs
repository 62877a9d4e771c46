//! How the output of a matrix product is divided into tiles that fit into the registers.

use std::ops::Range;

use super::simd::LANES;

/// Panels of the widest tile of all instruction sets.
const MAX_PANELS: usize = 3;
/// Rows of the highest.
pub(super) const MAX_ROWS: usize = 12;
/// Columns of the widest, and room for any.
pub(super) const MAX_COLUMNS: usize = MAX_PANELS * LANES;
pub(super) const MAX_TILE: usize = MAX_ROWS * MAX_COLUMNS;

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// Panels of the tiles for so many rows of inputs, of `tiles` as [`super::simd::Simd::TILES`]: those of the widest, unless
/// a narrower one takes all rows at once, so that no weights are loaded twice.
#[inline(always)]
pub(super) fn panels(tiles: &[usize], rows: usize) -> usize {
    let widest = tiles.len();
    let at_once = (1..=widest).rev().find(|&panels| rows <= tiles[panels - 1]);
    at_once.unwrap_or(widest)
}

/// Columns, which begin with a panel, in groups of up to so many panels of that width: where each begins, and its panels.
#[inline(always)]
pub(super) fn groups(
    columns: Range<usize>,
    panels: usize,
    width: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let end = columns.end;
    let mut column = columns.start;
    std::iter::from_fn(move || {
        let left = end.saturating_sub(column).div_ceil(width);
        // Two and two are faster than three and one.
        let group = if panels > 2 && left == panels + 1 { panels - 1 } else { left.min(panels) };
        let first = column;
        column += group * width;
        (group > 0).then_some((first, group))
    })
}

/// Rows in blocks that tiles of so many panels can take, of nearly equal height: 13 are 7 and 6, not 12 and 1.
#[inline(always)]
pub(super) fn row_blocks(
    tiles: &[usize],
    rows: usize,
    panels: usize,
) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
    let blocks = rows.div_ceil(tiles[panels - 1]);
    // Divided once, as each tile would wait for it: the first `more` blocks have one row more than the others.
    let (rows, more) = (rows / blocks.max(1), rows % blocks.max(1));
    let start = move |block: usize| block * rows + block.min(more);
    (0..blocks).map(move |block| start(block)..start(block + 1))
}

/// Whether no tile is larger than there is room for.
pub(super) const fn small(tiles: &[usize]) -> bool {
    let mut i = 0;
    while i < tiles.len() && tiles[i] <= MAX_ROWS {
        i += 1;
    }
    i == tiles.len() && tiles.len() <= MAX_PANELS
}

/// Whether there are tiles of that size; constant where the arguments are.
#[inline(always)]
pub(super) fn fits(tiles: &[usize], rows: usize, panels: usize) -> bool {
    panels <= tiles.len() && rows <= tiles[panels - 1]
}

/// Calls `tile.multiply::<rows, panels>(…)`, of the sizes that there are tiles of; the conditions are constant and
/// leave only those.
macro_rules! pick_tile {
    ($tiles:expr, $tile:ident.multiply($($argument:ident),*)) => {
        pick_tile!(@ $tiles, $tile, ($($argument),*), 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $tiles:expr, $tile:ident, $arguments:tt, $($r:literal)*) => {{
        const { assert!(tiling::small($tiles)) };
        match ($tile.rows, $tile.panels) {
            $(($r, 3) if tiling::fits($tiles, $r, 3) => $tile.multiply::<$r, 3> $arguments,
            ($r, 2) if tiling::fits($tiles, $r, 2) => $tile.multiply::<$r, 2> $arguments,
            ($r, 1) if tiling::fits($tiles, $r, 1) => $tile.multiply::<$r, 1> $arguments,)*
            (rows, panels) => unreachable!("a tile of {rows} rows and {panels} panels"),
        }
    }};
}
pub(super) use pick_tile;

/// How a step of a tile loads weights and multiplies them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only x86-64 has such loops"))]
pub(super) enum Product {
    /// float32 with float32.
    Floats,
    /// float16, which becomes float32 first, with float32.
    Halves,
    /// Pairs of 16-bit integers.
    Pairs,
    /// Four unsigned bytes with four signed ones.
    Quads,
}

/// Where the loop of a tile begins, with distances in bytes.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only x86-64 has such loops"))]
pub(super) struct Operands {
    /// Rows of inputs, of which each step takes four bytes.
    pub(super) a: *const u8,
    pub(super) a_stride: usize,
    /// Panels, of which it takes 16 weights or groups of them.
    pub(super) panel: *const u8,
    pub(super) panel_stride: usize,
    pub(super) steps: usize,
    /// What is brought near meanwhile.
    pub(super) ahead: *const u8,
}

/// The weights that come next, which are brought near while rows are multiplied with those before. Without that,
/// the first rows wait for each line of them, and the others leave memory idle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    first: *const u8,
    /// Bytes from one panel to the next.
    stride: usize,
    /// Cache lines of each panel.
    lines: usize,
    /// Of all panels.
    all_lines: usize,
}

impl Next {
    /// Of some panels of a matrix, `stride` elements apart, `len` elements each, beginning with the `first`. Behind
    /// the last panel there is nothing to be brought near, and nothing happens.
    #[inline(always)]
    pub(super) fn new<W>(
        data: &[W],
        first: usize,
        stride: usize,
        panels: usize,
        len: usize,
    ) -> Self {
        let lines = (len * size_of::<W>()).div_ceil(LINE).max(1);
        Self {
            first: data.as_ptr().wrapping_add(first).cast(),
            stride: stride * size_of::<W>(),
            lines,
            all_lines: panels * lines,
        }
    }

    /// Where the shares of so many blocks of rows begin, one after the other.
    #[inline(always)]
    pub(super) fn shares(self, blocks: usize) -> impl Iterator<Item = *const u8> {
        let share = self.all_lines / blocks.max(1);
        let (mut panel, mut line) = (self.first, 0);
        (0..blocks).map(move |_| {
            let here = panel.wrapping_add(line * LINE);
            line += share;
            while line >= self.lines {
                line -= self.lines;
                panel = panel.wrapping_add(self.stride);
            }
            here
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::scalar::Scalar;
    use super::super::simd::Simd;
    use super::*;

    #[test]
    fn groups_are_all_columns_once_and_no_panel_is_left_alone() {
        for columns in 0..300 {
            let groups: Vec<_> = groups(16..16 + columns, 3, LANES).collect();
            let mut next = 16;
            for &(column, panels) in &groups {
                assert_eq!(column, next);
                next += panels * LANES;
            }
            assert_eq!(next, 16 + columns.next_multiple_of(LANES));
            assert!(groups.iter().all(|group| group.1 > 1) || columns <= LANES, "{columns}");
        }
    }

    #[test]
    fn blocks_are_all_rows_once_and_fit_into_tiles() {
        for rows in 0..50 {
            let blocks: Vec<_> = row_blocks(Scalar::TILES, rows, 1).collect();
            assert!(blocks.iter().cloned().flatten().eq(0..rows));
            assert!(blocks.iter().all(|block| fits(Scalar::TILES, block.len(), 1)));
        }
    }

    #[test]
    fn all_rows_at_once_where_a_tile_takes_them() {
        #[cfg(target_arch = "x86_64")]
        {
            use super::super::avx2::Avx2;
            use super::super::avx512::Avx512;
            let chosen = [1, 9, 10, 12, 13, 128].map(|rows| panels(Avx512::TILES, rows));
            assert_eq!(chosen, [3, 3, 2, 2, 3, 3]);
            let chosen = [1, 3, 4, 6, 7, 128].map(|rows| panels(Avx2::<false>::TILES, rows));
            assert_eq!(chosen, [2, 2, 1, 1, 2, 2]);
        }
        assert_eq!(panels(Scalar::TILES, 7), 1);
    }

    #[test]
    fn shares_of_what_comes_next_are_within_it_and_in_order() {
        let weights = vec![0_u16; 4000];
        let next = Next::new(&weights, 32, 1000, 3, 384);
        let bytes = |share: *const u8| share as usize - weights.as_ptr() as usize;
        let starts: Vec<_> = next.shares(7).map(bytes).collect();
        assert_eq!((starts[0], starts.len()), (64, 7));
        assert!(starts.is_sorted());
        assert!(starts.iter().all(|start| (start - 64) % 2000 < 768 && *start < 64 + 6000));
    }
}
