//! Matrices of sources that store their rows as kernels expand them, whole or in parts.

use super::{LinearSpec, Part};
use crate::error::{Error, Result};
use crate::weights::values::read_f32;
use crate::weights::{StoredRows, TensorSource};

/// A matrix's rows as they are stored: the whole under its own name, or its parts. `None` if the source does not
/// store them so.
///
/// # Errors
/// [`Error::ShapeMismatch`] if they are not the matrix that is asked for.
pub(crate) fn stored_parts(
    source: &dyn TensorSource,
    spec: &LinearSpec,
) -> Result<Option<Vec<StoredRows>>> {
    let whole = format!("{}.weight", spec.name);
    if let Some(stored) = stored_table(source, &whole, spec.out_features, spec.in_features)? {
        return Ok(Some(vec![stored]));
    }
    let mut parts = Vec::with_capacity(spec.parts.len());
    let mut left = spec.out_features;
    for (i, Part { name, rows }) in spec.parts.iter().enumerate() {
        let name = format!("{name}.weight");
        let Some(stored) = source.stored_rows(&name)? else { return Ok(None) };
        let (start, end) = rows.as_ref().map_or((0, stored.len()), |rows| (rows.start, rows.end));
        let count = end.saturating_sub(start);
        let last = i + 1 == spec.parts.len();
        if stored.width() != spec.in_features || count > left || last && count != left {
            return Err(mismatch(&name, [left, spec.in_features], &stored));
        }
        let Some(part) = stored.rows(start..end) else {
            return Err(mismatch(&name, [end, spec.in_features], &stored));
        };
        left -= count;
        parts.push(part);
    }
    Ok(Some(parts))
}

/// A table's rows as they are stored; `None` if the source does not store them so.
///
/// # Errors
/// [`Error::ShapeMismatch`] if they are others than are asked for.
pub(crate) fn stored_table(
    source: &dyn TensorSource,
    name: &str,
    rows: usize,
    width: usize,
) -> Result<Option<StoredRows>> {
    match source.stored_rows(name)? {
        Some(stored) if [stored.len(), stored.width()] != [rows, width] => {
            Err(mismatch(name, [rows, width], &stored))
        }
        stored => Ok(stored),
    }
}

/// The biases of a matrix's parts, one after the other. `None` if it has one under its own name.
///
/// # Errors
/// If one is missing or does not fit.
pub(crate) fn parts_bias(source: &dyn TensorSource, spec: &LinearSpec) -> Result<Option<Vec<f32>>> {
    let whole = format!("{}.bias", spec.name);
    if source.names().contains(&whole.as_str())
        || matches!(&spec.parts[..], [Part { rows: None, .. }])
    {
        return Ok(None);
    }
    let mut all: Vec<f32> = Vec::with_capacity(spec.out_features);
    for part in &spec.parts {
        let (tensor, values) = read_f32(source, &format!("{}.bias", part.name))?;
        let rows = part.rows.clone().unwrap_or(0..values.len());
        let expected = vec![rows.end];
        let values = values.get(rows).ok_or(Error::ShapeMismatch {
            name: tensor.name,
            expected,
            found: tensor.shape,
        })?;
        all.extend(values);
    }
    if all.len() == spec.out_features {
        return Ok(Some(all));
    }
    let (expected, found) = (vec![spec.out_features], vec![all.len()]);
    Err(Error::ShapeMismatch { name: whole, expected, found })
}

fn mismatch(name: &str, expected: [usize; 2], found: &StoredRows) -> Error {
    Error::ShapeMismatch {
        name: name.to_owned(),
        expected: expected.to_vec(),
        found: vec![found.len(), found.width()],
    }
}
