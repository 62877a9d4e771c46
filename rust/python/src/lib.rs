//! The Python binding: unpacks arguments, releases the GIL, maps errors. All else is in `arrowembed`.

mod arguments;
mod arrow;
mod convert;
mod engine;
mod errors;
mod index;
mod model_config;
mod monitor;
mod quantize;
mod registry;
mod scheduler;
mod source;
mod texts;

use pyo3::prelude::*;

use arguments::count;
use errors::Raise;

#[pyfunction]
fn set_num_threads(num_threads: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = num_threads.py();
    arrowembed::set_num_threads(count("num_threads", num_threads)?).raise(py)
}

#[pyfunction]
fn get_num_threads(py: Python<'_>) -> PyResult<usize> {
    arrowembed::num_threads().raise(py)
}

#[pyfunction]
fn isa() -> &'static str {
    arrowembed::isa()
}

/// The inventory of `arrowembed._core`; `_core.pyi` is its documentation.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<model_config::ModelConfig>()?;
    module.add_class::<engine::Engine>()?;
    module.add_class::<registry::EmbeddingEngine>()?;
    module.add_class::<scheduler::Scheduler>()?;
    module.add_class::<scheduler::Ticket>()?;
    module.add_class::<arrow::ArrowArray>()?;
    module.add_function(wrap_pyfunction!(model_config::settings_from_env, module)?)?;
    module.add_function(wrap_pyfunction!(quantize::quantize, module)?)?;
    module.add_class::<index::VectorFile>()?;
    module.add_function(wrap_pyfunction!(index::search_vectors, module)?)?;
    module.add_function(wrap_pyfunction!(convert::convert, module)?)?;
    module.add_function(wrap_pyfunction!(convert::verify, module)?)?;
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(get_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(isa, module)?)?;
    Ok(())
}
