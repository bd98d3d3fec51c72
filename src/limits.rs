//! Every bound of the program, named with its unit. Nothing here imports anything.

use std::{num::NonZeroU32, time::Duration};

// --- Keystores -----------------------------------------------------------------------------------

/// Size of a keystore file, bytes. A Secret holds at most 1 MiB; a real keystore holds a few KiB.
pub const KEYSTORE_BYTES: usize = 128 * 1024;
/// Size of a password, bytes.
pub const PASSWORD_BYTES: usize = 4096;
/// Nesting of BER values.
pub const BER_DEPTH: usize = 24;
/// Iterations of one key derivation; a fuzzer is not to spend its time on them.
pub const KDF_ITERATIONS: u64 = if cfg!(fuzzing) { 3_000 } else { 1_000_000 };
/// Iterations of all key derivations of one file together. GnuTLS and NSS derive four times at 600,000.
pub const KDF_ITERATIONS_TOTAL: u64 = 4_000_000;
/// Work of all key derivations of one file together, in blocks of SHA-256 (or what takes as long): the
/// digests differ by a factor of seven, and one iteration may be several blocks. NSS needs this much for
/// a store with SHA-512; it takes about a second.
pub const KDF_STEPS_TOTAL: u64 = if cfg!(fuzzing) { 50_000 } else { 12_000_000 };
/// Memory of one scrypt derivation, bytes.
pub const SCRYPT_BYTES: u64 = if cfg!(fuzzing) { 64 * 1024 } else { 32 * 1024 * 1024 };
/// Parallelism of one scrypt derivation.
pub const SCRYPT_PARALLELISM: u64 = 2;
/// Private keys in one keystore.
pub const KEYSTORE_KEYS: usize = 16;
/// Certificates in one keystore.
pub const KEYSTORE_CERTIFICATES: usize = 64;
/// Length of a chain, leaf included.
pub const CHAIN_LENGTH: usize = 10;
/// Signatures verified to order one chain.
pub const CHAIN_SIGNATURES: usize = 32;
/// A name out of a certificate or a keystore, characters; what is longer is cut.
pub const NAME_CHARACTERS: usize = 1024;
/// Keystores opened at one time, so that a slow one leaves a core to the others.
pub const KEYSTORES_AT_ONCE: usize = 2;
/// Modulus of an RSA key, bits, at least.
pub const RSA_BITS: usize = 2048;
/// Modulus of an RSA key, bits, at most: what the TLS library signs with.
pub const RSA_BITS_AT_MOST: usize = 8192;
/// Below this lifetime left, or the last quarter of a shorter life, a certificate is said to expire soon.
pub const EXPIRING_SOON: Duration = Duration::from_hours(30 * 24);

// --- Events --------------------------------------------------------------------------------------

/// Body of one event, bytes.
pub const EVENT_BYTES: usize = 1024 * 1024;
/// Attributes of one event, names and values together, bytes.
pub const EVENT_ATTRIBUTE_BYTES: usize = 16 * 1024;
/// Attributes of one event.
pub const EVENT_ATTRIBUTES: usize = 64;
/// A traceparent, bytes: what is known of it has 55, and a later version may add to them.
pub const TRACEPARENT_BYTES: usize = 128;
/// A tracestate, bytes: what everybody is to pass on. A longer one is not.
pub const TRACESTATE_BYTES: usize = 512;
/// Its members, as the recommendation has it.
pub const TRACESTATE_MEMBERS: usize = 32;
/// Events of one batch.
pub const BATCH_EVENTS: usize = 1000;
/// Events that one request for all webhooks of a namespace comes to.
pub const FAN_OUT_EVENTS: usize = 10_000;
/// Their attributes and bodies, bytes, each as often as it is stored.
pub const FAN_OUT_BYTES: usize = 32 * 1024 * 1024;

// --- The queue -----------------------------------------------------------------------------------

/// Events of one webhook that wait; one more is answered 429.
pub const PENDING_EVENTS: i64 = 1_000_000;
/// Bodies and attributes of the events of one webhook that wait, bytes; what does not fit is answered 429.
pub const PENDING_BYTES: i64 = 1024 * 1024 * 1024;
/// Events of all webhooks that wait; one more is answered 429.
pub const PENDING_EVENTS_IN_ALL: i64 = 10_000_000;
/// Events of one webhook that were given up; the oldest makes room for the next.
pub const DEAD_EVENTS: i64 = 10_000;
/// Their bodies and attributes, bytes.
pub const DEAD_BYTES: i64 = 256 * 1024 * 1024;
/// Size of the queue's file, bytes; an event that does not fit is answered 429.
pub const QUEUE_BYTES: i64 = 8 * 1024 * 1024 * 1024;
/// Requests to the queue's writer that wait for it.
pub const QUEUE_REQUESTS: usize = 1024;
/// Requests that share one commit.
pub const QUEUE_BATCH: usize = 256;
/// Events of the requests that share one commit, and their attributes and bodies, bytes: nobody waits long for what
/// others send at one time. The first request is written whatever it holds.
pub const QUEUE_BATCH_EVENTS: usize = 2000;
/// See [`QUEUE_BATCH_EVENTS`].
pub const QUEUE_BATCH_BYTES: usize = 16 * 1024 * 1024;
/// Events of one webhook that have been attempted, and what became of them is not on disk yet; no attempt begins
/// beyond that.
pub const SETTLING_EVENTS: usize = 256;
/// So many requests at one time are a crowd, and more are about to come.
pub const QUEUE_CROWD: usize = 4;
/// How long a crowd waits for more to share its commit.
pub const QUEUE_GATHER: Duration = Duration::from_millis(1);
/// Events that are claimed, or dead letters that are listed, at one time.
pub const CLAIM_EVENTS: usize = 64;
/// Their bodies, bytes; the first event is read whatever its size.
pub const CLAIM_BYTES: usize = 1024 * 1024;
/// Dead letters that are named one by one in a request.
pub const DEAD_IDS: usize = 100;
/// How long an event that was given up is kept.
pub const DEAD_KEPT: Duration = Duration::from_hours(30 * 24);
/// How long the events of a deleted webhook wait for its return, unless the dispatcher is told otherwise; as jiff
/// reads it.
pub const DELETED_RETENTION: &str = "1h";
/// Events of deleted webhooks, or that were given up long ago, which are dropped in one commit.
pub const EXPIRED_AT_ONCE: usize = 1000;
/// Between two looks for what has expired.
pub const EXPIRY: Duration = Duration::from_mins(1);
/// What is kept of the last response to an event that was given up, bytes.
pub const DEAD_RESPONSE_BYTES: usize = 1024;
/// How long an event with the same source and id is taken for the same.
pub const SEEN: Duration = Duration::from_mins(10);
/// So many of those that were taken last are remembered for it, of all webhooks: an index of them is in memory,
/// with some 20 bytes each.
pub const SEEN_EVENTS: usize = 450_000;
/// Time that SQLite waits for a lock of its own file (a checkpoint, a person with `sqlite3`).
pub const QUEUE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages of 4 KiB in the write-ahead log that call for a checkpoint.
pub const WAL_PAGES: i64 = 4000;
/// Size to which a log that grew larger is cut when it begins anew, bytes.
pub const WAL_BYTES: i64 = 64 * 1024 * 1024;
/// Where less is free on the queue's volume, bytes, the log is moved to the file and cut after each commit.
pub const VOLUME_LOW_BYTES: i64 = 64 * 1024 * 1024;
/// What is kept free on the volume so that what leaves can be recorded, bytes; an event that does not fit beside it is
/// answered 507.
pub const VOLUME_KEPT_BYTES: i64 = 4 * 1024 * 1024;
/// Delay before a queue that failed is asked again.
pub const QUEUE_RETRY: Duration = Duration::from_secs(1);

// --- Ingest --------------------------------------------------------------------------------------

/// Connections of senders, in all and of one peer, which is an IP address. Where there is no place left in all, the
/// peer that has the most gives one up.
pub const INGEST_CONNECTIONS: (usize, usize) = (4096, 512);
/// TLS handshakes under way, in all and of one peer; one more is closed.
pub const INGEST_HANDSHAKES: (usize, usize) = (2048, 256);
/// Requests under way, in all and of one peer: one more is answered 503, or 429.
pub const INGEST_REQUESTS: (usize, usize) = (4096, 512);
/// What has come of the bodies of requests under way, bytes, in all and of one peer: what does not fit is answered
/// 503, or 429.
pub const INGEST_BODY_BYTES: (usize, usize) = (256 * 1024 * 1024, 64 * 1024 * 1024);
/// Time for a body to come, and longest pause in it; past them it is answered 408.
pub const INGEST_BODY: Duration = Duration::from_secs(30);
/// See [`INGEST_BODY`].
pub const INGEST_BODY_PAUSE: Duration = Duration::from_secs(10);
/// Time for our answer once the body is there; past it 503 is the answer.
pub const INGEST_ANSWER: Duration = Duration::from_secs(30);
/// What a sender is told to wait when the queue is full, or a bound is exceeded, seconds.
pub const INGEST_RETRY_AFTER_SECONDS: u64 = 5;
/// Length of a namespace's name (a label, RFC 1123), bytes.
pub const LABEL_BYTES: usize = 63;
/// Length of a webhook's name (labels with dots between them), bytes: what its CustomResourceDefinition takes.
pub const NAME_BYTES: usize = 230;
/// Between two looks at a serving certificate that cannot be used: it may have become valid.
pub const CERTIFICATE_LOOK: Duration = Duration::from_secs(10);

// --- Every HTTP server ---------------------------------------------------------------------------

/// Time for a TLS handshake.
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for the head of a request: from the opening of the connection, or from its first byte.
pub const HTTP_HEAD: Duration = Duration::from_secs(10);
/// Time after which a connection without requests is closed. Those of senders' own pools close sooner as a rule (Go:
/// 90 s), and so are not closed while a request is on its way.
pub const HTTP_IDLE: Duration = Duration::from_mins(2);
/// Time from the head of a request to the last byte of its answer that is taken: a sender that does not read is no
/// longer waited for.
pub const HTTP_EXCHANGE: Duration = Duration::from_secs(75);
/// Time for the sender to take what is left of an answer once its connection has been told to end.
pub const HTTP_LAST: Duration = Duration::from_secs(5);
/// Between two looks at these times.
pub const HTTP_LOOK: Duration = Duration::from_secs(1);
/// Head of a request, bytes: more than the attributes of an event may have, and a token.
pub const HTTP_HEAD_BYTES: u32 = 32 * 1024;
/// Headers of a request.
pub const HTTP_HEADERS: usize = 128;
/// Path and query of a request, bytes.
pub const HTTP_TARGET_BYTES: usize = 8 * 1024;
/// What is read ahead of a connection, or waits to be written to it, bytes.
pub const HTTP_BUFFER_BYTES: usize = 64 * 1024;
/// Requests under way on one HTTP/2 connection.
pub const HTTP2_STREAMS: u32 = 128;
/// What may be on its way of one body and of all bodies on one HTTP/2 connection, bytes.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// See [`HTTP2_STREAM_WINDOW_BYTES`].
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Streams of one HTTP/2 connection that were reset and not yet forgotten, by the sender or because of it: one more
/// ends the connection (rapid reset, CVE-2023-44487).
pub const HTTP2_RESET_STREAMS: usize = 64;
/// Between two pings on an HTTP/2 connection.
pub const HTTP2_PING: Duration = Duration::from_secs(30);
/// Time for a ping to be answered.
pub const HTTP2_PONG: Duration = Duration::from_secs(10);
/// Delay after a connection could not be accepted.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Connections that are closed because of a bound are told of once in this time.
pub const CLOSED_TOLD: Duration = Duration::from_secs(10);

// --- Health --------------------------------------------------------------------------------------

/// Connections to the address where health and metrics are told, in all and of one peer; requests likewise.
pub const HEALTH_CONNECTIONS: (usize, usize) = (128, 64);
/// Time for one check: a kubelet waits a second for all of them, if it is not told otherwise.
pub const HEALTH_CHECK: Duration = Duration::from_millis(800);
/// A queue that has written something so recently is known to be writable; otherwise it has to show it.
pub const QUEUE_PROVEN: Duration = Duration::from_secs(10);

// --- Metrics -------------------------------------------------------------------------------------

/// Webhooks that have series of their own. Each has some ten of them in the dispatcher, and up to eleven in the
/// controller, about 150 bytes each when they are told.
pub const METRICS_WEBHOOKS: usize = 2000;
/// Scrapes that are answered at a time, of all peers; others get 503.
pub const METRICS_SCRAPES: usize = 4;
/// Part of an answer, the next of which is made once it has been taken.
pub const METRICS_PART_BYTES: usize = 64 * 1024;
/// Between two looks at what waits longest.
pub const METRICS_LOOK: Duration = Duration::from_secs(15);
/// Of the events of a webhook that are due first, so many are looked at for the oldest. One that has never been tried
/// is due since it was taken; where more than these wait for another attempt, a younger one may be told of.
pub const METRICS_OLDEST_EVENTS: usize = 16;
/// Upper bounds of the buckets of attempts, seconds: an attempt takes a minute at most.
pub const METRICS_ATTEMPT_SECONDS: [f64; 12] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// Of the time from the acceptance of an event to its delivery, seconds: as long as an event is tried.
pub const METRICS_END_TO_END_SECONDS: [f64; 15] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 120.0, 300.0, 3_600.0, 21_600.0, 86_400.0];
/// Of a commit of the queue, seconds.
pub const METRICS_COMMIT_SECONDS: [f64; 11] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];
/// Of a reconcile, seconds: it has a minute.
pub const METRICS_RECONCILE_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

// --- Who may send --------------------------------------------------------------------------------

/// A bearer token, bytes. A ServiceAccount's has about one KiB, one with many groups in it a few.
pub const TOKEN_BYTES: usize = 8 * 1024;
/// How long a grant counts, of a token or of a right; a token's own end may come earlier. What was taken back goes on
/// for so long at most.
pub const GRANT: Duration = Duration::from_mins(1);
/// How long a refusal counts. Who has just been given a right waits for so long at most.
pub const REFUSAL: Duration = Duration::from_secs(10);
/// Tokens whose review is remembered.
pub const REVIEWED_TOKENS: u64 = 10_000;
/// Rights whose review is remembered, of all tokens together.
pub const REVIEWED_RIGHTS: u64 = 20_000;
/// Reviews at the API server at one time, of those who have been granted nothing before; and as many of those who
/// have, so that a flood of tokens holds nobody up who is known.
pub const REVIEWS_AT_ONCE: usize = 16;
/// Reviews that are under way or wait for it, likewise; one more is answered 503.
pub const REVIEWS: usize = 256;
/// Time of one review, waiting for its turn included.
pub const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// The API server's answer to a review, bytes.
pub const REVIEW_BYTES: usize = 1024 * 1024;
/// What a sender is told to wait when there are too many reviews, seconds.
pub const REVIEWS_RETRY_AFTER_SECONDS: u64 = 1;
/// Requests of one sender (a user of the cluster) in a second, unless an option says otherwise; one more is
/// answered 429.
pub const SENDER_RATE: NonZeroU32 = NonZeroU32::new(1000).unwrap();
/// Senders whose rates are measured at one time; one more is answered 429.
pub const SENDERS: usize = 10_000;

// --- Deliveries ----------------------------------------------------------------------------------

/// Time to connect, TLS handshake included, within the time of the attempt.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which an idle connection is closed.
pub const IDLE_CONNECTION: Duration = Duration::from_secs(90);
/// Idle connections of one webhook and identity.
pub const IDLE_CONNECTIONS: usize = 32;
/// TLS sessions that are kept of one webhook and identity: what a server gives out to one client.
pub const TLS_SESSIONS: usize = 8;
/// What is read of a response's body so that its connection can be used again, bytes.
pub const RESPONSE_BYTES: usize = 64 * 1024;
/// Failures in a row after which an endpoint is left alone but for single trials.
pub const ENDPOINT_FAILURES: u32 = 10;
/// Longest time between two trials; the webhook's longest retry delay may be shorter.
pub const ENDPOINT_TRIAL: Duration = Duration::from_mins(1);
/// Longest `Retry-After` that is obeyed.
pub const RETRY_AFTER: Duration = Duration::from_hours(1);
/// Certificates in a CA bundle.
pub const TRUST_CERTIFICATES: usize = 512;
/// Size of a CA bundle, bytes: it shares a Secret of at most 1 MiB with the identities.
pub const TRUST_BYTES: usize = 512 * 1024;

// --- What may be dialled -------------------------------------------------------------------------

/// Ranges of addresses that an administrator allows, and again that are denied.
pub const EGRESS_RANGES: usize = 256;
/// Addresses of one name that are looked at; the system's order of preference counts.
pub const EGRESS_ADDRESSES: usize = 16;
/// Time for a name to be resolved.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to resolve a name and connect, TLS not included: within that of [`CONNECT_TIMEOUT`], so that what came of
/// each address can be told.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(8);
/// Names that are looked up at one time, each by a thread of its own; the next one waits.
pub const LOOKUPS_AT_ONCE: usize = 64;
/// An address that has not answered for so long gets company by the next: RFC 8305, 5.
pub const DIAL_NEXT: Duration = Duration::from_millis(250);
/// Time to reach a proxy, TLS included; what it then does for us has the time of the attempt.
pub const PROXY_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Head of a proxy's answer, bytes.
pub const PROXY_HEAD_BYTES: usize = 16 * 1024;
/// Length of the URL of a proxy, bytes.
pub const PROXY_URL_BYTES: usize = 4096;

// --- Headers, authorization, signature -----------------------------------------------------------

/// Value of one header, bytes. A token in it may have a few KiB; servers take 8 KiB as a rule.
pub const HEADER_VALUE_BYTES: usize = 8 * 1024;
/// Headers of one webhook, names and values together, bytes.
pub const HEADERS_BYTES: usize = 32 * 1024;
/// A client's id or secret, bytes.
pub const CLIENT_CREDENTIAL_BYTES: usize = 4096;
/// A secret that signs, bytes, least and most: Standard Webhooks.
pub const SIGNING_SECRET_BYTES: (usize, usize) = (24, 64);
/// Time for a token endpoint to answer; it is beside the time of the attempt.
pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Body of a token endpoint's answer, bytes.
pub const TOKEN_RESPONSE_BYTES: usize = 64 * 1024;
/// A token is fetched anew so long before it expires, or in the last fifth of a shorter life.
pub const TOKEN_REFRESHED_BEFORE_EXPIRY: Duration = Duration::from_mins(1);
/// How long a token is used of which the token endpoint does not say when it expires.
pub const TOKEN_LIFE: Duration = Duration::from_hours(1);
/// How long a token is used at least, whatever the token endpoint says of it.
pub const TOKEN_LIFE_LEAST: Duration = Duration::from_secs(1);
/// Delay before a token endpoint that failed is asked again: first and longest.
pub const TOKEN_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// A token that followed one that the endpoint had answered 401, and got no better answer, stays for this time.
pub const TOKEN_KEPT_IN_SPITE_OF_401: Duration = Duration::from_mins(1);
/// Length of the error code of a token endpoint, characters.
pub const TOKEN_ERROR_CHARACTERS: usize = 64;

// --- The connection test ------------------------------------------------------------------------

/// Time of the first read after a handshake. In TLS 1.3 a server refuses a certificate after the client's
/// handshake is complete: one round trip, and its own time to look at the certificate. Least and longest.
pub const PROBE_FIRST_READ: (Duration, Duration) = (Duration::from_millis(750), Duration::from_secs(5));
/// Within these, the first read takes as many times as long as the handshake took: far and slow servers need
/// as long again to refuse.
pub const PROBE_FIRST_READ_HANDSHAKES: u32 = 3;
/// Names of authorities that are kept of a server's list.
pub const PROBE_AUTHORITIES: usize = 32;
/// Certificates that are kept of a server's chain.
pub const PROBE_CHAIN: usize = 10;
/// Length of a name that a server sent, characters.
pub const PROBE_NAME_CHARACTERS: usize = 256;
/// Names that a server sent, in one message to a person.
pub const PROBE_NAMES_TOLD: usize = 5;
/// Head of a response, bytes.
pub const PROBE_HEAD_BYTES: usize = 64 * 1024;
/// What is read of a response's body to recognise a refusal, bytes: nginx's page has under 300.
pub const PROBE_BODY_BYTES: usize = 4 * 1024;
/// Errors below an error that are looked at.
pub const ERROR_SOURCES: usize = 16;

// --- Rotation ------------------------------------------------------------------------------------

/// A New is promoted even without a test so long before the Active expires, or in the last tenth of a
/// shorter life.
pub const PROMOTED_UNTESTED_BEFORE_EXPIRY: Duration = Duration::from_hours(1);
/// Days before the expiry of the certificate in use at which a person is reminded of it; negative are days after it.
pub const REMINDERS: [i64; 9] = [60, 30, 15, 7, 3, 2, 1, -1, -7];
/// Delay before a failed test is repeated: first and longest.
pub const TEST_RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));
/// Connection tests under way at one time.
pub const TESTS_AT_ONCE: usize = 16;
/// How long the certificate that an endpoint took after it had refused another is tried first there.
pub const PREFERENCE: Duration = Duration::from_mins(5);
/// Refusals in a row that may as well have been something else, before they count as one.
pub const POSSIBLE_REFUSALS: u32 = 3;
/// How long a passed test of a New counts; then it is repeated.
pub const TEST_COUNTS: Duration = Duration::from_mins(10);
/// Length of an Event's note, bytes.
pub const EVENT_NOTE_BYTES: usize = 1024;
/// Refusals of a certificate that wait to be told; one more is dropped.
pub const REFUSALS: usize = 256;
/// Between two looks at what the status of a webhook's deliveries is to say.
pub const STATUS_LOOK: Duration = Duration::from_secs(1);
/// A webhook's status of deliveries is written once in this time.
pub const STATUS_WRITTEN: Duration = Duration::from_secs(10);
/// Statuses that are written after one look; the others wait for the next. An API server that has a thousand
/// busy webhooks has other things to do as well.
pub const STATUS_WRITES: usize = 20;
/// Statuses that are written at one time.
pub const STATUS_WRITES_AT_ONCE: usize = 8;
/// A webhook that is held for longer than this is told to be on hold: the identities for another endpoint, and the
/// first of a new webhook, are there sooner.
pub const HOLD_TOLD: Duration = Duration::from_secs(5);
/// An Event tells that the endpoint of one webhook fails once in this time, and again where it still does when the time
/// has passed: one that fails and mends every few seconds is a pair of Events each time. The condition tells at once.
pub const FAILING_TOLD: Duration = Duration::from_mins(5);
/// A refusal of one webhook's certificate is told once in this time.
pub const REFUSAL_TOLD: Duration = Duration::from_secs(10);

// --- The serving certificate --------------------------------------------------------------------

/// Life of the authority that signs serving certificates.
pub const SERVING_AUTHORITY_LIFE: Duration = Duration::from_hours(3 * 365 * 24);
/// Life of a serving certificate; it never outlives its authority.
pub const SERVING_LIFE: Duration = Duration::from_hours(90 * 24);
/// Both are valid from so long before they are made: not every sender's clock is right.
pub const SERVING_CLOCK_SKEW: Duration = Duration::from_mins(5);
/// A successor follows when this part of a life is over.
pub const SERVING_RENEWED: (i32, i32) = (2, 3);
/// A certificate of an authority that was lost waits for the new authority to be known to senders, but no longer
/// than until this part of its life is over.
pub const SERVING_KEPT: (i32, i32) = (9, 10);
/// How long an authority is published before it signs. The kubelet carries a ConfigMap into a Pod within two
/// minutes; an application that reads it only at its start has this long to be restarted.
pub const SERVING_AUTHORITY_PUBLISHED: Duration = Duration::from_hours(7 * 24);
/// Authorities that sign no more and are still published; of more, the oldest goes.
pub const SERVING_AUTHORITIES_RETIRED: usize = 4;
/// Longest wait without looking again. What is looked at is in memory: it costs no request.
pub const SERVING_LOOK: Duration = Duration::from_hours(1);
/// Writes of the objects of the serving certificate in a minute: somebody else may change them again and again.
pub const SERVING_WRITES_PER_MINUTE: u32 = 30;

// --- Kubernetes ----------------------------------------------------------------------------------

/// How long another controller waits for one that has gone without a word, seconds.
pub const LEASE_SECONDS: u64 = 15;
/// So long before it would run out the Lease is renewed, seconds.
pub const LEASE_GRACE_SECONDS: u64 = 7;
/// Time for a request of the Lease, so that one that hangs fails within the grace, and work has ended before the
/// Lease runs out.
pub const LEASE_REQUEST: Duration = Duration::from_secs(2);
/// Delay before a Lease that could not be had is asked for again: first and longest.
pub const LEASE_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Webhooks that are reconciled at one time.
pub const RECONCILES_AT_ONCE: u16 = 16;
/// Delay after a reconcile that failed because of the API server: first and longest.
pub const RECONCILE_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));
/// Delay before a watch that failed is taken up again: first and longest.
pub const WATCH_RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Time of one reconcile; past it, it is repeated.
pub const RECONCILE: Duration = Duration::from_mins(1);
/// Time to the end for all that is under way, from SIGTERM and the delay that was asked for; a Pod gets 30 s.
pub const SHUTDOWN: Duration = Duration::from_secs(25);
/// Time for senders to come to an end, within that of [`SHUTDOWN`].
pub const HTTP_DRAIN: Duration = Duration::from_secs(20);

// --- Traces --------------------------------------------------------------------------------------

/// Spans that wait to be exported; one more is dropped.
pub const SPANS: usize = 4096;
/// Spans of one request to the collector.
pub const SPANS_BATCH: usize = 512;
/// Between two exports, unless there is a whole batch before.
pub const SPANS_PAUSE: Duration = Duration::from_secs(2);
/// Time of one request to the collector, and of those that repeat it.
pub const SPANS_EXPORT: Duration = Duration::from_secs(5);
/// Time to connect to the collector.
pub const COLLECTOR_CONNECT: Duration = Duration::from_secs(2);
/// The collector's answer, bytes.
pub const COLLECTOR_ANSWER_BYTES: usize = 64 * 1024;
/// Time for the last spans to be exported, after all else has ended within [`SHUTDOWN`]; a Pod gets 30 s.
pub const SPANS_SHUTDOWN: Duration = Duration::from_secs(3);
/// Attributes of one span.
pub const SPAN_ATTRIBUTES: u32 = 32;
/// A value of one that somebody else chose, or the description of a failure, characters; what is longer is cut.
pub const SPAN_VALUE_CHARACTERS: usize = 256;

// --- kubectl postrider --------------------------------------------------------------------------

/// Time to connect to the API server, or to the dispatcher.
pub const PLUGIN_CONNECT: Duration = Duration::from_secs(5);
/// Time in which a line is completed: a person waits for it between two keys.
pub const PLUGIN_COMPLETION: Duration = Duration::from_secs(2);
/// Time of one request to the dispatcher, its answer included.
pub const PLUGIN_REQUEST: Duration = Duration::from_secs(30);
/// Objects that are listed with one request.
pub const PLUGIN_PAGE: u32 = 500;
/// Requests with which a list is read: a hundred thousand objects, where each brings a page of them.
pub const PLUGIN_PAGES: usize = 200;
/// Dead letters that are listed with one command.
pub const PLUGIN_DEAD: usize = 100_000;
/// Dead letters that are listed with one request; each may hold an event of [`EVENT_BYTES`], in base64.
pub const PLUGIN_DEAD_PAGE: usize = 16;
/// The dispatcher's answer, bytes: a page of the largest.
pub const PLUGIN_ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// A response body's first characters, where a dead letter is shown.
pub const PLUGIN_BODY_CHARACTERS: usize = 2000;
/// Life of a token for the dispatcher, seconds: the shortest that the API server makes.
pub const PLUGIN_TOKEN_SECONDS: i64 = 600;
/// Attempts to change a webhook that somebody else changes as well.
pub const PLUGIN_CONFLICTS: u32 = 5;
/// Failed tests of a New, one after the other, after which a rotation is no longer watched.
pub const PLUGIN_FAILED_TESTS: u32 = 2;
/// Between two pictures of what is waited for, in a terminal.
pub const PLUGIN_TICK: Duration = Duration::from_millis(500);
/// Width of a page where there is no terminal that has one, columns.
pub const PLUGIN_COLUMNS: usize = 80;
/// Clocks that differ by less are as good as equal; by more than the second, certificates and tokens are misjudged.
pub const PLUGIN_CLOCK_SKEW: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(1));
