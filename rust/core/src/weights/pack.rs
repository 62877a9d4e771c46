//! Which tensors a model file holds, and how each is made from a source's.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use super::quantize::products_fit;
use super::unused::refuse_unused;
use super::values::{Companion, encode, read_f32};
use super::{DType, Layout, Tensor, TensorSource, integers_of, scale_name, sum_name};
use crate::dense::Dense;
use crate::error::{Error, Result};
use crate::metadata::Metadata;
use crate::models;
use crate::ops::{Backend, LinearSpec, Load, NormKind, NormSpec, Part};

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) name: String,
    /// The source's tensors stacked into it, top to bottom.
    parts: Vec<Source>,
    /// The shape that the architecture asks for; `None` takes the source's.
    shape: Option<Vec<usize>>,
    kind: Kind,
}

/// A tensor of the source, or some of its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    name: String,
    rows: Option<Range<usize>>,
}

impl Source {
    fn whole(name: String) -> Self {
        Self { name, rows: None }
    }
}

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Multiplied with; in panels.
    Matrix,
    /// Looked up in.
    Table,
    /// Always float32.
    Numbers,
}

/// Everything a packed file holds, in the order in which the architecture asks for it.
///
/// # Errors
/// If the architecture is unknown or its configuration is wrong, or the source has tensors that it does not ask
/// for.
pub(crate) fn plan_packed(metadata: &Metadata, source: &dyn TensorSource) -> Result<Vec<Planned>> {
    let names = source.names();
    let mut planner =
        Planner { names: names.iter().copied().map(str::to_owned).collect(), planned: Vec::new() };
    models::walk(&metadata.architecture, &metadata.config, &mut planner)?;
    Dense::load(&mut planner, &metadata.dense)?;
    let parts = planner.planned.iter().flat_map(|planned| &planned.parts);
    let used = parts.map(|part| part.name.as_str()).collect();
    refuse_unused(&names, &used, &metadata.architecture)?;
    Ok(planner.planned)
}

/// Every tensor of the source under its own name, in row-major order.
pub(crate) fn plan_row_major(source: &dyn TensorSource) -> Vec<Planned> {
    let names = source.names();
    let all: HashSet<&str> = names.iter().copied().collect();
    // What belongs to tensors of integers is made anew, or fall away with them.
    let belongs = |name: &str| integers_of(name).is_some_and(|of| all.contains(of));
    names
        .iter()
        .filter(|name| !belongs(name))
        .map(|&name| Planned {
            name: name.to_owned(),
            parts: vec![Source::whole(name.to_owned())],
            shape: None,
            kind: Kind::Table,
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
    fn add(&mut self, name: String, parts: Vec<Source>, shape: Vec<usize>, kind: Kind) {
        // A source that is packed already has the stacked tensor under its own name.
        let packed = self.names.contains(&name);
        let parts = if packed { vec![Source::whole(name.clone())] } else { parts };
        self.planned.push(Planned { name, parts, shape: Some(shape), kind });
    }

    fn add_vector(&mut self, name: String, parts: Vec<Source>, width: usize) {
        self.add(name, parts, vec![width], Kind::Numbers);
    }
}

impl Load<Packing> for Planner {
    fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    fn linear(&mut self, spec: &LinearSpec) -> Result<()> {
        let of_parts = |what: &str| {
            let source = |part: &Part| Source {
                name: format!("{}.{what}", part.name),
                rows: part.rows.clone(),
            };
            spec.parts.iter().map(source).collect()
        };
        self.add(
            format!("{}.weight", spec.name),
            of_parts("weight"),
            vec![spec.out_features, spec.in_features],
            Kind::Matrix,
        );
        if spec.bias {
            let name = format!("{}.bias", spec.name);
            self.add_vector(name, of_parts("bias"), spec.out_features);
        }
        Ok(())
    }

    fn norm(&mut self, spec: &NormSpec) -> Result<()> {
        let NormSpec { name, width, kind, .. } = spec;
        // Checkpoints made by the first BERT code say gamma and beta.
        let weight = ("weight", "gamma");
        let both = [weight, ("bias", "beta")];
        let parts = if *kind == NormKind::Layer { &both[..] } else { &both[..1] };
        for (what, old) in parts {
            let source = vec![Source::whole(self.either(name, what, old))];
            self.add_vector(format!("{name}.{what}"), source, *width);
        }
        Ok(())
    }

    fn numbers(&mut self, name: &str, rows: usize, width: usize) -> Result<Vec<f32>> {
        let name = format!("{name}.weight");
        self.add(name.clone(), vec![Source::whole(name)], vec![rows, width], Kind::Numbers);
        Ok(vec![0.0; rows * width])
    }

    fn table(&mut self, name: &str, rows: usize, width: usize) -> Result<()> {
        let name = format!("{name}.weight");
        self.add(name.clone(), vec![Source::whole(name)], vec![rows, width], Kind::Table);
        Ok(())
    }
}

impl Planner {
    fn either(&self, name: &str, what: &str, old: &str) -> String {
        let old = format!("{name}.{old}");
        if self.names.contains(&old) { old } else { format!("{name}.{what}") }
    }
}

/// A tensor as it will be written, with its scales and sums where it holds integers.
pub(crate) struct Packed {
    pub(crate) tensor: Tensor,
    pub(crate) companions: Vec<Tensor>,
    pub(crate) relative_error: f64,
    pub(crate) fallback: Option<String>,
}

impl Planned {
    /// Gathers, converts and lays out the tensor.
    ///
    /// `dtype` is what matrices and tables are stored in; `None` keeps the source's dtype, but a
    /// checkpoint's bfloat16 becomes float32. Everything with fewer than two dimensions is float32 in any case. `origin` is for messages.
    ///
    /// # Errors
    /// If a part is missing, has the wrong shape, or holds a NaN or an infinity.
    pub(crate) fn pack(
        &self,
        source: &dyn TensorSource,
        dtype: Option<DType>,
        origin: &Path,
    ) -> Result<Packed> {
        if let Some(packed) = self.integers_as_they_are(source, dtype)? {
            return Ok(packed);
        }
        let Gathered { shape, values, dtype: source_dtype } = self.gather(source, origin)?;
        let numbers = shape.len() < 2 || self.kind == Kind::Numbers;
        let dtype = if numbers { DType::Float32 } else { dtype.unwrap_or(source_dtype) };
        let width = shape.iter().skip(1).product();
        let encoded = encode(values, width, dtype, self.kind == Kind::Matrix);
        let companion = |companion: Companion| Tensor {
            name: (companion.name)(&self.name),
            shape: companion.shape,
            dtype: DType::Float32,
            layout: Layout::RowMajor,
            data: arrow_buffer::Buffer::from_vec(companion.values),
        };
        Ok(Packed {
            tensor: Tensor {
                name: self.name.clone(),
                shape,
                dtype: encoded.dtype,
                layout: encoded.layout,
                data: encoded.data,
            },
            companions: encoded.companions.into_iter().map(companion).collect(),
            relative_error: encoded.relative_error,
            fallback: encoded.fallback,
        })
    }

    /// A tensor of integers that is already as it should be: quantized a second time it would lose
    /// again. Those of earlier formats may be too large for their products.
    fn integers_as_they_are(
        &self,
        source: &dyn TensorSource,
        dtype: Option<DType>,
    ) -> Result<Option<Packed>> {
        let [Source { name: part, rows: None }] = &self.parts[..] else { return Ok(None) };
        let tensor = source.require(part)?;
        let panels = self.kind == Kind::Matrix;
        let wanted = match tensor.dtype {
            integers @ (DType::Int16 | DType::Int8) if panels => Layout::panels_of(integers),
            _ => Layout::RowMajor,
        };
        let integers = matches!(tensor.dtype, DType::Int16 | DType::Int8)
            && tensor.layout == wanted
            && dtype.is_none_or(|dtype| dtype == tensor.dtype)
            && self.shape.as_ref().is_none_or(|shape| *shape == tensor.shape)
            && (tensor.dtype != DType::Int16 || products_fit(&tensor.data, &tensor.shape));
        if !integers {
            return Ok(None);
        }
        let mut companions = vec![source.require(&scale_name(part))?];
        if panels {
            companions.push(source.require(&sum_name(part))?);
        }
        Ok(Some(Packed { tensor, companions, relative_error: 0.0, fallback: None }))
    }

    /// The parts' numbers one below the other, checked.
    fn gather(&self, source: &dyn TensorSource, origin: &Path) -> Result<Gathered> {
        let mut all: Option<Gathered> = None;
        for part in &self.parts {
            let (tensor, values) = part.read(source)?;
            let part = &part.name;
            if let Some((i, value)) = values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
                return Err(Error::invalid_file(
                    origin,
                    format!("tensor {part:?} holds {value} at element {i}; it is damaged"),
                ));
            }
            match &mut all {
                None => {
                    // Of a checkpoint in bfloat16 only the weights were meant to be rounded.
                    let checkpoint = tensor.layout == Layout::RowMajor;
                    let dtype = match tensor.dtype {
                        DType::BFloat16 if checkpoint => DType::Float32,
                        dtype => dtype,
                    };
                    all = Some(Gathered { shape: tensor.shape, values, dtype });
                }
                Some(all) => all.append(tensor, values)?,
            }
        }
        let all = all.ok_or_else(|| Error::MissingTensor { name: self.name.clone() })?;
        match &self.shape {
            Some(expected) if *expected != all.shape => Err(Error::ShapeMismatch {
                name: self.name.clone(),
                expected: expected.clone(),
                found: all.shape,
            }),
            _ => Ok(all),
        }
    }
}

impl Source {
    /// The rows' numbers, as a tensor of their own.
    fn read(&self, source: &dyn TensorSource) -> Result<(Tensor, Vec<f32>)> {
        let (mut tensor, mut values) = read_f32(source, &self.name)?;
        let Some(rows) = &self.rows else { return Ok((tensor, values)) };
        let width: usize = tensor.shape.iter().skip(1).product();
        match tensor.shape.first_mut() {
            Some(count) if rows.end <= *count => *count = rows.len(),
            _ => {
                return Err(Error::ShapeMismatch {
                    name: self.name.clone(),
                    expected: [&[rows.end], tensor.shape.get(1..).unwrap_or_default()].concat(),
                    found: tensor.shape,
                });
            }
        }
        values.truncate(rows.end * width);
        values.drain(..rows.start * width);
        Ok((tensor, values))
    }
}

/// The numbers of a tensor's parts, row-major.
struct Gathered {
    shape: Vec<usize>,
    values: Vec<f32>,
    /// The parts' dtype; float32 if they differ.
    dtype: DType,
}

impl Gathered {
    /// Adds a part below; it must have as many columns.
    fn append(&mut self, part: Tensor, values: Vec<f32>) -> Result<()> {
        match (self.shape.split_first_mut(), part.shape.split_first()) {
            (Some((rows, width)), Some((more, part_width))) if *width == *part_width => {
                *rows += more;
            }
            _ => {
                return Err(Error::ShapeMismatch {
                    name: part.name,
                    expected: self.shape.clone(),
                    found: part.shape,
                });
            }
        }
        if part.dtype != self.dtype {
            self.dtype = DType::Float32;
        }
        self.values.extend(values);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::memory::InMemory;
    use crate::weights::values::read_f32;

    fn planned(source: &InMemory, ask: impl FnOnce(&mut Planner) -> Result<()>) -> Vec<Planned> {
        let names = source.names().into_iter().map(str::to_owned).collect();
        let mut planner = Planner { names, planned: Vec::new() };
        ask(&mut planner).unwrap();
        planner.planned
    }

    fn pack(planned: &Planned, source: &InMemory) -> Result<Packed> {
        planned.pack(source, Some(DType::Float32), Path::new("source"))
    }

    /// The numbers of a packed tensor.
    fn values(packed: Packed) -> Vec<f32> {
        let mut source = InMemory::default();
        let name = packed.tensor.name.clone();
        source.0.insert(name.clone(), packed.tensor);
        read_f32(&source, &name).unwrap().1
    }

    fn attention() -> InMemory {
        let part = |first: u8| (0..8).map(|i| f32::from(first + i)).collect::<Vec<_>>();
        InMemory::default()
            .with("a.query.weight", &[2, 4], part(0))
            .with("a.key.weight", &[2, 4], part(10))
            .with("a.value.weight", &[2, 4], part(20))
            .with("a.query.bias", &[2], vec![1.0, 2.0])
            .with("a.key.bias", &[2], vec![3.0, 4.0])
            .with("a.value.bias", &[2], vec![5.0, 6.0])
    }

    fn qkv() -> LinearSpec {
        LinearSpec::fused("a", "qkv", &["query", "key", "value"], 6, 4)
    }

    #[test]
    fn the_parts_of_a_matrix_are_stacked_in_order() {
        let source = attention();
        let planned = planned(&source, |planner| planner.linear(&qkv()));
        let names: Vec<_> = planned.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["a.qkv.weight", "a.qkv.bias"]);
        let weight = pack(&planned[0], &source).unwrap();
        assert_eq!(weight.tensor.layout, Layout::Panel16);
        assert_eq!(weight.tensor.shape, [6, 4]);
        let expected: Vec<f32> =
            (0..8).chain(10..18).chain(20..28).map(|i: u8| f32::from(i)).collect();
        assert_eq!(values(weight), expected);
        let bias = pack(&planned[1], &source).unwrap();
        assert_eq!(values(bias), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn a_source_that_is_packed_already_gives_the_stacked_matrix() {
        let source = InMemory::default()
            .with("a.qkv.weight", &[6, 4], (0..24_u8).map(f32::from).collect())
            .with("a.qkv.bias", &[6], vec![0.5; 6]);
        let planned = planned(&source, |planner| planner.linear(&qkv()));
        let weight = pack(&planned[0], &source).unwrap();
        assert_eq!(values(weight), (0..24_u8).map(f32::from).collect::<Vec<_>>());
    }

    #[test]
    fn a_missing_part_is_named() {
        let mut source = attention();
        source.0.remove("a.key.weight");
        let planned = planned(&source, |planner| planner.linear(&qkv()));
        let error = pack(&planned[0], &source).err().unwrap();
        assert!(error.to_string().contains("a.key.weight"), "{error}");
    }

    #[test]
    fn parts_and_wholes_of_the_wrong_shape_are_refused() {
        let source = attention().with("a.key.weight", &[2, 3], vec![0.0; 6]);
        let planned_qkv = planned(&source, |planner| planner.linear(&qkv()));
        let error = pack(&planned_qkv[0], &source).err().unwrap();
        assert_eq!(error.code(), "shape_mismatch");
        assert!(error.to_string().contains("a.key.weight"), "{error}");

        let source = attention().with("a.key.weight", &[3, 4], vec![0.0; 12]);
        let error = pack(&planned_qkv[0], &source).err().unwrap();
        assert!(error.to_string().contains("[7, 4]"), "{error}");
    }

    #[test]
    fn weights_that_are_not_finite_are_named() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let source = attention().with("a.value.bias", &[2], vec![0.0, bad]);
            let planned = planned(&source, |planner| planner.linear(&qkv()));
            let error = pack(&planned[1], &source).err().unwrap();
            assert_eq!(error.code(), "invalid_file");
            assert!(error.to_string().contains("a.value.bias"), "{error}");
            assert!(error.to_string().contains("element 1"), "{error}");
        }
    }

    #[test]
    fn a_norm_may_say_gamma_and_beta() {
        let source = InMemory::default().with("n.gamma", &[2], vec![1.0, 2.0]).with(
            "n.beta",
            &[2],
            vec![3.0, 4.0],
        );
        let planned = planned(&source, |planner| planner.norm(&NormSpec::layer("n", 2, 1e-12)));
        assert_eq!(planned[0].name, "n.weight");
        assert_eq!(values(pack(&planned[0], &source).unwrap()), [1.0, 2.0]);
        assert_eq!(planned[1].name, "n.bias");
        assert_eq!(values(pack(&planned[1], &source).unwrap()), [3.0, 4.0]);
    }

    #[test]
    fn vectors_stay_float32_and_matrices_take_the_dtype() {
        let source = attention();
        let planned = planned(&source, |planner| planner.linear(&qkv()));
        let pack = |i: usize, dtype| planned[i].pack(&source, dtype, Path::new("")).unwrap();
        assert_eq!(pack(0, Some(DType::Float16)).tensor.dtype, DType::Float16);
        assert_eq!(pack(1, Some(DType::Float16)).tensor.dtype, DType::Float32);
        assert_eq!(pack(0, None).tensor.dtype, DType::Float32);
        let int8 = pack(0, Some(DType::Int8));
        let names: Vec<_> = int8.companions.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["a.qkv.weight.scale", "a.qkv.weight.sum"]);
    }

    #[test]
    fn integers_stay_as_they_are_unless_their_products_could_overflow() {
        let values: Vec<f32> = (0..300).map(|i| if i % 2 == 0 { 0.5 } else { -0.25 }).collect();
        let source = InMemory::default().encoded("m.weight", values, 300, DType::Int16, true);
        let spec = LinearSpec { bias: false, ..LinearSpec::new("m", 1, 300) };
        let planned = planned(&source, |planner| planner.linear(&spec));
        let packed = |source: &InMemory| planned[0].pack(source, None, Path::new("")).unwrap();
        assert_eq!(packed(&source).tensor.data, source.require("m.weight").unwrap().data);

        // As an earlier format's file could have them: all integers twice as large, of half the worth.
        let mut larger = InMemory(source.0.clone());
        let tensor = larger.0.get_mut("m.weight").unwrap();
        let twice = |&b: &[u8; 2]| (2 * i16::from_le_bytes(b)).to_le_bytes();
        let data: Vec<u8> = tensor.data.as_chunks().0.iter().flat_map(twice).collect();
        tensor.data = arrow_buffer::Buffer::from_vec(data);
        let scale = read_f32(&source, "m.weight.scale").unwrap().1[0] / 2.0;
        let larger = larger.with("m.weight.scale", &[1, 1], vec![scale]);
        assert_ne!(packed(&larger).tensor.data, larger.require("m.weight").unwrap().data);
        let again = packed(&larger);
        assert_eq!(again.tensor.dtype, DType::Int16);
        assert_eq!(again.tensor.data, source.require("m.weight").unwrap().data);
    }

    #[test]
    fn row_major_keeps_everything_but_scales() {
        let source = attention().with("a.query.weight.scale", &[2], vec![1.0; 2]);
        let planned = plan_row_major(&source);
        assert_eq!(planned.len(), 6);
        assert!(planned.iter().all(|p| p.kind != Kind::Matrix && p.shape.is_none()));
    }
}
