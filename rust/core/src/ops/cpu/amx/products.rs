//! What AMX multiplies: two by two tiles of sums from two and two tiles of operands, while they are in
//! the eight that there are.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::_mm512_set1_epi32;

use super::Tiles;
use super::tiles::Tile;

/// Two by two tiles of sums, aligned as tile stores like it.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Block<T>(pub(super) [[T; 32]; 32]);

/// Operands of a product of 32 rows with 32 columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operands {
    /// How many tiles each operand has.
    pub(super) steps: usize,
    /// 16 rows of 64 bytes for each step, from each address on.
    pub(super) a: [*const u8; 2],
    /// Bytes from one row of `a` to the next, and from one step to the next.
    pub(super) a_stride: usize,
    pub(super) a_step: usize,
    /// Tiles of 16 columns, one after the other.
    pub(super) w: [*const u8; 2],
    /// What to bring near meanwhile: 512 bytes for each step from here on, if they are readable.
    pub(super) ahead: *const u8,
}

/// Where the sums go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output<T> {
    /// 32 rows of 32 sums.
    pub(super) to: *mut T,
    /// Bytes from one row to the next.
    pub(super) stride: usize,
    /// Whether the product is added to what is there.
    pub(super) add: bool,
}

/// Makes the product of one element type.
macro_rules! product {
    ($(#[$doc:meta])* fn $name:ident, $instruction:literal, $sum:ty) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The operands are readable, the output readable and writable.
        #[inline(always)]
        pub(super) unsafe fn $name(
            _: &mut Tiles,
            operands: Operands,
            out: Output<$sum>,
        ) {
            let Operands { steps, a, a_stride, a_step, w, ahead } = operands;
            debug_assert!(steps > 0);
            // What is in the tiles lives within one block: the compiler knows nothing of them.
            // SAFETY: `Tiles` is proof of the instructions and of their configuration; the caller
            // vouches for what is read and written.
            unsafe {
                asm!(
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    "test {add:e}, {add:e}",
                    "jz 2f",
                    "tileloadd tmm0, [{out} + {row}]",
                    "tileloadd tmm1, [{out} + {row} + 64]",
                    "tileloadd tmm2, [{lower} + {row}]",
                    "tileloadd tmm3, [{lower} + {row} + 64]",
                    "2:",
                    "tileloadd tmm6, [{w0} + {line}]",
                    "tileloadd tmm4, [{a0} + {stride}]",
                    concat!($instruction, " tmm0, tmm4, tmm6"),
                    "prefetcht0 [{ahead}]",
                    "prefetcht0 [{ahead} + 64]",
                    "tileloadd tmm5, [{a1} + {stride}]",
                    concat!($instruction, " tmm2, tmm5, tmm6"),
                    "prefetcht0 [{ahead} + 128]",
                    "prefetcht0 [{ahead} + 192]",
                    "tileloadd tmm7, [{w1} + {line}]",
                    concat!($instruction, " tmm1, tmm4, tmm7"),
                    "prefetcht0 [{ahead} + 256]",
                    "prefetcht0 [{ahead} + 320]",
                    concat!($instruction, " tmm3, tmm5, tmm7"),
                    "prefetcht0 [{ahead} + 384]",
                    "prefetcht0 [{ahead} + 448]",
                    "add {ahead}, 512",
                    "add {a0}, {step}",
                    "add {a1}, {step}",
                    "add {w0}, 1024",
                    "add {w1}, 1024",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{out} + {row}], tmm0",
                    "tilestored [{out} + {row} + 64], tmm1",
                    "tilestored [{lower} + {row}], tmm2",
                    "tilestored [{lower} + {row} + 64], tmm3",
                    line = in(reg) 64_usize,
                    row = in(reg) out.stride,
                    stride = in(reg) a_stride,
                    step = in(reg) a_step,
                    a0 = inout(reg) a[0] => _,
                    a1 = inout(reg) a[1] => _,
                    w0 = inout(reg) w[0] => _,
                    w1 = inout(reg) w[1] => _,
                    steps = inout(reg) steps => _,
                    ahead = inout(reg) ahead => _,
                    add = in(reg) u32::from(out.add),
                    out = in(reg) out.to,
                    lower = in(reg) out.to.wrapping_byte_add(16 * out.stride),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

product! {
    /// The product in bfloat16, with sums in single precision: a step is 32 k.
    fn bfloat16_product, "tdpbf16ps", f32
}

product! {
    /// The product of unsigned by signed bytes: a step is 64 k.
    fn byte_product, "tdpbusd", i32
}

/// A quarter of one step of a split product, with 16 rows or with the 16 below them too.
///
/// The sums of an output are made in the same order in both, so that it does not depend on how many rows
/// there are.
macro_rules! multiply_split {
    (one, 1) => {
        concat!(
            "tileloadd tmm6, [{v} + {line}]\n",
            "tileloadd tmm5, [{a} + {line} + 1024]\n",
            "tdpbf16ps tmm0, tmm5, tmm6\n",
        )
    };
    (one, 2) => {
        concat!(
            "tileloadd tmm7, [{v} + {line} + 2048]\n",
            "tdpbf16ps tmm1, tmm5, tmm7\n",
            "tileloadd tmm4, [{a} + {line}]\n",
            "tdpbf16ps tmm0, tmm4, tmm6\n",
        )
    };
    (one, 3) => {
        concat!(
            "tdpbf16ps tmm1, tmm4, tmm7\n",
            "tileloadd tmm6, [{v} + {line} + 1024]\n",
            "tdpbf16ps tmm0, tmm4, tmm6\n",
        )
    };
    (one, 4) => {
        concat!(
            "tileloadd tmm7, [{v} + {line} + 3072]\n",
            "tdpbf16ps tmm1, tmm4, tmm7\n",
            "add {a}, 2048\n",
            "add {more}, 2048\n",
        )
    };
    (two, 1) => {
        concat!(
            "tileloadd tmm6, [{v} + {line}]\n",
            "tileloadd tmm4, [{a} + {line} + 1024]\n",
            "tdpbf16ps tmm0, tmm4, tmm6\n",
            "tileloadd tmm5, [{more} + {line} + 1024]\n",
            "tdpbf16ps tmm2, tmm5, tmm6\n",
            "tileloadd tmm7, [{v} + {line} + 2048]\n",
            "tdpbf16ps tmm1, tmm4, tmm7\n",
        )
    };
    (two, 2) => {
        concat!(
            "tileloadd tmm4, [{a} + {line}]\n",
            "tdpbf16ps tmm3, tmm5, tmm7\n",
            "tileloadd tmm5, [{more} + {line}]\n",
            "tdpbf16ps tmm0, tmm4, tmm6\n",
            "tdpbf16ps tmm2, tmm5, tmm6\n",
        )
    };
    (two, 3) => {
        concat!(
            "tileloadd tmm6, [{v} + {line} + 1024]\n",
            "tdpbf16ps tmm1, tmm4, tmm7\n",
            "tdpbf16ps tmm3, tmm5, tmm7\n",
            "tileloadd tmm7, [{v} + {line} + 3072]\n",
            "tdpbf16ps tmm0, tmm4, tmm6\n",
        )
    };
    (two, 4) => {
        concat!(
            "tdpbf16ps tmm2, tmm5, tmm6\n",
            "tdpbf16ps tmm1, tmm4, tmm7\n",
            "tdpbf16ps tmm3, tmm5, tmm7\n",
            "add {a}, 2048\n",
            "add {more}, 2048\n",
        )
    };
}

/// Two lines of 16 float16 each, of a panel at `from`, as a line of a tile of high and one of low parts.
///
/// The high part is what is left without a float's lower half; the rest of a float16 has three bits, of
/// which nothing is cut off.
macro_rules! split_line {
    ($from:literal, $high:literal, $low:literal) => {
        concat!(
            "vcvtph2ps {even}, ymmword ptr [",
            $from,
            "]\n",
            "vcvtph2ps {odd}, ymmword ptr [",
            $from,
            " + 32]\n",
            "add ",
            $from,
            ", 64\n",
            "vpandd {even_high}, {even}, {upper}\n",
            "vpandd {odd_high}, {odd}, {upper}\n",
            "vsubps {even}, {even}, {even_high}\n",
            "vsubps {odd}, {odd}, {odd_high}\n",
            "vpsrld {even_high}, {even_high}, 16\n",
            "vpsrld {even}, {even}, 16\n",
            "vpord {even_high}, {even_high}, {odd_high}\n",
            "vpord {even}, {even}, {odd}\n",
            "vmovdqa64 [{w} + {i} + ",
            $high,
            "], {even_high}\n",
            "vmovdqa64 [{w} + {i} + ",
            $low,
            "], {even}\n",
        )
    };
}

/// Splits a quarter of a step's weights of two panels.
macro_rules! split_step {
    ($until:literal) => {
        concat!(
            "3:\n",
            split_line!("{p0}", "0", "1024"),
            split_line!("{p1}", "2048", "3072"),
            "add {i:e}, 64\n",
            "cmp {i:e}, ",
            $until,
            "\n",
            "jne 3b\n",
        )
    };
}

/// Loads sums, and stores them.
macro_rules! sums {
    ($instruction:literal, $form:ident) => {
        concat!(
            "mov {i:e}, 128\n",
            sums!($form, $instruction, "tmm0", "[{out} + {i}]"),
            sums!($form, $instruction, "tmm1", "[{out} + {i} + 64]"),
            sums!($form, $instruction, "tmm2", "[{out} + {i} + 2048]"),
            sums!($form, $instruction, "tmm3", "[{out} + {i} + 2112]"),
        )
    };
    (load, $instruction:literal, $tile:literal, $place:literal) => {
        concat!($instruction, " ", $tile, ", ", $place, "\n")
    };
    (store, $instruction:literal, $tile:literal, $place:literal) => {
        concat!($instruction, " ", $place, ", ", $tile, "\n")
    };
}

/// The operands that all split products have in common.
macro_rules! split_operands {
    ([$($template:expr),* $(,)?], $a:ident, $out:ident, $($operands:tt)*) => {
        asm!(
            $($template,)*
            line = in(reg) 64_usize,
            a = inout(reg) $a.first => _,
            more = inout(reg) $a.second.unwrap_or($a.first) => _,
            steps = inout(reg) $a.steps => _,
            out = in(reg) &raw mut *$out,
            i = out(reg) _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
            $($operands)*
        )
    };
}

macro_rules! multiply {
    ($rows:ident, $a:ident, $w:ident, $out:ident) => {
        split_operands!(
            [
                sums!("tileloadd", load),
                "2:",
                multiply_split!($rows, 1),
                multiply_split!($rows, 2),
                multiply_split!($rows, 3),
                multiply_split!($rows, 4),
                "add {v}, 4096",
                "dec {steps}",
                "jnz 2b",
                sums!("tilestored", store),
            ],
            $a, $out,
            v = inout(reg) $w => _,
        )
    };
}

macro_rules! split_and_multiply {
    ($rows:ident, $a:ident, $panels:ident, $w:ident, $w_step:ident, $upper:ident, $out:ident) => {
        split_operands!(
            [
                sums!("tileloadd", load),
                "xor {i:e}, {i:e}",
                split_step!("1024"),
                "2:",
                "mov {v}, {w}",
                "add {w}, {w_step}",
                // Forth and back where `turn` is zero.
                "neg {w_step}",
                "add {w_step}, {turn}",
                "dec {steps}",
                "jz 4f",
                "xor {i:e}, {i:e}",
                split_step!("256"),
                multiply_split!($rows, 1),
                split_step!("512"),
                multiply_split!($rows, 2),
                split_step!("768"),
                multiply_split!($rows, 3),
                split_step!("1024"),
                multiply_split!($rows, 4),
                "jmp 2b",
                "4:",
                multiply_split!($rows, 1),
                multiply_split!($rows, 2),
                multiply_split!($rows, 3),
                multiply_split!($rows, 4),
                sums!("tilestored", store),
            ],
            $a, $out,
            p0 = inout(reg) $panels[0] => _,
            p1 = inout(reg) $panels[1] => _,
            w = inout(reg) $w => _,
            v = out(reg) _,
            w_step = inout(reg) 4096_usize => _,
            turn = in(reg) $w_step,
            upper = in(zmm_reg) $upper,
            even = out(zmm_reg) _,
            odd = out(zmm_reg) _,
            even_high = out(zmm_reg) _,
            odd_high = out(zmm_reg) _,
        )
    };
}

/// Rows of a split product: for every step of 32 k a tile of high and one of low parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct SplitRows {
    /// How many steps there are.
    pub(super) steps: usize,
    /// 16 rows.
    pub(super) first: *const u8,
    /// The 16 rows below them, if there are any.
    pub(super) second: Option<*const u8>,
}

/// The product of 32 or 16 rows with 32 columns, added to what there is: `out[32][32] += a · w`.
///
/// Each number is the sum of two bfloat16, its `high` and `low` part; low times low is left out. For
/// every step of 32 k, `w` has tiles of the high and low parts of the first 16 columns and then of the second.
///
/// # Safety
/// The rows hold `2 * steps` tiles each, and `w` holds `4 * steps`.
#[inline(always)]
pub(super) unsafe fn split_product(
    _: &mut Tiles,
    a: SplitRows,
    w: *const u8,
    out: &mut Block<f32>,
) {
    debug_assert!(a.steps > 0);
    // What is in the tiles lives within one block: the compiler knows nothing of them.
    // SAFETY: `Tiles` is proof of the instructions and of their configuration; the caller vouches
    // for what is read, and what is read and written of `out` are four tiles in rows of 128 bytes.
    unsafe {
        match a.second {
            Some(_) => multiply!(two, a, w, out),
            None => multiply!(one, a, w, out),
        }
    }
}

/// Panels of 16 columns in an [`exchanged_product`].
pub(super) const EXCHANGED_PANELS: usize = 4;

/// The sums that [`split_product`] makes, of 16 rows with 64 columns, in tiles of which each line is a column: the
/// operands are exchanged.
///
/// For every step of 32 k, each of four panels of columns has a tile of high and one of low parts, a line for each
/// column, and begins `distance` tiles behind the one before it; so has `a`, with a column for each row.
///
/// # Safety
/// `a` holds `2 * steps` tiles, and so does each panel.
#[inline(always)]
pub(super) unsafe fn exchanged_product(
    _: &mut Tiles,
    steps: usize,
    w: *const u8,
    distance: usize,
    a: *const u8,
    out: &mut [Tile; EXCHANGED_PANELS],
) {
    debug_assert!(steps > 0);
    let panel = distance * size_of::<Tile>();
    // SAFETY: as in `split_product`.
    unsafe {
        asm!(
            "tileloadd tmm0, [{out} + {line}]",
            "tileloadd tmm1, [{out} + {line} + 1024]",
            "tileloadd tmm2, [{out} + {line} + 2048]",
            "tileloadd tmm3, [{out} + {line} + 3072]",
            "2:",
            "tileloadd tmm4, [{a} + {line} + 1024]",
            "tileloadd tmm6, [{w0} + {line}]",
            "tdpbf16ps tmm0, tmm6, tmm4",
            "tileloadd tmm7, [{w1} + {line}]",
            "tdpbf16ps tmm1, tmm7, tmm4",
            "tileloadd tmm5, [{a} + {line}]",
            "tdpbf16ps tmm0, tmm6, tmm5",
            "tdpbf16ps tmm1, tmm7, tmm5",
            "tileloadd tmm6, [{w2} + {line}]",
            "tdpbf16ps tmm2, tmm6, tmm4",
            "tileloadd tmm7, [{w3} + {line}]",
            "tdpbf16ps tmm3, tmm7, tmm4",
            "tdpbf16ps tmm2, tmm6, tmm5",
            "tdpbf16ps tmm3, tmm7, tmm5",
            "tileloadd tmm6, [{w0} + {line} + 1024]",
            "tdpbf16ps tmm0, tmm6, tmm5",
            "tileloadd tmm7, [{w1} + {line} + 1024]",
            "tdpbf16ps tmm1, tmm7, tmm5",
            "tileloadd tmm6, [{w2} + {line} + 1024]",
            "tdpbf16ps tmm2, tmm6, tmm5",
            "tileloadd tmm7, [{w3} + {line} + 1024]",
            "tdpbf16ps tmm3, tmm7, tmm5",
            "add {a}, 2048",
            "add {w0}, 2048",
            "add {w1}, 2048",
            "add {w2}, 2048",
            "add {w3}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{out} + {line}], tmm0",
            "tilestored [{out} + {line} + 1024], tmm1",
            "tilestored [{out} + {line} + 2048], tmm2",
            "tilestored [{out} + {line} + 3072], tmm3",
            line = in(reg) 64_usize,
            a = inout(reg) a => _,
            w0 = inout(reg) w => _,
            w1 = inout(reg) w.add(panel) => _,
            w2 = inout(reg) w.add(2 * panel) => _,
            w3 = inout(reg) w.add(3 * panel) => _,
            steps = inout(reg) steps => _,
            out = in(reg) out.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// The same with two panels of float16, which are split on the way: the next step's, while the tiles of one
/// are multiplied.
///
/// `w` keeps the tiles of all steps, or with `keep` false those of two steps in turns.
///
/// # Safety
/// The rows hold `2 * steps` tiles each, the panels `1024 * steps` bytes, and `w` has room for `4 * steps`
/// tiles, or for eight. The processor has AVX-512 F.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn splitting_product(
    _: &mut Tiles,
    a: SplitRows,
    panels: [*const u8; 2],
    w: *mut u8,
    keep: bool,
    out: &mut Block<f32>,
) {
    debug_assert!(a.steps > 0);
    let turn = if keep { 2 * 4096_usize } else { 0 };
    // SAFETY: as in `split_product`.
    unsafe {
        let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        match a.second {
            Some(_) => split_and_multiply!(two, a, panels, w, turn, upper, out),
            None => split_and_multiply!(one, a, panels, w, turn, upper, out),
        }
    }
}
