//! `completion`: what a shell needs to complete a line.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Plugin, failure::Failure, output::write};

#[derive(Args)]
pub(super) struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut command = Plugin::command().bin_name("kubectl-postrider");
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "kubectl-postrider", &mut script);
        write(&String::from_utf8_lossy(&script))
    }
}
