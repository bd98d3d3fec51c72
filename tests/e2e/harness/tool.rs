//! Short commands: openssl, keytool, kubectl.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    io::{self, Write},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    thread,
};

use super::context;

/// A command that is about to run.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    directory: Option<PathBuf>,
    stdin: Vec<u8>,
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) command: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Tool {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            stdin: Vec::new(),
        }
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Adds an option and its value.
    pub(crate) fn arg(self, option: &str, value: impl AsRef<OsStr>) -> Self {
        self.args([OsStr::new(option), value.as_ref()])
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    pub(crate) fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs it to its end, whatever that is.
    pub(crate) async fn run(self) -> Output {
        let line = self.line();
        context::waiting_for(&format!("the command `{line}`"));
        tokio::task::spawn_blocking(move || self.run_blocking())
            .await
            .unwrap_or_else(|error| panic!("`{line}`: {error}"))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs it and returns what it printed; anything but success is a failure of the test.
    pub(crate) async fn succeed(self) -> String {
        self.run().await.succeeded()
    }

    fn run_blocking(self) -> Result<Output, String> {
        let command = self.line();
        let program = self.program.to_string_lossy().into_owned();
        let mut builder = Command::new(&self.program);
        builder.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        builder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(directory) = &self.directory {
            builder.current_dir(directory);
        }
        let mut child = builder.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("{program} is missing: install {}", package(&program)),
            _ => format!("`{command}` does not start: {error}"),
        })?;
        // A command that does not read all of its input ends by its own opinion of that.
        let stdin = child.stdin.take();
        let bytes = self.stdin;
        let writer = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&bytes)));
        let output = child.wait_with_output().map_err(|error| format!("`{command}`: {error}"))?;
        let _ = writer.join();
        Ok(Output {
            command,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn line(&self) -> String {
        let mut line = self.program.to_string_lossy().into_owned();
        for argument in &self.arguments {
            let _ = write!(line, " {}", argument.to_string_lossy());
        }
        line
    }
}

impl Output {
    /// What it printed; anything but success is a failure of the test.
    pub(crate) fn succeeded(self) -> String {
        assert!(
            self.status.success(),
            "`{}` failed, {}:\n{}{}",
            self.command,
            self.status,
            self.stderr,
            self.stdout
        );
        self.stdout
    }

    /// What it complained of; success is a failure of the test.
    pub(crate) fn failed(self) -> String {
        assert!(!self.status.success(), "`{}` was to fail and printed:\n{}", self.command, self.stdout);
        self.stderr
    }
}

/// What holds a program, as Debian calls it.
fn package(program: &str) -> &str {
    match program {
        "keytool" => "a Java runtime, the package default-jre-headless",
        "setpriv" => "the package util-linux",
        other => other,
    }
}
