//! GGUF files, the form in which llama.cpp keeps models.
//!
//! [`file`] maps a file, [`parts`] finds the others of its model; [`metadata`], their [`values`] and
//! [`tensors`] are what the header says, read by a [`cursor`] that trusts nothing. [`types`] are the
//! element types, [`quants`] and [`k_quants`] expand their blocks to floats. [`tokenizer`] rebuilds
//! the tokenizer that the metadata describe.

#![allow(dead_code)]

mod cursor;
pub(crate) mod file;
mod k_quants;
pub(crate) mod metadata;
mod parts;
pub(crate) mod quants;
pub(crate) mod tensors;
pub(crate) mod tokenizer;
pub(crate) mod types;
pub(crate) mod values;

#[cfg(test)]
mod fixtures;
