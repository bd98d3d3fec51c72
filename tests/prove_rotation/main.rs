//! The proof under load: certificates rotate, receivers change their minds, programs and the API server die,
//! and every event that was acknowledged arrives, with a certificate that was asked for and has not expired.
//!
//! ```sh
//! make prove-rotation SECONDS=60
//! cargo test --test prove_rotation -- --seconds 60 --seed 7
//! ```
//!
//! A sender posts without pause to a webhook for each kind of receiver. Every receiver tells of every request.
//! The seed decides what happens in which order; how it falls together in time is the machine's affair.

// What cannot go on says so by panicking; the harness turns that into a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::{Duration, Instant},
};

use clap::Parser;
use tokio::time::{Instant as Timer, interval_at, timeout};

mod api;
mod disturbances;
#[macro_use]
#[path = "../e2e/harness/mod.rs"]
mod harness;
mod ledger;
mod partner;
mod receivers;
mod report;

use api::ApiServer;
use disturbances::{Renewals, World};
use harness::{cluster::Cluster, load::Load, pki::Validity, programs::Programs, scene::Scene};
use partner::{Authorities, Partner};
use receivers::Kind;

const PROGRESS: Duration = Duration::from_secs(10);

/// After the last disturbance, for what is on its way: attempts back off two seconds at most.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(1);

/// How long the first certificates live; the first renewal comes within a run of a minute.
const FIRST_LIFE: Duration = Duration::from_secs(50);

/// Prove that no event is lost while client certificates rotate under load.
#[derive(Parser)]
struct Arguments {
    /// How long to disturb; from 60 on every kind of disturbance happens
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u64,
    /// Repeats the order of an earlier run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Events a second, over all webhooks
    #[arg(long, default_value_t = 200, value_name = "N")]
    rate: u32,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    harness::run_alone("prove-rotation", |cluster| async move {
        match prove(cluster, &arguments).await {
            Ok(passed) => passed,
            Err(error) => {
                eprintln!("prove-rotation: {error}");
                false
            }
        }
    })
}

async fn prove(cluster: Arc<Cluster>, arguments: &Arguments) -> Result<bool, String> {
    let seed = arguments.seed.unwrap_or_else(|| rand::random::<u32>().into());
    println!("{} s, {} events/s, seed {seed} (--seed {seed} repeats it)", arguments.seconds, arguments.rate);
    let world = Arc::new(world(cluster, arguments.seconds, seed).await?);

    let mut load = Load::new();
    let rate = arguments.rate / u32::try_from(world.partners.len()).unwrap_or(1);
    for partner in &world.partners {
        let ledger = Arc::clone(&partner.ledger);
        load.post(partner.name(), f64::from(rate), move |id| ledger.acknowledged(id), &world.programs.url());
    }
    let renewals = Renewals::start(&world);
    let mut failures = {
        let disturbed = disturbances::run(&world);
        let mut disturbed = std::pin::pin!(disturbed);
        let mut ticks = interval_at(Timer::now() + PROGRESS, PROGRESS);
        loop {
            tokio::select! {
                failures = &mut disturbed => break failures,
                _ = ticks.tick() => println!("{}", report::progress(&world)),
            }
        }
    };
    // While events still flow: a renewal waits for one that comes with the new certificate.
    failures.extend(renewals.stop().await);
    load.stop().await;
    let settled = async {
        for partner in &world.partners {
            partner.ledger.settled().await;
        }
    };
    if timeout(SETTLE_TIMEOUT, settled).await.is_err() {
        failures
            .push(format!("not all that was acknowledged arrived within {SETTLE_TIMEOUT:?} after the end"));
        for partner in &world.partners {
            let lost: Vec<_> = partner.ledger.read(|book| book.examples_of_lost().collect());
            for (id, at) in lost {
                let found = world.programs.find_in_queue(id);
                failures.push(format!("{}: {id} of {at} is {found}", partner.name()));
            }
        }
        failures.push(world.programs.dispatcher_says().await);
    }
    for partner in &world.partners {
        partner.receiver.stop().await;
    }
    Ok(report::report(&world, failures))
}

/// Everything runs, and every webhook delivers.
async fn world(cluster: Arc<Cluster>, seconds: u64, seed: u64) -> Result<World, String> {
    let scene = Scene::without_controller(Arc::clone(&cluster)).await;
    scene.enable(true).await;
    let api = ApiServer::new(&cluster, scene.namespace);
    let authorities = Authorities::new().await;
    let mut partners = Vec::new();
    for (n, kind) in Kind::ALL.into_iter().enumerate() {
        let life = if n % 2 == 0 { Validity::LivesFor(FIRST_LIFE) } else { Validity::Year };
        partners.push(Partner::start(kind, &authorities, &api, life).await?);
    }
    let programs = Programs::start(&cluster, api.namespace()).await;
    for partner in &partners {
        api.until(partner.name(), "it to be ready", api::Webhook::is_ready).await?;
    }
    Ok(World {
        api,
        programs,
        authorities,
        partners,
        journal: Mutex::default(),
        rotations: AtomicU64::new(0),
        started: Instant::now(),
        seconds,
        seed,
    })
}
