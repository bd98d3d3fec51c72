//! The queue's file and its volume.

use std::{path::PathBuf, time::Instant};

use prometheus_client::{
    collector::Collector,
    encoding::DescriptorEncoder,
    metrics::{gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::gauge;
use crate::limits;

/// What the writer of a queue tells.
#[derive(Clone, Debug)]
pub struct QueueMetrics {
    commits: Histogram,
    used: Gauge,
    directory: PathBuf,
    capacity: i64,
}

/// Space of a volume, bytes.
struct Volume {
    size: u64,
    available: u64,
}

impl QueueMetrics {
    /// Of a queue in a directory, which may hold so many bytes.
    pub fn new(directory: PathBuf, capacity: i64) -> Self {
        let commits = Histogram::new(limits::METRICS_COMMIT_SECONDS);
        Self { commits, used: Gauge::default(), directory, capacity }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Time of a commit of the queue, the wait for the disk included; events share one";
        registry.register_with_unit("queue_commit_duration", help, Unit::Seconds, self.commits.clone());
        registry.register_collector(Box::new(self.clone()));
    }

    /// A commit that began then is on disk.
    pub(crate) fn committed(&self, since: Instant) {
        self.commits.observe(since.elapsed().as_secs_f64());
    }

    /// So much of the file is used.
    pub(crate) fn uses(&self, bytes: i64) {
        self.used.set(bytes);
    }

    fn file_bytes(&self) -> u64 {
        let size = |name| std::fs::metadata(self.directory.join(name)).map_or(0, |file| file.len());
        size("queue.db") + size("queue.db-wal")
    }

    fn volume(&self) -> Option<Volume> {
        let volume = rustix::fs::statvfs(&self.directory).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(volume.f_frsize);
        Some(Volume { size: bytes(volume.f_blocks), available: bytes(volume.f_bavail) })
    }
}

/// Term at only when somebody asks.
impl Collector for QueueMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut gauge =
            |name: &str, help: &str, bytes: i64| gauge(&mut encoder, name, help, Some(&Unit::Bytes), bytes);
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        gauge("queue_file", "Size of the queue's file and its log.", signed(self.file_bytes()))?;
        let used =
            "What is used of the queue's file, as of the last event that came; the rest is used again.";
        gauge("queue_used", used, self.used.get())?;
        gauge("queue_capacity", "So much may be used: an event beyond is answered 429.", self.capacity)?;
        if let Some(Volume { size, available }) = self.volume() {
            gauge("queue_volume_size", "Size of the queue's volume.", signed(size))?;
            gauge("queue_volume_available", "What is free on the queue's volume.", signed(available))?;
        }
        Ok(())
    }
}
