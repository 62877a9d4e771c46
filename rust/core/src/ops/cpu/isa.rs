//! Which instruction set the kernels use, found out once at run time, and how they are called.
#![allow(unsafe_code)]

use std::ops::Range;
use std::str::FromStr;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512::Avx512;
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use super::simd::Simd;
use crate::compute::Compute;
use crate::env::Variables;
use crate::error::{Error, Result};

/// Environment variable that asks for an instruction set by name, for measurements and tests.
const VARIABLE: &str = "ARROWEMBED_ISA";

/// An instruction set that this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    Scalar(Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2<false>),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(Avx2<true>),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let all = Self::available();
        all.iter().find(|isa| isa.name() == name).copied().ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|isa| isa.name()).collect();
            Error::argument("isa", format!("is {name:?}, this processor has {}", names.join(", ")))
        })
    }
}

impl Isa {
    /// All that this processor has, the fastest last.
    pub(crate) fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "depends on the architecture")]
        let mut all = vec![Self::Scalar(Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = Avx2::detect();
            all.extend(avx2.map(Self::Avx2));
            all.extend(avx2.and_then(Avx2::with_vnni).map(Self::AvxVnni));
            let avx512 = Avx512::detect();
            all.extend(avx512.map(Self::Avx512));
            all.extend(avx512.and_then(Avx512::with_halves).map(Self::Avx512));
            all.extend(avx512.and_then(Avx512::with_amx).map(Self::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        all.push(Self::Neon(Neon));
        all
    }

    /// The one that `ARROWEMBED_ISA` names.
    ///
    /// # Errors
    /// If this processor has none of that name.
    pub(crate) fn wanted() -> Result<Option<Self>> {
        Variables::of_process().named(VARIABLE)
    }

    /// The fastest, unless `ARROWEMBED_ISA` names another one. With a name that is none no model is opened
    /// ([`wanted`](Self::wanted)); what needs no model, such as the search of a store, takes the fastest.
    pub(crate) fn chosen() -> Self {
        static CHOSEN: OnceLock<Isa> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let all = Self::available();
            let fastest = all[all.len() - 1];
            let wanted = Self::wanted().unwrap_or_else(|error| {
                tracing::warn!(%error, "using {}", fastest.name());
                None
            });
            wanted.unwrap_or(fastest)
        })
    }

    /// What matrices of floats are best computed in. By the measurements in docs/architecture/performance.md
    /// ("Other arithmetic"), int16 is 1.2 times as fast as float32 and more, and a tenth faster than half precision;
    /// bfloat16 with AMX is twice as fast. NEON is not measured; it needs four instructions for eight products of
    /// int16, two with float32.
    pub(crate) fn preferred(self) -> Compute {
        match self.name() {
            "amx" => Compute::BFloat16,
            "neon" => Compute::Float32,
            _ => Compute::Int16,
        }
    }

    /// `scalar`, `avx2`, `avxvnni`, `avx512`, `avx512fp16`, `amx` or `neon`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) if simd.amx().is_some() => "amx",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) if simd.halves().is_some() => "avx512fp16",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
        }
    }
}

/// Makes, for each generic kernel of `super::kernels`, a function of the same name whose first
/// argument is an [`Isa`] and that runs the kernel compiled for it.
macro_rules! compile_for_each_isa {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?);)*) => {
        $($(#[$doc])*
        pub(super) fn $name(isa: Isa, $($arg: $type),*) {
            match isa {
                Isa::Scalar(simd) => super::kernels::$name(simd, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2(simd) => {
                    #[target_feature(enable = "avx2,fma,f16c")]
                    fn compiled(simd: Avx2<false>, $($arg: $type),*) {
                        super::kernels::$name(simd, $($arg),*);
                    }
                    // SAFETY: an `Avx2` exists only where these features were detected.
                    unsafe { compiled(simd, $($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                Isa::AvxVnni(simd) => {
                    #[target_feature(enable = "avxvnni,avx2,fma,f16c")]
                    fn compiled(simd: Avx2<true>, $($arg: $type),*) {
                        super::kernels::$name(simd, $($arg),*);
                    }
                    // SAFETY: an `Avx2<true>` exists only where these features were detected.
                    unsafe { compiled(simd, $($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512(simd) => {
                    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma,f16c")]
                    fn compiled(simd: Avx512, $($arg: $type),*) {
                        super::kernels::$name(simd, $($arg),*);
                    }
                    // SAFETY: an `Avx512` exists only where these features were detected.
                    unsafe { compiled(simd, $($arg),*) }
                }
                #[cfg(target_arch = "aarch64")]
                Isa::Neon(simd) => super::kernels::$name(simd, $($arg),*),
            }
        })*
    };
}

use super::kernels::{
    AttentionJob, AttentionScratch, LinearJob, LinearScratch, NormJob, TableData,
};
use super::scan::{Job as ScanJob, Terms};
use super::views::RowsMut;
#[cfg(test)]
use crate::gguf::types::GgmlType;
use crate::ops::Rotations;

compile_for_each_isa! {
    /// See [`super::kernels::multiply_adds`].
    #[cfg(feature = "measure")]
    fn multiply_adds(steps: usize, beside: bool, operations: &mut usize);
    /// See [`super::expand::expand`].
    #[cfg(test)]
    fn expand(kind: GgmlType, bytes: &[u8], out: &mut [f32]);
    /// See [`super::kernels::linear`].
    fn linear(job: &LinearJob<'_>, out: RowsMut<'_>, scratch: &mut LinearScratch);
    /// See [`super::kernels::norm`].
    fn norm(job: &NormJob<'_>, rows: &mut [f32], width: usize, columns: Range<usize>);
    /// See [`super::kernels::rotate`].
    fn rotate(
        rotations: &Rotations,
        positions: &[u32],
        rows: &mut [f32],
        width: usize,
        columns: Range<usize>,
    );
    /// See [`super::kernels::add_embedding`].
    fn add_embedding(table: TableData<'_>, ids: &[u32], rows: &mut [f32]);
    /// See [`super::kernels::attention`].
    fn attention(job: &AttentionJob<'_>, out: RowsMut<'_>, scratch: &mut AttentionScratch);
    /// See [`super::scan::scan`].
    fn scan(job: &ScanJob<'_>, out: &mut [f32], scratch: &mut LinearScratch);
    /// See [`super::scan::select`].
    fn select(terms: &Terms<'_>, threshold: f32, found: &mut Vec<u32>);
}
