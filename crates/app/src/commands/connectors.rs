//! Connectors: what there is, and checks of files that need no server.

use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use linkspan_model::connector::{CaseSpec, Connector, ConnectorSpec, Files};
use linkspan_model::import::{Format, ImportSpec};
use linkspan_model::{Document, Name, Spec, fault, limits, yaml};
use serde_json::{Value, json};

use super::Commands;
use crate::cli::{ConnectorsArgs, ConnectorsCommand, ImportArgs, ImportFormat, Output};
use crate::client::{Invalid, encoded};
use crate::places::Places;
use crate::{documents, output};

/// Runs one of the commands; `server` is asked for where one is needed.
pub(super) fn run(args: ConnectorsArgs, server: impl Fn() -> Result<Commands>, output: Output) -> Result<()> {
    match args.command {
        None | Some(ConnectorsCommand::List) => server()?.list_connectors(),
        Some(ConnectorsCommand::Show { name, document: false }) => server()?.show_connector(&name),
        Some(ConnectorsCommand::Show { name, document: true }) => show_document(&name, server, output),
        Some(ConnectorsCommand::Delete { name }) => {
            server()?.client.delete(&format!("/api/v1/connectors/{}", encoded(&name)))?;
            output::note(&format!("deleted {name}"));
            Ok(())
        }
        Some(ConnectorsCommand::Validate { files }) => validate(&files, output),
        Some(ConnectorsCommand::Test { connectors }) => test(&connectors, output),
        Some(ConnectorsCommand::Import(args)) => import(args, output),
    }
}

impl Commands {
    fn list_connectors(&self) -> Result<()> {
        let answer = self.client.get("/api/v1/catalog")?;
        let columns = [
            ("name", "/name"),
            ("title", "/title"),
            ("version", "/version"),
            ("origin", "/origin"),
            ("actions", "/actions"),
            ("streams", "/streams"),
            ("webhooks", "/webhooks"),
            ("reason", "/reason"),
        ];
        self.show(&answer, |items| output::table(&columns.map(|(heading, _)| heading), super::rows(items, &columns)));
        Ok(())
    }

    fn show_connector(&self, name: &str) -> Result<()> {
        let (name, offered) = name.split_once('.').map_or((name, None), |(name, offered)| (name, Some(offered)));
        let mut answer = self.client.get(&format!("/api/v1/catalog/{}", encoded(name)))?;
        if let Some(offered) = offered {
            let (kind, found) = find(&mut answer["data"], offered)
                .with_context(|| format!("connector {name} has no action, stream or webhook `{offered}`"))?;
            self.show(&json!({"data": found}), |found| whole_entry(kind, found));
            return Ok(());
        }
        self.show(&answer, |connector| {
            let text = |field: &str| connector[field].as_str().unwrap_or_default().to_owned();
            output::line(&format!("{} {} ({})", text("title"), text("version"), text("origin")));
            output::line(&text("documentation"));
            fields("settings", &connector["settings"]);
            for account in connector["accounts"].as_array().into_iter().flatten() {
                let word = |field: &str| account[field].as_str().unwrap_or_default();
                let about = [word("title"), word("help")].into_iter().filter(|text| !text.is_empty());
                output::line(&format!("account {}: {}", word("kind"), about.collect::<Vec<_>>().join(". ")));
            }
            let of = |field: &str| connector[field].as_array().cloned().unwrap_or_default();
            for action in of("actions") {
                let kind = if action["list"] == true { " (a list)" } else { "" };
                entry(kind, &action);
            }
            for stream in of("streams") {
                let kind = if stream["cursor"].is_null() { " (a stream)" } else { " (a stream with a cursor)" };
                entry(kind, &stream);
            }
            for webhook in of("webhooks") {
                let verify = &webhook["endpoint"]["verify"];
                let way = verify.as_object().and_then(|verify| verify.keys().next());
                let way = way.map_or_else(|| "not verified".to_owned(), |way| format!("verified by {way}"));
                entry(&format!(" (a webhook, {way})"), &webhook);
                for text in [&webhook["help"], &webhook["documentation"]].into_iter().filter_map(Value::as_str) {
                    output::line(&format!("    {}", output::plain(text)));
                }
            }
        });
        Ok(())
    }
}

/// What a connector offers under a name, and what that is.
fn find(connector: &mut Value, name: &str) -> Option<(&'static str, Value)> {
    [("actions", "action"), ("streams", "stream"), ("webhooks", "webhook")].into_iter().find_map(|(field, kind)| {
        let offered = connector[field].as_array_mut()?.iter_mut().find(|offered| offered["name"] == name)?;
        Some((kind, offered.take()))
    })
}

/// Writes all that there is to know of something that a connector offers.
fn whole_entry(kind: &str, offered: &Value) {
    let word = |field: &str| output::plain(offered[field].as_str().unwrap_or_default());
    output::line(&format!("{} ({kind}): {}", word("name"), word("title")));
    for field in ["description", "help", "documentation"].map(word).into_iter().filter(|text| !text.is_empty()) {
        output::line(&field);
    }
    fields("input", &offered["input"]);
    for (heading, value) in [
        ("endpoint", &offered["endpoint"]),
        ("output schema", &offered["output"]["schema"]),
        ("output sample", &offered["output"]["sample"]),
    ] {
        if !value.is_null() {
            output::line(heading);
            output::json(value);
        }
    }
}

/// Writes what something that a connector offers is, and what it is given.
fn entry(kind: &str, offered: &Value) {
    let word = |field: &str| offered[field].as_str().unwrap_or_default();
    output::line(format!("\n{}{kind}: {}", word("name"), word("title")).trim_end_matches([':', ' ']));
    fields("", &offered["input"]);
}

/// Writes what an object can be given, a line a field.
fn fields(heading: &str, schema: &Value) {
    if !heading.is_empty() && schema["properties"].as_object().is_some_and(|fields| !fields.is_empty()) {
        output::line(heading);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let is_required = schema["required"].as_array().is_some_and(|required| required.contains(&json!(name)));
        let sign = if is_required { "*" } else { " " };
        let about = field["description"].as_str().or_else(|| field["title"].as_str()).unwrap_or_default();
        output::line(&output::plain(format!("  {sign} {name} ({})  {about}", kind_of(field)).trim_end()));
    }
}

/// What a field may be: its type, or the values that there are, and what it is when it is left out.
fn kind_of(field: &Value) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let words = |values: &[Value]| values.iter().map(word).collect::<Vec<_>>().join(", ");
    let mut kind = match (&field["enum"], &field["type"]) {
        (Value::Array(values), _) => words(values),
        (_, Value::Array(types)) => words(types),
        (_, Value::String(one)) => one.clone(),
        _ => "any".to_owned(),
    };
    if let Some(default) = field.get("default") {
        kind.push_str(&format!("; {} when left out", word(default)));
    }
    kind
}

fn show_document(name: &str, server: impl Fn() -> Result<Commands>, output: Output) -> Result<()> {
    let bundled = name.parse().ok().and_then(|name: Name| linkspan_connectors::find(&name));
    let users = server().and_then(|server| server.client.get(&format!("/api/v1/connectors/{}", encoded(name))));
    let document = match (users, bundled) {
        (Ok(mut users), _) => {
            // What can be applied: without what only the server says.
            let written =
                ["kind", "name", "description", "labels", "spec"].map(|field| (field, users["data"][field].take()));
            let written = written.into_iter().filter(|(_, value)| !value.is_null());
            written.map(|(field, value)| (field.to_owned(), value)).collect::<serde_json::Map<_, _>>().into()
        }
        // Also where no server runs.
        (Err(_), Some(bundled)) => bundled.document.to_value(),
        (Err(error), None) => return Err(error),
    };
    match output {
        Output::Json => output::json(&json!({"data": document})),
        Output::Table => output::line(yaml::write(&document).trim_end()),
    }
    Ok(())
}

/// A connector that was read, with what its cases name as files.
struct Read {
    name: String,
    connector: Connector,
    cases: Vec<CaseSpec>,
    files: Box<Files<'static>>,
}

fn validate(files: &[PathBuf], output: Output) -> Result<()> {
    let mut read = Vec::new();
    for file in files {
        read.extend(read_file(file)?);
    }
    let shown: Vec<Value> = read
        .iter()
        .map(|read| {
            json!({
                "name": read.name,
                "actions": read.connector.actions().count(),
                "streams": read.connector.streams().count(),
                "webhooks": read.connector.spec.webhooks.len(),
                "cases": read.cases.len(),
            })
        })
        .collect();
    match output {
        Output::Json => output::json(&json!({"data": shown})),
        Output::Table => {
            for read in &shown {
                let counts = ["action", "stream", "webhook", "case"];
                let counts = counts.map(|noun| output::count(read[format!("{noun}s")].as_u64().unwrap_or(0), noun));
                output::line(&format!("{}: {}", read["name"].as_str().unwrap_or_default(), counts.join(", ")));
            }
        }
    }
    Ok(())
}

/// Reads the connectors of a file; those that one extends stand in the file before it, or come with the product.
fn read_file(path: &Path) -> Result<Vec<Read>> {
    let sources = documents::read_documents(path)?;
    let mut specs: Vec<(Name, ConnectorSpec)> = Vec::new();
    let mut read = Vec::new();
    let mut faults = Vec::new();
    for source in &sources {
        let places = Places::of(source);
        let mut complain =
            |found: Vec<linkspan_model::Fault>| faults.extend(found.iter().map(|fault| places.say(fault)));
        let document = match Document::read(&source.value) {
            Ok(document) => document,
            Err(found) => {
                complain(found);
                continue;
            }
        };
        let Spec::Connector(spec) = document.spec else {
            bail!("{}: {}/{} is not a connector", source.place, document.kind(), document.name)
        };
        let find = |name: &Name, is_own: bool| {
            let earlier = specs.iter().find(|(known, _)| !is_own && known == name).map(|(_, spec)| spec);
            earlier.or_else(|| linkspan_connectors::find(name).map(linkspan_connectors::Bundled::spec))
        };
        let whole = spec.resolve(&document.name, &find).map_err(|fault| vec![fault]);
        match whole.and_then(Connector::compile) {
            Ok(connector) => {
                let folder = path.parent().map(Path::to_owned).unwrap_or_default();
                let files = move |name: &str| beside(&folder, name);
                let name = document.name.to_string();
                read.push(Read { name, connector, cases: spec.tests.clone(), files: Box::new(files) });
            }
            Err(found) => complain(found.into_iter().map(|fault| fault.under("spec")).collect()),
        }
        specs.push((document.name, *spec));
    }
    if faults.is_empty() { Ok(read) } else { Err(Invalid(faults.join("\n")).into()) }
}

/// The bytes of a file below a folder: who shares a connector does not choose what else is read.
fn beside(folder: &Path, name: &str) -> std::result::Result<Vec<u8>, String> {
    let stays = Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !stays {
        return Err("a file of a case lies beside the connector's or below".to_owned());
    }
    std::fs::read(folder.join(name)).map_err(|error| error.to_string())
}

fn bundled(name: &str) -> Result<Read> {
    let found = name.parse().ok().and_then(|name: Name| linkspan_connectors::find(&name));
    let found = found.with_context(|| format!("`{name}` is no file, and no connector that comes with the product"))?;
    let connector = Connector::compile(found.spec().clone());
    let connector = connector.map_err(|faults| anyhow!("{name}: {}", fault::in_words(&faults)))?;
    let files = |file: &str| found.file(file).map(<[u8]>::to_vec).ok_or_else(|| "there is no such file".to_owned());
    Ok(Read { name: name.to_owned(), connector, cases: found.spec().tests.clone(), files: Box::new(files) })
}

fn test(connectors: &[String], output: Output) -> Result<()> {
    let mut results = Vec::new();
    for given in connectors {
        let path = Path::new(given);
        let found = if path.is_file() { read_file(path)? } else { vec![bundled(given)?] };
        for read in found {
            for case in &read.cases {
                let faults = read.connector.run_case(case, &*read.files).err().unwrap_or_default();
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                results.push(json!({
                    "connector": read.name, "case": case.name, "passed": faults.is_empty(), "faults": faults,
                }));
            }
            if read.cases.is_empty() {
                output::note(&format!("{} has no cases", read.name));
            }
        }
    }
    let failed = results.iter().filter(|result| result["passed"] != true).count();
    match output {
        Output::Json => output::json(&json!({"data": results})),
        Output::Table => {
            for result in &results {
                let word = |field: &str| result[field].as_str().unwrap_or_default();
                let sign = if result["passed"] == true { "ok  " } else { "FAIL" };
                output::line(&format!("{sign} {}: {}", word("connector"), word("case")));
                for fault in result["faults"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    output::line(&format!("     {}", output::plain(fault)));
                }
            }
        }
    }
    match failed {
        0 => Ok(()),
        failed => bail!("{failed} of {} cases failed", results.len()),
    }
}

/// Makes a connector of what others wrote down of an API. The document goes to standard output, what is to be known of
/// it to standard error.
fn import(args: ImportArgs, output: Output) -> Result<()> {
    let format = args.format.map(|format| match format {
        ImportFormat::Openapi => Format::OpenApi,
        ImportFormat::Curl => Format::Curl,
        ImportFormat::Postman => Format::Postman,
    });
    let (source, format) = match (args.curl, args.source) {
        (Some(command), _) => (command, Some(Format::Curl)),
        (None, source) => (read_source(&source.unwrap_or_else(|| PathBuf::from("-")))?, format),
    };
    let spec = ImportSpec { source, format, name: args.name, only: args.only };
    let imported = spec.import().map_err(|fault| Invalid(fault.to_string()))?;
    let actions = imported.document["spec"]["actions"].as_object().map_or(0, serde_json::Map::len);
    let text = match output {
        Output::Json => serde_json::to_string_pretty(&json!({"data": imported}))?,
        Output::Table => yaml::write(&imported.document),
    };
    if output == Output::Table {
        for note in &imported.notes {
            output::note(&output::plain(&note.to_string()));
        }
    }
    match args.out {
        None => output::line(text.trim_end()),
        Some(path) => {
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
            output::note(&format!("{}: {actions} actions", path.display()));
        }
    }
    Ok(())
}

/// The text of a source, which may be longer than other documents and is bounded.
fn read_source(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let most = limits::IMPORT_SOURCE_BYTES as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin().take(most).read_to_end(&mut bytes).context("standard input")?;
    } else {
        let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
        file.take(most).read_to_end(&mut bytes).with_context(|| path.display().to_string())?;
    }
    String::from_utf8(bytes).with_context(|| format!("{}: not UTF-8", path.display()))
}
