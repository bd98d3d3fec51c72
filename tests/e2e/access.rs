//! Who may send: real tokens of ServiceAccounts, and what the API server says of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use data_encoding::BASE64URL_NOPAD;
use http::{
    HeaderMap,
    header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, api::PostParams};
use postrider::limits;
use serde_json::{Value, json};

use crate::{
    harness::{
        chart,
        cluster::{Cluster, Namespace},
        eventually, pki,
        process::{Process, Program},
        scene::Scene,
        secrets,
    },
    ingest_server::{client, secure, secure_address},
};

tests![
    what_was_granted_ends_within_its_bound,
    each_try_has_its_answer,
    the_lines_of_a_refusal_grant_what_was_missing,
    while_the_api_server_is_away_nobody_new_gets_in,
];

const AUDIENCE: &str = "postrider";

/// The secure listener of a dispatcher of all namespaces, with the rights that the chart gives.
struct Door {
    url: String,
    /// Where nobody is asked.
    plain_url: String,
    http: reqwest::Client,
    _dispatcher: Process,
    _queue: tempfile::TempDir,
    _scene: Scene,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Door {
    async fn of(cluster: &Arc<Cluster>) -> Self {
        let scene = Scene::without_controller(Arc::clone(cluster)).await;
        scene.serves_with(&pki::shared().await.server).await;
        let queue = tempfile::tempdir().unwrap();
        // What asks the API server says all that it can, for it handles tokens, too.
        let dispatcher = Program::postrider("dispatcher")
            .args(["--listen=127.0.0.1:0", "--queue"])
            .args([queue.path()])
            .args(secure(scene.namespace.name()))
            .env("KUBECONFIG", chart::kubeconfig(cluster, "dispatcher", &json!({})).await)
            .env("POSTRIDER_LOG", "debug,postrider=trace,kube=trace,kube_client=trace")
            .start();
        let plain = dispatcher.address("takes events").await;
        let port = secure_address(&dispatcher).await.port();
        dispatcher.line_with(&pki::shared().await.server.facts.fingerprint_sha256).await;
        let (url, plain_url) = (format!("https://localhost:{port}"), format!("http://{plain}"));
        Self {
            url,
            plain_url,
            http: client(true).await,
            _dispatcher: dispatcher,
            _queue: queue,
            _scene: scene,
        }
    }

    /// A namespace with the webhook `orders`, which the dispatcher knows.
    async fn namespace(&self, cluster: &Arc<Cluster>) -> Namespace {
        let namespace = cluster.namespace().await;
        let orders = json!({
            "apiVersion": "postrider.dev/v1alpha1", "kind": "OutboundWebhook",
            "metadata": { "name": "orders" },
            "spec": { "endpoint": { "url": "https://localhost:1" }, "suspend": true },
        });
        namespace.apply(&orders.to_string()).await.succeeded();
        let letters = format!(
            "{}/v1/namespaces/{}/outboundwebhooks/orders/deadletters",
            self.plain_url,
            namespace.name()
        );
        eventually::polled("orders to be known to the dispatcher", || async {
            let status = self.http.get(&letters).send().await.unwrap().status();
            if status == 200 { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
        namespace
    }

    async fn request(&self, method: &str, path: &str, authorization: &[&str]) -> Answer {
        let url = format!("{}/v1/namespaces/{path}", self.url);
        let mut request = self.http.request(method.parse().unwrap(), url).body("paid");
        for value in authorization {
            request = request.header(AUTHORIZATION, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.unwrap();
        let found = secrets::findings(&body);
        assert!(found.is_empty(), "{path} was answered with {}", found.join(", "));
        Answer { status, headers, body: serde_json::from_slice(&body).unwrap_or_default() }
    }

    async fn post(&self, namespace: &str, webhook: &str, token: &str) -> Answer {
        let path = format!("{namespace}/outboundwebhooks/{webhook}/events");
        self.request("POST", &path, &[&format!("Bearer {token}")]).await
    }

    async fn status(&self, namespace: &str, webhook: &str, token: &str) -> u16 {
        self.post(namespace, webhook, token).await.status
    }
}

async fn account(namespace: &Namespace, name: &str) {
    namespace.kubectl(["create", "serviceaccount", name]).await.succeeded();
}

/// Of an account that is there.
async fn token_for(namespace: &Namespace, account: &str, audience: &str) -> String {
    let token = namespace.kubectl(["create", "token", account, "--audience", audience]).await.succeeded();
    registered(token.trim())
}

fn registered(token: &str) -> String {
    secrets::token("a sender's token", token);
    token.to_owned()
}

/// A new account that may send to all webhooks of the namespace, and its token.
pub(crate) async fn sender(namespace: &Namespace, name: &str) -> String {
    account(namespace, name).await;
    let who = format!("--serviceaccount={}:{name}", namespace.name());
    let role = "--clusterrole=postrider-sender";
    namespace.kubectl(["create", "rolebinding", name, role, &who]).await.succeeded();
    token_for(namespace, name, AUDIENCE).await
}

/// The same token with other claims, signed with the cluster's own key; `None` where the cluster is not of our
/// making, and keeps its key.
fn signed_again(cluster: &Cluster, token: &str, change: impl FnOnce(&mut Value)) -> Option<String> {
    let pem = std::fs::read(cluster.kubeconfig().with_file_name("tokens.key")).ok()?;
    let (_, der) = pem_rfc7468::decode_vec(&pem).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap();
    let mut parts = token.split('.');
    let (header, claims) = (parts.next().unwrap(), parts.next().unwrap());
    let mut claims: Value =
        serde_json::from_slice(&BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap()).unwrap();
    change(&mut claims);
    let signed = format!("{header}.{}", BASE64URL_NOPAD.encode(claims.to_string().as_bytes()));
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    Some(registered(&format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))))
}

async fn each_try_has_its_answer(cluster: Arc<Cluster>) {
    let door = Door::of(&cluster).await;
    let (here, there) = (door.namespace(&cluster).await, door.namespace(&cluster).await);
    let good = sender(&here, "good").await;
    let other_audience = token_for(&here, "good", "https://kubernetes.default.svc").await;
    let no_audience = here.kubectl(["create", "token", "good"]).await.succeeded();
    let no_audience = registered(no_audience.trim());
    let gone = sender(&here, "gone").await;
    here.kubectl(["delete", "serviceaccount", "gone"]).await.succeeded();
    account(&here, "one").await;
    let role = ["create", "role", "one", "--verb=create", "--resource=outboundwebhooks.postrider.dev/events"];
    here.kubectl(role.into_iter().chain(["--resource-name=orders"])).await.succeeded();
    let who = format!("--serviceaccount={}:one", here.name());
    here.kubectl(["create", "rolebinding", "one", "--role=one", &who]).await.succeeded();
    let one = token_for(&here, "one", AUDIENCE).await;
    let forged = {
        let (signed, _) = good.rsplit_once('.').unwrap();
        let (_, signature) = one.rsplit_once('.').unwrap();
        format!("{signed}.{signature}")
    };

    let events = format!("{}/outboundwebhooks/orders/events", here.name());
    let bearer = |token: &str| format!("Bearer {token}");
    let good_bearer = bearer(&good);
    let invalid = "Bearer realm=\"postrider\", error=\"invalid_token\"";
    for (what, authorization, status, challenge) in [
        ("good", vec![good_bearer.as_str()], 202, None),
        ("good, once more", vec![&good_bearer], 202, None),
        ("none", vec![], 401, Some("Bearer realm=\"postrider\"")),
        ("basic", vec!["Basic YWRtaW46YWRtaW4="], 401, Some("Bearer realm=\"postrider\"")),
        ("garbage", vec!["Bearer garbage"], 401, Some(invalid)),
        ("other audience", vec![&bearer(&other_audience)], 401, Some(invalid)),
        ("of the API server", vec![&bearer(&no_audience)], 401, Some(invalid)),
        ("of a deleted account", vec![&bearer(&gone)], 401, Some(invalid)),
        ("another's signature", vec![&bearer(&forged)], 401, Some(invalid)),
        (
            "two",
            vec![&good_bearer, &good_bearer],
            400,
            Some("Bearer realm=\"postrider\", error=\"invalid_request\""),
        ),
        ("basic, then good", vec!["Basic YWRtaW46YWRtaW4=", &good_bearer], 400, None),
    ] {
        let answer = door.request("POST", &events, &authorization).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.body);
        if let Some(challenge) = challenge {
            assert_eq!(answer.headers[WWW_AUTHENTICATE], challenge, "{what}");
        }
        if status != 202 {
            assert_eq!(answer.headers[CONTENT_TYPE], "application/problem+json", "{what}");
        }
    }

    // A right is for one namespace, or for one name in it.
    assert_eq!(door.status(there.name(), "orders", &good).await, 403);
    assert_eq!(door.status(here.name(), "unknown", &good).await, 404);
    assert_eq!(door.status(here.name(), "orders", &one).await, 202);
    let unlike = |answer: Answer, name: &str| answer.body.to_string().replace(name, "…");
    let (unknown, known) =
        (door.post(here.name(), "unknown", &one).await, door.post(there.name(), "orders", &one).await);
    assert_eq!((unknown.status, known.status), (403, 403));
    let unknown = unlike(unknown, "unknown").replace(here.name(), "…");
    let known = unlike(known, "orders").replace(there.name(), "…").replace(here.name(), "…");
    assert_eq!(unknown, known, "whether there is such a webhook does not show");
    // Sending is not looking.
    let letters = format!("{}/outboundwebhooks/orders/deadletters", here.name());
    assert_eq!(door.request("GET", &letters, &[&good_bearer]).await.status, 403);
    assert_eq!(door.request("DELETE", &letters, &[&good_bearer]).await.status, 403);
    assert_eq!(door.request("POST", &format!("{letters}/replay"), &[&good_bearer]).await.status, 403);

    expired_tokens(&cluster, &door, &here).await;
}

/// A `TokenRequest` makes none that ends before ten minutes are over: these are signed with the cluster's own key, and
/// differ from a good one in their times alone.
async fn expired_tokens(cluster: &Cluster, door: &Door, here: &Namespace) {
    let good = sender(here, "expires").await;
    let now = Timestamp::now().as_second();
    let until = |exp: i64| {
        signed_again(cluster, &good, |claims| {
            claims["exp"] = json!(exp);
            claims["iat"] = json!(now - 7200);
            claims["nbf"] = json!(now - 7200);
        })
    };
    let (Some(valid), Some(lately), Some(long_ago)) = (until(now + 600), until(now - 5), until(now - 3600))
    else {
        return;
    };
    assert_eq!(
        door.status(here.name(), "orders", &valid).await,
        202,
        "nothing else is wrong with the others"
    );
    assert!(is_authenticated(cluster, &lately).await, "the API server gives it a minute");
    assert!(!is_authenticated(cluster, &long_ago).await);
    for token in [lately, long_ago] {
        let answer = door.post(here.name(), "orders", &token).await;
        assert_eq!((answer.status, &answer.body["detail"]), (401, &json!("the token has expired")));
    }
}

async fn is_authenticated(cluster: &Cluster, token: &str) -> bool {
    let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![AUDIENCE.to_owned()]) };
    let review = TokenReview { spec, ..TokenReview::default() };
    let reviews: Api<TokenReview> = Api::all(cluster.client());
    let review = reviews.create(&PostParams::default(), &review).await.unwrap();
    review.status.unwrap().authenticated == Some(true)
}

async fn the_lines_of_a_refusal_grant_what_was_missing(cluster: Arc<Cluster>) {
    let door = Door::of(&cluster).await;
    let namespace = door.namespace(&cluster).await;
    account(&namespace, "app").await;
    let authorization = format!("Bearer {}", token_for(&namespace, "app", AUDIENCE).await);
    let orders = format!("{}/outboundwebhooks/orders", namespace.name());
    for (method, path) in [
        ("POST", format!("{orders}/events")),
        ("GET", format!("{orders}/deadletters")),
        ("DELETE", format!("{orders}/deadletters")),
        ("POST", format!("{orders}/deadletters/replay")),
    ] {
        let refused = door.request(method, &path, &[&authorization]).await;
        assert_eq!(refused.status, 403, "{method} {path}: {}", refused.body);
        let user = format!("system:serviceaccount:{}:app", namespace.name());
        assert_eq!(refused.body["user"], json!(user));
        let lines = refused.body["grant"].as_array().unwrap();
        assert_eq!(lines.len(), 2, "{}", refused.body);
        for line in lines {
            cluster.typed(line.as_str().unwrap()).await.succeeded();
        }
        // A refusal counts for a while.
        eventually::polled(&format!("{method} {path} to be granted"), || async {
            let answer = door.request(method, &path, &[&authorization]).await;
            if [200, 202].contains(&answer.status) { Ok(()) } else { Err(answer.body.to_string()) }
        })
        .await;
    }
    let other = format!("{}/outboundwebhooks/other/events", namespace.name());
    assert_eq!(
        door.request("POST", &other, &[&authorization]).await.status,
        403,
        "no more than what was missing"
    );
}

async fn what_was_granted_ends_within_its_bound(cluster: Arc<Cluster>) {
    let door = Door::of(&cluster).await;
    let namespace = door.namespace(&cluster).await;
    let (account_goes, right_goes) =
        (sender(&namespace, "account-goes").await, sender(&namespace, "right-goes").await);
    for token in [&account_goes, &right_goes] {
        assert_eq!(door.status(namespace.name(), "orders", token).await, 202);
    }
    let granted_at = Instant::now();
    namespace.kubectl(["delete", "serviceaccount", "account-goes"]).await.succeeded();
    namespace.kubectl(["delete", "rolebinding", "right-goes"]).await.succeeded();
    assert_eq!(door.status(namespace.name(), "orders", &account_goes).await, 202, "it is remembered");
    let slack = Duration::from_secs(5);
    let ends = async {
        loop {
            let answers = [
                door.status(namespace.name(), "orders", &account_goes).await,
                door.status(namespace.name(), "orders", &right_goes).await,
            ];
            if answers == [401, 403] {
                return;
            }
            assert!(answers.iter().all(|status| [202, 401, 403].contains(status)), "{answers:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    eventually::within(limits::GRANT + slack, "what was granted to end", ends).await;
    assert!(granted_at.elapsed() <= limits::GRANT + slack);
}

async fn while_the_api_server_is_away_nobody_new_gets_in(_: Arc<Cluster>) {
    let cluster = Cluster::start_own().await;
    let door = Door::of(&cluster).await;
    let namespace = door.namespace(&cluster).await;
    let (known, stranger) = (sender(&namespace, "known").await, sender(&namespace, "stranger").await);
    assert_eq!(door.status(namespace.name(), "orders", &known).await, 202);
    cluster.stop_api_server().await;
    let refused = door.post(namespace.name(), "orders", &stranger).await;
    assert_eq!(
        (refused.status, &refused.headers[RETRY_AFTER]),
        (503, &"5".parse().unwrap()),
        "{}",
        refused.body
    );
    assert_eq!(door.status(namespace.name(), "orders", &known).await, 202);
    // A right that was not asked for before is new, too.
    assert_eq!(door.status(namespace.name(), "other", &known).await, 503);
    cluster.start_api_server().await;
    eventually::polled("the stranger to get in", || async {
        match door.status(namespace.name(), "orders", &stranger).await {
            202 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}
