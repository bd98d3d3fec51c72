//! The pages of `docs/` say what the code says.

use std::collections::BTreeSet;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, pki_types::ServerName};
use strum::{EnumMessage, VariantArray};

use crate::{
    api::v1alpha1::{ConditionType, EventReason, Reason},
    egress,
    identity::{TrustError, Unpresentable},
    keystore,
    probe::{
        self, Context, Stage,
        classify::{classify, timed_out},
    },
};

const REASONS: &str = include_str!("../docs/reasons.md");

/// Names and meanings of constants.
type Constants = Vec<(&'static str, &'static str)>;

fn constants<T>() -> Constants
where
    T: VariantArray + EnumMessage + Copy + Into<&'static str>,
{
    let constant = |constant: &T| ((*constant).into(), constant.get_documentation().unwrap_or_default());
    T::VARIANTS.iter().map(constant).collect()
}

/// A section of the page is of one sort of constant.
fn sections() -> [(&'static str, Constants); 7] {
    [
        ("Conditions", constants::<ConditionType>()),
        ("Reasons of conditions", constants::<Reason>()),
        ("Reasons of keystores", constants::<keystore::Reason>()),
        ("Warnings of keystores", constants::<keystore::WarningReason>()),
        ("Reasons of tests and deliveries", constants::<probe::Reason>()),
        ("Layers", constants::<probe::Layer>()),
        ("Reasons of Events", constants::<EventReason>()),
    ]
}

/// Names and texts of the entries of a section.
fn entries(title: &str) -> Vec<(&'static str, &'static str)> {
    let section = REASONS.split("\n## ").find_map(|section| section.strip_prefix(title)?.strip_prefix('\n'));
    let section = section.unwrap_or_else(|| panic!("docs/reasons.md has no section {title:?}"));
    let entries = section.split("\n### ").skip(1).map(|entry| entry.split_once("\n\n").unwrap());
    entries.map(|(name, text)| (name.trim_matches('`'), text)).collect()
}

fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An entry is of one constant. It begins with what the code says of it, so that the page cannot say something else.
#[test]
fn every_reason_is_on_the_page_with_its_meaning_and_nothing_else() {
    let mut wrong = Vec::new();
    for (title, constants) in &sections() {
        let entries = entries(title);
        let names: BTreeSet<_> = entries.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), entries.len(), "{title}: one stands there twice");
        let foreign = names.iter().filter(|name| !constants.iter().any(|(is, _)| is == *name));
        wrong.extend(foreign.map(|name| format!("{title}: {name} is not in the code")));
        for (name, meaning) in constants {
            let entry = entries.iter().find(|(entry, _)| entry == name);
            let meaning = on_one_line(meaning);
            match entry {
                None => wrong.push(format!("{title}: {name} is missing: {meaning}")),
                Some((_, text)) if !on_one_line(text).starts_with(&meaning) => {
                    wrong.push(format!("{title}: {name} does not begin with: {meaning}"));
                }
                Some(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_entry_says_what_to_do_and_shows_what_it_looks_like() {
    for (title, _) in sections() {
        for (name, text) in entries(title) {
            let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
            let of = |label: &str| lines.iter().filter(|line| line.starts_with(label)).count();
            assert_eq!((of("- Fix: "), of("- Example: `")), (1, 1), "{title}: {name}");
            assert!((3..=6).contains(&lines.len()), "{title}: {name} has {} lines", lines.len());
        }
    }
}

/// A link leads to a heading of the page.
#[test]
fn every_link_leads_somewhere() {
    let headings = REASONS.lines().filter_map(|line| line.strip_prefix('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        text.replace(['`', ','], "")
    };
    let anchors: BTreeSet<_> = headings.map(anchor).collect();
    for link in REASONS.split("](#").skip(1) {
        let link = link.split_once(')').unwrap().0;
        assert!(anchors.contains(link), "#{link}");
    }
}

#[test]
fn the_examples_of_failures_are_what_the_code_says() {
    let at = |stage| Context { presented: true, requested: Some(true), stage };
    let without = Context { presented: false, ..at(Stage::FirstRead) };
    let certificate = Error::InvalidCertificate;
    let seconds = |time: &str| {
        let time: jiff::Timestamp = time.parse().unwrap();
        rustls::pki_types::UnixTime::since_unix_epoch(
            std::time::Duration::try_from(time.as_duration()).unwrap(),
        )
    };
    let name = |name: &'static str| ServerName::try_from(name).unwrap();
    let tls = |error: Error| classify(&error, at(Stage::FirstRead));
    let failures = [
        tls(Error::AlertReceived(AlertDescription::UnknownCA)),
        classify(&Error::AlertReceived(AlertDescription::CertificateRequired), without),
        tls(Error::Other(rustls::OtherError(std::sync::Arc::new(Unpresentable::NoCommonSignature)))),
        tls(certificate(CertificateError::UnknownIssuer)),
        tls(certificate(CertificateError::NotValidForNameContext {
            expected: name("hooks.partner.example"),
            presented: vec!["DnsName(\"partner.example\")".to_owned()],
        })),
        tls(certificate(CertificateError::ExpiredContext {
            time: seconds("2026-11-24T00:00:00Z"),
            not_after: seconds("2026-11-01T00:00:00Z"),
        })),
        tls(certificate(CertificateError::NotValidYetContext {
            time: seconds("2026-11-24T00:00:00Z"),
            not_before: seconds("2027-01-01T00:00:00Z"),
        })),
        tls(Error::AlertReceived(AlertDescription::ProtocolVersion)),
        classify(&Error::InvalidMessage(InvalidMessage::InvalidContentType), at(Stage::Handshake)),
        classify(&std::io::Error::from(std::io::ErrorKind::UnexpectedEof), at(Stage::FirstRead)),
        timed_out(at(Stage::Connect)),
        classify(&egress::Error::NoAddress("no record found".to_owned()), at(Stage::Resolve)),
        classify(
            &egress::Error::NotConnected("192.0.2.7:443: Connection refused (os error 111)".to_owned()),
            at(Stage::Connect),
        ),
        classify(
            &egress::Error::Proxy {
                proxy: "http://proxy.shop.example:3128".to_owned(),
                what: "did not connect: 192.0.2.7:443: HTTP 403 Forbidden".to_owned(),
            },
            at(Stage::Connect),
        ),
    ];
    let entries = entries("Reasons of tests and deliveries");
    let example = |reason: &str| entries.iter().find(|(name, _)| *name == reason).unwrap().1;
    for failure in failures {
        let (reason, message) = (failure.reason.as_str(), &failure.message);
        assert!(example(reason).contains(&format!("- Example: `{message}")), "{reason}: {message}");
    }
    let nobody = format!("endpoint.trust {}; nothing was sent", TrustError::Nobody);
    assert!(example("TrustUnusable").contains(&nobody), "{nobody}");
}
