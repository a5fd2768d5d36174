//! Documents one at a time.

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use linkspan_model::yaml;
use serde_json::{Value, json};

use super::Commands;
use crate::cli::{
    ConnectionsArgs, ConnectionsCommand, EndpointsArgs, EndpointsCommand, Output, Page, RecipesArgs, RecipesCommand,
    ResourceCommand, SecretsArgs, SecretsCommand,
};
use crate::client::encoded;
use crate::output;

impl Commands {
    pub(super) fn resources(&self, plural: &str, command: Option<ResourceCommand>, page: &Page) -> Result<()> {
        match command {
            None => self.list_resources(plural, page),
            Some(ResourceCommand::List(page)) => self.list_resources(plural, &page),
            Some(ResourceCommand::Show { name }) => {
                let answer = self.client.get(&format!("/api/v1/{plural}/{}", encoded(&name)))?;
                match self.output {
                    Output::Json => output::json(&answer),
                    Output::Table => output::line(yaml::write(&answer["data"]).trim_end()),
                }
                Ok(())
            }
            Some(ResourceCommand::Delete { name, cancel_jobs }) if plural == "recipes" => {
                self.delete_recipe(&name, cancel_jobs)
            }
            Some(ResourceCommand::Delete { name, .. }) => {
                self.client.delete(&format!("/api/v1/{plural}/{}", encoded(&name)))?;
                output::note(&format!("deleted {name}"));
                Ok(())
            }
        }
    }

    fn list_resources(&self, plural: &str, page: &Page) -> Result<()> {
        let mut columns = vec![("name", "/name"), ("revision", "/revision")];
        columns.extend_from_slice(match plural {
            "endpoints" => &[("url", "/status/url"), ("ready", "/status/ready"), ("unverified", "/status/unverified")],
            "recipes" => &[("endpoint", "/spec/trigger/webhook/endpoint"), ("running", "/status/running")],
            "secrets" => &[("has value", "/status/has_value")],
            "accounts" => {
                &[("state", "/status/state"), ("expires at", "/status/expires_at"), ("reason", "/status/reason")]
            }
            "connections" => &[
                ("connector", "/spec/connector"),
                ("base url", "/status/base_url"),
                ("account", "/spec/account"),
                ("state", "/status/state"),
                ("tested at", "/status/tested_at"),
                ("reason", "/status/reason"),
            ],
            "syncs" => &[
                ("from", "/spec/from/endpoint"),
                ("schema", "/spec/to/schema"),
                ("table", "/spec/to/table"),
                ("rows", "/status/rows"),
                ("aside", "/status/aside"),
                ("succeeded at", "/status/succeeded_at"),
                ("error", "/status/error"),
            ],
            _ => &[] as &[(&str, &str)],
        });
        columns.push(("updated at", "/updated_at"));
        self.list(&format!("/api/v1/{plural}"), &[], page, &columns)
    }

    pub(super) fn secrets(&self, args: SecretsArgs) -> Result<()> {
        match args.command {
            None => self.resources("secrets", None, &args.page),
            Some(SecretsCommand::Any(command)) => self.resources("secrets", Some(command), &args.page),
            Some(SecretsCommand::Set { name }) => {
                let mut value = String::new();
                std::io::stdin().read_to_string(&mut value).context("standard input")?;
                let value = value.strip_suffix('\n').unwrap_or(&value);
                let path = format!("/api/v1/secrets/{}", encoded(&name));
                // A patch keeps what else the document says; the value takes the place of where it came from.
                let patch = json!({"spec": {"value": value, "env": null, "file": null}});
                let answer = match self.client.patch(&path, patch) {
                    Err(error) if crate::client::is_missing(&error) => {
                        self.client.put(&path, json!({"spec": {"value": value}}))?
                    }
                    answer => answer?,
                };
                self.show(&answer, |data| {
                    output::note(&format!("set {name}"));
                    owned(data, &format!("secret {name}"), "where its value comes from");
                });
                Ok(())
            }
        }
    }

    pub(super) fn connections(&self, args: ConnectionsArgs) -> Result<()> {
        match args.command {
            None => self.resources("connections", None, &args.page),
            Some(ConnectionsCommand::Any(command)) => self.resources("connections", Some(command), &args.page),
            Some(ConnectionsCommand::Test { name }) => self.test_connection(&name),
        }
    }

    fn test_connection(&self, name: &str) -> Result<()> {
        let bar = output::progress(&format!("testing connection {name}"));
        let answer = self.client.post(&format!("/api/v1/connections/{}/test", encoded(name)), None);
        bar.finish_and_clear();
        let answer = answer?;
        let data = &answer["data"];
        let is_connected = data["state"] == "connected";
        self.show(&answer, |data| {
            if is_connected {
                output::line(&format!("connected: status {} in {} ms", data["http_status"], data["duration_ms"]));
            }
            if let Some(text) = data["answer"].as_str() {
                output::note(&output::plain(text));
            }
            for warning in data["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                output::note(&format!("warning: {warning}"));
            }
        });
        if is_connected {
            return Ok(());
        }
        let reason = data["reason"].as_str().unwrap_or("it was changed meanwhile; test it again");
        bail!("connection {name} does not work: {}", output::plain(reason))
    }

    pub(super) fn endpoints(&self, args: EndpointsArgs) -> Result<()> {
        match args.command {
            None => self.resources("endpoints", None, &args.page),
            Some(EndpointsCommand::Any(command)) => self.resources("endpoints", Some(command), &args.page),
            Some(EndpointsCommand::Url { name }) => {
                let answer = self.client.get(&format!("/api/v1/endpoints/{}", encoded(&name)))?;
                self.show(&answer, |data| output::line(data["status"]["url"].as_str().unwrap_or_default()));
                Ok(())
            }
            Some(EndpointsCommand::Rotate { name }) => {
                let answer = self.client.post(&format!("/api/v1/endpoints/{}/rotate", encoded(&name)), None)?;
                self.show(&answer, |data| output::line(data["url"].as_str().unwrap_or_default()));
                Ok(())
            }
        }
    }

    pub(super) fn recipes(&self, args: RecipesArgs) -> Result<()> {
        let set = |name: &str, verb: &str| -> Result<()> {
            let answer = self.client.post(&format!("/api/v1/recipes/{}/{verb}", encoded(name)), None)?;
            self.show(&answer, |data: &Value| {
                output::line(if data["running"] == true { "running" } else { "stopped" });
                owned(data, &format!("recipe {name}"), "whether it runs");
            });
            Ok(())
        };
        match args.command {
            None => self.resources("recipes", None, &args.page),
            Some(RecipesCommand::Any(command)) => self.resources("recipes", Some(command), &args.page),
            Some(RecipesCommand::Start { name }) => set(&name, "start"),
            Some(RecipesCommand::Stop { name }) => set(&name, "stop"),
        }
    }

    fn delete_recipe(&self, name: &str, cancel_jobs: bool) -> Result<()> {
        let path = format!("/api/v1/recipes/{}", encoded(name));
        let open = self.client.get(&path)?["data"]["status"]["open_jobs"].as_u64().unwrap_or_default();
        self.client.delete(&if cancel_jobs { format!("{path}?cancel_jobs=true") } else { path })?;
        output::note(&format!("deleted {name}"));
        match (open, cancel_jobs) {
            (0, _) => {}
            (open, true) => output::note(&format!("{open} jobs that waited were canceled")),
            (open, false) => output::note(&format!(
                "{open} jobs that wait go on; see jobs --recipe {name}, or end them with jobs cancel --recipe {name}"
            )),
        }
        Ok(())
    }
}

/// Says that the next apply of the set that owns a document will take back what a command has changed.
fn owned(data: &Value, what: &str, of: &str) {
    if let Some(command) = data["managed_by"].as_str() {
        output::note(&format!(
            "{what} stands in applied documents: the next `{command}` sets {of} as they say; change them too"
        ));
    }
}
