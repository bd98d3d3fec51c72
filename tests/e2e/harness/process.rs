//! Long-lived processes: their log, the ways they end, and that none outlives the test program.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, LazyLock, Mutex, Weak, mpsc},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::sync::{mpsc::UnboundedSender, watch};

use super::{
    context::{self, locked},
    directory, eventually,
};

/// How long a process may take to start, to stop, or to say something.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks at an HTTP endpoint that is about to come up: there is no event for that.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The kernel kills a process when the *thread* that started it ends, so one thread starts them all.
static STARTER: LazyLock<mpsc::Sender<Start>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel::<Start>();
    thread::spawn(move || {
        for Start { mut command, answer } in receiver {
            let _ = answer.send(command.spawn());
        }
    });
    sender
});

struct Start {
    command: Command,
    answer: mpsc::Sender<io::Result<Child>>,
}

static ALL: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    name: String,
    path: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    diverted: Option<(&'static str, UnboundedSender<String>)>,
}

impl Program {
    /// `name` is for messages and the file name of the log.
    pub(crate) fn new(name: &str, path: impl AsRef<OsStr>) -> Self {
        Self {
            name: name.to_owned(),
            path: path.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            diverted: None,
        }
    }

    /// The operator's own program with a subcommand: `controller` or `dispatcher`.
    pub(crate) fn postrider(subcommand: &str) -> Self {
        // All that it could say: what is looked through for secrets at the end.
        Self::new(subcommand, env!("CARGO_BIN_EXE_postrider"))
            .args([subcommand])
            // Others run beside it.
            .args(["--metrics-listen", "127.0.0.1:0"])
            .env("RUST_BACKTRACE", "1")
            .env("POSTRIDER_LOG", "debug,postrider=trace,hyper_util=info,tower=info,kube_client=info")
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    pub(crate) fn current_dir(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Lines that begin with `prefix` go there, without it, and are kept nowhere else: for a program that
    /// writes more than a run has memory for.
    pub(crate) fn divert(self, prefix: &'static str, to: UnboundedSender<String>) -> Self {
        Self { diverted: Some((prefix, to)), ..self }
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Process {
        let log = directory::unique(&format!("{}-{}.log", context::slug(), self.name));
        context::add_log(log.clone());
        let mut file =
            File::create(&log).unwrap_or_else(|error| panic!("{} cannot be written: {error}", log.display()));
        let (reader, writer) =
            io::pipe().unwrap_or_else(|error| panic!("no pipe for {}: {error}", self.name));
        let error = writer.try_clone().unwrap_or_else(|error| panic!("no pipe for {}: {error}", self.name));

        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.path).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.stdin(Stdio::null()).stdout(writer).stderr(error);
        let child = start(command).unwrap_or_else(|error| panic!("{} does not start: {error}", self.name));

        let shared = Arc::new(Shared {
            name: self.name.clone(),
            pid: Pid::from_child(&child),
            child: Mutex::new(child),
            exit: watch::Sender::new(None),
            lines: Mutex::default(),
            written: watch::Sender::new(Written { lines: 0, ended: false }),
        });
        locked(&ALL).push(Arc::downgrade(&shared));

        let written_by = Arc::clone(&shared);
        let diverted = self.diverted.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                let diverted =
                    diverted.as_ref().and_then(|(prefix, to)| Some((text.strip_prefix(prefix)?, to)));
                if let Some((rest, to)) = diverted {
                    // Whoever listened may be gone; the program goes on.
                    let _ = to.send(rest.to_owned());
                } else {
                    let _ = file.write_all(&line);
                    locked(&written_by.lines).push(text);
                    written_by.written.send_modify(|written| written.lines += 1);
                }
                line.clear();
            }
            written_by.written.send_modify(|written| written.ended = true);
        });
        let ended_by = Arc::clone(&shared);
        thread::spawn(move || ended_by.await_end());
        Process { shared, log }
    }
}

fn start(command: Command) -> io::Result<Child> {
    let (answer, answered) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    STARTER.send(Start { command, answer }).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

/// A running process; dropped, it is killed.
pub(crate) struct Process {
    shared: Arc<Shared>,
    log: PathBuf,
}

struct Shared {
    name: String,
    pid: Pid,
    child: Mutex<Child>,
    exit: watch::Sender<Option<ExitStatus>>,
    lines: Mutex<Vec<String>>,
    written: watch::Sender<Written>,
}

#[derive(Clone, Copy)]
struct Written {
    lines: usize,
    ended: bool,
}

impl Process {
    pub(crate) fn name(&self) -> &str {
        &self.shared.name
    }

    pub(crate) fn pid(&self) -> i32 {
        self.shared.pid.as_raw_nonzero().get()
    }

    /// The file with all that it wrote.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// What it wrote so far, on stdout and stderr.
    pub(crate) fn lines(&self) -> Vec<String> {
        locked(&self.shared.lines).clone()
    }

    /// The first line for which `find` returns something, among those written and those to come.
    pub(crate) async fn find_line<T>(&self, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> T {
        let what = format!("{what} in the log of {}", self.name());
        let mut written = self.shared.written.subscribe();
        let mut seen = 0;
        let search = async {
            loop {
                let now = *written.borrow_and_update();
                let found = locked(&self.shared.lines)[seen..now.lines].iter().find_map(|line| find(line));
                if found.is_some() || now.ended {
                    return found;
                }
                seen = now.lines;
                if written.changed().await.is_err() {
                    return None;
                }
            }
        };
        eventually::within(PROCESS_TIMEOUT, &what, search)
            .await
            .unwrap_or_else(|| panic!("{} ended without {what}{}", self.name(), self.status_text()))
    }

    /// Waits for a line that holds `text`, and returns it.
    pub(crate) async fn line_with(&self, text: &str) -> String {
        self.find_line(&format!("a line with `{text}`"), |line| line.contains(text).then(|| line.to_owned()))
            .await
    }

    /// The address in the line of the operator's own program that says `message`.
    pub(crate) async fn address(&self, message: &str) -> String {
        let line = self.line_with(message).await;
        let line: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        line["address"].as_str().unwrap_or_else(|| panic!("no address: {line}")).to_owned()
    }

    /// Where the operator's own program tells of its health.
    pub(crate) async fn health(&self) -> String {
        format!("http://{}", self.address("tells of its health").await)
    }

    /// Waits until a GET of `url` is answered with 200.
    pub(crate) async fn http_ready(&self, url: &str) {
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build();
        let client = client.unwrap_or_else(|error| panic!("the client of a health endpoint: {error}"));
        let mut last = "no answer".to_owned();
        let mut exit = self.shared.exit.subscribe();
        let answered = async {
            loop {
                match client.get(url).send().await {
                    Ok(response) if response.status() == 200 => return,
                    Ok(response) => {
                        last =
                            format!("{}: {}", response.status(), response.text().await.unwrap_or_default());
                    }
                    Err(error) => last = error.to_string(),
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        let name = self.name();
        context::waiting_for(&format!("{name} to be ready at {url}"));
        tokio::select! {
            answered = tokio::time::timeout(PROCESS_TIMEOUT, answered) => {
                assert!(answered.is_ok(), "{name} was not ready at {url} within {PROCESS_TIMEOUT:?}, the last answer was {last}");
            }
            _ = exit.wait_for(Option::is_some) => {
                panic!("{name} ended before it was ready at {url}{}", self.status_text());
            }
        }
    }

    /// SIGKILL: no chance to finish anything. Returns when it is gone.
    pub(crate) async fn kill(&self) {
        self.shared.kill();
        self.ended().await;
    }

    /// SIGTERM; it has to end by itself, with exit code 0.
    pub(crate) async fn terminate(&self) {
        self.signal(Signal::TERM);
        let status = self.ended().await;
        assert!(status.success(), "{} ended after SIGTERM with {status}, not with 0", self.name());
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) -> ExitStatus {
        let mut exit = self.shared.exit.subscribe();
        let ended = async { exit.wait_for(Option::is_some).await.ok().and_then(|status| *status) };
        eventually::within(PROCESS_TIMEOUT, &format!("the end of {}", self.name()), ended)
            .await
            .unwrap_or_else(|| panic!("nobody waits for {}", self.name()))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.shared.exit.borrow().is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.shared.signal(signal).unwrap_or_else(|error| panic!("{signal:?} to {}: {error}", self.name()));
    }

    fn status_text(&self) -> String {
        self.shared.exit.borrow().map_or_else(String::new, |status| format!(", with {status}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shared.kill();
    }
}

impl Shared {
    /// The process id stays taken until the lock is held for reaping it: no other process is ever hit.
    fn signal(&self, signal: Signal) -> io::Result<()> {
        let mut child = locked(&self.child);
        if child.try_wait()?.is_none() {
            rustix::process::kill_process(self.pid, signal)?;
        }
        Ok(())
    }

    fn kill(&self) {
        let _ = self.signal(Signal::KILL);
    }

    fn await_end(&self) {
        // Waits without reaping, hence without the lock.
        while let Err(rustix::io::Errno::INTR) =
            rustix::process::waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {
        }
        let status = locked(&self.child).wait().ok();
        self.exit.send_replace(status);
    }
}

/// Kills what still runs and waits until all that was written is in the logs.
pub(super) fn end_all() {
    let all: Vec<_> = locked(&ALL).iter().filter_map(Weak::upgrade).collect();
    for process in &all {
        process.kill();
    }
    super::RUNTIME.block_on(async {
        for process in &all {
            let mut written = process.written.subscribe();
            let _ = tokio::time::timeout(PROCESS_TIMEOUT, written.wait_for(|written| written.ended)).await;
        }
    });
}
