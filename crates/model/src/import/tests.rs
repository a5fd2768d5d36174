use proptest::prelude::*;
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

#[test]
fn an_operation_becomes_an_action() {
    let imported = import(&openapi(json!({
        "paths": {"/pets/{petId}/visits": {
            "parameters": [{"name": "petId", "in": "path", "required": true, "schema": {"type": "integer"}}],
            "post": {
                "operationId": "createVisit", "summary": "Create a visit", "description": "<p>Books &amp; confirms.</p>",
                "parameters": [
                    {"name": "tag", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
                    {"name": "ids", "in": "query", "explode": false, "schema": {"type": "array", "items": {"type": "integer"}}},
                    {"name": "filter", "in": "query", "style": "deepObject", "schema": {"type": "object"}},
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "default": 20}},
                    {"name": "mode", "in": "query", "required": true, "schema": {"enum": ["full"]}},
                    {"name": "X-Tenant", "in": "header", "required": true, "schema": {"type": "string"}},
                ],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Visit"}}}},
                "responses": {"201": {"description": "", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Visit"}}}}},
            },
        }},
        "components": {"schemas": {
            "Base": {"type": "object", "required": ["at"], "properties": {"at": {"type": "string", "format": "date-time"}}},
            "Visit": {"allOf": [{"$ref": "#/components/schemas/Base"}, {"type": "object", "properties": {
                "id": {"type": "string", "readOnly": true}, "note": {"type": "string", "nullable": true},
                "kind": {"type": "string", "enum": ["visit"]},
            }}]},
        }},
    })));
    assert_eq!(notes(&imported), "");
    let action = action(&imported, "create_visit");
    assert_eq!(action["title"], "Create a visit");
    assert_eq!(action["description"], "Books & confirms.");
    assert_eq!(action["input"]["required"], json!(["petId", "x_tenant", "at"]));
    assert_eq!(action["input"]["properties"]["note"], json!({"type": ["string", "null"]}));
    assert_eq!(action["input"]["properties"]["limit"], json!({"type": "integer", "description": "Left out: 20"}));
    assert!(action["input"]["properties"].get("id").is_none(), "only the API writes it");
    assert_eq!(action["output"]["schema"]["properties"]["id"], json!({"type": "string"}));

    let given = json!({"petId": 7, "tag": ["a", "b c"], "ids": [1, 2], "filter": {"a": {"b": 1}}, "x_tenant": "t",
                       "at": "2024-01-01T00:00:00Z", "note": null});
    let (request, headers, body) = sent(&imported, "create_visit", json!({}), given);
    assert_eq!(
        request,
        "POST https://api.desk.example/v1/pets/7/visits?tag=a&tag=b%20c&ids=1%2C2&filter%5Ba%5D%5Bb%5D=1&mode=full"
    );
    assert!(headers.contains("x-tenant: t\n") && headers.contains("accept: application/json\n"), "{headers}");
    assert_eq!(body, r#"{"at":"2024-01-01T00:00:00Z","note":null}"#);
}

#[test]
fn bodies_are_sent_as_their_media_types_say() {
    let with = |media: Value| one(json!({"operationId": "a", "requestBody": {"required": true, "content": media}}));
    let object = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "string"}}}});
    let form = with(json!({"application/x-www-form-urlencoded": {"schema": object}}));
    let (_, headers, body) = sent(&form, "a", json!({}), json!({"id": 1, "a": "x y", "b": ["1", "2"]}));
    assert_eq!(body, "a=x+y&b=1&b=2");
    assert!(headers.contains("content-type: application/x-www-form-urlencoded"));

    let deep = with(json!({"application/x-www-form-urlencoded": {
        "schema": {"type": "object", "properties": {
            "expand": {"type": "array", "items": {"type": "string"}},
            "items": {"type": "array", "items": {"type": "object", "properties": {"price": {"type": "string"}}}},
        }},
        "encoding": {"expand": {"style": "deepObject", "explode": true}, "items": {"style": "deepObject", "explode": true}},
    }}));
    let (.., body) = sent(&deep, "a", json!({}), json!({"id": 1, "expand": ["a", "b"], "items": [{"price": "p"}]}));
    assert_eq!(body, "expand%5B%5D=a&expand%5B%5D=b&items%5B0%5D%5Bprice%5D=p");

    let upload =
        with(json!({"multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": {
            "file": {"type": "string", "format": "binary"}, "meta": {"type": "object"}, "note": {"type": "string"},
        }}}}));
    let (.., body) =
        sent(&upload, "a", json!({}), json!({"id": 1, "file": "abc", "file_name": "a.txt", "meta": {"k": 1}}));
    assert!(
        body.contains("name=\"file\"; filename=\"a.txt\"") && body.contains("{\"k\":1}") && !body.contains("note"),
        "{body}"
    );

    let merge = with(json!({"application/merge-patch+json": {"schema": {"type": "array", "items": {}}}}));
    let (_, headers, body) = sent(&merge, "a", json!({}), json!({"id": 1, "body": [1]}));
    assert_eq!(body, "[1]");
    assert!(headers.contains("content-type: application/merge-patch+json"));

    let xml = with(json!({"application/xml": {"schema": object}}));
    assert_eq!(sent(&xml, "a", json!({}), json!({"id": 1, "body": "<a/>"})).2, "<a/>");
    let text = with(json!({"text/csv": {"schema": {"type": "string"}}}));
    let (_, headers, body) = sent(&text, "a", json!({}), json!({"id": 1, "body": "a,b"}));
    assert!(body == "a,b" && headers.contains("content-type: text/csv"), "{headers}");
    let bytes = with(json!({"image/png": {}}));
    assert_eq!(sent(&bytes, "a", json!({}), json!({"id": 1, "body": {"base64": "YQ=="}})).2, "a");
}

#[test]
fn servers_are_the_base_url_or_are_asked_for() {
    let with = |servers: Value| import(&openapi(json!({"servers": servers, "paths": {"/a": {"get": {}}}})));
    let url = |imported: &Imported, settings: Value| sent(imported, "get_a", settings, json!({})).0;
    assert_eq!(url(&with(json!([{"url": "https://a.test/v1/"}])), json!({})), "GET https://a.test/v1/a");
    let region = with(json!([{"url": "https://{region}.a.test/{version}", "variables": {
        "region": {"default": "eu", "enum": ["eu", "us"]}, "version": {"default": "v2"},
    }}]));
    assert_eq!(url(&region, json!({})), "GET https://eu.a.test/v2/a");
    assert_eq!(url(&region, json!({"region": "us"})), "GET https://us.a.test/v2/a");
    let several = with(
        json!([{"url": "https://a.test"}, {"url": "http://a.test"}, {"url": "https://b.test", "description": "Sandbox"}]),
    );
    assert_eq!(url(&several, json!({})), "GET https://a.test/a");
    assert_eq!(url(&several, json!({"base_url": "https://b.test"})), "GET https://b.test/a");
    assert!(several.document["spec"]["settings"].to_string().contains("https://b.test (Sandbox)"));
    // What a variable would decide is the scheme, or more than a segment.
    for hard in ["{scheme}://a.test/v1", "https://a.test/{path}"] {
        let hard =
            with(json!([{"url": hard, "variables": {"scheme": {"default": "https"}, "path": {"default": "v/1"}}}]));
        assert!(url(&hard, json!({})).starts_with("GET https://a.test/v"));
    }
    for missing in [json!([]), json!([{"url": "/v1"}]), json!([{"url": "//a.test"}, {"url": "ftp://a.test"}])] {
        let missing = with(missing);
        assert_eq!(missing.document["spec"]["settings"]["required"], json!(["base_url"]));
        assert_eq!(url(&missing, json!({"base_url": "https://c.test/x"})), "GET https://c.test/x/a");
    }
    let first = with(json!([{"url": "https://{host}/v1", "variables": {}}, {"url": "https://b.test/"}]));
    assert_eq!(url(&first, json!({"host": "a.test"})), "GET https://a.test/v1/a");
    assert!(notes(&first).contains("other servers are left out: https://b.test/"));
    let own = import(&openapi(json!({"paths": {
        "/a": {"get": {}}, "/b": {"servers": [{"url": "https://up.test:8443/u"}], "get": {}},
    }})));
    assert_eq!(sent(&own, "get_b", json!({}), json!({})).0, "GET https://up.test:8443/u/b");
    assert_eq!(own.document["spec"]["connection"]["hosts"], json!(["up.test:8443"]));
}

#[test]
fn security_schemes_are_accounts_and_no_inputs() {
    let imported = import(&openapi(json!({
        "components": {"securitySchemes": {
            "key": {"type": "apiKey", "in": "header", "name": "X-Key"}, "q": {"type": "apiKey", "in": "query", "name": "sid"},
            "basic": {"type": "http", "scheme": "basic"}, "digest": {"type": "http", "scheme": "digest"},
            "bearer": {"type": "http", "scheme": "bearer"}, "tls": {"type": "mutualTLS"},
            "flow": {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "https://id.test/token", "scopes": {"read": ""}}}},
            "implicit": {"type": "oauth2", "flows": {"implicit": {"authorizationUrl": "https://id.test"}}},
        }},
        "paths": {"/a": {"get": {"parameters": [
            {"name": "x-key", "in": "header", "required": true, "schema": {}}, {"name": "sid", "in": "query", "required": true},
            {"name": "api_key", "in": "query", "schema": {"default": "very-secret-value"}}, {"name": "pageToken", "in": "query"},
            {"name": "Authorization", "in": "header"}, {"name": "Accept", "in": "header"},
        ]}}},
    })));
    let kinds: Vec<&str> = imported.document["spec"]["accounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|account| account["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["headers", "query", "basic", "digest", "bearer", "oauth2", "bearer", "query", "headers"]);
    let text = imported.document.to_string();
    assert!(text.contains("token_url: https://id.test/token Scopes: read."));
    assert!(!text.contains("very-secret-value"));
    assert_eq!(action(&imported, "get_a")["input"]["properties"], json!({"pageToken": {}}));
    assert!(notes(&imported).contains("tls: the API wants a client certificate"));
}

#[test]
fn schemas_stay_bounded_and_right() {
    let with = |schemas: Value, body: Value| {
        let body = json!({"required": true, "content": {"application/json": {"schema": body}}});
        let document = json!({"components": {"schemas": schemas}, "paths": {"/a": {"post": {"requestBody": body}}}});
        import(&openapi(document))
    };
    let recursive = with(
        json!({"Node": {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}, "n": {"type": "integer"}}}}),
        json!({"$ref": "#/components/schemas/Node"}),
    );
    assert_eq!(
        sent(&recursive, "post_a", json!({}), json!({"next": {"next": {"next": {"n": 1}}}})).2,
        r#"{"next":{"next":{"next":{"n":1}}}}"#
    );
    assert!(notes(&recursive).contains("recursive"));

    let old = with(
        json!({}),
        json!({"properties": {
            "a": {"type": "number", "minimum": 0, "exclusiveMinimum": true}, "b": {"type": "string", "enum": [1, 2]},
            "c": {"type": "file"}, "d": {"oneOf": [{"type": "string"}, {"type": "integer"}]}, "e": {"nullable": true, "allOf": [{"type": "object", "properties": {"x": {}}}]},
            "f": {"type": "string", "pattern": "^(?!a)"}, "g": {"$ref": "other.yaml#/X"}, "h": {"required": true, "type": "string"},
        }}),
    );
    let input = &action(&old, "post_a")["input"]["properties"];
    assert_eq!(input["a"], json!({"type": "number", "exclusiveMinimum": 0}));
    assert_eq!(input["b"], json!({"enum": [1, 2]}));
    assert_eq!(input["d"], json!({"type": ["string", "integer"]}));
    assert_eq!(input["f"], json!({"type": "string"}));
    assert_eq!(input["g"], json!({}));
    let (.., body) = sent(&old, "post_a", json!({}), json!({"e": null, "b": 2, "a": 0.5}));
    assert_eq!(body, r#"{"a":0.5,"b":2,"e":null}"#);
    assert!(notes(&old).contains("another file") && notes(&old).contains("looks around"), "{}", notes(&old));

    // A thousand types that all name each other, in every operation.
    let all: serde_json::Map<String, Value> = (0..300)
        .map(|n| {
            let fields: serde_json::Map<String, Value> = (0..10)
                .map(|k| {
                    (format!("f{k}"), json!({"$ref": format!("#/components/schemas/T{}", (n * 7 + k * 13) % 300)}))
                })
                .collect();
            (format!("T{n}"), json!({"type": "object", "properties": fields}))
        })
        .collect();
    let tangled = with(Value::Object(all), json!({"$ref": "#/components/schemas/T0"}));
    assert!(text::weight(&tangled.document) < 64 << 10);
}

#[test]
fn one_bad_operation_does_not_lose_the_others() {
    let imported = import(&openapi(json!({"paths": {
        "/good": {"get": {}},
        "/bad/../path": {"get": {}},
        "/trace": {"trace": {}},
        "/odd": {"get": {"parameters": "no list", "responses": 7, "tags": {}}, "post": "no operation"},
        "/dangling": {"$ref": "#/nowhere"},
        "/undeclared/{id}": {"get": {"operationId": 7}},
    }})));
    let names: Vec<&String> = imported.document["spec"]["actions"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["get_good", "get_odd", "get_undeclared_by_id"]);
    let notes = notes(&imported);
    for part in ["get_bad_path: left out", "TRACE /trace: left out", "names `id`, which no parameter describes"] {
        assert!(notes.contains(part), "{part}\n{notes}");
    }
}

#[test]
fn only_what_is_wanted_is_taken() {
    let source = openapi(json!({"paths": {
        "/a": {"get": {"operationId": "list", "tags": ["x"]}, "post": {"operationId": "make"}},
        "/b": {"get": {"operationId": "list", "tags": ["y"]}},
    }}));
    let names = |only: &[&str]| {
        let imported = import_only(&source, only);
        imported.document["spec"]["actions"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["list", "make", "list_2"]);
    // Names do not depend on what else is taken.
    assert_eq!(names(&["y"]), ["list_2"]);
    assert_eq!(names(&["POST /a", "x"]), ["list", "make"]);
    let spec = ImportSpec { source, only: vec!["mke".to_owned()], ..ImportSpec::default() };
    assert_eq!(spec.import().unwrap_err().to_string(), "only[0]: `mke` names no operation (did you mean `make`?)");
}

#[test]
fn too_many_operations_are_told_apart_by_tags() {
    let paths: serde_json::Map<String, Value> = (0..5_001)
        .map(|n| (format!("/p{n}"), json!({"get": {"tags": [if n % 3 == 0 { "a" } else { "b" }]}})))
        .collect();
    let fault = fault(&openapi(json!({"paths": paths})));
    assert!(fault.contains("5001 operations") && fault.contains("such as b (3334), a (1667)"), "{fault}");
}

#[test]
fn swagger_2_reads_as_openapi_3_does() {
    let imported = import(
        r##"
swagger: 2.0
info: {title: Desk, version: 1.0.0}
host: api.desk.example
basePath: /v1
schemes: [http, https]
consumes: [application/json]
produces: [application/xml, application/json]
securityDefinitions:
  flow: {type: oauth2, flow: accessCode, authorizationUrl: "https://id.test/a", tokenUrl: "https://id.test/t", scopes: {r: read}}
parameters:
  limit: {name: limit, in: query, type: integer, maximum: 100}
  visit: {name: visit, in: body, required: true, schema: {$ref: "#/definitions/Visit"}}
definitions:
  Visit: {type: object, required: [at], properties: {at: {type: string}, tags: {type: array, items: {type: string}}}}
paths:
  /pets/{id}/visits:
    parameters: [{name: id, in: path, required: true, type: string}]
    get:
      operationId: listVisits
      parameters:
        - $ref: "#/parameters/limit"
        - {name: state, in: query, type: array, items: {type: string}, collectionFormat: multi}
        - {name: sort, in: query, type: array, items: {type: string}, collectionFormat: pipes}
        - {name: ids, in: query, type: array, items: {type: string}}
      responses: {200: {description: "", schema: {type: array, items: {$ref: "#/definitions/Visit"}}}}
    post: {operationId: addVisit, parameters: [{$ref: "#/parameters/visit"}], responses: {}}
    put:
      operationId: upload
      consumes: [multipart/form-data]
      parameters:
        - {name: scan, in: formData, type: file, required: true}
        - {name: note, in: formData, type: string}
      responses: {}
"##,
    );
    let list = json!({"id": "a/b", "limit": 5, "state": ["x", "y"], "sort": ["a", "b"], "ids": ["1", "2"]});
    let (request, headers, _) = sent(&imported, "list_visits", json!({}), list);
    assert_eq!(
        request,
        "GET https://api.desk.example/v1/pets/a%2Fb/visits?limit=5&state=x&state=y&sort=a%7Cb&ids=1%2C2"
    );
    assert!(headers.contains("accept: application/json"), "{headers}");
    assert_eq!(
        action(&imported, "list_visits")["output"]["schema"]["items"]["properties"]["at"],
        json!({"type": "string"})
    );
    let (.., body) = sent(&imported, "add_visit", json!({}), json!({"id": "1", "at": "now", "tags": ["t"]}));
    assert_eq!(body, r#"{"at":"now","tags":["t"]}"#);
    let (.., body) = sent(&imported, "upload", json!({}), json!({"id": "1", "scan": "bytes"}));
    assert!(body.contains("name=\"scan\"; filename=\"file\"") && !body.contains("note"), "{body}");
    assert!(imported.document["spec"]["accounts"].to_string().contains("authorize_url: https://id.test/a"));
}

#[test]
fn curl_commands_are_actions_with_their_values_as_defaults() {
    let imported = import(
        "curl -X POST 'https://api.github.example/v3/orders/7?expand=lines&key=AIza-not-to-be-seen' \\\n \
         -H 'Authorization: Bearer not-to-be-seen' -H 'Accept: application/json' -H 'X-Tenant: acme' -H 'Host: x' \\\n \
         -d '{\"title\": \"Bolt {{ 1 }}\", \"count\": 3, \"password\": \"not-to-be-seen\", \"when\": null}' -m 2.5 -L -k --retry 3 --frob\n\
         curl -u robot:not-to-be-seen -G https://api.github.example/search -d q=bolt -d tag=a -d tag=b --data-urlencode 'x=a&b' | jq .\n\
         curl -sF 'file=@shots/a.png;type=image/png' -F note=hi https://up.example/$FOLDER/files\n\
         curl --json '[1]' https://api.github.example/list -b 'sid=not-to-be-seen' -I -X GET\n\
         curl https://not-to-be-seen:x@api.github.example/bot17:Not-to-be-seenAAbbCC/send -H 'Content-Type: text/xml' -d '<Password>not-to-be-seen</Password>'",
    );
    let text = format!("{}{}", imported.document, notes(&imported));
    let lower = text.to_lowercase().replace('_', "-");
    assert!(!lower.contains("not-to-be-seen") && !lower.contains("robot"), "{text}");
    assert_eq!(imported.document["name"], "github");
    assert_eq!(
        sent(&imported, "post_by_token_send", json!({}), json!({"token": "t", "body": "b"})).0,
        "POST https://api.github.example/t/send"
    );
    let spec = &imported.document["spec"];
    assert_eq!((&spec["connection"]["redirects"], &spec["connection"]["hosts"]), (&json!(5), &json!(["up.example"])));
    let kinds: Vec<&str> =
        spec["accounts"].as_array().unwrap().iter().map(|account| account["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["query", "bearer", "basic", "headers"]);

    let post = action(&imported, "post_orders_7");
    assert_eq!((&post["request"]["timeout"], &post["input"]["required"]), (&json!("2500ms"), &json!(["password"])));
    let (request, headers, body) = sent(&imported, "post_orders_7", json!({}), json!({"password": "p", "count": 4}));
    assert_eq!(request, "POST https://api.github.example/v3/orders/7?expand=lines");
    assert!(headers.contains("x-tenant: acme"), "{headers}");
    assert_eq!(body, r#"{"title":"Bolt {{ 1 }}","count":4,"password":"p","when":null}"#);
    assert_eq!(
        sent(&imported, "get_search", json!({}), json!({"tag": ["z"]})).0,
        "GET https://api.github.example/search?q=bolt&tag=z&x=a%26b"
    );
    let (request, _, body) =
        sent(&imported, "post_by_folder_files", json!({}), json!({"file": "PNG", "folder": "in box"}));
    assert_eq!(request, "POST https://up.example/in%20box/files");
    assert!(body.contains("filename=\"a.png\"") && body.contains("Content-Type: image/png"), "{body}");
    let notes = notes(&imported);
    for part in
        ["-k: certificates are always verified", "--frob: an option that is not known", "the connection itself says"]
    {
        assert!(notes.contains(part), "{part}\n{notes}");
    }
}

#[test]
fn a_collection_of_postman_becomes_a_connector() {
    let imported = import(
        &json!({
            "info": {"name": "Desk", "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"},
            "auth": {"type": "apikey", "apikey": [{"key": "key", "value": "X-Key"}, {"key": "value", "value": "not-to-be-seen"}]},
            "variable": [
                {"key": "baseUrl", "value": "https://{{host}}/v1"}, {"key": "host", "value": "desk.example"},
                {"key": "lang", "value": "en"}, {"key": "token", "value": "not-to-be-seen", "type": "secret"},
            ],
            "item": [
                {"name": "Pets", "item": [{
                    "name": "Get", "request": {
                        "method": "GET", "description": {"content": "Reads a pet."},
                        "header": [{"key": "Accept-Language", "value": "{{lang}}"}, {"key": "X-Token", "value": "{{token}}"}],
                        "url": {"raw": "{{baseUrl}}/pets/:id?full=true&page=2", "variable": [{"key": "id", "value": "17"}],
                                "query": [{"key": "full", "value": "true"}, {"key": "page", "value": "2", "disabled": true, "description": "Which page."}]},
                    },
                    "response": [{"code": 404, "body": "{}"}, {"code": 200, "body": "{\"id\": 17, \"access_token\": \"not-to-be-seen\"}"}],
                }]},
                {"name": "People", "item": [{"name": "Get", "request": "{{baseUrl}}/people/{{person}}"}]},
                {"name": "Add", "event": [{"listen": "test", "script": {"exec": ["pm.test()"]}}], "request": {
                    "method": "POST", "url": "{{baseUrl}}/pets", "header": "Content-Type: application/json\nX-A: b",
                    "body": {"mode": "raw", "raw": "{\"name\": \"Rex\", \"owner\": {{owner}}, \"note\": \"for {{person}}\"}"},
                }},
                {"name": "https://x.test?key=not-to-be-seen", "request": "https://u:not-to-be-seen@x.test/a?key=not-to-be-seen"},
                {"name": "Ask", "request": {"method": "POST", "url": "{{baseUrl}}/graphql", "header": [], "body": {
                    "mode": "graphql", "graphql": {"query": "query { pets { id } }", "variables": "{\"n\": 1}"}}}},
                {"name": "Send", "request": {"method": "POST", "url": {"protocol": "https", "host": ["up", "example"], "path": ["f"]}, "body": {
                    "mode": "formdata", "formdata": [{"key": "f", "type": "file", "src": "/x/a.bin"}, {"key": "t", "value": "v"}]}}},
            ],
        })
        .to_string(),
    );
    let text = format!("{}{}", imported.document, notes(&imported));
    assert!(!text.contains("not-to-be-seen"), "{text}");
    let names: Vec<&String> = imported.document["spec"]["actions"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["pets_get", "people_get", "add", "get_a", "ask", "send"]);
    let (request, headers, _) = sent(&imported, "pets_get", json!({"lang": "de"}), json!({"id": 3}));
    assert_eq!(request, "GET https://desk.example/v1/pets/3?full=true");
    assert!(headers.contains("accept-language: de"), "{headers}");
    assert_eq!(action(&imported, "pets_get")["output"]["sample"], json!({"id": 17, "access_token": "…"}));
    assert_eq!(
        sent(&imported, "people_get", json!({}), json!({"person": "a"})).0,
        "GET https://desk.example/v1/people/a"
    );
    let (_, headers, body) = sent(&imported, "add", json!({}), json!({"owner": {"id": 1}, "person": "me"}));
    assert!(headers.contains("x-a: b"), "{headers}");
    assert_eq!(body, r#"{"name":"Rex","owner":{"id":1},"note":"for me"}"#);
    assert_eq!(action(&imported, "ask")["request"]["effect"], "read");
    assert_eq!(
        sent(&imported, "ask", json!({}), json!({})).2,
        r#"{"query":"query { pets { id } }","variables":{"n":1}}"#
    );
    assert_eq!(sent(&imported, "send", json!({}), json!({"f": "x"})).0, "POST https://up.example/f");
    assert!(notes(&imported).contains("Add: scripts are left out"));
    // The older format has authorizations as objects.
    let older = json!({"info": {"name": "a"}, "item": [{"request": {"url": "https://a.test", "auth": {"type": "basic", "basic": {"password": "not-to-be-seen"}}}}]});
    assert!(!import(&older.to_string()).document.to_string().contains("not-to-be-seen"));
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
fn what_many_operations_share_is_not_copied_for_each() {
    let long = format!("x/{}", "y".repeat(1 << 20));
    let paths = |operation: &Value| (0..500).map(|n| (format!("/{n}"), json!({"get": operation}))).collect::<Value>();
    let answers = json!({"responses": {"200": {"description": "ok", "schema": {}}}});
    let swagger = json!({
        "swagger": "2.0", "info": {"title": "a", "version": "1"}, "host": "a.example",
        "produces": [long], "consumes": [long, "application/json"], "paths": paths(&answers),
    });
    assert!(import(&swagger.to_string()).document.to_string().len() < 1 << 20);
    let many: Value = (0..20_000).map(|n| (format!("f{n}"), json!({"type": "string", "readOnly": true}))).collect();
    let body = json!({"content": {long: {}, "application/json": {"schema": {"$ref": "#/components/schemas/a"}}}});
    let openapi = openapi(json!({
        "paths": paths(&json!({
            "requestBody": {"$ref": "#/components/requestBodies/a"}, "responses": {"200": {"description": "ok"}},
        })),
        "components": {"requestBodies": {"a": body}, "schemas": {"a": {"type": "object", "properties": many}}},
    }));
    assert!(import(&openapi).document.to_string().len() < 1 << 20);
}

#[test]
fn credentials_in_urls_and_behind_options_stay_behind() {
    let servers = json!([{"url": "https://bob:hunter2pw@a.example/v1"}, {"url": "https://bob:hunter2pw@b.example"}]);
    let paths = json!({"/a": {"get": {"responses": {"200": {"description": "ok"}}}}});
    let imported = import(&openapi(json!({"servers": servers, "paths": paths})));
    assert!(!format!("{} {}", imported.document, notes(&imported)).contains("hunter2pw"), "{}", imported.document);
    let command = "curl --proxy-pass hunter2pw https://api.example/x -H 'X-Session: hunter2pw' -d 'bot_token=hunter2pw' \
                   -d 'dsn=postgres://a:hunter2pw@db/x' -d pin=hunter2pw";
    let imported = import(command);
    assert!(!format!("{} {}", imported.document, notes(&imported)).contains("hunter2pw"), "{}", imported.document);
}

/// The whole of what an import gives, in which nothing secret may stand.
fn all_of(imported: &Imported) -> String {
    format!("{:#}\n{}", imported.document, notes(imported))
}

#[test]
fn notes_hold_no_secrets() {
    for command in
        ["token=hunter2pw curl https://a.test/y", "token=hunter2pw", "$token=hunter2pw", "ghp_hunter2pwhunter2pw"]
    {
        let imported = import(&format!("curl https://a.test/x\n{command}"));
        assert!(!all_of(&imported).contains("hunter2pw"), "{}", all_of(&imported));
    }
    let imported = import("curl https://a.test/x\necho hi");
    assert_eq!(notes(&imported), "echo: left out, because it is no curl command\n");
    let event = json!([{"listen": "test", "script": {"exec": ["pm.test()"]}}]);
    let imported = import(
        &json!({"info": {"name": "a"}, "item": [
            {"name": "https://a.test/x?key=hunter2pw", "event": event, "request": "https://a.test/x?key=hunter2pw"},
        ]})
        .to_string(),
    );
    assert!(notes(&imported).contains("scripts are left out") && !all_of(&imported).contains("hunter2pw"));
}

#[test]
fn secrets_beside_variables_and_below_their_names_stay_behind() {
    for command in [
        "curl https://a.test/x --json '{\"credentials\": {\"value\": \"hunter2pw\"}}'",
        "curl https://a.test/x --json '{\"a\": {\"secrets\": [\"hunter2pw\"]}}'",
        "curl https://a.test/x --json '{\"password\": [\"hunter2pw\"]}'",
        "curl https://a.test/x --json '{\"a\": {\"otp\": 123456}, \"b\": \"otp: 123456\"}'",
        "curl https://a.test/x --json \"{\\\"a\\\": {\\\"id\\\": \\\"$ID\\\", \\\"otp\\\": 123456}}\"",
        "curl https://a.test/x --json \"{\\\"credentials\\\": {\\\"id\\\": \\\"$ID\\\", \\\"value\\\": [\\\"hunter2pw\\\"]}}\"",
        "curl https://a.test/x --json '{\"query\": \"mutation {login(password: \\\"hunter2pw\\\")}\"}'",
        "curl https://a.test/x --json '{\"text\": \"one\\nmy secret is hunter2pw\"}'",
        "curl https://a.test/x -d \"auth=ghp_hunter2pwhunter$X\"",
        "curl https://a.test/x -d \"password=hunter2pw$X\"",
        "curl https://a.test/x -F \"auth=${X}ghp_hunter2pwhunter\"",
        "curl -X POST https://a.test/x -H 'Content-Type: text/plain' -d 'otp=123456 and pwd=hunter2pw'",
        "curl 'https://a.test/x?X-Amz-Signature=hunter2pw'",
        "curl https://a.test/x -H 'Referer: https://app.test/?access_token=hunter2pw'",
        "curl 'https://a.test/x?next=https://app.test/?access_token=hunter2pw'",
    ] {
        let imported = import(command);
        let text = all_of(&imported);
        assert!(!text.contains("hunter2pw") && !text.contains("123456"), "{command}\n{text}");
    }
    // A yes or no is none, whatever it is called.
    let imported =
        import("curl https://a.test/x?include_secrets=true --json '{\"with_token\": false, \"password\": null}'");
    assert_eq!(
        sent(&imported, "post_x", json!({}), json!({})),
        (
            "POST https://a.test/x?include_secrets=true".to_owned(),
            "accept: application/json\ncontent-type: application/json\n".to_owned(),
            r#"{"with_token":false,"password":null}"#.to_owned()
        )
    );
    // What a variable gives is no secret of the source.
    let imported = import("curl https://a.test/x --json \"{\\\"token\\\": \\\"Bearer $T\\\", \\\"a\\\": \\\"$T\\\"}\"");
    assert_eq!(sent(&imported, "post_x", json!({}), json!({"t": "s"})).2, r#"{"token":"Bearer s","a":"s"}"#);

    let imported = import(
        &json!({"info": {"name": "a"}, "item": [
            {"name": "One", "request": {"method": "POST", "url": {"raw": "https://a.test/:token/:id", "variable": [
                {"key": "token", "value": "hunter2pw"}, {"key": "id", "value": "17"},
            ]}, "body": {"mode": "graphql", "graphql": {"query": "mutation {\n  login(password: \"hunter2pw\") {id}\n}"}}}},
            {"name": "Two", "request": {"method": "POST", "url": "https://a.test/", "body": {"mode": "raw",
                "raw": "{\"cfg\": {\"id\": \"{{id}}\", \"value\": \"ghp_hunter2pwhunter\", \"pin\": 1234}}"}}},
            {"name": "Three", "request": {"method": "POST", "url": "https://a.test/", "body": {"mode": "graphql",
                "graphql": {"query": "mutation ($password: String!) {login(password: $password) {token}}"}}}},
        ]})
        .to_string(),
    );
    let text = all_of(&imported);
    assert!(!text.contains("hunter2pw") && !text.contains("1234"), "{text}");
    assert_eq!(action(&imported, "one")["input"]["properties"]["id"], json!({"examples": ["17"]}));
    assert_eq!(
        sent(&imported, "two", json!({}), json!({"id": 1, "value": "v", "pin": 2})).2,
        r#"{"cfg":{"id":1,"value":"v","pin":2}}"#
    );
    assert!(sent(&imported, "three", json!({}), json!({})).2.contains("login(password: $password)"));

    let flow = json!({"authorizationUrl": "https://id.test/a?api_key=hunter2pw", "tokenUrl": "https://id.test/t", "scopes": {}});
    let scheme = json!({"type": "oauth2", "flows": {"authorizationCode": flow}});
    let imported =
        import(&openapi(json!({"components": {"securitySchemes": {"a": scheme}}, "paths": {"/a": {"get": {}}}})));
    assert!(!all_of(&imported).contains("hunter2pw") && all_of(&imported).contains("https://id.test/t"));
    let oauth = json!([{"key": "accessTokenUrl", "value": "https://id.test/t?client_secret=hunter2pw"}]);
    let item = json!({"name": "a", "request": "https://a.test/"});
    let collection = json!({"info": {"name": "a"}, "auth": {"type": "oauth2", "oauth2": oauth}, "item": [item]});
    assert!(!all_of(&import(&collection.to_string())).contains("hunter2pw"));

    for servers in [
        json!([{"url": "https://a.test/?key=hunter2pw"}, {"url": "https://b.test/v1?key=hunter2pw"}]),
        json!([{"url": "https://b.test/{token}", "variables": {"token": {"default": "hunter2pw", "enum": ["hunter2pw"]}}}]),
        json!([{"url": "https://b.test/{token}", "variables": {"token": {"default": "hunter2pw"}}}, {"url": "https://c.test"}]),
        json!([{"url": "https://{token}:x@b.test/", "variables": {"token": {"default": "hunter2pw"}}}, {"url": "https://c.test"}]),
    ] {
        let imported = import(&openapi(json!({"servers": servers, "paths": {"/a": {"get": {}}}})));
        assert!(!all_of(&imported).contains("hunter2pw"), "{}", all_of(&imported));
    }
}

#[test]
fn values_of_options_are_no_urls() {
    for options in [
        "-U bob:1234 -x http://proxy.test:8080",
        "-P 1.2.3.4 -Q pwd -t TTYPE=vt100",
        "--haproxy-clientip 1.2.3.4 --ip-tos 0x10 --ipfs-gateway http://ipfs.test --keepalive-cnt 3 --sigalgs x",
        "--parallel-max-host 2 --trace-config ids --vlan-priority 3 --ech true --upload-flags answered",
        "--expand-url 'https://{{x}}.test' --expand-header 'a: {{b}}'",
        "--no-such-option bob:hunter2pw -s9 hunter2pw",
    ] {
        let imported = import(&format!("curl {options} https://api.test/x"));
        assert_eq!(imported.document["spec"]["connection"]["base_url"], "https://api.test", "{options}");
        assert_eq!(imported.document["spec"]["actions"].as_object().unwrap().len(), 1, "{options}");
        assert!(!all_of(&imported).contains("hunter2pw"), "{}", all_of(&imported));
    }
    let two = import("curl https://api.test/x -: -d a=1 https://api.test/y");
    assert_eq!(sent(&two, "post_y", json!({}), json!({})).2, "a=1");
    assert_eq!(sent(&two, "get_x", json!({}), json!({})).2, "");
}

#[test]
fn what_commands_repeat_for_each_url_is_bounded() {
    let urls: String = (0..100).map(|n| format!(" https://a.test/{n}")).collect();
    let imported = import(&format!("curl -H 'X-Long: {}'{urls}", "x".repeat(3 << 20)));
    let actions = imported.document["spec"]["actions"].as_object().unwrap().len();
    assert_eq!(actions, 2, "as many as a connector can have");
    assert!(notes(&imported).contains("98 of them are left out"), "{}", notes(&imported));
    // All commands share what may be repeated.
    let command = format!("curl -d 'a={}'{urls}\n", "x".repeat(60_000));
    let spec = ImportSpec { source: command.repeat(20), ..ImportSpec::default() };
    assert!(spec.import().is_err_and(|fault| fault.reason.contains("larger than the 7 MiB")));
    let urls: String = (0..101).map(|n| format!(" https://a.test/{n}")).collect();
    let imported = import(&format!("curl{urls}"));
    assert!(notes(&imported).contains("1 of them are left out"), "{}", notes(&imported));
    // Of accounts, the last counts.
    let imported = import(&format!("curl https://a.test/{}", " -u a".repeat(50_000)));
    assert_eq!(imported.document["spec"]["accounts"].as_array().unwrap().len(), 1);
    assert!(fault(&"curl a ".repeat(200_000)).contains("at most 200000 words"));
}

#[test]
fn what_would_be_too_large_is_left_out_before_it_is_compiled() {
    let many = |count: usize| (0..count).map(|n| format!("a{n}=1&")).collect::<String>();
    for command in [
        format!("curl https://a.test/x -d '{}'", many(1_001)),
        format!("curl https://a.test/x -G -d '{}'", many(1_001)),
        format!("curl https://a.test/x -d '{}'", "a=&".repeat(500_000)),
        format!("curl https://a.test/x -d \"{}\"", "$A".repeat(1_001)),
        format!("curl https://a.test/x {}", "-F a=b ".repeat(1_001)),
    ] {
        let imported = import(&format!("curl https://a.test/y\n{command}"));
        assert_eq!(imported.document["spec"]["actions"].as_object().unwrap().len(), 1);
        assert!(notes(&imported).contains("left out, because it"), "{}", notes(&imported));
    }
    assert_eq!(
        sent(&import(&format!("curl https://a.test/x -d '{}'", many(900))), "post_x", json!({}), json!({})).2.len(),
        6189
    );
    let long = "x".repeat(1 << 20);
    let item = json!({"name": "a", "request": {"url": "https://a.test/", "body": {"mode": "raw", "raw": long}}});
    let collection = json!({"info": {"name": "a"}, "item": vec![item; 8]});
    assert!(fault(&collection.to_string()).contains("larger than the 7 MiB"));
}

#[test]
fn of_what_operations_share_only_the_first_is_looked_at() {
    let with = |count: usize| {
        let mut content: serde_json::Map<String, Value> =
            (0..count).map(|n| (format!("text/x{n}"), json!({}))).collect();
        content.insert("application/json".to_owned(), json!({"example": {"a": 1}}));
        let mut answers: serde_json::Map<String, Value> = (0..count).map(|n| (format!("5{n}"), json!({}))).collect();
        answers.insert("299".to_owned(), json!({"content": content}));
        import(&openapi(json!({"paths": {"/a": {"get": {"responses": answers}}}})))
    };
    assert_eq!(action(&with(10), "get_a")["output"]["sample"], json!({"a": 1}));
    assert!(action(&with(20_000), "get_a").get("output").is_none());
    let reference = format!("#/components/schemas/{}", "x".repeat(3_000));
    let parameter = json!({"name": "a", "in": "query", "schema": {"$ref": reference}});
    let imported = import(&openapi(json!({
        "paths": {"/a": {"get": {"parameters": [parameter]}}, "/b": {"get": {"servers": [{"url": format!("https://b.test/{}", "x".repeat(9_000))}]}}},
        "components": {"schemas": {"x".repeat(3_000): {"type": "integer"}}},
    })));
    assert_eq!(action(&imported, "get_a")["input"]["properties"]["a"], json!({}));
    assert_eq!(sent(&imported, "get_b", json!({}), json!({})).0, "GET https://api.desk.example/v1/b");
}

#[test]
fn data_of_curl_are_sent_as_curl_sends_them() {
    let of = |options: &str| {
        let imported = import(&format!("curl {options} https://a.test/x"));
        let name = imported.document["spec"]["actions"].as_object().unwrap().keys().next().unwrap().clone();
        let required = imported.document["spec"]["actions"][&name]["input"].get("required").cloned();
        let input = required
            .iter()
            .flat_map(|names| names.as_array().unwrap())
            .map(|name| (name.as_str().unwrap().to_owned(), "S".into()));
        let (request, headers, body) = sent(&imported, &name, json!({}), Value::Object(input.collect()));
        let kind = headers.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default().to_owned();
        assert!(!all_of(&imported).contains("hunter2"), "{}", all_of(&imported));
        (request.replace(" https://a.test/x", " "), kind, body)
    };
    let form = "application/x-www-form-urlencoded";
    for (options, body) in [
        ("-d 'pwd=hunter2&remember' --data-urlencode 'q=a b&c'", "pwd=S&remember=&q=a+b%26c"),
        ("-d 'a=1&'", "a=1"),
        ("-d 'a=1&b=&c=<string>'", "a=1&b="),
        ("-d a= -d a=2", "a=&a=2"),
        ("-d a=1 --data-urlencode '=b c'", "a=1&b+c="),
        ("-d 'one two'", "one two"),
        ("--data-urlencode 'one two&x'", "one+two%26x"),
        ("--data-urlencode 'a%5B%5D=@b'", "a%5B%5D=%40b"),
        ("--data-urlencode '=one two'", "one+two"),
        ("-d 'one two' --data-urlencode \"q=a b&$Z\"", "one two&q=a+b%26S"),
        ("--data-urlencode a@one --data-urlencode b@two", "a=S&b=S"),
        ("-d @- <<< a=1", "a=1"),
    ] {
        assert_eq!(of(options), ("POST ".to_owned(), form.to_owned(), body.to_owned()), "{options}");
    }
    assert_eq!(of("-H 'Content-Type: text/plain' -d 'a'").1, "text/plain");
    assert_eq!(of("-G --data-urlencode '=a b&c'").0, "GET ?a%20b%26c=");
    assert_eq!(of("--url 'https://a.test/x?acl&x=1&empty=' --url").0, "GET ?acl=&x=1&empty=");
}

#[test]
fn every_url_of_a_command_gets_its_body() {
    let imported = import("curl --json '{\"a\": 1}' https://a.test/x https://a.test/y");
    for name in ["post_x", "post_y"] {
        assert_eq!(sent(&imported, name, json!({}), json!({})).2, r#"{"a":1}"#);
    }
}

#[test]
fn no_command_is_lost_without_a_word() {
    let imported = import(
        "curl https://a.test/1 > \"my answers\"\n\
         echo '{\"a\": 2}' | curl --json @- https://a.test/2\n\
         cat <<EOF | curl -H 'X-A: b c' --json @- https://a.test/3\n{\"a\": \"$NAME\"}\nEOF\n\
         jq -n . | curl --json @- https://a.test/4 | jq .\n\
         TOKEN=$(curl https://a.test/token | jq -r .token)\n\
         curl --json @- https://a.test/5 <<< '{\"a\": 5}'\n\
         for i in 1; do curl https://a.test/6; done",
    );
    let names: Vec<&String> = imported.document["spec"]["actions"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["get_1", "post_2", "post_3", "post_4", "post_5", "get_6"]);
    assert_eq!(sent(&imported, "post_2", json!({}), json!({})).2, r#"{"a":2}"#);
    let (_, headers, body) = sent(&imported, "post_3", json!({}), json!({"name": "n"}));
    assert!(body == r#"{"a":"n"}"# && headers.contains("x-a: b c"), "{headers}{body}");
    assert_eq!(sent(&imported, "post_4", json!({}), json!({"file": "f"})).2, "f");
    assert_eq!(sent(&imported, "post_5", json!({}), json!({})).2, r#"{"a":5}"#);
    let notes = notes(&imported);
    assert!(notes.contains("whose output another one takes is left out"), "{notes}");
    assert!(!notes.contains("echo") && !notes.contains("jq") && !notes.contains("cat"), "{notes}");
}

#[test]
fn a_query_of_graphql_reads_only_when_none_of_it_writes() {
    let of = |query: &str, operation: Option<&str>| {
        let body = json!({"mode": "graphql", "graphql": {"query": query, "operationName": operation}});
        let item = json!({"name": "Ask", "request": {"method": "POST", "url": "https://a.test/", "body": body}});
        let imported = import(&json!({"info": {"name": "a"}, "item": [item]}).to_string());
        let effect = action(&imported, "ask")["request"].get("effect").cloned();
        (effect == Some(json!("read")), sent(&imported, "ask", json!({}), json!({})).2)
    };
    assert!(of("{ a }", None).0 && of(" query A { a }", None).0 && of("query{a}", None).0);
    for query in
        ["mutation B {b}", "query A {a} mutation B {b}", "{a}\nsubscription {b}", "queries", "fragment F on T {a}"]
    {
        assert!(!of(query, None).0, "{query}");
    }
    let (reads, body) = of("query A {a} mutation B {b}", Some("B"));
    assert!(!reads);
    assert_eq!(body, r#"{"query":"query A {a} mutation B {b}","operationName":"B"}"#);
}

#[test]
fn schemas_do_not_get_stricter() {
    let input = |schema: Value| {
        let body =
            json!({"content": {"application/json": {"schema": {"type": "object", "properties": {"x": schema}}}}});
        let imported = import(&openapi(json!({
            "components": {"schemas": {"Base": {"type": "object", "properties": {"id": {"type": "string", "readOnly": true}}}}},
            "paths": {"/a": {"post": {"requestBody": body}}},
        })));
        action(&imported, "post_a")["input"]["properties"]["x"].clone()
    };
    let base = json!({"$ref": "#/components/schemas/Base"});
    let name = json!({"properties": {"name": {"type": "string"}}});
    for schema in [
        json!({"allOf": [base, name], "required": ["id", "name"]}),
        json!({"allOf": [base, name, {"required": ["id", "name"]}]}),
        json!({"allOf": [{"required": ["id", "name"]}, name, {"allOf": [base]}]}),
    ] {
        assert_eq!(
            input(schema),
            json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}})
        );
    }
    // Of the same name below it, nothing is said.
    let below = json!({"allOf": [base, {"properties": {"in": {"type": "object", "required": ["id"], "properties": {"id": {}}}}}]});
    assert_eq!(input(below)["properties"]["in"]["required"], json!(["id"]));
    let open = json!({"type": "object", "properties": {"a": {}}, "patternProperties": {"^x-": {}}, "additionalProperties": false});
    assert_eq!(input(open), json!({"type": "object", "properties": {"a": {}}}));
    let tuple = json!({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "integer"}});
    assert_eq!(input(tuple), json!({"type": "array"}));
}

#[test]
fn what_a_signature_of_aws_is_made_of_is_no_input() {
    let with = |name: &str, place: &str| json!({"name": name, "in": place, "required": place == "path", "schema": {"type": "string"}});
    let imported = import(&openapi(json!({
        "components": {"securitySchemes": {"hmac": {"type": "apiKey", "in": "header", "name": "Authorization", "x-amazon-apigateway-authtype": "awsSigv4"}}},
        "paths": {"/a/{x-amz-date}": {"get": {"parameters": [
            with("X-Amz-Date", "header"), with("X-Amz-Signature", "query"), with("x-amz-date", "path"),
            with("timestamp", "query"), with("Signature", "query"),
        ]}}},
    })));
    let input = &action(&imported, "get_a_by_x_amz_date")["input"]["properties"];
    let names: Vec<&String> = input.as_object().unwrap().keys().collect();
    assert_eq!(names, ["x_amz_date", "timestamp", "Signature"]);
}

#[test]
fn media_types_and_lists_of_swagger_are_what_they_say() {
    let imported = import(
        &json!({
            "swagger": "2.0", "info": {"title": "a"}, "host": "a.test", "schemes": ["https"],
            "consumes": ["application/vnd.platform.v1+json"], "produces": ["text/xml", "application/json; charset=utf-8"],
            "paths": {"/a/{ids}": {"post": {
                "parameters": [
                    {"name": "ids", "in": "path", "required": true, "type": "array", "items": {"type": "string"}, "collectionFormat": "pipes"},
                    {"name": "X-Ids", "in": "header", "type": "array", "items": {"type": "string"}, "collectionFormat": "pipes"},
                    {"name": "b", "in": "body", "schema": {"type": "object", "properties": {"n": {"type": "integer"}}}},
                ],
                "responses": {"200": {"schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}},
            }}},
        })
        .to_string(),
    );
    let (request, headers, body) =
        sent(&imported, "post_a_by_ids", json!({}), json!({"ids": ["a", "b"], "x_ids": ["c", "d"], "n": 1}));
    assert_eq!((request.as_str(), body.as_str()), ("POST https://a.test/a/a%7Cb", r#"{"n":1}"#));
    for header in
        ["x-ids: c|d", "content-type: application/vnd.platform.v1+json", "accept: application/json; charset=utf-8"]
    {
        assert!(headers.contains(header), "{headers}");
    }
}

#[test]
fn base_urls_of_collections_are_asked_for_and_not_made_up() {
    let of = |url: &str, variables: Value| {
        let item = json!({"name": "Get", "request": {"method": "GET", "url": url}});
        import(&json!({"info": {"name": "a"}, "variable": variables, "item": [item]}).to_string())
    };
    let known = json!([{"key": "scheme", "value": "http"}, {"key": "host", "value": "a.test"}, {"key": "baseUrl", "value": "https://a.test/"}]);
    let url = |imported: &Imported, settings: Value| sent(imported, "get", settings, json!({})).0;
    assert_eq!(url(&of("{{scheme}}://{{host}}/x", known.clone()), json!({})), "GET http://a.test/x");
    let asked = of("{{scheme}}://a.test/x", json!([]));
    assert_eq!(asked.document["spec"]["settings"]["required"], json!(["base_url"]));
    assert_eq!(url(&asked, json!({"base_url": "http://b.test"})), "GET http://b.test/x");
    assert_eq!(url(&of("{{baseUrl}}v1/users", known.clone()), json!({})), "GET https://a.test/v1/users");
    assert_eq!(url(&of("{{host}}:8080/x", known.clone()), json!({})), "GET http://a.test:8080/x");
    assert_eq!(url(&of("https://{{host}}/x", known), json!({})), "GET https://a.test/x");
}

#[test]
fn variables_are_never_taken_for_their_names() {
    let imported = import(
        "curl https://a.test/x --json \"{\\\"$KEY\\\": 1, \\\"a\\\": {\\\"$KEY\\\": 1, \\\"b\\\": \\\"$B\\\"}}\"\n\
         curl https://a.test/y -F \"$PART=1\" -F \"up=@$DIR/$FILE\"\n\
         curl -X $METHOD https://a.test/z\n\
         curl https://a.test/q -H 'Content-Type: text/plain' -d \"{$QUERY} {{ }\"",
    );
    assert_eq!(sent(&imported, "post_x", json!({}), json!({"b": 2})).2, r#"{"a":{"b":2}}"#);
    let given = json!({"part": "p", "part_2": "v", "up": "bytes", "file": "f.txt"});
    let (.., body) = sent(&imported, "post_y", json!({}), given);
    assert!(body.contains("name=\"p\"") && body.contains("filename=\"f.txt\""), "{body}");
    assert_eq!(sent(&imported, "post_q", json!({}), json!({"query": "a"})).2, "{a} {{ }");
    let notes = notes(&imported);
    for part in [
        "a field is left out, because its name is a variable",
        "{METHOD} https://a.test/z: left out, because its method",
    ] {
        assert!(notes.contains(part), "{part}\n{notes}");
    }
    assert!(!all_of(&imported).contains(['\u{f8ff0}', '\u{f8ff1}']));
}

#[test]
fn bodies_that_cannot_be_said_whole_are_told() {
    let form = |more: Value| json!({"type": "object", "properties": more, "additionalProperties": {"type": "string"}});
    let imported = import(&openapi(json!({"paths": {
        "/a": {"get": {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}},
        "/b": {"post": {"requestBody": {"content": {"application/x-www-form-urlencoded": {"schema": form(json!({"x": {}}))}}}}},
        "/c": {"get": {"parameters": [{"name": "f", "in": "query", "schema": form(json!({"x": {}}))}]}},
        "/d": {"post": {"requestBody": {"required": true, "content": {"multipart/form-data": {"schema": {"oneOf": [
            {"type": "object", "required": ["kind", "url"], "properties": {"kind": {"type": "string"}, "url": {"type": "string"}}},
            {"type": "object", "required": ["kind", "scan"], "properties": {"kind": {"type": "string"}, "scan": {"type": "string", "format": "binary"}}},
        ]}}}}}},
        "/e": {"post": {"requestBody": {"required": true, "content": {"multipart/form-data": {"schema": {
            "type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "anyOf": [{"required": ["a"]}, {"required": ["a", "b"]}],
        }}}}}},
    }})));
    let notes = notes(&imported);
    assert!(notes.contains("GET /a: a body that may be left out"), "{notes}");
    assert!(notes.contains("POST /b, GET /c: fields whose names the source does not say"), "{notes}");
    let input = &action(&imported, "post_e")["input"];
    let names: Vec<&str> = input["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((&input["required"], names), (&json!(["a"]), vec!["a", "b"]));
    let input = &action(&imported, "post_d")["input"];
    let names: Vec<&str> = input["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((&input["required"], names), (&json!(["kind"]), vec!["kind", "url", "scan", "scan_name"]));
}

#[test]
fn redirects_are_followed_as_curl_does() {
    for (options, redirects) in [
        ("--max-redirs 3", Value::Null),
        ("-L", json!(5)),
        ("-L --max-redirs 3", json!(3)),
        ("--max-redirs 0 -L", json!(0)),
        ("-L --max-redirs -1", json!(5)),
        ("-L --max-redirs 50", json!(5)),
    ] {
        let imported = import(&format!("curl {options} https://a.test/"));
        let found = imported.document["spec"]["connection"].get("redirects").cloned().unwrap_or_default();
        assert_eq!(found, redirects, "{options}");
    }
}

#[test]
fn only_what_most_accept_is_accepted_by_all() {
    let answer = |kind: &str| json!({"get": {"responses": {"200": {"content": {kind: {}}}}}});
    let none = json!({"get": {}});
    let few = import(&openapi(json!({"paths": {"/a": answer("text/csv"), "/b": none, "/c": none}})));
    let accepts = |imported: &Imported, name: &str| {
        let headers = sent(imported, name, json!({}), json!({})).1;
        headers.lines().find_map(|line| line.strip_prefix("accept: ")).map(ToOwned::to_owned)
    };
    assert_eq!((accepts(&few, "get_a").as_deref(), accepts(&few, "get_b")), (Some("text/csv"), None));
    let most = import(&openapi(
        json!({"paths": {"/a": answer("application/json"), "/b": none, "/c": answer("*/*"), "/d": answer("application/json")}}),
    ));
    assert_eq!(accepts(&most, "get_b").as_deref(), Some("application/json"));
    assert_eq!(accepts(&most, "get_c").as_deref(), Some("*/*"));
    let any = import(&openapi(json!({"paths": {"/a": answer("*/*")}})));
    assert_eq!(accepts(&any, "get_a"), None);
}

#[test]
fn defaults_are_told_where_the_description_does_not() {
    let about = |description: &str, default: Value| {
        let parameter = json!({"name": "n", "in": "query", "description": description, "schema": {"default": default}});
        let imported = import(&openapi(json!({"paths": {"/a": {"get": {"parameters": [parameter]}}}})));
        action(&imported, "get_a")["input"]["properties"]["n"]["description"].as_str().unwrap().to_owned()
    };
    assert_eq!(about("Up to 100 items.", json!(10)), "Up to 100 items. Left out: 10");
    assert_eq!(about("How many, 10 if left out", json!(10)), "How many, 10 if left out");
    assert_eq!(about("Ascending?", json!("asc")), "Ascending? Left out: asc");
}

#[test]
fn a_part_may_be_taken_of_more_requests_than_a_connector_has() {
    let items: Vec<Value> =
        (0..5_001).map(|n| json!({"name": format!("r{n}"), "request": format!("https://a.test/{n}")})).collect();
    let source = json!({"info": {"name": "a"}, "item": items}).to_string();
    assert!(fault(&source).contains("more than 5000 requests"));
    assert!(import_only(&source, &["r5000"]).document["spec"]["actions"]["r5000"].is_object());
    let commands: String = (0..5_001).map(|n| format!("curl https://a.test/{n}\n")).collect();
    assert!(fault(&commands).contains("more than 5000 requests"));
    assert!(import_only(&commands, &["get_5000"]).document["spec"]["actions"]["get_5000"].is_object());
}

#[test]
fn the_hint_speaks_of_the_operation_first() {
    let found = fault("curl -b cookies.txt 'https://a.test/' -X 'A B'");
    assert!(found.contains("left out, because it does not compile"), "{found}");
}

#[test]
fn hostile_sources_end_soon() {
    let nested = openapi(
        json!({"paths": {"/a": {"post": {"requestBody": {"content": {"application/json": {"schema": "DEEP"}}}}}}}),
    );
    for (open, close) in [("{\"items\":", "}"), ("{\"properties\":{\"a\":", "}}"), ("{\"allOf\":[", "]}")] {
        let depth = if open.starts_with("{\"items") { 100 } else { 50 };
        let schema = format!("{}{{}}{}", open.repeat(depth), close.repeat(depth));
        let imported = import(&nested.replace("\"DEEP\"", &schema));
        assert!(text::weight(&imported.document) < 4 << 10, "{:#}", imported.document);
    }
    // Every schema is made of a hundred others, nine deep; every operation names the first.
    let schemas: serde_json::Map<String, Value> = (0..9)
        .map(|n| {
            (format!("S{n}"), json!({"allOf": vec![json!({"$ref": format!("#/components/schemas/S{}", n + 1)}); 100]}))
        })
        .chain([("S9".to_owned(), json!({"properties": {"a": {}}}))])
        .collect();
    let paths: serde_json::Map<String, Value> = (0..200)
        .map(|n| (format!("/p{n}"), json!({"post": {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/S0"}}}}}})))
        .collect();
    let imported = import(&openapi(json!({"components": {"schemas": schemas}, "paths": paths})));
    assert!(notes(&imported).contains("schemas are cut"), "{}", notes(&imported));
    // Braces that never close.
    let braces = "{{".repeat(200_000);
    let collection = json!({"info": {"name": "a"}, "item": [{"name": "b", "request": "https://a.test/"}, {"name": braces, "request": {"url": "https://a.test/", "body": {"mode": "raw", "raw": braces}}}]});
    let imported = import(&collection.to_string());
    assert_eq!(imported.document["spec"]["actions"].as_object().unwrap().len(), 1);
    assert!(notes(&imported).contains("too many braces"), "{}", notes(&imported));
    assert!(fault(&format!("curl https://a.test/ {}", "$(".repeat(100_000))).contains("has no end"));
    let imported = import(&format!("curl {}", "https://a.test/ -H a:b ".repeat(20_000)));
    assert_eq!(imported.document["spec"]["actions"].as_object().unwrap().len(), 100);
    assert!(notes(&imported).contains("19900 of them are left out"), "{}", notes(&imported));
}

#[test]
fn what_a_collection_requires_has_no_empty_default() {
    let query = json!([{"key": "a", "value": "", "description": "(Required) One."}, {"key": "b", "value": ""}]);
    let item = json!({"name": "Get", "request": {"url": {"raw": "https://a.test/?a=&b=", "query": query}}});
    let imported = import(&json!({"info": {"name": "a"}, "item": [item]}).to_string());
    assert_eq!(action(&imported, "get")["input"]["required"], json!(["a"]));
    assert_eq!(sent(&imported, "get", json!({}), json!({"a": 1})).0, "GET https://a.test/?a=1&b=");
}

/// A document with a bit of everything, to be spoilt.
fn seeds() -> Vec<Value> {
    vec![
        serde_json::from_str(&openapi(json!({
            "servers": [{"url": "https://{a}.test/{b}", "variables": {"a": {"default": "x"}, "b": {"enum": ["c"], "default": "c"}}}],
            "components": {
                "schemas": {"A": {"allOf": [{"$ref": "#/components/schemas/B"}], "properties": {"a": {"$ref": "#/components/schemas/A"}}},
                            "B": {"oneOf": [{"type": "string"}, {"$ref": "#/components/schemas/A"}], "nullable": true}},
                "securitySchemes": {"k": {"type": "apiKey", "in": "query", "name": "k"}, "o": {"type": "oauth2", "flows": {"password": {"tokenUrl": "u"}}}},
                "parameters": {"P": {"name": "p[]", "in": "query", "style": "pipeDelimited", "schema": {"type": "array"}}},
            },
            "paths": {"/a/{b}/{c}": {"parameters": [{"$ref": "#/components/parameters/P"}], "post": {
                "operationId": "x", "parameters": [{"name": "h", "in": "header", "schema": {"type": "object"}}, {"name": "c", "in": "cookie", "required": true}],
                "requestBody": {"content": {"multipart/form-data": {"schema": {"properties": {"f": {"format": "binary"}}}},
                                            "application/json": {"schema": {"$ref": "#/components/schemas/A"}}}},
                "responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}}},
            }}},
        })))
        .unwrap(),
        json!({"swagger": "2.0", "info": {"title": "t"}, "host": "a.test", "basePath": "/b", "parameters": {"p": {"in": "formData", "name": "p", "type": "file"}},
               "paths": {"/a": {"put": {"parameters": [{"$ref": "#/parameters/p"}, {"in": "body", "name": "b", "schema": {"type": "array"}}],
                                        "responses": {"200": {"schema": {"type": "string"}}}}}}}),
        json!({"info": {"name": "n"}, "variable": [{"key": "u", "value": "https://{{h}}"}], "item": [{"name": "f", "item": [{"name": "r", "request": {
               "method": "POST", "url": {"raw": "{{u}}/a/:b?c={{d}}", "query": [{"key": "c", "value": "<e>"}]}, "header": [{"key": "k", "value": "{{v}}"}],
               "body": {"mode": "raw", "raw": "{\"a\": {{b}}}"}}, "response": [{"code": 200, "body": "[1]"}]}]}]}),
    ]
}

/// How a document is spoilt: at the value with this number, in this way.
fn spoil(value: &mut Value, at: &mut usize, with: &Value) {
    if *at == 0 {
        *value = with.clone();
        *at = usize::MAX;
        return;
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| spoil(item, at, with)),
        Value::Object(map) => map.values_mut().for_each(|item| spoil(item, at, with)),
        _ => {}
    }
}

fn junk() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!(true)),
        Just(json!(-1.5)),
        Just(json!("{{")),
        Just(json!("{a}{b}://{c")),
        Just(json!("../..#?")),
        Just(json!({"$ref": "#"})),
        Just(json!({"$ref": "#/components/schemas/A"})),
        Just(json!([[[{"a": {}}]]])),
        any::<String>().prop_map(Value::from),
        "[ -~]{0,20}".prop_map(Value::from),
    ]
}

proptest! {
    #[test]
    fn spoilt_documents_give_a_connector_that_compiles_or_a_fault(
        seed in 0_usize..3, spoils in prop::collection::vec((0_usize..140, junk()), 1..5),
    ) {
        let mut document = seeds().swap_remove(seed);
        for (at, with) in spoils {
            spoil(&mut document, &mut at.clone(), &with);
        }
        let spec = ImportSpec { source: document.to_string(), ..ImportSpec::default() };
        if let Ok(imported) = spec.import() {
            prop_assert!(crate::Document::read(&imported.document).is_ok(), "{:#}", imported.document);
        }
    }

    #[test]
    fn words_of_any_shell_give_a_connector_or_a_fault(
        words in prop::collection::vec(prop_oneof![
            Just("curl".to_owned()), Just("-d".to_owned()), Just("-F".to_owned()), Just("-H".to_owned()), Just("-G".to_owned()),
            Just("https://a.test/{x}?y=$z".to_owned()), Just("'a: b'".to_owned()), Just("\"$(x)\"".to_owned()), Just("<<E\n{}\nE\n".to_owned()),
            Just("$'\\u".to_owned()), Just("\n".to_owned()), "[ -~]{0,12}", any::<String>(),
            Just("--data-urlencode".to_owned()), Just("--json".to_owned()), Just("-X".to_owned()), Just("{$A".to_owned()), Just("\"{\\\"$A\\\": [1, {}, \\\"$B\\\"]}\"".to_owned()),
            Just("<<<".to_owned()), Just("<(x)".to_owned()), Just("a<id>".to_owned()), Just("| curl -d @-".to_owned()), Just("@-".to_owned()), Just("$A=$B@$C".to_owned()),
        ], 0..12),
    ) {
        let spec = ImportSpec { source: format!("curl {}", words.join(" ")), format: Some(Format::Curl), ..ImportSpec::default() };
        if let Ok(imported) = spec.import() {
            prop_assert!(crate::Document::read(&imported.document).is_ok(), "{:#}", imported.document);
            prop_assert!(!all_of(&imported).contains(['\u{f8ff0}', '\u{f8ff1}']), "{}", all_of(&imported));
        }
    }
}
