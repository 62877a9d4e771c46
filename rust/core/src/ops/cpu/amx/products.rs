//! What AMX multiplies: two by two tiles of sums from two and two tiles of operands, while they are in
//! the eight that there are.
#![allow(unsafe_code)]

use std::arch::asm;

use super::Tiles;

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

/// The product of 32 or 16 rows with 32 columns, added to what there is: `out[32][32] += a · w`.
///
/// Each number is the sum of two bfloat16, its `high` and `low` part; low times low is left out. For
/// every step of 32 k, `a` has a tile of high and one of low parts, and `w` has those of the first 16
/// columns and then those of the second.
///
/// # Safety
/// `a`, and `more` where there are 32 rows, hold `2 * steps` tiles; `w` holds `4 * steps`.
#[inline(always)]
pub(super) unsafe fn split_product(
    _: &mut Tiles,
    steps: usize,
    a: *const u8,
    more: Option<*const u8>,
    w: *const u8,
    out: &mut Block<f32>,
) {
    debug_assert!(steps > 0);
    // What is in the tiles lives within one block: the compiler knows nothing of them.
    if let Some(more) = more {
        // SAFETY: `Tiles` is proof of the instructions and of their configuration; the caller vouches
        // for what is read, and what is written are four tiles in rows of 128 bytes.
        unsafe {
            asm!(
                "tileloadd tmm0, [{out} + {row}]",
                "tileloadd tmm1, [{out} + {row} + 64]",
                "tileloadd tmm2, [{out} + {row} + 2048]",
                "tileloadd tmm3, [{out} + {row} + 2112]",
                "2:",
                "tileloadd tmm6, [{w} + {line}]",
                "tileloadd tmm4, [{a} + {line} + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{more} + {line} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm7, [{w} + {line} + 2048]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm4, [{a} + {line}]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm5, [{more} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm6, [{w} + {line} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "tileloadd tmm7, [{w} + {line} + 3072]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 2048",
                "add {more}, 2048",
                "add {w}, 4096",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{out} + {row}], tmm0",
                "tilestored [{out} + {row} + 64], tmm1",
                "tilestored [{out} + {row} + 2048], tmm2",
                "tilestored [{out} + {row} + 2112], tmm3",
                line = in(reg) 64_usize,
                row = in(reg) 128_usize,
                a = inout(reg) a => _,
                more = inout(reg) more => _,
                w = inout(reg) w => _,
                steps = inout(reg) steps => _,
                out = in(reg) &raw mut *out,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    } else {
        // SAFETY: as above, with two tiles.
        unsafe {
            asm!(
                "tileloadd tmm0, [{out} + {row}]",
                "tileloadd tmm1, [{out} + {row} + 64]",
                "2:",
                "tileloadd tmm6, [{w} + {line}]",
                "tileloadd tmm5, [{a} + {line} + 1024]",
                "tdpbf16ps tmm0, tmm5, tmm6",
                "tileloadd tmm7, [{w} + {line} + 2048]",
                "tdpbf16ps tmm1, tmm5, tmm7",
                "tileloadd tmm4, [{a} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm6, [{w} + {line} + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{w} + {line} + 3072]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {a}, 2048",
                "add {w}, 4096",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{out} + {row}], tmm0",
                "tilestored [{out} + {row} + 64], tmm1",
                line = in(reg) 64_usize,
                row = in(reg) 128_usize,
                a = inout(reg) a => _,
                w = inout(reg) w => _,
                steps = inout(reg) steps => _,
                out = in(reg) &raw mut *out,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// The product of 32 rows with 16 columns of integers in two signed bytes each, a `high` and a `low` one.
///
/// In the columns 0 to 15 of `out` are the sums of high · high, in the others those of high · low and
/// low · high; low · low is left out. A step is 64 k. `a` are rows of high bytes, 16 from each address
/// on, with the low ones `low` bytes behind them; `w` has two tiles a step, high and low.
///
/// # Safety
/// 16 rows of `64 * steps` bytes, `stride` bytes apart, are readable at each of `a` and `low` bytes
/// behind it, and `2 * steps` tiles at `w`.
#[inline(always)]
pub(super) unsafe fn two_byte_product(
    _: &mut Tiles,
    steps: usize,
    a: [*const u8; 2],
    (stride, low): (usize, usize),
    w: *const u8,
    out: &mut Block<i32>,
) {
    debug_assert!(steps > 0);
    // SAFETY: as in `split_product`.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "2:",
            "tileloadd tmm6, [{w} + {line}]",
            "tileloadd tmm4, [{a0} + {stride}]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {stride}]",
            "tdpbssd tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{w} + {line} + 1024]",
            "tdpbssd tmm1, tmm4, tmm7",
            "add {a0}, {low}",
            "tileloadd tmm4, [{a0} + {stride}]",
            "tdpbssd tmm3, tmm5, tmm7",
            "add {a1}, {low}",
            "tileloadd tmm5, [{a1} + {stride}]",
            "tdpbssd tmm1, tmm4, tmm6",
            "tdpbssd tmm3, tmm5, tmm6",
            "sub {a0}, {low}",
            "sub {a1}, {low}",
            "add {a0}, 64",
            "add {a1}, 64",
            "add {w}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{out} + {row}], tmm0",
            "tilestored [{out} + {row} + 64], tmm1",
            "tilestored [{out} + {row} + 2048], tmm2",
            "tilestored [{out} + {row} + 2112], tmm3",
            line = in(reg) 64_usize,
            row = in(reg) 128_usize,
            stride = in(reg) stride,
            low = in(reg) low,
            a0 = inout(reg) a[0] => _,
            a1 = inout(reg) a[1] => _,
            w = inout(reg) w => _,
            steps = inout(reg) steps => _,
            out = in(reg) &raw mut *out,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
