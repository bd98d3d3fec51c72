//! The test that the current task belongs to: what it waits for, its panic, its logs.

use std::{
    backtrace::Backtrace,
    fmt::Write as _,
    fs, panic,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Lines of each log shown with a failure.
const LOG_LINES: usize = 25;

tokio::task_local! {
    pub(super) static CONTEXT: Arc<Context>;
}

/// What is known of a running test.
pub(super) struct Context {
    name: &'static str,
    panic: Mutex<Option<String>>,
    waiting_for: Mutex<Option<String>>,
    logs: Mutex<Vec<PathBuf>>,
}

impl Context {
    pub(super) fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            panic: Mutex::default(),
            waiting_for: Mutex::default(),
            logs: Mutex::default(),
        })
    }

    pub(super) fn panic(&self) -> Option<String> {
        locked(&self.panic).take()
    }

    pub(super) fn waiting_for(&self) -> Option<String> {
        locked(&self.waiting_for).clone()
    }

    /// The last lines of what the processes of this test wrote.
    pub(super) fn ends_of_logs(&self) -> String {
        let mut all = String::new();
        for path in locked(&self.logs).iter() {
            let text = fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
            let lines: Vec<&str> = text.lines().collect();
            let _ = write!(all, "\n--- the end of {}:", path.display());
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                let _ = write!(all, "\n{line}");
            }
        }
        all
    }
}

/// Says what the current test waits for, in case that its time runs out.
pub(super) fn waiting_for(what: &str) {
    let _ = CONTEXT.try_with(|context| *locked(&context.waiting_for) = Some(what.to_owned()));
}

/// Adds a log to those shown when the current test fails.
pub(super) fn add_log(path: PathBuf) {
    let _ = CONTEXT.try_with(|context| locked(&context.logs).push(path));
}

/// The current test as a part of a name: letters, digits and dashes.
pub(super) fn slug() -> String {
    let name = CONTEXT.try_with(|context| context.name).unwrap_or("run");
    let last = name.rsplit("::").next().unwrap_or(name);
    last.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

/// Puts the panic of a test into its result, where it stands with the test's name, instead of in between
/// the lines of others.
pub(super) fn report_panics_of_tests() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let kept = CONTEXT.try_with(|context| {
            let message = info.payload_as_str().unwrap_or("a panic without a message");
            let place = info.location().map_or_else(String::new, ToString::to_string);
            let place = line_of_test().unwrap_or(place);
            locked(&context.panic).get_or_insert(format!("{place}: {message}"));
        });
        if kept.is_err() {
            default(info);
        }
    }));
}

/// The innermost line of a test that led here: a helper's own line tells nothing.
fn line_of_test() -> Option<String> {
    let trace = Backtrace::force_capture().to_string();
    let mut places = trace.lines().filter_map(|line| line.trim().strip_prefix("at "));
    let of_test =
        places.find(|place| place.contains("tests/e2e/") && !place.contains("tests/e2e/harness/"))?;
    Some(of_test.trim_start_matches("./").to_owned())
}

/// Locks, also after a panic: what is kept here is whole after each statement.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
