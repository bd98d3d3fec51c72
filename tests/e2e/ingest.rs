//! What senders speak: CloudEvents with the SDKs of other languages, a plain `curl`, and requests made from the contract.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde_json::{Value, json};

use crate::{
    access::sender,
    harness::{
        cluster::Cluster,
        directory, pki,
        receiver::{Received, Receiver},
        scene::{Scene, active},
        tool::Tool,
    },
    ingest_server::secure_address,
};

tests![
    sdks_of_other_languages_and_curl_send_as_they_are,
    the_same_send_over_tls_as_themselves,
    an_event_for_a_namespace_goes_to_the_webhooks_that_take_its_type,
    an_event_that_comes_again_after_a_kill_is_stored_once,
    what_a_sender_forges_goes_no_further,
    the_contract_is_kept,
];

/// A webhook with a name, which is Ready.
async fn webhook(scene: &Scene, name: &str, receiver: &Receiver, spec: Value) {
    scene.keystore(name, pki::shared().await.pkcs12().await).await;
    let mut whole = json!({ "mtls": { "active": active(name, "PKCS12") } });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    scene.webhook(name, &receiver.url(), whole).await;
    scene.ready(name).await;
}

/// A program of `tests/senders`.
fn senders(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "senders", path].iter().collect()
}

/// A Python with the packages that send.
async fn python() -> PathBuf {
    Tool::new(senders("python")).succeed().await.trim().into()
}

fn by_id(requests: &[Received]) -> BTreeMap<&str, &Received> {
    requests.iter().map(|request| (request.header("ce-id"), request)).collect()
}

/// What senders are given: where to send, and, for the secure listener, whom to trust and who they are.
struct Address {
    url: String,
    ca: Option<PathBuf>,
    token: Option<String>,
}

/// All of them send.
async fn send(address: &Address) {
    let Address { url, ca, token } = address;
    let variables = |tool: Tool| {
        let tool = ca.iter().fold(tool, |tool, ca| tool.env("CA", ca));
        token.iter().fold(tool, |tool, token| tool.env("TOKEN", token))
    };
    variables(Tool::new(python().await).args([senders("send.py")]).args([url])).succeed().await;
    let go = directory::unique("send-go");
    let build = Tool::new("go").current_dir(senders("go")).args(["build", "-o"]).args([&go]).args(["."]);
    build.succeed().await;
    variables(Tool::new(&go).args([url])).succeed().await;
    let curl = ["--fail-with-body", "--silent", "--show-error", "--json", r#"{"mode":"curl"}"#];
    let mut curl = Tool::new("curl").args(curl).args(["--header", "postrider-event-type: order.paid", url]);
    if let Some(ca) = ca {
        curl = curl.arg("--cacert", ca);
    }
    if let Some(token) = token {
        curl = curl.arg("--oauth2-bearer", token);
    }
    curl.succeed().await;
}

async fn all_of_them_arrive(receiver: &Receiver) {
    let requests = receiver.wait_for(7).await;
    let found = by_id(&requests);
    for (id, source) in [
        ("python-binary", "/senders/python"),
        ("python-structured", "/senders/python"),
        ("go-binary", "/senders/go"),
        ("go-structured", "/senders/go"),
        ("go-batch-1", "/senders/go"),
        ("go-batch-2", "/senders/go"),
    ] {
        let request = found.get(id).unwrap_or_else(|| panic!("no {id} in {:?}", found.keys()));
        assert_eq!((request.header("ce-source"), request.header("ce-type")), (source, "order.paid"));
        assert_eq!(request.header("ce-subject"), "Zo%C3%AB's%20order,%20100%20%25", "{id}");
        assert!(request.header("content-type").starts_with("application/json"), "{id}");
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["price"], "12,50 €", "{id}");
        assert_eq!(body["mode"], id.split_once('-').unwrap().1);
    }
    let curl = requests.iter().find(|request| request.body == r#"{"mode":"curl"}"#).expect("sent by curl");
    assert_eq!((curl.header("ce-type"), curl.header("content-type")), ("order.paid", "application/json"));
}

async fn sdks_of_other_languages_and_curl_send_as_they_are(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    webhook(&scene, "shop", &receiver, json!({})).await;
    let dispatcher = scene.dispatcher().await;
    send(&Address { url: dispatcher.url_of("shop").await, ca: None, token: None }).await;
    all_of_them_arrive(&receiver).await;
}

/// An application of the namespace, with the token of its own ServiceAccount.
async fn the_same_send_over_tls_as_themselves(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    webhook(&scene, "shop", &receiver, json!({})).await;
    let shared = pki::shared().await;
    scene.serves_with(&shared.server).await;
    let dispatcher = scene.secure_dispatcher(&[]).await;
    let plain = dispatcher.url_of("shop").await;
    let port = secure_address(&dispatcher.process).await.port();
    dispatcher.process.line_with(&shared.server.facts.fingerprint_sha256).await;
    let ca = directory::unique("ca.crt");
    std::fs::write(&ca, shared.server_authority.root_pem()).unwrap();
    let path = plain.split_once("/v1/").unwrap().1;
    let url = format!("https://localhost:{port}/v1/{path}");
    let token = Some(sender(&scene.namespace, "app").await);
    send(&Address { url, ca: Some(ca), token }).await;
    all_of_them_arrive(&receiver).await;
}

async fn an_event_for_a_namespace_goes_to_the_webhooks_that_take_its_type(cluster: Arc<Cluster>) {
    let scene = Scene::new(cluster).await;
    let (all, orders, refunds) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    webhook(&scene, "all", &all, json!({})).await;
    webhook(&scene, "orders", &orders, json!({ "events": { "types": ["order.*"] } })).await;
    webhook(&scene, "refunds", &refunds, json!({ "events": { "types": ["refund"] } })).await;
    let dispatcher = scene.dispatcher().await;
    for name in ["all", "orders", "refunds"] {
        dispatcher.url_of(name).await;
    }

    let answer = dispatcher.poster().post_to_all("order.paid", "1").await;
    let taken: Vec<_> = answer["events"].as_array().unwrap().iter().map(|event| &event["webhook"]).collect();
    assert_eq!(taken, ["all", "orders"]);
    let (of_all, of_orders) = (all.wait_for(1).await, orders.wait_for(1).await);
    assert_eq!((of_all[0].header("ce-id"), of_orders[0].header("ce-id")), ("1", "1"));
    assert_ne!(of_all[0].header("webhook-id"), of_orders[0].header("webhook-id"));

    dispatcher.poster().post_to_all("refund", "2").await;
    let (of_all, of_refunds) = (all.wait_for(2).await, refunds.wait_for(1).await);
    assert_eq!((of_all[1].header("ce-id"), of_refunds[0].header("ce-id")), ("2", "2"));
    assert_eq!(orders.requests().len(), 1);

    // Nothing of what came before.
    let later = Receiver::start().await;
    webhook(&scene, "later", &later, json!({})).await;
    dispatcher.url_of("later").await;
    dispatcher.poster().post_to_all("order.paid", "3").await;
    assert_eq!(later.wait_for(1).await[0].header("ce-id"), "3");
}

async fn an_event_that_comes_again_after_a_kill_is_stored_once(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    webhook(&scene, "shop", &receiver, json!({})).await;
    let before = scene.dispatcher().await;
    before.url_of("shop").await;
    let first = before.poster().post_to_all("order.paid", "1").await;
    receiver.wait_for(1).await;
    before.process.kill().await;
    let after = scene.dispatcher_again(&before).await;
    after.url_of("shop").await;
    assert_eq!(after.poster().post_to_all("order.paid", "1").await, first);
    after.poster().post_to_all("order.paid", "2").await;
    let requests = receiver.wait_until("event 2", |requests| by_id(requests).contains_key("2")).await;
    // At least once: the kill may have come before what was delivered was written down.
    let of_first = requests.iter().filter(|request| request.header("ce-id") == "1");
    let ids: Vec<_> = of_first.map(|request| request.header("webhook-id")).collect();
    assert!(ids.iter().all(|id| first["events"][0]["id"] == *id), "{ids:?}: {first}");
}

/// Headers that are ours to set, and attributes that would end a header.
async fn what_a_sender_forges_goes_no_further(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    webhook(&scene, "shop", &receiver, json!({})).await;
    let dispatcher = scene.dispatcher().await;
    let url = dispatcher.url_of("shop").await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let forged = [
        ("webhook-id", "forged"),
        ("webhook-timestamp", "1"),
        ("webhook-signature", "v1,forged"),
        ("authorization", "Bearer forged"),
        ("cookie", "forged"),
        ("x-forged", "forged"),
        ("ce-specversion", "1.0"),
        ("ce-id", "1%0D%0Ax-forged:%20forged"),
        ("ce-source", "/shop"),
        ("ce-type", "order.paid"),
        ("ce-webhookid", "forged"),
    ];
    let request = forged.iter().fold(http.post(&url), |request, (name, value)| request.header(*name, *value));
    assert_eq!(request.body("binary").send().await.unwrap().status(), 202);
    let event = json!({
        "specversion": "1.0", "id": "2\r\nx-forged: forged", "source": "/shop\u{0}", "type": "order.paid\n",
        "subject": "\r\n\r\nsmuggled", "datacontenttype": "text/plain", "data": "structured",
    });
    let structured = |event: &Value| {
        http.post(&url).header("content-type", "application/cloudevents+json").body(event.to_string()).send()
    };
    assert_eq!(structured(&event).await.unwrap().status(), 202);
    // This one goes out as it is, so it is refused.
    let mut unsendable = event.clone();
    unsendable["datacontenttype"] = json!("text/plain\r\nx-forged: forged");
    assert_eq!(structured(&unsendable).await.unwrap().status(), 400);

    let requests = receiver.wait_for(2).await;
    for request in &requests {
        let text: Vec<_> = request.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        assert!(
            !request.headers.contains_key("x-forged") && !request.headers.contains_key("cookie"),
            "{text:?}"
        );
        assert!(!request.headers.contains_key("authorization"), "{text:?}");
        assert!(!request.headers.contains_key("webhook-signature"), "{text:?}");
        assert!(request.header("webhook-id").parse::<uuid::Uuid>().is_ok(), "{text:?}");
        assert_ne!(request.header("webhook-timestamp"), "1");
    }
    let ids: Vec<_> = requests.iter().map(|request| request.header("ce-id")).collect();
    assert!(ids.contains(&"1%0D%0Ax-forged:%20forged"), "{ids:?}");
    assert!(ids.contains(&"2%0D%0Ax-forged:%20forged"), "{ids:?}");
    let structured = requests.iter().find(|request| request.body == "structured").unwrap();
    assert_eq!(structured.header("ce-subject"), "%0D%0A%0D%0Asmuggled");
    assert_eq!(structured.header("ce-source"), "/shop%00");
}

/// Requests made from `docs/openapi.yaml`, good ones and others: each answer is one that is told there.
async fn the_contract_is_kept(cluster: Arc<Cluster>) {
    let (scene, receiver) = (Scene::new(cluster).await, Receiver::start().await);
    webhook(&scene, "shop", &receiver, json!({})).await;
    let dispatcher = scene.dispatcher().await;
    dispatcher.url_of("shop").await;
    let directory = directory::unique_directory("contract");
    std::fs::write(directory.join("schemathesis.toml"), config(scene.namespace.name())).unwrap();
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.yaml");
    let said = Tool::new(python().await.with_file_name("schemathesis"))
        .current_dir(directory)
        .args(["run", contract, "--url"])
        .args([dispatcher.origin()])
        .succeed()
        .await;
    println!("{said}");
}

/// Mostly the webhook that is there, and the same requests whenever it runs.
fn config(namespace: &str) -> String {
    format!(
        r#"
color = false
seed = 1
max-failures = 40

[dictionaries]
namespaces = {{ values = ["{namespace}"] }}
names = {{ values = ["shop"] }}

[parameters]
"path.namespace" = {{ dictionary = "namespaces", probability = 0.9 }}
"path.name" = {{ dictionary = "names", probability = 0.9 }}

[generation]
database = "none"
max-examples = 60

[phases.stateful.generation]
max-examples = 10
"#
    )
}
