//! Whether memory and the queue's file level off.

use std::path::{Path, PathBuf};

use crate::harness::usage;

/// The last third may be so much larger than the first before that is growth: a share of it, and what a few
/// events more in the queue are worth.
const SHARE: f64 = 1.5;
const SLACK_MIB: f64 = 16.0;

/// With fewer looks nothing can be said.
const LOOKS_TO_JUDGE: usize = 30;

/// What was seen in a run.
pub(crate) struct Growth {
    queue: PathBuf,
    memory: Vec<f64>,
    /// Of the dispatcher that runs, and which it is.
    life: Vec<f64>,
    dispatcher: Option<i32>,
    file: Vec<f64>,
}

/// First and last third of a run: the middle of what was seen, MiB.
#[derive(Clone, Copy)]
pub(crate) struct Thirds {
    pub(crate) first: f64,
    pub(crate) last: f64,
    pub(crate) most: f64,
    /// `None` where it was too short to say.
    pub(crate) levels_off: Option<bool>,
}

impl Growth {
    pub(crate) fn new(queue: &Path) -> Self {
        let (memory, life, file) = Default::default();
        Self { queue: queue.to_owned(), memory, life, dispatcher: None, file }
    }

    /// Looks at the dispatcher's memory, while one runs, and at the queue's file with its log.
    pub(crate) fn look(&mut self, dispatcher: Option<i32>) {
        if let Some(pid) = dispatcher {
            if self.dispatcher.replace(pid) != dispatcher {
                self.life.clear();
            }
            let now_mib = usage::memory(pid).now_mib;
            self.memory.push(now_mib);
            self.life.push(now_mib);
        }
        let bytes = |name| std::fs::metadata(self.queue.join(name)).map_or(0, |file| file.len());
        #[allow(clippy::cast_precision_loss)]
        self.file.push((bytes("queue.db") + bytes("queue.db-wal")) as f64 / 1024.0 / 1024.0);
    }

    pub(crate) fn looks(&self) -> usize {
        self.file.len()
    }

    /// As last seen.
    pub(crate) fn now(&self) -> (f64, f64) {
        (self.memory.last().copied().unwrap_or_default(), self.file.last().copied().unwrap_or_default())
    }

    pub(crate) fn memory(&self) -> Thirds {
        Thirds::of(&self.memory)
    }

    /// Of the last dispatcher, which lived for half of the run.
    pub(crate) fn memory_of_one_life(&self) -> Thirds {
        Thirds::of(&self.life)
    }

    pub(crate) fn file(&self) -> Thirds {
        Thirds::of(&self.file)
    }
}

impl Thirds {
    fn of(seen: &[f64]) -> Self {
        let third = seen.len() / 3;
        let (first, last) = (median(&seen[..third]), median(&seen[seen.len() - third..]));
        let levels_off = last <= first * SHARE + SLACK_MIB;
        Self {
            first,
            last,
            most: seen.iter().copied().fold(0.0, f64::max),
            levels_off: (seen.len() >= LOOKS_TO_JUDGE).then_some(levels_off),
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
