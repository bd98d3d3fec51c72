//! `completion`: what a shell needs to complete a line of `kubectl-postrider`; and what kubectl needs to complete one of
//! `kubectl postrider`.
//!
//! For the second, kubectl runs `kubectl_complete-postrider` with the words of the line, the last of which is to be
//! completed. It reads a candidate a line, with what it means after a tab, and at the end what cobra calls a directive.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::{Args, Command, CommandFactory as _, FromArgMatches as _};
use clap_complete::{
    Shell,
    engine::{ArgValueCompleter, CompletionCandidate, complete},
};
use kube::{ResourceExt as _, api::ListParams};
use tokio::time::timeout;

use super::{Plugin, cluster::Cluster, failure::Failure, output::write, paint::Text};
use crate::{api::v1alpha1::OutboundWebhook, ingest::is_name, limits, text::line};

/// Cobra's directive for no blank after a candidate.
const NO_SPACE: u8 = 2;
/// Cobra's directive for no names of files where there is no candidate.
const NO_FILES: u8 = 4;

/// The arguments whose value is the name of a webhook.
const NAMES: [&str; 2] = ["name", "webhook"];

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
        write(&Text::lines(&String::from_utf8_lossy(&script)))
    }
}

#[derive(Args)]
pub(super) struct Complete {
    /// The words of the line
    #[arg(last = true)]
    words: Vec<OsString>,
}

impl Complete {
    pub(super) async fn run(&self) -> Result<(), Failure> {
        let (last, before) = self
            .words
            .split_last()
            .map_or((OsStr::new(""), &[][..]), |(last, before)| (last.as_os_str(), before));
        let line: Vec<_> = [OsStr::new("kubectl-postrider")]
            .into_iter()
            .chain(before.iter().map(OsString::as_os_str))
            .map(OsStr::to_owned)
            .collect();
        let wants_name = Arc::new(AtomicBool::default());
        let mut command = noting(Plugin::command(), &wants_name);
        let directory = std::env::current_dir().ok();
        let words = [&line[..], &[last.to_owned()]].concat();
        // What cannot be completed has no candidates.
        let mut candidates =
            complete(&mut command, words, line.len(), directory.as_deref()).unwrap_or_default();
        if wants_name.load(Ordering::Relaxed) {
            candidates.splice(..0, names(&line, &last.to_string_lossy()).await);
        }
        // As kubectl has it: options are for who has begun one.
        let is_option = |text: &OsStr| text.as_encoded_bytes().starts_with(b"-");
        candidates.retain(|candidate| is_option(last) || !is_option(candidate.get_value()));
        write(&Text::lines(&text(&candidates)))
    }
}

/// The same command, which notes whether the name of a webhook is wanted.
fn noting(command: Command, wanted: &Arc<AtomicBool>) -> Command {
    let command = command.mut_args(|argument| {
        if !NAMES.contains(&argument.get_id().as_str()) {
            return argument;
        }
        let wanted = Arc::clone(wanted);
        argument.add(ArgValueCompleter::new(move |_: &OsStr| {
            wanted.store(true, Ordering::Relaxed);
            Vec::new()
        }))
    });
    command.mut_subcommands(|subcommand| noting(subcommand, wanted))
}

/// The webhooks of the namespace of the line, as far as they can be had in the time that a person waits for.
async fn names(line: &[OsString], begin: &str) -> Vec<CompletionCandidate> {
    let list = async {
        let matches = Plugin::command().ignore_errors(true).try_get_matches_from(line).ok()?;
        let connection = Cluster::from_arg_matches(&matches).ok()?.connect().await.ok()?;
        let page = ListParams::default().limit(limits::PLUGIN_PAGE);
        connection.api::<OutboundWebhook>().list_metadata(&page).await.ok()
    };
    let all = timeout(limits::PLUGIN_COMPLETION, list).await.ok().flatten();
    let names = all.into_iter().flat_map(|list| list.items).map(|webhook| webhook.name_any());
    offered(names, begin).collect()
}

/// Those that begin like this. A shell makes more than a word of what can be no name.
fn offered(names: impl Iterator<Item = String>, begin: &str) -> impl Iterator<Item = CompletionCandidate> {
    names.filter(move |name| name.starts_with(begin) && is_name(name)).map(CompletionCandidate::new)
}

fn text(candidates: &[CompletionCandidate]) -> String {
    let mut text = String::new();
    let mut directive = NO_FILES;
    for candidate in candidates {
        let value = candidate.get_value().to_string_lossy();
        if value.ends_with('/') {
            directive |= NO_SPACE;
        }
        text.push_str(&line(&value));
        if let Some(help) = candidate.get_help() {
            let _ = write!(text, "\t{}", line(help.to_string().lines().next().unwrap_or_default()));
        }
        text.push('\n');
    }
    let _ = writeln!(text, ":{directive}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::HOSTILE;

    #[test]
    fn what_can_be_no_name_is_not_offered() {
        let hostile =
            ["orders; reboot", "orders\tmine", "orders\nyours", "$(reboot)", "-A", "Orders", "", HOSTILE];
        let names = hostile.into_iter().chain(["orders", "orders.eu-1", "invoices"]).map(str::to_owned);
        let all: Vec<_> = offered(names.clone(), "").collect();
        assert_eq!(text(&all), "orders\norders.eu-1\ninvoices\n:4\n");
        assert_eq!(text(&offered(names, "orders.").collect::<Vec<_>>()), "orders.eu-1\n:4\n");
    }

    #[test]
    fn a_candidate_is_one_line_of_two_columns() {
        let candidate = CompletionCandidate::new(HOSTILE).help(Some(HOSTILE.into()));
        let text = text(&[candidate]);
        assert_eq!((text.lines().count(), text.matches('\t').count()), (2, 1), "{text}");
    }
}
