//! AMX tiles (Intel Sapphire Rapids 2023 and later): the matrix instructions and who may use them.
//!
//! A tile is 16 rows of 64 bytes. One instruction multiplies a tile of 16 rows × 32 bfloat16 with one
//! of 32 × 16 and adds the products, in single precision, to a tile of 16 × 16. (Intel 64 and IA-32
//! Architectures Software Developer's Manual, volume 1, chapter 18.)
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Bytes of a tile.
pub(super) const TILE: usize = 1024;

/// Proof that the processor has AMX for bfloat16 and int8 and that this process may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amx(());

impl Amx {
    pub(super) fn detect() -> Option<Self> {
        static USABLE: OnceLock<bool> = OnceLock::new();
        USABLE.get_or_init(|| supported() && permitted()).then_some(Self(()))
    }
}

/// CPUID leaf 7: AMX-BF16, AMX-TILE and AMX-INT8.
fn supported() -> bool {
    const FEATURES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & FEATURES == FEATURES
}

/// Tiles are eight kilobytes more to save at every task switch: Linux wants to be asked for them
/// (`Documentation/arch/x86/xstate.rst`). The answer holds for all threads of the process.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: this call reads no memory of ours; kernels that do not know it return an error.
    let status =
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    status == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// `LDTILECFG`'s memory: palette 1, eight tiles of 16 rows and 64 bytes.
#[repr(C, align(64))]
struct Configuration([u8; 64]);

static ALL_TILES: Configuration = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    Configuration(bytes)
};

/// The eight tiles in use by this thread. Outside of this, a task switch has nothing of them to save.
#[derive(Debug)]
pub(super) struct Tiles(PhantomData<*const ()>);

impl Amx {
    /// Makes the tiles ready for this thread.
    #[inline(always)]
    #[allow(clippy::unused_self)] // it is the proof
    pub(super) fn tiles(self) -> Tiles {
        // SAFETY: `Amx` is proof of the instruction, and the configuration is a valid one.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const ALL_TILES, options(nostack, readonly));
        }
        Tiles(PhantomData)
    }
}

impl Drop for Tiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: whoever made this had an `Amx`.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }
}

/// Two by two tiles of floats.
pub(super) type Block = [[f32; 32]; 32];

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
    out: &mut Block,
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
                out = in(reg) out.as_mut_ptr(),
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
                out = in(reg) out.as_mut_ptr(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// The product of 32 rows with 32 columns in bytes: `out = a · w`, unsigned by signed.
///
/// A step is 64 k. `a` are rows of bytes, 16 from each address on; `w` are tiles, one a step for the 16
/// columns of each address.
///
/// # Safety
/// 16 rows of `64 * steps` bytes, `stride` bytes apart, are readable at each of `a`, and `steps` tiles
/// at each of `w`.
#[inline(always)]
pub(super) unsafe fn byte_product(
    _: &mut Tiles,
    steps: usize,
    a: [*const u8; 2],
    stride: usize,
    w: [*const u8; 2],
    out: &mut [[i32; 32]; 32],
) {
    debug_assert!(steps > 0);
    // SAFETY: `Tiles` is proof of the instructions and of their configuration; the caller vouches for
    // what is read, and what is written are four tiles in rows of 128 bytes.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "2:",
            "tileloadd tmm6, [{w0} + {line}]",
            "tileloadd tmm4, [{a0} + {stride}]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {stride}]",
            "tdpbusd tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{w1} + {line}]",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm3, tmm5, tmm7",
            "add {a0}, 64",
            "add {a1}, 64",
            "add {w0}, 1024",
            "add {w1}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{out} + {row}], tmm0",
            "tilestored [{out} + {row} + 64], tmm1",
            "tilestored [{out} + {row} + 2048], tmm2",
            "tilestored [{out} + {row} + 2112], tmm3",
            line = in(reg) 64_usize,
            row = in(reg) 128_usize,
            stride = in(reg) stride,
            a0 = inout(reg) a[0] => _,
            a1 = inout(reg) a[1] => _,
            w0 = inout(reg) w[0] => _,
            w1 = inout(reg) w[1] => _,
            steps = inout(reg) steps => _,
            out = in(reg) out.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
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
    out: &mut [[i32; 32]; 32],
) {
    debug_assert!(steps > 0);
    // SAFETY: as in `byte_product`.
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
            out = in(reg) out.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
