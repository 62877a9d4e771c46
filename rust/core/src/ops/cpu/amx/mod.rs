//! AMX tiles (Intel Sapphire Rapids 2023 and later): who may use them.
//!
//! A tile is 16 rows of 64 bytes. One instruction multiplies a tile of 16 rows × 32 bfloat16 with one
//! of 32 × 16 and adds the products, in single precision, to a tile of 16 × 16. (Intel 64 and IA-32
//! Architectures Software Developer's Manual, volume 1, chapter 18.)
//!
//! [`products`] are the instructions; [`floats`], [`bfloat16`], [`integers`] and [`stored`] multiply
//! matrices with them, [`attention`] what its name says, and [`tiles`] is how the operands lie in memory.
#![allow(unsafe_code)]

pub(super) mod attention;
pub(super) mod bfloat16;
pub(super) mod floats;
pub(super) mod integers;
mod products;
pub(super) mod stored;
pub(super) mod tiles;

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Proof that the processor has AMX for bfloat16 and int8 and that this process may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amx(());

impl Amx {
    pub(super) fn detect() -> Option<Self> {
        static USABLE: OnceLock<bool> = OnceLock::new();
        USABLE.get_or_init(|| supported() && permitted()).then_some(Self(()))
    }
}

/// CPUID leaf 7: AMX-BF16, AMX-TILE and AMX-INT8, and AVX-512 BF16, which rounds.
fn supported() -> bool {
    const TILES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    const ROUNDING: u32 = 1 << 5;
    __cpuid_count(0, 0).eax >= 7
        && __cpuid_count(7, 0).edx & TILES == TILES
        && __cpuid_count(7, 0).eax >= 1
        && __cpuid_count(7, 1).eax & ROUNDING == ROUNDING
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
