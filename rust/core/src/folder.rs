//! Making a model folder so that it is either whole or not there.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::open::MODEL_FILES;

/// A folder beside its target, renamed to it by [`FolderInTheMaking::finish`] and removed if it is
/// dropped before that.
pub(crate) struct FolderInTheMaking {
    folder: TempDir,
    target: PathBuf,
}

impl FolderInTheMaking {
    /// Starts a folder.
    ///
    /// # Errors
    /// If the target is something else than a model folder, or its parent cannot be written to.
    pub(crate) fn new(target: &Path) -> Result<Self> {
        let target = std::path::absolute(target).map_err(Error::io(target))?;
        check_replaceable(&target)?;
        let parent = target.parent().ok_or_else(|| {
            Error::argument("target", format!("is {}, which is no folder's name", target.display()))
        })?;
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        let folder = temporary_folder(parent)?;
        Ok(Self { folder, target })
    }

    /// Where the folder is until it is finished.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file and brings it to the disk.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path().join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let write = || {
            let mut file = File::create_new(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(Error::io(&path))
    }

    /// Gives the folder its name.
    ///
    /// A folder that has the name is moved aside first and removed afterwards: for a moment there is
    /// none under the name, but never a half-written one.
    pub(crate) fn finish(self) -> Result<()> {
        let Self { folder, target } = self;
        sync_folder(folder.path())?;
        let parent = target.parent().unwrap_or(Path::new("."));
        let exists = target.symlink_metadata().is_ok();
        // Holds the old folder until the new one stands, and removes it when dropped.
        let aside = if exists { Some(temporary_folder(parent)?) } else { None };
        if let Some(aside) = &aside {
            check_replaceable(&target)?;
            fs::rename(&target, aside.path().join("old")).map_err(Error::io(&target))?;
        }
        if let Err(error) = fs::rename(folder.path(), &target) {
            if let Some(aside) = aside {
                let old = aside.path().join("old");
                if let Err(second) = fs::rename(&old, &target) {
                    // Better a folder under an odd name than none.
                    let kept = aside.keep();
                    tracing::warn!(%second, kept = %kept.display(), "the old folder stays there");
                }
            }
            return Err(Error::io(&target)(error));
        }
        // Nothing is left under the temporary name to be removed.
        let _ = folder.keep();
        sync_folder(parent)
    }
}

/// A folder is replaced only if it holds nothing but what a model folder holds.
fn check_replaceable(target: &Path) -> Result<()> {
    let refuse = |reason: String| {
        Error::argument("target", format!("{} {reason}; choose another", target.display()))
    };
    if target.symlink_metadata().is_err() {
        return Ok(());
    }
    if !target.is_dir() {
        return Err(refuse("exists and is not a folder".to_owned()));
    }
    for entry in fs::read_dir(target).map_err(Error::io(target))? {
        let name = entry.map_err(Error::io(target))?.file_name();
        let name = name.to_string_lossy();
        if !MODEL_FILES.contains(&&*name) && !["metadata.json", "tokenizer"].contains(&&*name) {
            return Err(refuse(format!("exists and holds {name:?}, which is no part of a model")));
        }
    }
    Ok(())
}

fn temporary_folder(parent: &Path) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".arrowembed-");
    // Temporary folders are private by default; this one becomes an ordinary one.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder.tempdir_in(parent).map_err(Error::io(parent))
}

/// Brings a folder's entries to the disk, where folders can be opened.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(path).and_then(|folder| folder.sync_all()).map_err(Error::io(path))?;
    }
    Ok(())
}
