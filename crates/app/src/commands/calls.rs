//! Calls through a connection.

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use super::Commands;
use crate::cli::{CallArgs, Output};
use crate::client::encoded;
use crate::documents::read_one;
use crate::output;

impl Commands {
    pub(super) fn call(&self, args: CallArgs) -> Result<()> {
        let (connection, action) = match args.connection.split_once('.') {
            Some((connection, action)) => (encoded(connection), Some(action.to_owned())),
            None => (encoded(&args.connection), None),
        };
        let is_list = match &action {
            Some(action) if args.paginate.is_none() => !args.first_page && self.is_list(&connection, action)?,
            _ => args.paginate.is_some(),
        };
        let call = call_of(args, action)?;
        if is_list || call.get("paginate").is_some() {
            return self.read_list(&connection, call);
        }
        let bar = output::progress("waiting for the answer");
        let answer = self.client.post(&format!("/api/v1/connections/{connection}/call"), Some(call));
        bar.finish_and_clear();
        let answer = answer?;
        self.show(&answer, |data| match data {
            Value::Null => {}
            Value::String(text) => output::line(text),
            data => output::json(data),
        });
        if self.output == Output::Table {
            let call = &answer["call"];
            let took =
                call["attempts"].as_array().and_then(|attempts| attempts.last()?["timings"]["total_us"].as_u64());
            output::note(&format!("status {} in {} ms", call["status"], took.unwrap_or_default().div_ceil(1_000)));
        }
        Ok(())
    }

    /// Whether an action gives a list. What is not known here, the call itself will say.
    fn is_list(&self, connection: &str, action: &str) -> Result<bool> {
        let connection = self.client.get(&format!("/api/v1/connections/{connection}"))?;
        let Some(connector) = connection["data"]["spec"]["connector"].as_str() else { return Ok(false) };
        let connector = self.client.get(&format!("/api/v1/catalog/{}", encoded(connector)))?;
        let actions = connector["data"]["actions"].as_array();
        Ok(actions.into_iter().flatten().any(|known| known["name"] == action && known["list"] == true))
    }

    fn read_list(&self, connection: &str, call: Value) -> Result<()> {
        let mut last = Value::Null;
        self.client.post_for_lines(&format!("/api/v1/connections/{connection}/read"), call, |mut line| {
            match line.get_mut("item") {
                Some(item) => output::line(&item.take().to_string()),
                None => last = line,
            }
        })?;
        if let Some(error) = last.get("error") {
            bail!("{}; the items so far stand", output::plain(error["description"].as_str().unwrap_or_default()));
        }
        let Some(end) = last.get("end") else { bail!("the list was cut off; the items so far stand") };
        output::note(&format!("{} items on {} pages", end["items"], end["pages"]));
        if end["complete"] != true {
            output::note("the reading ended at its max_pages; there may be more");
        }
        Ok(())
    }
}

/// The call that the options ask for.
fn call_of(args: CallArgs, action: Option<String>) -> Result<Value> {
    let mut call = match &args.file {
        None => json!({}),
        Some(path) => {
            let text = match path.as_os_str() == "-" {
                true => {
                    let mut text = String::new();
                    std::io::stdin().read_to_string(&mut text).context("standard input")?;
                    text
                }
                false => std::fs::read_to_string(path).with_context(|| path.display().to_string())?,
            };
            read_one(&path.display().to_string(), &text)?
        }
    };
    if !call.is_object() {
        bail!(
            "a call is a mapping with `request`, and perhaps `variables` and `paginate`, or with `action` and `input`"
        );
    }
    if let Some(rule) = &args.paginate {
        call["paginate"] = read_one("--paginate", rule)?;
    }
    if let Some(action) = action {
        call["action"] = action.into();
    }
    let is_action = call.get("action").is_some();
    let given = if is_action { "input" } else { "variables" };
    for (name, value) in pairs("--set", &args.variables)? {
        call[given][name] = serde_json::from_str(&value).unwrap_or(Value::String(value));
    }
    if is_action {
        if let Some(option) = of_request(&args) {
            bail!(
                "{option} is of a request, and an action has its own; give it what it asks for with --set name=value"
            );
        }
        return Ok(call);
    }
    if args.target.is_none() && call.get("request").is_none() {
        bail!("say what to call: a path, a whole URL, or an action as CONNECTION.ACTION");
    }
    let request = &mut call["request"];
    if let Some(target) = args.target {
        let field = if target.contains("://") || target.trim_start().starts_with("{{") { "url" } else { "path" };
        request[field] = target.into();
    }
    for (name, value) in pairs("--query", &args.query)? {
        request["query"][name] = value.into();
    }
    for header in &args.headers {
        let Some((name, value)) = header.split_once(':') else {
            bail!("`{header}` is not a header; write `Name: value`");
        };
        request["headers"][name.trim()] = value.trim().into();
    }
    if let Some(text) = args.json {
        request["json"] = serde_json::from_str(&text).context("--json is not JSON")?;
    }
    if !args.form.is_empty() {
        let fields: Map<String, Value> =
            pairs("--form", &args.form)?.into_iter().map(|(name, value)| (name, value.into())).collect();
        request["form"] = fields.into();
    }
    for (name, value) in [("text", args.text), ("response", args.response), ("timeout", args.timeout)] {
        if let Some(value) = value {
            request[name] = value.into();
        }
    }
    let has_body = ["json", "form", "text", "xml", "raw", "multipart"].iter().any(|body| request.get(body).is_some());
    match args.method {
        Some(method) => request["method"] = method.to_ascii_uppercase().into(),
        None if request.get("method").is_none() => request["method"] = if has_body { "POST" } else { "GET" }.into(),
        None => {}
    }
    Ok(call)
}

/// The first option that was given and that says something of a request.
fn of_request(args: &CallArgs) -> Option<&'static str> {
    let given = [
        ("a path", args.target.is_some()),
        ("--method", args.method.is_some()),
        ("--query", !args.query.is_empty()),
        ("--header", !args.headers.is_empty()),
        ("--json", args.json.is_some()),
        ("--form", !args.form.is_empty()),
        ("--text", args.text.is_some()),
        ("--response", args.response.is_some()),
        ("--timeout", args.timeout.is_some()),
    ];
    given.into_iter().find(|(_, is_given)| *is_given).map(|(option, _)| option)
}

fn pairs(option: &str, given: &[String]) -> Result<Vec<(String, String)>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => bail!("{option} `{text}`: write name=value"),
    };
    given.iter().map(pair).collect()
}
