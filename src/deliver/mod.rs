//! Events out: at least once, with the certificate that was asked for, or not at all.

mod activity;
mod attempt;
mod authorizer;
mod client;
mod health;
mod hold;
mod refused;
mod retry;
mod target;
mod token;
mod worker;

pub use activity::{Activity, LastFailure, Snapshot, State};
pub use attempt::Failure;
pub use authorizer::Authorizer;
pub use client::Client;
pub use hold::Hold;
pub use refused::Refused;
pub use retry::RetryPolicy;
pub use target::{Assignment, Clients, Target};
pub use worker::Worker;
