//! The directory of a run: every log, certificate and keystore that it makes.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

static RUN: LazyLock<PathBuf> = LazyLock::new(|| {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
    remove_ended(all);
    let run = all.join(format!("{PREFIX}{}", process::id()));
    fs::create_dir_all(&run).unwrap_or_else(|error| panic!("{}: {error}", run.display()));
    run
});

const PREFIX: &str = "e2e-";

static NEXT: AtomicUsize = AtomicUsize::new(1);

/// The directory of this run.
pub(crate) fn of_run() -> &'static Path {
    &RUN
}

/// A path in the directory of this run that no other call returns.
pub(crate) fn unique(name: &str) -> PathBuf {
    RUN.join(format!("{:03}-{name}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A new directory in that of this run.
pub(crate) fn unique_directory(name: &str) -> PathBuf {
    let path = unique(name);
    fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// Removes what a passed run made, and tells where that of a failed one is.
pub(super) fn finish(passed: bool) {
    let Some(run) = LazyLock::get(&RUN) else { return };
    if passed {
        let _ = fs::remove_dir_all(run);
    } else {
        eprintln!("the logs of this run are kept until the next one: {}", run.display());
    }
}

/// Removes what is left of earlier runs, but nothing of one that still runs.
fn remove_ended(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
