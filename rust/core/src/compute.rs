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
    /// [`Int16`](Self::Int16) where that is faster than float32, for a model of floating-point weights on the
    /// CPU; else as the model is stored.
    Auto,
    /// float32, from weights of any dtype.
    Float32,
    /// Weights of 8 bits precision. Processors with AMX round what they are multiplied with too, and
    /// are twice as fast; others compute in float32.
    BFloat16,
    /// Integers of 12 bits with exact sums: as good as lossless.
    Int16,
    /// Integers of 8 bits with exact sums: the smallest, with a loss that can be measured.
    Int8,
}

impl Compute {
    const ALL: [Self; 5] = [Self::Auto, Self::Float32, Self::BFloat16, Self::Int16, Self::Int8];

    /// The name used in arguments.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Float32 => "float32",
            Self::BFloat16 => "bfloat16",
            Self::Int16 => "int16",
            Self::Int8 => "int8",
        }
    }

    /// What the CPU kernels compute in with matrices of that dtype.
    pub(crate) const fn of(dtype: DType) -> Self {
        match dtype {
            DType::Float32 | DType::Float16 => Self::Float32,
            DType::BFloat16 => Self::BFloat16,
            DType::Int16 => Self::Int16,
            DType::Int8 => Self::Int8,
        }
    }

    /// The dtype that a model must be stored in to be computed so; `None` is the one that it has.
    pub(crate) fn dtype_for(self, stored: Self) -> Option<DType> {
        match self {
            _ if self == stored => None,
            Self::Auto if stored != Self::Float32 => None,
            Self::Auto => Isa::chosen().preferred(),
            Self::BFloat16 => Some(DType::BFloat16),
            Self::Int16 => Some(DType::Int16),
            Self::Int8 => Some(DType::Int8),
            // Its rounding is far below that of the coarser numbers which the model is made from.
            Self::Float32 => Some(DType::Float16),
        }
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
            Self::BFloat16 | Self::Int16 | Self::Int8 => Err(Error::argument(
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
        let [_, float32, bfloat16, int16, int8] = Compute::ALL;
        for compute in [float32, bfloat16, int16, int8] {
            assert_eq!(compute.dtype_for(compute), None);
            assert_eq!(compute.name().parse::<Compute>().unwrap(), compute);
        }
        for stored in [bfloat16, int16, int8] {
            assert_eq!(float32.dtype_for(stored), Some(DType::Float16));
            assert_eq!(Compute::Auto.dtype_for(stored), None);
        }
        assert_eq!(int16.dtype_for(float32), Some(DType::Int16));
        assert_eq!(int8.dtype_for(int16), Some(DType::Int8));
        assert_eq!(bfloat16.dtype_for(float32), Some(DType::BFloat16));
        assert_eq!(Compute::Auto.dtype_for(float32), Isa::chosen().preferred());
    }

    #[test]
    fn wrong_names_and_devices_are_told_what_is_allowed() {
        let error = "int4".parse::<Compute>().unwrap_err().to_string();
        assert_eq!(error, "compute: is \"int4\", allowed are auto, float32, bfloat16, int16, int8");
        let error = Compute::Int8.on_device("cuda:1").unwrap_err().to_string();
        assert!(error.starts_with("compute: is int8; device \"cuda:1\" allows auto"), "{error}");
        assert_eq!(Compute::Auto.on_device("cuda").unwrap(), None);
        assert_eq!(Compute::Int8.on_device("cpu").unwrap(), Some(Compute::Int8));
    }
}
