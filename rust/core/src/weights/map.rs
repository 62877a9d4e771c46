//! Mapping files into memory.

use std::fs::File;
use std::path::Path;

use arrow_buffer::Buffer;
use bytes::Bytes;

use crate::error::{Error, Result};

/// Maps a whole file for reading; the buffer and all its slices keep the map alive.
///
/// Nothing is read yet: pages come in as they are touched, and processes that map the same file
/// share them. The file must not be changed in place while it is mapped. This crate never does; it
/// replaces files by renaming, which leaves the old file's map as it was.
pub(crate) fn map(path: &Path) -> Result<Buffer> {
    map_file(&open_regular(path)?, path)
}

/// Opens a file for reading, unless it is a folder, a pipe or a device; opening a pipe would wait.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    if !path.metadata().map_err(Error::io(path))?.is_file() {
        return Err(Error::invalid_file(path, "it is not a regular file"));
    }
    File::open(path).map_err(Error::io(path))
}

/// Maps an open file; `path` is for messages.
#[allow(unsafe_code)]
pub(crate) fn map_file(file: &File, path: &Path) -> Result<Buffer> {
    if file.metadata().map_err(Error::io(path))?.len() == 0 {
        return Err(Error::invalid_file(path, "it is empty"));
    }
    // SAFETY: the map is private and read-only, and it is not empty (checked above). Its bytes can
    // change under us only if another process writes to the file in place, which the contract above
    // forbids; every mapping reader has to rely on that.
    let map = unsafe { memmap2::Mmap::map(file) }.map_err(Error::io(path))?;
    Ok(Buffer::from(Bytes::from_owner(map)))
}
