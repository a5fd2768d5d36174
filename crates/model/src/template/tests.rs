use proptest::prelude::*;
use serde_json::json;

use super::*;

fn scope() -> Scope {
    let body = r#"{"action": "opened", "order_id": 12345678901234567890123, "price": 1.10, "empty": "", "nothing": null,
        "items": [{"name": "a", "n": 2}, {"name": "b", "n": 1}], "none": [], "tags": ["x", "y", "x"], "yes": true,
        "path": "a/../b?c#d", "text": " Ada Lovelace ", "at": "2024-03-10T12:00:00Z", "X-Y": 1, "nested": {"deep": {"er": 7}}}"#;
    Scope::new()
        .with("trigger.id", json!("evt_1"))
        .with("trigger.event_name", Value::Null)
        .with_headers("trigger.headers", json!({"x-name": "v", "content-type": "t"}))
        .with_lazy("trigger.body", move || Ok(Arc::new(serde_json::from_str(body).unwrap())))
        .with_lazy("unused", || panic!("nobody asked for it"))
        .with_lazy("steps.raw.body", || Err("has no parsed view: not JSON".to_owned()))
        .with("steps.one.status", json!(200))
        .with("steps.one.body", json!({"id": 9}))
        .with("evil", json!("x\r\nSet-Cookie: y"))
        .with("dots", json!(".."))
}

#[track_caller]
fn text(template: &str) -> String {
    Template::parse(template).unwrap().render_text(&scope()).unwrap()
}

#[track_caller]
fn value(template: &str) -> Value {
    Template::parse(template).unwrap().render_value(&scope()).unwrap_or_else(|error| panic!("{template}: {error}"))
}

#[track_caller]
fn error(template: &str) -> String {
    Template::parse(template).unwrap().render_value(&scope()).unwrap_err().to_string()
}

#[test]
fn keeps_text_and_fills_pills_in() {
    assert_eq!(
        text("{{trigger.body.action}} #{{ steps.one.body.id }}! } {% x %} {# y #}"),
        "opened #9! } {% x %} {# y #}"
    );
    assert_eq!(
        text("{{ trigger.body.nothing }}|{{ trigger.body.yes }}|{{ trigger.body.tags }}"),
        r#"|true|["x","y","x"]"#
    );
    assert_eq!(text("{{ '{{' }} {{ \"}}\" }}"), "{{ }}");
}

#[test]
fn never_evaluates_output_again() {
    let scope = Scope::new().with("a", json!("{{ b }}")).with("b", json!("secret"));
    assert_eq!(Template::parse("{{ a }}{{ a | upper }}").unwrap().render_text(&scope).unwrap(), "{{ b }}{{ B }}");
}

#[test]
fn keeps_the_type_and_the_digits_of_a_whole_pill() {
    for (template, expected) in [
        ("{{ trigger.body.order_id }}", "12345678901234567890123"),
        ("{{ trigger.body.price }}", "1.10"),
        ("{{ trigger.body.price | default(0) }}", "1.10"),
        ("{{ (trigger.body.price) }}", "1.10"),
        ("{{ trigger.body.nested }}", r#"{"deep":{"er":7}}"#),
        ("{{ steps.one }}", r#"{"status":200,"body":{"id":9}}"#),
        ("{{ [trigger.body.price, 2] }}", "[1.10,2]"),
        ("{{ {'a': trigger.body.order_id, 'b': {}} }}", r#"{"a":12345678901234567890123,"b":{}}"#),
        ("{{ trigger.body.price }} ", "\"1.10 \""),
        (
            "{{ '0012345678901234567890123456789012345678901234567890.9' | int }}",
            "12345678901234567890123456789012345678901234567890",
        ),
        ("{{ 9007199254740993.5 | int }}", "9007199254740993"),
    ] {
        assert_eq!(value(template).to_string(), expected, "{template}");
    }
}

#[test]
fn goes_through_lists_and_header_names() {
    for (template, expected) in [
        ("{{ trigger.body.items.name }}", json!("a")),
        ("{{ trigger.body.items[1].name }}", json!("b")),
        ("{{ trigger.body.items.1.name }}", json!("b")),
        ("{{ trigger.body.items[trigger.body.items.n - 1].name }}", json!("b")),
        ("{{ trigger.body['X-Y'] }}", json!(1)),
        ("{{ trigger.headers['X-Name'] }}", json!("v")),
        ("{{ trigger.headers[\"CONTENT-type\"] }}", json!("t")),
        ("{{ (trigger.body.items | last).name }}", json!("b")),
        ("{{ (trigger.body.items | sort('n') | pluck('name')) }}", json!(["b", "a"])),
    ] {
        assert_eq!(value(template), expected, "{template}");
    }
}

#[test]
fn reckons_compares_and_chooses() {
    for (expression, expected) in [
        ("1 + 2 * 3 - -4", "11"),
        ("7 / 2", "3.5"),
        ("6 / 2", "3"),
        ("7 // 2", "3"),
        ("-7 % 3", "2"),
        ("trigger.body.order_id + 1", "12345678901234567890124"),
        ("1.10 == 1.1 and 1 != 2", "true"),
        ("9007199254740993.0 == 9007199254740992.0 or 1 == 1.00000000000000000000000000001", "false"),
        ("100000000000000000000000000000000000000001 > 100000000000000000000000000000000000000000", "true"),
        ("2 < 10 and 'b' > 'a'", "true"),
        ("not 1 == 2", "true"),
        ("not not ''", "false"),
        ("'a' ~ 1 ~ true ~ null", "\"a1true\""),
        ("'a' + 'b'", "\"ab\""),
        ("[1] + [2]", "[1,2]"),
        ("'x' in trigger.body.tags", "true"),
        ("'z' not in trigger.body.tags", "true"),
        ("'ada' in (trigger.body.text | lower)", "true"),
        ("1 if trigger.body.yes else 2", "1"),
        ("1 if trigger.body.empty", "null"),
        ("trigger.body.empty or 'x'", "\"x\""),
        ("trigger.body.yes and 'x'", "\"x\""),
        ("trigger.body.gone is defined", "false"),
        ("trigger.body.gone.on is not defined", "true"),
        ("trigger.body.items is list and trigger.body is object and 1 is odd", "true"),
        ("trigger.body.gone | upper | default('x')", "\"x\""),
        ("coalesce_me.a | coalesce(trigger.body.gone, trigger.body.nothing, 3)", "3"),
    ] {
        assert_eq!(value(&format!("{{{{ {expression} }}}}")).to_string(), expected, "{expression}");
    }
}

#[test]
fn filters_text_numbers_lists_and_times() {
    for (expression, expected) in [
        ("trigger.body.text | trim | upper", json!("ADA LOVELACE")),
        ("'ada love' | title", json!("Ada Love")),
        ("'éa' | capitalize", json!("Éa")),
        ("'a-b-c' | split('-') | reverse | join('+')", json!("c+b+a")),
        ("'aXbX' | replace('X', '')", json!("ab")),
        ("'xxaxx' | trim('x')", json!("a")),
        ("'äbc' | length", json!(3)),
        ("'äbcdef' | truncate(4)", json!("äbc…")),
        ("'äbc' | slice(-2)", json!("bc")),
        ("[1, 2, 3, 4] | slice(1, -1)", json!([2, 3])),
        ("[1, 2] | slice(5, 1)", json!([])),
        ("'12' | int + 1", json!(13)),
        ("'12.7' | int", json!(12)),
        (
            "['007' | int, '+5' | int, '-05' | int, '-0.5' | int, '.5' | float, '5.' | number]",
            json!([7, 5, -5, 0, 0.5, 5.0]),
        ),
        ("'1e3' | int", json!(1000)),
        ("' 08.50 ' | round(1)", json!(8.5)),
        ("2.5 | round", json!(3)),
        ("2.345 | round(2)", json!(2.35)),
        ("'yes' | bool", json!(true)),
        ("[[3] | list, 3 | list, null | list, {'a': 1} | list]", json!([[3], [3], [], [{"a": 1}]])),
        ("[3, 1, 2] | sum", json!(6)),
        ("[3, 1, 2] | min", json!(1)),
        ("[3, 'a', 2] | sort", json!([2, 3, "a"])),
        ("trigger.body.tags | unique", json!(["x", "y"])),
        ("trigger.body.nested | keys", json!(["deep"])),
        ("{'a': 1} | merge({'b': 2})", json!({"a": 1, "b": 2})),
        ("{'a': 1} | entries", json!([{"key": "a", "value": 1}])),
        ("trigger.body.items | where('name', 'b') | first", json!({"name": "b", "n": 1})),
        ("[[1], 2] | flatten", json!([1, 2])),
        ("{'a': [1.50]} | json", json!("{\"a\":[1.50]}")),
        ("'{\"a\": 1}' | from_json", json!({"a": 1})),
        ("'a/b?' | base64", json!("YS9iPw==")),
        ("'YS9iPw' | from_base64", json!("a/b?")),
        ("'ab' | hex", json!("6162")),
        ("'6162' | from_hex", json!("ab")),
        ("'a b/ä' | url_encode", json!("a%20b%2F%C3%A4")),
        ("'a%20b' | url_decode", json!("a b")),
        ("'a' | md5", json!("0cc175b9c0f1b6a831c399e269772661")),
        ("'a' | sha256 | truncate(8, '')", json!("ca978112")),
        ("'Hello, World!' | hmac_sha256(\"It's a Secret to Everybody\") | truncate(8, '')", json!("757107ea")),
        ("trigger.body.at | date('%d.%m.%Y %H:%M', 'Europe/Berlin')", json!("10.03.2024 13:00")),
        ("trigger.body.at | date(null, 'America/New_York')", json!("2024-03-10T08:00:00-04:00")),
        ("1700000000 | date('%Y')", json!("2023")),
        ("1700000000123 | date('%Y')", json!("2023")),
        ("'10.03.2024 13:00' | to_date('%d.%m.%Y %H:%M', 'Europe/Berlin')", json!("2024-03-10T12:00:00Z")),
        ("trigger.body.at | timestamp", json!(1_710_072_000)),
        ("trigger.body.tags | contains('y')", json!(true)),
        ("'abc' | starts_with('ab')", json!(true)),
        ("null | upper", json!(null)),
    ] {
        assert_eq!(value(&format!("{{{{ {expression} }}}}")).to_string(), expected.to_string(), "{expression}");
    }
}

#[test]
fn says_where_what_is_missing_and_what_was_meant() {
    for (template, expected) in [
        ("Order no.  {{ trigger.order.id }}", r#"column 15: pill "trigger.order.id" is not in the data"#),
        (
            "{{ trigger.body.order_ids }}",
            r#"column 4: pill "trigger.body.order_ids" is not in the data (did you mean "trigger.body.order_id"?)"#,
        ),
        (
            "{{ 'ä' ~ triger.body.action }}",
            r#"column 10: pill "triger.body.action" is not in the data (did you mean "trigger.body.action"?)"#,
        ),
        (
            "{{ trigger.body.items.nam }}",
            r#"column 4: pill "trigger.body.items.nam" is not in the data (did you mean "trigger.body.items.name"?)"#,
        ),
        ("{{ trigger.body.items[7] }}", r#"column 4: pill "trigger.body.items[7]" is not in the data"#),
        ("{{ trigger.body.none.x }}", r#"column 4: pill "trigger.body.none.x" is not in the data"#),
        (
            "{{ trigger.headers['x-nam'] }}",
            r#"column 4: pill "trigger.headers["x-nam"]" is not in the data (did you mean "trigger.headers["x-name"]"?)"#,
        ),
        ("{{ steps.raw.body.a }}", r#"column 4: pill "steps.raw.body.a" has no parsed view: not JSON"#),
        (
            "{{ trigger.body.action | default(1) ~ trigger.body.gone }}",
            r#"column 39: pill "trigger.body.gone" is not in the data (did you mean "trigger.body.none"?)"#,
        ),
        ("{{ 'a' | int }}", "column 10: `int` needs a number, or a text that is one"),
        ("{{ 1 + 'a' }}", "column 6: `+` needs a number, not a text"),
        ("{{ 1 / 0 }}", "column 6: `/` cannot divide by zero"),
        ("{{ 'a' < 1 }}", "column 8: cannot compare a text with a number"),
        ("{{ 'x' | date('%Y') }}", "column 10: `date` needs a time as in RFC 3339, or a number of seconds since 1970"),
    ] {
        assert_eq!(error(template), expected, "{template}");
    }
}

#[test]
fn refuses_what_is_no_expression() {
    for (template, expected) in [
        ("{{ a", "column 5: `}}` is missing at the end"),
        ("{{ }}", "column 4: an expression is missing here"),
        ("{{ a b }}", "column 6: unexpected `b`; `}}` or an operator belongs here"),
        ("{{ a | uper }}", "column 8: there is no filter `uper` (did you mean `upper`?)"),
        ("{{ a is strin }}", "column 9: there is no test `strin` (did you mean `string`?)"),
        ("{{ a | replace('x') }}", "column 8: the filter `replace` takes 2 arguments, 1 are given"),
        ("{{ range(9) }}", "column 9: there are no functions; a filter follows `|`"),
        ("{{ a.b() }}", "column 7: there are no functions; a filter follows `|`"),
        ("{{ 2 ** 9 }}", "column 6: `**` is not an operator here"),
        ("{{ a < b < c }}", "column 11: comparisons are not chained; write `a < b and b < c`"),
        ("{{ 'a }}", "column 4: this text has no end"),
        ("{{ 1a }}", "column 4: this is not a number"),
        ("{{ a | op_at(1) }}", "column 8: there is no filter `op_at`"),
        ("{{ %} }}", "column 4: an expression is missing here"),
    ] {
        assert_eq!(Template::parse(template).unwrap_err().to_string(), expected, "{template}");
    }
    for template in ["{{ {% if x %} }}", "{{ {# x #} }}", "{{ a[1:2] }}", "{{ a; b }}", "{{ x = 1 }}", "{{ a -}}"] {
        assert!(Template::parse(template).is_err(), "{template}");
    }
    assert!(Template::parse(&format!("{{{{ {} }}}}", "(".repeat(4_000))).is_err());
    assert!(Template::parse(&format!("{{{{ {}1 }}}}", "-".repeat(4_000))).is_err());
    assert!(Template::parse(&format!("{{{{ {}1 }}}}", "not ".repeat(1_000))).is_err());
    assert!(Template::parse(&format!("{{{{ 1{} }}}}", "+1".repeat(1_000))).is_err());
    assert!(Template::parse(&format!("{{{{ '{}' }}}}", "x".repeat(5_000))).is_err());
    assert!(Template::parse(&format!("{{{{ 1{} }}}}", "+1".repeat(90))).is_ok());
}

#[test]
fn bounds_work_and_memory() {
    let scope = Scope::new()
        .with("big", json!("x".repeat(1 << 20)))
        .with("huge", json!("x".repeat(20 << 20)))
        .with("many", Value::from((0..150_000).collect::<Vec<_>>()));
    let render = |expression: &str| {
        let template = Template::parse(&format!("{{{{ {expression} }}}}")).unwrap();
        template.render_value(&scope).map(|value| filters::weight(&value, usize::MAX))
    };
    for expression in [
        "'a' * 100000000",
        "100000000 * 'a'",
        "[1] * 100000000",
        "big ~ big",
        "big + big",
        "big | replace('x', 'yy')",
        "big | hex",
        "big | json | json | json | json | json | json | json | json | json | json | json",
        "[big, big, big, big, big, big, big, big, big, big, big, big, big]",
        "huge | upper",
        "huge | split('x')",
        "huge ~ 'a'",
        "big | split('x') | join(big)",
        "many | json | split(',') | sort | unique | reverse | sort | unique | reverse",
        "many | join(big)",
    ] {
        assert!(render(expression).is_err(), "{expression}");
    }
    let searches = ["(huge | contains('z'))"; 30].join(" or ");
    assert!(render(&searches).is_err());
    assert!(render("huge | contains('x')").is_ok());
    assert_eq!(render("huge").unwrap(), (20 << 20) + 32);
    assert!(render("huge | default('x')").is_ok());
    assert!(render("many | length == 150000").is_ok());
    assert!(render("big | trim | length").is_ok());
    assert!(Template::parse("{{ huge }}").unwrap().render_text(&scope).is_err());
    assert!(Template::parse("{{ big }}{{ big }}").unwrap().render_text(&scope).is_err());
}

/// Expressions over what a sender chose: long numbers, long keys, many values.
fn hostile_scope() -> Scope {
    let long = |digits: usize| format!("1{}", "0".repeat(digits));
    let number = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let items: Vec<Value> = (0..30_000).map(|n| json!({"a": n, "b": 0})).collect();
    let mut numbers: Vec<Value> = (0..20_000).map(Value::from).collect();
    numbers.insert(0, number(&long(900_000)));
    Scope::new()
        .with("n", number(&long(4_000_000)))
        .with("same", number(&format!("{}.0", long(4_000_000))))
        .with("more", number(&format!("{}.1", long(4_000_000))))
        .with("short", number(&long(200_000)))
        .with("l", Value::from((0..190_000).collect::<Vec<_>>()))
        .with("nested", Value::from(vec![json!([1]); 100_000]))
        .with("list", json!([number(&long(4_000_000))]))
        .with("numbers", Value::from(numbers))
        .with("items", Value::from(items))
        .with("key", json!("k".repeat(200_000)))
        .with("long", json!("k".repeat(4_900_000)))
        .with("texts", Value::from(vec![json!("x".repeat(20_000)); 50]))
        .with("text", json!("x".repeat(20_000)))
        .with("tree", json!({"a": (0..60_000).map(|n| json!({"n": n})).collect::<Vec<_>>()}))
}

#[test]
fn compares_long_numbers_within_its_work() {
    let scope = hostile_scope();
    for (expression, expected) in [
        ("n in l", json!(false)),
        ("l | contains(n)", json!(false)),
        ("n == same and n != more and n < more and not (n > same)", json!(true)),
        ("n is even", json!(null)),
        ("numbers | max | string | length", json!(900_001)),
        ("numbers | min", json!(0)),
        ("numbers | sort | last | string | length", json!(900_001)),
        ("numbers | unique | length", json!(20_001)),
        ("items | where('a', short) | length", json!(0)),
        ("items | where('a', 7) | length", json!(1)),
        ("text in texts and tree == tree", json!(true)),
        ("1 if n else 2", json!(1)),
    ] {
        let outcome = Expression::parse(expression).unwrap().evaluate(&scope).ok().unwrap_or_default();
        assert_eq!(outcome, expected, "{expression}");
    }
}

#[test]
fn ends_with_an_error_where_the_work_would_multiply() {
    let scope = hostile_scope();
    for expression in [
        // Each of these compares or hashes something long once for each of many values.
        "list in nested and list in (nested | default([n])) and [n] in [[n], [n], [n]] and list == list and nested == nested \
            and tree == tree and tree == tree and tree == tree and tree == tree and tree == tree and tree == tree",
        "items | pluck(key) | length",
        "items | sort(key) | length",
        "items | where(key, 1) | length",
        "items | wrap(key) | length",
        "[n in l, n in l, n in l, n in l, n in l, n in l]",
    ] {
        let error = Expression::parse(expression).unwrap().evaluate(&scope).unwrap_err();
        assert!(
            error.reason.contains("takes too much work on this data") || error.reason.contains("1 MiB"),
            "{expression}: {error}"
        );
    }
    let often = ["tree[long]"; 40].join(" or ");
    assert!(Expression::parse("tree[long]").unwrap().evaluate(&scope).is_ok());
    assert!(Expression::parse(&often).unwrap().evaluate(&scope).is_err());
    // The whole is one budget: what fits once does not fit often.
    let often = ["(n in l)"; 6].join(" or ");
    assert!(Expression::parse("n in l").unwrap().evaluate(&scope).is_ok());
    assert!(Expression::parse(&often).unwrap().evaluate(&scope).is_err());
}

#[test]
fn counts_what_it_looks_at() {
    let used = |filter: &str, values: &[&Value]| {
        let filter = filters::all().find(|known| known.name == filter).unwrap();
        let (Run::Search(run) | Run::Paid(run)) = filter.run else { panic!("{} does not pay", filter.name) };
        let work = Work::new(usize::MAX);
        drop(run(values, &work));
        usize::MAX - work.left()
    };
    let long: Value = serde_json::from_str(&"7".repeat(1_000_000)).unwrap();
    let (many, text) = (Value::from((0..1_000).collect::<Vec<_>>()), json!("x".repeat(1_000_000)));
    for (filter, values, most) in [
        ("op_in", [&long, &many], 1_000_000 + 1_000 * 140),
        ("contains", [&many, &long], 1_000_000 + 1_000 * 140),
        ("op_eq", [&long, &long], 2_001_000),
        ("op_lt", [&long, &long], 2_001_000),
        ("op_lt", [&text, &json!("a")], 200),
        ("op_eq", [&text, &json!("a")], 200),
        ("op_in", [&json!("y"), &text], 1_001_000),
        ("length", [&text, &Value::Null], 1_001_000),
        ("length", [&many, &Value::Null], 0),
        ("sort", [&many, &text], 1_000 * 1_000_200),
    ] {
        let used = used(filter, &values);
        assert!(used <= most && (most == 0 || used >= most / 3), "{filter}: {used} of {most}");
    }
}

#[test]
fn names_a_whole_branch_once() {
    let scope = Scope::new().with("trigger.body", json!({"a": 1})).with("trigger.id", json!(7));
    assert_eq!(Expression::parse("trigger == trigger").unwrap().holds(&scope), Ok(true));
    let scope = scope.with("trigger.more", json!(2));
    let whole = Expression::parse("trigger").unwrap().evaluate(&scope).unwrap();
    assert_eq!(whole, json!({"body": {"a": 1}, "id": 7, "more": 2}));
}

#[test]
fn sees_an_event() {
    let event = crate::event::Event {
        id: crate::EventId::new(crate::Timestamp::from_micros(1_700_000_000_000_000), 1, 0),
        endpoint: "github".parse().unwrap(),
        received_at: crate::Timestamp::from_micros(1_700_000_000_000_000),
        head: crate::event::EventHead {
            method: "POST".to_owned(),
            event_name: None,
            query: Some("a=1&b=2&a=3".to_owned()),
            headers: [("x-a", "1"), ("x-a", "2")]
                .map(|(name, value)| (name.to_owned(), crate::event::HeaderText::new(value)))
                .to_vec(),
            remote: None,
            verified: crate::event::VerifiedBy { by: "none".to_owned(), ok: false },
        },
        body: r#"{"n": 1.10}"#.into(),
    };
    let scope = Scope::of_event(&event, None);
    let template = "{{ trigger.method }} {{ trigger.received_at }} {{ trigger.headers['X-A'] }} {{ trigger.query.a[1] }} \
        {{ trigger.query.b }} {{ trigger.body.n }}{{ trigger.event_name }}";
    let text = Template::parse(template).unwrap().render_text(&scope).unwrap();
    assert_eq!(text, "POST 2023-11-14T22:13:20.000000Z 1, 2 3 2 1.10");
    let mut deep = event;
    deep.body = "[".repeat(99).into();
    let error =
        Template::parse("{{ trigger.body.n }}").unwrap().render_text(&Scope::of_event(&deep, None)).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"column 4: pill "trigger.body.n" has no parsed view, because the body is deeper than 64 levels"#
    );
}

#[test]
fn reads_conditions_with_and_without_braces() {
    let holds = |text: &str| Expression::parse(text).unwrap().holds(&scope());
    assert_eq!(holds("trigger.body.action == 'opened'"), Ok(true));
    assert_eq!(holds("  {{ trigger.body.action == 'closed' }} "), Ok(false));
    assert_eq!(holds("trigger.body.gone.by > 5"), Ok(false));
    assert_eq!(holds("not trigger.body.gone"), Ok(true));
    assert_eq!(holds("unknown"), Ok(false));
    assert_eq!(holds("trigger.body.items"), Ok(true));
    assert_eq!(holds("trigger.body.none or 0 or '' or {}"), Ok(false));
    assert!(holds("trigger.body.action > 5").is_err());
    for bad in ["", "a b", "{{ a", "{{ a }} b", "a }}"] {
        assert!(Expression::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn lists_the_plain_paths() {
    let template = Template::parse("{{ trigger.body.a[0]['X-Y'] | default(steps.one.body) }}{{ settings.x }}").unwrap();
    let pills: Vec<_> = template.pills().map(|pill| (pill.to_string(), pill.lenient, pill.column)).collect();
    assert_eq!(
        pills,
        [
            ("trigger.body.a[0][\"X-Y\"]".to_owned(), true, 4),
            ("steps.one.body".to_owned(), true, 39),
            ("settings.x".to_owned(), false, 60),
        ]
    );
}

#[test]
fn keeps_pills_within_their_part_of_a_url() {
    let path = |template: &str| Template::parse(template).unwrap().render_url_path(&scope()).map_err(|e| e.to_string());
    assert_eq!(path("/a/{{ trigger.body.path }}/b").unwrap(), "/a/a%2F..%2Fb%3Fc%23d/b");
    assert_eq!(path("/a?q={{ trigger.body.path }}&r={{ trigger.body.empty }}").unwrap(), "/a?q=a%2F..%2Fb%3Fc%23d&r=");
    assert_eq!(path("/a/{{ trigger.body.price }}").unwrap(), "/a/1.10");
    for bad in [
        "/a/{{ dots }}/b",
        "/a/{{ dots }}",
        "{{ dots }}",
        "/.{{ dots | first }}/",
        "/%2e{{ dots | first }}/x",
        "/a/{{ trigger.body.empty }}",
        "/a/{{ trigger.body.nothing }}",
        "/../a",
    ] {
        assert!(path(bad).is_err(), "{bad}: {:?}", path(bad));
    }
    assert_eq!(path("/a{{ dots }}").unwrap(), "/a..");
    assert_eq!(path("/a?x={{ dots }}").unwrap(), "/a?x=..");

    let scope = scope().with("url", json!("https://x.example/a?b=c")).with("host", json!("a.example@evil"));
    let url = |template: &str| Template::parse(template).unwrap().render_url(&scope).map_err(|e| e.to_string());
    assert_eq!(url("{{ url }}").unwrap(), "https://x.example/a?b=c");
    assert_eq!(url("https://h/{{ url }}").unwrap(), "https://h/https%3A%2F%2Fx.example%2Fa%3Fb%3Dc");
    assert_eq!(url("https://{{ trigger.body.action }}.example/").unwrap(), "https://opened.example/");
    for bad in ["{{ url }}/x", "https://{{ host }}/", "https://{{ url }}", "https://h/{{ dots }}"] {
        assert!(url(bad).is_err(), "{bad}");
    }
    for (text, is_path) in
        [("/a\\b", true), ("/a\tb", true), ("/a#b", true), ("/a/../b", true), ("ftp", false), ("{{ a }}x", false)]
    {
        let template = Template::parse(text).unwrap();
        assert!(if is_path { template.path_fault() } else { template.url_fault() }.is_some(), "{text}");
    }
}

#[test]
fn refuses_line_breaks_in_headers() {
    let header = |template: &str| Template::parse(template).unwrap().render_header(&scope());
    assert_eq!(header("a {{ trigger.body.text }}").unwrap(), "a  Ada Lovelace");
    assert_eq!(
        header("x{{ evil }}").unwrap_err().to_string(),
        "column 5: a header value holds no line breaks or other control characters"
    );
}

proptest! {
    #[test]
    fn text_without_pills_stays_as_it_is(text in "([^{]|\\{[^{])*") {
        prop_assert_eq!(Template::parse(&text).unwrap().render_text(&Scope::new()).unwrap(), text);
    }

    #[test]
    fn never_panics_on_any_text(text in any::<String>()) {
        drop(Template::parse(&text));
        drop(Expression::parse(&text));
        drop(Template::parse(&format!("{{{{{text}}}}}")));
    }

    #[test]
    fn never_panics_on_what_looks_like_an_expression(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "trigger", ".", "body", "items", "[", "]", "(", ")", "0", "-1", "'a'", "|", "upper", "join", "sort", "slice(1)",
            "date", "round(2)", "+", "-", "*", "/", "//", "%", "~", "==", "<", " in ", " not ", " and ", " or ", " if ",
            " else ", " is ", "defined", "{", "}", ":", ",", "null", "1e9", "99999999999999999999999999999999999999999",
            "truncate(3)", "default(1)", "from_json", "abs",
        ]), 0..12)
    ) {
        let text = tokens.concat();
        if let Ok(expression) = Expression::parse(&text) {
            drop(expression.evaluate(&scope()));
        }
    }

    #[test]
    fn a_pill_gives_the_number_as_written(number in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?") {
        let value: Value = serde_json::from_str(&number).unwrap();
        let written = value.to_string();
        let scope = Scope::new().with("n", json!({"n": value}));
        let template = Template::parse("{{ n.n }}").unwrap();
        prop_assert_eq!(template.render_text(&scope).unwrap(), written.clone());
        prop_assert_eq!(template.render_value(&scope).unwrap().to_string(), written);
    }

    #[test]
    fn a_pill_in_a_url_stays_one_segment(text in "\\PC{1,20}") {
        let scope = Scope::new().with("x", json!(text.clone()));
        let template = Template::parse("https://h.example/a/{{ x }}/b?q={{ x }}").unwrap();
        match template.render_url(&scope) {
            Ok(url) => {
                let url = url::Url::parse(&url).unwrap();
                let segments: Vec<_> = url.path_segments().unwrap().collect();
                prop_assert_eq!(segments.len(), 3);
                prop_assert_eq!(percent_encoding::percent_decode_str(segments[1]).decode_utf8().unwrap(), text.as_str());
                let pairs: Vec<_> = url.query_pairs().collect();
                prop_assert_eq!(pairs.len(), 1);
                prop_assert_eq!(pairs[0].1.as_ref(), text.as_str());
                prop_assert!(url.fragment().is_none());
            }
            Err(_) => prop_assert!(text == "." || text == ".."),
        }
    }
}
