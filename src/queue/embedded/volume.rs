//! The queue's volume: what of it is kept for what leaves.
//!
//! That an event has left has to be written as well, into the log. And the log gives its room back only once all of it
//! has been moved to the file, which may have to grow for that. A volume that was filled to its last byte would stay
//! full for ever, so events are refused before: what is in the log always finds room in the file, and then there is
//! room in the log.

use std::{fs, path::PathBuf};

use rustix::fs::statvfs;

use crate::limits;

#[derive(Debug)]
pub(super) struct Volume {
    /// The queue's file on it.
    file: PathBuf,
}

impl Volume {
    pub(super) fn of(file: PathBuf) -> Self {
        Self { file }
    }

    /// So little is free that the log has to be kept empty.
    pub(super) fn is_low(&self) -> bool {
        self.free_bytes() < limits::VOLUME_LOW_BYTES
    }

    /// What is free, bytes, beside what the file still grows by once it has come to `file_bytes`. Where it is not known
    /// there is enough, until SQLite says otherwise.
    pub(super) fn spare_bytes(&self, file_bytes: i64) -> i64 {
        let now = fs::metadata(&self.file).map_or(0, |file| file.len());
        let growth = file_bytes.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX)).max(0);
        self.free_bytes().saturating_sub(growth)
    }

    fn free_bytes(&self) -> i64 {
        statvfs(&self.file).map_or(i64::MAX, |volume| {
            i64::try_from(volume.f_bavail.saturating_mul(volume.f_frsize)).unwrap_or(i64::MAX)
        })
    }
}
