//! Every bound of the program, named with its unit. Nothing here imports anything.

use std::time::Duration;

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
