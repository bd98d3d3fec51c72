//! From a name to a connection: what is dialled, and what never is.

use std::{net::IpAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::{Instant, timeout},
};

use super::*;

const SOON: Duration = Duration::from_secs(5);

fn ranges(texts: &[&str]) -> Vec<Range> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// For receivers on this machine.
pub(crate) fn loopback() -> Egress {
    Egress::new(&Options { egress_allow: ranges(&["127.0.0.0/8"]), ..Options::default() }).unwrap()
}

/// Names get one of these answers after the other.
pub(crate) fn scripted(allow: &[&str], proxy: Option<&str>, answers: &[&[&str]]) -> Egress {
    let answers =
        answers.iter().map(|answer| answer.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect());
    Egress(Arc::new(Inner {
        policy: Policy::new(ranges(allow), Vec::new()),
        names: Names::Scripted(std::sync::Mutex::new(answers.collect())),
        proxy: proxy.map(|url| Proxy::new(url).unwrap()),
        connections: Connections::default(),
    }))
}

async fn connect(egress: &Egress, host: &str, port: u16) -> Result<(Stream, std::net::SocketAddr), Error> {
    egress.dial(&egress.resolve(host, port).await?, Instant::now() + SOON).await
}

fn refused(result: Result<(Stream, std::net::SocketAddr), Error>) -> Refused {
    match result {
        Err(Error::Refused(refused)) => refused,
        Err(error) => panic!("it failed otherwise: {error}"),
        Ok((_, address)) => panic!("it dialled {address}"),
    }
}

/// A listener, and that nobody has dialled it.
async fn listening() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn is_dialled(listener: &TcpListener) -> bool {
    timeout(Duration::from_millis(50), listener.accept()).await.is_ok()
}

#[tokio::test]
async fn a_rebinding_name_gets_nowhere() {
    let (listener, port) = listening().await;
    // First a permitted address, as whoever checks once would see it; the next answer is the machine itself.
    let egress = scripted(&["127.0.0.2/32"], None, &[&["127.0.0.2"], &["127.0.0.1"], &["::ffff:127.0.0.1"]]);
    let checked = egress.resolve("rebinding.example", port).await.unwrap();
    let dialled = egress.dial(&checked, Instant::now() + SOON).await;
    assert_eq!(
        dialled.err(),
        Some(Error::NotConnected(format!("127.0.0.2:{port}: Connection refused (os error 111)")))
    );
    for address in ["127.0.0.1", "::ffff:127.0.0.1"] {
        let refused = refused(connect(&egress, "rebinding.example", port).await);
        assert_eq!(
            (refused.host.as_str(), refused.address.to_string().as_str()),
            ("rebinding.example", address)
        );
    }
    assert!(!is_dialled(&listener).await);
}

#[tokio::test]
async fn of_many_addresses_only_those_that_are_permitted_are_dialled() {
    let (listener, port) = listening().await;
    let elsewhere = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let answer = ["169.254.169.254", "127.0.0.1", "::1", "127.0.0.2", "fe80::1"];
    let egress = scripted(&["127.0.0.2/32"], None, &[&answer]);
    let (_, address) = connect(&egress, "many.example", port).await.unwrap();
    assert_eq!(address, elsewhere.local_addr().unwrap());
    assert!(!is_dialled(&listener).await);
}

#[tokio::test]
async fn an_address_in_a_url_is_checked_like_that_of_a_name() {
    let (listener, port) = listening().await;
    let egress = scripted(&[], None, &[]);
    // As the url crate writes them.
    for (host, says) in [
        ("127.0.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("１２７.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
        ("[::ffff:7f00:1]", "::ffff:127.0.0.1"),
        ("[64:ff9b::7f00:1]", "64:ff9b::7f00:1"),
    ] {
        let url: url::Url = format!("https://{host}:{port}/").parse().unwrap();
        let refused = refused(connect(&egress, url.host_str().unwrap(), port).await);
        assert_eq!(
            (refused.host.parse(), refused.address.to_string().as_str()),
            (Ok(refused.address), says),
            "{host}"
        );
    }
    assert!(!is_dialled(&listener).await);
}

#[tokio::test]
async fn names_of_this_machine_are_refused_as_the_system_resolves_them() {
    let (listener, port) = listening().await;
    let egress = Egress::new(&Options::default()).unwrap();
    for host in ["localhost", "LOCALHOST"] {
        let refused = refused(connect(&egress, host, port).await);
        assert_eq!(refused.why, Why::Default(Class::Loopback));
        assert!(refused.to_string().contains("--egress-allow"), "{refused}");
    }
    assert!(!is_dialled(&listener).await);
    assert!(connect(&loopback(), "localhost", port).await.is_ok());
    assert!(is_dialled(&listener).await);
}

#[test]
fn a_refusal_tells_the_address_why_and_the_way_out() {
    let refused = |host: &str, address: &str, why| {
        Refused { host: host.to_owned(), address: address.parse().unwrap(), why }.to_string()
    };
    assert_eq!(
        refused("metadata.example", "169.254.169.254", Why::Default(Class::LinkLocal)),
        "metadata.example has the address 169.254.169.254, a link-local address, where clouds have their metadata \
         service, and nothing was sent: such an address is dialled only where the administrator of Postrider \
         permits it, by --egress-allow 169.254.169.254/32"
    );
    assert_eq!(
        refused("10.0.0.7", "10.0.0.7", Why::Denied("10.0.0.0/8".parse().unwrap())),
        "10.0.0.7 is an address that the administrator of Postrider denies by --egress-deny 10.0.0.0/8, and nothing \
         was sent"
    );
}

#[tokio::test]
async fn a_name_without_an_address_has_none() {
    let egress = scripted(&[], None, &[&[]]);
    assert_eq!(
        connect(&egress, "empty.example", 443).await.err(),
        Some(Error::NoAddress("the answer is empty".into()))
    );
}

#[tokio::test]
async fn an_address_that_does_not_answer_gets_company_by_the_next() {
    let (listener, port) = listening().await;
    // Its queue is full: who dials it hears nothing.
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind(format!("127.0.0.3:{port}").parse().unwrap()).unwrap();
    let silent = silent.listen(0).unwrap();
    let _fills = tokio::net::TcpStream::connect(silent.local_addr().unwrap()).await.unwrap();
    let egress = scripted(
        &["127.0.0.0/8"],
        None,
        &[&["127.0.0.3", "127.0.0.2", "127.0.0.1"], &["127.0.0.3", "127.0.0.2"]],
    );
    let started = Instant::now();
    let (_, address) = connect(&egress, "far.example", port).await.unwrap();
    assert_eq!(address, listener.local_addr().unwrap());
    assert!(started.elapsed() < SOON / 2, "{:?}", started.elapsed());
    // What became of each is told.
    let checked = egress.resolve("far.example", port).await.unwrap();
    let error = egress.dial(&checked, Instant::now() + Duration::from_millis(600)).await.err();
    let told = format!("127.0.0.3:{port}: no answer; 127.0.0.2:{port}: Connection refused (os error 111)");
    assert_eq!(error, Some(Error::NotConnected(told)));
}

/// A proxy that gives these answers, one a connection, and returns what it was asked.
async fn proxy(answers: &'static [&'static str]) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
    let (listener, port) = listening().await;
    let task = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            asked.push(String::from_utf8(head).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    });
    (port, task)
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_address_that_was_checked() {
    // The endpoint's first byte comes with the proxy's answer.
    let (port, asked) =
        proxy(&["HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nx"]).await;
    let url = format!("http://user:open%20sesame@127.0.0.1:{port}");
    let answer = ["169.254.169.254", "192.0.2.1", "2001:db8::1"];
    let egress = scripted(&[], Some(&url), &[&answer]);
    let (mut stream, address) = connect(&egress, "endpoint.example", 8443).await.unwrap();
    assert_eq!(address, "[2001:db8::1]:8443".parse().unwrap());
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    let asked = asked.await.unwrap();
    for (asked, target) in asked.iter().zip(["192.0.2.1:8443", "[2001:db8::1]:8443"]) {
        assert!(asked.starts_with(&format!("CONNECT {target} HTTP/1.1\r\n")), "{asked}");
        assert!(asked.contains(&format!("host: {target}\r\n")), "{asked}");
        assert!(asked.contains("proxy-authorization: Basic dXNlcjpvcGVuIHNlc2FtZQ==\r\n"), "{asked}");
        assert!(!asked.contains("endpoint.example"), "{asked}");
    }
    assert_eq!(asked.len(), 2);
}

#[tokio::test]
async fn a_proxy_is_asked_for_nothing_that_is_refused() {
    let (listener, port) = listening().await;
    let url = format!("http://127.0.0.1:{port}");
    let egress = scripted(&[], Some(&url), &[&["127.0.0.1"]]);
    refused(connect(&egress, "rebinding.example", 443).await);
    refused(connect(&egress, "[::1]", 443).await);
    assert!(!is_dialled(&listener).await);
}

#[tokio::test]
async fn what_a_proxy_does_not_do_is_told_as_its_doing() {
    let closed = {
        let (_listener, port) = listening().await;
        port
    };
    for (answer, credentials, says) in [
        ("HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n", "", "wants credentials (HTTP 407)"),
        ("HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n", "user:opensesame@", "does not take the credentials"),
        (
            "HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n",
            "",
            "did not connect: 192.0.2.1:443: HTTP 403 Forbidden",
        ),
        ("220 mail.example\r\n\r\n", "", "did not answer CONNECT"),
        ("", "", "did not answer CONNECT"),
    ] {
        let answers = Box::leak(Box::new([answer]));
        let (port, _asked) = proxy(answers).await;
        let egress = scripted(&[], Some(&format!("http://{credentials}127.0.0.1:{port}")), &[&["192.0.2.1"]]);
        let error = connect(&egress, "endpoint.example", 443).await.err().unwrap();
        assert!(
            matches!(&error, Error::Proxy { proxy, what }
            if *proxy == format!("http://127.0.0.1:{port}") && what.contains(says)),
            "{error}"
        );
        assert!(!error.to_string().contains("opensesame"));
    }
    let egress = scripted(&[], Some(&format!("http://127.0.0.1:{closed}")), &[&["192.0.2.1"]]);
    let error = connect(&egress, "endpoint.example", 443).await.err().unwrap().to_string();
    assert!(
        error.contains("the proxy http://127.0.0.1:") && error.contains("cannot be reached: "),
        "{error}"
    );
}
