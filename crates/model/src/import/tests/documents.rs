//! Descriptions of APIs: OpenAPI and Swagger.

use super::*;

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
        "POST https://api.desk.example/v1/pets/7/visits?tag=a&tag=b%20c&ids=1,2&filter%5Ba%5D%5Bb%5D=1&mode=full"
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
    assert_eq!(input["b"], json!({"type": "string", "enum": ["1", "2"]}));
    assert_eq!(input["d"], json!({"type": ["string", "integer"]}));
    assert_eq!(input["f"], json!({"type": "string"}));
    assert_eq!(input["g"], json!({}));
    let (.., body) = sent(&old, "post_a", json!({}), json!({"e": null, "b": "2", "a": 0.5}));
    assert_eq!(body, r#"{"a":0.5,"b":"2","e":null}"#);
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
    assert_eq!(request, "GET https://api.desk.example/v1/pets/a%2Fb/visits?limit=5&state=x&state=y&sort=a%7Cb&ids=1,2");
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
fn lists_of_multipart_bodies_are_parts() {
    let source = json!({
        "swagger": "2.0", "info": {"title": "T", "version": "1"}, "host": "a.test", "schemes": ["https"],
        "paths": {"/up": {"post": {
            "operationId": "up", "consumes": ["multipart/form-data"],
            "parameters": [
                {"name": "lang", "in": "formData", "type": "array", "items": {"type": "string"}, "collectionFormat": "csv"},
                {"name": "pipes", "in": "formData", "type": "array", "items": {"type": "string"}, "collectionFormat": "pipes"},
                {"name": "country", "in": "formData", "type": "array", "items": {"type": "string"}, "collectionFormat": "multi"},
                {"name": "file", "in": "formData", "type": "file"},
            ],
            "responses": {"200": {"description": "ok"}},
        }}},
    });
    let input = json!({"lang": ["de", "en"], "pipes": ["a", "b"], "country": ["DE", "US"], "file": "x"});
    let (.., body) = sent(&import(&source.to_string()), "up", json!({}), input);
    for (name, contents) in [("lang", &["de,en"][..]), ("pipes", &["a|b"]), ("country", &["DE", "US"])] {
        let found: Vec<&str> = body
            .split(&format!("name=\"{name}\"\r\n\r\n"))
            .skip(1)
            .filter_map(|rest| rest.split("\r\n").next())
            .collect();
        assert_eq!(found, contents, "{body}");
    }

    let schema = json!({"type": "object", "properties": {
        "tags": {"type": "array", "items": {"type": "string"}},
        "objects": {"type": "array", "items": {"type": "object", "properties": {"x": {}}}},
        "json": {"type": "array", "items": {"type": "string"}},
        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
    }});
    let source = json!({
        "openapi": "3.0.3", "info": {"title": "T", "version": "1"}, "servers": [{"url": "https://a.test"}],
        "paths": {"/up": {"post": {
            "operationId": "up",
            "requestBody": {"content": {"multipart/form-data": {"schema": schema, "encoding": {"json": {"contentType": "application/json"}}}}},
            "responses": {"200": {"description": "ok"}},
        }}},
    });
    let input = json!({"tags": ["a", "b"], "objects": [{"x": 1}, {"x": 2}], "json": ["a"], "files": ["one", {"base64": "dHdv"}]});
    let (.., body) = sent(&import(&source.to_string()), "up", json!({}), input);
    for (text, count) in [
        ("name=\"tags\"", 2),
        ("name=\"objects\"", 2),
        ("name=\"json\"", 1),
        ("name=\"files\"", 2),
        ("[\"a\"]", 1),
        ("\r\ntwo\r\n", 1),
        ("{\"x\":2}", 1),
    ] {
        assert_eq!(body.matches(text).count(), count, "{text}\n{body}");
    }
}

#[test]
fn lists_in_paths_are_written_by_their_style() {
    let list = |style: &str, explode: bool| {
        json!({
            "openapi": "3.0.3", "info": {"title": "T", "version": "1"}, "servers": [{"url": "https://a.test"}],
            "paths": {"/x/{ids}": {"get": {
                "operationId": "x", "responses": {"200": {"description": "ok"}},
                "parameters": [{"name": "ids", "in": "path", "required": true, "style": style, "explode": explode,
                    "schema": {"type": "array", "items": {"type": "string"}}}],
            }}},
        })
    };
    for (style, explode, path) in [
        ("simple", false, "a%2Cb,c"),
        ("simple", true, "a%2Cb,c"),
        ("label", false, ".a%2Cb,c"),
        ("label", true, ".a%2Cb.c"),
        ("matrix", false, ";ids=a%2Cb,c"),
        ("matrix", true, ";ids=a%2Cb;ids=c"),
    ] {
        let (line, ..) = sent(&import(&list(style, explode).to_string()), "x", json!({}), json!({"ids": ["a,b", "c"]}));
        assert_eq!(line, format!("GET https://a.test/x/{path}"), "{style} {explode}");
    }
}

#[test]
fn values_are_of_the_type_that_is_declared() {
    let schema = json!({"type": "object", "required": ["code", "only"], "properties": {
        "code": {"type": "string", "enum": [100, 200, true], "default": 100},
        "only": {"type": "string", "enum": [7]},
        "count": {"type": "integer", "enum": ["1", "2"]},
        "mixed": {"type": "integer", "enum": ["x", 2]},
        "long": {"type": "integer", "enum": ["76159173374952512310", 7]},
    }});
    let source = json!({
        "openapi": "3.0.3", "info": {"title": "T", "version": "1"}, "servers": [{"url": "https://a.test"}],
        "paths": {"/n": {"post": {
            "operationId": "n", "responses": {"200": {"description": "ok"}},
            "requestBody": {"required": true, "content": {"application/json": {"schema": schema}}},
        }}},
    });
    let properties = action(&import(&source.to_string()), "n")["input"]["properties"].clone();
    assert_eq!(properties["code"]["enum"], json!(["100", "200", "true"]));
    assert_eq!(properties["code"]["default"], "100");
    assert_eq!(properties["count"], json!({"type": "integer", "enum": [1, 2]}));
    assert_eq!(properties["mixed"], json!({"enum": ["x", 2]}));
    assert_eq!(properties["long"].to_string(), r#"{"type":"integer","enum":[76159173374952512310,7]}"#);
    let (.., body) = sent(&import(&source.to_string()), "n", json!({}), json!({"code": "200", "count": 1}));
    assert_eq!(body, r#"{"code":"200","only":"7","count":1}"#);
}

#[test]
fn security_that_may_be_left_out_asks_for_no_account() {
    let with_security = |root: Value, own: Value| {
        let mut source = json!({
            "openapi": "3.0.3", "info": {"title": "T", "version": "1"}, "servers": [{"url": "https://a.test"}],
            "paths": {"/c": {"get": {"operationId": "c", "responses": {"200": {"description": "ok"}}}}},
            "components": {"securitySchemes": {"k": {"type": "http", "scheme": "bearer"}}},
        });
        if !root.is_null() {
            source["security"] = root;
        }
        if !own.is_null() {
            source["paths"]["/c"]["get"]["security"] = own;
        }
        import(&source.to_string()).document["spec"]["account_optional"] == true
    };
    assert!(with_security(json!(null), json!([{}, {"k": []}])));
    assert!(with_security(json!([{"k": []}]), json!([])));
    assert!(with_security(json!([{"k": []}, {}]), json!(null)));
    assert!(!with_security(json!([{"k": []}]), json!(null)));
    assert!(!with_security(json!([{"k": []}]), json!([{"k": []}])));
}

#[test]
fn a_path_that_stands_twice_loses_nothing() {
    let yaml = "openapi: 3.0.3\ninfo: {title: T, version: '1'}\nservers: [{url: 'https://a.test'}]\npaths:\n  \
                /a: {get: {operationId: ga, responses: {}}}\n  /a: {post: {operationId: pa, responses: {}}}\n";
    let json = "{\"openapi\":\"3.0.3\",\"info\":{\"title\":\"T\",\"version\":\"1\"},\"servers\":[{\"url\":\"https://a.test\"}],\
                \"paths\":{\"/a\":{\"get\":{\"operationId\":\"ga\",\"responses\":{}}},\"/a\":{\"post\":{\"operationId\":\"pa\",\"responses\":{}}}}}";
    for source in [yaml, json] {
        let imported = import(source);
        let actions: Vec<&String> = imported.document["spec"]["actions"].as_object().unwrap().keys().collect();
        assert_eq!(actions, ["ga", "pa"]);
        assert!(imported.notes.iter().any(|note| note.text.contains("stands twice")), "{:?}", imported.notes);
    }
}

#[test]
fn parameters_that_are_json_are_json_wherever_they_stand() {
    let parameter = |place: &str| {
        json!({"name": place, "in": place, "required": true,
            "content": {"application/json": {"schema": {"type": "array", "items": {"type": "string"}}}}})
    };
    let imported = import(&openapi(json!({"paths": {"/x/{path}": {"get": {
        "operationId": "x", "responses": {"200": {"description": "ok"}},
        "parameters": [parameter("path"), parameter("query"), parameter("header")],
    }}}})));
    let input = json!({"path": ["a", "b"], "query": ["a"], "header": ["a"]});
    let (line, headers, _) = sent(&imported, "x", json!({}), input);
    assert_eq!(line, "GET https://api.desk.example/v1/x/%5B%22a%22%2C%22b%22%5D?query=%5B%22a%22%5D");
    assert!(headers.contains("header: [\"a\"]"), "{headers}");
}

#[test]
fn lists_in_queries_are_written_by_their_style() {
    for (style, explode, query) in [
        ("form", json!(null), "ids=a,b&ids=c"),
        ("form", json!(false), "ids=a%2Cb,c"),
        ("spaceDelimited", json!(null), "ids=a%2Cb%20c"),
        ("pipeDelimited", json!(false), "ids=a%2Cb%7Cc"),
        ("pipeDelimited", json!(true), "ids=a,b&ids=c"),
        ("deepObject", json!(true), "ids%5B%5D=a,b&ids%5B%5D=c"),
    ] {
        let mut parameter = json!({"name": "ids", "in": "query", "style": style, "schema": {"type": "array", "items": {"type": "string"}}});
        if !explode.is_null() {
            parameter["explode"] = explode.clone();
        }
        let operation =
            json!({"operationId": "x", "parameters": [parameter], "responses": {"200": {"description": "ok"}}});
        let imported = import(&openapi(json!({"paths": {"/x": {"get": operation}}})));
        let (line, ..) = sent(&imported, "x", json!({}), json!({"ids": ["a,b", "c"]}));
        let query = query.replace("a,b", "a%2Cb");
        assert_eq!(line, format!("GET https://api.desk.example/v1/x?{query}"), "{style} {explode}");
    }
}
