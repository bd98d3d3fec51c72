//! Events out: at least once, with the certificate that was asked for, or not at all.

mod attempt;
mod client;
mod retry;
mod target;
mod worker;

pub use attempt::{Failure, Layer};
pub use client::{Client, ClientError};
pub use retry::RetryPolicy;
pub use target::{Assignment, Target};
pub use worker::Worker;
