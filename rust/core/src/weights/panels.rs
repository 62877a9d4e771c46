//! The layout that the CPU kernels read: panels of 16 output features.
//!
//! A matrix `W[out_features, in_features]` is cut into panels of [`WIDTH`] rows. Within panel `p` the
//! element for input feature `k` and output feature `16 p + j` stands at `(p * in_features + k) * 16 + j`:
//! for each input feature, 16 weights side by side, which is one step of a matrix kernel. Rows past
//! `out_features` in the last panel are zero.

/// Output features in a panel.
pub(crate) const WIDTH: usize = 16;

/// Rearranges a row-major matrix into panels; the result is padded to whole panels.
///
/// A matrix with no input features has no elements, whatever its height.
pub(crate) fn pack<T: Copy + Default>(rows: &[T], in_features: usize) -> Vec<T> {
    if in_features == 0 {
        return Vec::new();
    }
    let out_features = rows.len() / in_features;
    let mut panels = vec![T::default(); out_features.next_multiple_of(WIDTH) * in_features];
    for (panel, rows) in
        panels.chunks_exact_mut(WIDTH * in_features).zip(rows.chunks(WIDTH * in_features))
    {
        for (j, row) in rows.chunks_exact(in_features).enumerate() {
            for (step, &weight) in panel.chunks_exact_mut(WIDTH).zip(row) {
                step[j] = weight;
            }
        }
    }
    panels
}

/// The inverse of [`pack`]: `out_features` rows of `in_features` elements, without the padding.
pub(crate) fn unpack<T: Copy + Default>(
    panels: &[T],
    out_features: usize,
    in_features: usize,
) -> Vec<T> {
    if in_features == 0 {
        return Vec::new();
    }
    let mut rows = vec![T::default(); out_features * in_features];
    for (panel, rows) in
        panels.chunks_exact(WIDTH * in_features).zip(rows.chunks_mut(WIDTH * in_features))
    {
        for (j, row) in rows.chunks_exact_mut(in_features).enumerate() {
            for (step, weight) in panel.chunks_exact(WIDTH).zip(row) {
                *weight = step[j];
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_element_stands_where_the_formula_says() {
        let (out_features, in_features) = (21, 5);
        let rows: Vec<usize> = (1..=out_features * in_features).collect();
        let panels = pack(&rows, in_features);
        assert_eq!(panels.len(), 32 * in_features);
        for o in 0..out_features {
            for k in 0..in_features {
                let at = (o / WIDTH * in_features + k) * WIDTH + o % WIDTH;
                assert_eq!(panels[at], rows[o * in_features + k]);
            }
        }
        assert_eq!(panels.iter().filter(|&&element| element == 0).count(), 11 * in_features);
    }

    proptest! {
        #[test]
        fn unpacking_undoes_packing(out_features in 0_usize..70, in_features in 0_usize..40, seed: u64) {
            let rows: Vec<u64> = (0..(out_features * in_features) as u64)
                .map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed)
                .collect();
            let panels = pack(&rows, in_features);
            prop_assert_eq!(unpack(&panels, out_features, in_features), rows);
        }
    }
}
