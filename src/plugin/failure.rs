//! How a command ends that does not end well: each kind has an exit status of its own, for scripts.

use std::process::ExitCode;

use kube::config::{InferConfigError, KubeconfigError};

use super::output::{bearable, failure};
pub(super) use crate::causes::chain;
use crate::inspect;

/// Why it did not end well.
#[derive(Debug)]
pub(super) enum Failure {
    /// The answer is no, and has been printed.
    No,
    /// A person has to go on, and has been told how.
    Waits,
    /// It cannot be asked for like this.
    Usage(String),
    /// It could not be tried.
    Tried(String),
    /// There is no such object.
    NotFound(String),
    /// The person may not do that.
    Forbidden(String),
    /// It is not over yet, and goes on without us.
    Unfinished(String),
    /// By the person; what goes on without us.
    Interrupted(String),
}

impl Failure {
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
        anstream::eprintln!("{}", bearable(&failure(&message)));
        ExitCode::from(status)
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                401 => Self::Forbidden(format!("the API server does not know you: {}", status.message)),
                403 => Self::Forbidden(status.message.clone()),
                404 => Self::NotFound(status.message.clone()),
                409 => Self::Tried(format!("somebody else changed it at this moment: {}", status.message)),
                _ => Self::Tried(format!("the API server says: {}", status.message)),
            },
            error => Self::Tried(format!("the API server cannot be asked: {}", chain(&error))),
        }
    }
}

impl From<KubeconfigError> for Failure {
    fn from(error: KubeconfigError) -> Self {
        Self::Tried(format!("the kubeconfig cannot be used: {}", chain(&error)))
    }
}

impl From<InferConfigError> for Failure {
    fn from(error: InferConfigError) -> Self {
        Self::Tried(format!("no Kubernetes cluster: {}; set KUBECONFIG", chain(&error)))
    }
}

impl From<inspect::Problem> for Failure {
    fn from(problem: inspect::Problem) -> Self {
        Self::Tried(problem.to_string())
    }
}
