//! How a command ends that does not end well: each kind has an exit status of its own, for scripts.

use std::process::ExitCode;

use kube::config::{InferConfigError, KubeconfigError};

use super::{
    output::tell,
    paint::{Text, failure},
};
use crate::{causes::chain, inspect};

/// Why it did not end well.
#[derive(Debug)]
pub(super) enum Failure {
    /// The answer is no, and has been printed.
    No,
    /// A person has to go on, and has been told how.
    Waits,
    /// It cannot be asked for like this.
    Usage(Text),
    /// It could not be tried.
    Tried(Text),
    /// There is no such object.
    NotFound(Text),
    /// The person may not do that.
    Forbidden(Text),
    /// It is not over yet, and goes on without us.
    Unfinished(Text),
    /// By the person; what goes on without us.
    Interrupted(Text),
}

impl Failure {
    pub(super) fn usage(message: impl Into<Text>) -> Self {
        Self::Usage(message.into())
    }

    pub(super) fn tried(message: impl Into<Text>) -> Self {
        Self::Tried(message.into())
    }

    pub(super) fn not_found(message: impl Into<Text>) -> Self {
        Self::NotFound(message.into())
    }

    pub(super) fn forbidden(message: impl Into<Text>) -> Self {
        Self::Forbidden(message.into())
    }

    pub(super) fn unfinished(message: impl Into<Text>) -> Self {
        Self::Unfinished(message.into())
    }

    pub(super) fn interrupted(message: impl Into<Text>) -> Self {
        Self::Interrupted(message.into())
    }

    /// Prints what there is to say, and returns the exit status.
    pub(super) fn tell(self) -> ExitCode {
        let (status, message) = match self {
            Self::No => return ExitCode::from(1),
            Self::Waits => return ExitCode::from(6),
            Self::Usage(message) => (2, message),
            Self::Tried(message) => (3, message),
            Self::NotFound(message) => (4, message),
            Self::Forbidden(message) => (5, message),
            Self::Unfinished(message) => (6, message),
            Self::Interrupted(message) => (130, message),
        };
        tell(&failure(message));
        ExitCode::from(status)
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                401 => Self::forbidden(format!("the API server does not know you: {}", status.message)),
                403 => Self::forbidden(&status.message),
                404 => Self::not_found(&status.message),
                409 => Self::tried(format!("somebody else changed it at this moment: {}", status.message)),
                _ => Self::tried(format!("the API server says: {}", status.message)),
            },
            error => Self::tried(format!("the API server cannot be asked: {}", chain(&error))),
        }
    }
}

impl From<KubeconfigError> for Failure {
    fn from(error: KubeconfigError) -> Self {
        Self::tried(format!("the kubeconfig cannot be used: {}", chain(&error)))
    }
}

impl From<InferConfigError> for Failure {
    fn from(error: InferConfigError) -> Self {
        Self::tried(format!("no Kubernetes cluster: {}; set KUBECONFIG", chain(&error)))
    }
}

impl From<inspect::Problem> for Failure {
    fn from(problem: inspect::Problem) -> Self {
        Self::tried(problem.to_string())
    }
}
