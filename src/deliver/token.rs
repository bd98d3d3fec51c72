//! Bearer tokens of an authorization server: RFC 6749, 4.4, for one webhook.
//!
//! A token is kept until shortly before it expires. One attempt at a time fetches the next; the others go on
//! with the one that is there, or wait where there is none. A token endpoint that fails is left alone for a
//! while, whatever number of events waits. No secret, token or body of an answer is in what is told.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use http::header::HeaderValue;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use jiff::Timestamp;
use oauth2::{
    AsyncHttpClient, AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, RequestTokenError, Scope,
    TokenResponse as _, TokenUrl,
    basic::{BasicClient, BasicTokenResponse, BasicTokenType},
};
use tokio::time::{Instant, timeout_at};

use super::{
    attempt::Failure,
    client::{HttpClient, http_client, send},
};
use crate::{
    backoff::backoff,
    credentials::{ClientCredentials, bearer},
    egress::Egress,
    identity::{TlsError, Trust, client_config},
    limits,
    probe::{
        Context, Layer, Reason, Refusal, Stage,
        classify::{self, classify},
    },
};

/// The tokens of one webhook.
pub(super) struct Tokens {
    client: ClientCredentials,
    http: HttpClient,
    current: Mutex<Current>,
    /// Whoever holds it fetches.
    endpoint: tokio::sync::Mutex<Endpoint>,
}

#[derive(Default)]
struct Current {
    token: Option<Arc<Token>>,
    /// It follows one that was answered 401, and has got no better answer so far.
    suspect: bool,
}

/// What is known of the token endpoint.
#[derive(Default)]
struct Endpoint {
    failures: u32,
    /// What failed last, and until when it is left alone.
    failed: Option<(Failure, Timestamp)>,
}

/// A token as it is sent.
#[derive(Debug)]
pub(super) struct Token {
    header: HeaderValue,
    fetched_at: Timestamp,
    refreshed_from: Timestamp,
    expires_at: Timestamp,
}

impl Tokens {
    /// The token endpoint has to be one of those whom the webhook trusts.
    pub(super) fn new(client: ClientCredentials, trust: &Trust, egress: &Egress) -> Result<Self, TlsError> {
        // As every other, and without a certificate.
        let http = http_client(client_config(None, trust)?, egress);
        Ok(Self { client, http, current: Mutex::default(), endpoint: tokio::sync::Mutex::default() })
    }

    /// A token that may be sent now.
    pub(super) async fn get(&self, now: Timestamp) -> Result<Arc<Token>, Failure> {
        let valid = match self.current().token.clone().filter(|token| now < token.expires_at) {
            Some(token) if now < token.refreshed_from => return Ok(token),
            valid => valid,
        };
        let mut endpoint = match (self.endpoint.try_lock(), &valid) {
            (Ok(endpoint), _) => endpoint,
            // Somebody else is at it.
            (Err(_), Some(token)) => return Ok(Arc::clone(token)),
            (Err(_), None) => self.endpoint.lock().await,
        };
        // Who waited may have been waiting for just this one.
        if let Some(token) = self.current().token.clone().filter(|token| now < token.refreshed_from) {
            return Ok(token);
        }
        match self.ask(&mut endpoint, now).await {
            Ok(token) => Ok(token),
            // The one that is there is still good.
            Err(failure) => valid.ok_or(failure),
        }
    }

    /// The endpoint answered 401 to this token: whether another attempt, with another token, is worth it.
    pub(super) fn refused(&self, token: &Arc<Token>, now: Timestamp) -> bool {
        let mut current = self.current();
        if current.token.as_ref().is_none_or(|is| !Arc::ptr_eq(is, token)) {
            return true;
        }
        let kept_until = token.fetched_at.checked_add(limits::TOKEN_KEPT_IN_SPITE_OF_401).unwrap_or(now);
        // A second token fared no better: what the endpoint dislikes is something else.
        if current.suspect && now < kept_until {
            return false;
        }
        *current = Current { token: None, suspect: true };
        true
    }

    /// The endpoint answered something else to this token.
    pub(super) fn taken(&self, token: &Arc<Token>) {
        let mut current = self.current();
        if current.token.as_ref().is_some_and(|is| Arc::ptr_eq(is, token)) {
            current.suspect = false;
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the token endpoint, unless it has failed a moment ago.
    async fn ask(&self, endpoint: &mut Endpoint, now: Timestamp) -> Result<Arc<Token>, Failure> {
        if let Some((failure, until)) = endpoint.failed.as_ref().filter(|(_, until)| now < *until) {
            let left = Duration::try_from(until.duration_since(now)).unwrap_or_default();
            return Err(Failure { retry_after: Some(left), ..failure.clone() });
        }
        match self.fetch(now).await {
            Ok(token) => {
                *endpoint = Endpoint::default();
                let token = Arc::new(token);
                self.current().token = Some(Arc::clone(&token));
                Ok(token)
            }
            Err(failure) => {
                endpoint.failures = endpoint.failures.saturating_add(1);
                let (first, longest) = limits::TOKEN_RETRY;
                let pause = backoff(first, longest, endpoint.failures);
                let until = now.checked_add(pause).unwrap_or(now);
                endpoint.failed = Some((failure.clone(), until));
                Err(Failure { retry_after: Some(pause), ..failure })
            }
        }
    }

    async fn fetch(&self, now: Timestamp) -> Result<Token, Failure> {
        let ClientCredentials { token_url, client_id, client_secret, scopes, audience, in_body } =
            &self.client;
        let auth_type = if *in_body { AuthType::RequestBody } else { AuthType::BasicAuth };
        let client = BasicClient::new(ClientId::new(client_id.clone()))
            .set_client_secret(ClientSecret::new(client_secret.clone()))
            .set_token_uri(TokenUrl::from_url(token_url.clone()))
            .set_auth_type(auth_type);
        let mut request = client
            .exchange_client_credentials()
            .add_scopes(scopes.iter().map(|scope| Scope::new(scope.clone())));
        if let Some(audience) = audience {
            request = request.add_extra_param("audience", audience);
        }
        let http = Http { client: self.http.clone(), status: AtomicU16::new(0) };
        let response = request.request_async(&http).await;
        let response = response.map_err(|error| self.failure(error, http.status.load(Ordering::Relaxed)))?;
        Token::new(&response, now)
    }

    fn failure(
        &self,
        error: RequestTokenError<NoAnswer, oauth2::basic::BasicErrorResponse>,
        status: u16,
    ) -> Failure {
        match error {
            RequestTokenError::Request(NoAnswer(layer, reason)) => failed(
                Reason::TokenEndpointUnreachable,
                format!(
                    "no answer of the token endpoint: {layer}, {reason}; check tokenURL, and endpoint.trust, which \
                     says who its server may be"
                ),
            ),
            RequestTokenError::ServerResponse(said) => {
                let code = said.error().to_string();
                let code = if self.may_be_told(&code) { &code } else { "an error code that is not told" };
                refused(&format!("HTTP {status}, {code}"))
            }
            RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
                refused(&format!("HTTP {status}, and no JSON as in RFC 6749, section 5"))
            }
        }
    }

    /// The codes of the RFCs are like this; another one might repeat what it was told.
    fn may_be_told(&self, code: &str) -> bool {
        code.len() <= limits::TOKEN_ERROR_CHARACTERS
            && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            && !code.contains(&self.client.client_secret)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Token {
    fn new(response: &BasicTokenResponse, now: Timestamp) -> Result<Self, Failure> {
        if *response.token_type() != BasicTokenType::Bearer {
            return Err(refused("its token is of another type than Bearer"));
        }
        let header = bearer(response.access_token().secret().as_bytes())
            .map_err(|error| refused(&format!("its token cannot be sent: {error}")))?;
        // One that expires at once would be fetched anew for each event.
        let life = response.expires_in().unwrap_or(limits::TOKEN_LIFE).max(limits::TOKEN_LIFE_LEAST);
        let early = limits::TOKEN_REFRESHED_BEFORE_EXPIRY.min(life / 5);
        let after = |time: Duration| now.checked_add(time).unwrap_or(Timestamp::MAX);
        Ok(Self {
            header,
            fetched_at: now,
            refreshed_from: after(life.saturating_sub(early)),
            expires_at: after(life),
        })
    }

    /// The value of Authorization.
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

/// There was no answer: where, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}: {1}")]
struct NoAnswer(Layer, Reason);

impl NoAnswer {
    fn because(error: &(dyn std::error::Error + 'static)) -> Self {
        let context = Context { presented: false, requested: None, stage: Stage::Request };
        let classify::Failure { layer, reason, .. } = classify(error, context);
        Self(layer, reason)
    }
}

/// What the library sends its request with.
struct Http {
    client: HttpClient,
    /// What was answered: the library does not tell.
    status: AtomicU16,
}

impl<'a> AsyncHttpClient<'a> for Http {
    type Error = NoAnswer;
    type Future = BoxFuture<'a, Result<HttpResponse, NoAnswer>>;

    fn call(&'a self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

impl Http {
    async fn send(&self, mut request: HttpRequest) -> Result<HttpResponse, NoAnswer> {
        request.headers_mut().values_mut().for_each(|value| value.set_sensitive(true));
        let deadline = Instant::now() + limits::TOKEN_TIMEOUT;
        let request = request.map(|body| Full::new(body.into()));
        let response = match timeout_at(deadline, send(&self.client, request)).await {
            Ok(response) => response.map_err(|error| NoAnswer::because(&error))?,
            Err(late) => return Err(NoAnswer::because(&late)),
        };
        self.status.store(response.status().as_u16(), Ordering::Relaxed);
        let (head, body) = response.into_parts();
        let body = timeout_at(deadline, Limited::new(body, limits::TOKEN_RESPONSE_BYTES).collect()).await;
        match body {
            Ok(Ok(body)) => Ok(HttpResponse::from_parts(head, body.to_bytes().into())),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                Err(NoAnswer(Layer::Http, Reason::HttpFailed))
            }
            Ok(Err(error)) => Err(NoAnswer::because(&*error)),
            Err(late) => Err(NoAnswer::because(&late)),
        }
    }
}

fn refused(what: &str) -> Failure {
    failed(Reason::TokenRefused, format!("the token endpoint gave no token: {what}"))
}

fn failed(reason: Reason, message: String) -> Failure {
    let (layer, refusal) = (Layer::Authorization, Refusal::No);
    Failure { layer, reason, refusal, message, retry_after: None, response: None }
}

#[cfg(test)]
mod tests;
