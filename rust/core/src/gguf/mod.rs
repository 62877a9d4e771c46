//! GGUF files, the form in which llama.cpp keeps models.
//!
//! [`file`] maps a file, [`parts`] finds the others of its model; [`metadata`], their [`values`] and
//! [`tensors`] are what the header says, read by a [`cursor`] that trusts nothing. [`types`] are the
//! element types, [`quants`] and [`k_quants`] expand their blocks to floats, [`rows`] those of a matrix. [`tokenizer`] rebuilds
//! the tokenizer that the metadata describe. [`described`] says the metadata in the words of Hugging Face,
//! [`names`] the tensors' names, and [`model`] is the file under both.

mod cursor;
mod described;
pub(crate) mod file;
pub(crate) mod k_quants;
pub(crate) mod metadata;
pub(crate) mod model;
mod names;
mod parts;
pub(crate) mod quants;
pub(crate) mod rows;
pub(crate) mod tensors;
pub(crate) mod tokenizer;
pub(crate) mod types;
pub(crate) mod values;

#[cfg(test)]
pub(crate) mod fixtures;

/// What the fuzzer of the reader calls, on any bytes: an error, or tensors that lie in the file.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn read_for_fuzzing(bytes: &[u8]) {
    let Ok(file) = file::GgufFile::from_bytes(bytes) else { return };
    for key in file.metadata().keys() {
        let _ = (file.metadata().integers(key), file.metadata().floats(key));
        if let Ok(Some(strings)) = file.metadata().strings(key) {
            assert_eq!(strings.iter().count(), strings.len());
        }
    }
    for tensor in file.tensors().unwrap_or_default() {
        let (kind, columns) = (tensor.kind, tensor.row_len());
        let row = kind.row_bytes(columns);
        assert_eq!(row.map(|row| row * (tensor.elements() / columns)), Some(tensor.data.len()));
        let mut out = vec![0.0; columns];
        let row = tensor.data.get(..row.unwrap_or_default()).unwrap_or_default();
        quants::dequantize(kind, row, &mut out);
    }
}
