//! What an administrator says of traces.

use clap::Args;
use url::{Host, Url};

use super::Error;

/// Traces.
#[derive(Args, Clone, Debug)]
#[group(id = "traces")]
pub struct Options {
    /// OpenTelemetry collector that takes spans by OTLP over HTTP, such as http://127.0.0.1:4318; without it there
    /// are none
    ///
    /// Spans go to /v1/traces below it. With https:// it is trusted as the system trusts (SSL_CERT_FILE). Headers, such as a
    /// token for it, belong into the variable OTEL_EXPORTER_OTLP_HEADERS: others see a command line.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", hide_env_values = true)]
    pub otlp_endpoint: Option<String>,
    /// Part of the traces that begin here which is kept, 0 to 1; what a sender says of its own goes first
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "RATIO", default_value = "1", value_parser = ratio)]
    pub trace_ratio: f64,
}

impl Options {
    /// Where spans are sent to. An empty variable is as none, as OpenTelemetry has it.
    pub(super) fn endpoint(&self) -> Result<Option<String>, Error> {
        let Some(text) = self.otlp_endpoint.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let mut url =
            Url::parse(text).map_err(|_| Error::Endpoint("is no URL, such as http://127.0.0.1:4318"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::Endpoint("is no URL with http:// or https://: OTLP is spoken over HTTP here"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::Endpoint("holds a password: that belongs into OTEL_EXPORTER_OTLP_HEADERS"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Error::Endpoint("holds more than a path: /v1/traces could not be put behind it"));
        }
        let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Ok(Some(url.into()))
    }
}

/// Whether what is sent there can be read on the way: it leaves this machine, or its Pod, without TLS.
pub(super) fn is_in_clear(endpoint: &str) -> bool {
    let Ok(url) = Url::parse(endpoint) else { return false };
    let stays = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "http" && !stays
}

fn ratio(text: &str) -> Result<f64, &'static str> {
    // An empty variable is as none, here too.
    let ratio = if text.is_empty() { Some(1.0) } else { text.parse().ok() };
    let ratio = ratio.filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or("it is a number from 0 to 1")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Result<Options, clap::Error> {
        Program::try_parse_from(["postrider"].iter().chain(arguments)).map(|program| program.options)
    }

    fn endpoint(text: &str) -> Result<Option<String>, Error> {
        options(&["--otlp-endpoint", text]).unwrap().endpoint()
    }

    #[test]
    fn spans_go_to_the_path_of_traces() {
        for (text, is) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://[::1]:4318/", "http://[::1]:4318/v1/traces"),
            ("https://otel.example/postrider/", "https://otel.example/postrider/v1/traces"),
        ] {
            assert_eq!(endpoint(text).unwrap().as_deref(), Some(is));
        }
        assert!(endpoint("").unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_one_is_told_with_the_flag_and_not_quoted() {
        for text in
            ["collector", "grpc://s3cret:4317", "http://me:s3cret@h", "http://h/?s3cret", "http://h/#s3cret"]
        {
            let error = endpoint(text).unwrap_err().to_string();
            assert!(error.starts_with("--otlp-endpoint") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn what_leaves_without_tls_can_be_read() {
        for (endpoint, clear) in [
            ("http://otel.example:4318/v1/traces", true),
            ("http://10.0.0.1/v1/traces", true),
            ("http://127.0.0.1:4318/v1/traces", false),
            ("http://[::1]:4318/v1/traces", false),
            ("http://localhost/v1/traces", false),
            ("https://otel.example/v1/traces", false),
        ] {
            assert_eq!(is_in_clear(endpoint), clear, "{endpoint}");
        }
    }

    #[test]
    fn a_ratio_is_a_part() {
        assert!((options(&[]).unwrap().trace_ratio - 1.0).abs() < f64::EPSILON);
        for ratio in ["", "0", "0.25", "1"] {
            assert!(options(&["--trace-ratio", ratio]).is_ok(), "{ratio}");
        }
        for ratio in ["-1", "1.5", "NaN", "all"] {
            let error = options(&[&format!("--trace-ratio={ratio}")]).unwrap_err().to_string();
            assert!(error.contains("--trace-ratio"), "{error}");
        }
    }
}
