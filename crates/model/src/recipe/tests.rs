use proptest::prelude::*;
use serde_json::{Value, json};
use url::Url;

use super::*;
use crate::job::StepError;
use crate::request::{RenderFault, RequestSpec};

/// The plan of the first step.
fn plan(recipe: &Recipe) -> &RequestPlan {
    match &recipe.steps()[0].work {
        Work::Request(plan) => plan,
        Work::Call(_) => panic!("the step calls an action"),
    }
}

fn spec(request: &Value) -> RecipeSpec {
    let written = json!({
        "trigger": {"webhook": {"endpoint": "github", "when": "trigger.body.action == 'opened'"}},
        "steps": [{"id": "one", "request": request}]
    });
    serde_json::from_value(written).unwrap()
}

#[track_caller]
fn faults(spec: &Value) -> Vec<String> {
    let spec: RecipeSpec = serde_json::from_value(spec.clone()).unwrap();
    spec.faults().iter().map(ToString::to_string).collect()
}

/// A number with its digits as written, which `json!` would round.
fn exact(number: &str) -> Value {
    serde_json::from_str(number).unwrap()
}

fn scope() -> Scope {
    Scope::new().with_headers("trigger.headers", json!({"x-id": "7"})).with(
        "trigger.body",
        json!({"action": "opened", "issue": {"number": 12, "title": "a \"b\"", "votes": exact("1.50")},
            "repo": "linkspan/demo", "empty": "", "up": "..", "url": "https://desk.example.com/api/x?y=z#f",
            "foreign": "https://other.example/", "path": "/a%2Fb?c=d", "out": "/../admin", "break": "a\r\nb: c"}),
    )
}

fn render(request: Value, base: Option<&str>) -> Result<RequestSpec, RenderFault> {
    let recipe = Recipe::compile(&spec(&request)).unwrap();
    plan(&recipe).request.render(&scope(), base.map(|base| Url::parse(base).unwrap()).as_ref())
}

const BASE: Option<&str> = Some("https://desk.example.com/api");

#[test]
fn renders_the_request_of_the_documents() {
    let request = render(
        json!({
            "connection": "desk", "method": "POST", "path": "/tickets/{{ trigger.body.issue.number }}",
            "headers": {"X-Repository": "{{ trigger.body.repo }}"},
            "json": {"title": "{{ trigger.body.issue.title }}", "votes": "{{ trigger.body.issue.votes }}",
                "n": "#{{ trigger.body.issue.number }}", "fixed": [exact("1.10"), null, "{{ trigger.body.issue }}"]}
        }),
        BASE,
    )
    .unwrap();
    assert_eq!(request.method, "POST");
    assert_eq!(request.url.as_str(), "https://desk.example.com/api/tickets/12");
    let headers: Vec<_> =
        request.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, [("x-repository", "linkspan/demo"), ("content-type", "application/json")]);
    assert_eq!(
        request.body,
        r##"{"title":"a \"b\"","votes":1.50,"n":"#12","fixed":[1.10,null,{"number":12,"title":"a \"b\"","votes":1.50}]}"##
    );
}

#[test]
fn renders_forms_texts_and_queries() {
    let form = render(
        json!({"connection": "a", "method": "PUT", "path": "x?a=1", "query": {"b c": "{{ trigger.body.repo }}", "d": ""},
            "form": {"t": "{{ trigger.body.issue.title }}"}}),
        Some("https://h/v1/"),
    )
    .unwrap();
    assert_eq!(form.url.as_str(), "https://h/v1/x?a=1&b%20c=linkspan%2Fdemo&d=");
    assert_eq!(form.body, "t=a+%22b%22");
    assert_eq!(form.headers[0].1, "application/x-www-form-urlencoded");
    let text = render(
        json!({"url": "https://h/{{ trigger.body.repo }}", "method": "POST", "text": "hi {{ trigger.body.repo }}",
            "headers": {"content-type": "text/markdown"}}),
        None,
    )
    .unwrap();
    assert_eq!(text.url.as_str(), "https://h/linkspan%2Fdemo");
    assert_eq!(text.headers.len(), 1);
    assert_eq!(text.headers[0].1, "text/markdown");
    assert_eq!(text.body, "hi linkspan/demo");
}

#[test]
fn paths_stay_below_the_base() {
    let path = |path: &str, base| {
        render(json!({"connection": "a", "method": "GET", "path": path}), base).map(|r| r.url.to_string())
    };
    for (given, base, expected) in [
        ("", BASE, "https://desk.example.com/api"),
        ("/", BASE, "https://desk.example.com/api/"),
        ("a", BASE, "https://desk.example.com/api/a"),
        ("//other.example/a", BASE, "https://desk.example.com/api/other.example/a"),
        ("https://other.example", BASE, "https://desk.example.com/api/https://other.example"),
        ("?a=b", Some("https://h"), "https://h/?a=b"),
        ("/a/", Some("https://h"), "https://h/a/"),
    ] {
        assert_eq!(path(given, base).unwrap(), expected, "{given}");
    }
    let fault = path("/{{ trigger.body.up }}/admin", BASE).unwrap_err();
    assert_eq!((fault.field.as_str(), fault.code), ("path", "template.failed"));
    assert_eq!(path("/a", None).unwrap_err().code, "request.url");

    let url = |url: &str, base| {
        render(json!({"connection": "a", "method": "GET", "url": url}), base).map(|r| r.url.to_string())
    };
    assert_eq!(url("{{ trigger.body.url }}", BASE).unwrap(), "https://desk.example.com/api/x?y=z");
    // Whether it may go there, the connection says.
    assert_eq!(url("{{ trigger.body.foreign }}", BASE).unwrap(), "https://other.example/");
    assert!(url("{{ trigger.body.foreign }}", None).is_ok());
    assert!(url("{{ trigger.body.repo }}", None).is_err());
    // A path as it comes, with its query.
    assert_eq!(url("{{ trigger.body.path }}", BASE).unwrap(), "https://desk.example.com/api/a%2Fb?c=d");
    assert_eq!(url("{{ trigger.body.path }}", None).unwrap_err().code, "request.url");
    assert_eq!(url("{{ trigger.body.out }}", BASE).unwrap_err().code, "request.url");
}

#[test]
fn names_field_column_and_pill_of_what_is_missing() {
    let fault = render(
        json!({"connection": "a", "method": "POST", "path": "/", "json": {"items": [{"title": "no. {{ trigger.body.isue.title }}"}]}}),
        BASE,
    )
    .unwrap_err();
    assert_eq!(fault.field, "json.items[0].title");
    assert_eq!((fault.code, fault.column), ("template.unknown_pill", Some(8)));
    assert_eq!(fault.pill.as_deref(), Some("trigger.body.isue.title"));
    let error = StepError::from(fault);
    assert_eq!(
        error.description,
        r#"json.items[0].title, column 8: pill "trigger.body.isue.title" is not in the data (did you mean "trigger.body.issue.title"?)"#
    );
    let fault = render(
        json!({"connection": "a", "method": "GET", "path": "/", "headers": {"X-A": "{{ trigger.body.break }}"}}),
        BASE,
    )
    .unwrap_err();
    assert_eq!(fault.field, "headers.X-A");
}

#[test]
fn decides_by_its_condition() {
    let recipe = Recipe::compile(&spec(&json!({"url": "https://h/", "method": "GET"}))).unwrap();
    assert_eq!(recipe.when(&scope()), Ok(true));
    assert_eq!(recipe.when(&Scope::new()), Ok(false));
    assert_eq!(plan(&recipe).effect, crate::request::Effect::Read);
}

#[test]
fn refuses_what_cannot_work() {
    let trigger = json!({"webhook": {"endpoint": "a"}});
    assert_eq!(faults(&json!({"trigger": trigger, "steps": []})), ["steps: a recipe has at least one step"]);
    let one = |request: Value| faults(&json!({"trigger": trigger, "steps": [{"id": "one", "request": request}]}));
    for (request, expected) in [
        (
            json!({"method": "FETCH", "url": "https://h"}),
            "steps[0].request.method: `FETCH` is not a method; use GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS",
        ),
        (json!({"method": "GET"}), "steps[0].request: give a url, or a connection and a path"),
        (json!({"method": "GET", "connection": "a"}), "steps[0].request: give a path, or a url"),
        (
            json!({"method": "GET", "path": "/"}),
            "steps[0].request.path: a path needs a connection; without one give a url",
        ),
        (
            json!({"method": "GET", "connection": "a", "path": "/", "url": "https://h"}),
            "steps[0].request: give one of path and url",
        ),
        (
            json!({"method": "GET", "connection": "a", "path": "/../a"}),
            "steps[0].request.path: column 1: a path cannot hold `.` or `..` as a segment",
        ),
        (
            json!({"method": "GET", "url": "/a"}),
            "steps[0].request.url: column 1: a whole URL begins with https:// or http://",
        ),
        (json!({"method": "GET", "url": "ftp://a"}), "steps[0].request.url: a URL begins with https:// or http://"),
        (
            json!({"method": "GET", "url": "https://u:p@a"}),
            "steps[0].request.url: a URL holds no credentials; put them into an account",
        ),
        (
            json!({"method": "GET", "url": "https://h", "json": 1, "text": "a"}),
            "steps[0].request: give one of json, form, multipart, xml, text and raw",
        ),
        (
            json!({"method": "GET", "url": "https://h", "headers": {"a b": "c"}}),
            "steps[0].request.headers.a b: `a b` is not a header name",
        ),
        (
            json!({"method": "GET", "url": "https://h", "headers": {"Host": "c"}}),
            "steps[0].request.headers.Host: this header is set when the request is sent",
        ),
        (
            json!({"method": "GET", "url": "https://h", "headers": {"a": "b", "A": "b"}}),
            "steps[0].request.headers.A: this header is given twice",
        ),
        (
            json!({"method": "GET", "url": "https://h", "timeout": "3m"}),
            "steps[0].request.timeout: a timeout is between 1ms and 120s",
        ),
        (
            json!({"method": "GET", "url": "https://h", "json": {"title": "{{ a"}}),
            "steps[0].request.json.title: column 5: `}}` is missing at the end",
        ),
        (
            json!({"method": "GET", "url": "https://h", "json": ["{{ triger.body }}"]}),
            "steps[0].request.json[0]: column 4: pill \"triger.body\" names nothing; use trigger, steps, job (did you mean `trigger`?)",
        ),
        (
            json!({"method": "GET", "url": "https://h", "query": {"q": "{{ trigger.boddy }}"}}),
            "steps[0].request.query.q: column 4: pill \"trigger.boddy\" names nothing; use id, received_at, method, event_name, headers, query, body (did you mean `body`?)",
        ),
        (
            json!({"method": "GET", "url": "https://h", "text": "{{ steps.one.body }}"}),
            "steps[0].request.text: column 4: pill \"steps.one.body\" does not name an earlier step",
        ),
    ] {
        assert_eq!(one(request.clone()), [expected], "{request}");
    }
    let get = json!({"method": "GET", "url": "https://h"});
    let later = json!({"method": "GET", "url": "https://h", "text": "{{ steps.on.body }}{{ steps.one.stats }}{{ steps.one.body }}"});
    assert_eq!(
        faults(&json!({"trigger": {"webhook": {"endpoint": "a", "when": "steps.one.body or job.id or trigger.body"}},
            "steps": [{"id": "one", "request": get}, {"id": "one", "request": later}, {"id": "2x", "request": get}]})),
        [
            "trigger.webhook.when: column 1: a condition is over `trigger` only",
            "trigger.webhook.when: column 19: a condition is over `trigger` only",
            "steps[1].id: another step is called `one` already",
            "steps[1].request.text: column 4: pill \"steps.on.body\" does not name an earlier step (did you mean `one`?)",
            "steps[1].request.text: column 23: pill \"steps.one.stats\" names nothing; use status, headers, body (did you mean `status`?)",
            "steps[2].id: `2x` is not a step id; use up to 63 lower-case letters, digits and `_`, beginning with a letter",
        ]
    );
}

proptest! {
    #[test]
    fn a_path_never_leaves_its_base(path in "[/.%2eE\\\\?#a-c]{0,12}", pill in "[/.%2eE\\\\?#a-c]{0,6}") {
        let request = json!({"connection": "a", "method": "GET", "path": format!("{path}{{{{ trigger.body.pill }}}}")});
        if let Ok(recipe) = Recipe::compile(&spec(&request)) {
            let scope = Scope::new().with("trigger.body", json!({"pill": pill}));
            let base = Url::parse("https://h.example/api/v1").unwrap();
            if let Ok(request) = plan(&recipe).request.render(&scope, Some(&base)) {
                prop_assert!(request.url.as_str().starts_with("https://h.example/api/v1"));
                prop_assert!(request.url.path() == "/api/v1" || request.url.path().starts_with("/api/v1/"));
            }
        }
    }
}
