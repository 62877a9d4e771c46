//! Blocks of 256 elements whose parts have scales of their own, quantised too.

use super::quants::half;

/// Splits an array's reference into parts of known sizes; the sizes are checked when compiled.
macro_rules! parts {
    ($block:expr, $($name:ident: $from:literal .. $to:literal),+ $(,)?) => {
        $(let $name: &[u8] = &$block[$from..$to];)+
    };
}

/// 16 bytes of a scale (low half) and a minimum (high half) for 16 elements each, 64 bytes of values of
/// two bits, a scale of the scales and one of the minima.
pub(super) fn q2_k(block: &[u8; 84], y: &mut [f32; 256]) {
    parts!(block, scales: 0..16, quants: 16..80);
    let (d, dmin) = (half([block[80], block[81]]), half([block[82], block[83]]));
    // 32 bytes hold 128 elements: the lowest bits are the first 32, and so on.
    for (g, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (scale, shift) = (scales[g], g % 8 / 2 * 2);
        let (dl, ml) = (d * f32::from(scale & 15), dmin * f32::from(scale >> 4));
        let from = g / 8 * 32 + g % 2 * 16;
        for (y, q) in y.iter_mut().zip(&quants[from..from + 16]) {
            *y = dl * f32::from(q >> shift & 3) - ml;
        }
    }
}

/// 32 bytes of third bits, 64 bytes of values of two bits, 16 scales of six bits in 12 bytes, a scale of
/// the scales. A value without its third bit is four less.
pub(super) fn q3_k(block: &[u8; 110], y: &mut [f32; 256]) {
    parts!(block, high: 0..32, quants: 32..96, packed: 96..108);
    let d = half([block[108], block[109]]);
    for (g, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        // The low four bits of scale g are in byte g % 8, the upper two in byte 8 + g % 4.
        let low = packed[g % 8] >> (g / 8 * 4) & 15;
        let upper = packed[8 + g % 4] >> (g / 4 * 2) & 3;
        let dl = d * (f32::from(low | upper << 4) - 32.0);
        let (shift, bit) = (g % 8 / 2 * 2, g / 2);
        let (from, from_high) = (g / 8 * 32 + g % 2 * 16, g % 2 * 16);
        for (i, y) in y.iter_mut().enumerate() {
            let third = high[from_high + i] >> bit & 1;
            *y = dl * (f32::from(quants[from + i] >> shift & 3 | third << 2) - 4.0);
        }
    }
}

/// The scale and the minimum of 32 elements, of eight in 12 bytes with six bits each.
#[inline(always)]
#[allow(clippy::inline_always)] // kernels call it, too
pub(crate) fn scale_and_min(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        let low = packed[j + 4];
        (low & 15 | packed[j - 4] >> 6 << 4, low >> 4 | packed[j] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

/// A scale of the scales and one of the minima, eight of both in 12 bytes, 128 bytes of values of four
/// bits.
pub(super) fn q4_k(block: &[u8; 144], y: &mut [f32; 256]) {
    parts!(block, packed: 4..16, quants: 16..144);
    let (d, dmin) = (half([block[0], block[1]]), half([block[2], block[3]]));
    // 32 bytes hold 64 elements: the low halves are the first 32.
    for (j, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(packed, j);
        let (dl, ml) = (d * scale, dmin * min);
        let (from, shift) = (j / 2 * 32, j % 2 * 4);
        for (y, q) in y.iter_mut().zip(&quants[from..from + 32]) {
            *y = dl * f32::from(q >> shift & 15) - ml;
        }
    }
}

/// As [`q4_k`], with 32 bytes of fifth bits before the values.
pub(super) fn q5_k(block: &[u8; 176], y: &mut [f32; 256]) {
    parts!(block, packed: 4..16, high: 16..48, quants: 48..176);
    let (d, dmin) = (half([block[0], block[1]]), half([block[2], block[3]]));
    for (j, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(packed, j);
        let (dl, ml) = (d * scale, dmin * min);
        let (from, shift) = (j / 2 * 32, j % 2 * 4);
        for (i, y) in y.iter_mut().enumerate() {
            let fifth = high[i] >> j & 1;
            *y = dl * f32::from(quants[from + i] >> shift & 15 | fifth << 4) - ml;
        }
    }
}

/// 128 bytes of low halves, 64 bytes of upper two bits, 16 signed scales, a scale of the scales; values
/// are less 32.
pub(super) fn q6_k(block: &[u8; 210], y: &mut [f32; 256]) {
    parts!(block, low: 0..128, high: 128..192, scales: 192..208);
    let d = half([block[208], block[209]]);
    // 64 low bytes and 32 high bytes hold 128 elements, in four runs of 32.
    for (g, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let dl = d * f32::from(scales[g] as i8);
        let (half_block, run, part) = (g / 8, g % 8 / 2, g % 2 * 16);
        let from_low = half_block * 64 + run % 2 * 32 + part;
        let from_high = half_block * 32 + part;
        for (i, y) in y.iter_mut().enumerate() {
            let four = low[from_low + i] >> (run / 2 * 4) & 15;
            let two = high[from_high + i] >> (run * 2) & 3;
            *y = dl * (f32::from(four | two << 4) - 32.0);
        }
    }
}

/// A float as scale, 256 signed bytes, and sums that are not needed here.
pub(super) fn q8_k(block: &[u8; 292], y: &mut [f32; 256]) {
    parts!(block, quants: 4..260);
    let d = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    for (y, q) in y.iter_mut().zip(quants) {
        *y = d * f32::from(*q as i8);
    }
}
