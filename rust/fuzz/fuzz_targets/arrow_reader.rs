//! The reader of model files, on any bytes: an error, or tensors that keep what `TensorSource` promises.

#![no_main]

use arrowembed::{ArrowFile, Tensor, TensorSource};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = ArrowFile::from_bytes(bytes) else { return };
    for name in file.names() {
        let Ok(tensor) = file.require(name) else { continue };
        assert_eq!(tensor.name, name);
        let length = Tensor::byte_len(&tensor.shape, tensor.dtype, tensor.layout);
        assert_eq!(length, Some(tensor.data.len()));
        assert!((tensor.data.as_ptr() as usize).is_multiple_of(tensor.dtype.size()));
    }
});
