use serde_json::json;

use super::*;

fn spec(spec: Value) -> ConnectorSpec {
    serde_json::from_value(spec).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// An API of issues with settings, a default way through lists, and two actions.
fn desk() -> ConnectorSpec {
    spec(json!({
        "version": "1.2.0",
        "settings": {
            "type": "object",
            "required": ["tenant"],
            "properties": {
                "tenant": {"type": "string"},
                "language": {"type": "string", "default": "en"},
                "beta": {"type": "string"},
            },
        },
        "connection": {
            "base_url": "https://{{ settings.tenant }}.desk.example/api",
            "headers": {"Accept-Language": "{{ settings.language }}"},
            "test": {"path": "/me"},
            "timeout": "20s",
        },
        "accounts": [{"kind": "bearer"}],
        "paginate": {"link": "next"},
        "actions": {
            "get_issue": {
                "input": {"type": "object", "required": ["number"], "properties": {
                    "number": {"type": "integer"}, "fields": {"type": "string"},
                }},
                "request": {
                    "method": "GET", "path": "/issues/{{ input.number }}",
                    "query": {"fields": "{{ input.fields }}", "beta": "{{ settings.beta }}"},
                },
            },
            "list_issues": {
                "input": {"type": "object", "properties": {"state": {"enum": ["open", "all"], "default": "open"}}},
                "request": {"method": "GET", "path": "/issues", "query": {"state": "{{ input.state }}"}},
                "paginate": {"items": "body.issues"},
            },
            "create_issue": {
                "input": {"type": "object", "required": ["title"], "properties": {
                    "title": {"type": "string"}, "body": {"type": ["string", "null"]},
                    "labels": {"type": "array", "items": {"type": "string"}},
                }},
                "request": {
                    "method": "POST", "path": "/issues",
                    "json": {"title": "{{ input.title }}", "body": "{{ input.body }}", "labels": "{{ input.labels }}",
                             "from": ["{{ settings.tenant }}", "{{ settings.beta }}"]},
                    "expect": "body.ok", "message": "body.error",
                },
            },
        },
    }))
}

fn faults(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut written = serde_json::to_value(desk()).unwrap();
    change(&mut written);
    let faults = Connector::compile(spec(written)).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

fn case(connector: &Connector, case: Value) -> Vec<String> {
    let case: CaseSpec = serde_json::from_value(case).unwrap();
    let files = |name: &str| match name {
        "issue.json" => Ok(br#"{"ok":true,"number":7}"#.to_vec()),
        _ => Err("there is no such file".to_owned()),
    };
    connector.run_case(&case, &files).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn a_connection_is_what_it_says_on_top_of_its_connector() {
    let connector = Connector::compile(desk()).unwrap();
    let own = |own: Value| -> ConnectionSpec { serde_json::from_value(own).unwrap() };
    let (whole, settings) = connector.connect(&own(json!({"settings": {"tenant": "acme"}}))).unwrap();
    assert_eq!(whole.base_url.as_deref(), Some("https://acme.desk.example/api"));
    assert_eq!(whole.headers["Accept-Language"], "en");
    assert_eq!(settings, json!({"tenant": "acme", "language": "en"}));
    let other = json!({
        "settings": {"tenant": "acme"}, "base_url": "http://127.0.0.1:9/x", "headers": {"accept-language": "de"},
        "timeout": "5s",
    });
    let (whole, _) = connector.connect(&own(other)).unwrap();
    assert_eq!(whole.base_url.as_deref(), Some("http://127.0.0.1:9/x"));
    assert_eq!(whole.headers.values().collect::<Vec<_>>(), ["de"]);
    assert_eq!(whole.timeout.unwrap().to_string(), "5s");
    assert_eq!(whole.test.unwrap().path.as_deref(), Some("/me"));

    let wrong = |settings: Value| {
        let faults = connector.connect(&own(json!({"settings": settings}))).unwrap_err();
        crate::fault::in_words(&faults)
    };
    assert_eq!(
        wrong(json!({"tenants": "a"})),
        "settings: `tenants` is not known (did you mean `tenant`?); settings: `tenant` is missing"
    );
    assert!(
        wrong(json!({"tenant": "evil.test/#"})).contains("connector's base_url"),
        "{}",
        wrong(json!({"tenant": "evil.test/#"}))
    );
    let account_fault = |account: Value| {
        let account: AccountSpec = serde_json::from_value(account).unwrap();
        connector.account_fault(Some(&account)).map(|fault| fault.to_string())
    };
    let fault = account_fault(json!({"basic": {"user": "a"}})).unwrap();
    assert_eq!(fault, "account: the connector takes an account of kind bearer, not basic");
    assert!(connector.account_fault(None).is_some(), "it takes none but with an account");
    assert_eq!(account_fault(json!({"bearer": {"token": {"secret": "a"}}})), None);
}

#[test]
fn cases_show_what_is_sent_and_what_comes_of_it() {
    let connector = Connector::compile(desk()).unwrap();
    let settings = json!({"tenant": "acme"});
    let url = "https://acme.desk.example/api/issues";
    // What is not given is left out; what is null is sent.
    let create = json!({
        "name": "a", "action": "create_issue", "settings": settings, "input": {"title": "a \"b\"", "body": null},
        "exchanges": [{
            "sends": {"method": "POST", "url": url, "headers": {"accept-language": "en"},
                      "json": {"title": "a \"b\"", "body": null, "from": ["acme"]}},
            "answers": {"file": "issue.json"},
        }],
        "gives": {"number": 7},
    });
    assert_eq!(case(&connector, create.clone()), [""; 0]);
    let mut other = create.clone();
    other["exchanges"][0]["sends"]["json"]["title"] = "c".into();
    other["exchanges"][0]["answers"] = json!({"json": {"number": 8, "ok": true}});
    let found = case(&connector, other);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("exchanges[0].sends.json: "), "{found:?}");
    assert_eq!(found[1], "gives.number: 8 comes, not 7");
    let mut other = create.clone();
    other["exchanges"][0]["answers"] = json!({"json": {"ok": false, "error": "no room"}});
    assert_eq!(case(&connector, other.clone()), ["gives: it fails: the API answered 200: no room"]);
    other["gives"] = Value::Null;
    other.as_object_mut().unwrap().shift_remove("gives");
    other["fails"] = "no room".into();
    assert_eq!(case(&connector, other), [""; 0]);

    let list = json!({
        "name": "b", "action": "list_issues", "settings": settings,
        "exchanges": [
            {"sends": {"method": "GET", "url": format!("{url}?state=open")},
             "answers": {"headers": {"Link": "</api/issues?page=2>; rel=next"}, "json": {"issues": [1, 2]}}},
            {"sends": {"method": "GET", "url": format!("{url}?page=2")}, "answers": {"json": {"issues": [3]}}},
        ],
        "gives": [1, 2, 3],
    });
    assert_eq!(case(&connector, list.clone()), [""; 0]);
    let mut short = list;
    short["exchanges"].as_array_mut().unwrap().pop();
    let found = case(&connector, short);
    assert!(found[0].starts_with("exchanges: the list goes on with "), "{found:?}");

    let get =
        json!({"name": "c", "action": "get_issue", "settings": settings, "input": {"number": "7"}, "fails": "integer"});
    assert_eq!(case(&connector, get), [""; 0]);
    let get = json!({"name": "c", "action": "get_isue", "settings": settings, "fails": "x"});
    assert_eq!(case(&connector, get), ["action: the connector has no action `get_isue` (did you mean `get_issue`?)"]);
}

#[test]
fn faults_name_their_place() {
    for (change, fault) in [
        (
            (|spec: &mut Value| spec["actions"]["get_issue"]["request"]["path"] = "/issues/{{ input.nmber }}".into())
                as fn(&mut Value),
            "actions.get_issue.request.path: column 12: the schema of `input` names no `nmber` (did you mean `input.number`?)",
        ),
        (
            |spec| spec["actions"]["get_issue"]["request"]["path"] = "/{{ trigger.body }}".into(),
            "actions.get_issue.request.path: column 5: pill \"trigger.body\" names nothing; use input, settings",
        ),
        (
            |spec| spec["actions"]["Get"] = json!({"request": {"method": "GET", "path": "/"}}),
            "actions.Get: a name is lower-case letters, digits and `_`, beginning with a letter",
        ),
        (
            |spec| spec["actions"]["get_issue"]["input"] = json!({"type": "string"}),
            "actions.get_issue.input.type: a schema of an object begins with `type: object`",
        ),
        (
            |spec| spec["actions"]["list_issues"]["paginate"] = json!({"items": "body."}),
            "actions.list_issues.paginate.items: ",
        ),
        (|spec| spec["connection"]["account"] = "a".into(), "connection.account: each connection says this for itself"),
        (
            |spec| spec["connection"]["base_url"] = "https://{{ settings.tenannt }}.desk.example".into(),
            "connection.base_url: column 12: the schema of `settings` names no `tenannt` (did you mean `settings.tenant`?)",
        ),
        (|spec| spec["accounts"] = json!([{"kind": "bearr"}]), "accounts[0].kind: `bearr` is not a kind of account"),
        (|spec| spec["version"] = "1.0".into(), "version: a version is three numbers: 1.2.0"),
        (
            |spec| spec["tests"] = json!([{"name": "a", "action": "nothing", "fails": "x"}]),
            "tests[0].action: the connector has no action `nothing`",
        ),
    ] {
        let found = faults(change);
        assert!(found.iter().any(|found| found.starts_with(fault)), "{fault}\n{found:#?}");
    }
}

#[test]
fn a_connector_adds_to_another_without_copying_it() {
    let base = desk();
    let own = spec(json!({
        "extends": "desk",
        "settings": {"type": "object", "required": ["queue"], "properties": {"queue": {"type": "string"}}},
        "actions": {"close_issue": {
            "input": {"type": "object", "required": ["number"], "properties": {"number": {"type": "integer"}}},
            "request": {"method": "DELETE", "path": "/issues/{{ input.number }}", "query": {"q": "{{ settings.queue }}"}},
        }},
    }));
    // Its own name is that of the one that comes with the product.
    let find = |wanted: &Name, is_own: bool| (wanted.as_str() == "desk" && is_own).then_some(&base);
    let whole = own.resolve(&name("desk"), &find).unwrap();
    assert_eq!(whole.version.as_deref(), Some("1.2.0"));
    let connector = Connector::compile(whole).unwrap();
    assert_eq!(connector.actions().count(), 4);
    assert_eq!(connector.settings().names().collect::<Vec<_>>(), ["tenant", "language", "beta", "queue"]);
    assert_eq!(connector.settings().name_faults(["tenant"]).len(), 1);

    assert_eq!(own.resolve(&name("mine"), &find).unwrap_err().to_string(), "extends: there is no connector `desk`");
    let (a, b) = (spec(json!({"extends": "b"})), spec(json!({"extends": "a"})));
    let circle = |wanted: &Name, _: bool| Some(if wanted.as_str() == "a" { &a } else { &b });
    assert!(a.resolve(&name("a"), &circle).unwrap_err().reason.contains("circle"));
}
