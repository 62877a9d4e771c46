//! Tensors as float32 numbers, and numbers as the elements of a tensor.

use arrow_buffer::Buffer;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::quantize::{self, Integers};
use super::{DType, Layout, Tensor, TensorSource, panels, scale_name, sum_name};
use crate::error::{Error, Result};

/// A tensor and its numbers, row-major whatever its layout; int8 is multiplied by its scales.
///
/// # Errors
/// If the tensor or its scales are missing or cannot be read, or memory runs out.
pub(crate) fn read_f32(source: &dyn TensorSource, name: &str) -> Result<(Tensor, Vec<f32>)> {
    let tensor = source.require(name)?;
    let stored = elements_as_f32(&tensor)?;
    let mut values = match (tensor.layout.group(), tensor.shape.as_slice()) {
        (Some(group), &[out_features, in_features]) => {
            panels::unpack(&stored, out_features, in_features, group)
        }
        _ => stored,
    };
    if matches!(tensor.dtype, DType::Int16 | DType::Int8) {
        let scales = source.require(&scale_name(name))?;
        let rows = tensor.shape.first().copied().unwrap_or(1);
        let width = values.len().checked_div(rows).unwrap_or(0).max(1);
        if tensor.layout.has_blocks() {
            scales.expect_shape(&[width.div_ceil(panels::BLOCK), rows])?;
            quantize::dequantize(&mut values, &elements_as_f32(&scales)?, width);
        } else {
            scales.expect_shape(&[rows])?;
            for (row, scale) in values.chunks_exact_mut(width).zip(elements_as_f32(&scales)?) {
                for value in row {
                    *value *= scale;
                }
            }
        }
    }
    Ok((tensor, values))
}

/// The stored elements in stored order, padding included.
fn elements_as_f32(tensor: &Tensor) -> Result<Vec<f32>> {
    let bytes = tensor.data.as_slice();
    let mut values = Vec::new();
    let elements = bytes.len() / tensor.dtype.size();
    values.try_reserve_exact(elements).map_err(|_| Error::OutOfMemory {
        reason: format!("{elements} float32 values of tensor {:?}", tensor.name),
    })?;
    match tensor.dtype {
        DType::Float32 => values.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
        DType::Float16 => {
            // In pieces, for the processor's conversion of many halves at once.
            for piece in bytes.chunks(8192) {
                let halves: Vec<f16> =
                    piece.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b)).collect();
                values.extend(halves.to_f32_vec());
            }
        }
        DType::BFloat16 => {
            let wide = |&b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16);
            values.extend(bytes.as_chunks().0.iter().map(wide));
        }
        DType::Int16 => {
            values.extend(bytes.as_chunks().0.iter().map(|&b| f32::from(i16::from_le_bytes(b))));
        }
        DType::Int8 => values.extend(bytes.iter().map(|&b| f32::from(b as i8))),
    }
    Ok(values)
}

/// Largest relative error with which float16 replaces float32. Rounding to 11 bits gives at most
/// 4.9e-4; more means that values fell among the subnormals, below 6e-5.
const FLOAT16_BOUND: f64 = 1e-3;

/// Largest relative error with which bfloat16 replaces float32. Rounding to 8 bits gives at most 3.9e-3.
const BFLOAT16_BOUND: f64 = 4e-3;

/// Largest relative error with which int16 replaces float32. Blocks of Gaussian weights give about 9e-5, as do
/// the matrices of all-MiniLM-L6-v2, and rounding to float16 about 2e-4. Of whatever numbers, rounding a block of 384 gives
/// at most 3.0e-4: only subnormal scales have more.
const INT16_BOUND: f64 = 1e-3;

/// Largest relative error with which int8 replaces float32. Blocks of Gaussian weights give about 1e-2. Of
/// all-MiniLM-L6-v2, matrices have up to 1.4e-2 in panels and 2.1e-2 with a scale for each row, and the tables of
/// words and positions up to 1.1e-2. The token type table would have 3.4e-2: a few outliers have taken
/// its range, and its first row is added to every token; it is small and better off in float32.
const INT8_BOUND: f64 = 3e-2;

/// A tensor's elements in the dtype they will be stored in.
pub(crate) struct Encoded {
    pub(crate) dtype: DType,
    pub(crate) layout: Layout,
    pub(crate) data: Buffer,
    /// What belongs to integers: the end of its name, its shape and its numbers.
    pub(crate) companions: Vec<Companion>,
    /// Euclidean norm of the rounding error over that of the values.
    pub(crate) relative_error: f64,
    /// Why this is float32 though something else was asked for.
    pub(crate) fallback: Option<String>,
}

/// Scales or sums of a tensor of integers.
pub(crate) struct Companion {
    pub(crate) name: fn(&str) -> String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// Stores row-major numbers, rows of `width`, in a dtype; `packed` in panels.
///
/// Where the dtype would overflow or lose more than its bound, float32 is used instead and the
/// result says why. bfloat16 and int16 are for matrices in panels; other tensors are stored as float16 with
/// them.
pub(crate) fn encode(values: Vec<f32>, width: usize, dtype: DType, packed: bool) -> Encoded {
    let attempt = match dtype {
        DType::Float32 => None,
        DType::BFloat16 if packed => Some(encode_bf16(&values, width)),
        DType::Int16 if packed => Some(encode_int16(&values, width)),
        DType::Float16 | DType::BFloat16 | DType::Int16 => Some(encode_f16(&values, width, packed)),
        DType::Int8 if packed => Some(encode_int8(&values, width)),
        DType::Int8 => Some(encode_int8_rows(&values, width)),
    };
    let fallback = match attempt {
        Some(Ok(encoded)) => return encoded,
        Some(Err(reason)) => Some(reason),
        None => None,
    };
    let dtype = DType::Float32;
    let (layout, data) = arrange(values, width, dtype, packed);
    Encoded { dtype, layout, data, companions: Vec::new(), relative_error: 0.0, fallback }
}

fn arrange<T>(values: Vec<T>, width: usize, dtype: DType, packed: bool) -> (Layout, Buffer)
where
    T: Copy + Default + arrow_buffer::ArrowNativeType,
{
    let panels = Layout::panels_of(dtype);
    match panels.group() {
        Some(group) if packed => (panels, Buffer::from_vec(panels::pack(&values, width, group))),
        _ => (Layout::RowMajor, Buffer::from_vec(values)),
    }
}

fn encode_f16(values: &[f32], width: usize, packed: bool) -> Result<Encoded, String> {
    if let Some(value) = values.iter().find(|value| value.abs() > f16::MAX.to_f32()) {
        return Err(format!("{value} overflows float16, whose largest number is 65504"));
    }
    let mut halves = vec![f16::ZERO; values.len()];
    halves.convert_from_f32_slice(values);
    let rounded = halves.to_f32_vec();
    let dtype = DType::Float16;
    let relative_error = bounded_error(values, rounded.iter().copied(), dtype, FLOAT16_BOUND)?;
    let (layout, data) = arrange(halves, width, dtype, packed);
    Ok(Encoded { dtype, layout, data, companions: Vec::new(), relative_error, fallback: None })
}

fn encode_bf16(values: &[f32], width: usize) -> Result<Encoded, String> {
    if let Some(value) = values.iter().find(|value| value.abs() > bf16::MAX.to_f32()) {
        return Err(format!("{value} overflows bfloat16, whose largest number is 3.39e38"));
    }
    let rounded: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
    let dtype = DType::BFloat16;
    let read = rounded.iter().map(|value| value.to_f32());
    let relative_error = bounded_error(values, read, dtype, BFLOAT16_BOUND)?;
    let bits = rounded.into_iter().map(bf16::to_bits).collect();
    let (layout, data) = arrange::<u16>(bits, width, dtype, true);
    Ok(Encoded { dtype, layout, data, companions: Vec::new(), relative_error, fallback: None })
}

fn encode_int16(values: &[f32], width: usize) -> Result<Encoded, String> {
    encode_integers(values, width, DType::Int16, INT16_BOUND, quantize::int16(values, width))
}

fn encode_int8(values: &[f32], width: usize) -> Result<Encoded, String> {
    encode_integers(values, width, DType::Int8, INT8_BOUND, quantize::int8(values, width))
}

fn encode_integers<T>(
    values: &[f32],
    width: usize,
    dtype: DType,
    bound: f64,
    integers: Integers<T>,
) -> Result<Encoded, String>
where
    T: Copy + Default + Into<f32> + arrow_buffer::ArrowNativeType,
{
    let Integers { values: quantized, scales, sums } = integers;
    let mut rounded: Vec<f32> = quantized.iter().map(|&q| q.into()).collect();
    quantize::dequantize(&mut rounded, &scales, width);
    let relative_error = bounded_error(values, rounded.into_iter(), dtype, bound)?;
    let blocks = width.div_ceil(panels::BLOCK);
    let shape = vec![blocks, scales.len().checked_div(blocks).unwrap_or(0)];
    let (layout, data) = arrange(quantized, width, dtype, true);
    let companions = vec![
        Companion { name: scale_name, shape: shape.clone(), values: scales },
        Companion { name: sum_name, shape, values: sums },
    ];
    Ok(Encoded { dtype, layout, data, companions, relative_error, fallback: None })
}

/// Symmetric: in each row the largest absolute value becomes 127.
fn encode_int8_rows(values: &[f32], width: usize) -> Result<Encoded, String> {
    let width = width.max(1);
    let scales: Vec<f32> = values
        .chunks_exact(width)
        .map(|row| row.iter().fold(0.0_f32, |most, value| most.max(value.abs())) / 127.0)
        // A row of zeros has any scale; 1 keeps readers that divide by it from dividing by zero.
        .map(|scale| if scale > 0.0 { scale } else { 1.0 })
        .collect();
    let scale_of = scales.iter().flat_map(|&scale| std::iter::repeat_n(scale, width));
    let quantised: Vec<i8> = values
        .iter()
        .zip(scale_of.clone())
        .map(|(value, scale)| (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8)
        .collect();
    let rounded = quantised.iter().zip(scale_of).map(|(&q, scale)| f32::from(q) * scale);
    let dtype = DType::Int8;
    let relative_error = bounded_error(values, rounded, dtype, INT8_BOUND)?;
    let (layout, data) = arrange(quantised, width, dtype, false);
    let companions =
        vec![Companion { name: scale_name, shape: vec![scales.len()], values: scales }];
    Ok(Encoded { dtype, layout, data, companions, relative_error, fallback: None })
}

/// The relative error, or why it is too large.
fn bounded_error(
    values: &[f32],
    rounded: impl Iterator<Item = f32>,
    dtype: DType,
    bound: f64,
) -> Result<f64, String> {
    let error = relative_error(values, rounded);
    if error <= bound {
        return Ok(error);
    }
    Err(format!("{} has a relative error of {error:.1e}, allowed is {bound:.0e}", dtype.name()))
}

fn relative_error(values: &[f32], rounded: impl Iterator<Item = f32>) -> f64 {
    let (mut error, mut norm) = (0.0_f64, 0.0_f64);
    for (&value, rounded) in values.iter().zip(rounded) {
        let (value, rounded) = (f64::from(value), f64::from(rounded));
        error += (value - rounded) * (value - rounded);
        norm += value * value;
    }
    if error == 0.0 { 0.0 } else { (error / norm).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::memory::InMemory;

    /// The numbers that come back from a matrix stored so.
    fn stored_and_read(encoded: Encoded, shape: &[usize]) -> Vec<f32> {
        let mut source = InMemory::default();
        for companion in encoded.companions {
            source = source.with(&(companion.name)("w"), &companion.shape, companion.values);
        }
        let (dtype, layout) = (encoded.dtype, encoded.layout);
        let tensor = Tensor {
            name: "w".to_owned(),
            shape: shape.to_vec(),
            dtype,
            layout,
            data: encoded.data,
        };
        assert_eq!(Tensor::byte_len(shape, dtype, layout), Some(tensor.data.len()));
        source.0.insert("w".to_owned(), tensor);
        let (tensor, values) = read_f32(&source, "w").unwrap();
        assert_eq!(tensor.shape, shape);
        values
    }

    fn matrix(rows: usize, columns: usize) -> Vec<f32> {
        (0..rows * columns).map(|i| ((i * 7919 % 1009) as f32 - 504.0) / 4096.0).collect()
    }

    #[test]
    fn numbers_come_back_within_the_dtypes_rounding_in_every_layout() {
        let (rows, columns) = (19, 11);
        let values = matrix(rows, columns);
        let largest = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
        for packed in [false, true] {
            for (dtype, tolerance) in [
                (DType::Float32, 0.0),
                (DType::Float16, largest / 2048.0),
                (DType::BFloat16, largest / 256.0),
                (DType::Int16, largest / 32767.0),
                // The sum of two neighbours may set the scale.
                (DType::Int8, largest / 127.0 * 1.001),
            ] {
                let encoded = encode(values.clone(), columns, dtype, packed);
                if packed {
                    assert_eq!((encoded.dtype, encoded.layout), (dtype, Layout::panels_of(dtype)));
                } else if matches!(dtype, DType::BFloat16 | DType::Int16) {
                    assert_eq!(encoded.dtype, DType::Float16);
                } else {
                    assert_eq!((encoded.dtype, encoded.layout), (dtype, Layout::RowMajor));
                }
                let read = stored_and_read(encoded, &[rows, columns]);
                for (value, read) in values.iter().zip(read) {
                    assert!((value - read).abs() <= tolerance, "{dtype:?} {value} {read}");
                }
            }
        }
    }

    #[test]
    fn the_relative_error_is_that_of_what_is_read_back() {
        let values = matrix(16, 24);
        let encoded = encode(values.clone(), 24, DType::Int8, false);
        let reported = encoded.relative_error;
        let read = stored_and_read(encoded, &[16, 24]);
        assert!(reported > 1e-3);
        assert!((relative_error(&values, read.into_iter()) - reported).abs() < 1e-12);
    }

    #[test]
    fn integers_in_panels_of_floats_have_a_scale_for_each_row() {
        let (rows, width) = (19, 11);
        let Encoded { data, mut companions, .. } =
            encode(matrix(rows, width), width, DType::Int8, false);
        let source = |layout, data| {
            let mut source = InMemory::default().with("w", &[rows, width], Vec::new());
            let tensor = source.0.get_mut("w").unwrap();
            (tensor.dtype, tensor.layout, tensor.data) = (DType::Int8, layout, data);
            source
        };
        let panels = Buffer::from_vec(panels::pack(data.typed_data::<i8>(), width, 1));
        let scales = companions.remove(0).values;
        let [expected, found] = [(Layout::RowMajor, data), (Layout::Panel16, panels)]
            .map(|(layout, data)| source(layout, data).with("w.scale", &[rows], scales.clone()))
            .map(|source| read_f32(&source, "w").unwrap().1);
        assert_eq!(expected, found);
    }

    #[test]
    fn bfloat16_is_the_upper_half_of_a_float32() {
        let mut source = InMemory::default().with("w", &[3], Vec::new());
        let tensor = source.0.get_mut("w").unwrap();
        tensor.dtype = DType::BFloat16;
        tensor.data = Buffer::from_vec(vec![0x3f80_u16, 0xc049, 0x0000]);
        assert_eq!(read_f32(&source, "w").unwrap().1, [1.0, -3.140_625, 0.0]);
    }

    #[test]
    fn bfloat16_falls_back_where_it_overflows_or_loses_too_much() {
        for (value, reason) in [(f32::MAX, "overflows bfloat16"), (1e-40, "relative error")] {
            let encoded = encode(vec![value; 32], 16, DType::BFloat16, true);
            assert_eq!((encoded.dtype, encoded.layout), (DType::Float32, Layout::Panel16));
            assert!(encoded.fallback.unwrap().contains(reason));
        }
    }

    #[test]
    fn float16_falls_back_where_it_overflows() {
        let mut values = matrix(2, 8);
        values[3] = 65_504.0;
        assert_eq!(encode(values.clone(), 8, DType::Float16, false).fallback, None);
        values[3] = -65_505.0;
        let encoded = encode(values.clone(), 8, DType::Float16, false);
        assert_eq!(encoded.dtype, DType::Float32);
        assert!(encoded.fallback.as_ref().unwrap().contains("-65505"), "{:?}", encoded.fallback);
        assert_eq!(stored_and_read(encoded, &[2, 8]), values);
    }

    #[test]
    fn float16_falls_back_where_its_subnormals_lose_too_much() {
        let values: Vec<f32> = matrix(4, 8).iter().map(|v| v * 1e-5).collect();
        let encoded = encode(values, 8, DType::Float16, false);
        assert_eq!(encoded.dtype, DType::Float32);
        assert!(encoded.fallback.unwrap().contains("relative error"));
    }

    #[test]
    fn int8_falls_back_where_outliers_take_the_range() {
        let mut values = matrix(4, 384);
        for row in values.chunks_exact_mut(384) {
            row[5] = 3.0;
        }
        let encoded = encode(values, 384, DType::Int8, true);
        assert_eq!(encoded.dtype, DType::Float32);
        assert!(encoded.companions.is_empty());
        assert!(encoded.fallback.unwrap().contains("int8"));
    }

    #[test]
    fn a_row_of_zeros_has_scale_one() {
        let mut values = matrix(2, 8);
        values[..8].fill(0.0);
        let encoded = encode(values.clone(), 8, DType::Int8, false);
        assert_eq!(encoded.companions[0].values[0].to_bits(), 1.0_f32.to_bits());
        assert_eq!(stored_and_read(encoded, &[2, 8])[..8], values[..8]);
    }

    #[test]
    fn int8_without_its_scales_is_an_error() {
        let encoded = encode(matrix(2, 8), 8, DType::Int8, false);
        let mut source = InMemory::default().with("w", &[2, 8], Vec::new());
        let tensor = source.0.get_mut("w").unwrap();
        (tensor.dtype, tensor.data) = (DType::Int8, encoded.data);
        assert_eq!(read_f32(&source, "w").unwrap_err().code(), "missing_tensor");
        let source = source.with("w.scale", &[3], vec![1.0; 3]);
        assert_eq!(read_f32(&source, "w").unwrap_err().code(), "shape_mismatch");
    }
}
