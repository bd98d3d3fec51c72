//! What a queue means, in memory, and a test that holds every implementation to it.

use std::{collections::BTreeMap, fs, path::Path};

use jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::{Cause, Counts, Embedded, Expired, Filter, Queue, Sequence, Settlement};
use crate::{
    event::{Event, WebhookKey},
    limits,
};

/// Milliseconds of an hour; the model's clock advances by less.
const LONG: i64 = 3_600_000;

#[derive(Clone, Debug)]
enum Operation {
    /// Events for webhooks by number, with a key or none, and named by their sender or not.
    Append(Vec<(usize, Option<u8>, Option<u8>)>),
    Claim(usize, usize),
    /// Of the claims that are held, one by number.
    Settle(usize, Ending),
    Release(usize),
    /// What was taken longer ago than this.
    GiveUp(usize, i64),
    BringForward(usize),
    /// All dead letters, or those with one reason.
    Replay(usize, Option<usize>),
    RemoveDead(usize, Option<usize>),
    /// Which of the webhooks there are.
    Present([bool; 3]),
    Expire,
    Pass(i64),
    /// In order, or as a kill leaves the files.
    Restart(bool),
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Delivered,
    Retry(i64),
    Dead(usize),
}

const REASONS: [&str; 2] = ["HTTPStatus", "Timeout"];

fn operation() -> impl Strategy<Value = Operation> {
    let webhook = || 0..3_usize;
    let reason = || proptest::option::of(0..REASONS.len());
    let ending = prop_oneof![
        3 => Just(Ending::Delivered),
        2 => (0..LONG).prop_map(Ending::Retry),
        2 => (0..REASONS.len()).prop_map(Ending::Dead),
    ];
    let key = proptest::option::of(0..2_u8);
    let name = proptest::option::of(0..6_u8);
    prop_oneof![
        6 => proptest::collection::vec((webhook(), key, name), 1..4).prop_map(Operation::Append),
        6 => (webhook(), 1..4_usize).prop_map(|(webhook, at_most)| Operation::Claim(webhook, at_most)),
        8 => (any::<usize>(), ending).prop_map(|(claim, ending)| Operation::Settle(claim, ending)),
        1 => any::<usize>().prop_map(Operation::Release),
        1 => (webhook(), 0..LONG).prop_map(|(webhook, ago)| Operation::GiveUp(webhook, ago)),
        1 => webhook().prop_map(Operation::BringForward),
        1 => (webhook(), reason()).prop_map(|(webhook, reason)| Operation::Replay(webhook, reason)),
        1 => (webhook(), reason()).prop_map(|(webhook, reason)| Operation::RemoveDead(webhook, reason)),
        1 => any::<[bool; 3]>().prop_map(Operation::Present),
        1 => Just(Operation::Expire),
        2 => (1..LONG).prop_map(Operation::Pass),
        2 => any::<bool>().prop_map(Operation::Restart),
    ]
}

/// An event, as the model has it.
#[derive(Clone, Debug)]
struct Kept {
    event: Event,
    due_ms: i64,
    failures: u32,
    claimed: bool,
    dead: Option<(i64, usize)>,
}

/// Events in the order in which they were taken.
#[derive(Default)]
struct Model {
    now: i64,
    kept: Vec<Kept>,
    delivered: BTreeMap<WebhookKey, i64>,
    /// Events that were named, when they were taken, and their ids.
    named: Vec<(WebhookKey, u8, i64, Uuid)>,
    /// Webhooks that have had events; since when they have been gone.
    gone: BTreeMap<WebhookKey, Option<i64>>,
}

fn webhook(number: usize) -> WebhookKey {
    WebhookKey { namespace: "shop".into(), name: ["a", "b", "c"][number].into() }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

fn filter(reason: Option<usize>) -> Filter {
    Filter { reason: reason.map(|reason| REASONS[reason].into()), ..Filter::default() }
}

impl Model {
    /// An earlier one with its key is there.
    fn is_blocked(&self, index: usize) -> bool {
        let Event { webhook, key, .. } = &self.kept[index].event;
        key.is_some()
            && self.kept[..index].iter().any(|earlier| {
                earlier.dead.is_none() && (&earlier.event.webhook, &earlier.event.key) == (webhook, key)
            })
    }

    /// What a claim finds, in order, and when there is more.
    fn due(&self, of: &WebhookKey) -> (Vec<usize>, Option<i64>) {
        let free = |index: &usize| {
            let kept = &self.kept[*index];
            kept.event.webhook == *of && kept.dead.is_none() && !self.is_blocked(*index)
        };
        let all: Vec<_> = (0..self.kept.len()).filter(free).collect();
        let mut due: Vec<_> = all
            .iter()
            .copied()
            .filter(|index| self.kept[*index].due_ms <= self.now && !self.kept[*index].claimed)
            .collect();
        due.sort_by_key(|index| self.kept[*index].due_ms);
        let later = all.iter().map(|index| self.kept[*index].due_ms).filter(|due| *due > self.now).min();
        (due, later)
    }

    fn counts(&self, of: &WebhookKey) -> (i64, i64, i64) {
        let count = |dead: bool| {
            let kept =
                self.kept.iter().filter(|kept| kept.event.webhook == *of && kept.dead.is_some() == dead);
            i64::try_from(kept.count()).unwrap()
        };
        (count(false), count(true), self.delivered.get(of).copied().unwrap_or_default())
    }

    fn dead(&self, of: &WebhookKey, reason: Option<usize>) -> Vec<usize> {
        let taken = |kept: &Kept| {
            let dead = kept.dead.is_some_and(|(_, why)| reason.is_none_or(|wanted| wanted == why));
            dead && kept.event.webhook == *of
        };
        (0..self.kept.len()).filter(|index| taken(&self.kept[*index])).collect()
    }
}

/// A queue and its model, through restarts.
struct Run<Q, O> {
    open: O,
    root: tempfile::TempDir,
    restarts: u32,
    queue: Q,
    model: Model,
    /// What is claimed: its webhook, its place in the queue, and the event's id.
    held: Vec<(WebhookKey, Sequence, Uuid)>,
}

/// Runs operations on both, and compares after each.
async fn obeys<Q: Queue>(open: impl Fn(&Path) -> Q, operations: Vec<Operation>) {
    let root = tempfile::tempdir().unwrap();
    let queue = open(&root.path().join("0"));
    let model = Model { now: LONG, ..Model::default() };
    let mut run = Run { open, root, restarts: 0, queue, model, held: Vec::new() };
    for operation in operations {
        run = run.apply(operation).await;
        run.compare().await;
    }
    run.queue.close().await;
}

impl<Q: Queue, O: Fn(&Path) -> Q> Run<Q, O> {
    async fn apply(mut self, operation: Operation) -> Self {
        match operation {
            Operation::Append(events) => self.append(events).await,
            Operation::Claim(of, at_most) => self.claim(&webhook(of), at_most).await,
            Operation::Settle(claim, ending) => self.settle(claim, ending).await,
            Operation::Release(claim) => self.release(claim),
            Operation::GiveUp(of, ago) => self.give_up(&webhook(of), self.model.now - ago).await,
            Operation::BringForward(of) => self.bring_forward(&webhook(of)).await,
            Operation::Replay(of, reason) => self.replay(&webhook(of), reason).await,
            Operation::RemoveDead(of, reason) => self.remove_dead(&webhook(of), reason).await,
            Operation::Present(present) => self.present(present).await,
            Operation::Expire => self.expire().await,
            Operation::Pass(ms) => self.model.now += ms,
            Operation::Restart(in_order) => return self.restart(in_order).await,
        }
        self
    }

    async fn compare(&self) {
        for of in (0..3).map(webhook) {
            let Counts { pending, dead, delivered } = self.queue.counts(&of);
            assert_eq!((pending.events, dead.events, delivered), self.model.counts(&of));
            let letters = self.queue.dead(&of, Filter::default(), 0, 64).await.unwrap();
            let dead: Vec<_> = letters.iter().map(|letter| &letter.event).collect();
            let expected = self.model.dead(&of, None);
            assert_eq!(dead, expected.iter().map(|index| &self.model.kept[*index].event).collect::<Vec<_>>());
        }
    }

    async fn append(&mut self, events: Vec<(usize, Option<u8>, Option<u8>)>) {
        let now = self.model.now;
        let attributes = |name: Option<u8>| {
            let named = name.map(|name| [("source", "s".to_owned()), ("id", name.to_string())]);
            named.into_iter().flatten().map(|(name, value)| (name.to_owned(), value)).collect()
        };
        let new = |(of, key, name): (usize, Option<u8>, Option<u8>)| Event {
            id: Uuid::now_v7(),
            webhook: webhook(of),
            accepted_at: at(now),
            attributes: attributes(name),
            body: vec![0; of].into(),
            key: key.map(|key| key.to_string()),
        };
        let names: Vec<_> = events.iter().map(|(.., name)| *name).collect();
        let events: Vec<_> = events.into_iter().map(new).collect();
        let ids = self.queue.append(events.clone()).await.unwrap();
        assert_eq!(ids.len(), events.len());
        let since = now - i64::try_from(limits::SEEN.as_millis()).unwrap();
        for ((event, name), id) in events.into_iter().zip(names).zip(ids) {
            let Model { kept, named, gone, .. } = &mut self.model;
            if let Some(name) = name {
                let same = |(of, other, taken, _): &&(WebhookKey, u8, i64, Uuid)| {
                    *of == event.webhook && *other == name && *taken >= since
                };
                if let Some((.., first)) = named.iter().find(same) {
                    assert_eq!(id, *first);
                    continue;
                }
                named.push((event.webhook.clone(), name, now, event.id));
            }
            assert_eq!(id, event.id);
            gone.entry(event.webhook.clone()).or_default();
            kept.push(Kept { event, due_ms: now, failures: 0, claimed: false, dead: None });
        }
    }

    async fn claim(&mut self, of: &WebhookKey, at_most: usize) {
        let model = &mut self.model;
        let (due, later) = model.due(of);
        let page = self.queue.claim(of, at(model.now), at_most).await.unwrap();
        let next = if due.len() > at_most { Some(model.now) } else { later };
        assert_eq!(page.next_due_at, next.map(at));
        let due = &due[..due.len().min(at_most)];
        let found: Vec<_> = page.claims.iter().map(|claim| (&claim.event, claim.failures)).collect();
        let expected = due.iter().map(|index| (&model.kept[*index].event, model.kept[*index].failures));
        assert_eq!(found, expected.collect::<Vec<_>>());
        for index in due {
            model.kept[*index].claimed = true;
        }
        self.held.extend(page.claims.into_iter().map(|c| (c.event.webhook, c.sequence, c.event.id)));
    }

    async fn settle(&mut self, claim: usize, ending: Ending) {
        if self.held.is_empty() {
            return;
        }
        let (of, sequence, id) = self.held.swap_remove(claim % self.held.len());
        let (now, model) = (self.model.now, &mut self.model);
        let settlement = match ending {
            Ending::Delivered => Settlement::Delivered,
            Ending::Retry(after) => Settlement::Retry { since: at(now), due_at: at(now + after) },
            Ending::Dead(reason) => {
                let (reason, message) = (REASONS[reason].into(), String::new());
                Settlement::Dead { at: at(now), cause: Cause { reason, message, response: None } }
            }
        };
        self.queue.settle(&of, vec![(sequence, settlement)]).await.unwrap();
        // A webhook that was gone for too long has nothing any more.
        let Some(index) = model.kept.iter().position(|kept| kept.event.id == id) else { return };
        let kept = &mut model.kept[index];
        (kept.claimed, kept.failures) = (false, kept.failures + 1);
        match ending {
            Ending::Delivered => {
                model.kept.remove(index);
                *model.delivered.entry(of).or_default() += 1;
            }
            Ending::Retry(after) => kept.due_ms = now + after,
            Ending::Dead(reason) => kept.dead = Some((now, reason)),
        }
    }

    fn release(&mut self, claim: usize) {
        if self.held.is_empty() {
            return;
        }
        let (of, sequence, id) = self.held.swap_remove(claim % self.held.len());
        self.queue.release(&of, &[sequence]);
        for kept in self.model.kept.iter_mut().filter(|kept| kept.event.id == id) {
            kept.claimed = false;
        }
    }

    async fn give_up(&mut self, of: &WebhookKey, before: i64) {
        let (model, now) = (&self.model, self.model.now);
        let too_old = |index: &usize| {
            let Kept { event, due_ms, claimed, dead, .. } = &model.kept[*index];
            let accepted = event.accepted_at.as_millisecond();
            event.webhook == *of
                && dead.is_none()
                && !claimed
                && *due_ms < before
                && accepted < before
                && !model.is_blocked(*index)
        };
        let given_up: Vec<_> = (0..model.kept.len()).filter(too_old).collect();
        let (reason, message) = (REASONS[0].into(), String::new());
        let cause = Cause { reason, message, response: None };
        let count = self.queue.give_up(of, at(before), at(now), cause).await.unwrap();
        assert_eq!(count, u64::try_from(given_up.len()).unwrap());
        for index in given_up {
            let kept = &mut self.model.kept[index];
            (kept.failures, kept.dead) = (kept.failures + 1, Some((now, 0)));
        }
    }

    async fn bring_forward(&mut self, of: &WebhookKey) {
        let now = self.model.now;
        self.queue.bring_forward(of, at(now)).await.unwrap();
        let waits = |kept: &&mut Kept| kept.event.webhook == *of && kept.dead.is_none();
        for kept in self.model.kept.iter_mut().filter(waits) {
            kept.due_ms = kept.due_ms.min(now);
        }
    }

    async fn replay(&mut self, of: &WebhookKey, reason: Option<usize>) {
        let (dead, model) = (self.model.dead(of, reason), &mut self.model);
        let replayed = self.queue.replay(of, filter(reason), at(model.now)).await.unwrap();
        assert_eq!(replayed, u64::try_from(dead.len()).unwrap());
        // Behind what waits, as new ones.
        let mut again: Vec<_> = dead.iter().rev().map(|index| model.kept.remove(*index)).collect();
        again.reverse();
        let due_ms = model.now;
        model.kept.extend(again.into_iter().map(|kept| Kept { due_ms, failures: 0, dead: None, ..kept }));
    }

    async fn remove_dead(&mut self, of: &WebhookKey, reason: Option<usize>) {
        let dead = self.model.dead(of, reason);
        let removed = self.queue.remove_dead(of, filter(reason)).await.unwrap();
        assert_eq!(removed, u64::try_from(dead.len()).unwrap());
        for index in dead.iter().rev() {
            self.model.kept.remove(*index);
        }
    }

    async fn present(&mut self, present: [bool; 3]) {
        let there = (0..3).filter(|number| present[*number]).map(webhook).collect::<Vec<_>>();
        self.queue.present(None, there.clone(), at(self.model.now)).await.unwrap();
        for (of, since) in &mut self.model.gone {
            *since = if there.contains(of) { None } else { Some(since.unwrap_or(self.model.now)) };
        }
    }

    async fn expire(&mut self) {
        let (before, model) = (self.model.now - LONG, &mut self.model);
        let Expired { gone, dead } = self.queue.expire(at(before), at(before)).await.unwrap();
        let long_gone = model.gone.iter().filter(|(_, since)| since.is_some_and(|since| since < before));
        let long_gone: Vec<_> = long_gone.map(|(of, _)| of.clone()).collect();
        let mut found: Vec<_> = gone.into_iter().map(|(of, _)| of).collect();
        found.sort();
        assert_eq!(found, long_gone);
        for of in &long_gone {
            model.kept.retain(|kept| kept.event.webhook != *of);
            model.delivered.remove(of);
            model.gone.remove(of);
            model.named.retain(|(named, ..)| named != of);
        }
        let were = model.kept.len();
        model.kept.retain(|kept| kept.dead.is_none_or(|(since, _)| since >= before));
        assert_eq!(dead, i64::try_from(were - model.kept.len()).unwrap());
    }

    async fn restart(self, in_order: bool) -> Self {
        let Self { open, root, restarts, queue, mut model, .. } = self;
        let [before, after] = [restarts, restarts + 1].map(|number| root.path().join(number.to_string()));
        if in_order {
            queue.close().await;
            fs::rename(&before, &after).unwrap();
        } else {
            // What a kill at this moment leaves: nothing is told to the one before.
            fs::create_dir(&after).unwrap();
            for file in fs::read_dir(&before).unwrap().map(|file| file.unwrap().path()) {
                if !file.to_string_lossy().ends_with("-shm") {
                    fs::copy(&file, after.join(file.file_name().unwrap())).unwrap();
                }
            }
        }
        drop(queue);
        for kept in &mut model.kept {
            kept.claimed = false;
        }
        let queue = open(&after);
        Self { open, root, restarts: restarts + 1, queue, model, held: Vec::new() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_embedded_queue_obeys(operations in proptest::collection::vec(operation(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(obeys(|directory| Embedded::open(directory).unwrap(), operations));
    }
}
