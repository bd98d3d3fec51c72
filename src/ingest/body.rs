//! The body of a request: read to its end before anybody looks at it, in bounded time and memory.
//!
//! What counts is what has come, not what a sender says will: thousands of bodies that creep hold next to nothing.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::problem::Refused;
use crate::{
    limits,
    server::{Peer, Shares, Taken},
};

/// Hands a request on with its whole body, which has its share of `bodies` until there is an answer.
pub(super) async fn whole(State(bodies): State<Arc<Shares>>, request: Request, next: Next) -> Response {
    answer(&bodies, request, next).await.unwrap_or_else(Refused::into_response)
}

async fn answer(bodies: &Arc<Shares>, request: Request, next: Next) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    // Without a peer it is a test: all of them are one.
    let peer = head.extensions.get().map_or_else(|| [0, 0, 0, 0].into(), |Peer(address)| *address);
    let mut share = bodies.take(peer, 0).map_err(Refused::Over)?;
    let body = timeout(limits::INGEST_BODY, read(body, &mut share)).await.map_err(|_| Refused::TooSlow)??;
    // Not ended when its sender goes away: what waits for the disk has its share until it is there.
    let handled = tokio::spawn(async move {
        let _share = share;
        next.run(Request::from_parts(head, body.into())).await
    });
    match timeout(limits::INGEST_ANSWER, handled).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => {
            tracing::error!(%error, "a request ended abnormally");
            Err(Refused::NoAnswer)
        }
        Err(_) => Err(Refused::NoAnswer),
    }
}

async fn read(mut body: Body, share: &mut Taken) -> Result<Bytes, Refused> {
    if body.size_hint().lower() > limits::EVENT_BYTES as u64 {
        return Err(Refused::TooLarge);
    }
    let mut whole = Vec::new();
    loop {
        let frame = timeout(limits::INGEST_BODY_PAUSE, body.frame()).await.map_err(|_| Refused::TooSlow)?;
        let Some(frame) = frame else { return Ok(whole.into()) };
        // Trailers tell nothing that is read.
        let Ok(data) = frame.map_err(|_| Refused::BrokenBody)?.into_data() else { continue };
        if whole.len() + data.len() > limits::EVENT_BYTES {
            return Err(Refused::TooLarge);
        }
        share.more(data.len()).map_err(Refused::Over)?;
        whole.extend_from_slice(&data);
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use axum::{Router, http::StatusCode, middleware, routing::post};
    use futures::{StreamExt as _, stream};
    use tokio::{sync::Notify, time::Instant};
    use tower::ServiceExt as _;

    use super::*;

    /// What becomes of a body that comes in pieces, each after a while, and how long that takes.
    async fn sent(limit: (usize, usize), pieces: Vec<(u64, Vec<u8>)>) -> (StatusCode, Duration) {
        let length = async |body: Bytes| body.len().to_string();
        let routes = Router::new().route("/", post(length));
        let routes = routes.layer(middleware::from_fn_with_state(Shares::new(limit), whole));
        let pieces = stream::iter(pieces).then(async |(seconds, piece)| {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok::<_, Infallible>(piece)
        });
        let from = Instant::now();
        let response = routes.oneshot(Request::post("/").body(Body::from_stream(pieces)).unwrap()).await;
        (response.unwrap().status(), from.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_pauses_or_creeps_is_answered_408() {
        let piece = |seconds| (seconds, vec![b'x'; 10]);
        let roomy = (1000, 1000);
        assert_eq!(sent(roomy, vec![piece(0), piece(9), piece(9)]).await.0, StatusCode::OK);
        let (status, after) = sent(roomy, vec![piece(0), piece(11)]).await;
        assert_eq!((status, after.as_secs()), (StatusCode::REQUEST_TIMEOUT, 10));
        let (status, after) = sent(roomy, vec![piece(9); 10]).await;
        assert_eq!((status, after.as_secs()), (StatusCode::REQUEST_TIMEOUT, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_come_counts_and_what_does_not_fit_is_told_at_once() {
        let piece = |seconds, bytes| (seconds, vec![b'x'; bytes]);
        for (limit, status) in [
            ((100, 100), StatusCode::OK),
            ((100, 99), StatusCode::TOO_MANY_REQUESTS),
            ((99, 100), StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let (got, after) = sent(limit, vec![piece(1, 50), piece(1, 50)]).await;
            assert_eq!((got, after.as_secs()), (status, 2), "{limit:?}");
        }
        let large = vec![piece(0, limits::EVENT_BYTES), piece(0, 1)];
        assert_eq!(sent((usize::MAX, usize::MAX), large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_has_its_share_also_without_its_sender() {
        let (begun, ends) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (tells, waits) = (Arc::clone(&begun), Arc::clone(&ends));
        let handler = move |_: Bytes| {
            let (tells, waits) = (Arc::clone(&tells), Arc::clone(&waits));
            async move {
                tells.notify_one();
                waits.notified().await;
            }
        };
        let routes = Router::new().route("/", post(handler));
        let routes = routes.layer(middleware::from_fn_with_state(Shares::new((10, 10)), whole));
        let send = || routes.clone().oneshot(Request::post("/").body(Body::from(vec![b'x'; 10])).unwrap());
        let sender = tokio::spawn(send());
        begun.notified().await;
        sender.abort();
        assert!(sender.await.unwrap_err().is_cancelled());
        assert_eq!(send().await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
        ends.notify_one();
        tokio::task::yield_now().await;
        ends.notify_one();
        assert_eq!(send().await.unwrap().status(), StatusCode::OK);
    }
}
