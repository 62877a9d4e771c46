//! Models in several files: `NAME-00001-of-00003.gguf` and so on.

use std::path::{Path, PathBuf};

use super::metadata::Metadata;
use crate::error::{Error, Result};

/// Missing parts that a message names.
const NAMED: usize = 5;

/// The files of a model, in order.
#[derive(Debug)]
pub(super) struct Parts {
    paths: Vec<PathBuf>,
    /// Tensors in all parts together, where the metadata say so.
    total: Option<usize>,
}

impl Parts {
    /// The parts that belong to the one at `path`; `None` if it is a whole.
    ///
    /// # Errors
    /// If parts are missing or the file is not named as a part.
    pub(super) fn of(metadata: &Metadata, path: &Path) -> Result<Option<Self>> {
        let count = metadata.unsigned("split.count")?.unwrap_or(1);
        if count <= 1 {
            return Ok(None);
        }
        let number = metadata.unsigned("split.no")?.unwrap_or(0);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let ending = part_ending(number, count);
        let Some(stem) = name.strip_suffix(&ending) else {
            let reason = format!(
                "it is part {} of {count}, so its name should end in {ending:?} for the others to \
                 be found",
                number.saturating_add(1)
            );
            return Err(Error::invalid_file(path, reason));
        };
        // As many as the name has digits for, so that no number in a file asks for more.
        let paths: Vec<_> = (0..count.min(99_999))
            .map(|i| path.with_file_name(format!("{stem}{}", part_ending(i, count))))
            .collect();
        let missing: Vec<_> = paths
            .iter()
            .filter(|part| !part.is_file())
            .filter_map(|part| part.file_name())
            .map(|name| name.to_string_lossy())
            .collect();
        if !missing.is_empty() {
            let more = missing.len().saturating_sub(NAMED);
            let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
            let names = missing[..missing.len().min(NAMED)].join(", ");
            let reason = format!("of its {count} parts these are missing: {names}{tail}");
            return Err(Error::invalid_file(path, reason));
        }
        Ok(Some(Self { paths, total: metadata.unsigned("split.tensors.count")? }))
    }

    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Checks that a part is the one that its name says.
    pub(super) fn check(&self, metadata: &Metadata, number: usize, path: &Path) -> Result<()> {
        let found = (metadata.unsigned("split.no")?, metadata.unsigned("split.count")?);
        if found == (Some(number), Some(self.paths.len())) {
            return Ok(());
        }
        let reason = format!("it is not part {} of {}", number + 1, self.paths.len());
        Err(Error::invalid_file(path, reason))
    }

    /// Checks that the parts have all tensors.
    pub(super) fn check_total(&self, found: usize, path: &Path) -> Result<()> {
        match self.total {
            Some(total) if total != found => {
                let reason = format!("its parts have {found} tensors together instead of {total}");
                Err(Error::invalid_file(path, reason))
            }
            _ => Ok(()),
        }
    }
}

/// How the name of a part ends; parts are counted from 0 in files and from 1 in names.
fn part_ending(number: usize, count: usize) -> String {
    format!("-{:05}-of-{count:05}.gguf", number.saturating_add(1))
}
