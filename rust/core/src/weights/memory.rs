//! Tensors in memory, as tests and benchmarks make them.

use std::collections::BTreeMap;

use arrow_buffer::Buffer;

use super::values::{Encoded, encode};
use super::{DType, Layout, Tensor, TensorSource};
use crate::error::Result;

/// Tensors in memory.
#[derive(Default)]
pub(crate) struct InMemory(pub(crate) BTreeMap<String, Tensor>);

impl InMemory {
    pub(crate) fn with(mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Self {
        let tensor = Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            dtype: DType::Float32,
            layout: Layout::RowMajor,
            data: Buffer::from_vec(values),
        };
        self.0.insert(name.to_owned(), tensor);
        self
    }

    /// A matrix as a model file holds it, with what belongs to it.
    pub(crate) fn encoded(
        mut self,
        name: &str,
        values: Vec<f32>,
        width: usize,
        dtype: DType,
        packed: bool,
    ) -> Self {
        let shape = vec![values.len() / width, width];
        let Encoded { dtype, layout, data, companions, .. } = encode(values, width, dtype, packed);
        for companion in companions {
            self = self.with(&(companion.name)(name), &companion.shape, companion.values);
        }
        let tensor = Tensor { name: name.to_owned(), shape, dtype, layout, data };
        self.0.insert(name.to_owned(), tensor);
        self
    }
}

impl TensorSource for InMemory {
    fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    fn get(&self, name: &str) -> Result<Option<Tensor>> {
        Ok(self.0.get(name).cloned())
    }
}
