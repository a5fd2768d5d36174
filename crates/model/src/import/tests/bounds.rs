//! Sources that are hostile, spoilt or very large.

use proptest::prelude::*;

use super::*;

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
fn patterns_that_multiply_are_left_out_before_they_are_compiled() {
    let operation = |pattern: &str| {
        let field = json!({"name": "a", "in": "query", "schema": {"type": "string", "pattern": pattern}});
        json!({"get": {"parameters": [field], "responses": {"200": {"description": "ok"}}}})
    };
    // One is too large; of many, those that come too late are.
    for (pattern, count, kept) in [("((a{99}){99}){99}", 1, 0), ("^[a-z]{1,9000}$", 1, 1), ("^[a-z]{1,9000}$", 30, 9)] {
        let paths: Value = (0..count).map(|n| (format!("/{n}"), operation(pattern))).collect();
        let imported = import(&openapi(json!({"paths": paths})));
        let text = imported.document.to_string();
        assert_eq!(imported.document["spec"]["actions"].as_object().unwrap().len(), count);
        let found = text.matches("\"pattern\"").count();
        assert!(found <= kept && found >= kept.min(1), "{found} of {count}");
        let is_noted = notes(&imported).contains("patterns are left out: repetitions multiply");
        assert_eq!(is_noted, found < count, "{}", notes(&imported));
    }
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
