//! Two controllers, of which one works.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::harness::{
    cluster::Cluster,
    pki,
    process::Process,
    receiver::{Receiver, TO_RECEIVERS},
    scene::{Scene, launch_controller},
};

tests![
    the_other_controller_goes_on_when_the_one_that_leads_is_killed,
    a_controller_that_ends_in_order_leaves_the_lease_at_once,
    a_controller_that_was_frozen_finds_that_it_leads_no_more,
    without_the_api_server_nobody_leads_and_after_it_one_does,
];

/// How long the Lease lasts when its holder has gone, and what the other one needs to begin.
const LEASE: Duration = Duration::from_secs(15);
const BEGINS: Duration = Duration::from_secs(10);

const ELECTION: [&str; 3] = ["--leader-election", "--pod-namespace", "postrider"];

async fn controller(cluster: &Cluster) -> Process {
    let arguments = [&TO_RECEIVERS[..], &ELECTION].concat();
    let controller = launch_controller(cluster, &arguments).await;
    controller.line_with("waits for the Lease").await;
    controller
}

/// The one that leads, and the other.
async fn two(cluster: &Cluster) -> [Process; 2] {
    let first = controller(cluster).await;
    first.line_with("reconciles").await;
    let second = controller(cluster).await;
    [first, second]
}

fn terms(controller: &Process) -> usize {
    controller.lines().iter().filter(|line| line.contains("\"reconciles\"")).count()
}

async fn a_webhook_is_made_ready(scene: &Scene, receiver: &Receiver, name: &str) {
    scene.keystore(name, pki::shared().await.pkcs12().await).await;
    scene.mtls_webhook(name, &receiver.url(), "PKCS12").await;
    scene.ready(name).await;
}

async fn the_other_controller_goes_on_when_the_one_that_leads_is_killed(_: Arc<Cluster>) {
    let cluster = Cluster::start_own().await;
    let (scene, receiver) = (Scene::without_controller(Arc::clone(&cluster)).await, Receiver::start().await);
    scene.enable(true).await;
    let [first, second] = two(&cluster).await;
    a_webhook_is_made_ready(&scene, &receiver, "before").await;
    assert_eq!(terms(&second), 0, "both work");
    first.kill().await;
    let killed = Instant::now();
    second.line_with("\"reconciles\"").await;
    let took = killed.elapsed();
    assert!(took < LEASE + BEGINS, "{took:?}");
    a_webhook_is_made_ready(&scene, &receiver, "after").await;
    println!("the other one works after {took:.1?}");
}

async fn a_controller_that_ends_in_order_leaves_the_lease_at_once(_: Arc<Cluster>) {
    let cluster = Cluster::start_own().await;
    let [first, second] = two(&cluster).await;
    first.terminate().await;
    first.line_with("gives the Lease back").await;
    // It looks again when the Lease would have run out, as it knows it.
    second.line_with("\"reconciles\"").await;
}

async fn a_controller_that_was_frozen_finds_that_it_leads_no_more(_: Arc<Cluster>) {
    let cluster = Cluster::start_own().await;
    let (scene, receiver) = (Scene::without_controller(Arc::clone(&cluster)).await, Receiver::start().await);
    scene.enable(true).await;
    let [first, second] = two(&cluster).await;
    first.signal(Signal::STOP);
    second.line_with("\"reconciles\"").await;
    first.signal(Signal::CONT);
    first.line_with("leads no more").await;
    a_webhook_is_made_ready(&scene, &receiver, "shop").await;
    assert_eq!((terms(&first), terms(&second)), (1, 1));
}

async fn without_the_api_server_nobody_leads_and_after_it_one_does(_: Arc<Cluster>) {
    let cluster = Cluster::start_own().await;
    let (scene, receiver) = (Scene::without_controller(Arc::clone(&cluster)).await, Receiver::start().await);
    scene.enable(true).await;
    let controllers = two(&cluster).await;
    cluster.stop_api_server().await;
    controllers[0].line_with("leads no more").await;
    cluster.start_api_server().await;
    a_webhook_is_made_ready(&scene, &receiver, "shop").await;
    let lead = |controller: &&Process| {
        let lines = controller.lines();
        let last = |text: &str| lines.iter().rposition(|line| line.contains(text));
        last("\"leads\"") > last("leads no more")
    };
    assert_eq!(controllers.iter().filter(lead).count(), 1);
}
