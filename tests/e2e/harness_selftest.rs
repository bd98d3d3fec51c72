//! That what the other tests stand on stands.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::{
    Api,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};
use reqwest::{Certificate, Client, Identity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    cluster::Cluster,
    eventually,
    nginx::Nginx,
    pki::{self, Authority, Key, Request, Validity},
    process::Program,
    receiver::{Answer, ClientAuth, Options, Receiver},
    secrets,
};

tests![
    a_namespace_serves_kubectl_and_the_client,
    owned_objects_go_with_their_owner,
    the_api_server_stops_and_comes_back,
    openssl_and_keytool_agree_on_a_certificate,
    certificates_have_the_validity_that_was_asked_for,
    the_receiver_tells_who_sent_what,
    the_receiver_refuses_strangers,
    the_receiver_answers_as_told,
    nginx_tells_who_sent_what,
    processes_end_as_told,
    a_process_is_awaited_until_it_is_ready,
    a_leaked_secret_is_found,
];

async fn a_namespace_serves_kubectl_and_the_client(cluster: Arc<Cluster>) {
    let namespace = cluster.namespace_with_labels(&[("postrider.dev/mtls", "enabled")]).await;
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: greeting}\ndata: {word: hello}\n";
    namespace.apply(manifest).await.succeeded();
    let map =
        eventually::object(&namespace.api::<ConfigMap>(), "greeting", "its data", |map| map.data.is_some())
            .await;
    assert_eq!(map.data.unwrap()["word"], "hello");

    let shown = namespace.kubectl(["get", "configmap", "greeting", "-o", "jsonpath={.data.word}"]).await;
    assert_eq!(shown.succeeded(), "hello");
    let label = "jsonpath={.metadata.labels.postrider\\.dev/mtls}";
    let labels = cluster.kubectl(["get", "namespace", namespace.name(), "-o", label]).await;
    assert_eq!(labels.succeeded(), "enabled");
    let missing = namespace.kubectl(["get", "configmap", "nothing"]).await.failed();
    assert!(missing.contains("not found"), "{missing}");

    namespace.assert_no_secret_in("configmaps,events").await;

    let accounts = namespace.api::<ServiceAccount>();
    eventually::objects(&accounts, &ListParams::default(), "the default one", |found| !found.is_empty())
        .await;

    let name = namespace.name().to_owned();
    drop(namespace);
    eventually::gone(&Api::<Namespace>::all(cluster.client()), &name).await;
}

async fn owned_objects_go_with_their_owner(cluster: Arc<Cluster>) {
    let namespace = cluster.namespace().await;
    let maps = namespace.api::<ConfigMap>();
    let create = async |name: &str, owner: Option<&ConfigMap>| {
        let owner_references = owner.map(|owner| vec![kube::Resource::owner_ref(owner, &()).unwrap()]);
        let metadata = ObjectMeta { name: Some(name.to_owned()), owner_references, ..ObjectMeta::default() };
        let map = ConfigMap { metadata, ..ConfigMap::default() };
        maps.create(&PostParams::default(), &map).await.unwrap()
    };
    let owner = create("owner", None).await;
    create("owned", Some(&owner)).await;
    maps.delete("owner", &DeleteParams::background()).await.unwrap();
    eventually::gone(&maps, "owned").await;
}

async fn the_api_server_stops_and_comes_back(_: Arc<Cluster>) {
    let cluster = Cluster::start_own().await;
    let namespace = cluster.namespace().await;
    cluster.stop_api_server().await;
    let down = cluster.kubectl(["get", "namespace", namespace.name()]).await.failed();
    assert!(down.contains("refused"), "{down}");
    cluster.start_api_server().await;
    cluster.kubectl(["get", "namespace", namespace.name()]).await.succeeded();
}

async fn openssl_and_keytool_agree_on_a_certificate(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    let facts = &shared.client.facts;
    assert_eq!(facts.subject, "CN=orders,O=Example");
    assert_eq!(facts.issuer, "CN=Client issuer,O=Postrider tests");
    assert_eq!(facts.fingerprint_sha256, pki::fingerprint(&shared.client.chain_der()[0]));
    for store in [shared.pkcs12().await, shared.pkcs12_legacy().await, shared.jks().await] {
        let entries = store.entries().await;
        assert_eq!(entries.len(), 1, "{:?}: {entries:?}", store.format);
        let entry = &entries[0];
        assert_eq!((entry.alias.as_str(), entry.kind.as_str()), (pki::ALIAS, "PrivateKeyEntry"));
        assert_eq!((entry.chain_length, entry.owner.as_str()), (3, "CN=orders, O=Example"));
        assert_eq!(entry.fingerprint_sha256, facts.fingerprint_sha256);
        assert_eq!((entry.not_before, entry.not_after), (facts.not_before, facts.not_after));
        assert_eq!(entry.serial, facts.serial.to_lowercase().trim_start_matches('0'));
    }
    let own = shared.client.jks_with("violet-harbour", "copper-lantern").await;
    assert_eq!(own.key_password.as_deref(), Some("copper-lantern"));
}

async fn certificates_have_the_validity_that_was_asked_for(_: Arc<Cluster>) {
    let authority = Authority::root("Dates").await;
    let issue = async |validity| {
        let request = Request::client("/CN=dates").key(Key::Rsa2048).validity(validity);
        authority.issue(&request).await.facts
    };
    let now = jiff::Timestamp::now();
    assert!(issue(Validity::Expired).await.not_after < now);
    assert!(issue(Validity::NotYet).await.not_before > now);
    let soon = issue(Validity::ExpiresIn(Duration::from_secs(30))).await.not_after;
    let seconds = soon.duration_since(now).as_secs();
    assert!((29..40).contains(&seconds), "it expires in {seconds} s");
}

async fn the_receiver_tells_who_sent_what(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    let receiver = Receiver::start().await;
    let client = client_of(&shared.client).await;
    for body in ["one", "two"] {
        let url = receiver.url() + "/hook?a=1";
        let response = client.post(url).header("webhook-id", body).body(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap();
    }
    let requests = receiver.wait_for(2).await;
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("POST", "/hook?a=1"));
    assert_eq!((requests[1].header("webhook-id"), &requests[1].body[..]), ("two", &b"two"[..]));
    for request in &requests {
        assert_eq!(request.client_fingerprint_sha256.as_ref(), Some(&shared.client.facts.fingerprint_sha256));
        assert_eq!(request.connection, 1, "the connection was not used again");
    }
}

async fn the_receiver_refuses_strangers(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    let required = ClientAuth::Required(&shared.client_authority);
    for options in
        [Options::new(&shared.server, required), Options::new(&shared.server, required).tls12_only()]
    {
        let receiver = options.start().await;
        let anonymous = client(None).await;
        anonymous.post(receiver.url()).send().await.expect_err("it has no certificate");
        let failed = receiver.wait_for_failed_handshakes(1).await;
        assert!(failed[0].contains("no certificates"), "{failed:?}");
        assert_eq!(receiver.requests().len(), 0);
    }
    let optional = Options::new(&shared.server, ClientAuth::Optional(&shared.client_authority)).start().await;
    assert_eq!(client(None).await.post(optional.url()).send().await.unwrap().status(), 200);
    assert_eq!(optional.requests()[0].client_fingerprint_sha256, None);
}

async fn the_receiver_answers_as_told(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    let receiver = Options::new(&shared.server, ClientAuth::None).start().await;
    let client = client(None).await;
    receiver.first([Answer::status(503).header("retry-after", "1"), Answer::status(500).body("no")]);
    receiver.always(Answer::status(204));
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(client.post(receiver.url()).send().await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [204, 204], "`always` also forgets what was to come first");
    receiver.first([Answer::status(503), Answer::status(500)]);
    for expected in [503, 500, 204] {
        assert_eq!(client.post(receiver.url()).send().await.unwrap().status(), expected);
    }

    let hold = receiver.hold();
    let response = tokio::spawn(client.post(receiver.url()).send());
    receiver.wait_for(6).await;
    assert!(!response.is_finished(), "it was answered while held");
    drop(hold);
    let response = eventually::within(eventually::TIMEOUT, "the held answer", response).await.unwrap();
    assert_eq!(response.unwrap().status(), 204);

    let (address, url) = (receiver.address(), receiver.url());
    drop(receiver);
    eventually::polled("the port to be closed", || async {
        let answered = client.post(&url).send().await;
        if answered.is_err() { Ok(()) } else { Err(format!("{answered:?}")) }
    })
    .await;
    let again = Options::new(&shared.server, ClientAuth::None).address(address).start().await;
    assert_eq!(client.post(again.url()).send().await.unwrap().status(), 200);
}

async fn nginx_tells_who_sent_what(_: Arc<Cluster>) {
    let shared = pki::shared().await;
    let nginx = Nginx::start().await;
    let response = client_of(&shared.client)
        .await
        .post(nginx.url() + "/hook")
        .header("webhook-id", "msg_1")
        .header("ce-id", "event \"1\"")
        .body("{\"greeting\": \"h\u{e9}llo\"}")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let request = nginx.request("the request msg_1", |access| access.webhook_id == "msg_1").await;
    assert_eq!(request.client_fingerprint_sha256(), Some(shared.client.facts.fingerprint_sha256.clone()));
    assert_eq!((request.verify.as_str(), request.ce_id.as_str()), ("SUCCESS", "event \"1\""));
    assert_eq!(request.body, "{\"greeting\": \"h\u{e9}llo\"}");

    let refused = client(None).await.post(nginx.url() + "/stranger").send().await.unwrap();
    assert_eq!(refused.status(), 400);
    let request = nginx.request("the stranger", |access| access.path == "/stranger").await;
    assert_eq!((request.verify.as_str(), request.client_fingerprint_sha256()), ("NONE", None));
}

async fn processes_end_as_told(_: Arc<Cluster>) {
    let script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let polite = Program::new("polite", "bash").args(["-c", script]).start();
    polite.line_with("up").await;
    assert!(polite.is_running());
    polite.terminate().await;
    polite.line_with("bye").await;
    assert!(!polite.is_running());

    let stubborn =
        Program::new("stubborn", "bash").args(["-c", "trap '' TERM; echo up; exec sleep 60"]).start();
    stubborn.line_with("up").await;
    stubborn.kill().await;
    assert!(!stubborn.is_running());
}

async fn a_process_is_awaited_until_it_is_ready(_: Arc<Cluster>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/readyz", listener.local_addr().unwrap());
    let answers = tokio::spawn(async move {
        for status in ["503 Service Unavailable", "200 OK"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_buf(&mut Vec::with_capacity(1024)).await.unwrap();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let process = Program::new("sleeper", "sleep").args(["60"]).start();
    process.http_ready(&url).await;
    answers.await.unwrap();
}

async fn a_leaked_secret_is_found(_: Arc<Cluster>) {
    let key = pki::shared().await.client.key_pem();
    let password = pki::new_password();
    let base64url = |text: &str| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
    secrets::password("this password", &password);
    let (claims, signature) = (base64url(&pki::new_password()), base64url(&pki::new_password()));
    secrets::token("this token", &format!("eyJhbGciOiJFUzI1NiJ9.{claims}.{signature}\n"));
    let lines: Vec<&str> = key.lines().collect();
    let body = lines[1..lines.len() - 1].concat();
    let base64 = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
    let der = data_encoding::BASE64.decode(body.as_bytes()).unwrap();
    for leak in [
        key.clone(),
        body,
        base64(&key),
        format!("{der:?}"),
        data_encoding::HEXLOWER.encode(&der),
        format!("error: {password}!"),
        base64(&password),
        base64(&format!("user:{password}")),
        format!("authorization: Bearer eyJhbGciOiJFUzI1NiJ9.{claims}.{signature}"),
        claims,
        format!("…{signature}"),
    ] {
        assert!(!secrets::findings(leak.as_bytes()).is_empty(), "not found: {leak}");
    }
    let public = pki::shared().await.client.leaf_pem() + "eyJhbGciOiJFUzI1NiJ9";
    assert_eq!(secrets::findings(public.as_bytes()), Vec::<String>::new());
}

async fn client_of(certificate: &pki::Certificate) -> Client {
    let pem = certificate.key_pem() + &certificate.chain_pem();
    client(Some(Identity::from_pem(pem.as_bytes()).unwrap())).await
}

/// A client that trusts the shared server.
async fn client(identity: Option<Identity>) -> Client {
    let roots = pki::certificates(&pki::shared().await.server_authority.root);
    let roots = roots.iter().map(|root| Certificate::from_der(root).unwrap());
    let builder = Client::builder().no_proxy().tls_certs_only(roots);
    identity.into_iter().fold(builder, reqwest::ClientBuilder::identity).build().unwrap()
}
