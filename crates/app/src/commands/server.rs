//! The server as a whole: check, backup, restore, token, version.

use std::path::Path;

use anyhow::{Result, bail};
use clap::CommandFactory as _;
use linkspan_model::Clock as _;
use serde_json::{Value, json};

use super::Commands;
use crate::cli::{Cli, Connect, Output};
use crate::client::Client;
use crate::output;

impl Commands {
    pub(super) fn check(&self, integrity: bool, confirm_clock: bool) -> Result<()> {
        let bar = integrity.then(|| output::progress("checking the database"));
        if confirm_clock {
            self.client.post("/api/v1/clock/confirm", None)?;
        }
        let answer = self.client.get(if integrity { "/api/v1/check?integrity=true" } else { "/api/v1/check" });
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let answer = answer?;
        self.show(&answer, |data| {
            let columns = [("level", "/level"), ("subject", "/subject")];
            let findings = data["findings"].as_array().cloned().unwrap_or_default();
            for (row, finding) in super::rows(&data["findings"], &columns).into_iter().zip(findings) {
                output::line(&format!(
                    "{:<8} {:<24} {}",
                    row[0],
                    row[1],
                    finding["message"].as_str().unwrap_or_default()
                ));
            }
        });
        if answer["data"]["ok"] == true { Ok(()) } else { bail!("the check found errors") }
    }

    pub(super) fn backup(&self) -> Result<()> {
        let bar = output::progress("writing a backup");
        let answer = self.client.post("/api/v1/backup", None);
        bar.finish_and_clear();
        self.show(&answer?, |data| {
            output::line(data["path"].as_str().unwrap_or_default());
            output::note(&format!(
                "{} events, {} jobs, {} objects of the bucket, {} destinations",
                data["events"], data["jobs"], data["objects"], data["destinations"]
            ));
            for left in data["left_out"].as_array().into_iter().flatten() {
                let text = |field: &str| left[field].as_str().unwrap_or_default().to_owned();
                output::note(&format!("not in it: {}: {}", text("name"), text("reason")));
            }
        });
        Ok(())
    }

    pub(super) fn rotate_token(&self) -> Result<()> {
        let answer = self.client.post("/api/v1/token/rotate", None)?;
        self.show(&answer, |data| {
            output::line(data["token"].as_str().unwrap_or_default());
            output::note("the old token is dead; set LINKSPAN_TOKEN to this one, it is not shown again");
        });
        Ok(())
    }
}

pub(super) fn restore(from: &Path, data: &Path, output: Output) -> Result<()> {
    let folder = linkspan_store::DataFolder::lock(data)?;
    let report = linkspan_store::restore(from, folder.path(), crate::serve::WallClock.now())?;
    match output {
        Output::Json => output::json(&json!({"data": report})),
        Output::Table => {
            output::line(&format!(
                "restored {} events and {} jobs, {} objects of the bucket and {} destinations into {}",
                report.events,
                report.jobs,
                report.objects(),
                report.destinations(),
                data.display()
            ));
        }
    }
    for left in report.left_out.iter().filter(|left| left.name != "key") {
        output::note(&format!("the backup was made without {}: {}", left.name, left.reason));
    }
    if !data.join("key").exists() {
        output::note(
            "put the master key of the backed-up server into this folder as `key`, or name it with --key-file",
        );
    }
    Ok(())
}

pub(super) fn reset_token(data: &Path, output: Output) -> Result<()> {
    // Before the lock, which makes a folder that is not there.
    if !data.join("linkspan.db").exists() {
        bail!("{} holds no database; name the server's data folder with --data", data.display());
    }
    let folder = linkspan_store::DataFolder::lock(data)?;
    let token = linkspan_store::reset_operator_token(&folder, crate::serve::WallClock.now())?;
    match output {
        Output::Json => output::json(&json!({"data": {"token": token}})),
        Output::Table => {
            output::line(&token);
            output::note(&format!(
                "every older token is dead; {} holds this one, it is not shown again",
                folder.operator_token().display()
            ));
        }
    }
    Ok(())
}

pub(super) fn version(connect: &Connect, output: Output) -> Result<()> {
    let own = env!("CARGO_PKG_VERSION");
    let server = Client::new(connect).and_then(|client| client.get("/api/v1/version")).ok();
    let server = server.map_or(Value::Null, |answer| answer["data"]["version"].clone());
    match output {
        Output::Json => output::json(&json!({"data": {"client": own, "server": server}})),
        Output::Table => {
            output::line(&format!("client {own}"));
            output::line(&format!("server {}", server.as_str().unwrap_or("not reached")));
        }
    }
    Ok(())
}

pub(super) fn completions(shell: clap_complete::Shell) {
    let mut command = Cli::command();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "linkspan", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end());
}
