//! Requests as examples of themselves: curl commands and collections of Postman.

use super::*;

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
fn what_a_collection_requires_has_no_empty_default() {
    let query = json!([{"key": "a", "value": "", "description": "(Required) One."}, {"key": "b", "value": ""}]);
    let item = json!({"name": "Get", "request": {"url": {"raw": "https://a.test/?a=&b=", "query": query}}});
    let imported = import(&json!({"info": {"name": "a"}, "item": [item]}).to_string());
    assert_eq!(action(&imported, "get")["input"]["required"], json!(["a"]));
    assert_eq!(sent(&imported, "get", json!({}), json!({"a": 1})).0, "GET https://a.test/?a=1&b=");
}

#[test]
fn curl_commands_are_sent_as_curl_sends_them_or_said_to_be_not() {
    let all = |command: &str| {
        let imported = import(command);
        let actions = imported.document["spec"]["actions"].as_object().unwrap();
        let name = actions.keys().next().unwrap().clone();
        let (request, headers, body) = sent(&imported, &name, json!({}), json!({}));
        (request, headers, body, notes(&imported))
    };
    let (_, headers, _, notes) = all("curl https://a.test/j -d '{\"a\": 1}'");
    assert!(headers.contains("application/json") && notes.contains("labelled as a form"), "{headers}{notes}");
    let (.., notes) = all("curl https://a.test/j -H 'Content-Type: application/json' -d '{\"a\": 1}'");
    assert_eq!(notes, "");
    let (_, headers, _, notes) = all("curl https://a.test/x -H 'X-Flag;' -H 'Accept:'");
    assert!(headers.contains("x-flag: \n") && notes.contains("taken away"), "{headers}{notes}");
    let (request, ..) = all("curl 'https://a.test/a/../b/./c?x=../y'");
    assert_eq!(request, "GET https://a.test/b/c?x=..%2Fy");
    let (_, headers, body, _) = all("curl https://a.test/f -d '=c&a=1'");
    assert_eq!((body.as_str(), headers.contains("x-www-form-urlencoded")), ("=c&a=1", true));
    let (request, ..) = all("curl https://a.test/x --url-query 'a=1%2B' --url-query '+b=1%2B&c=x+y'");
    assert_eq!(request, "GET https://a.test/x?a=1%252B&b=1%2B&c=x%20y");
    let (request, .., notes) = all("curl -X delete https://a.test/x");
    assert!(request.starts_with("DELETE ") && notes.contains("in capitals"), "{request} {notes}");
    let (.., notes) = all("curl 'https://a.test/f?=c&a=1'");
    assert!(notes.contains("without a name"), "{notes}");
    let (_, _, body, _) =
        all("curl https://a.test/m -F 'name=\"John; Doe\"' -F 'b=\"\\\"\";type=text/plain; charset=utf-8'");
    assert!(body.contains("\r\n\r\nJohn; Doe\r\n") && body.contains("\r\n\r\n\"\r\n"), "{body}");
    assert!(body.contains("Content-Type: text/plain; charset=utf-8\r\n"), "{body}");
    let (_, headers, ..) = all("curl https://a.test/f -H 'Content-Type: application/json; charset=utf-16' -d '{}'");
    assert!(headers.contains("charset=utf-16"), "{headers}");
}

#[test]
fn a_query_of_postman_is_the_same_as_text_and_as_list() {
    let url = |url: Value| {
        let imported = import(
            &json!({
                "info": {"name": "T", "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"},
                "item": [{"name": "a", "request": {"method": "GET", "url": url}}],
            })
            .to_string(),
        );
        sent(&imported, "a", json!({}), json!({})).0
    };
    let raw = "https://a.test/x?q=red+shoes&r=%2B&a%20b=c";
    let list =
        json!([{"key": "q", "value": "red+shoes"}, {"key": "r", "value": "%2B"}, {"key": "a%20b", "value": "c"}]);
    let parts = json!({"raw": raw, "protocol": "https", "host": ["a", "test"], "path": ["x"], "query": list});
    for written in [json!(raw), parts] {
        assert_eq!(url(written), "GET https://a.test/x?q=red%20shoes&r=%2B&a%20b=c");
    }
}
