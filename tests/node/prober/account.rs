//! The account of a fault: how long nobody was served, with what answers, and whether all that was taken arrived.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    fs::OpenOptions,
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use jiff::Timestamp;
use tokio::time::sleep;

use crate::record::{Answer, Answered, Lines, answered, arrived};

/// A fault is over when answers have been 202 alone for so long, milliseconds.
const QUIET: i64 = 3_000;

/// Between two looks at the records.
const LOOK: Duration = Duration::from_millis(100);

/// Numbers that are told of those that are missing.
const TOLD: usize = 5;

#[derive(Args)]
pub(crate) struct Options {
    /// The sender's record
    #[arg(long)]
    sent: PathBuf,
    /// The receiver's
    #[arg(long)]
    received: PathBuf,
    /// What the fault is called
    #[arg(long)]
    fault: String,
    /// When it began, seconds since 1970
    #[arg(long)]
    since: f64,
    /// Longest time without a 202 that is good
    #[arg(long)]
    gap_seconds_max: f64,
    /// Time for all to be as before
    #[arg(long)]
    within_seconds: u64,
    /// The file that gets a row
    #[arg(long)]
    table: Option<PathBuf>,
    /// The sender has ended: no other 202 is waited for
    #[arg(long)]
    ended: bool,
}

pub(crate) async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let (over, deadline) = (now(), Instant::now() + Duration::from_secs(options.within_seconds));
    let (mut sent, mut received) = (Lines::open(&options.sent)?, Lines::open(&options.received)?);
    let mut books = Books::default();
    let mut served_again = None;
    let till = loop {
        while let Some(answered) = sent.next(answered)? {
            books.answer(answered);
        }
        while let Some(number) = received.next(arrived)? {
            *books.arrived.entry(number).or_default() += 1;
        }
        let late = Instant::now() > deadline;
        if served_again.is_none() && (options.ended || books.serves_again(over) || late) {
            served_again = Some(now());
        }
        if let Some(till) = served_again.filter(|till| late || books.missing(*till).next().is_none()) {
            break till;
        }
        sleep(LOOK).await;
    };
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds of this century")]
    let outcome = books.outcome((options.since * 1000.0) as i64, till);
    let row = outcome.row(&options.fault);
    println!("{row}");
    if let Some(table) = &options.table {
        writeln!(OpenOptions::new().create(true).append(true).open(table)?, "{row}")?;
    }
    let mut faults = outcome.faults(options.gap_seconds_max);
    let left = books.refused.len();
    if left > 0 {
        faults.push(format!("{left} events were not taken in {} s", options.within_seconds));
    }
    if faults.is_empty() { Ok(()) } else { Err(io::Error::other(faults.join("; ")).into()) }
}

fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

#[derive(Default)]
struct Books {
    answers: Vec<Answered>,
    /// When each was taken.
    taken: HashMap<u64, i64>,
    /// Not taken, and not taken since.
    refused: HashMap<u64, i64>,
    /// How often.
    arrived: HashMap<u64, u64>,
}

impl Books {
    fn answer(&mut self, answered: Answered) {
        let Answered { at, number, ref answer } = answered;
        if answer.is_taken() {
            self.refused.remove(&number);
            self.taken.insert(number, at);
        } else {
            self.refused.insert(number, at);
        }
        self.answers.push(answered);
    }

    /// Since the fault was over, and for a while, all that was answered is 202.
    fn serves_again(&self, over: i64) -> bool {
        let bad = self.answers.iter().rev().find(|answered| !answered.answer.is_taken());
        let quiet_since = bad.map_or(over, |bad| bad.at.max(over));
        self.refused.is_empty() && self.answers.last().is_some_and(|last| last.at - quiet_since >= QUIET)
    }

    /// Taken until then, and not arrived.
    fn missing(&self, till: i64) -> impl Iterator<Item = u64> {
        let missing = move |(number, at): (&u64, &i64)| {
            (*at <= till && !self.arrived.contains_key(number)).then_some(*number)
        };
        self.taken.iter().filter_map(missing)
    }

    fn outcome(&self, since: i64, till: i64) -> Outcome {
        let within = |at: i64| (since..=till).contains(&at);
        let mut outcome = Outcome { lost: self.missing(till).collect(), ..Outcome::default() };
        let mut served_at = None;
        for Answered { at, number, answer } in self.answers.iter().filter(|answered| answered.at <= till) {
            if answer.is_taken() {
                if within(*at) {
                    let gap = at - served_at.unwrap_or(since);
                    outcome.gap = outcome.gap.max(gap);
                    outcome.taken += 1;
                    outcome.twice += self.arrived.get(number).map_or(0, |times| times - 1);
                }
                served_at = Some(*at);
            } else if within(*at) {
                *outcome.answers.entry(answer.clone()).or_default() += 1;
            }
        }
        outcome.gap = outcome.gap.max(till - served_at.unwrap_or(since).max(since));
        outcome
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// The longest time without a 202, milliseconds.
    gap: i64,
    /// Others than 202, how often.
    answers: BTreeMap<Answer, u64>,
    taken: u64,
    lost: Vec<u64>,
    /// Arrivals of one that had arrived.
    twice: u64,
}

impl Outcome {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a fault")]
    fn gap_seconds(&self) -> f64 {
        self.gap as f64 / 1000.0
    }

    /// Of a table in Markdown.
    fn row(&self, fault: &str) -> String {
        let told = |(answer, times): (&Answer, &u64)| match answer {
            Answer::Http { status, retry_after: Some(seconds) } => {
                format!("{status}, `Retry-After: {seconds}` ({times})")
            }
            answer => format!("{answer} ({times})"),
        };
        let answers: Vec<_> = self.answers.iter().map(told).collect();
        let (gap, taken, lost, twice) = (self.gap_seconds(), self.taken, self.lost.len(), self.twice);
        let answers = if answers.is_empty() { "none".to_owned() } else { answers.join("; ") };
        format!("| {fault} | {gap:.1} s | {answers} | {taken} | {lost} | {twice} |")
    }

    /// What should not be.
    fn faults(&self, gap_seconds_max: f64) -> Vec<String> {
        let mut faults = Vec::new();
        if !self.lost.is_empty() {
            let some: Vec<_> = self.lost.iter().take(TOLD).map(u64::to_string).collect();
            faults.push(format!(
                "{} events were taken and lost, such as {}",
                self.lost.len(),
                some.join(", ")
            ));
        }
        let final_ones = self.answers.keys().filter(|answer| !answer.is_retryable());
        faults.extend(
            final_ones.map(|answer| format!("a sender that is answered {answer} does not come again")),
        );
        if self.gap_seconds() > gap_seconds_max {
            faults.push(format!(
                "no sender was served for {:.1} s, more than {gap_seconds_max}",
                self.gap_seconds()
            ));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(answers: &[(i64, u64, &str)], arrived: &[u64]) -> Books {
        let mut books = Books::default();
        for &(at, number, answer) in answers {
            let Ok(answer) = answer.parse();
            books.answer(Answered { at, number, answer });
        }
        for number in arrived {
            *books.arrived.entry(*number).or_default() += 1;
        }
        books
    }

    #[test]
    fn a_gap_is_from_one_that_was_taken_to_the_next() {
        let answers = [
            (900, 1, "202"),
            (1_100, 2, "refused"),
            (4_000, 2, "503+5"),
            (9_000, 2, "202"),
            (9_010, 3, "202"),
        ];
        let outcome = books(&answers, &[1, 2, 3, 3]).outcome(1_000, 9_100);
        assert_eq!((outcome.gap, outcome.taken, outcome.twice, outcome.faults(8.2)), (8_100, 2, 1, vec![]));
        assert_eq!(
            outcome.row("it fell"),
            "| it fell | 8.1 s | 503, `Retry-After: 5` (1); refused (1) | 2 | 0 | 1 |"
        );
    }

    #[test]
    fn what_should_not_be_is_told() {
        let outcome = books(&[(10, 1, "202"), (20, 2, "401"), (3_000, 2, "202")], &[1]).outcome(0, 6_100);
        assert_eq!(
            outcome.faults(2.0),
            [
                "1 events were taken and lost, such as 2",
                "a sender that is answered 401 does not come again",
                "no sender was served for 3.1 s, more than 2",
            ]
        );
    }

    #[test]
    fn a_fault_is_over_once_nothing_is_refused_for_a_while() {
        let answers = [(1, 1, "202"), (100, 2, "refused"), (200, 2, "202"), (3_150, 3, "202")];
        assert!(books(&answers, &[]).serves_again(50));
        assert!(!books(&answers[..3], &[]).serves_again(50), "for 100 ms");
        assert!(!books(&answers, &[]).serves_again(200), "nothing is known of what came later");
        assert!(!books(&answers[..2], &[]).serves_again(50), "one is still refused");
    }
}
