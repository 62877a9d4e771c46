//! The loops of AVX-512's tiles, in assembly.
//!
//! A tile's sums fill up to 27 of the 32 registers. Where several steps are taken in a turn, the compiler loads weights ahead
//! of where they are needed, has too few registers then, and moves all sums from one register to the next, twice a turn.
//! Where one is taken, what counts the turns has a tenth of the ports that multiply. Here it is four: each loads the weights
//! of every panel, and for every row fills a register with its number, which is multiplied with each panel.
//!
//! Registers are named, as each sum has to stay in its own. Rows that a tile has not are left out by the assembler.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::{__m512i, _mm512_setzero_si512};

use super::super::tiling::{LINE, Operands, Product};

/// The assembly of one step: `$input` and `$weights` are how many bytes it is ahead of the pointers.
macro_rules! step {
    (
        $load:literal $multiply:literal $input:literal $weights:literal
        [$($panel:literal $at:literal;)+]
        [$($row:literal $stands:literal $([$p:literal $sum:tt $with:literal])+;)+]
    ) => {
        concat!(
            $($load, " ", $panel, ", [", $at, " + ", $weights, "]\n",)+
            $(
                ".if {rows} > ", $row, "\n",
                "vbroadcastss zmm31, [", $stands, " + ", $input, "]\n",
                $($multiply, " ", $sum, ", zmm31, ", $with, "\n",)+
                ".endif\n",
            )+
        )
    };
}

/// The whole loop of tiles of some panels. Of the weights, the instruction that loads them, the one that multiplies, and
/// how far one to four steps go. Of the panels, their registers and where they stand. Of the rows, their numbers, where they stand, and for
/// each panel its number, the register of the sums and that of the weights.
macro_rules! steps {
    (
        $of:ident, $sums:ident, $load:literal $multiply:literal [$($ahead:literal)+], $panels:tt,
        [$($row:literal $stands:literal $([$p:literal $sum:tt $with:literal])+;)+]
    ) => {
        steps!(
            @ $of, $sums, $load $multiply [$($ahead)+], $panels,
            [$($row $stands $([$p $sum $with])+;)+], [$($row $([$p $sum])+;)+]
        )
    };
    (
        @ $of:ident, $sums:ident,
        $load:literal $multiply:literal [$w1:literal $w2:literal $w3:literal $w4:literal],
        $panels:tt, $rows:tt, [$($row:literal $([$p:literal $sum:tt])+;)+]
    ) => {
        asm!(
            "/* {ws} is of no use with one panel */",
            "test {turns}, {turns}",
            "jz 3f",
            ".p2align 5",
            "2:",
            "prefetcht1 [{ahead}]",
            "add {ahead}, {line}",
            step!($load $multiply 0 0 $panels $rows),
            step!($load $multiply 4 $w1 $panels $rows),
            step!($load $multiply 8 $w2 $panels $rows),
            step!($load $multiply 12 $w3 $panels $rows),
            "add {a0}, 16",
            ".if {rows} > 3",
            "add {a1}, 16",
            ".endif",
            ".if {rows} > 6",
            "add {a2}, 16",
            ".endif",
            ".if {rows} > 9",
            "add {a3}, 16",
            ".endif",
            concat!("add {w}, ", $w4),
            "dec {turns}",
            "jnz 2b",
            "3:",
            "test {rest}, {rest}",
            "jz 5f",
            "4:",
            step!($load $multiply 0 0 $panels $rows),
            "add {a0}, 4",
            "add {a1}, 4",
            "add {a2}, 4",
            "add {a3}, 4",
            concat!("add {w}, ", $w1),
            "dec {rest}",
            "jnz 4b",
            "5:",
            rows = const R,
            line = const LINE,
            turns = inout(reg) $of.steps / 4 => _,
            rest = inout(reg) $of.steps % 4 => _,
            a0 = inout(reg) $of.a => _,
            a1 = inout(reg) $of.a.wrapping_add(3 * $of.a_stride) => _,
            a2 = inout(reg) $of.a.wrapping_add(6 * $of.a_stride) => _,
            a3 = inout(reg) $of.a.wrapping_add(9 * $of.a_stride) => _,
            s = in(reg) $of.a_stride,
            w = inout(reg) $of.panel => _,
            ws = in(reg) $of.panel_stride,
            ahead = inout(reg) $of.ahead => _,
            $($(inout($sum) $sums[$row][$p],)+)+
            out("zmm27") _, out("zmm28") _, out("zmm29") _, out("zmm31") _,
            options(nostack, readonly),
        )
    };
}

/// [`steps`] of the tiles that there are.
macro_rules! steps_of_tile {
    ($of:ident, $sums:ident, $load:literal $multiply:literal $ahead:tt) => {
        match P {
            1 => steps!($of, $sums, $load $multiply $ahead, ["zmm27" "{w}";], [
                0 "{a0}" [0 "zmm0" "zmm27"];
                1 "{a0} + {s}" [0 "zmm1" "zmm27"];
                2 "{a0} + 2 * {s}" [0 "zmm2" "zmm27"];
                3 "{a1}" [0 "zmm3" "zmm27"];
                4 "{a1} + {s}" [0 "zmm4" "zmm27"];
                5 "{a1} + 2 * {s}" [0 "zmm5" "zmm27"];
                6 "{a2}" [0 "zmm6" "zmm27"];
                7 "{a2} + {s}" [0 "zmm7" "zmm27"];
                8 "{a2} + 2 * {s}" [0 "zmm8" "zmm27"];
                9 "{a3}" [0 "zmm9" "zmm27"];
                10 "{a3} + {s}" [0 "zmm10" "zmm27"];
                11 "{a3} + 2 * {s}" [0 "zmm11" "zmm27"];
            ]),
            2 => steps!($of, $sums, $load $multiply $ahead, ["zmm27" "{w}"; "zmm28" "{w} + {ws}";], [
                0 "{a0}" [0 "zmm0" "zmm27"] [1 "zmm1" "zmm28"];
                1 "{a0} + {s}" [0 "zmm2" "zmm27"] [1 "zmm3" "zmm28"];
                2 "{a0} + 2 * {s}" [0 "zmm4" "zmm27"] [1 "zmm5" "zmm28"];
                3 "{a1}" [0 "zmm6" "zmm27"] [1 "zmm7" "zmm28"];
                4 "{a1} + {s}" [0 "zmm8" "zmm27"] [1 "zmm9" "zmm28"];
                5 "{a1} + 2 * {s}" [0 "zmm10" "zmm27"] [1 "zmm11" "zmm28"];
                6 "{a2}" [0 "zmm12" "zmm27"] [1 "zmm13" "zmm28"];
                7 "{a2} + {s}" [0 "zmm14" "zmm27"] [1 "zmm15" "zmm28"];
                8 "{a2} + 2 * {s}" [0 "zmm16" "zmm27"] [1 "zmm17" "zmm28"];
                9 "{a3}" [0 "zmm18" "zmm27"] [1 "zmm19" "zmm28"];
                10 "{a3} + {s}" [0 "zmm20" "zmm27"] [1 "zmm21" "zmm28"];
                11 "{a3} + 2 * {s}" [0 "zmm22" "zmm27"] [1 "zmm23" "zmm28"];
            ]),
            3 => steps!($of, $sums, $load $multiply $ahead, ["zmm27" "{w}"; "zmm28" "{w} + {ws}"; "zmm29" "{w} + 2 * {ws}";], [
                0 "{a0}" [0 "zmm0" "zmm27"] [1 "zmm1" "zmm28"] [2 "zmm2" "zmm29"];
                1 "{a0} + {s}" [0 "zmm3" "zmm27"] [1 "zmm4" "zmm28"] [2 "zmm5" "zmm29"];
                2 "{a0} + 2 * {s}" [0 "zmm6" "zmm27"] [1 "zmm7" "zmm28"] [2 "zmm8" "zmm29"];
                3 "{a1}" [0 "zmm9" "zmm27"] [1 "zmm10" "zmm28"] [2 "zmm11" "zmm29"];
                4 "{a1} + {s}" [0 "zmm12" "zmm27"] [1 "zmm13" "zmm28"] [2 "zmm14" "zmm29"];
                5 "{a1} + 2 * {s}" [0 "zmm15" "zmm27"] [1 "zmm16" "zmm28"] [2 "zmm17" "zmm29"];
                6 "{a2}" [0 "zmm18" "zmm27"] [1 "zmm19" "zmm28"] [2 "zmm20" "zmm29"];
                7 "{a2} + {s}" [0 "zmm21" "zmm27"] [1 "zmm22" "zmm28"] [2 "zmm23" "zmm29"];
                8 "{a2} + 2 * {s}" [0 "zmm24" "zmm27"] [1 "zmm25" "zmm28"] [2 "zmm26" "zmm29"];
            ]),
            _ => unreachable!("a tile of {P} panels"),
        }
    };
}

/// Takes all steps of a tile.
///
/// # Safety
/// The processor has AVX-512 F and VNNI. `R` rows of as many numbers of four bytes are readable at `of.a`, and `P` panels of as
/// many lines at `of.panel`.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn take<const R: usize, const P: usize>(
    of: &Operands,
    product: Product,
    sums: &mut [[__m512i; P]; R],
) {
    // As many as there are registers for.
    let mut all = [[_mm512_setzero_si512(); 3]; 12];
    for (all, sums) in all.iter_mut().zip(&*sums) {
        all[..P].copy_from_slice(sums);
    }
    // SAFETY: the caller vouches for the instructions, and for what is read: as many steps are taken as there are, and rows
    // and panels from `R` and `P` on are left out.
    unsafe {
        match product {
            Product::Floats => steps_of_tile!(of, all, "vmovups" "vfmadd231ps" [64 128 192 256]),
            Product::Halves => steps_of_tile!(of, all, "vcvtph2ps" "vfmadd231ps" [32 64 96 128]),
            Product::Pairs => steps_of_tile!(of, all, "vmovups" "vpdpwssd" [64 128 192 256]),
            Product::Quads => steps_of_tile!(of, all, "vmovups" "vpdpbusd" [64 128 192 256]),
        }
    }
    for (all, sums) in all.iter().zip(sums) {
        sums.copy_from_slice(&all[..P]);
    }
}
