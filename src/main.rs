//! The operator's program.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Outbound webhooks over mutual TLS as a Kubernetes resource.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the CustomResourceDefinition
    Crd,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Crd => {
            match serde_saphyr::to_string(&postrider::api::v1alpha1::custom_resource_definition()) {
                Ok(yaml) => {
                    print!("{yaml}");
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    eprintln!("postrider: {error}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}
