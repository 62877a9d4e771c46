//! The table that a model file is: its columns, and a row of it as a tensor.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, Int32Array, Int64Array, LargeBinaryArray, ListArray, PrimitiveArray,
    RecordBatch, StringArray,
};
use arrow_buffer::{Buffer, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, Field, Schema};

use super::panels::BLOCK;
use super::{DType, Layout, Tensor, scale_name, sum_name};
use crate::error::{Error, Result};

/// Position of the `data` column.
pub(crate) const DATA: usize = 3;

/// The columns of a model file.
pub(crate) fn schema() -> Schema {
    Schema::new(vec![
        Field::new("layer_name", DataType::Utf8, false),
        Field::new("shape", DataType::List(Arc::new(shape_item())), false),
        Field::new("dtype", DataType::Utf8, false),
        Field::new("data", DataType::LargeBinary, false),
        Field::new("num_params", DataType::Int64, false),
        Field::new("layout", DataType::Utf8, false),
    ])
}

fn shape_item() -> Field {
    Field::new("item", DataType::Int32, false)
}

/// A tensor as a batch of one row, sharing its memory.
///
/// # Errors
/// If a dimension does not fit into an int32 or the data into what Arrow allows.
pub(crate) fn to_batch(tensor: &Tensor, schema: Arc<Schema>) -> Result<RecordBatch, ArrowError> {
    let too_large = |what: &str| {
        ArrowError::InvalidArgumentError(format!("tensor {:?}: {what} is too large", tensor.name))
    };
    let shape: Vec<i32> = tensor
        .shape
        .iter()
        .map(|&d| i32::try_from(d))
        .collect::<Result<_, _>>()
        .map_err(|_| too_large("a dimension"))?;
    let parameters = tensor
        .shape
        .iter()
        .try_fold(1_i64, |n, &d| n.checked_mul(i64::try_from(d).ok()?))
        .ok_or_else(|| too_large("the shape"))?;
    let shapes = ListArray::try_new(
        Arc::new(shape_item()),
        OffsetBuffer::from_lengths([shape.len()]),
        Arc::new(Int32Array::from(shape)),
        None,
    )?;
    let data = LargeBinaryArray::try_new(
        OffsetBuffer::from_lengths([tensor.data.len()]),
        tensor.data.clone(),
        None,
    )?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![tensor.name.as_str()])),
        Arc::new(shapes),
        Arc::new(StringArray::from(vec![tensor.dtype.name()])),
        Arc::new(data),
        Arc::new(Int64Array::from(vec![parameters])),
        Arc::new(StringArray::from(vec![tensor.layout.name()])),
    ];
    RecordBatch::try_new(schema, columns)
}

/// A row without its data: a tensor that is not read yet.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: DType,
    pub(crate) layout: Layout,
}

impl Row {
    /// Checks that the data has the length that shape, dtype and layout ask for.
    pub(crate) fn check_len(&self, bytes: usize, path: &Path) -> Result<()> {
        let expected = Tensor::byte_len(&self.shape, self.dtype, self.layout);
        if expected == Some(bytes) {
            return Ok(());
        }
        Err(Error::invalid_file(
            path,
            format!(
                "tensor {:?} of shape {:?}, {}, {} has {bytes} bytes of data, expected are {}",
                self.name,
                self.shape,
                self.dtype.name(),
                self.layout.name(),
                expected.map_or_else(|| "more than there can be".to_owned(), |n| n.to_string()),
            ),
        ))
    }

    /// The tensor with its data, which is copied only where it is not aligned to its elements.
    pub(crate) fn tensor(&self, data: Buffer, path: &Path) -> Result<Tensor> {
        self.check_len(data.len(), path)?;
        Ok(Tensor {
            name: self.name.clone(),
            shape: self.shape.clone(),
            dtype: self.dtype,
            layout: self.layout,
            data: align(data, self.dtype),
        })
    }
}

/// The data itself if it is aligned to its elements, else an aligned copy.
pub(crate) fn align(data: Buffer, dtype: DType) -> Buffer {
    if (data.as_ptr() as usize).is_multiple_of(dtype.size()) {
        data
    } else {
        Buffer::from(data.as_slice())
    }
}

/// The columns of a batch other than `data`, found by name.
pub(crate) struct Columns<'a> {
    names: &'a StringArray,
    shapes: &'a ListArray,
    dtypes: &'a StringArray,
    parameters: &'a PrimitiveArray<Int64Type>,
    layouts: &'a StringArray,
    path: &'a Path,
}

impl<'a> Columns<'a> {
    pub(crate) fn of(batch: &'a RecordBatch, path: &'a Path) -> Result<Self> {
        let missing = |name: &str| Error::invalid_file(path, format!("column {name:?} is missing"));
        let text = |name: &str| {
            batch.column_by_name(name).and_then(|c| c.as_string_opt()).ok_or_else(|| missing(name))
        };
        let shapes = batch.column_by_name("shape").and_then(|c| c.as_list_opt());
        let parameters = batch.column_by_name("num_params").and_then(|c| c.as_primitive_opt());
        let columns = Self {
            names: text("layer_name")?,
            shapes: shapes.ok_or_else(|| missing("shape"))?,
            dtypes: text("dtype")?,
            parameters: parameters.ok_or_else(|| missing("num_params"))?,
            layouts: text("layout")?,
            path,
        };
        let nulls = batch.columns().iter().any(|column| column.null_count() > 0);
        if nulls || columns.shapes.values().null_count() > 0 {
            return Err(Error::invalid_file(path, "it has nulls"));
        }
        Ok(columns)
    }

    /// Row `i`, below the batch's number of rows.
    pub(crate) fn row(&self, i: usize) -> Result<Row> {
        let name = self.names.value(i);
        let invalid =
            |reason: String| Error::invalid_file(self.path, format!("tensor {name:?} {reason}"));
        let shape = self.shapes.value(i);
        let shape = shape
            .as_primitive_opt::<Int32Type>()
            .and_then(|dimensions| {
                dimensions.values().iter().map(|&d| usize::try_from(d).ok()).collect()
            })
            .ok_or_else(|| invalid("has a negative dimension".to_owned()))?;
        let dtype = DType::parse(self.dtypes.value(i))
            .ok_or_else(|| invalid(format!("has the unknown dtype {:?}", self.dtypes.value(i))))?;
        let layout = Layout::parse(self.layouts.value(i)).ok_or_else(|| {
            invalid(format!("has the unknown layout {:?}", self.layouts.value(i)))
        })?;
        if dtype == DType::BFloat16 && layout != Layout::panels_of(dtype) {
            return Err(invalid(format!("is bfloat16 in layout {}", layout.name())));
        }
        let row = Row { name: name.to_owned(), shape, dtype, layout };
        let parameters = row.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
        let stated = usize::try_from(self.parameters.value(i)).ok();
        if stated.is_none() || parameters != stated {
            return Err(invalid(format!(
                "of shape {:?} states {} parameters",
                row.shape,
                self.parameters.value(i)
            )));
        }
        Ok(row)
    }
}

/// More tensors than any model has.
const MOST_ROWS: usize = 1 << 20;

/// The rows of a file, found by name.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    rows: Vec<Row>,
    by_name: HashMap<String, usize>,
}

impl Rows {
    /// Adds a row; refuses a name that is there already.
    pub(crate) fn push(&mut self, row: Row, path: &Path) -> Result<()> {
        if self.rows.len() >= MOST_ROWS {
            let reason = format!("it has more than {MOST_ROWS} tensors");
            return Err(Error::invalid_file(path, reason));
        }
        if self.by_name.insert(row.name.clone(), self.rows.len()).is_some() {
            return Err(Error::invalid_file(path, format!("tensor {:?} is there twice", row.name)));
        }
        self.rows.push(row);
        Ok(())
    }

    /// The row of that name and its position.
    pub(crate) fn find(&self, name: &str) -> Option<(usize, &Row)> {
        let &i = self.by_name.get(name)?;
        Some((i, self.rows.get(i)?))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter()
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.iter().map(|row| row.name.as_str()).collect()
    }

    /// What the tensors are stored in: the matrices decide, where they are in panels, and of several dtypes one that
    /// is no float. Of both float32 and float16, panels are float16, of which some matrices would have lost too much; all
    /// else is float32.
    pub(crate) fn dtype(&self) -> DType {
        let packed = self.iter().any(|row| row.layout.group().is_some());
        let dtypes = || {
            let rows = self.iter().filter(|row| !packed || row.layout.group().is_some());
            rows.map(|row| row.dtype)
        };
        let coarser = dtypes().find(|dtype| !matches!(dtype, DType::Float32 | DType::Float16));
        let (float16, float32) = (DType::Float16, DType::Float32);
        let all_or_some = dtypes().any(|dtype| dtype == float16)
            && (packed || dtypes().all(|dtype| dtype == float16));
        coarser.unwrap_or(if all_or_some { float16 } else { float32 })
    }

    /// Checks that tensors of integers have what belongs to them.
    ///
    /// # Errors
    /// If scales or sums are missing, or have another dtype or shape than the tensor asks for.
    pub(crate) fn check_integers(&self, path: &Path) -> Result<()> {
        for row in self.iter().filter(|row| matches!(row.dtype, DType::Int16 | DType::Int8)) {
            let check = |companion: String, shape: &[usize]| {
                let fits = |(_, found): (usize, &Row)| {
                    (found.dtype, found.layout) == (DType::Float32, Layout::RowMajor)
                        && found.shape == shape
                };
                if self.find(&companion).is_some_and(fits) {
                    return Ok(());
                }
                let (dtype, name) = (row.dtype.name(), &row.name);
                Err(Error::invalid_file(
                    path,
                    format!(
                        "{dtype} tensor {name:?} has no float32 {companion:?} of shape {shape:?}"
                    ),
                ))
            };
            match *row.shape.as_slice() {
                [rows, ..] if !row.layout.has_blocks() => check(scale_name(&row.name), &[rows])?,
                [out_features, in_features] => {
                    let shape = [in_features.div_ceil(BLOCK), out_features];
                    check(scale_name(&row.name), &shape)?;
                    check(sum_name(&row.name), &shape)?;
                }
                _ => {
                    return Err(Error::invalid_file(
                        path,
                        format!("tensor {:?} of integers has no dimension", row.name),
                    ));
                }
            }
        }
        Ok(())
    }
}
