//! `dead`: the events that were given up, and are kept by the dispatcher.

use std::io::{self, BufRead as _, IsTerminal as _};

use bytes::Bytes;
use clap::{Args, Subcommand, builder::RangedU64ValueParser};
use data_encoding::BASE64;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::{Value, json};
use url::form_urlencoded;
use uuid::Uuid;

use super::{
    cluster::Connection,
    dispatcher::{Door, Options, Right},
    failure::Failure,
    output::{self, Output, ago, cell, count, field, marked, table},
    paint::{State, Text, bold},
};
use crate::limits;

#[derive(Subcommand)]
pub(super) enum Dead {
    /// List them, the oldest first
    List(List),
    /// Show one, with what is in it
    Show(Show),
    /// Send them again, under the same ids
    Replay(Chosen),
    /// Remove them for good
    Delete(Delete),
}

#[derive(Args)]
pub(super) struct List {
    /// The webhook
    name: String,
    #[command(flatten)]
    which: Which,
    /// So many at most
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = at_most())]
    limit: usize,
    #[command(flatten)]
    dispatcher: Options,
}

#[derive(Args)]
pub(super) struct Show {
    /// The webhook
    name: String,
    /// The id of the event
    id: Uuid,
    #[command(flatten)]
    dispatcher: Options,
}

#[derive(Args)]
pub(super) struct Chosen {
    /// The webhook
    name: String,
    /// Those with these ids
    ids: Vec<Uuid>,
    #[command(flatten)]
    which: Which,
    /// All of them
    #[arg(long, conflicts_with_all = ["ids", "reason", "before"])]
    all: bool,
    #[command(flatten)]
    dispatcher: Options,
}

#[derive(Args)]
pub(super) struct Delete {
    #[command(flatten)]
    chosen: Chosen,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Which ones: all that is given has to hold.
#[derive(Args)]
pub(super) struct Which {
    /// Those that were given up for this reason
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Those that were given up before this time
    #[arg(long, value_name = "RFC3339")]
    before: Option<Timestamp>,
}

impl Which {
    fn query(&self, ids: &[Uuid]) -> form_urlencoded::Serializer<'static, String> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if !ids.is_empty() {
            query.append_pair("ids", &ids.iter().map(Uuid::to_string).collect::<Vec<_>>().join(","));
        }
        if let Some(reason) = &self.reason {
            query.append_pair("reason", reason);
        }
        if let Some(before) = self.before {
            query.append_pair("before", &before.to_string());
        }
        query
    }

    fn is_empty(&self) -> bool {
        self.reason.is_none() && self.before.is_none()
    }
}

impl Dead {
    pub(super) async fn run(&self, connection: &Connection, output: Output) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(connection, output).await,
            Self::Show(show) => show.run(connection, output).await,
            Self::Replay(chosen) => {
                let count = chosen.all_of(connection, "create", Method::POST, "/replay").await?;
                told(output, &chosen.name, count, "to be sent again")
            }
            Self::Delete(delete) => delete.run(connection, output).await,
        }
    }
}

async fn door(
    options: &Options,
    connection: &Connection,
    name: &str,
    verb: &'static str,
) -> Result<Door, Failure> {
    options.open(connection, name, Right { verb, subresource: "deadletters" }).await
}

fn path(connection: &Connection, name: &str, rest: &str) -> String {
    format!("namespaces/{}/outboundwebhooks/{name}/deadletters{rest}", connection.namespace)
}

async fn ask(door: &mut Door, method: Method, path: &str) -> Result<Value, Failure> {
    door.ask(method, path, HeaderMap::new(), Bytes::new()).await
}

fn at_most() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(..=limits::PLUGIN_DEAD as u64)
}

/// The pages of a list, each asked for by how many it may hold and the place that it comes after, until there are as many
/// as are wanted or no more. Each has to bring some, and to end behind the one before.
async fn pages(
    wanted: usize,
    mut ask: impl AsyncFnMut(usize, Option<i64>) -> Result<Value, Failure>,
) -> Result<Vec<Value>, Failure> {
    let mut items = Vec::new();
    let mut after = None;
    while items.len() < wanted {
        let page = ask((wanted - items.len()).min(limits::PLUGIN_DEAD_PAGE), after).await?;
        let brought = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        items.extend_from_slice(brought);
        let Some(next) = page["continue"].as_i64() else { break };
        if brought.is_empty() || after.is_some_and(|after| next <= after) {
            let message =
                format!("the dispatcher's list does not end: {} dead letters, and more", items.len());
            return Err(Failure::tried(message));
        }
        after = Some(next);
    }
    items.truncate(wanted);
    Ok(items)
}

impl List {
    async fn run(&self, connection: &Connection, output: Output) -> Result<(), Failure> {
        let mut door = door(&self.dispatcher, connection, &self.name, "get").await?;
        let items = pages(self.limit, async |limit, after| {
            let mut query = self.which.query(&[]);
            query.append_pair("limit", &limit.to_string());
            if let Some(after) = after {
                query.append_pair("after", &after.to_string());
            }
            let path = path(connection, &self.name, &format!("?{}", query.finish()));
            ask(&mut door, Method::GET, &path).await
        })
        .await?;
        if output.is_name() {
            return names(&items);
        }
        output.print(&items, [], || {
            if items.is_empty() {
                let such = if self.which.is_empty() { "" } else { " such" };
                return Text::from(format!("{} has no{such} dead letter.", self.name)).line();
            }
            let now = Timestamp::now();
            let rows: Vec<_> = items
                .iter()
                .map(|item| {
                    let died = item["deadAt"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
                    vec![
                        cell(text(&item["id"])),
                        cell(died.map(|died| ago(died, now)).unwrap_or_default()),
                        cell(text(&item["reason"])),
                        cell(text(&item["attributes"]["type"])),
                    ]
                })
                .collect();
            table(&["ID", "GIVEN UP", "REASON", "TYPE"], Some(3), &rows)
        })
    }
}

/// Their ids, one a line, as the other commands take them.
fn names(items: &[Value]) -> Result<(), Failure> {
    output::write(&items.iter().map(|item| Text::from(text(&item["id"])).line()).collect())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl Show {
    async fn run(&self, connection: &Connection, output: Output) -> Result<(), Failure> {
        let mut door = door(&self.dispatcher, connection, &self.name, "get").await?;
        let found =
            ask(&mut door, Method::GET, &path(connection, &self.name, &format!("?ids={}", self.id))).await?;
        let Some(item) = found["items"].as_array().and_then(|items| items.first()) else {
            return Err(Failure::not_found(format!("{} has no dead letter {}", self.name, self.id)));
        };
        if output.is_name() {
            return names(std::slice::from_ref(item));
        }
        output.print(item, [], || {
            let mut shown = bold(text(&item["id"])).line();
            for (label, key) in [
                ("Accepted", "acceptedAt"),
                ("Given up", "deadAt"),
                ("Reason", "reason"),
                ("Message", "message"),
            ] {
                shown += field(label, text(&item[key]));
            }
            shown += field("Failures", item["failures"].to_string());
            if let Some(response) = item["response"].as_object() {
                let status = response.get("status").map(Value::to_string).unwrap_or_default();
                let body = begin(response.get("body").map_or("", text).as_bytes());
                shown += field("Response", format!("{status}: {body}"));
            }
            for (name, value) in item["attributes"].as_object().into_iter().flatten() {
                shown += field("Attribute", format!("{name}: {}", begin(text(value).as_bytes())));
            }
            let data = BASE64.decode(text(&item["dataBase64"]).as_bytes()).unwrap_or_default();
            shown.line() + Text::lines(&begin(&data)).line()
        })
    }
}

/// A text, or as much of its begin as a person reads.
fn begin(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    match text.char_indices().nth(limits::PLUGIN_BODY_CHARACTERS) {
        Some((end, _)) => format!("{}…\n(cut; -o json has all of it)", &text[..end]),
        None => text.into_owned(),
    }
}

impl Chosen {
    /// What is asked for is never all of them by an oversight.
    fn check(&self) -> Result<(), Failure> {
        if !self.all && self.ids.is_empty() && self.which.is_empty() {
            return Err(Failure::usage("choose them: by ids, --reason, --before, or --all"));
        }
        Ok(())
    }

    async fn all_of(
        &self,
        connection: &Connection,
        verb: &'static str,
        method: Method,
        rest: &str,
    ) -> Result<u64, Failure> {
        self.check()?;
        let mut door = door(&self.dispatcher, connection, &self.name, verb).await?;
        let mut count = 0;
        // A request takes so many ids.
        let chunks: Vec<&[Uuid]> =
            if self.ids.is_empty() { vec![&[]] } else { self.ids.chunks(limits::DEAD_IDS).collect() };
        for ids in chunks {
            let rest = format!("{rest}?{}", self.which.query(ids).finish());
            let done = ask(&mut door, method.clone(), &path(connection, &self.name, &rest)).await?;
            count += done["count"].as_u64().unwrap_or_default();
        }
        Ok(count)
    }
}

impl Delete {
    async fn run(&self, connection: &Connection, output: Output) -> Result<(), Failure> {
        self.chosen.check()?;
        if !self.yes && !self.confirmed()? {
            return Err(Failure::interrupted("nothing was removed"));
        }
        let count = self.chosen.all_of(connection, "delete", Method::DELETE, "").await?;
        told(output, &self.chosen.name, count, "removed for good")
    }

    fn confirmed(&self) -> Result<bool, Failure> {
        if !io::stdin().is_terminal() {
            return Err(Failure::usage("there is nobody to ask: --yes removes them"));
        }
        let question = format!("Remove these dead letters of {} for good? [y/N] ", self.chosen.name);
        anstream::eprint!("{}", Text::from(question).as_str());
        let mut answer = String::new();
        let read = io::stdin().lock().read_line(&mut answer);
        read.map_err(|error| Failure::tried(format!("cannot ask: {error}")))?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

fn told(output: Output, name: &str, number: u64, what: &str) -> Result<(), Failure> {
    output.print(&json!({ "count": number }), [name], || {
        let state = if number > 0 { State::Good } else { State::Unknown };
        marked(state, format!("{what}: {} of {name}", count(number, "dead letter")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are listed of pages that are like this, and how many pages were asked for.
    async fn listed(
        wanted: usize,
        page: impl Fn(usize, Option<i64>) -> (usize, Option<i64>),
    ) -> (Result<usize, Failure>, usize) {
        let mut asked = 0;
        let items = pages(wanted, async |limit, after| {
            asked += 1;
            let (brought, next) = page(limit, after);
            Ok(json!({ "items": vec![json!({}); brought], "continue": next }))
        });
        let items = items.await.map(|items| items.len());
        (items, asked)
    }

    #[tokio::test]
    async fn a_list_is_read_to_its_end_and_no_further() {
        let next = |after: Option<i64>| Some(after.unwrap_or(0) + 1);
        let (items, asked) = listed(50, |limit, after| (limit, next(after))).await;
        assert_eq!((items.unwrap(), asked), (50, 4));
        let (items, asked) =
            listed(50, |_, after| if after.is_none() { (3, Some(7)) } else { (0, None) }).await;
        assert_eq!((items.unwrap(), asked), (3, 2));
        let (items, asked) = listed(20, |_, after| (1000, next(after))).await;
        assert_eq!((items.unwrap(), asked), (20, 1));

        let (items, asked) = listed(50, |_, after| (0, next(after))).await;
        assert!(matches!(items, Err(Failure::Tried(_))) && asked == 1, "asked {asked} times");
        let (items, asked) = listed(50, |_, _| (1, Some(7))).await;
        assert!(matches!(items, Err(Failure::Tried(_))) && asked == 2, "asked {asked} times");
    }
}
