//! What the tests stand on: a cluster, processes, certificates, receivers, tenants, and waiting with a
//! bound.
//!
//! Whatever starts here ends with the test program, in whichever way that ends: a control plane sees its
//! standard input close, every other process is killed by the kernel.

// A helper may come before the first test that needs it, and no program needs all of them.
#![allow(dead_code, unused_macros)]

pub(crate) mod audit;
pub(crate) mod chart;
pub(crate) mod cluster;
pub(crate) mod collector;
pub(crate) mod crowd;
pub(crate) mod eventually;
pub(crate) mod kubelet;
pub(crate) mod load;
pub(crate) mod nginx;
pub(crate) mod pki;
pub(crate) mod process;
pub(crate) mod programs;
pub(crate) mod proxy;
pub(crate) mod receiver;
pub(crate) mod scene;
pub(crate) mod secrets;
pub(crate) mod servers;
pub(crate) mod tool;
pub(crate) mod usage;

mod context;
pub(crate) mod directory;

use std::{
    path::PathBuf,
    pin::Pin,
    process::ExitCode,
    sync::{Arc, LazyLock, OnceLock},
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

use cluster::Cluster;

/// What one test may take in all. Each wait inside it has a shorter bound and a better message.
const TEST_SECONDS_MAX: u64 = 120;

/// Tests mostly wait, so more of them than processors may run at once.
const TESTS_AT_ONCE: usize = 4;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("the runtime of the tests starts")
});

static CLUSTER: OnceLock<Result<Arc<Cluster>, String>> = OnceLock::new();

type Body = fn(Arc<Cluster>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// A test: a name and a function that panics on failure. Made by [`tests!`].
pub(crate) struct Test {
    name: &'static str,
    body: Body,
}

impl Test {
    pub(crate) fn new(name: &'static str, body: Body) -> Self {
        Self { name: name.strip_prefix("e2e::").unwrap_or(name), body }
    }
}

/// Lists the tests of a module: `tests![one, two];` where each is an `async fn(Arc<Cluster>)`.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub(crate) fn tests() -> Vec<$crate::harness::Test> {
            vec![$($crate::harness::Test::new(
                concat!(module_path!(), "::", stringify!($name)),
                |cluster| Box::pin($name(cluster)),
            )),+]
        }
    };
}

/// Runs the tests, then looks for secrets in all that was logged, then ends the cluster.
pub(crate) fn run(tests: Vec<Vec<Test>>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(TESTS_AT_ONCE);
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("no other provider is installed");
    context::report_panics_of_tests();

    let trials =
        tests.into_iter().flatten().map(|test| Trial::test(test.name, move || run_one(&test))).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut passed = !conclusion.has_failed();

    if !arguments.list && conclusion.num_passed + conclusion.num_failed > 0 {
        process::end_all();
        // Whatever was selected above, what it logged is looked at.
        let everything = Arguments { filter: None, skip: Vec::new(), exact: false, ..arguments };
        let scan =
            Trial::test("no_secret_in_any_log", || secrets::scan(directory::of_run()).map_err(Failed::from));
        passed &= !libtest_mimic::run(&everything, vec![scan]).has_failed();
    }
    if let Some(Ok(cluster)) = CLUSTER.get() {
        RUNTIME.block_on(cluster.stop());
    }
    RUNTIME.block_on(cluster::await_ends());
    directory::finish(passed);
    if passed { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// Runs a program that is no test, as one that found what it looked for (`true`) or did not, on a control
/// plane of its own. Whatever it started has ended when this returns, also when it was interrupted.
pub(crate) fn run_alone<F>(name: &'static str, body: impl FnOnce(Arc<Cluster>) -> F) -> ExitCode
where
    F: Future<Output = bool> + Send + 'static,
{
    rustls::crypto::aws_lc_rs::default_provider().install_default().expect("no other provider is installed");
    context::report_panics_of_tests();
    let context = context::Context::new(name);
    let outcome = RUNTIME.block_on(context::CONTEXT.scope(Arc::clone(&context), async {
        let mut interrupted = std::pin::pin!(interrupted());
        let cluster = tokio::select! {
            started = Cluster::start() => match started {
                Ok(cluster) => cluster,
                Err(error) => return Some(Err(error)),
            },
            () = &mut interrupted => return None,
        };
        let mut task = tokio::spawn(context::CONTEXT.scope(Arc::clone(&context), body(Arc::clone(&cluster))));
        let outcome = tokio::select! {
            outcome = &mut task => {
                Some(outcome.map_err(|error| context.panic().unwrap_or_else(|| error.to_string())))
            }
            () = interrupted => {
                task.abort();
                let _ = task.await;
                None
            }
        };
        cluster.stop().await;
        outcome
    }));
    process::end_all();
    RUNTIME.block_on(cluster::await_ends());
    let mut passed = match outcome {
        Some(Ok(passed)) => passed,
        Some(Err(error)) => {
            eprintln!("{name}: {error}");
            false
        }
        None => {
            eprintln!("{name}: interrupted");
            directory::finish(true);
            return ExitCode::from(130);
        }
    };
    if let Err(found) = secrets::scan(directory::of_run()) {
        eprintln!("secrets in logs:\n{found}");
        passed = false;
    }
    directory::finish(passed);
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).expect("signals can be listened to");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
}

/// A new directory that goes with the run.
pub(crate) fn new_directory(name: &str) -> PathBuf {
    directory::unique_directory(name)
}

fn run_one(test: &Test) -> Result<(), Failed> {
    let cluster =
        CLUSTER.get_or_init(|| RUNTIME.block_on(Cluster::shared())).as_ref().map_err(Failed::from)?;
    let context = context::Context::new(test.name);
    let body = context::CONTEXT.scope(Arc::clone(&context), (test.body)(Arc::clone(cluster)));
    let outcome = RUNTIME.block_on(async {
        let mut task = tokio::spawn(body);
        match tokio::time::timeout(Duration::from_secs(TEST_SECONDS_MAX), &mut task).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(context.panic().unwrap_or_else(|| error.to_string())),
            Err(_) => {
                task.abort();
                let waited = context.waiting_for().unwrap_or_else(|| "nothing that it named".to_owned());
                Err(format!(
                    "{} did not end within {TEST_SECONDS_MAX} s; it was waiting for {waited}",
                    test.name
                ))
            }
        }
    });
    outcome.map_err(|message| Failed::from(message + &context.ends_of_logs()))
}
