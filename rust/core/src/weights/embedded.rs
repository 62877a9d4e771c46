//! What a weights file carries besides its tensors, and the check of its checksums.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::TensorSource;
use crate::error::{Error, Result};
use crate::metadata::FORMAT_VERSION;

/// Key of the format version, a decimal number.
pub(crate) const VERSION_KEY: &str = "arrowembed.format_version";
/// Key of the copy of `metadata.json`.
pub(crate) const METADATA_KEY: &str = "arrowembed.metadata";
/// Key of the checksums, a JSON object from tensor name to SHA-256 in hexadecimal.
pub(crate) const CHECKSUMS_KEY: &str = "arrowembed.checksums";

/// The key-value pairs of an Arrow or Parquet file that concern us.
#[derive(Debug, Default)]
pub(crate) struct Embedded {
    /// The copy of `metadata.json`.
    pub(crate) metadata: Option<String>,
    /// The version of the format, if the file says so.
    pub(crate) version: Option<u32>,
    checksums: Option<BTreeMap<String, String>>,
}

impl Embedded {
    /// Reads the pairs through `get`; refuses a file of a newer format than this crate knows.
    pub(crate) fn read<'a>(path: &Path, get: impl Fn(&str) -> Option<&'a str>) -> Result<Self> {
        let version = get(VERSION_KEY)
            .map(|version| {
                let version: u32 = version.parse().map_err(|_| {
                    Error::invalid_file(path, format!("{VERSION_KEY} is {version:?}, not a number"))
                })?;
                check_version(path, version).map(|()| version)
            })
            .transpose()?;
        let checksums = get(CHECKSUMS_KEY)
            .map(serde_json::from_str)
            .transpose()
            .map_err(|e| Error::invalid_file(path, format!("{CHECKSUMS_KEY}: {e}")))?;
        Ok(Self { metadata: get(METADATA_KEY).map(str::to_owned), version, checksums })
    }

    /// Compares every tensor with its checksum and returns how many there are.
    ///
    /// # Errors
    /// [`Error::ChecksumMismatch`] for the first that differs; [`Error::InvalidFile`] if the file
    /// has no checksums or they are not those of its tensors.
    pub(crate) fn verify(
        &self,
        path: &Path,
        source: &dyn TensorSource,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<usize> {
        let checksums = self.checksums.as_ref().ok_or_else(|| {
            Error::invalid_file(path, "it holds no checksums; convert the model again")
        })?;
        let names = source.names();
        if let Some(name) = checksums.keys().find(|name| !names.contains(&name.as_str())) {
            let reason = format!("there is a checksum for tensor {name:?}, but no such tensor");
            return Err(Error::invalid_file(path, reason));
        }
        for (done, name) in names.iter().enumerate() {
            if progress(done, names.len()).is_break() {
                return Err(Error::Interrupted);
            }
            let expected = checksums.get(*name).ok_or_else(|| {
                Error::invalid_file(path, format!("tensor {name:?} has no checksum"))
            })?;
            if *expected != sha256_hex(&source.require(name)?.data) {
                return Err(Error::ChecksumMismatch {
                    path: path.to_owned(),
                    name: (*name).to_owned(),
                });
            }
        }
        if progress(names.len(), names.len()).is_break() {
            return Err(Error::Interrupted);
        }
        Ok(names.len())
    }
}

/// Refuses a format version that this crate does not know.
pub(crate) fn check_version(path: &Path, version: u32) -> Result<()> {
    if (1..=FORMAT_VERSION).contains(&version) {
        return Ok(());
    }
    Err(Error::invalid_file(
        path,
        format!(
            "it has format version {version}, this is arrowembed {} and reads 1 to \
             {FORMAT_VERSION}; upgrade arrowembed or convert the model again",
            env!("CARGO_PKG_VERSION")
        ),
    ))
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
