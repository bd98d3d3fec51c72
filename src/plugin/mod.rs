//! `kubectl postrider`: what one person needs every day, from a terminal or a script.
//!
//! It acts with the person's own kubeconfig and rights, through the resource: it asks, and the controller does. What
//! it says of a webhook is what stands in the status, and of a keystore what the controller would say. A command is a
//! file; [`cluster`] is how it reaches the API server, [`dispatcher`] how it reaches the queue, [`failure`] how it
//! ends, [`output`] how it looks, [`paint`] what of it reaches a terminal.

mod advice;
mod certificate;
mod cluster;
mod completion;
mod dead;
mod dispatcher;
mod doctor;
mod failure;
mod follow;
mod installation;
mod list;
mod output;
mod paint;
mod pending;
mod promote;
mod reference;
mod rotate;
mod send;
mod status;
mod suspend;
mod test;
mod typed;
mod validate;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use cluster::Cluster;
use failure::Failure;
use output::{Format, Output};
use paint::Text;

/// Webhooks over mutual TLS, from the command line
///
/// It acts with your own kubeconfig and rights. Output is coloured in a terminal only, and never with NO_COLOR.
///
/// Exit status: 0 all is well; 1 the answer is no (a keystore that is refused, a test that failed, a finding of
/// doctor); 2 the command is not understood; 3 it could not be tried (no cluster, no dispatcher, an unreadable file);
/// 4 there is no such object; 5 you may not do that; 6 it is not over yet (the time ran out, or a person has to go
/// on); 130 interrupted.
#[derive(Parser)]
#[command(name = "kubectl-postrider", bin_name = "kubectl postrider", version, max_term_width = 100)]
#[command(disable_help_subcommand = true)]
pub struct Plugin {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Args)]
struct Global {
    /// How to print: json, yaml, wide or name; for people without it
    #[arg(long, short, global = true, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Subcommand)]
enum Command {
    /// Show whether a keystore can be used: a file, as the controller would judge it, or those of a webhook
    Validate(validate::Validate),
    /// Print the public certificate of a webhook: what is installed in the receiving server
    Certificate(certificate::Certificate),
    /// Test the connection to the endpoint now, with each certificate, and show it layer by layer
    Test(test::Test),
    /// Replace the certificate by that of a keystore, and follow it until it is the one in use
    Rotate(rotate::Rotate),
    /// Make the New certificate the one in use
    Promote(promote::Promote),
    /// Show all of a webhook on one screen, and what to do next
    Status(status::Show),
    /// List webhooks and the certificates that they use
    List(list::List),
    /// Send an event
    Send(send::Send),
    /// Show what waits to be delivered
    Pending(pending::Pending),
    /// Events that were given up, and are kept: list them, look at one, send them again, remove them
    #[command(subcommand)]
    Dead(dead::Dead),
    /// Send nothing more; events are taken and kept
    Pause(suspend::Named),
    /// Send again, what was kept first
    Resume(suspend::Named),
    /// Find out what keeps webhooks of a namespace from working, and how to mend it
    Doctor(doctor::Doctor),
    /// Print the completions of a shell
    Completion(completion::Completion),
    /// Print what completes the line, as kubectl reads it
    #[command(hide = true)]
    Complete(completion::Complete),
    /// Print docs/plugin-reference.md
    #[command(hide = true)]
    Reference,
}

/// Runs the command, and says what became of it.
pub fn run(plugin: &Plugin) -> ExitCode {
    // kube asks the process for its provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::tried(error.to_string()).tell(),
    };
    let result = runtime.block_on(Box::pin(plugin.run()));
    // A thread that hangs in a system call keeps nobody waiting.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

impl Plugin {
    async fn run(&self) -> Result<(), Failure> {
        let output = Output::new(self.global.output);
        let connect = || self.global.cluster.connect();
        match &self.command {
            Command::Validate(validate) => validate.run(connect, output).await,
            Command::Certificate(certificate) => certificate.run(&connect().await?, output).await,
            Command::Test(test) => test.run(&connect().await?, output).await,
            Command::Rotate(rotate) => rotate.run(connect, output).await,
            Command::Promote(promote) => promote.run(&connect().await?, output).await,
            Command::Status(show) => show.run(&connect().await?, output).await,
            Command::List(list) => list.run(&connect().await?, output).await,
            Command::Send(send) => send.run(&connect().await?, output).await,
            Command::Pending(pending) => pending.run(&connect().await?, output).await,
            Command::Dead(dead) => dead.run(&connect().await?, output).await,
            Command::Pause(named) => named.run(true, &connect().await?, output).await,
            Command::Resume(named) => named.run(false, &connect().await?, output).await,
            Command::Doctor(doctor) => doctor.run(connect, output).await,
            Command::Completion(completion) => completion.run(),
            Command::Complete(complete) => complete.run().await,
            Command::Reference => output::write(&Text::lines(&reference::reference())),
        }
    }
}
