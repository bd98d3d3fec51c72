//! Names of metrics, in the notation of Prometheus. A name that is told here is not given to anything else.

/// Counter: deliveries that an endpoint refused because of the client certificate, by `namespace`, `webhook` and
/// whether another loaded certificate was taken instead (`taken`: `true` or `false`). Reserved: the log, the
/// status and the Events tell of them until metrics are served.
pub const CLIENT_CERTIFICATE_REFUSALS: &str = "postrider_client_certificate_refusals_total";
