//! The operator's program.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use postrider::{
    api::{reference, v1alpha1},
    controller, dispatcher, inspect, limits,
    telemetry::{
        self,
        traces::{self, Traces},
    },
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A delivery allocates some hundred times, and with the C library's a tenth of its time went there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Outbound webhooks over mutual TLS as a Kubernetes resource.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How log lines look
    #[arg(long, global = true, env = "POSTRIDER_LOG_FORMAT", value_enum, default_value_t)]
    log_format: telemetry::LogFormat,
    /// What is logged, as in RUST_LOG
    #[arg(long, global = true, env = "POSTRIDER_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

#[derive(Subcommand)]
enum Command {
    /// Reconcile OutboundWebhooks: open keystores, publish identities, write status
    Controller(controller::Options),
    /// Take events over HTTP, keep them on disk, and deliver them
    Dispatcher(dispatcher::Options),
    /// Look at keystores
    #[command(subcommand)]
    Keystore(Keystore),
    /// Print the CustomResourceDefinition
    Crd {
        /// As a page of Markdown, with a line for each field
        #[arg(long)]
        markdown: bool,
    },
}

#[derive(Subcommand)]
enum Keystore {
    /// Show what a keystore holds and whether it can be used, as the controller sees it
    Inspect(inspect::Inspect),
}

/// Ends the program, with a message on standard error.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Crd { markdown } => print_crd(markdown),
        Command::Keystore(Keystore::Inspect(options)) => return inspect::run(&options),
        Command::Controller(options) => {
            telemetry::init(arguments.log_format, &arguments.log);
            let traces = options.traces.clone();
            serve("postrider-controller", &traces, Duration::ZERO, async |client, stop| {
                Ok(controller::run(client, options, stop).await?)
            })
        }
        Command::Dispatcher(options) => {
            telemetry::init(arguments.log_format, &arguments.log);
            let delay = Duration::try_from(options.ingest.shutdown_delay).unwrap_or_default();
            let traces = options.traces.clone();
            serve("postrider-dispatcher", &traces, delay, async |client, stop| {
                Ok(dispatcher::run(client, options, stop).await?)
            })
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postrider: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_crd(markdown: bool) -> Result<(), Failure> {
    let definition = v1alpha1::custom_resource_definition();
    let text =
        if markdown { reference::markdown(&definition) } else { serde_saphyr::to_string(&definition)? };
    print!("{text}");
    Ok(())
}

/// Runs a program with a client of the API server until SIGTERM or SIGINT, and then for a while at most, beside the
/// delay that it was told. Its traces are by this name.
fn serve(
    name: &'static str,
    traces: &traces::Options,
    delay: Duration,
    run: impl AsyncFnOnce(kube::Client, CancellationToken) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // kube asks the process for its provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new()?;
    let traces = runtime.block_on(async { Traces::start(traces, name) })?;
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(stop_on_signal(stop.clone())?);
        let client = kube::Client::try_default()
            .await
            .map_err(|error| format!("no Kubernetes cluster: {error}; set KUBECONFIG or run in a Pod"))?;
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(delay + limits::SHUTDOWN).await;
        };
        tokio::select! {
            result = run(client, stop.clone()) => result?,
            () = overdue => tracing::warn!("what is under way did not end in time; events that are not settled are sent again"),
        }
        tracing::info!("ended");
        Ok(())
    });
    if let Some(traces) = traces {
        traces.end();
    }
    // A thread that hangs in a system call keeps nobody waiting.
    runtime.shutdown_background();
    result
}

/// The first signal asks for an end in order, the second ends at once.
fn stop_on_signal(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        let mut next = async || tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} };
        next().await;
        tracing::info!("ends once what is under way is done");
        stop.cancel();
        next().await;
        std::process::exit(1);
    })
}
