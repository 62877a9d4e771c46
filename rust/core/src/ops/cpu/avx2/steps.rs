//! The loops of AVX2's tiles, in assembly.
//!
//! What limits them is how many instructions a processor begins in a cycle, of which a neighbour on the same core takes his
//! share: two of them are to be multiply-adds. The compiler takes one step a turn, with five instructions about the loop for each
//! twelve multiply-adds. Here it is four. With two panels, the numbers of three rows are held in registers while weights pass by, which
//! loads a number of a row once for four products instead of for two.
//!
//! Registers 0 to 11 are the sums, of each row one after the other. Rows that a tile has not are left out by the assembler.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::{__m256i, _mm256_set1_epi16, _mm256_setzero_si256};

use super::super::tiling::{self, LINE, Operands, Product};

/// Tiles whose sums fill the twelve registers, see [`super::super::simd::Simd::TILES`].
pub(super) const TILES: &[usize] = &[6, 3];

/// The assembly that adds products of `$a` with `$w`, weights in a register or in memory, to a sum.
macro_rules! multiply {
    (floats $sum:literal $a:literal $w:expr) => {
        concat!("vfmadd231ps ", $sum, ", ", $a, ", ", $w, "\n")
    };
    (pairs $sum:literal $a:literal $w:expr) => {
        concat!("vpmaddwd ymm15, ", $a, ", ", $w, "\n", "vpaddd ", $sum, ", ", $sum, ", ymm15\n",)
    };
    // Products of two bytes each, in 16 bits; register 14 has the ones that add two of those.
    (quads $sum:literal $a:literal $w:expr) => {
        concat!(
            "vpmaddubsw ymm15, ",
            $a,
            ", ",
            $w,
            "\n",
            "vpmaddwd ymm15, ymm15, ymm14\n",
            "vpaddd ",
            $sum,
            ", ",
            $sum,
            ", ymm15\n",
        )
    };
    (vnni_pairs $sum:literal $a:literal $w:expr) => {
        concat!("{{vex}} vpdpwssd ", $sum, ", ", $a, ", ", $w, "\n")
    };
    (vnni_quads $sum:literal $a:literal $w:expr) => {
        concat!("{{vex}} vpdpbusd ", $sum, ", ", $a, ", ", $w, "\n")
    };
}

/// Assembly of a tile that has that row.
macro_rules! row {
    ($row:literal $($assembly:expr)+) => {
        concat!(".if {rows} > ", $row, "\n", $($assembly,)+ ".endif\n")
    };
}

/// Weights in memory: half a panel, so many bytes ahead of the pointer.
macro_rules! weights {
    ($pointer:literal $ahead:literal $half:literal) => {
        concat!("[", $pointer, " + ", $ahead, " + ", $half, "]")
    };
}

/// The assembly of one step, which is `$i` and `$w` bytes ahead of the pointers to inputs and to weights.
macro_rules! step {
    // One panel: its weights are held, and the number of each row is multiplied with both halves.
    (one_panel $multiply:ident $load:literal $half:literal $i:literal $w:literal) => {
        concat!(
            $load, " ymm12, ", weights!("{w}" $w 0), "\n",
            $load, " ymm13, ", weights!("{w}" $w $half), "\n",
            step!(@one_row $multiply 0 "{a}" $i "ymm0" "ymm1"),
            step!(@one_row $multiply 1 "{a} + {s}" $i "ymm2" "ymm3"),
            step!(@one_row $multiply 2 "{a} + 2 * {s}" $i "ymm4" "ymm5"),
            step!(@one_row $multiply 3 "{other}" $i "ymm6" "ymm7"),
            step!(@one_row $multiply 4 "{other} + {s}" $i "ymm8" "ymm9"),
            step!(@one_row $multiply 5 "{other} + 2 * {s}" $i "ymm10" "ymm11"),
        )
    };
    (@one_row $multiply:ident $row:literal $at:literal $i:literal $low:literal $high:literal) => {
        row!($row
            concat!("vbroadcastss ymm14, [", $at, " + ", $i, "]\n")
            multiply!($multiply $low "ymm14" "ymm12")
            multiply!($multiply $high "ymm14" "ymm13")
        )
    };
    // Two panels: the rows' numbers are held, and weights are multiplied with all of them.
    (two_panels $multiply:ident $load:literal $half:literal $i:literal $w:literal) => {
        concat!(
            row!(0 concat!("vbroadcastss ymm12, [{a} + ", $i, "]\n")),
            row!(1 concat!("vbroadcastss ymm13, [{a} + {s} + ", $i, "]\n")),
            row!(2 concat!("vbroadcastss ymm14, [{a} + 2 * {s} + ", $i, "]\n")),
            step!(@weights $multiply $load weights!("{w}" $w 0), "ymm0" "ymm4" "ymm8"),
            step!(@weights $multiply $load weights!("{w}" $w $half), "ymm1" "ymm5" "ymm9"),
            step!(@weights $multiply $load weights!("{other}" $w 0), "ymm2" "ymm6" "ymm10"),
            step!(@weights $multiply $load weights!("{other}" $w $half), "ymm3" "ymm7" "ymm11"),
        )
    };
    (@weights $multiply:ident $load:literal $w:expr, $s0:literal $s1:literal $s2:literal) => {
        concat!(
            $load, " ymm15, ", $w, "\n",
            row!(0 multiply!($multiply $s0 "ymm12" "ymm15")),
            row!(1 multiply!($multiply $s1 "ymm13" "ymm15")),
            row!(2 multiply!($multiply $s2 "ymm14" "ymm15")),
        )
    };
    // Where products need registers of their own, weights are read where they are multiplied, by no instruction of their own.
    (one_panel_in_memory $multiply:ident $load:literal $half:literal $i:literal $w:literal) => {
        concat!(
            step!(@in_memory $multiply $half 0 "{a}" $i $w ["{w}" "ymm0" "ymm1"]),
            step!(@in_memory $multiply $half 1 "{a} + {s}" $i $w ["{w}" "ymm2" "ymm3"]),
            step!(@in_memory $multiply $half 2 "{a} + 2 * {s}" $i $w ["{w}" "ymm4" "ymm5"]),
            step!(@in_memory $multiply $half 3 "{other}" $i $w ["{w}" "ymm6" "ymm7"]),
            step!(@in_memory $multiply $half 4 "{other} + {s}" $i $w ["{w}" "ymm8" "ymm9"]),
            step!(@in_memory $multiply $half 5 "{other} + 2 * {s}" $i $w ["{w}" "ymm10" "ymm11"]),
        )
    };
    (two_panels_in_memory $multiply:ident $load:literal $half:literal $i:literal $w:literal) => {
        concat!(
            step!(@in_memory $multiply $half 0 "{a}" $i $w
                ["{w}" "ymm0" "ymm1"] ["{other}" "ymm2" "ymm3"]),
            step!(@in_memory $multiply $half 1 "{a} + {s}" $i $w
                ["{w}" "ymm4" "ymm5"] ["{other}" "ymm6" "ymm7"]),
            step!(@in_memory $multiply $half 2 "{a} + 2 * {s}" $i $w
                ["{w}" "ymm8" "ymm9"] ["{other}" "ymm10" "ymm11"]),
        )
    };
    (
        @in_memory $multiply:ident $half:literal $row:literal $at:literal $i:literal $w:literal
        $([$panel:literal $low:literal $high:literal])+
    ) => {
        row!($row
            concat!("vbroadcastss ymm12, [", $at, " + ", $i, "]\n")
            $(
                multiply!($multiply $low "ymm12" weights!($panel $w 0))
                multiply!($multiply $high "ymm12" weights!($panel $w $half))
            )+
        )
    };
}

/// The whole loop: what its steps are, the instruction that loads weights, where the second half of a panel is, how far one to four
/// steps go in the weights, and how far one and four go in the rows from the fourth on or in the second panel, whichever
/// `other` is.
macro_rules! steps {
    (
        $of:ident, $sums:ident, $other:expr, $step:ident $multiply:ident $load:literal $half:literal
        [$w1:literal $w2:literal $w3:literal $w4:literal] [$other1:literal $other4:literal]
    ) => {
        asm!(
            "test {turns}, {turns}",
            "jz 3f",
            ".p2align 5",
            "2:",
            "prefetcht1 [{ahead}]",
            "add {ahead}, {line}",
            step!($step $multiply $load $half 0 0),
            step!($step $multiply $load $half 4 $w1),
            step!($step $multiply $load $half 8 $w2),
            step!($step $multiply $load $half 12 $w3),
            "add {a}, 16",
            concat!("add {other}, ", $other4),
            concat!("add {w}, ", $w4),
            "dec {turns}",
            "jnz 2b",
            "3:",
            "test {rest}, {rest}",
            "jz 5f",
            "4:",
            step!($step $multiply $load $half 0 0),
            "add {a}, 4",
            concat!("add {other}, ", $other1),
            concat!("add {w}, ", $w1),
            "dec {rest}",
            "jnz 4b",
            "5:",
            rows = const R,
            line = const LINE,
            turns = inout(reg) $of.steps / 4 => _,
            rest = inout(reg) $of.steps % 4 => _,
            a = inout(reg) $of.a => _,
            s = in(reg) $of.a_stride,
            w = inout(reg) $of.panel => _,
            other = inout(reg) $other => _,
            ahead = inout(reg) $of.ahead => _,
            inout("ymm0") $sums[0], inout("ymm1") $sums[1], inout("ymm2") $sums[2],
            inout("ymm3") $sums[3], inout("ymm4") $sums[4], inout("ymm5") $sums[5],
            inout("ymm6") $sums[6], inout("ymm7") $sums[7], inout("ymm8") $sums[8],
            inout("ymm9") $sums[9], inout("ymm10") $sums[10], inout("ymm11") $sums[11],
            out("ymm12") _, out("ymm13") _, inout("ymm14") _mm256_set1_epi16(1) => _, out("ymm15") _,
            options(nostack, readonly),
        )
    };
}

/// [`steps`] of a tile of one panel or of two.
macro_rules! steps_of_tile {
    (
        $of:ident, $sums:ident, $one:ident $two:ident $multiply:ident $load:literal $half:literal
        [$w1:literal $w2:literal $w3:literal $w4:literal]
    ) => {
        if P == 1 {
            let fourth = $of.a.wrapping_add(3 * $of.a_stride);
            steps!($of, $sums, fourth, $one $multiply $load $half [$w1 $w2 $w3 $w4] [4 16]);
        } else {
            let second = $of.panel.wrapping_add($of.panel_stride);
            steps!($of, $sums, second, $two $multiply $load $half [$w1 $w2 $w3 $w4] [$w1 $w4]);
        }
    };
}

/// Takes all steps of a tile.
///
/// # Safety
/// The processor has AVX2, FMA and F16C, and with `VNNI` AVX-VNNI. `R` rows of `of.steps` numbers of four bytes are readable at
/// `of.a`, and `P` panels of as many times 16 weights, or groups of four bytes of them, at `of.panel`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn take<const VNNI: bool, const R: usize, const P: usize>(
    of: &Operands,
    product: Product,
    sums: &mut [[[__m256i; 2]; P]; R],
) {
    if !tiling::fits(TILES, R, P) {
        unreachable!("a tile of {R} rows and {P} panels");
    }
    let mut all = [_mm256_setzero_si256(); 12];
    for (all, sums) in all.iter_mut().zip(sums.as_flattened().as_flattened()) {
        *all = *sums;
    }
    // SAFETY: the caller vouches for the instructions, and for what is read: as many steps are taken as there are, rows
    // from `R` on are left out, and the second panel is read where `P` is 2, the only other size that fits.
    unsafe {
        match (product, VNNI) {
            (Product::Floats, _) => {
                steps_of_tile!(of, all, one_panel two_panels floats "vmovups" 32 [64 128 192 256]);
            }
            (Product::Halves, _) => {
                steps_of_tile!(of, all, one_panel two_panels floats "vcvtph2ps" 16 [32 64 96 128]);
            }
            (Product::Pairs, true) => {
                steps_of_tile!(of, all, one_panel two_panels vnni_pairs "vmovups" 32 [64 128 192 256]);
            }
            (Product::Pairs, false) => {
                steps_of_tile!(of, all, one_panel two_panels_in_memory pairs "vmovups" 32 [64 128 192 256]);
            }
            (Product::Quads, true) => {
                steps_of_tile!(of, all, one_panel two_panels vnni_quads "vmovups" 32 [64 128 192 256]);
            }
            (Product::Quads, false) => {
                steps_of_tile!(of, all, one_panel_in_memory two_panels_in_memory quads "vmovups" 32 [64 128 192 256]);
            }
        }
    }
    for (all, sums) in all.iter().zip(sums.as_flattened_mut().as_flattened_mut()) {
        *sums = *all;
    }
}
