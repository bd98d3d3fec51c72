//! What the program tells of itself.

pub mod health;
mod logs;
pub mod metrics;

pub use logs::{LogFormat, init};
