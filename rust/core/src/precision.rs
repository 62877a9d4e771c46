//! Smaller number formats for finished vectors, as sentence-transformers' `quantize_embeddings` has
//! them.

use std::str::FromStr;

use half::f16;

use crate::error::{Error, Result};

/// Number format of finished vectors.
///
/// ```
/// use arrowembed::Precision;
/// assert_eq!("int8".parse::<Precision>()?, Precision::Int8);
/// # Ok::<(), arrowembed::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As computed.
    Float32,
    /// IEEE half precision.
    Float16,
    /// 256 steps between the lowest and highest value of each dimension, from -128.
    Int8,
    /// The same from 0.
    Uint8,
    /// One bit for each dimension, 1 where it is above zero, highest bit first; bytes less 128.
    Binary,
    /// The same, bytes as they are.
    Ubinary,
}

impl Precision {
    const ALL: [Self; 6] =
        [Self::Float32, Self::Float16, Self::Int8, Self::Uint8, Self::Binary, Self::Ubinary];

    /// The name used in arguments.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
            Self::Binary => "binary",
            Self::Ubinary => "ubinary",
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|precision| precision.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::argument("precision", format!("is {name:?}, allowed are {names}"))
        })
    }
}

/// Vectors in the format asked for, row after row.
#[derive(Debug, Clone, PartialEq)]
pub enum Quantized {
    /// [`Precision::Float32`].
    Float32(Vec<f32>),
    /// [`Precision::Float16`].
    Float16(Vec<f16>),
    /// [`Precision::Int8`] and, with an eighth of the columns, [`Precision::Binary`].
    Int8(Vec<i8>),
    /// [`Precision::Uint8`] and, with an eighth of the columns, [`Precision::Ubinary`].
    Uint8(Vec<u8>),
}

/// The lowest and highest value of each dimension, between which the integer formats lay their steps.
#[derive(Debug, Clone, Copy)]
pub struct Ranges<'a> {
    /// Lowest values, one for each dimension.
    pub low: &'a [f32],
    /// Highest values, one for each dimension.
    pub high: &'a [f32],
}

/// Brings `embeddings`, rows of `dim` numbers, into another number format.
///
/// `int8` and `uint8` lay 255 equal steps between the lowest and the highest value of each dimension,
/// those of `ranges` or else those found in `embeddings`, and round towards zero. A value outside a
/// given range becomes the lowest or highest number (where NumPy would wrap around). A dimension whose
/// range has no width becomes 0. Binary rows are padded with zero bits to whole bytes.
///
/// ```
/// use arrowembed::{Precision, Quantized, quantize};
/// let vectors = [0.0, 51.0, 255.0, 0.0];
/// assert_eq!(quantize(&vectors, 2, Precision::Uint8, None)?, Quantized::Uint8(vec![0, 255, 255, 0]));
/// assert_eq!(quantize(&vectors, 2, Precision::Ubinary, None)?, Quantized::Uint8(vec![64, 128]));
/// # Ok::<(), arrowembed::Error>(())
/// ```
///
/// # Errors
/// [`Error::InvalidArgument`] if `embeddings` are not whole rows, if ranges do not fit them, or, in the
/// integer and binary formats, if a value is not finite.
pub fn quantize(
    embeddings: &[f32],
    dim: usize,
    precision: Precision,
    ranges: Option<Ranges<'_>>,
) -> Result<Quantized> {
    if dim == 0 || !embeddings.len().is_multiple_of(dim) {
        return Err(Error::argument(
            "embeddings",
            format!("{} numbers are not rows of {dim}", embeddings.len()),
        ));
    }
    if !matches!(precision, Precision::Float32 | Precision::Float16)
        && let Some(i) = embeddings.iter().position(|x| !x.is_finite())
    {
        let (row, column, value) = (i / dim, i % dim, embeddings[i]);
        return Err(Error::argument(
            "embeddings",
            format!(
                "row {row}, column {column} is {value}, {} needs finite numbers",
                precision.name()
            ),
        ));
    }
    Ok(match precision {
        Precision::Float32 => Quantized::Float32(embeddings.to_vec()),
        Precision::Float16 => {
            Quantized::Float16(embeddings.iter().map(|&x| f16::from_f32(x)).collect())
        }
        // `as` rounds towards zero, saturates and makes NaN (a range without width) 0.
        Precision::Int8 => Quantized::Int8(scaled(embeddings, dim, ranges, |x| (x - 128.0) as i8)?),
        Precision::Uint8 => Quantized::Uint8(scaled(embeddings, dim, ranges, |x| x as u8)?),
        Precision::Binary => {
            Quantized::Int8(packed_bits(embeddings, dim).map(|b| (b ^ 128) as i8).collect())
        }
        Precision::Ubinary => Quantized::Uint8(packed_bits(embeddings, dim).collect()),
    })
}

/// `round((x - low) / step)` for every value, in the single-precision arithmetic of NumPy.
fn scaled<T>(
    embeddings: &[f32],
    dim: usize,
    ranges: Option<Ranges<'_>>,
    round: impl Fn(f32) -> T,
) -> Result<Vec<T>> {
    let found;
    let ranges = if let Some(ranges) = ranges {
        check(&ranges, dim)?;
        ranges
    } else {
        found = extremes(embeddings, dim);
        Ranges { low: &found.0, high: &found.1 }
    };
    let steps: Vec<f32> =
        ranges.low.iter().zip(ranges.high).map(|(low, high)| (high - low) / 255.0).collect();
    let columns = || ranges.low.iter().zip(&steps);
    Ok(embeddings
        .chunks_exact(dim)
        .flat_map(|row| row.iter().zip(columns()))
        .map(|(x, (low, step))| if *step > 0.0 { (x - low) / step } else { f32::NAN })
        .map(round)
        .collect())
}

fn check(ranges: &Ranges<'_>, dim: usize) -> Result<()> {
    if ranges.low.len() != dim || ranges.high.len() != dim {
        return Err(Error::argument(
            "ranges",
            format!(
                "have {} lowest and {} highest values, the vectors have {dim} dimensions",
                ranges.low.len(),
                ranges.high.len()
            ),
        ));
    }
    for (i, (low, high)) in ranges.low.iter().zip(ranges.high).enumerate() {
        if !(low.is_finite() && high.is_finite() && low <= high) {
            return Err(Error::argument(
                "ranges",
                format!(
                    "dimension {i} goes from {low} to {high}; give finite numbers, lowest first"
                ),
            ));
        }
    }
    Ok(())
}

/// The lowest and the highest value of each column.
fn extremes(embeddings: &[f32], dim: usize) -> (Vec<f32>, Vec<f32>) {
    let mut low = vec![f32::INFINITY; dim];
    let mut high = vec![f32::NEG_INFINITY; dim];
    for row in embeddings.chunks_exact(dim) {
        for ((low, high), &x) in low.iter_mut().zip(&mut high).zip(row) {
            *low = low.min(x);
            *high = high.max(x);
        }
    }
    (low, high)
}

/// For each row its signs, eight to a byte, as NumPy's `packbits` along the last axis.
fn packed_bits(embeddings: &[f32], dim: usize) -> impl Iterator<Item = u8> {
    embeddings.chunks_exact(dim).flat_map(|row| {
        row.chunks(8).map(|group| {
            group.iter().enumerate().fold(0, |byte, (i, &x)| byte | (u8::from(x > 0.0) << (7 - i)))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows whose integers below come from sentence-transformers' formula, run in NumPy.
    const ROWS: [f32; 12] = [
        0.1, -0.2, 0.3, 0.4, //
        -0.5, 0.25, 0.0, 0.4, //
        0.7, -0.1, -0.3, 0.4,
    ];

    #[test]
    fn integers_follow_the_formula_of_sentence_transformers() {
        let Quantized::Uint8(unsigned) = quantize(&ROWS, 4, Precision::Uint8, None).unwrap() else {
            unreachable!()
        };
        assert_eq!(unsigned, [127, 0, 255, 0, 0, 255, 127, 0, 255, 56, 0, 0]);
        let Quantized::Int8(signed) = quantize(&ROWS, 4, Precision::Int8, None).unwrap() else {
            unreachable!()
        };
        assert_eq!(signed, [0, -128, 127, 0, -128, 127, 0, 0, 127, -71, -128, 0]);
    }

    #[test]
    fn values_outside_given_ranges_saturate() {
        let ranges = Some(Ranges { low: &[-1.0], high: &[1.0] });
        // In single precision 2 / (2 / 255) is a little below 255, in NumPy too.
        let rows = [-9.0, -1.0, 0.0, 1.0, 9.0];
        assert_eq!(
            quantize(&rows, 1, Precision::Uint8, ranges).unwrap(),
            Quantized::Uint8(vec![0, 0, 127, 254, 255])
        );
        assert_eq!(
            quantize(&rows, 1, Precision::Int8, ranges).unwrap(),
            Quantized::Int8(vec![-128, -128, 0, 126, 127])
        );
    }

    #[test]
    fn bits_are_packed_row_by_row_and_padded() {
        let mut rows = vec![-1.0_f32; 20];
        rows[0] = 1.0;
        rows[9] = 1.0;
        rows[10] = 0.0;
        rows[19] = 0.5;
        let unsigned = vec![0b1000_0000, 0b0100_0000, 0, 0b0100_0000];
        assert_eq!(
            quantize(&rows, 10, Precision::Ubinary, None).unwrap(),
            Quantized::Uint8(unsigned)
        );
        assert_eq!(
            quantize(&rows, 10, Precision::Binary, None).unwrap(),
            Quantized::Int8(vec![0, -64, -128, -64])
        );
    }

    #[test]
    fn floats_are_rounded_and_keep_what_is_not_finite() {
        let rows = [0.1, f32::NAN];
        let Quantized::Float16(half) = quantize(&rows, 2, Precision::Float16, None).unwrap() else {
            unreachable!()
        };
        assert_eq!(half[0], f16::from_f32(0.1));
        assert!(half[1].is_nan());
        assert_eq!(
            quantize(&rows[..1], 1, Precision::Float32, None).unwrap(),
            Quantized::Float32(vec![0.1])
        );
    }

    #[test]
    fn no_rows_give_no_rows() {
        assert_eq!(quantize(&[], 4, Precision::Int8, None).unwrap(), Quantized::Int8(vec![]));
    }

    #[test]
    fn bad_arguments_are_named() {
        let message = |rows: &[f32], dim, ranges| {
            quantize(rows, dim, Precision::Int8, ranges).unwrap_err().to_string()
        };
        assert!(message(&ROWS, 5, None).contains("12 numbers are not rows of 5"));
        assert!(message(&ROWS, 0, None).contains("rows of 0"));
        assert!(message(&[0.0, 1.0, f32::NAN], 1, None).contains("row 2, column 0 is NaN"));
        let short = Ranges { low: &[0.0], high: &[1.0] };
        assert!(message(&ROWS, 4, Some(short)).contains("4 dimensions"));
        let upside_down = Ranges { low: &[1.0], high: &[0.0] };
        assert!(message(&[0.5], 1, Some(upside_down)).contains("dimension 0 goes from 1 to 0"));
    }
}
