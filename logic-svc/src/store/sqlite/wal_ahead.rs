//! What of the write-ahead log is overwritten next is kept in the system's cache.
//!
//! The log is written over again from its beginning once it is copied back, and no frame of it begins or ends where a
//! block of the file system does. So the system has to know a block before it can take part of it, and reads it from the
//! disk when it has dropped it since; the writer waits for that in the middle of a commit (82 ms once, on a disk whose
//! reads are mostly done in 0.1 ms, with a log that was written 45 s before).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

/// Bytes of a page of the database.
pub(super) const PAGE_BYTES: u64 = 4096;
/// Bytes before the first frame and before the page of each frame (sqlite.org/fileformat2.html, 4.1 and 4.2).
const LOG_HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: u64 = 24;
/// At least so many bytes ahead of the writer are kept.
const AHEAD_BYTES: u64 = 512 * 1024;
/// How many times the bytes of the last period are kept ahead, so that a writer who speeds up does not get past them.
const AHEAD_PERIODS: u64 = 4;
/// The kernel reads no more for one advice than it reads ahead for a file, 128 KiB unless somebody set it otherwise.
const STEP_BYTES: u64 = 128 * 1024;

/// The write-ahead log as a file.
pub(super) struct WalAhead {
    path: PathBuf,
    file: Option<File>,
    end: u64,
}

impl WalAhead {
    /// The log of that database.
    pub(super) fn new(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self { path: path.into(), file: None, end: 0 }
    }

    /// The log has so many pages: what follows them is read, if the system does not have it, and so is the beginning of
    /// the log if it is about to `begin_anew`. Nobody waits for the disk here.
    ///
    /// # Errors
    /// The file cannot be opened, or the system takes no advice about it.
    pub(super) fn keep(&mut self, pages: u64, begin_anew: bool) -> io::Result<()> {
        let end = LOG_HEADER_BYTES + pages * (FRAME_HEADER_BYTES + PAGE_BYTES);
        let written = end.saturating_sub(self.end);
        self.end = end;
        let file = match &mut self.file {
            Some(file) => file,
            // SQLite's locks are on other files, so closing this one gives none of them up.
            none => none.insert(File::open(&self.path)?),
        };
        let ahead = AHEAD_BYTES.max(AHEAD_PERIODS * written);
        advise(file, end, ahead)?;
        if begin_anew {
            advise(file, 0, ahead)?;
        }
        Ok(())
    }
}

/// Behind the end of the file there is nothing to be read, and advice about it changes nothing.
fn advise(file: &File, start: u64, bytes: u64) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut at = start - start % PAGE_BYTES;
    while at < length.min(start + bytes) {
        fadvise(file, at, std::num::NonZeroU64::new(STEP_BYTES), Advice::WillNeed)?;
        at += STEP_BYTES;
    }
    Ok(())
}
