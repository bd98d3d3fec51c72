//! `send`: an event of a person's own, such as a test event.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::Value;

use super::{
    cluster::Connection,
    dispatcher::{Options, Right},
    failure::Failure,
    output::{Output, marked},
    paint::{State, Text, bold},
};
use crate::{event::http::EVENT_TYPE_HEADER, inspect, limits};

#[derive(Args)]
pub(super) struct Send {
    /// The webhook
    name: String,
    /// The CloudEvents type of the event
    #[arg(long = "type", value_name = "TYPE", default_value = "dev.postrider.test")]
    event_type: String,
    /// What is in it
    #[arg(long, value_name = "TEXT", default_value = r#"{"test":true}"#)]
    data: String,
    /// A file with what is in it; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    data_file: Option<PathBuf>,
    /// What that is
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    content_type: String,
    #[command(flatten)]
    dispatcher: Options,
}

impl Send {
    pub(super) async fn run(&self, connection: &Connection, output: Output) -> Result<(), Failure> {
        let data = match &self.data_file {
            Some(path) => Bytes::copy_from_slice(&inspect::read(path, limits::EVENT_BYTES)?),
            None => Bytes::copy_from_slice(self.data.as_bytes()),
        };
        let value = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| Failure::usage(format!("{text:?} cannot be sent in a header")))
        };
        let headers = HeaderMap::from_iter([
            (HeaderName::from_static(EVENT_TYPE_HEADER), value(&self.event_type)?),
            (header::CONTENT_TYPE, value(&self.content_type)?),
        ]);
        let right = Right { verb: "create", subresource: "events" };
        let mut door = self.dispatcher.open(connection, &self.name, right).await?;
        let path = format!("namespaces/{}/outboundwebhooks/{}/events", connection.namespace, self.name);
        let taken = door.ask(Method::POST, &path, headers, data).await?;
        output.print(&taken, [self.name.as_str()], || {
            let ids = taken["ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let ids = ids.collect::<Vec<_>>().join(", ");
            let status = connection.command(&["status", &self.name]);
            marked(State::Good, format!("kept on disk as {ids}"))
                + (Text::from("  what becomes of it: ") + bold(status)).line()
        })
    }
}
