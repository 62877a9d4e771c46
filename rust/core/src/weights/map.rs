//! Mapping files into memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_buffer::Buffer;
use bytes::Bytes;

use super::guard::Guarded;
use crate::error::{Error, Result};

/// Maps a whole file for reading; the buffer and all its slices keep the map alive.
///
/// Nothing is read yet: pages come in as they are touched, and processes that map the same file
/// share them. The file must not be changed in place while it is mapped. This crate never does; it
/// replaces files by renaming, which leaves the old file's map as it was. If somebody cuts it short all the same,
/// [`guard`](super::guard) keeps the process alive.
pub(crate) fn map(path: &Path) -> Result<Buffer> {
    map_file(&open_regular(path)?, path)
}

/// A file that is mapped, and open for reading parts of it without touching the map.
#[derive(Debug)]
pub(crate) struct MappedFile {
    file: File,
    path: PathBuf,
    map: Buffer,
}

impl MappedFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path)?;
        Ok(Self { map: map_file(&file, path)?, file, path: path.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file.
    pub(crate) fn map(&self) -> &Buffer {
        &self.map
    }
}

/// A part of a mapped file that can be read instead.
///
/// Linux maps sixteen pages around each that is touched, and all count as memory of the process. Of a large
/// table of which few rows are needed, reading those costs less memory and no more time.
#[derive(Debug, Clone)]
pub struct InFile {
    file: Arc<MappedFile>,
    offset: usize,
    len: usize,
}

impl InFile {
    /// Where in the file some of its mapped bytes are. `None` if they are not of its map, or on systems
    /// without reads at a position.
    pub(crate) fn find(file: &Arc<MappedFile>, bytes: &[u8]) -> Option<Self> {
        let start = file.map.as_ptr() as usize;
        let offset = (bytes.as_ptr() as usize).checked_sub(start)?;
        let inside = offset.checked_add(bytes.len())? <= file.map.len();
        (cfg!(unix) && inside).then(|| Self { file: Arc::clone(file), offset, len: bytes.len() })
    }

    /// Fills `to` with the bytes from `from` on.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be read: the part has no such bytes, or the file was cut short.
    pub fn read(&self, from: usize, to: &mut [u8]) -> Result<()> {
        let end = from.checked_add(to.len());
        let outside = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let read = match end {
            Some(end) if end <= self.len => read_at(&self.file.file, to, self.offset + from),
            _ => Err(outside()),
        };
        read.map_err(Error::io(&self.file.path))
    }
}

#[cfg(unix)]
fn read_at(file: &File, to: &mut [u8], offset: usize) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, to, offset as u64)
}

#[cfg(not(unix))]
fn read_at(_: &File, _: &mut [u8], _: usize) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
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
    Ok(Buffer::from(Bytes::from_owner(Guarded::new(map))))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_read_where_it_is_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..=255).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = Arc::new(MappedFile::open(&path).unwrap());
        let part = InFile::find(&file, &file.map()[100..200]).unwrap();
        let mut read = [0; 7];
        part.read(93, &mut read).unwrap();
        assert_eq!(read[..], bytes[193..200]);

        // What is not of the part, or of the map, or no longer there.
        assert_eq!(part.read(94, &mut read).unwrap_err().code(), "io");
        assert_eq!(part.read(usize::MAX, &mut read).unwrap_err().code(), "io");
        assert!(InFile::find(&file, &bytes).is_none());
        File::options().write(true).open(&path).unwrap().set_len(150).unwrap();
        let error = part.read(93, &mut read).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }
}
