//! Which tensors a model file holds, and how each is made from a source's.

use std::collections::HashSet;
use std::path::Path;

use super::values::{encode, read_f32};
use super::{DType, Layout, Tensor, TensorSource, scale_name};
use crate::error::{Error, Result};
use crate::models;
use crate::ops::{Backend, LinearSpec, Load};

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) name: String,
    /// The source's tensors stacked into it, top to bottom.
    parts: Vec<String>,
    /// The shape that the architecture asks for; `None` takes the source's.
    shape: Option<Vec<usize>>,
    layout: Layout,
}

/// Everything a packed file holds, in the order in which the architecture asks for it.
///
/// # Errors
/// If the architecture is unknown or its configuration is wrong.
pub(crate) fn plan_packed(
    architecture: &str,
    config: &serde_json::Value,
    source: &dyn TensorSource,
) -> Result<Vec<Planned>> {
    let names = source.names().into_iter().map(str::to_owned).collect();
    let mut planner = Planner { names, planned: Vec::new() };
    models::walk(architecture, config, &mut planner)?;
    Ok(planner.planned)
}

/// Every tensor of the source under its own name, in row-major order.
pub(crate) fn plan_row_major(source: &dyn TensorSource) -> Vec<Planned> {
    let names = source.names();
    let all: HashSet<&str> = names.iter().copied().collect();
    // The scales of int8 tensors are made anew, or fall away with them.
    let is_scale = |name: &str| name.strip_suffix(".scale").is_some_and(|of| all.contains(of));
    names
        .iter()
        .filter(|name| !is_scale(name))
        .map(|&name| Planned {
            name: name.to_owned(),
            parts: vec![name.to_owned()],
            shape: None,
            layout: Layout::RowMajor,
        })
        .collect()
}

/// A backend that keeps nothing: models are asked only what they would load.
struct Packing;

impl Backend for Packing {
    type Linear = ();
    type Norm = ();
    type Table = ();
}

struct Planner {
    names: HashSet<String>,
    planned: Vec<Planned>,
}

impl Planner {
    fn add(&mut self, name: String, parts: Vec<String>, shape: Vec<usize>, layout: Layout) {
        // A source that is packed already has the stacked tensor under its own name.
        let parts = if self.names.contains(&name) { vec![name.clone()] } else { parts };
        self.planned.push(Planned { name, parts, shape: Some(shape), layout });
    }

    fn add_vector(&mut self, name: String, parts: Vec<String>, width: usize) {
        self.add(name, parts, vec![width], Layout::RowMajor);
    }
}

impl Load<Packing> for Planner {
    fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    fn linear(&mut self, spec: &LinearSpec) -> Result<()> {
        let of_parts = |what: &str| spec.parts.iter().map(|p| format!("{p}.{what}")).collect();
        self.add(
            format!("{}.weight", spec.name),
            of_parts("weight"),
            vec![spec.out_features, spec.in_features],
            Layout::Panel16,
        );
        if spec.bias {
            let name = format!("{}.bias", spec.name);
            self.add_vector(name, of_parts("bias"), spec.out_features);
        }
        Ok(())
    }

    fn norm(&mut self, name: &str, width: usize, _epsilon: f32) -> Result<()> {
        // Checkpoints made by the first BERT code say gamma and beta.
        for (what, old) in [("weight", "gamma"), ("bias", "beta")] {
            self.add_vector(format!("{name}.{what}"), vec![self.either(name, what, old)], width);
        }
        Ok(())
    }

    fn table(&mut self, name: &str, rows: usize, width: usize) -> Result<()> {
        let name = format!("{name}.weight");
        self.add(name.clone(), vec![name], vec![rows, width], Layout::RowMajor);
        Ok(())
    }
}

impl Planner {
    fn either(&self, name: &str, what: &str, old: &str) -> String {
        let old = format!("{name}.{old}");
        if self.names.contains(&old) { old } else { format!("{name}.{what}") }
    }
}

/// A tensor as it will be written, with its scales where it is int8.
pub(crate) struct Packed {
    pub(crate) tensor: Tensor,
    pub(crate) scales: Option<Tensor>,
    pub(crate) relative_error: f64,
    pub(crate) fallback: Option<String>,
}

impl Planned {
    /// Gathers, converts and lays out the tensor.
    ///
    /// `dtype` is what matrices and tables are stored in; `None` keeps the source's dtype. Everything
    /// with fewer than two dimensions is float32 in any case. `origin` is for messages.
    ///
    /// # Errors
    /// If a part is missing, has the wrong shape, or holds a NaN or an infinity.
    pub(crate) fn pack(
        &self,
        source: &dyn TensorSource,
        dtype: Option<DType>,
        origin: &Path,
    ) -> Result<Packed> {
        let (shape, values) = self.gather(source, origin)?;
        let dtype = match (shape.len(), dtype) {
            (0 | 1, _) => DType::Float32,
            (_, Some(dtype)) => dtype,
            (_, None) => self.source_dtype(source)?,
        };
        let width = shape.iter().skip(1).product();
        let encoded = encode(values, width, dtype, self.layout);
        let scales = encoded.scales.map(|scales| Tensor {
            name: scale_name(&self.name),
            shape: vec![scales.len()],
            dtype: DType::Float32,
            layout: Layout::RowMajor,
            data: arrow_buffer::Buffer::from_vec(scales),
        });
        Ok(Packed {
            tensor: Tensor {
                name: self.name.clone(),
                shape,
                dtype: encoded.dtype,
                layout: self.layout,
                data: encoded.data,
            },
            scales,
            relative_error: encoded.relative_error,
            fallback: encoded.fallback,
        })
    }

    /// The parts' numbers one below the other, row-major, checked.
    fn gather(&self, source: &dyn TensorSource, origin: &Path) -> Result<(Vec<usize>, Vec<f32>)> {
        let (mut shape, mut values) = (Vec::new(), Vec::new());
        for part in &self.parts {
            let (part_shape, part_values) = read_f32(source, part)?;
            if let Some(i) = part_values.iter().position(|value| !value.is_finite()) {
                let value = part_values.get(i).copied().unwrap_or(f32::NAN);
                return Err(Error::invalid_file(
                    origin,
                    format!("tensor {part:?} holds {value} at element {i}; it is damaged"),
                ));
            }
            if values.is_empty() {
                (shape, values) = (part_shape, part_values);
                continue;
            }
            match (shape.split_first_mut(), part_shape.split_first()) {
                (Some((rows, width)), Some((more, part_width))) if *width == *part_width => {
                    *rows += more;
                }
                _ => {
                    return Err(Error::ShapeMismatch {
                        name: part.clone(),
                        expected: shape,
                        found: part_shape,
                    });
                }
            }
            values.extend(part_values);
        }
        match &self.shape {
            Some(expected) if *expected != shape => Err(Error::ShapeMismatch {
                name: self.name.clone(),
                expected: expected.clone(),
                found: shape,
            }),
            _ => Ok((shape, values)),
        }
    }

    /// The widest dtype among the parts.
    fn source_dtype(&self, source: &dyn TensorSource) -> Result<DType> {
        let mut dtypes = Vec::new();
        for part in &self.parts {
            dtypes.push(source.require(part)?.dtype);
        }
        match dtypes.as_slice() {
            [first, rest @ ..] if rest.iter().all(|dtype| dtype == first) => Ok(*first),
            _ => Ok(DType::Float32),
        }
    }
}
