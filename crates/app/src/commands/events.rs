//! Events, refusals, test events, and following events live.

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::Commands;
use crate::cli::{EventsArgs, EventsCommand, ListEvents, ListRefusals, ListenArgs, Output, SendArgs};
use crate::client::{encoded, with_query};
use crate::output;

impl Commands {
    pub(super) fn events(&self, args: EventsArgs) -> Result<()> {
        match args.command {
            None => self.list_events(&args.list),
            Some(EventsCommand::List(list)) => self.list_events(&list),
            Some(EventsCommand::Show { id }) => {
                let answer = self.client.get(&format!("/api/v1/events/{}", encoded(&id)))?;
                self.show(&answer, show_event);
                Ok(())
            }
            Some(EventsCommand::Replay { id, recipe }) => {
                let body = recipe.map(|recipe| json!({"recipe": recipe}));
                let answer = self.client.post(&format!("/api/v1/events/{}/replay", encoded(&id)), body)?;
                self.show(&answer, |data| {
                    let jobs: Vec<&str> =
                        data["jobs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                    if jobs.is_empty() {
                        output::note("no recipe starts on this event");
                    }
                    jobs.into_iter().for_each(output::line);
                });
                Ok(())
            }
        }
    }

    fn list_events(&self, list: &ListEvents) -> Result<()> {
        self.list(
            "/api/v1/events",
            &[("endpoint", list.endpoint.clone())],
            &list.page,
            &[
                ("id", "/id"),
                ("endpoint", "/endpoint"),
                ("received at", "/received_at"),
                ("name", "/event_name"),
                ("verified", "/verified/by"),
                ("size", "/size"),
            ],
        )
    }

    pub(super) fn refusals(&self, args: &ListRefusals) -> Result<()> {
        self.list(
            "/api/v1/refusals",
            &[("endpoint", args.endpoint.clone())],
            &args.page,
            &[
                ("at", "/at"),
                ("endpoint", "/endpoint"),
                ("status", "/status"),
                ("code", "/code"),
                ("cause", "/cause"),
                ("remote", "/remote"),
                ("size", "/size"),
            ],
        )
    }

    pub(super) fn send(&self, args: &SendArgs) -> Result<()> {
        let bytes = match (&args.body, &args.file) {
            (Some(body), _) => body.clone().into_bytes(),
            (None, Some(path)) if path.as_os_str() == "-" => {
                let mut bytes = Vec::new();
                std::io::stdin().read_to_end(&mut bytes).context("standard input")?;
                bytes
            }
            (None, Some(path)) => std::fs::read(path).with_context(|| path.display().to_string())?,
            (None, None) => b"{}".to_vec(),
        };
        let mut headers = Map::new();
        for header in &args.headers {
            let Some((name, value)) = header.split_once(':') else {
                bail!("`{header}` is not a header; write `Name: value`");
            };
            headers.insert(name.trim().to_owned(), Value::from(value.trim()));
        }
        let mut body = json!({"headers": headers});
        match String::from_utf8(bytes) {
            Ok(text) => body["body"] = text.into(),
            Err(error) => {
                body["body_base64"] = base64::engine::general_purpose::STANDARD.encode(error.as_bytes()).into();
            }
        }
        if let Some(name) = &args.event_name {
            body["event_name"] = name.clone().into();
        }
        let answer = self.client.post(&format!("/api/v1/endpoints/{}/send", encoded(&args.endpoint)), Some(body))?;
        self.show(&answer, |data| {
            let duplicate = if data["duplicate"] == true { "  (a duplicate; nothing new was stored)" } else { "" };
            output::line(&format!("{}{duplicate}", data["id"].as_str().unwrap_or_default()));
        });
        Ok(())
    }

    pub(super) fn listen(&self, args: &ListenArgs) -> Result<()> {
        let mut after = if args.from_start { "first".to_owned() } else { self.newest()? };
        let mut left = args.count.unwrap_or(u64::MAX);
        if self.output == Output::Table {
            output::note("waiting for events; end with Ctrl-C");
        }
        while left > 0 {
            let path = with_query(
                "/api/v1/events",
                &[
                    ("endpoint", args.endpoint.clone()),
                    ("after", Some(after.clone())),
                    ("wait", Some("25".to_owned())),
                    ("limit", Some(left.min(100).to_string())),
                ],
            );
            let answer = self.client.get(&path)?;
            for event in answer["data"].as_array().into_iter().flatten() {
                self.show_live(event);
                after = event["id"].as_str().unwrap_or_default().to_owned();
                left -= 1;
            }
        }
        Ok(())
    }

    /// The newest event, behind which listening begins.
    fn newest(&self) -> Result<String> {
        let answer = self.client.get("/api/v1/events?limit=1")?;
        Ok(answer["data"][0]["id"].as_str().unwrap_or("first").to_owned())
    }

    fn show_live(&self, event: &Value) {
        if self.output == Output::Json {
            output::line(&event.to_string());
            return;
        }
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let name = event["event_name"].as_str().map(|name| format!(" {name}")).unwrap_or_default();
        output::line(&format!(
            "{} {} {}{name} {} bytes",
            text("received_at"),
            text("id"),
            text("endpoint"),
            event["size"]
        ));
        let body: String = text("body").chars().take(400).collect();
        if !body.is_empty() {
            output::line(&format!("  {}", output::plain(&body.replace('\n', " "))));
        }
    }
}

fn show_event(event: &Value) {
    let text = |pointer: &str| event.pointer(pointer).map(output::cell).unwrap_or_default();
    output::line(&format!("{}  {}  {}", text("/id"), text("/endpoint"), text("/received_at")));
    let name = event["event_name"].as_str().map(|name| format!("  name {name}")).unwrap_or_default();
    let query = event["query"].as_str().map(|query| format!("  query {query}")).unwrap_or_default();
    output::line(&format!(
        "{}{name}{query}  from {}  verified by {}",
        text("/method"),
        text("/remote"),
        text("/verified/by")
    ));
    for header in event["headers"].as_array().into_iter().flatten() {
        output::line(&output::plain(&format!("  {}: {}", output::cell(&header[0]), output::cell(&header[1]))));
    }
    output::line("");
    match (event["body"].as_str(), event["body_base64"].as_str()) {
        (Some(body), _) => output::line(&output::plain(body)),
        (None, Some(encoded)) => output::line(&format!("base64: {encoded}")),
        (None, None) => {
            if let Some(reason) = event["body_lost"].as_str() {
                output::line(&output::plain(&format!("body lost: {reason}")));
            }
        }
    }
}
