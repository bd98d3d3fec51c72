//! The program is killed at each step, the log is torn, the volume is full or read-only.
//!
//! A child is this test program again, with one test of it: it opens a queue, does what it is told, and dies
//! where it is told.

use std::{
    env,
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
    sync::Mutex,
};

use super::*;

const DIRECTORY: &str = "POSTRIDER_CRASH_DIRECTORY";
const OPERATION: &str = "POSTRIDER_CRASH_OPERATION";
const STEP: &str = "POSTRIDER_CRASH_STEP";

/// Where this program is to die.
static FATAL: Mutex<Option<String>> = Mutex::new(None);

pub(in super::super) fn step(at: &str) {
    if FATAL.lock().unwrap().as_deref() == Some(at) {
        let this = rustix::process::getpid();
        rustix::process::kill_process(this, rustix::process::Signal::KILL).unwrap();
    }
}

/// `launcher` runs a command with its arguments: "" or a program that prepares a volume.
fn run_child(launcher: &[&str], directory: &Path, operation: &str, step: &str) -> String {
    let program = env::current_exe().unwrap();
    let mut words: Vec<_> = launcher.iter().map(|word| (*word).to_owned()).collect();
    words.push(program.display().to_string());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args([
        "queue::embedded::tests::crash::child",
        "--exact",
        "--ignored",
        "--nocapture",
    ]);
    command.env(DIRECTORY, directory).env(OPERATION, operation).env(STEP, step).stderr(Stdio::inherit());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = if step.is_empty() { (Some(0), None) } else { (None, Some(9)) };
    let status = output.status;
    assert_eq!((status.code(), status.signal()), expected, "{operation}, {step}: {text}");
    text
}

/// Two events are acknowledged, `one` is claimed; then comes what is to be interrupted.
#[test]
#[ignore = "the program that the crash cases kill"]
fn child() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let directory = env::var(DIRECTORY).unwrap();
        let operation = env::var(OPERATION).unwrap();
        if operation == "fill" {
            return fill(Path::new(&directory)).await;
        }
        let queue = match Embedded::open(Path::new(&directory)) {
            Ok(queue) => queue,
            Err(error) => return println!("refused: {error}"),
        };
        queue.append(vec![event("a", "one"), event("a", "two")]).await.unwrap();
        let claim = queue.claim(&webhook("a"), at(1_000), 1).await.unwrap().claims.remove(0);
        if operation == "replay" {
            queue.settle(&webhook("a"), vec![(claim.sequence, dead("HTTPStatus"))]).await.unwrap();
        }
        let step = env::var(STEP).unwrap();
        *FATAL.lock().unwrap() = Some(step).filter(|step| !step.is_empty());
        let settle =
            async |settlement| queue.settle(&webhook("a"), vec![(claim.sequence, settlement)]).await.unwrap();
        match operation.as_str() {
            "append" => {
                queue.append(["x", "y", "z"].map(|body| event("a", body)).into()).await.map(drop).unwrap();
            }
            "complete" => settle(Settlement::Delivered).await,
            "retry" => settle(Settlement::Retry { since: at(1), due_at: at(5_000) }).await,
            "dead" => settle(dead("HTTPStatus")).await,
            "replay" => drop(queue.replay(&webhook("a"), Filter::default(), at(1_000)).await.unwrap()),
            // Dies while it holds a claim.
            "claim" => step_now("committed"),
            "checkpoint" => {
                let large = "x".repeat(limits::EVENT_BYTES);
                for _ in 0..20 {
                    queue.append(vec![event("b", &large)]).await.unwrap();
                }
                // The writer goes on while it is moved, and begins the log anew with one of these.
                for _ in 0..1000 {
                    queue.append(vec![event("b", "small")]).await.unwrap();
                }
                queue.close().await;
            }
            other => panic!("no operation {other}"),
        }
    });
}

fn step_now(at: &str) {
    step(at);
}

/// Appends until there is no more space, and sees to it that what leaves is recorded all the same, and makes room: as
/// things are, after another start, and again.
async fn fill(directory: &Path) {
    let mut queue = Embedded::open(directory).unwrap();
    let body = "x".repeat(100_000);
    for starts_anew in [false, true, false] {
        let mut taken = 0;
        // Nor is it said that a small one was taken that was not.
        for body in [body.as_str(), "small"] {
            let error = loop {
                match queue.append(vec![event("a", body)]).await {
                    Ok(_) => taken += 1,
                    Err(error) => break error,
                }
                assert!(taken < 100_000, "the volume has no end");
            };
            println!("full with {taken}: {error}");
        }
        if starts_anew {
            queue.close().await;
            drop(queue);
            queue = Embedded::open(directory).unwrap();
        }
        assert_eq!(queue.counts(&webhook("a")).pending.events, taken);
        let mut delivered = 0;
        loop {
            let page = queue.claim(&webhook("a"), at(1_000), 64).await.unwrap();
            if page.claims.is_empty() {
                break;
            }
            for claim in page.claims {
                queue.settle(&webhook("a"), vec![(claim.sequence, Settlement::Delivered)]).await.unwrap();
                delivered += 1;
            }
        }
        assert_eq!(delivered, taken);
        // A larger one than those that it was full of.
        queue.append(vec![event("a", &"x".repeat(limits::EVENT_BYTES))]).await.unwrap();
        let claim = queue.claim(&webhook("a"), at(1_000), 1).await.unwrap().claims.remove(0);
        queue.settle(&webhook("a"), vec![(claim.sequence, Settlement::Delivered)]).await.unwrap();
        println!("delivered all");
    }
}

#[tokio::test]
async fn killed_at_each_step_of_append_claim_complete_retry_dead_and_replay() {
    let steps = ["begun", "written", "committed"];
    // What is due at 1,000 ms before the operation and after it.
    let cases: [(&str, &[&str], &[&str]); 6] = [
        ("append", &["one", "two"], &["one", "two", "x", "y", "z"]),
        ("complete", &["one", "two"], &["two"]),
        ("retry", &["one", "two"], &["two"]),
        ("dead", &["one", "two"], &["two"]),
        ("replay", &["two"], &["one", "two"]),
        ("claim", &["one", "two"], &["one", "two"]),
    ];
    for (operation, before, after) in cases {
        for step in steps.into_iter().skip(if operation == "claim" { 2 } else { 0 }) {
            let directory = tempfile::tempdir().unwrap();
            run_child(&[], directory.path(), operation, step);
            let queue = Embedded::open(directory.path()).unwrap();
            let mut found = bodies(&queue, "a", 1_000).await;
            found.sort();
            // An answer that nobody got: done as a whole, or not at all.
            let expected = if step == "committed" { after } else { before };
            assert_eq!(found, expected, "{operation}, killed when {step}");
            check(directory.path());
        }
    }
}

#[tokio::test]
async fn killed_at_each_step_of_a_checkpoint() {
    for step in ["checkpoint", "checkpointed", "restarted"] {
        let directory = tempfile::tempdir().unwrap();
        run_child(&[], directory.path(), "checkpoint", step);
        let queue = Embedded::open(directory.path()).unwrap();
        assert_eq!(bodies(&queue, "a", 1_000).await, ["one", "two"], "killed at {step}");
        check(directory.path());
    }
}

#[tokio::test]
async fn a_torn_log_loses_nothing_but_its_torn_end() {
    let original = tempfile::tempdir().unwrap();
    let queue = Embedded::open(original.path()).unwrap();
    let mut lengths = Vec::new();
    let log = |directory: &Path| directory.join("queue.db-wal");
    for n in 0..6 {
        queue.append(vec![event("a", &n.to_string())]).await.unwrap();
        lengths.push(fs::metadata(log(original.path())).unwrap().len());
    }
    let whole = fs::read(log(original.path())).unwrap();
    let torn_at = |length: u64| [length - 4000, length - 1, length, length + 1];
    for length in lengths.iter().flat_map(|length| torn_at(*length)) {
        let expected = lengths.iter().filter(|whole| **whole <= length).count();
        for garbage in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            fs::copy(original.path().join("queue.db"), directory.path().join("queue.db")).unwrap();
            let mut torn = whole[..usize::try_from(length).unwrap().min(whole.len())].to_vec();
            if garbage {
                // A write that got no further than the length of the file, or that hit something old.
                torn.resize(whole.len(), 0xa5);
            }
            fs::write(log(directory.path()), torn).unwrap();
            let queue = Embedded::open(directory.path()).unwrap();
            let found = bodies(&queue, "a", 1_000).await;
            assert_eq!(found, (0..expected).map(|n| n.to_string()).collect::<Vec<_>>(), "torn at {length}");
            check(directory.path());
        }
    }
}

/// A volume of its own, mounted in a namespace of its own: it is gone with the child. `None` where that is not
/// permitted, as in many containers.
fn in_a_volume(mount: &str, directory: &Path, operation: &str) -> Option<String> {
    let script = format!("{mount}; exec \"$@\"");
    let is_root = rustix::process::getuid().is_root();
    let namespaces: &[&str] = if is_root { &["--mount"] } else { &["--mount", "--user", "--map-root-user"] };
    let permitted =
        Command::new("unshare").args(namespaces).args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]).status();
    if !permitted.is_ok_and(|status| status.success()) {
        eprintln!("not tried: no volume may be mounted here");
        return None;
    }
    let launcher = [&["unshare"], namespaces, &["sh", "-ec", &script, "sh"]].concat();
    Some(run_child(&launcher, &directory.join("queue"), operation, ""))
}

#[test]
fn a_full_volume_is_said_and_deliveries_make_room_on_it() {
    let directory = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size=16m tmpfs {}", directory.path().display());
    let Some(said) = in_a_volume(&mount, directory.path(), "fill") else { return };
    assert!(said.contains("the queue's volume is full"), "{said}");
    assert_eq!(said.matches("delivered all").count(), 3, "{said}");
}

#[test]
fn a_read_only_volume_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path().display();
    // Empty, and with a queue that was written before.
    let mount = format!("mount -t tmpfs -o ro tmpfs {volume}");
    let Some(said) = in_a_volume(&mount, directory.path(), "append") else { return };
    assert!(said.contains("refused: the queue's directory cannot be used: Read-only file system"), "{said}");
    drop(Embedded::open(&directory.path().join("queue")).unwrap());
    let mount = format!("mount --bind {volume} {volume}; mount -o remount,bind,ro {volume}");
    let Some(said) = in_a_volume(&mount, directory.path(), "append") else { return };
    assert!(said.contains("refused: the queue's directory cannot be used: Read-only file system"), "{said}");
}
