use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header::*},
    middleware::from_fn_with_state,
    routing::{any, get, post},
};
use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, advance};
use tower::ServiceExt as _;

use super::*;
use crate::ingest::{DEAD_LETTERS, EVENTS, EVENTS_OF_NAMESPACE, REPLAY};

const ORDERS: &str = "/v1/namespaces/shop/outboundwebhooks/orders/events";

/// The least time that counts.
const MOMENT: Duration = Duration::from_millis(1);

/// What the API server does.
#[derive(Clone, Copy, PartialEq)]
enum Scenario {
    Answers,
    /// Connections are refused.
    Away,
    /// It takes the question, and says nothing.
    Silent,
}

/// Knows every token that is not called `bad`, as the token of `user-<token>`, and grants what is not taken back.
struct Fake {
    scenario: Mutex<Scenario>,
    /// `<user> <right>`
    refused: Mutex<HashSet<String>>,
    bad: Mutex<HashSet<String>>,
    asked: Mutex<Vec<Right>>,
    whose: AtomicUsize,
    may: AtomicUsize,
}

impl Fake {
    async fn scene(&self) -> Result<(), Unavailable> {
        let scenario = *self.scenario.lock().unwrap();
        // As over a network: others get on.
        tokio::task::yield_now().await;
        match scenario {
            Scenario::Answers => Ok(()),
            Scenario::Away => Err(Unavailable::Away("connection refused".into())),
            Scenario::Silent => std::future::pending().await,
        }
    }
}

impl Reviewer for Arc<Fake> {
    async fn whose(&self, token: &str) -> Result<Option<User>, Unavailable> {
        self.whose.fetch_add(1, Ordering::Relaxed);
        self.scene().await?;
        let bad = self.bad.lock().unwrap().contains(token);
        let name = format!("user-{}", &token[..token.len().min(20)]);
        Ok((!bad).then(|| User { name, ..User::default() }))
    }

    async fn may(&self, user: &User, right: &Right) -> Result<bool, Unavailable> {
        self.may.fetch_add(1, Ordering::Relaxed);
        self.asked.lock().unwrap().push(right.clone());
        self.scene().await?;
        Ok(!self.refused.lock().unwrap().contains(&format!("{} {right}", user.name)))
    }
}

/// Goes with tokio's time, which a test moves on.
struct Paused(Instant);

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.0.elapsed()
    }
}

struct Scene {
    fake: Arc<Fake>,
    router: Router,
    /// Requests that got through.
    through: Arc<AtomicUsize>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Scene {
    fn new() -> Self {
        Self::with_rate(limits::SENDER_RATE.get())
    }

    fn with_rate(rate: u32) -> Self {
        let fake = Arc::new(Fake {
            scenario: Mutex::new(Scenario::Answers),
            refused: Mutex::default(),
            bad: Mutex::default(),
            asked: Mutex::default(),
            whose: AtomicUsize::new(0),
            may: AtomicUsize::new(0),
        });
        let options =
            Options { token_audience: "postrider".into(), sender_rate: NonZeroU32::new(rate).unwrap() };
        let access = Arc::new(Access::new(Arc::clone(&fake), Paused(Instant::now()), &options));
        let through = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&through);
        let taken = async move |request: Request| {
            assert!(!request.headers().contains_key(AUTHORIZATION), "the token goes no further");
            counted.fetch_add(1, Ordering::Relaxed);
            StatusCode::ACCEPTED
        };
        let router = Router::new()
            .route(EVENTS, post(taken.clone()).options(taken.clone()).put(taken.clone()))
            .route(EVENTS_OF_NAMESPACE, post(taken.clone()).options(taken.clone()))
            .route(DEAD_LETTERS, get(taken.clone()).delete(taken.clone()))
            .route(REPLAY, post(taken.clone()))
            .route("/v1/forgotten/{namespace}", any(taken))
            .layer(from_fn_with_state(access, guard::<Arc<Fake>, Paused>));
        Self { fake, router, through }
    }

    fn set(&self, scenario: Scenario) {
        *self.fake.scenario.lock().unwrap() = scenario;
    }

    fn reviews(&self) -> (usize, usize) {
        (self.fake.whose.load(Ordering::Relaxed), self.fake.may.load(Ordering::Relaxed))
    }

    fn through(&self) -> usize {
        self.through.load(Ordering::Relaxed)
    }

    async fn send(&self, method: Method, path: &str, authorization: &[&str]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for value in authorization {
            request = request.header(AUTHORIZATION, *value);
        }
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), 64 * 1024).await.unwrap();
        Answer { status, headers, body: serde_json::from_slice(&body).unwrap_or_default() }
    }

    async fn post(&self, token: &str) -> Answer {
        self.send(Method::POST, ORDERS, &[&format!("Bearer {token}")]).await
    }

    async fn status(&self, token: &str) -> u16 {
        self.post(token).await.status.as_u16()
    }
}

/// A token that says when it ends, seconds after the scene has begun.
fn token_until(exp: i64) -> String {
    let claims = BASE64URL_NOPAD.encode(json!({ "exp": exp }).to_string().as_bytes());
    format!("e30.{claims}.c2ln")
}

#[tokio::test]
async fn what_has_no_rule_is_refused() {
    let scene = Scene::new();
    let good = ["Bearer good"];
    assert_eq!(scene.send(Method::GET, "/v1/forgotten/shop", &good).await.status, 404);
    assert_eq!(scene.send(Method::GET, "/", &good).await.status, 404);
    let put = scene.send(Method::PUT, ORDERS, &good).await;
    assert_eq!((put.status.as_u16(), put.headers[ALLOW].to_str().unwrap()), (405, "POST,OPTIONS"));
    assert_eq!((scene.through(), scene.reviews()), (0, (0, 0)));
    assert_eq!(scene.status("good").await, 202);
}

#[tokio::test]
async fn each_request_needs_its_right() {
    let scene = Scene::new();
    let letters = ORDERS.replace("/events", "/deadletters");
    for (method, path, verb, subresource, name) in [
        (Method::POST, ORDERS, "create", "events", Some("orders")),
        (Method::OPTIONS, ORDERS, "create", "events", Some("orders")),
        (Method::POST, "/v1/namespaces/shop/events", "create", "events", None),
        (Method::OPTIONS, "/v1/namespaces/shop/events", "create", "events", None),
        (Method::GET, &letters, "get", "deadletters", Some("orders")),
        (Method::HEAD, &letters, "get", "deadletters", Some("orders")),
        (Method::DELETE, &letters, "delete", "deadletters", Some("orders")),
        (Method::POST, &format!("{letters}/replay"), "create", "deadletters", Some("orders")),
    ] {
        // A token each: what one has asked for is not asked again.
        let token = format!("Bearer {method}{}", path.len());
        assert_eq!(scene.send(method.clone(), path, &[&token]).await.status, 202, "{method} {path}");
        let target = Target { namespace: "shop".into(), name: name.map(str::to_owned) };
        let asked = scene.fake.asked.lock().unwrap().pop();
        assert_eq!(asked, Some(Right { verb, subresource, target }), "{method} {path}");
    }
}

#[tokio::test]
async fn who_shows_no_token_is_told_how() {
    let scene = Scene::new();
    let long = format!("Bearer {}", "x".repeat(limits::TOKEN_BYTES + 1));
    let (none, invalid) =
        ("Bearer realm=\"postrider\"", "Bearer realm=\"postrider\", error=\"invalid_token\"");
    let two = "Bearer realm=\"postrider\", error=\"invalid_request\"";
    for (authorization, status, challenge) in [
        (&[][..], 401, none),
        (&[""], 401, none),
        (&["Bearer"], 401, none),
        (&["Basic YWRtaW46YWRtaW4="], 401, none),
        (&["good"], 401, none),
        (&["Bearer "], 401, invalid),
        (&["Bearer ===="], 401, invalid),
        (&["Bearer good, Bearer good"], 401, invalid),
        (&["Bearer good good"], 401, invalid),
        (&["Bearer g\u{f6}od"], 401, invalid),
        (&[&long], 401, invalid),
        (&["Bearer good", "Bearer good"], 400, two),
        (&["Basic YWRtaW46YWRtaW4=", "Bearer good"], 400, two),
    ] {
        let answer = scene.send(Method::POST, ORDERS, authorization).await;
        assert_eq!(answer.status, status, "{authorization:?}");
        assert_eq!(answer.headers[WWW_AUTHENTICATE], challenge, "{authorization:?}");
        assert_eq!(answer.headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(answer.body["type"], "urn:postrider:problem:not-authenticated");
        assert!(!answer.body.to_string().contains("good"), "{}", answer.body);
    }
    assert_eq!((scene.through(), scene.reviews()), (0, (0, 0)));
    assert_eq!(scene.send(Method::POST, ORDERS, &["bEARER  good"]).await.status, 202);
}

#[tokio::test]
async fn odd_names_are_answered_before_any_review() {
    let scene = Scene::new();
    let long = "x".repeat(limits::LABEL_BYTES + 1);
    let longer = "x".repeat(limits::NAME_BYTES + 1);
    for (namespace, name) in [
        ("..", "orders"),
        ("shop", ".."),
        (".", "."),
        ("%2e%2e", "orders"),
        ("shop", "%2E%2E"),
        ("shop%2Foutboundwebhooks%2Forders", "orders"),
        ("shop", "orders%2F"),
        ("shop", "a%00"),
        ("shop", "%ff"),
        ("shop", "%"),
        ("shop", "orders%20"),
        ("shop", "Orders"),
        ("SHOP", "orders"),
        ("sh.op", "orders"),
        ("shop", "-orders"),
        ("shop", "orders-"),
        ("shop", ".orders"),
        ("shop", "or..ders"),
        ("shop", "or_ders"),
        ("shop", "%E2%93%9Erders"),
        ("shop", "*"),
        (&long, "orders"),
        ("shop", &longer),
        ("", "orders"),
        ("shop", ""),
        ("shop/", "orders"),
    ] {
        let path = format!("/v1/namespaces/{namespace}/outboundwebhooks/{name}/events");
        let answer = scene.send(Method::POST, &path, &["Bearer good"]).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{path}: {}", answer.status);
    }
    assert_eq!((scene.through(), scene.reviews()), (0, (0, 0)));
    // What is decoded is what is reviewed, and what is used.
    let path = "/v1/namespaces/%73hop/outboundwebhooks/%6frders.v2/events?name=other#name";
    assert_eq!(scene.send(Method::POST, path, &["Bearer good"]).await.status, 202);
    let asked = scene.fake.asked.lock().unwrap().pop().unwrap();
    assert_eq!(asked.target, Target { namespace: "shop".into(), name: Some("orders.v2".into()) });
}

#[tokio::test]
async fn a_refused_request_is_not_read() {
    let scene = Scene::new();
    scene.fake.bad.lock().unwrap().insert("bad".into());
    let body = Body::from_stream(futures::stream::poll_fn(
        |_| -> std::task::Poll<Option<Result<Vec<u8>, std::io::Error>>> { panic!("the body is read") },
    ));
    let request = Request::post(ORDERS).header(AUTHORIZATION, "Bearer bad").body(body).unwrap();
    assert_eq!(scene.router.clone().oneshot(request).await.unwrap().status(), 401);
}

#[tokio::test]
async fn who_lacks_the_right_is_told_which_and_how_to_grant_it() {
    let scene = Scene::new();
    let refused = "create outboundwebhooks.postrider.dev/events of \"orders\" in namespace \"shop\"";
    scene.fake.refused.lock().unwrap().insert(format!("user-app {refused}"));
    let Answer { status, headers, body } = scene.post("app").await;
    assert_eq!((status.as_u16(), scene.through()), (403, 0));
    assert_eq!(headers[WWW_AUTHENTICATE], "Bearer realm=\"postrider\", error=\"insufficient_scope\"");
    assert_eq!(
        body,
        json!({
            "type": "urn:postrider:problem:forbidden",
            "title": "You may not do this",
            "status": 403,
            "detail": format!("\"user-app\" may not {refused}"),
            "user": "user-app",
            "missing": {
                "verb": "create", "group": "postrider.dev", "resource": "outboundwebhooks/events",
                "namespace": "shop", "name": "orders",
            },
            "grant": [
                "kubectl create role postrider-create-events-orders --namespace shop --verb create \
                 --resource outboundwebhooks.postrider.dev/events --resource-name orders",
                "kubectl create rolebinding postrider-create-events-orders-user-app --namespace shop \
                 --role postrider-create-events-orders --user user-app",
            ],
        })
    );
}

#[test]
fn the_lines_that_grant_a_right_are_safe_to_type() {
    let target = Target { namespace: "shop".into(), name: None };
    let right = Right { verb: "create", subresource: "events", target };
    let [role, binding] = <[String; 2]>::try_from(right.granted_by("system:serviceaccount:web:app")).unwrap();
    assert_eq!(
        role,
        "kubectl create role postrider-create-events --namespace shop --verb create \
         --resource outboundwebhooks.postrider.dev/events"
    );
    assert_eq!(
        binding,
        "kubectl create rolebinding postrider-create-events-web-app --namespace shop \
         --role postrider-create-events --serviceaccount web:app"
    );
    for user in ["me@shop.example", "o'neil $(id)", "a\nb", "\"; rm -rf /"] {
        let binding = right.granted_by(user).pop().unwrap();
        let words = shlex::split(&binding).unwrap();
        assert_eq!(words.last().map(String::as_str), Some(user), "{binding}");
        assert!(words.iter().rev().skip(1).all(|word| !word.contains(['$', ' ', '\'', '"'])), "{binding}");
    }
    assert!(right.granted_by("a\0b").is_empty());
}

#[test]
fn rights_are_about_our_resource() {
    use crate::api::v1alpha1::OutboundWebhook;
    use kube::Resource as _;
    assert_eq!((OutboundWebhook::group(&()), OutboundWebhook::plural(&())), (GROUP.into(), RESOURCE.into()));
}

#[tokio::test(start_paused = true)]
async fn a_grant_counts_for_a_minute() {
    let scene = Scene::new();
    assert_eq!(scene.status("good").await, 202);
    scene.fake.bad.lock().unwrap().insert("good".into());
    advance(limits::GRANT.saturating_sub(MOMENT)).await;
    assert_eq!((scene.status("good").await, scene.reviews()), (202, (1, 1)));
    advance(MOMENT).await;
    assert_eq!((scene.status("good").await, scene.reviews()), (401, (2, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_taken_back_ends_within_a_minute() {
    let scene = Scene::new();
    assert_eq!(scene.status("app").await, 202);
    let right = scene.fake.asked.lock().unwrap()[0].clone();
    scene.fake.refused.lock().unwrap().insert(format!("user-app {right}"));
    advance(limits::GRANT.saturating_sub(MOMENT)).await;
    assert_eq!(scene.status("app").await, 202);
    advance(MOMENT).await;
    assert_eq!(scene.status("app").await, 403);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_short() {
    let scene = Scene::new();
    scene.fake.bad.lock().unwrap().insert("early".into());
    assert_eq!(scene.status("early").await, 401);
    scene.fake.bad.lock().unwrap().clear();
    advance(limits::REFUSAL.saturating_sub(MOMENT)).await;
    assert_eq!((scene.status("early").await, scene.reviews()), (401, (1, 0)));
    advance(MOMENT).await;
    assert_eq!((scene.status("early").await, scene.reviews()), (202, (2, 1)));
}

#[tokio::test(start_paused = true)]
async fn no_grant_outlives_its_token() {
    let scene = Scene::new();
    let token = token_until(30);
    assert_eq!(scene.status(&token).await, 202);
    advance(Duration::from_millis(29_999)).await;
    assert_eq!((scene.status(&token).await, scene.reviews()), (202, (1, 1)));
    advance(MOMENT).await;
    // The API server would still take it, for a minute.
    let answer = scene.post(&token).await;
    assert_eq!((answer.status.as_u16(), scene.reviews()), (401, (1, 1)));
    assert_eq!(answer.body["detail"], "the token has expired");
    assert_eq!(scene.status(&token_until(-1)).await, 401);
    // Longer than a minute by its own word, or by none that is understood: a minute.
    for token in [token_until(i64::MAX), "e30.e30.c2ln".into(), "e30.eyJleHAiOiJ4In0.c2ln".into()] {
        assert_eq!(scene.status(&token).await, 202);
        scene.fake.bad.lock().unwrap().insert(token.clone());
        advance(limits::GRANT).await;
        assert_eq!(scene.status(&token).await, 401, "{token}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_api_server_is_away_grants_go_on_to_their_bound() {
    let scene = Scene::new();
    assert_eq!(scene.status("known").await, 202);
    scene.set(Scenario::Away);
    let stranger = scene.post("stranger").await;
    assert_eq!((stranger.status.as_u16(), &stranger.headers[RETRY_AFTER]), (503, &"5".parse().unwrap()));
    assert_eq!(stranger.body["type"], "urn:postrider:problem:not-reviewed");
    assert!(!stranger.body.to_string().contains("refused"), "how it fails is for our log: {}", stranger.body);
    advance(limits::GRANT.saturating_sub(MOMENT)).await;
    assert_eq!(scene.status("known").await, 202);
    advance(MOMENT).await;
    assert_eq!(scene.status("known").await, 503);
    // Nothing of that is remembered.
    scene.set(Scenario::Answers);
    assert_eq!((scene.status("known").await, scene.status("stranger").await), (202, 202));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_says_nothing_is_given_up() {
    let scene = Scene::new();
    scene.set(Scenario::Silent);
    let began = Instant::now();
    assert_eq!((scene.status("one").await, began.elapsed()), (503, limits::REVIEW_TIMEOUT));
}

#[tokio::test]
async fn many_requests_with_one_token_ask_once() {
    let scene = Scene::new();
    let all = (0..100).map(|_| scene.status("one"));
    assert!(futures::future::join_all(all).await.iter().all(|status| *status == 202));
    assert_eq!((scene.through(), scene.reviews()), (100, (1, 1)));
    // A failure is one, too, for all that waited.
    scene.set(Scenario::Away);
    let all = (0..100).map(|_| scene.status("two"));
    assert!(futures::future::join_all(all).await.iter().all(|status| *status == 503));
    assert_eq!(scene.reviews(), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_sender_that_goes_away_asks_itself() {
    let scene = Arc::new(Scene::new());
    scene.set(Scenario::Silent);
    let leaves = tokio::spawn({
        let scene = Arc::clone(&scene);
        async move { scene.status("one").await }
    });
    tokio::task::yield_now().await;
    let stays = tokio::spawn({
        let scene = Arc::clone(&scene);
        async move { scene.status("one").await }
    });
    tokio::task::yield_now().await;
    scene.set(Scenario::Answers);
    leaves.abort();
    assert_eq!(stays.await.unwrap(), 202);
    assert_eq!(scene.reviews(), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_tokens_is_bounded_and_known_senders_go_on() {
    let scene = Arc::new(Scene::new());
    for known in ["known", "known-too"] {
        assert_eq!(scene.status(known).await, 202);
    }
    advance(limits::GRANT / 2).await;
    scene.set(Scenario::Silent);
    let flood: Vec<_> = (0..limits::REVIEWS)
        .map(|number| {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move { scene.status(&format!("random-{number}")).await })
        })
        .collect();
    while scene.reviews().0 < 2 + limits::REVIEWS_AT_ONCE {
        tokio::task::yield_now().await;
    }
    for _ in 0..limits::REVIEWS {
        tokio::task::yield_now().await;
    }
    let before = Instant::now();
    let one_more = scene.post("one-more").await;
    assert_eq!((one_more.status.as_u16(), &one_more.headers[RETRY_AFTER]), (503, &"1".parse().unwrap()));
    assert_eq!(scene.status("known").await, 202);
    assert_eq!(before.elapsed(), Duration::ZERO, "at once");
    assert_eq!(scene.reviews().0, 2 + limits::REVIEWS_AT_ONCE, "no more at the API server");
    for task in flood {
        assert_eq!(task.await.unwrap(), 503);
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_granted_is_reviewed_again_in_spite_of_a_flood() {
    let scene = Arc::new(Scene::new());
    assert_eq!(scene.status("known").await, 202);
    advance(limits::GRANT).await;
    scene.set(Scenario::Silent);
    let flood: Vec<_> = (0..=limits::REVIEWS)
        .map(|number| {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move { scene.status(&format!("random-{number}")).await })
        })
        .collect();
    while scene.reviews().0 < 1 + limits::REVIEWS_AT_ONCE {
        tokio::task::yield_now().await;
    }
    // Those that were asked before hang on.
    scene.set(Scenario::Answers);
    let before = Instant::now();
    assert_eq!((scene.status("known").await, before.elapsed()), (202, Duration::ZERO));
    for task in flood {
        task.abort();
    }
}

#[tokio::test]
async fn a_sender_has_a_rate_of_its_own() {
    let scene = Scene::with_rate(3);
    let mut refused = None;
    // It may take longer than a third of a second to get there on a busy machine; not for long.
    for _ in 0..1000 {
        let answer = scene.post("fast").await;
        if answer.status != 202 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a rate has an end");
    assert_eq!((refused.status.as_u16(), &refused.headers[RETRY_AFTER]), (429, &"1".parse().unwrap()));
    assert_eq!(refused.body["type"], "urn:postrider:problem:too-fast");
    assert_eq!(scene.status("slow").await, 202);
}

#[tokio::test]
async fn rights_are_not_reviewed_faster_than_the_rate() {
    let scene = Scene::with_rate(3);
    for number in 0..100 {
        let path = format!("/v1/namespaces/shop/outboundwebhooks/random-{number}/events");
        scene.send(Method::POST, &path, &["Bearer good"]).await;
    }
    assert!(scene.reviews().1 < 50, "{:?}", scene.reviews());
}

#[test]
fn a_fingerprint_is_of_this_process() {
    let token = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {text}").parse().unwrap());
        Token::take(&mut headers).ok().unwrap()
    };
    let (here, elsewhere) = (Fingerprints::default(), Fingerprints::default());
    assert_eq!(here.of(&token("one")), here.of(&token("one")));
    assert_ne!(here.of(&token("one")), here.of(&token("two")));
    assert_ne!(here.of(&token("one")), elsewhere.of(&token("one")));
}
