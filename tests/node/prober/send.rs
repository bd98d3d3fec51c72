//! The sender: as a sender should be. An event that was not taken is sent again with the same source and id, after
//! `Retry-After` or a moment.

use std::{
    error::Error,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Args;
use jiff::Timestamp;
use reqwest::{Certificate, Client, header::RETRY_AFTER};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::record::{Answer, Answered, Lines, NOT_TRUSTED, answered};

/// Events that are not taken yet; no other one is begun beyond that.
const UNDER_WAY: u32 = 64;

/// Before an event is sent again without having been told when; up to twice as long.
const AGAIN: Duration = Duration::from_millis(250);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection whose other end has gone without a word is given up: between two pings, and for one.
const PING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

#[derive(Args)]
pub(crate) struct Options {
    /// Where events are taken
    #[arg(long)]
    url: String,
    /// The ServiceAccount's token
    #[arg(long)]
    token: PathBuf,
    /// Who signs the certificate of ingest, PEM
    #[arg(long)]
    ca: PathBuf,
    /// Where answers are written; numbers go on from what is there
    #[arg(long)]
    record: PathBuf,
    /// Events begun in a second
    #[arg(long, default_value_t = 100)]
    per_second: u32,
    /// Size of a body
    #[arg(long, default_value_t = 64)]
    body_bytes: usize,
}

pub(crate) async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let mut number = last(&options)?;
    let mut every = interval(Duration::from_secs(1) / options.per_second.max(1));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let sender = Arc::new(Sender::new(options)?);
    let under_way = Arc::new(Semaphore::new(UNDER_WAY as usize));
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let begin = async {
            every.tick().await;
            Arc::clone(&under_way).acquire_owned().await
        };
        let place = tokio::select! {
            _ = terminate.recv() => break,
            place = begin => place?,
        };
        number += 1;
        let sender = Arc::clone(&sender);
        tokio::spawn(async move {
            sender.until_taken(number).await;
            drop(place);
        });
    }
    let _all = under_way.acquire_many(UNDER_WAY).await?;
    Ok(())
}

/// The highest number that was sent before.
fn last(options: &Options) -> io::Result<u64> {
    let mut last = 0;
    if options.record.exists() {
        let mut lines = Lines::open(&options.record)?;
        while let Some(answered) = lines.next(answered)? {
            last = last.max(answered.number);
        }
    }
    Ok(last)
}

struct Sender {
    client: Client,
    record: Mutex<File>,
    padding: String,
    options: Options,
}

impl Sender {
    fn new(options: Options) -> Result<Self, Box<dyn Error>> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::builder()
            .no_proxy()
            .tls_certs_only(Certificate::from_pem_bundle(&fs::read(&options.ca)?)?)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .http2_keep_alive_interval(PING.0)
            .http2_keep_alive_timeout(PING.1)
            .build()?;
        let record = OpenOptions::new().create(true).append(true).open(&options.record)?;
        let padding = "x".repeat(options.body_bytes);
        Ok(Self { client, record: Mutex::new(record), padding, options })
    }

    async fn until_taken(&self, number: u64) {
        loop {
            let answer = self.send(number).await;
            let wait = match &answer {
                Answer::Http { retry_after: Some(seconds), .. } => Duration::from_secs(*seconds),
                _ => AGAIN.mul_f64(1.0 + rand::random::<f64>()),
            };
            let taken = answer.is_taken();
            self.write_down(&Answered { at: Timestamp::now().as_millisecond(), number, answer });
            if taken {
                return;
            }
            sleep(wait).await;
        }
    }

    async fn send(&self, number: u64) -> Answer {
        // The kubelet renews it.
        let token = match fs::read_to_string(&self.options.token) {
            Ok(token) => token,
            Err(error) => return Answer::Nothing(format!("no-token:{:?}", error.kind())),
        };
        let event = self.client.post(&self.options.url).bearer_auth(token.trim());
        let event = event.header("ce-specversion", "1.0").header("ce-id", number.to_string());
        let event = event.header("ce-source", "/prober").header("ce-type", "prober.tick");
        let event = event.header("content-type", "application/json");
        let body = format!("{{\"number\":{number},\"padding\":\"{}\"}}", self.padding);
        match event.body(body).send().await {
            Ok(answer) => {
                let retry_after =
                    answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                Answer::Http { status: answer.status().as_u16(), retry_after }
            }
            Err(error) => Answer::Nothing(why(&error)),
        }
    }

    /// In one write: whoever reads sees whole lines.
    fn write_down(&self, answered: &Answered) {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = record.write_all(format!("{answered}\n").as_bytes()) {
            eprintln!("{answered} cannot be written down: {error}");
        }
    }
}

/// In a word.
fn why(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return if error.is_connect() { "connect-timeout" } else { "timeout" }.to_owned();
    }
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            let trusted = !matches!(tls, rustls::Error::InvalidCertificate(_));
            return if trusted { "TLS" } else { NOT_TRUSTED }.to_owned();
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            match io.kind() {
                ErrorKind::ConnectionRefused => return "refused".to_owned(),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return "reset".to_owned(),
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                    return "unreachable".to_owned();
                }
                ErrorKind::UnexpectedEof => return "closed".to_owned(),
                _ => {}
            }
        }
        if error.to_string().starts_with("dns error") {
            return "name-not-resolved".to_owned();
        }
        // An io::Error that wraps another hides it from `source`.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        source = wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source());
    }
    if error.is_connect() { "no-connection" } else { "closed" }.to_owned()
}
