//! As much of a kubelet as a port-forward takes: a node whose Pods all listen at one address of this machine.
//!
//! The API server hands the client's WebSocket on (`v4.channel.k8s.io`): channel 0 carries the bytes of the port,
//! channel 1 an error, and both begin with the number of the port, two bytes, little-endian.

use std::{net::SocketAddr, sync::Arc};

use futures::{SinkExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        http::HeaderValue,
    },
};

use super::{
    pki,
    receiver::{ClientAuth, Options},
};

const PROTOCOL: &str = "v4.channel.k8s.io";

/// A running one; dropped, it serves nobody any more.
pub(crate) struct Kubelet {
    node: String,
    client: Client,
    _serves: JoinSet<()>,
}

impl Kubelet {
    /// A node whose Pods' ports are all at this address.
    pub(crate) async fn start(client: Client, to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a kubelet can listen");
        let port = listener.local_addr().expect("it has an address").port();
        let tls = Options::new(&pki::shared().await.server, ClientAuth::None).tls();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let mut serves = JoinSet::new();
        serves.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        forward(stream, to).await;
                    }
                });
            }
        });
        let node = format!("node-{port}");
        let nodes: Api<Node> = Api::all(client.clone());
        let object = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node } });
        let object = serde_json::from_value(object).expect("it is a Node");
        nodes.create(&PostParams::default(), &object).await.expect("the node can be made");
        let status = json!({ "status": {
            "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
        } });
        let patched = nodes.patch_status(&node, &PatchParams::default(), &Patch::Merge(status)).await;
        patched.expect("the node's status can be written");
        Self { node, client, _serves: serves }
    }

    /// A Pod that runs there; `spec` is the rest of its container.
    pub(crate) async fn pod(&self, namespace: &str, name: &str, labels: Value, ports: Value) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": labels },
            "spec": {
                "nodeName": self.node, "automountServiceAccountToken": false,
                "tolerations": [{ "operator": "Exists" }],
                "containers": [{ "name": "dispatcher", "image": "x", "ports": ports }],
            },
        });
        let object = serde_json::from_value(object).expect("it is a Pod");
        super::eventually::polled("the namespace's ServiceAccount", || async {
            pods.create(&PostParams::default(), &object).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        let status = json!({ "status": {
            "phase": "Running",
            "containerStatuses": [{
                "name": "dispatcher", "image": "x", "imageID": "", "ready": true, "restartCount": 0,
                "state": { "running": {} },
            }],
        } });
        let patched = pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
        patched.expect("the Pod's status can be written");
    }
}

/// One port-forward.
async fn forward(stream: tokio_rustls::server::TlsStream<TcpStream>, to: SocketAddr) {
    let mut port = 0_u16;
    // The type is the library's.
    #[allow(clippy::result_large_err)]
    let shake = |request: &Request, mut response: Response| {
        let query = request.uri().query().unwrap_or_default();
        port = query.rsplit('=').next().and_then(|port| port.parse().ok()).unwrap_or_default();
        response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(PROTOCOL));
        Ok(response)
    };
    let Ok(socket) = accept_hdr_async(stream, shake).await else { return };
    let (mut sink, mut source) = socket.split();
    let [low, high] = port.to_le_bytes();
    for channel in [0, 1] {
        if sink.send(Message::binary(vec![channel, low, high])).await.is_err() {
            return;
        }
    }
    let Ok(stream) = TcpStream::connect(to).await else { return };
    let (mut read, mut write) = stream.into_split();
    let up = async {
        while let Some(Ok(message)) = source.next().await {
            let bytes = message.into_data();
            if let Some((0, data)) = bytes.split_first().map(|(channel, data)| (*channel, data))
                && write.write_all(data).await.is_err()
            {
                break;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = read.read(&mut buffer).await {
            let frame = [&[0], &buffer[..count]].concat();
            if sink.send(Message::binary(frame)).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}
