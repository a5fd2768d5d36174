use http::{HeaderValue, Method};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn rule(spec: Value) -> Paginate {
    serde_json::from_value::<PaginateSpec>(spec).unwrap().compile().unwrap()
}

fn faults(spec: Value) -> Vec<String> {
    let faults = serde_json::from_value::<PaginateSpec>(spec).unwrap().compile().unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

fn request(url: &str) -> RequestSpec {
    RequestSpec { method: Method::GET, url: url.parse().unwrap(), headers: Vec::new(), body: Bytes::new() }
}

fn no_headers() -> Value {
    json!({})
}

/// Reads a list from `answer`, which gives a body for each URL; gives the items and the URLs in order.
fn read(rule: &Paginate, url: &str, answer: impl Fn(&Url) -> Value) -> Result<(Vec<Value>, Vec<String>), PageFault> {
    let mut pages = rule.pages();
    let mut asked = pages.first(&request(url))?;
    let (mut items, mut urls) = (Vec::new(), Vec::new());
    loop {
        urls.push(asked.url.to_string());
        let page = pages.turn(&asked, 200, no_headers(), answer(&asked.url))?;
        items.extend(page.items);
        match page.next? {
            NextPage::Request(next) => asked = *next,
            NextPage::End | NextPage::Capped => return Ok((items, urls)),
        }
    }
}

fn parameter(url: &Url, name: &str) -> Option<u64> {
    url.query_pairs().find(|(key, _)| key == name).and_then(|(_, value)| value.parse().ok())
}

#[test]
fn follows_a_cursor_until_it_is_null() {
    // As document 001's Eventbrite answers: `continuation` beside `has_more_items`.
    let rule = rule(json!({
        "items": "body.orders",
        "cursor": {
            "next": "body.pagination.continuation if body.pagination.has_more_items else none",
            "send": {"query": "continuation"},
        },
    }));
    let (items, urls) = read(&rule, "https://api.example.com/orders/?expand=a%2Cb", |url| {
        match url.query_pairs().find(|(name, _)| name == "continuation").map(|(_, value)| value.into_owned()) {
            None => json!({"orders": [1, 2], "pagination": {"continuation": "a b+c", "has_more_items": true}}),
            Some(token) if token == "a b+c" => {
                json!({"orders": [], "pagination": {"continuation": "d", "has_more_items": true}})
            }
            Some(_) => json!({"orders": [3], "pagination": {"continuation": "d", "has_more_items": false}}),
        }
    })
    .unwrap();
    assert_eq!(items, [json!(1), json!(2), json!(3)]);
    assert_eq!(
        urls,
        [
            "https://api.example.com/orders/?expand=a%2Cb",
            "https://api.example.com/orders/?expand=a%2Cb&continuation=a+b%2Bc",
            "https://api.example.com/orders/?expand=a%2Cb&continuation=d",
        ]
    );
}

#[test]
fn a_cursor_that_comes_back_is_a_fault() {
    let rule = rule(json!({"items": "body.rows", "cursor": {"next": "body.next", "send": {"query": "after"}}}));
    let mut asked = 0;
    let error = read(&rule, "https://api.example.com/", |url| match parameter(url, "after") {
        None => json!({"rows": [1], "next": 1}),
        Some(1) => json!({"rows": [2], "next": 2}),
        Some(_) => json!({"rows": [3], "next": 1}),
    })
    .unwrap_err();
    asked += 1;
    assert_eq!((error, asked), (PageFault::Repeated("cursor"), 1));
}

#[test]
fn an_empty_cursor_and_an_object_ask_for_nothing() {
    let rule = rule(json!({"items": "body.rows", "cursor": {"next": "body.next", "send": {"query": "after"}}}));
    let turn = |body| {
        let page = rule.pages().turn(&request("https://api.example.com/"), 200, no_headers(), body);
        page.unwrap().next
    };
    let empty = turn(json!({"rows": [], "next": ""})).unwrap_err();
    assert_eq!(empty.to_string(), "cursor.next: a text, a number or null was expected, and there is an empty text");
    let object = turn(json!({"rows": [], "next": {}})).unwrap_err();
    assert!(object.to_string().ends_with("there is an object"), "{object}");
    assert!(matches!(turn(json!({"rows": []})).unwrap(), NextPage::End));
}

#[test]
fn a_cursor_goes_into_a_json_body() {
    let rule = rule(json!({
        "items": "body.data.nodes",
        "cursor": {"next": "body.data.end", "send": {"json": "/variables/after"}},
        "size": {"send": {"json": "/variables/first"}, "value": 50},
    }));
    let mut pages = rule.pages();
    let mut start = request("https://api.example.com/graphql");
    start.body = Bytes::from_static(br#"{"query":"{ a }","variables":{"id":12345678901234567890123}}"#);
    let first = pages.first(&start).unwrap();
    assert_eq!(first.body, br#"{"query":"{ a }","variables":{"id":12345678901234567890123,"first":50}}"#.as_slice());
    let page = pages.turn(&first, 200, no_headers(), json!({"data": {"nodes": [1], "end": "x"}})).unwrap();
    let Ok(NextPage::Request(next)) = page.next else { panic!("the list goes on") };
    assert_eq!(
        next.body,
        br#"{"query":"{ a }","variables":{"id":12345678901234567890123,"first":50,"after":"x"}}"#.as_slice()
    );
    assert_eq!(next.headers, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let mut text = request("https://api.example.com/graphql");
    text.body = Bytes::from_static(b"query");
    assert!(rule.pages().first(&text).unwrap_err().to_string().starts_with("size.send: the request's body is no JSON"));
}

#[test]
fn follows_link_headers() {
    // Two of RFC 8288's own examples in one field, and the shape that GitHub sends.
    let value = "<http://example.com/TheBook/chapter2>; rel=\"previous\"; title=\"previous, chapter; >2<\", \
                 </?page=2>; rel=\"next last\", <https://api.example.com/?page=9>; rel=last";
    let rule = rule(json!({"link": "next"}));
    let mut pages = rule.pages();
    let page =
        pages.turn(&request("https://api.example.com/a?page=1"), 200, json!({"link": value}), json!([1])).unwrap();
    let Ok(NextPage::Request(next)) = page.next else { panic!("the list goes on") };
    assert_eq!(next.url.as_str(), "https://api.example.com/?page=2");
    assert_eq!(link(value, "LAST").as_deref(), Some("/?page=2"));
    assert_eq!(link(value, "previous").as_deref(), Some("http://example.com/TheBook/chapter2"));
    let page = pages.turn(&next, 200, no_headers(), json!([2])).unwrap();
    assert!(matches!(page.next.unwrap(), NextPage::End));
}

#[test]
fn the_next_url_is_whole_or_relative_and_never_in_the_clear() {
    let rule = rule(json!({"items": "body.v", "next_url": "body.next"}));
    let next = |next: &str| {
        let body = json!({"v": [], "next": next});
        match rule.pages().turn(&request("https://api.example.com/v1/list?a=1"), 200, no_headers(), body) {
            Ok(Page { next: Ok(NextPage::Request(next)), .. }) => next.url.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(next("https://other.example.com/x?y"), "https://other.example.com/x?y");
    assert_eq!(next("?a=2#part"), "https://api.example.com/v1/list?a=2");
    assert_eq!(next("http://api.example.com/v1/list?a=2"), "https://api.example.com/v1/list?a=2");
    let itself = json!({"v": [1], "next": "/v1/list?a=1"});
    let page = rule.pages().turn(&request("https://api.example.com/v1/list?a=1"), 200, no_headers(), itself).unwrap();
    assert_eq!((page.items.len(), page.next.unwrap_err()), (1, PageFault::Repeated("next_url")));
}

#[test]
fn pages_end_with_an_empty_one() {
    let rule = rule(json!({
        "items": "body",
        "page": {"send": {"query": "page"}},
        "size": {"send": {"query": "per_page"}, "value": 3},
    }));
    // Short pages in the middle: the API gives less than it was asked for.
    let (items, urls) = read(&rule, "https://api.example.com/?q=1", |url| match parameter(url, "page").unwrap() {
        1 => json!([1, 2]),
        2 => json!([3]),
        _ => json!([]),
    })
    .unwrap();
    assert_eq!(items.len(), 3);
    assert_eq!(urls[0], "https://api.example.com/?q=1&page=1&per_page=3");
    assert_eq!(urls[2], "https://api.example.com/?q=1&page=3&per_page=3");
}

#[test]
fn an_api_that_ignores_the_page_is_found_out() {
    let rule = rule(json!({"page": {"send": {"query": "p"}, "first": 0}}));
    let error = read(&rule, "https://api.example.com/", |_| json!([{"id": 1}])).unwrap_err();
    assert_eq!(error, PageFault::Repeated("page"));
}

#[test]
fn until_saves_the_last_request_and_a_cap_is_told() {
    let until = rule(json!({"items": "body.v", "offset": {"send": {"query": "o"}}, "until": "not body.more"}));
    let (_, urls) = read(&until, "https://api.example.com/", |url| {
        let from = parameter(url, "o").unwrap();
        json!({"v": [from, from + 1], "more": from < 2})
    })
    .unwrap();
    assert_eq!(urls.len(), 2);
    let capped = rule(json!({"page": {"send": {"query": "p"}}, "max_pages": 2}));
    let mut pages = capped.pages();
    let first = pages.first(&request("https://api.example.com/")).unwrap();
    let page = pages.turn(&first, 200, no_headers(), json!([1])).unwrap();
    let Ok(NextPage::Request(second)) = page.next else { panic!("the list goes on") };
    let page = pages.turn(&second, 200, no_headers(), json!([2])).unwrap();
    assert!(matches!(page.next.unwrap(), NextPage::Capped));
    assert_eq!(pages.read(), 2);
}

#[test]
fn what_is_no_list_is_named() {
    let rule = rule(json!({"items": "body.v", "link": "next"}));
    let turn = |body| rule.pages().turn(&request("https://api.example.com/"), 200, no_headers(), body);
    assert_eq!(turn(json!({"v": {}})).unwrap_err().to_string(), "items: a list was expected, and there is an object");
    assert!(turn(json!({"v": null})).unwrap().items.is_empty());
}

#[test]
fn a_wrong_rule_says_where() {
    assert_eq!(faults(json!({})), ["give one of next_url, link, cursor, page and offset"]);
    assert_eq!(
        faults(json!({"link": "next", "page": {"send": {"query": "p"}}})),
        ["give one of next_url, link, cursor, page and offset"]
    );
    let wrong =
        faults(json!({"items": "body.[", "cursor": {"next": "{% if %}", "send": {"json": "a"}}, "max_pages": 0}));
    let paths: Vec<&str> = wrong.iter().filter_map(|fault| fault.split(':').next()).collect();
    assert_eq!(paths, ["items", "cursor.next", "cursor.send.json", "max_pages"]);
    assert!(serde_json::from_value::<PaginateSpec>(json!({"pages": 1})).is_err());
}

proptest! {
    /// Whatever the sizes of its pages, a list is read whole, once, in order.
    #[test]
    fn offsets_count_what_came(sizes in proptest::collection::vec(1_usize..5, 0..12)) {
        let rule = rule(json!({"offset": {"send": {"query": "o"}}}));
        let starts: Vec<usize> = sizes.iter().scan(0, |at, size| { *at += size; Some(*at - size) }).collect();
        let (items, urls) = read(&rule, "https://api.example.com/", |url| {
            let from = usize::try_from(parameter(url, "o").unwrap()).unwrap();
            let n = starts.iter().position(|start| *start == from);
            n.map_or_else(|| json!([]), |n| (from..from + sizes[n]).collect())
        }).unwrap();
        let whole: usize = sizes.iter().sum();
        prop_assert_eq!(items, (0..whole).map(Value::from).collect::<Vec<_>>());
        prop_assert_eq!(urls.len(), sizes.len() + 1);
    }

    /// No field of a Link header brings the reader down, and what it finds stands in it.
    #[test]
    fn reads_any_link_header(text in "[<>;,=\"\\\\a-z /é]{0,60}") {
        for (target, _) in links(&text) {
            prop_assert!(text.contains(target));
        }
    }
}

#[test]
fn what_a_request_says_itself_is_where_it_begins() {
    let size = json!({"send": {"query": "size"}, "value": 100});
    let pages = rule(json!({"page": {"send": {"query": "page"}}, "size": size}));
    let answer =
        |url: &Url| if parameter(url, "page").unwrap() < 5 { json!([parameter(url, "page")]) } else { json!([]) };
    let (items, urls) = read(&pages, "https://api.example.com/?page=3&size=7", answer).unwrap();
    assert_eq!(items, [json!(3), json!(4)]);
    assert_eq!(urls[0], "https://api.example.com/?page=3&size=7");
    assert_eq!(urls[2], "https://api.example.com/?page=5&size=7");
    let offset = rule(json!({"offset": {"send": {"query": "from"}}}));
    let answer =
        |url: &Url| if parameter(url, "from").unwrap() < 12 { json!([1, parameter(url, "from")]) } else { json!([]) };
    let (_, urls) = read(&offset, "https://api.example.com/?from=10", answer).unwrap();
    assert_eq!(urls, ["https://api.example.com/?from=10", "https://api.example.com/?from=12"]);
    let (_, urls) = read(&offset, "https://api.example.com/?from=", answer).unwrap();
    assert_eq!(urls[0], "https://api.example.com/?from=0", "what is no number is replaced");
}
