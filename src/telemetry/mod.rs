//! What the program tells of itself.

pub mod health;
mod logs;
pub mod metrics;
pub mod traces;

pub use logs::{LogFormat, init};
