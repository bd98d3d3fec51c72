//! What the program tells of itself.

mod logs;

pub use logs::{LogFormat, init};
