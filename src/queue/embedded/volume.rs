//! The queue's volume and its file: what of them is kept for what leaves.
//!
//! That an event has left has to be written as well, into the log. And the log gives its room back only once all of it
//! has been moved to the file, which may have to grow for that. A volume that was filled to its last byte would stay
//! full for ever, so events are refused before: what is in the log always finds room in the file, and then there is
//! room in the log.

use std::{fs, path::PathBuf};

use rusqlite::Connection;
use rustix::fs::statvfs;

use super::super::QueueError;
use crate::limits;

/// Of SQLite's files, if they are not told otherwise.
pub(super) const PAGE_BYTES: i64 = 4096;

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

/// Of the file as a transaction begins, bytes.
#[derive(Clone, Copy)]
pub(super) struct Size {
    /// Without the pages that are free, which are used again.
    pub(super) used: i64,
    whole: i64,
    /// On its volume.
    spare: i64,
}

impl Size {
    pub(super) fn read(connection: &Connection, volume: &Volume) -> Result<Self, QueueError> {
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (pages, free) = (pragma("page_count")?, pragma("freelist_count")?);
        let whole = pages * PAGE_BYTES;
        Ok(Self { used: (pages - free) * PAGE_BYTES, whole, spare: volume.spare_bytes(whole) })
    }

    /// Whether so much more can be written to the log, and moved to the file from there.
    pub(super) fn has_room_for(self, log_bytes: i64) -> bool {
        let growth = self.used.saturating_add(log_bytes).saturating_sub(self.whole).max(0);
        // What fits into pages that have become free may use half of it: otherwise those would never be used again.
        let kept = if growth > 0 { limits::VOLUME_KEPT_BYTES } else { limits::VOLUME_KEPT_BYTES / 2 };
        log_bytes.saturating_add(growth).saturating_add(kept) <= self.spare
    }
}
