//! The operator's two programs, which are killed and started again.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use tokio::{
    sync::{Mutex, watch},
    time::sleep,
};
use uuid::Uuid;

use super::{
    cluster::Cluster,
    directory,
    process::{Process, Program},
    receiver::TO_RECEIVERS,
};

/// Of a log, for people.
const LAST_LINES: usize = 8;

/// A controller and a dispatcher of one namespace.
pub(crate) struct Programs {
    cluster: Arc<Cluster>,
    namespace: String,
    /// One queue for every dispatcher of the run.
    queue: PathBuf,
    controller: Mutex<Process>,
    dispatcher: Mutex<Process>,
    /// Where events of the namespace are posted, while a dispatcher runs.
    url: watch::Sender<Option<String>>,
    kills: AtomicU64,
}

impl Programs {
    pub(crate) async fn start(cluster: &Arc<Cluster>, namespace: &str) -> Self {
        let queue = directory::unique_directory("queue");
        let (dispatcher, url) = start_dispatcher(cluster, namespace, &queue).await;
        Self {
            cluster: Arc::clone(cluster),
            namespace: namespace.to_owned(),
            controller: Mutex::new(start_controller(cluster).await),
            dispatcher: Mutex::new(dispatcher),
            queue,
            url: watch::Sender::new(Some(url)),
            kills: AtomicU64::new(0),
        }
    }

    /// Tells where events are posted, as it changes.
    pub(crate) fn url(&self) -> watch::Receiver<Option<String>> {
        self.url.subscribe()
    }

    pub(crate) fn kills(&self) -> u64 {
        self.kills.load(Ordering::Relaxed)
    }

    /// Whether the dispatcher runs, and what it said last.
    pub(crate) async fn dispatcher_says(&self) -> String {
        let dispatcher = self.dispatcher.lock().await;
        let lines = dispatcher.lines();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        let state = if dispatcher.is_running() { "runs" } else { "has ended" };
        format!("the dispatcher {state}; it said last:\n{last}")
    }

    /// What the queue's file says of an event, for people.
    pub(crate) fn find_in_queue(&self, id: Uuid) -> String {
        let looked = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
            let connection = Connection::open_with_flags(self.queue.join("queue.db"), flags)?;
            let query = "SELECT due_ms, failures, dead_reason FROM event WHERE id = ?1";
            let row = connection.query_row(query, [id.as_bytes()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Option<String>>(2)?))
            });
            row.optional()
        };
        match looked() {
            Ok(None) => "not in the queue any more".to_owned(),
            Ok(Some((due, failures, dead))) => {
                let due = Timestamp::from_millisecond(due).unwrap_or_default();
                let dead = dead.map_or_else(String::new, |reason| format!(", given up: {reason}"));
                format!("in the queue, due {due} after {failures} failures{dead}")
            }
            Err(error) => format!("not to be found: {error}"),
        }
    }

    /// While one runs.
    pub(crate) fn dispatcher_pid(&self) -> Option<i32> {
        self.dispatcher.try_lock().ok().map(|dispatcher| dispatcher.pid())
    }

    /// The directory of the queue.
    pub(crate) fn queue(&self) -> &Path {
        &self.queue
    }

    /// Ends the dispatcher in order: what is under way is settled.
    pub(crate) async fn end_dispatcher(&self) {
        self.url.send_replace(None);
        self.dispatcher.lock().await.terminate().await;
    }

    /// SIGKILL, and another one after a while.
    pub(crate) async fn kill_controller(&self, down: Duration) {
        let mut controller = self.controller.lock().await;
        controller.kill().await;
        self.kills.fetch_add(1, Ordering::Relaxed);
        sleep(down).await;
        *controller = start_controller(&self.cluster).await;
    }

    /// SIGKILL, and after a while another one that goes on with the queue.
    pub(crate) async fn kill_dispatcher(&self, down: Duration) {
        let mut dispatcher = self.dispatcher.lock().await;
        dispatcher.kill().await;
        self.url.send_replace(None);
        self.kills.fetch_add(1, Ordering::Relaxed);
        sleep(down).await;
        let (started, url) = start_dispatcher(&self.cluster, &self.namespace, &self.queue).await;
        *dispatcher = started;
        self.url.send_replace(Some(url));
    }
}

/// Starts a controller of all namespaces.
pub(crate) async fn start_controller(cluster: &Cluster) -> Process {
    let controller = Program::postrider("controller")
        .args(TO_RECEIVERS)
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("POSTRIDER_LOG", "info,postrider=debug")
        .start();
    controller.line_with("reconciles").await;
    controller
}

/// Starts a dispatcher of one namespace; returns it and where events of the namespace are posted.
pub(crate) async fn start_dispatcher(cluster: &Cluster, namespace: &str, queue: &Path) -> (Process, String) {
    start_dispatcher_with(cluster, namespace, queue, &[]).await
}

/// With these arguments beside.
pub(crate) async fn start_dispatcher_with(
    cluster: &Cluster,
    namespace: &str,
    queue: &Path,
    arguments: &[&str],
) -> (Process, String) {
    let dispatcher = Program::postrider("dispatcher")
        .args(["--namespace", namespace, "--listen", "127.0.0.1:0", "--queue"])
        .args([queue])
        .args(TO_RECEIVERS)
        .args(arguments)
        .env("KUBECONFIG", cluster.kubeconfig())
        // Not a line for each event: a run has hundreds of thousands.
        .env("POSTRIDER_LOG", "info")
        .start();
    let address = dispatcher.address("takes events").await;
    dispatcher.http_ready(&format!("{}/readyz", dispatcher.health().await)).await;
    (dispatcher, format!("http://{address}/v1/namespaces/{namespace}"))
}
