//! GGUF files, the form in which llama.cpp keeps models.
//!
//! [`file`] maps a file, [`parts`] finds the others of its model; [`metadata`], their [`values`] and
//! [`tensors`] are what the header says, read by a [`cursor`] that trusts nothing. [`types`] are the
//! element types.

#![allow(dead_code)]

mod cursor;
pub(crate) mod file;
pub(crate) mod metadata;
mod parts;
pub(crate) mod tensors;
pub(crate) mod types;
pub(crate) mod values;

#[cfg(test)]
mod fixtures;
