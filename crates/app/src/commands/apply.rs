//! Apply and export.

use anyhow::Result;
use linkspan_model::yaml;
use serde_json::{Value, json};

use super::Commands;
use crate::cli::ApplyArgs;
use crate::client::{Invalid, Refused};
use crate::documents::{self, Source};
use crate::output;
use crate::places::Places;

impl Commands {
    pub(super) fn apply(&self, args: &ApplyArgs) -> Result<()> {
        let sources = documents::read_all(&args.files)?;
        let call = |dry_run: bool| -> Result<Value> {
            let documents: Vec<&Value> = sources.iter().map(|source| &source.value).collect();
            let body = json!({"documents": documents, "dry_run": dry_run, "set": args.set, "prune": args.prune});
            self.client.post("/api/v1/apply", Some(body)).map_err(|error| with_places(error, &sources))
        };
        let plan = call(true)?;
        if args.dry_run {
            self.show(&plan, show_changes);
            return Ok(());
        }
        let deletes =
            plan["data"]["changes"].as_array().into_iter().flatten().any(|change| change["action"] == "delete");
        if deletes && !args.yes {
            show_changes(&plan["data"]);
            output::confirm("Delete what the plan says?", "the plan deletes documents; say --yes to agree")?;
        }
        let done = call(false)?;
        self.show(&done, show_changes);
        Ok(())
    }

    pub(super) fn export(&self, defaults: bool) -> Result<()> {
        let path = if defaults { "/api/v1/export?defaults=true" } else { "/api/v1/export" };
        let answer = self.client.get(path)?;
        let documents = answer["data"]["documents"].as_array().cloned().unwrap_or_default();
        match self.output {
            crate::cli::Output::Json => output::json(&answer),
            crate::cli::Output::Table => output::line(yaml::write_all(&documents).trim_end()),
        }
        Ok(())
    }
}

/// Names the file and line of every fault.
fn with_places(error: anyhow::Error, sources: &[Source]) -> anyhow::Error {
    let Some(refused) = error.downcast_ref::<Refused>().filter(|refused| !refused.faults.is_empty()) else {
        return error;
    };
    let lines: Vec<String> = refused
        .faults
        .iter()
        .map(|fault| match fault.document.and_then(|n| sources.get(n)) {
            Some(source) => Places::of(source).say(fault),
            None => fault.to_string(),
        })
        .collect();
    Invalid(format!("nothing was changed:\n  {}", lines.join("\n  "))).into()
}

fn show_changes(data: &Value) {
    let mut counts = [("create", 0), ("change", 0), ("delete", 0), ("unchanged", 0)];
    for change in data["changes"].as_array().into_iter().flatten() {
        let action = change["action"].as_str().unwrap_or_default();
        if let Some((_, count)) = counts.iter_mut().find(|(known, _)| *known == action) {
            *count += 1;
        }
        let sign = match action {
            "create" => "+",
            "change" => "~",
            "delete" => "-",
            _ => "=",
        };
        let fields: Vec<&str> = change["fields"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let fields = if fields.is_empty() { String::new() } else { format!("  ({})", fields.join(", ")) };
        let (kind, name) = (change["kind"].as_str().unwrap_or_default(), change["name"].as_str().unwrap_or_default());
        let by_hand = if change["undoes_change_by_hand"] == true { "  takes back a change by a command" } else { "" };
        output::line(&format!("{sign} {action:<9} {kind}/{name}{fields}{by_hand}"));
    }
    let counted: Vec<String> = counts.iter().map(|(action, count)| format!("{count} {action}")).collect();
    for warning in data["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::note(&format!("warning: {warning}"));
    }
    let verb = if data["applied"] == true { "applied" } else { "planned" };
    output::line(&format!("{verb}: {}", counted.join(", ")));
}
