//! What the program tells of itself.

mod logs;
pub mod metrics;

pub use logs::{LogFormat, init};
