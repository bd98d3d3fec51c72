//! What the kernel says of a process.

use std::{fs, time::Duration};

/// CPU time that a process has used, all its threads together, also those that have ended.
pub(crate) fn cpu(pid: i32) -> Duration {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // The name, in parentheses, may hold anything; utime and stime are fields 14 and 15 (proc(5)).
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks = |field: usize| fields.split(' ').nth(field - 3)?.parse::<u64>().ok();
    let ticks = ticks(14).zip(ticks(15)).unwrap_or_else(|| panic!("{path}: {stat}"));
    Duration::from_secs(ticks.0 + ticks.1)
        / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100)
}

/// CPU time that this process has used.
pub(crate) fn own_cpu() -> Duration {
    cpu(rustix::process::getpid().as_raw_nonzero().get())
}

/// Resident memory of a process.
pub(crate) struct Memory {
    pub(crate) now_mib: f64,
    /// The most that it ever was.
    pub(crate) peak_mib: f64,
}

pub(crate) fn memory(pid: i32) -> Memory {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mib = |name: &str| {
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kib.unwrap_or_else(|| panic!("{path} has no {name}")) / 1024.0
    };
    Memory { now_mib: mib("VmRSS"), peak_mib: mib("VmHWM") }
}
