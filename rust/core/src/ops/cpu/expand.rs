//! Blocks of quantised weights as floats, sixteen at a time.
//!
//! The same numbers, bit for bit, as [`crate::gguf::quants::dequantize`], which describes the formats and is what
//! this is tested against; compilers do not vectorise that one reliably.
#![allow(unsafe_code)]

use super::simd::{LANES, Simd};
use crate::gguf::k_quants::scale_and_min;
use crate::gguf::types::GgmlType;
use crate::weights::float16::half_to_float;

/// Sixteen bytes of a block.
type Bytes = [u8; LANES];
/// Sixteen elements.
type Floats = [f32; LANES];

/// Expands whole blocks of that type; `out` has room for their elements.
#[inline(always)]
pub(super) fn expand<S: Simd>(simd: S, kind: GgmlType, bytes: &[u8], out: &mut [f32]) {
    /// A macro, because a function that is handed on is not inlined.
    macro_rules! blocks {
        ($expand:ident) => {
            for (block, y) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
                $expand(simd, block, y);
            }
        };
    }
    match kind {
        GgmlType::F32 => float32(bytes, out),
        GgmlType::F16 => float16(simd, bytes, out),
        GgmlType::BF16 => bfloat16(bytes, out),
        GgmlType::Q4_0 => blocks!(q4_0),
        GgmlType::Q4_1 => blocks!(q4_1),
        GgmlType::Q5_0 => blocks!(q5_0),
        GgmlType::Q5_1 => blocks!(q5_1),
        GgmlType::Q8_0 => blocks!(q8_0),
        GgmlType::Q2K => blocks!(q2_k),
        GgmlType::Q3K => blocks!(q3_k),
        GgmlType::Q4K => blocks!(q4_k),
        GgmlType::Q5K => blocks!(q5_k),
        GgmlType::Q6K => blocks!(q6_k),
        GgmlType::Q8K => blocks!(q8_k),
    }
}

#[inline(always)]
fn unsigned<S: Simd>(simd: S, bytes: &Bytes) -> S::I {
    // SAFETY: there are 16.
    unsafe { simd.load_u8(bytes.as_ptr()) }
}

/// `y = d · v` for signed bytes.
#[inline(always)]
fn scaled<S: Simd>(simd: S, d: f32, bytes: &Bytes, y: &mut Floats) {
    // SAFETY: there are 16 bytes, and there is room for as many floats.
    unsafe {
        let v = simd.to_float(simd.load_i8(bytes.as_ptr().cast()));
        simd.store(simd.mul(simd.splat(d), v), y.as_mut_ptr());
    }
}

/// The bits of `v` from `shift` on, as many as `mask` has.
#[inline(always)]
fn bits<S: Simd>(simd: S, v: S::I, shift: u32, mask: i32) -> S::V {
    simd.to_float(simd.and_int(simd.shift_right(v, shift), simd.splat_int(mask)))
}

/// `low + 2ⁿ high`, given 2ⁿ; exact.
#[inline(always)]
fn joined<S: Simd>(simd: S, low: S::V, high: S::V, power: f32) -> S::V {
    simd.mul_add(high, simd.splat(power), low)
}

/// `y = d · (v - offset)`
#[inline(always)]
fn centred<S: Simd>(simd: S, d: f32, v: S::V, offset: f32, y: &mut Floats) {
    let v = simd.mul(simd.splat(d), simd.sub(v, simd.splat(offset)));
    // SAFETY: there is room for 16.
    unsafe { simd.store(v, y.as_mut_ptr()) };
}

/// `y = d · v - m`
#[inline(always)]
fn lowered<S: Simd>(simd: S, d: f32, v: S::V, m: f32, y: &mut Floats) {
    let v = simd.sub(simd.mul(simd.splat(d), v), simd.splat(m));
    // SAFETY: there is room for 16.
    unsafe { simd.store(v, y.as_mut_ptr()) };
}

#[inline(always)]
fn float32(bytes: &[u8], out: &mut [f32]) {
    for (y, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *y = f32::from_le_bytes(*bytes);
    }
}

#[inline(always)]
fn bfloat16(bytes: &[u8], out: &mut [f32]) {
    for (y, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *y = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}

#[inline(always)]
fn float16<S: Simd>(simd: S, bytes: &[u8], out: &mut [f32]) {
    let (sixteens, rest) = out.as_chunks_mut::<LANES>();
    let (halves, last) = bytes.as_chunks::<{ 2 * LANES }>();
    for (y, halves) in sixteens.iter_mut().zip(halves) {
        // SAFETY: there are 16 numbers of two bytes, and there is room for as many.
        unsafe { simd.store(simd.load_f16(halves.as_ptr().cast()), y.as_mut_ptr()) };
    }
    for (y, bytes) in rest.iter_mut().zip(last.as_chunks().0) {
        *y = half(*bytes);
    }
}

/// The half-precision number in two bytes.
#[inline(always)]
fn half(bytes: [u8; 2]) -> f32 {
    half_to_float(u16::from_le_bytes(bytes))
}

#[inline(always)]
fn q4_0<S: Simd>(simd: S, block: &[u8; 18], y: &mut [f32; 32]) {
    let [d0, d1, quants @ ..] = block;
    let d = half([*d0, *d1]);
    let quants = unsigned(simd, quants);
    for (y, shift) in y.as_chunks_mut().0.iter_mut().zip([0, 4]) {
        centred(simd, d, bits(simd, quants, shift, 15), 8.0, y);
    }
}

#[inline(always)]
fn q4_1<S: Simd>(simd: S, block: &[u8; 20], y: &mut [f32; 32]) {
    let [d0, d1, m0, m1, quants @ ..] = block;
    let (d, m) = (half([*d0, *d1]), half([*m0, *m1]));
    let quants = unsigned(simd, quants);
    for (y, shift) in y.as_chunks_mut().0.iter_mut().zip([0, 4]) {
        lowered(simd, d, bits(simd, quants, shift, 15), -m, y);
    }
}

/// Four bits of each lane and 16 times one of the lowest sixteen bits of a number.
#[inline(always)]
fn five_bits<S: Simd>(simd: S, four: S::V, high: u32) -> S::V {
    const BITS: [i32; LANES] = {
        let mut bits = [0; LANES];
        let mut i = 0;
        while i < LANES {
            bits[i] = 1 << i;
            i += 1;
        }
        bits
    };
    const SIXTEENTHS: Floats = {
        let mut parts = [0.0; LANES];
        let mut i = 0;
        while i < LANES {
            parts[i] = 16.0 / (1 << i) as f32;
            i += 1;
        }
        parts
    };
    // SAFETY: there are 16 of both.
    let (places, parts) = unsafe { (simd.load_int(BITS.as_ptr()), simd.load(SIXTEENTHS.as_ptr())) };
    let fifth = simd.to_float(simd.and_int(simd.splat_int(high as i32), places));
    simd.mul_add(fifth, parts, four)
}

#[inline(always)]
fn q5_0<S: Simd>(simd: S, block: &[u8; 22], y: &mut [f32; 32]) {
    let [d0, d1, rest @ ..] = block;
    let d = half([*d0, *d1]);
    let [h0, h1, h2, h3, quants @ ..] = rest;
    let high = u32::from_le_bytes([*h0, *h1, *h2, *h3]);
    let quants = unsigned(simd, quants);
    for (y, (shift, high)) in y.as_chunks_mut().0.iter_mut().zip([(0, high), (4, high >> 16)]) {
        let v = five_bits(simd, bits(simd, quants, shift, 15), high);
        centred(simd, d, v, 16.0, y);
    }
}

#[inline(always)]
fn q5_1<S: Simd>(simd: S, block: &[u8; 24], y: &mut [f32; 32]) {
    let [d0, d1, m0, m1, rest @ ..] = block;
    let (d, m) = (half([*d0, *d1]), half([*m0, *m1]));
    let [h0, h1, h2, h3, quants @ ..] = rest;
    let high = u32::from_le_bytes([*h0, *h1, *h2, *h3]);
    let quants = unsigned(simd, quants);
    for (y, (shift, high)) in y.as_chunks_mut().0.iter_mut().zip([(0, high), (4, high >> 16)]) {
        let v = five_bits(simd, bits(simd, quants, shift, 15), high);
        lowered(simd, d, v, -m, y);
    }
}

#[inline(always)]
fn q8_0<S: Simd>(simd: S, block: &[u8; 34], y: &mut [f32; 32]) {
    let [d0, d1, quants @ ..] = block;
    let d = half([*d0, *d1]);
    for (y, quants) in y.as_chunks_mut().0.iter_mut().zip(quants.as_chunks().0) {
        scaled(simd, d, quants, y);
    }
}

#[inline(always)]
fn q2_k<S: Simd>(simd: S, block: &[u8; 84], y: &mut [f32; 256]) {
    let (scales, rest) = block.split_at(16);
    let (quants, last) = rest.split_at(64);
    let (d, dmin) = (half([last[0], last[1]]), half([last[2], last[3]]));
    let quants = quants.as_chunks::<LANES>().0;
    for (g, y) in y.as_chunks_mut().0.iter_mut().enumerate() {
        let quants = unsigned(simd, &quants[g / 8 * 2 + g % 2]);
        let v = bits(simd, quants, (g % 8 / 2 * 2) as u32, 3);
        let (scale, min) = (f32::from(scales[g] & 15), f32::from(scales[g] >> 4));
        lowered(simd, d * scale, v, dmin * min, y);
    }
}

#[inline(always)]
fn q3_k<S: Simd>(simd: S, block: &[u8; 110], y: &mut [f32; 256]) {
    let (high, rest) = block.split_at(32);
    let (quants, rest) = rest.split_at(64);
    let (packed, last) = rest.split_at(12);
    let d = half([last[0], last[1]]);
    let (high, quants) = (high.as_chunks::<LANES>().0, quants.as_chunks::<LANES>().0);
    for (g, y) in y.as_chunks_mut().0.iter_mut().enumerate() {
        let low = packed[g % 8] >> (g / 8 * 4) & 15;
        let upper = packed[8 + g % 4] >> (g / 4 * 2) & 3;
        let scale = f32::from(low | upper << 4) - 32.0;
        let two = unsigned(simd, &quants[g / 8 * 2 + g % 2]);
        let third = unsigned(simd, &high[g % 2]);
        let two = bits(simd, two, (g % 8 / 2 * 2) as u32, 3);
        let third = bits(simd, third, (g / 2) as u32, 1);
        centred(simd, d * scale, joined(simd, two, third, 4.0), 4.0, y);
    }
}

#[inline(always)]
fn q4_k<S: Simd>(simd: S, block: &[u8; 144], y: &mut [f32; 256]) {
    let [d0, d1, m0, m1, rest @ ..] = block;
    let (d, dmin) = (half([*d0, *d1]), half([*m0, *m1]));
    let (packed, quants) = rest.split_at(12);
    let quants = quants.as_chunks::<LANES>().0;
    for (j, y) in y.as_chunks_mut::<{ 2 * LANES }>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(packed, j);
        for (part, y) in y.as_chunks_mut().0.iter_mut().enumerate() {
            let quants = unsigned(simd, &quants[j / 2 * 2 + part]);
            let v = bits(simd, quants, (j % 2 * 4) as u32, 15);
            lowered(simd, d * scale, v, dmin * min, y);
        }
    }
}

#[inline(always)]
fn q5_k<S: Simd>(simd: S, block: &[u8; 176], y: &mut [f32; 256]) {
    let [d0, d1, m0, m1, rest @ ..] = block;
    let (d, dmin) = (half([*d0, *d1]), half([*m0, *m1]));
    let (packed, rest) = rest.split_at(12);
    let (high, quants) = rest.split_at(32);
    let (high, quants) = (high.as_chunks::<LANES>().0, quants.as_chunks::<LANES>().0);
    for (j, y) in y.as_chunks_mut::<{ 2 * LANES }>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(packed, j);
        for (part, y) in y.as_chunks_mut().0.iter_mut().enumerate() {
            let four = unsigned(simd, &quants[j / 2 * 2 + part]);
            let four = bits(simd, four, (j % 2 * 4) as u32, 15);
            let fifth = bits(simd, unsigned(simd, &high[part]), j as u32, 1);
            lowered(simd, d * scale, joined(simd, four, fifth, 16.0), dmin * min, y);
        }
    }
}

#[inline(always)]
fn q6_k<S: Simd>(simd: S, block: &[u8; 210], y: &mut [f32; 256]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, last) = rest.split_at(16);
    let d = half([last[0], last[1]]);
    let (low, high) = (low.as_chunks::<LANES>().0, high.as_chunks::<LANES>().0);
    for (g, y) in y.as_chunks_mut().0.iter_mut().enumerate() {
        let (half_block, run, part) = (g / 8, g % 8 / 2, g % 2);
        let four = unsigned(simd, &low[half_block * 4 + run % 2 * 2 + part]);
        let two = unsigned(simd, &high[half_block * 2 + part]);
        let four = bits(simd, four, (run / 2 * 4) as u32, 15);
        let two = bits(simd, two, (run * 2) as u32, 3);
        let d = d * f32::from(scales[g] as i8);
        centred(simd, d, joined(simd, four, two, 16.0), 32.0, y);
    }
}

#[inline(always)]
fn q8_k<S: Simd>(simd: S, block: &[u8; 292], y: &mut [f32; 256]) {
    let [d0, d1, d2, d3, rest @ ..] = block;
    let d = f32::from_le_bytes([*d0, *d1, *d2, *d3]);
    for (y, quants) in y.as_chunks_mut().0.iter_mut().zip(rest.as_chunks().0) {
        scaled(simd, d, quants, y);
    }
}
