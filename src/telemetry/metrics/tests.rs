use std::collections::{BTreeMap, BTreeSet};

use strum::VariantArray as _;

use super::*;
use crate::{event::WebhookKey, limits, probe::Layer, rotation::Because};

fn webhook(name: &str) -> WebhookKey {
    WebhookKey { namespace: "shop".into(), name: name.into() }
}

/// Every webhook has three that wait, and one that was given up.
struct Three;

impl Amounts for Three {
    fn amounts(&self, _: &WebhookKey) -> (i64, i64) {
        (3, 1)
    }
}

fn dispatcher() -> (DispatcherMetrics, Parts) {
    let parts = Parts {
        requests: Requests::default(),
        queue: QueueMetrics::new(std::env::temp_dir(), limits::QUEUE_BYTES),
        connections: Connections::default(),
        api_requests: ApiRequests::default(),
    };
    (DispatcherMetrics::new(Layer::VARIANTS.iter().map(|layer| layer.as_str()), Three), parts)
}

/// A dispatcher that has done all that it counts.
fn busy_dispatcher() -> String {
    let (dispatcher, parts) = dispatcher();
    let deliveries = dispatcher.deliveries(&webhook("orders"));
    deliveries.refused(true, "ClientCertificateRejected");
    dispatcher.oldest(&webhook("orders"), Some(1_000));
    parts.requests.answered(http::StatusCode::ACCEPTED);
    parts.api_requests.answered(None);
    dispatcher.page(&parts).text().unwrap()
}

/// A controller likewise.
fn busy_controller() -> String {
    let controller = ControllerMetrics::new(Because::VARIANTS.iter().map(|because| because.as_str()));
    controller.tested(true, "Succeeded");
    let certificate = Certificate { slot: "active", not_before: 1, not_after: 2 };
    let keystores = vec![Keystore { slot: "active", usable: true }];
    let tests = vec![Tested { slot: "active", succeeded: true }];
    let observed = Observed { ready: true, certificates: vec![certificate], keystores, tests };
    controller.observed(webhook("orders"), observed);
    let api_requests = ApiRequests::default();
    api_requests.answered(Some(http::StatusCode::OK));
    controller.page(&Connections::default(), &api_requests).text().unwrap()
}

/// What a page says of a metric, and in which programs it is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Described {
    programs: BTreeSet<String>,
    type_: String,
    unit: &'static str,
    labels: BTreeSet<String>,
}

/// The unit that a name ends with.
fn unit(name: &str) -> &'static str {
    let name = name.trim_end_matches("_total");
    ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(&format!("_{unit}"))).unwrap_or_default()
}

/// By name, from what the programs tell.
fn told() -> BTreeMap<String, Described> {
    let mut all = BTreeMap::<String, Described>::new();
    for (program, text) in [("controller", busy_controller()), ("dispatcher", busy_dispatcher())] {
        let mut name = String::new();
        for line in text.lines() {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (declared, type_) = declared.split_once(' ').unwrap();
                name = declared.to_owned();
                let described = all.entry(name.clone()).or_default();
                described.type_ = type_.to_owned();
                described.unit = unit(&name);
                described.programs.insert(program.to_owned());
            } else if !line.starts_with('#') {
                let labels = line.split_once('{').map_or("", |(_, labels)| labels);
                let names =
                    labels.split("\",").filter_map(|label| label.split_once("=\"")).map(|(name, _)| name);
                let names = names.filter(|name| *name != "le").map(ToOwned::to_owned);
                all.get_mut(&name).unwrap().labels.extend(names);
            }
        }
    }
    all
}

/// By name, from the tables of the page.
fn documented() -> BTreeMap<String, Described> {
    let page = include_str!("../../../docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `postrider_")).map(|row| {
        let cells: Vec<_> = row.split(" | ").map(|cell| cell.trim().replace('`', "")).collect();
        assert_eq!(cells.len(), 6, "a cell is missing, or holds a bar: {row}");
        assert!(!cells[5].trim_end_matches('|').trim().is_empty(), "without a meaning: {row}");
        let words =
            |cell: &str| cell.split(", ").filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect();
        let name = format!("postrider_{}", cells[0]);
        assert_eq!(cells[2], unit(&name), "the unit of {name}");
        let (programs, labels) = (words(&cells[4]), words(&cells[3]));
        let described = Described { programs, type_: cells[1].clone(), unit: unit(&name), labels };
        (name, described)
    });
    rows.collect()
}

#[test]
fn the_page_tells_of_each_metric_and_of_no_other() {
    let (told, documented) = (told(), documented());
    for (name, described) in &told {
        assert_eq!(documented.get(name), Some(described), "{name}");
    }
    let names = |all: &BTreeMap<String, Described>| all.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&documented), names(&told));
}

#[test]
fn each_metric_has_a_query_as_an_example() {
    let page = include_str!("../../../docs/metrics.md");
    let queries: String =
        page.split("```promql\n").skip(1).filter_map(|part| part.split("```").next()).collect();
    let known = told();
    let words = queries.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let asked: BTreeSet<_> = words.filter_map(|word| base(word, &known)).collect();
    for name in known.keys() {
        assert!(asked.contains(name), "docs/metrics.md has no query with {name}");
    }
}

/// What is meant by a name in a query: a histogram has three.
fn base(name: &str, known: &BTreeMap<String, Described>) -> Option<String> {
    let mut bases = ["", "_bucket", "_count", "_sum"].iter().filter_map(|suffix| name.strip_suffix(suffix));
    let is_known =
        |base: &&str| known.get(*base).is_some_and(|known| *base == name || known.type_ == "histogram");
    bases.find(is_known).map(ToOwned::to_owned)
}

#[test]
fn alerts_the_dashboard_and_the_pages_name_only_metrics_that_there_are() {
    let known = told();
    for (file, text) in [
        ("docs/metrics.md", include_str!("../../../docs/metrics.md")),
        ("docs/alerts.md", include_str!("../../../docs/alerts.md")),
        ("the alerts", include_str!("../../../charts/postrider/files/alerts.yaml")),
        ("the dashboard", include_str!("../../../charts/postrider/files/dashboard.json")),
        ("the tests of the alerts", include_str!("../../../charts/postrider/tests/alerts.yaml")),
    ] {
        let word = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
            format!("postrider_{}", &text[..end])
        };
        for name in text.split("postrider_").skip(1).map(word) {
            assert!(base(&name, &known).is_some(), "{file} names {name}");
        }
    }
}

#[test]
fn webhooks_beyond_the_bound_are_told_of_together() {
    let (dispatcher, parts) = dispatcher();
    let all: Vec<_> = (0..limits::METRICS_WEBHOOKS + 2).map(|n| webhook(&format!("w{n}"))).collect();
    for one in &all {
        dispatcher.deliveries(one).refused(false, "ClientCertificateRejected");
    }
    let text = dispatcher.page(&parts).text().unwrap();
    let lines = |of: &str| text.lines().filter(|line| line.starts_with(of)).count();
    assert_eq!(lines("postrider_events_pending{"), limits::METRICS_WEBHOOKS + 1);
    let other = r#"namespace="_other",webhook="_other""#;
    assert!(text.contains(&format!("postrider_events_pending{{{other}}} 6\n")));
    assert!(text.contains("postrider_webhooks_without_series 2\n"));
    let refusals = format!("postrider_client_certificate_refusals_total{{{other},taken=\"false\"}} 2\n");
    assert!(text.contains(&refusals), "{text}");
    // What was counted of one that is gone is not taken back.
    dispatcher.forget(&all[limits::METRICS_WEBHOOKS]);
    assert!(dispatcher.page(&parts).text().unwrap().contains(&refusals));
    // One with series of its own makes room for the next.
    dispatcher.forget(&all[0]);
    dispatcher.deliveries(&webhook("late"));
    let text = dispatcher.page(&parts).text().unwrap();
    assert!(text.contains("postrider_events_pending{namespace=\"shop\",webhook=\"late\"} 3\n"));
    assert!(!text.contains("webhook=\"w0\""));
}

#[test]
fn what_is_most_urgent_in_each_namespace_is_told_of_in_any_case() {
    let controller = ControllerMetrics::new([]);
    let observed = |not_after| Observed {
        ready: false,
        certificates: vec![Certificate { slot: "active", not_before: 0, not_after }],
        ..Observed::default()
    };
    for n in 0..limits::METRICS_WEBHOOKS {
        controller.observed(webhook(&format!("w{n}")), observed(9_000));
    }
    controller.observed(webhook("z"), observed(1_000));
    let text = || controller.page(&Connections::default(), &ApiRequests::default()).text().unwrap();
    assert!(text().contains("webhook=\"z\",slot=\"active\"} 1000\n"));
    assert!(text().contains("postrider_webhooks_without_series 1\n"));
    // Nobody's many push out the one of somebody else.
    let calm = WebhookKey { namespace: "calm".into(), name: "one".into() };
    controller.observed(calm, Observed { ready: true, ..observed(99_000) });
    assert!(text().contains("namespace=\"calm\",webhook=\"one\",slot=\"active\"} 99000\n"));
    assert!(text().contains("postrider_webhooks_without_series 2\n"));
    controller.present_by(|webhook| webhook.name != "z");
    assert!(!text().contains("webhook=\"z\""));
    drop(controller.leads());
    assert!(!text().contains("webhook=\""), "another one may look after them now");
}

#[test]
fn counters_and_the_build_are_told_from_the_beginning() {
    let (dispatcher, parts) = dispatcher();
    let text = dispatcher.page(&parts).text().unwrap();
    assert!(
        text.contains("# TYPE postrider_events_accepted_total counter\npostrider_events_accepted_total 0\n")
    );
    assert!(text.contains("postrider_build_info{program=\"dispatcher\",version=\""), "{text}");
}
