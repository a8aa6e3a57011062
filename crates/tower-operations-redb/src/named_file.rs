//! A file by its name and its identity.

use std::{
    fs::{self, File, Metadata},
    io,
    path::{Path, PathBuf},
};

use tower_operations::store::HealthWarning;

/// A file that was opened by its name.
#[derive(Debug, Clone)]
pub(super) struct NamedFile {
    /// The absolute path, since the process may change its working directory.
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl NamedFile {
    pub(super) fn of(path: &Path, file: &File) -> io::Result<Self> {
        Ok(Self {
            path: std::path::absolute(path)?,
            identity: identity(&file.metadata()?),
        })
    }

    /// Checks whether the name still refers to the same file; on systems without file
    /// identities, whether the file exists.
    pub(super) fn look(&self) -> io::Result<Option<HealthWarning>> {
        match fs::metadata(&self.path) {
            Ok(found) if identity(&found) == self.identity => Ok(None),
            Ok(_) => Ok(Some(HealthWarning::FileReplaced)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Some(HealthWarning::FileRemoved))
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps)] // other systems have no file identities
fn identity(of: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;

    Some((of.dev(), of.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Option<(u64, u64)> {
    None
}
