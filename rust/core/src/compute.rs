//! The arithmetic of a forward pass: what may be asked for, and what that means for a file.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::ops::cpu::Isa;
use crate::weights::DType;

/// In which numbers matrices are multiplied; everything else is float32, but for the operands of attention's
/// products with [`BFloat16`](Self::BFloat16) and [`Int8`](Self::Int8) on AMX.
///
/// ```
/// use arrowembed::Compute;
/// assert_eq!("int16".parse::<Compute>()?, Compute::Int16);
/// assert!("int4".parse::<Compute>().is_err());
/// # Ok::<(), arrowembed::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compute {
    /// The fastest on this machine whose loss is invisible: [`BFloat16`](Self::BFloat16) on AMX,
    /// [`Int16`](Self::Int16) where that is faster than float32 and loses nothing visible of the model at hand, which
    /// is measured when it is first opened so; for a model of floating-point weights on the CPU; else as the model is
    /// stored.
    Auto,
    /// float32, from weights of any dtype.
    Float32,
    /// Weights of 11 bits precision. Processors with AVX-512 FP16 round what they are multiplied with too, and the
    /// sums of 64 products, and are 1.4 to 1.8 times as fast; others compute in float32, those with AMX too.
    Float16,
    /// Weights of 8 bits precision. Processors with AMX round what they are multiplied with too, and
    /// are twice as fast; others compute in float32.
    BFloat16,
    /// Integers of 16 bits with exact sums, which lose as little as weights of float16 in [`Float32`](Self::Float32); made
    /// from such weights, twice as much.
    Int16,
    /// Integers of 8 bits with exact sums: the smallest, with a loss that can be measured.
    Int8,
}

impl Compute {
    const ALL: [Self; 6] =
        [Self::Auto, Self::Float32, Self::Float16, Self::BFloat16, Self::Int16, Self::Int8];

    /// The name used in arguments.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::BFloat16 => "bfloat16",
            Self::Int16 => "int16",
            Self::Int8 => "int8",
        }
    }

    /// What the CPU kernels compute in with matrices of that dtype, unless they are asked for something else.
    pub(crate) const fn of(dtype: DType) -> Self {
        match dtype {
            DType::Float32 | DType::Float16 => Self::Float32,
            DType::BFloat16 => Self::BFloat16,
            DType::Int16 => Self::Int16,
            DType::Int8 => Self::Int8,
        }
    }

    /// What a model whose matrices are stored in that dtype is computed in; never [`Auto`](Self::Auto).
    pub(crate) fn chosen(self, stored: DType) -> Self {
        match (self, Self::of(stored)) {
            (Self::Auto, Self::Float32) => Isa::chosen().preferred(),
            (Self::Auto, coarser) => coarser,
            (chosen, _) => chosen,
        }
    }

    /// The dtype that its matrices must have to be computed so; `None` is the one that they have.
    pub(crate) fn dtype_for(self, stored: DType) -> Option<DType> {
        let needed = match self.chosen(stored) {
            Self::Auto | Self::Float32 if stored == DType::Float32 => stored,
            // Its rounding is far below that of the coarser numbers which the model is made from.
            Self::Auto | Self::Float32 | Self::Float16 => DType::Float16,
            Self::BFloat16 => DType::BFloat16,
            Self::Int16 => DType::Int16,
            Self::Int8 => DType::Int8,
        };
        (needed != stored).then_some(needed)
    }

    /// What the weights on a device have to be made for; `None` takes them as they are.
    ///
    /// # Errors
    /// If the device does not compute so.
    pub(crate) fn on_device(self, device: &str) -> Result<Option<Self>> {
        match self {
            _ if device == "cpu" => Ok(Some(self)),
            // Other devices get float32 numbers from weights of any dtype.
            Self::Auto | Self::Float32 => Ok(None),
            Self::Float16 | Self::BFloat16 | Self::Int16 | Self::Int8 => Err(Error::argument(
                "compute",
                format!(
                    "is {self}; device {device:?} allows auto and float32, only cpu the others"
                ),
            )),
        }
    }
}

impl FromStr for Compute {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|compute| compute.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::argument("compute", format!("is {name:?}, allowed are {names}"))
        })
    }
}

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_from_the_stored_form_is_made_anew() {
        use DType::{BFloat16, Float16, Float32, Int8, Int16};
        let chosen = |compute: Compute, stored| (compute.chosen(stored), compute.dtype_for(stored));
        for stored in [Float32, Float16, BFloat16, Int16, Int8] {
            let compute = Compute::of(stored);
            assert_eq!(chosen(compute, stored), (compute, None));
            let other = (stored != Float16).then_some(Float16);
            assert_eq!(chosen(Compute::Float16, stored), (Compute::Float16, other));
        }
        for stored in [BFloat16, Int16, Int8] {
            assert_eq!(chosen(Compute::Float32, stored), (Compute::Float32, Some(Float16)));
            assert_eq!(chosen(Compute::Auto, stored), (Compute::of(stored), None));
        }
        for stored in [Float32, Float16] {
            let preferred = Isa::chosen().preferred();
            assert_eq!(chosen(Compute::Auto, stored), (preferred, preferred.dtype_for(stored)));
            assert_ne!(preferred, Compute::Auto);
        }
        assert_eq!(Compute::Int16.dtype_for(Float32), Some(Int16));
        assert_eq!(Compute::Int8.dtype_for(Int16), Some(Int8));
        assert_eq!(Compute::BFloat16.dtype_for(Float16), Some(BFloat16));
    }

    #[test]
    fn every_name_is_understood() {
        for compute in Compute::ALL {
            assert_eq!(compute.name().parse::<Compute>().unwrap(), compute);
        }
    }

    #[test]
    fn wrong_names_and_devices_are_told_what_is_allowed() {
        let error = "int4".parse::<Compute>().unwrap_err().to_string();
        assert_eq!(
            error,
            "compute: is \"int4\", allowed are auto, float32, float16, bfloat16, int16, int8"
        );
        let error = Compute::Int8.on_device("cuda:1").unwrap_err().to_string();
        assert!(error.starts_with("compute: is int8; device \"cuda:1\" allows auto"), "{error}");
        assert_eq!(Compute::Auto.on_device("cuda").unwrap(), None);
        assert_eq!(Compute::Int8.on_device("cpu").unwrap(), Some(Compute::Int8));
    }
}
