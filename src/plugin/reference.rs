//! The reference of all commands, made from what `--help` prints: `docs/plugin-reference.md`.

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _};

use super::Plugin;

/// Width of a page, columns.
const COLUMNS: usize = 100;

/// The page.
pub(super) fn reference() -> String {
    let mut command = Plugin::command().term_width(COLUMNS);
    command.build();
    let global: Vec<_> = command
        .get_arguments()
        .filter(|argument| argument.is_global_set())
        .map(|argument| argument.get_id().clone())
        .collect();
    let mut page =
        "# kubectl postrider: reference\n\nWhat `--help` prints, of every command; `make plugin-reference` \
                    writes it. What all of them take is said once, here.\n"
            .to_owned();
    section(&mut page, &command);
    for subcommand in command.get_subcommands() {
        commands(&mut page, subcommand, &global);
    }
    page
}

fn commands(page: &mut String, command: &Command, global: &[clap::Id]) {
    if command.is_hide_set() {
        return;
    }
    let known = |id: &&clap::Id| command.get_arguments().any(|argument| argument.get_id() == *id);
    let own = global
        .iter()
        .filter(known)
        .fold(command.clone(), |command, id| command.mut_arg(id.clone(), |argument| argument.hide(true)));
    section(page, &own);
    for subcommand in command.get_subcommands() {
        commands(page, subcommand, global);
    }
}

fn section(page: &mut String, command: &Command) {
    let mut command = command.clone();
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let help = command.render_long_help().to_string();
    let help: Vec<_> = help.lines().map(str::trim_end).collect();
    let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_comes_from_the_help() {
        let kept = include_str!("../../docs/plugin-reference.md");
        assert!(
            reference() == kept,
            "docs/plugin-reference.md is not what --help says: run `make plugin-reference`"
        );
    }

    #[test]
    fn the_arguments_are_well_formed() {
        Plugin::command().debug_assert();
    }
}
