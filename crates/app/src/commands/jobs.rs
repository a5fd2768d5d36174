//! Jobs.

use anyhow::Result;
use serde_json::Value;

use super::Commands;
use crate::cli::{JobsArgs, JobsCommand, ListJobs};
use crate::client::encoded;
use crate::output;

impl Commands {
    pub(super) fn jobs(&self, args: JobsArgs) -> Result<()> {
        match args.command {
            None => self.list_jobs(&args.list),
            Some(JobsCommand::List(list)) => self.list_jobs(&list),
            Some(JobsCommand::Show { id }) => {
                let answer = self.client.get(&format!("/api/v1/jobs/{}", encoded(&id)))?;
                self.show(&answer, show_job);
                Ok(())
            }
            Some(JobsCommand::Rerun { id, yes }) => {
                self.agree_to_repeat(&id, yes)?;
                let answer = self.client.post(&format!("/api/v1/jobs/{}/rerun", encoded(&id)), None)?;
                self.show(&answer, |data| output::line(data["id"].as_str().unwrap_or_default()));
                Ok(())
            }
            Some(JobsCommand::Cancel { recipe: Some(recipe), .. }) => {
                let path = format!("/api/v1/recipes/{}/jobs/cancel", encoded(&recipe));
                let answer = self.client.post(&path, None)?;
                self.show(&answer, |data| output::note(&format!("canceled {} jobs", data["canceled"])));
                Ok(())
            }
            Some(JobsCommand::Cancel { id, .. }) => {
                let id = id.unwrap_or_default();
                let answer = self.client.post(&format!("/api/v1/jobs/{}/cancel", encoded(&id)), None)?;
                self.show(&answer, show_job);
                Ok(())
            }
        }
    }

    /// A rerun begins from the first step: what the job has written before is written again. Asks at a terminal.
    fn agree_to_repeat(&self, id: &str, yes: bool) -> Result<()> {
        let job = self.client.get(&format!("/api/v1/jobs/{}", encoded(id)))?;
        let steps = job["data"]["steps"].as_array().into_iter().flatten();
        let writes: Vec<String> = steps
            .filter(|step| step["status"] == "succeeded")
            .filter(|step| !matches!(step["input"]["method"].as_str(), None | Some("GET" | "HEAD" | "OPTIONS")))
            .map(|step| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let (method, url) = (text(&step["input"]["method"]), text(&step["input"]["url"]));
                output::plain(&format!("{}: {method} {url}", text(&step["id"])))
            })
            .collect();
        if writes.is_empty() || yes {
            return Ok(());
        }
        output::note("the job has finished these steps, and a rerun sends them again with new idempotency keys:");
        writes.iter().for_each(|write| output::note(&format!("  {write}")));
        output::confirm("Run it again?", "say --yes to agree")
    }

    fn list_jobs(&self, list: &ListJobs) -> Result<()> {
        self.list(
            "/api/v1/jobs",
            &[("recipe", list.recipe.clone()), ("status", list.status.clone()), ("event", list.event.clone())],
            &list.page,
            &[
                ("id", "/id"),
                ("recipe", "/recipe"),
                ("status", "/status"),
                ("event", "/event"),
                ("created at", "/created_at"),
                ("finished at", "/finished_at"),
                ("error", "/error/description"),
            ],
        )
    }
}

fn show_job(job: &Value) {
    let text = |value: &Value| output::cell(value);
    output::line(&format!("{}  {}  {}", text(&job["id"]), text(&job["recipe"]), text(&job["status"])));
    output::line(&format!(
        "event {}  created {}  finished {}",
        text(&job["event"]),
        text(&job["created_at"]),
        text(&job["finished_at"])
    ));
    if let Some(original) = job["rerun_of"].as_str() {
        output::line(&format!("a rerun of {original}"));
    }
    if job["error"].is_object() {
        output::line(&format!(
            "error {}: {}",
            text(&job["error"]["code"]),
            job["error"]["description"].as_str().unwrap_or_default()
        ));
    }
    for step in job["steps"].as_array().into_iter().flatten() {
        show_step(step);
    }
}

fn show_step(step: &Value) {
    output::line("");
    let attempts = &step["attempts"];
    output::line(&format!(
        "step {}  {}  attempts {attempts}",
        output::cell(&step["id"]),
        output::cell(&step["status"])
    ));
    if step["resumed"] == true {
        output::line("  an earlier attempt may have been sent before the server stopped");
    }
    if let Some(at) = step["retry_at"].as_str() {
        output::line(&format!("  tried again at {at}"));
    }
    for attempt in step["attempt_log"].as_array().into_iter().flatten() {
        show_attempt(attempt);
    }
    if step["error"].is_object() {
        let field = step["error"]["field"].as_str().map(|field| format!(" in {field}")).unwrap_or_default();
        output::line(&format!(
            "  error {}{field}: {}",
            output::cell(&step["error"]["code"]),
            step["error"]["description"].as_str().unwrap_or_default()
        ));
    }
    let input = &step["input"];
    if input.is_object() {
        output::line("  input");
        output::line(&format!("    {} {}", output::cell(&input["method"]), input["url"].as_str().unwrap_or_default()));
        show_message(input, input["body"]["text"].as_str().or(input["body"]["base64"].as_str()).map(str::to_owned));
    }
    let sent = &step["output"];
    if sent.is_object() {
        output::line("  output");
        output::line(&format!("    {}", sent["status"]));
        let body = match &sent["body"] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => serde_json::to_string_pretty(other).ok(),
        };
        show_message(sent, body);
    }
}

/// One attempt in a line: when, what came, how long it took, and what followed.
fn show_attempt(attempt: &Value) {
    let mut line = format!("  attempt {}  {}", attempt["number"], output::cell(&attempt["started_at"]));
    if let Some(status) = attempt["status"].as_u64() {
        line += &format!("  {status}");
    }
    if let Some(code) = attempt["error"]["code"].as_str() {
        line += &format!("  {code}");
    }
    let stages = [
        ("dns", "dns_us"),
        ("connect", "connect_us"),
        ("tls", "tls_us"),
        ("first byte", "first_byte_us"),
        ("total", "total_us"),
    ];
    for (stage, field) in stages {
        if let Some(micros) = attempt["timings"][field].as_u64() {
            line += &format!("  {stage} {}.{} ms", micros / 1_000, micros / 100 % 10);
        }
    }
    match (attempt["retry_at"].as_str(), attempt["reason"].as_str()) {
        (Some(at), _) => line += &format!("  again at {at}"),
        (None, Some(reason)) => line += &format!("  not repeated: {reason}"),
        (None, None) => {}
    }
    output::line(&output::plain(&line));
}

/// Headers and body, indented, without what could move the cursor.
fn show_message(message: &Value, body: Option<String>) {
    for header in message["headers"].as_array().into_iter().flatten() {
        output::line(&output::plain(&format!(
            "    {}: {}",
            output::cell(&header[0]),
            header[1].as_str().unwrap_or_default()
        )));
    }
    for text in body.unwrap_or_default().lines() {
        output::line(&output::plain(&format!("    {text}")));
    }
}
