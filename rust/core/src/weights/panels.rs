//! The layouts that the CPU kernels read: panels of 16 output features.
//!
//! A matrix `W[out_features, in_features]` is cut into panels of [`WIDTH`] rows. Within a panel the
//! input features follow one another in groups of `g`: 1 with float32 and float16, 2 with bfloat16 and
//! 16-bit and 4 with 8-bit integers, as one lane of an instruction multiplies them. The element for input feature `k` and output
//! feature `o` stands at `((o / 16 * groups + k / g) * 16 + o % 16) * g + k % g`: for each group, those of
//! 16 output features side by side, which is one step of a matrix kernel. Rows past `out_features` in the
//! last panel and input features past `in_features` in the last group are zero.

/// Output features in a panel.
pub(crate) const WIDTH: usize = 16;

/// Input features of a block, which is what integers have a scale for.
pub(crate) const BLOCK: usize = 384;

/// The largest Euclidean norm of a block of 16-bit weights. No sum of products with a block of inputs, whole or in part, is larger
/// than the product of both norms (Cauchy and Schwarz), which 32 bits hold.
pub(crate) const LARGEST_WEIGHTS: i32 = 65535;

/// The largest Euclidean norm of a block of inputs that are multiplied with [`LARGEST_WEIGHTS`].
pub(crate) const LARGEST_INPUTS: i32 = 32767;

const _: () = assert!(LARGEST_WEIGHTS.checked_mul(LARGEST_INPUTS).is_some());

/// How many groups of `group` input features there are.
pub(crate) fn groups(in_features: usize, group: usize) -> usize {
    in_features.div_ceil(group)
}

/// Rearranges a row-major matrix into panels; the result is padded to whole panels and groups.
///
/// A matrix with no input features has no elements, whatever its height.
pub(crate) fn pack<T: Copy + Default>(rows: &[T], in_features: usize, group: usize) -> Vec<T> {
    if in_features == 0 {
        return Vec::new();
    }
    let out_features = rows.len() / in_features;
    let width = groups(in_features, group) * group;
    let mut panels = vec![T::default(); out_features.next_multiple_of(WIDTH) * width];
    for (panel, rows) in
        panels.chunks_exact_mut(WIDTH * width).zip(rows.chunks(WIDTH * in_features))
    {
        for (j, row) in rows.chunks_exact(in_features).enumerate() {
            for (step, weights) in panel.chunks_exact_mut(WIDTH * group).zip(row.chunks(group)) {
                step[j * group..][..weights.len()].copy_from_slice(weights);
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
    group: usize,
) -> Vec<T> {
    if in_features == 0 {
        return Vec::new();
    }
    let width = groups(in_features, group) * group;
    let mut rows = vec![T::default(); out_features * in_features];
    for (panel, rows) in
        panels.chunks_exact(WIDTH * width).zip(rows.chunks_mut(WIDTH * in_features))
    {
        for (j, row) in rows.chunks_exact_mut(in_features).enumerate() {
            for (step, weights) in panel.chunks_exact(WIDTH * group).zip(row.chunks_mut(group)) {
                weights.copy_from_slice(&step[j * group..][..weights.len()]);
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
        for g in [1, 2, 4] {
            let panels = pack(&rows, in_features, g);
            let groups = in_features.div_ceil(g);
            assert_eq!(panels.len(), 32 * groups * g);
            for o in 0..out_features {
                for k in 0..in_features {
                    let at = ((o / 16 * groups + k / g) * 16 + o % 16) * g + k % g;
                    assert_eq!(panels[at], rows[o * in_features + k]);
                }
            }
            let zeros = panels.iter().filter(|&&element| element == 0).count();
            assert_eq!(zeros, panels.len() - rows.len());
        }
    }

    proptest! {
        #[test]
        fn unpacking_undoes_packing(out_features in 0_usize..70, in_features in 0_usize..40, group in 1_usize..5, seed: u64) {
            let rows: Vec<u64> = (0..(out_features * in_features) as u64)
                .map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed)
                .collect();
            let panels = pack(&rows, in_features, group);
            prop_assert_eq!(unpack(&panels, out_features, in_features, group), rows);
        }
    }
}
