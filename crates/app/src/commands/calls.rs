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
        let (connection, offered) = match args.connection.split_once('.') {
            Some((connection, offered)) => (encoded(connection), Some(offered.to_owned())),
            None => (encoded(&args.connection), None),
        };
        let (kind, schema) = match &offered {
            Some(offered) => self.kind_of(&connection, offered)?,
            None => (Offered::Action, Value::Null),
        };
        let is_list = match kind {
            Offered::Stream => true,
            Offered::List => !args.first_page,
            Offered::Action => args.paginate.is_some() || args.since.is_some(),
        };
        let field = if matches!(kind, Offered::Stream) { "stream" } else { "action" };
        let call = call_of(args, offered.map(|offered| (field, offered)), &schema)?;
        if is_list || call.get("paginate").is_some() || call.get("stream").is_some() {
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

    /// What stands behind the dot, and the schema of what it is given. What is not known here, the call itself will
    /// say.
    fn kind_of(&self, connection: &str, name: &str) -> Result<(Offered, Value)> {
        let connection = self.client.get(&format!("/api/v1/connections/{connection}"))?;
        let Some(connector) = connection["data"]["spec"]["connector"].as_str() else {
            return Ok((Offered::Action, Value::Null));
        };
        let connector = self.client.get(&format!("/api/v1/catalog/{}", encoded(connector)))?;
        let find = |field: &str| connector["data"][field].as_array()?.iter().find(|known| known["name"] == name);
        let input = |offered: Option<&Value>| offered.map_or(Value::Null, |offered| offered["input"].clone());
        Ok(match (find("actions"), find("streams")) {
            (Some(action), _) if action["list"] == true => (Offered::List, input(Some(action))),
            (None, Some(stream)) => (Offered::Stream, input(Some(stream))),
            (action, _) => (Offered::Action, input(action)),
        })
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
        let count = |field: &str, noun| output::count(end[field].as_u64().unwrap_or_default(), noun);
        output::note(&format!("{} on {}", count("items", "item"), count("pages", "page")));
        if let Some(cursor) = end.get("cursor") {
            output::note(&format!("the next reading begins with --since {}", quoted(cursor)));
        }
        if end["complete"] != true {
            output::note("the reading ended at its max_pages; there may be more");
        }
        Ok(())
    }
}

/// What a connector offers under a name.
#[derive(Clone, Copy)]
enum Offered {
    /// A request with its answer.
    Action,
    /// The same that gives a list.
    List,
    /// A list that is read again and again.
    Stream,
}

/// A cursor as a shell takes it.
fn quoted(cursor: &Value) -> String {
    let text = cursor.as_str().map_or_else(|| cursor.to_string(), ToOwned::to_owned);
    let is_plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-:._/".contains(c));
    if is_plain { text } else { format!("'{}'", output::plain(&text).replace('\'', r"'\''")) }
}

/// The call that the options ask for; of an action or a stream with the field that names it, and the schema of what it
/// is given.
fn call_of(args: CallArgs, offered: Option<(&str, String)>, schema: &Value) -> Result<Value> {
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
            "a call is a mapping with `request`, and perhaps `variables` and `paginate`, or with `action` or `stream` and `input`"
        );
    }
    if let Some(rule) = &args.paginate {
        call["paginate"] = read_one("--paginate", rule)?;
    }
    if let Some((field, name)) = offered {
        call[field] = name.into();
    }
    if let Some(since) = &args.since {
        call["since"] = number_or_text(since);
    }
    let is_offered = call.get("action").is_some() || call.get("stream").is_some();
    let given = if is_offered { "input" } else { "variables" };
    for (name, value) in pairs("--set", &args.variables)? {
        // What is to be a text is one, also where it reads as a number.
        let is_text = schema["properties"][&name]["type"] == "string";
        let read = serde_json::from_str::<Value>(&value).ok().filter(|read| !is_text || read.is_string());
        call[given][name] = read.unwrap_or(Value::String(value));
    }
    if is_offered {
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

/// A cursor as a connector's requests carry it: many count, and others are texts.
fn number_or_text(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(number @ Value::Number(_)) => number,
        _ => text.into(),
    }
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
