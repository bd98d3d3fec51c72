//! An error and what led to it.

use std::{error::Error, io, iter::successors};

use crate::limits;

/// The error and those below it.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), below).take(1 + limits::ERROR_SOURCES)
}

/// `io::Error::source` leaves out the error that it wraps.
fn below<'a>(&error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// In one line, each said once: many an error says what its source says.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    for cause in causes(error).skip(1).map(ToString::to_string) {
        if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the request failed")]
    struct Outer(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("depth {0}")]
    struct Deep(usize, #[source] Option<Box<Deep>>);

    #[test]
    fn what_io_wraps_is_seen_and_said_once() {
        let error = Outer(io::Error::other(Deep(1, Some(Box::new(Deep(0, None))))));
        assert!(causes(&error).any(<dyn Error>::is::<Deep>));
        assert_eq!(chain(&error), "the request failed: depth 1: depth 0");
    }

    #[test]
    fn so_many_are_looked_at() {
        let error =
            (1..2 * limits::ERROR_SOURCES).fold(Deep(0, None), |below, n| Deep(n, Some(Box::new(below))));
        assert_eq!(causes(&error).count(), 1 + limits::ERROR_SOURCES);
    }
}
