//! Tests of the programs against a real API server.
//!
//! One program, so that they share one control plane. `cargo test --test e2e -- NAME` runs those whose
//! name holds NAME. `tests/cluster/README.md` tells what it needs and which variables it knows.

// A test says what it found by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;

#[macro_use]
mod harness;
mod access;
mod authorization;
mod chart;
mod controller;
mod crd;
mod delivery;
mod delivery_policy;
mod egress;
mod harness_selftest;
mod ingest;
mod ingest_attacks;
mod ingest_server;
mod lease;
mod metrics;
mod pages;
mod plugin;
mod probe;
mod probe_failures;
mod receiver_examples;
mod rights;
mod rotation;
mod serving;
mod traces;

fn main() -> ExitCode {
    harness::chart::helm();
    harness::run(vec![
        harness_selftest::tests(),
        crd::tests(),
        chart::tests(),
        rights::tests(),
        controller::tests(),
        lease::tests(),
        plugin::tests(),
        delivery::tests(),
        access::tests(),
        authorization::tests(),
        delivery_policy::tests(),
        egress::tests(),
        ingest::tests(),
        ingest_attacks::tests(),
        ingest_server::tests(),
        metrics::tests(),
        rotation::tests(),
        serving::tests(),
        traces::tests(),
        pages::tests(),
        probe::tests(),
        probe_failures::tests(),
        receiver_examples::tests(),
    ])
}
