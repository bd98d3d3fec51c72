//! Servers that refuse a client certificate in HTTP: nginx, and those that answer 403. Pure.

use http::header::{CONTENT_LENGTH, HeaderMap, SERVER};

use super::{
    classify::{Context, Failure, Refusal},
    reason::{Layer, Reason},
};

/// nginx's own statuses; it sends them only where an `error_page` names them, else they become 400.
const NGINX_BAD: u16 = 495;
const NGINX_MISSING: u16 = 496;

/// What nginx's pages say, and their length without the server's name at their foot.
const BAD: (&[u8], u64) = (b"The SSL certificate error", 203);
const MISSING: (&[u8], u64) = (b"No required SSL certificate was sent", 225);

/// The parts of a response that tell a refusal.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The first bytes of the body; empty after HEAD.
    pub body: &'a [u8],
}

/// What nginx says of the client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nginx {
    Bad,
    Missing,
}

/// Whether a response refuses the client certificate. Any other response, whatever its status, shows that
/// the server talks HTTP with this client.
pub fn refused(answer: &Answer<'_>, context: Context) -> Option<Failure> {
    let asked = context.requested != Some(false);
    if let Some(nginx) = nginx(answer).filter(|_| asked) {
        return Some(of_nginx(nginx, answer.status, context.presented));
    }
    if answer.status != 403 || !context.presented {
        return None;
    }
    let message = if asked {
        "HTTP 403 from a server that asks for a client certificate: it may not know this one, or it forbids the \
         request for another reason; its log tells"
    } else {
        "HTTP 403, and the server did not ask for a client certificate in the handshake: one that asks only \
         after it has read the request (Apache, per location) ends like this, and has to ask in the handshake"
    };
    // With another certificate the same server would not ask either.
    let refusal = if asked { Refusal::Possible } else { Refusal::No };
    Some(Failure::new(Layer::Http, Reason::HttpStatus, message).refusal(refusal))
}

fn of_nginx(nginx: Nginx, status: u16, presented: bool) -> Failure {
    let said = match nginx {
        Nginx::Bad => "The SSL certificate error",
        Nginx::Missing => "No required SSL certificate was sent",
    };
    if !presented {
        return Failure::new(
            Layer::TlsClient,
            Reason::ClientCertificateRequired,
            format!("HTTP {status}, \"{said}\": the server wants a client certificate; set mtls.active"),
        );
    }
    Failure::new(
        Layer::TlsClient,
        Reason::ClientCertificateRejected,
        format!(
            "the server refused the client certificate with HTTP {status}, \"{said}\". nginx does not say why; \
             its error log does. See that it trusts the certificate's issuer (ssl_client_certificate) and that \
             ssl_verify_depth covers the chain"
        ),
    )
    .refusal(Refusal::Certain)
}

fn nginx(answer: &Answer<'_>) -> Option<Nginx> {
    match answer.status {
        NGINX_BAD => return Some(Nginx::Bad),
        NGINX_MISSING => return Some(Nginx::Missing),
        400 => {}
        _ => return None,
    }
    let says = |page: (&[u8], u64)| {
        contains(answer.body, page.0) || (answer.body.is_empty() && has_length_of(answer.headers, page.1))
    };
    if says(BAD) {
        Some(Nginx::Bad)
    } else if says(MISSING) {
        Some(Nginx::Missing)
    } else {
        None
    }
}

/// The answer to HEAD has no page, but the page's length, and the one part of the page that varies is the
/// value of `Server`.
fn has_length_of(headers: &HeaderMap, length: u64) -> bool {
    let server = headers.get(SERVER).map(|value| value.len() as u64);
    let sent = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    matches!((server, sent), (Some(server), Some(sent)) if sent == length + server)
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;
    use crate::probe::classify::Stage;

    const PRESENTED: Context = Context { presented: true, requested: Some(true), stage: Stage::Request };

    fn headers(server: &'static str, length: u64) -> HeaderMap {
        HeaderMap::from_iter([
            (SERVER, HeaderValue::from_static(server)),
            (CONTENT_LENGTH, HeaderValue::from(length)),
        ])
    }

    fn judged(status: u16, headers: &HeaderMap, body: &[u8], context: Context) -> Option<(Reason, Refusal)> {
        let failure = refused(&Answer { status, headers, body }, context)?;
        Some((failure.reason, failure.refusal))
    }

    #[test]
    fn nginx_is_recognised_by_its_page_its_statuses_and_the_length_of_its_page() {
        let rejected = Some((Reason::ClientCertificateRejected, Refusal::Certain));
        let none = HeaderMap::new();
        for (status, headers, body) in [
            (400, &none, "<center>The SSL certificate error</center>"),
            (400, &none, "<center>No required SSL certificate was sent</center>"),
            (495, &none, ""),
            (496, &none, ""),
            // As measured: nginx 1.22.1 with and without server_tokens.
            (400, &headers("nginx/1.22.1", 215), ""),
            (400, &headers("nginx", 208), ""),
            (400, &headers("nginx/1.22.1", 237), ""),
            (400, &headers("nginx", 230), ""),
        ] {
            assert_eq!(judged(status, headers, body.as_bytes(), PRESENTED), rejected, "{status} {body}");
        }
    }

    #[test]
    fn other_answers_are_answers() {
        let none = HeaderMap::new();
        for status in [200, 204, 301, 400, 401, 404, 405, 500, 503] {
            assert_eq!(judged(status, &none, b"Bad Request", PRESENTED), None, "{status}");
        }
        assert_eq!(judged(400, &headers("nginx/1.22.1", 157), b"", PRESENTED), None);
        let not_asked = Context { requested: Some(false), ..PRESENTED };
        assert_eq!(judged(400, &none, b"The SSL certificate error", not_asked), None);
    }

    #[test]
    fn a_403_to_a_client_with_a_certificate_is_told() {
        let none = HeaderMap::new();
        let status = |refusal| Some((Reason::HttpStatus, refusal));
        let not_asked = Context { requested: Some(false), ..PRESENTED };
        let without = Context { presented: false, ..PRESENTED };
        assert_eq!(judged(403, &none, b"", PRESENTED), status(Refusal::Possible));
        assert_eq!(judged(403, &none, b"", not_asked), status(Refusal::No));
        assert_eq!(judged(403, &none, b"", without), None);
    }

    #[test]
    fn without_a_certificate_it_is_required_and_not_rejected() {
        let without = Context { presented: false, ..PRESENTED };
        let page = b"No required SSL certificate was sent";
        let required = Some((Reason::ClientCertificateRequired, Refusal::No));
        assert_eq!(judged(400, &HeaderMap::new(), page, without), required);
    }
}
