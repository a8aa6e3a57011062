//! A new file, until its database is complete.
//!
//! A crash while a database is created leaves a file that redb cannot open. So a new file has another
//! name at first, and a file with the right name is complete.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

use super::named_file::NamedFile;

/// The suffix of the name of a file until its database is complete.
const SUFFIX: &str = ".unfinished";

/// The number of bytes by which a redb file is recognized. redb writes them last, and zeros before.
const MAGIC: usize = 9;

/// A file with a provisional name. The process that locks it creates the database in it.
pub(super) struct UnfinishedFile {
    provisional: PathBuf,
    path: PathBuf,
}

impl UnfinishedFile {
    /// Opens the file with the provisional name for `path`, or creates it. It has to be locked
    /// before it is used.
    pub(super) fn open(path: &Path, mut options: OpenOptions) -> io::Result<(Self, File)> {
        let mut provisional = OsString::from(path);
        provisional.push(SUFFIX);
        let unfinished = Self {
            provisional: provisional.into(),
            path: path.into(),
        };
        let file = options.create(true).open(&unfinished.provisional)?;
        Ok((unfinished, file))
    }

    /// Empties the file, which is locked, if an earlier process has begun to create a database in
    /// it. Returns `None` if another process has completed it, or another file, before it was
    /// locked.
    pub(super) fn begin(self, file: &File) -> io::Result<Option<Self>> {
        if NamedFile::of(&self.provisional, file)?.look()?.is_some() {
            return Ok(None);
        }
        if fs::exists(&self.path)? {
            if file.metadata()?.len() == 0 {
                fs::remove_file(&self.provisional)?;
            }
            return Ok(None);
        }
        let mut magic = Vec::with_capacity(MAGIC);
        file.take(MAGIC as u64).read_to_end(&mut magic)?;
        // A file that begins otherwise is a database, or not one of this crate.
        if magic.iter().all(|byte| *byte == 0) {
            file.set_len(0)?;
        }
        Ok(Some(self))
    }

    /// Gives the file its name, unless another file has that name. Its contents are synced.
    pub(super) fn complete(self) -> io::Result<()> {
        // Processes of this crate wait for the lock, and others may not know the provisional name.
        if fs::exists(&self.path)? {
            return Err(ErrorKind::AlreadyExists.into());
        }
        fs::rename(&self.provisional, &self.path)?;
        sync_folder(&self.path)
    }
}

/// Syncs the folder of a new file: without this, the file does not survive a crash.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    match cfg!(unix) {
        true => File::open(folder)?.sync_all(),
        false => Ok(()), // a folder cannot be opened there
    }
}
