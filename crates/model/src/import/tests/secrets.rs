//! That no secret of a source stays in what comes out.

use super::*;

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
