//! What comes of sources.

mod bounds;
mod documents;
mod examples;
mod secrets;

use serde_json::json;

use super::*;

/// Imports a source that must be read, and checks that what comes out is a document.
fn import(source: &str) -> Imported {
    import_only(source, &[])
}

fn import_only(source: &str, only: &[&str]) -> Imported {
    let only = only.iter().map(|pattern| (*pattern).to_owned()).collect();
    let spec = ImportSpec { source: source.to_owned(), only, ..ImportSpec::default() };
    let imported = spec.import().unwrap_or_else(|fault| panic!("{fault}\n{source}"));
    crate::Document::read(&imported.document).unwrap_or_else(|faults| panic!("{faults:#?}\n{:#}", imported.document));
    imported
}

fn fault(source: &str) -> String {
    ImportSpec { source: source.to_owned(), ..ImportSpec::default() }.import().unwrap_err().to_string()
}

fn notes(imported: &Imported) -> String {
    imported.notes.iter().map(|note| format!("{note}\n")).collect()
}

fn action<'a>(imported: &'a Imported, name: &str) -> &'a Value {
    let found = &imported.document["spec"]["actions"][name];
    assert!(found.is_object(), "no action {name}: {:#}", imported.document);
    found
}

/// What an action sends when it is given this.
fn sent(imported: &Imported, name: &str, settings: Value, input: Value) -> (String, String, String) {
    let spec: ConnectorSpec = serde_json::from_value(imported.document["spec"].clone()).unwrap();
    let connector = Connector::compile(spec).unwrap();
    let own = crate::connection::ConnectionSpec { settings: settings.as_object().cloned(), ..Default::default() };
    let (connection, settings) = connector.connect(&own).unwrap();
    let action = connector.action(name).unwrap();
    let scope = action.scope(&connector, &settings, input.as_object().cloned().unwrap()).unwrap();
    let mut request = action.plan.request.render(&scope, connection.base().as_ref()).unwrap();
    assert!(connection.admits(connection.base().as_ref(), &request.url), "{}", request.url);
    connection.add_headers(&mut request);
    let headers =
        request.headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect();
    (format!("{} {}", request.method, request.url), headers, String::from_utf8_lossy(&request.body).into_owned())
}

fn openapi(more: Value) -> String {
    let mut document = json!({
        "openapi": "3.0.3", "info": {"title": "Desk", "version": "1.2.0"},
        "servers": [{"url": "https://api.desk.example/v1"}], "paths": {},
    });
    for (key, value) in more.as_object().unwrap() {
        document[key] = value.clone();
    }
    document.to_string()
}

fn one(operation: Value) -> Imported {
    import(&openapi(json!({"paths": {"/things/{id}": {"post": operation}}})))
}

/// The whole of what an import gives, in which nothing secret may stand.
fn all_of(imported: &Imported) -> String {
    format!("{:#}\n{}", imported.document, notes(imported))
}

#[test]
fn what_is_no_source_is_said_to_be() {
    for (source, said) in [
        ("[", "neither JSON nor YAML"),
        ("a: 1", "no OpenAPI or Swagger document"),
        ("{\"openapi\": \"4.0\"}", "version 4.0 is not read"),
        ("swagger: '1.2'", "version 1.2 is not read"),
        ("openapi: 3.0.0\npaths: {}", "it has no operations"),
        ("{\"requests\": [], \"order\": []}", "export it as v2.1"),
        ("curl 'https://a", "has no end"),
        ("curl -k", "no curl command with a URL"),
        ("{\"info\": {}, \"item\": []}", "no request of the collection has a URL"),
    ] {
        let found = fault(source);
        assert!(found.starts_with("source: ") && found.contains(said), "{source}: {found}");
    }
}

#[test]
fn the_hint_speaks_of_the_operation_first() {
    let found = fault("curl -b cookies.txt 'https://a.test/' -X 'A B'");
    assert!(found.contains("left out, because it does not compile"), "{found}");
}
