//! Lines that a person may type: put together from words, of which a shell takes each as one, whatever is in it.

use std::borrow::Cow;

use crate::text;

/// A line for kubectl.
pub(super) fn kubectl(words: &[&str]) -> String {
    let words: Option<Vec<_>> = ["kubectl"].iter().chain(words).copied().map(quoted).collect();
    text::line(&words.unwrap_or_default().join(" "))
}

/// A word as a shell takes it, but one with NUL, which is no name. Labels and lists stand as people write them.
fn quoted(word: &str) -> Option<Cow<'_, str>> {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-_./:,=".contains(char);
    let is_word = !word.is_empty() && !word.starts_with('=') && word.chars().all(is_plain);
    if is_word { Some(word.into()) } else { shlex::try_quote(word).ok() }
}

/// A line for this plugin, for a namespace.
pub(super) fn postrider(namespace: &str, words: &[&str]) -> String {
    kubectl(&[&["postrider", "-n", namespace], words].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::HOSTILE;

    #[test]
    fn a_shell_takes_each_word_as_one() {
        assert_eq!(postrider("shop", &["status", "orders"]), "kubectl postrider -n shop status orders");
        assert_eq!(kubectl(&["get", "pods,pvc", "-l", "a.b/c=d"]), "kubectl get pods,pvc -l a.b/c=d");
        for hostile in
            ["a;reboot", "$(reboot)", "`reboot`", "a b", "it's", "", "a\\", "!!", "a&&b|c>d", "~", "*", "=ls"]
        {
            let words = ["kubectl", "postrider", "-n", hostile, "status", hostile];
            assert_eq!(shlex::split(&postrider(hostile, &["status", hostile])).unwrap(), words);
        }
        let line = postrider(HOSTILE, &["doctor"]);
        assert_eq!(
            shlex::split(&line).unwrap(),
            ["kubectl", "postrider", "-n", &text::line(HOSTILE), "doctor"]
        );
        assert_eq!(kubectl(&["get", "a\0b"]), "");
    }
}
