//! What many webhooks cost: requests to the API server, memory and CPU of both programs, until all are Ready, at rest,
//! when one Secret changes, and when a program or the API server starts again.
//!
//! ```sh
//! make scale WEBHOOKS=1000 NAMESPACES=100 REST=180
//! ```
//!
//! Requests are counted by the API server's own log, and it fails by counts alone: at rest there is nothing but
//! watches and the Lease, a restart writes nothing, and a Secret that changes concerns those who name it. Time and
//! memory are the machine's affair.

// What cannot go on says so by panicking; the harness turns that into a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use serde_json::json;
use tokio::time::sleep;

#[macro_use]
#[path = "../e2e/harness/mod.rs"]
mod harness;
mod report;
mod tally;
mod tenants;

use harness::{
    audit, chart,
    cluster::Cluster,
    pki,
    process::{Process, Program},
    receiver::{ClientAuth, Options, TO_RECEIVERS},
};
use report::Usage;
use tally::{Tally, kind};
use tenants::{SHARING, Tenants};

/// For a thousand webhooks on a machine that has other things to do.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(10);

/// Without a request for so long, all is done: there is no event for that.
const QUIET: Duration = Duration::from_secs(6);

/// Likewise once the API server was away: the Lease may have to run out, and what has failed backs off.
const QUIET_AGAIN: Duration = Duration::from_secs(25);

/// Between two looks at the log.
const LOOK: Duration = Duration::from_millis(250);

/// Where the system has the authorities that it trusts.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Show what many webhooks cost.
#[derive(Parser)]
struct Arguments {
    /// Webhooks in all
    #[arg(long, default_value_t = 60, value_name = "N")]
    webhooks: usize,
    /// Namespaces that they are in
    #[arg(long, default_value_t = 6, value_name = "N")]
    namespaces: usize,
    /// How long to look on while nothing happens
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    rest: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let least = arguments.namespaces * (SHARING + 1);
    assert!(
        arguments.webhooks >= least,
        "that needs {least} webhooks, for in each namespace one shares nothing"
    );
    chart::helm();
    harness::run_alone("scale", |cluster| async move { scale(cluster, &arguments).await })
}

/// Both programs, as the chart starts them, and what the API server says of them.
struct World {
    cluster: Arc<Cluster>,
    log: audit::Log,
    controller: Process,
    dispatcher: Process,
    queue: PathBuf,
    usage: Usage,
    failures: Vec<String>,
}

async fn scale(cluster: Arc<Cluster>, arguments: &Arguments) -> bool {
    let shared = pki::shared().await;
    let receiver = Options::new(&shared.server, ClientAuth::Required(&shared.client_authority)).start().await;
    let started = Instant::now();
    let tenants = Tenants::prepare(&cluster, arguments.namespaces, arguments.webhooks).await;
    println!(
        "{} webhooks in {} namespaces; their Secrets were made in {:.0?}",
        arguments.webhooks,
        arguments.namespaces,
        started.elapsed()
    );
    let mut world = World::start(cluster).await;
    world.quiet(QUIET).await;
    world.look("start, without a webhook");

    world.all_become_ready(&tenants, &receiver.url(), arguments.webhooks).await;
    world.rest(Duration::from_secs(arguments.rest)).await;
    world.secrets_change(&tenants).await;
    world.restarts().await;
    world.usage.print();
    for failure in &world.failures {
        println!("FAILED: {failure}");
    }
    world.failures.is_empty()
}

impl World {
    async fn start(cluster: Arc<Cluster>) -> Self {
        let queue = harness::new_directory("queue");
        let controller = start_controller(&cluster).await;
        let dispatcher = start_dispatcher(&cluster, &queue).await;
        let (log, usage, failures) = (audit::Log::of(&cluster), Usage::default(), Vec::new());
        Self { cluster, log, controller, dispatcher, queue, usage, failures }
    }

    /// All that is asked until for so long nothing is, but for what is asked at rest.
    async fn quiet(&mut self, quiet: Duration) -> Tally {
        let (mut tally, mut last, mut works) = (Tally::default(), Instant::now(), 0);
        let until = Instant::now() + SETTLE_TIMEOUT;
        while last.elapsed() < quiet {
            assert!(Instant::now() < until, "there is no rest within {SETTLE_TIMEOUT:?}");
            sleep(LOOK).await;
            tally.add(self.log.news());
            let now = tally.work().count();
            if now != works {
                (works, last) = (now, Instant::now());
            }
        }
        tally
    }

    fn look(&mut self, phase: &str) {
        self.usage.look(phase, [self.controller.pid(), self.dispatcher.pid()]);
    }

    fn check(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(otherwise());
        }
    }

    async fn all_become_ready(&mut self, tenants: &Tenants, url: &str, webhooks: usize) {
        let started = Instant::now();
        tenants.apply(url).await;
        let applied = started.elapsed();
        tenants.ready().await;
        let ready = started.elapsed();
        let tally = self.quiet(QUIET).await;
        let title = format!(
            "All are Ready and tested {ready:.1?} after the first was applied, the last {applied:.1?}"
        );
        #[allow(clippy::cast_precision_loss)]
        report::requests(&title, &tally, Some(("a webhook", webhooks as f64)));
        self.look("all are Ready");
        let statuses = tally.writes().filter(|asked| kind(asked) == "patch outboundwebhooks/status").count();
        // Ready, the test, and the dispatcher's; and one of them may come in two.
        self.check(statuses <= 4 * webhooks, || format!("{statuses} statuses were written"));
    }

    async fn rest(&mut self, time: Duration) {
        sleep(time).await;
        let mut tally = Tally::default();
        tally.add(self.log.news());
        let title = format!("At rest for {time:?}");
        report::requests(&title, &tally, Some(("an hour", time.as_secs_f64() / 3600.0)));
        self.look("rest");
        let work: Vec<_> = tally.work().map(kind).collect();
        self.check(work.is_empty(), || format!("at rest: {work:?}"));
    }

    async fn secrets_change(&mut self, tenants: &Tenants) {
        let tenant = &tenants.namespaces[0];
        tenant.change_the_first().await;
        self.concerns("One Secret is another keystore", 1).await;
        tenant.change_the_shared().await;
        self.concerns("A Secret changes that webhooks share", SHARING).await;
        tenant.change_another().await;
        self.concerns("A Secret changes that no webhook names", 0).await;
    }

    async fn concerns(&mut self, what: &str, webhooks: usize) {
        let tally = self.quiet(QUIET).await;
        report::requests(what, &tally, None);
        let concerned = tally.webhooks();
        let told = format!("{what}: {concerned:?} were looked at, of {webhooks}");
        self.check(concerned.len() == webhooks, || told);
    }

    async fn restarts(&mut self) {
        self.controller.terminate().await;
        self.controller = start_controller(&self.cluster).await;
        self.writes_nothing("The controller starts again", QUIET).await;
        self.dispatcher.terminate().await;
        self.dispatcher = start_dispatcher(&self.cluster, &self.queue).await;
        self.writes_nothing("The dispatcher starts again", QUIET).await;
        self.cluster.stop_api_server().await;
        self.cluster.start_api_server().await;
        self.writes_nothing("The API server starts again", QUIET_AGAIN).await;
    }

    async fn writes_nothing(&mut self, what: &str, quiet: Duration) {
        let tally = self.quiet(quiet).await;
        report::requests(what, &tally, None);
        self.look(what);
        let writes: Vec<_> = tally.writes().map(kind).collect();
        self.check(writes.is_empty(), || format!("{what}: {} writes, {:?}", writes.len(), writes.first()));
    }
}

/// What they are told in a release, but for where they listen.
async fn start(cluster: &Cluster, program: &'static str, arguments: &[&str]) -> Process {
    Program::postrider(program)
        .args(["--pod-namespace", chart::RELEASE])
        .args(arguments)
        .args(TO_RECEIVERS)
        .env("KUBECONFIG", chart::kubeconfig(cluster, program, &json!({})).await)
        .env("SSL_CERT_FILE", roots().await)
        .env("POSTRIDER_LOG", "info")
        .start()
}

async fn start_controller(cluster: &Cluster) -> Process {
    let arguments = ["--leader-election", "--serving-certificate", "--serving-name=localhost"];
    let controller = start(cluster, "controller", &arguments).await;
    controller.line_with("\"reconciles\"").await;
    controller
}

async fn start_dispatcher(cluster: &Cluster, queue: &Path) -> Process {
    let queue = format!("--queue={}", queue.display());
    let arguments = ["--listen=127.0.0.1:0", "--secure-listen=127.0.0.1:0", &queue];
    let dispatcher = start(cluster, "dispatcher", &arguments).await;
    dispatcher.http_ready(&format!("{}/readyz", dispatcher.health().await)).await;
    dispatcher
}

/// Whom the system of the programs trusts: as many as a real one, and the receivers'.
async fn roots() -> PathBuf {
    let path = harness::directory::of_run().join("system-roots.pem");
    if !path.exists() {
        let system = fs::read_to_string(SYSTEM_ROOTS).unwrap_or_default();
        fs::write(&path, system + &pki::shared().await.server_authority.root_pem()).unwrap();
    }
    path
}
