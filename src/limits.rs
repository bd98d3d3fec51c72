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
/// Below this lifetime left, a certificate carries a warning.
pub const EXPIRING_SOON: Duration = Duration::from_hours(30 * 24);

// --- Events --------------------------------------------------------------------------------------

/// Body of one event, bytes.
pub const EVENT_BYTES: usize = 1024 * 1024;
/// Attributes of one event, names and values together, bytes.
pub const EVENT_ATTRIBUTE_BYTES: usize = 16 * 1024;
/// Attributes of one event.
pub const EVENT_ATTRIBUTES: usize = 64;
/// Events of one batch.
pub const BATCH_EVENTS: usize = 1000;
/// Events that one request for all webhooks of a namespace comes to.
pub const FAN_OUT_EVENTS: usize = 10_000;
/// Their bodies, bytes, each as often as it is stored.
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
/// Delay before a queue that failed is asked again.
pub const QUEUE_RETRY: Duration = Duration::from_secs(1);

// --- Ingest --------------------------------------------------------------------------------------

/// Requests that are served at one time; the next one waits.
pub const INGEST_REQUESTS: usize = 256;
/// Connections of senders; the next one waits.
pub const INGEST_CONNECTIONS: usize = 1024;
/// Time for a sender to send the head of a request, and again for the rest and our answer.
pub const INGEST_TIMEOUT: Duration = Duration::from_secs(30);
/// What a sender is told to wait when the queue is full, seconds.
pub const INGEST_RETRY_AFTER_SECONDS: u64 = 5;
/// Length of a namespace's name (a label, RFC 1123), bytes.
pub const LABEL_BYTES: usize = 63;
/// Length of a webhook's name (labels with dots between them), bytes: what its CustomResourceDefinition takes.
pub const NAME_BYTES: usize = 230;

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
/// Delay before a failed test of a New is repeated: first and longest.
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
/// A refusal of one webhook's certificate is told once in this time.
pub const REFUSAL_TOLD: Duration = Duration::from_secs(10);

// --- Kubernetes ----------------------------------------------------------------------------------

/// Webhooks that are reconciled at one time.
pub const RECONCILES_AT_ONCE: u16 = 16;
/// Delay after a reconcile that failed because of the API server: first and longest.
pub const RECONCILE_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));
/// Delay before a watch that failed is taken up again: first and longest.
pub const WATCH_RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Time of one reconcile; past it, it is repeated.
pub const RECONCILE: Duration = Duration::from_mins(1);
/// Longest wait without looking again: watches are not known to miss anything, and this is the net below.
pub const LONGEST_REQUEUE: Duration = Duration::from_hours(1);
/// Time from SIGTERM to the end, for all that is under way; a Pod gets 30 s.
pub const SHUTDOWN: Duration = Duration::from_secs(25);
