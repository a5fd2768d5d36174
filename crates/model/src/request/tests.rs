use indexmap::IndexMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::compile::CompiledRequest;
use super::*;
use crate::limits;
use crate::reader::Reader;
use crate::template::Scope;

fn compile(fields: &Value) -> Result<CompiledRequest, Vec<String>> {
    let mut all = json!({"method": "POST", "url": "https://h/"});
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let step: RequestStep = serde_json::from_value(all).unwrap();
    let known = |_: &str, _: &crate::template::Pill| None;
    let mut reader = Reader::new(&known);
    let compiled = CompiledRequest::compile(&mut reader, "r", &step);
    let faults: Vec<String> = reader.into_faults().iter().map(ToString::to_string).collect();
    if faults.is_empty() { Ok(compiled.unwrap()) } else { Err(faults) }
}

fn render_with(fields: &Value, body: Value) -> Result<RequestSpec, RenderFault> {
    compile(fields).unwrap().render(&Scope::new().with("b", body), None)
}

fn render(fields: &Value) -> Result<RequestSpec, RenderFault> {
    let body = json!({"text": "a<b & \"c\"", "bytes": {"base64": "iVBORw0K"}, "n": 7, "list": ["x", "y"], "null": null,
        "tree": {"order": {"@id": "7", "item": ["x", "y"]}}, "xml": "<a/>", "bad": "<a>", "break": "a\r\nb", "zero": "\u{0}"});
    render_with(fields, body)
}

fn sent(fields: &Value) -> (String, String) {
    let request = render(fields).unwrap();
    let content_type = &request.headers.iter().find(|(name, _)| name == "content-type").unwrap().1;
    (content_type.to_str().unwrap().to_owned(), String::from_utf8(request.body.to_vec()).unwrap())
}

fn fault(fields: &Value) -> String {
    let fault = render(fields).unwrap_err();
    format!("{}: {fault}", fault.code)
}

#[test]
fn writes_xml_of_trees_and_texts() {
    const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
    for (xml, expected) in [
        (
            json!({"a": {"@id": "{{ b.n }}", "t": "{{ b.text }}", "i": "{{ b.list }}", "n": "{{ b.null }}", "f": 1.5}}),
            format!("{HEAD}<a id=\"7\"><t>a&lt;b &amp; &quot;c&quot;</t><i>x</i><i>y</i><n/><f>1.5</f></a>"),
        ),
        (json!("{{ b.tree }}"), format!("{HEAD}<order id=\"7\"><item>x</item><item>y</item></order>")),
        (json!("{{ b.xml }}"), "<a/>".to_owned()),
        (json!("<a b='{{ b.text }}'>{{ b.text }}</a>"), {
            let text = "a&lt;b &amp; &quot;c&quot;";
            format!("<a b='{text}'>{text}</a>")
        }),
        (json!("<a>{{ b.break }}</a>"), "<a>a&#13;\nb</a>".to_owned()),
    ] {
        assert_eq!(sent(&json!({ "xml": xml })), ("application/xml".to_owned(), expected));
    }
    assert_eq!(
        fault(&json!({"xml": {"a": "{{ b.zero }}"}})),
        "request.body: xml, `a`: XML cannot hold the character \\u{0}"
    );
    assert_eq!(
        fault(&json!({"xml": "<a>{{ b.zero }}</a>"})),
        "template.failed: xml, column 7: XML cannot hold the character \\u{0}"
    );
    assert_eq!(
        fault(&json!({"xml": "{{ b.bad }}"})),
        "request.body: xml, not XML: it ends before its elements are closed, at line 1"
    );
    assert!(fault(&json!({"xml": "<a {{ b.text }}/>"})).starts_with("request.body: xml, not XML: "));
    assert_eq!(
        fault(&json!({"xml": "{{ b.list }}"})),
        "request.body: xml, XML is an object with one key, the name of the root element"
    );
}

#[test]
fn sends_bytes_as_they_are() {
    let bytes = |fields: Value| render(&fields).map(|request| request.body.to_vec());
    assert_eq!(bytes(json!({"raw": "{{ b.bytes }}"})).unwrap(), b"\x89PNG\r\n");
    assert_eq!(bytes(json!({"raw": {"base64": "iVBO\n Rw0K"}})).unwrap(), b"\x89PNG\r\n");
    assert_eq!(bytes(json!({"raw": {"base64": "{{ b.bytes.base64 }}"}})).unwrap(), b"\x89PNG\r\n");
    assert_eq!(bytes(json!({"raw": {"base64": "YQ"}})).unwrap(), b"a");
    assert_eq!(bytes(json!({"raw": "{{ b.xml }}"})).unwrap(), b"<a/>");
    assert_eq!(bytes(json!({"raw": "{{ b.null }}"})).unwrap(), b"");
    assert_eq!(sent(&json!({"raw": "{{ b.xml }}"})).0, "application/octet-stream");
    let own = json!({"raw": "{{ b.xml }}", "headers": {"Content-Type": "image/png"}});
    assert_eq!(sent(&own).0, "image/png");
    assert_eq!(
        fault(&json!({"raw": "{{ b.tree }}"})),
        "request.body: raw, this pill holds no bytes; read the answer with `response: raw`"
    );
    assert!(fault(&json!({"raw": {"base64": "{{ b.text }}"}})).starts_with("request.body: raw.base64, not base64: "));
}

#[test]
fn sends_fields_and_files() {
    let fields = json!({"multipart": [
        {"name": "title", "text": "{{ b.text }}"},
        {"name": "meta", "json": {"n": "{{ b.n }}"}},
        {"name": "file", "filename": "{{ b.n }}.png", "content_type": "image/png", "raw": "{{ b.bytes }}"},
        {"name": "file", "filename": "b.txt", "text": "b"},
    ]});
    let request = render(&fields).unwrap();
    let content_type = request.headers[0].1.to_str().unwrap();
    let pieces = multipart::split(multipart::boundary_of(content_type).unwrap(), &request.body).unwrap();
    let shown: Vec<_> = pieces
        .iter()
        .map(|piece| {
            let lines: Vec<_> = piece.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            (lines.join("|"), piece.content)
        })
        .collect();
    let expected = [
        ("Content-Disposition: form-data; name=\"title\"", &b"a<b & \"c\""[..]),
        ("Content-Disposition: form-data; name=\"meta\"|Content-Type: application/json", b"{\"n\":7}"),
        ("Content-Disposition: form-data; name=\"file\"; filename=\"7.png\"|Content-Type: image/png", b"\x89PNG\r\n"),
        (
            "Content-Disposition: form-data; name=\"file\"; filename=\"b.txt\"|Content-Type: text/plain; charset=utf-8",
            b"b",
        ),
    ];
    assert_eq!(shown, expected.map(|(lines, content)| (lines.to_owned(), content)));
    assert_eq!(render(&fields).unwrap().body, request.body, "every attempt sends the same bytes");
    assert!(
        fault(&json!({"multipart": [{"name": "a", "text": "b", "content_type": "a{{ b.break }}"}]}))
            .starts_with("template.failed: multipart[0].content_type, column 5: a header value holds no line breaks")
    );
}

#[test]
fn refuses_bodies_that_cannot_work() {
    for (fields, expected) in [
        (
            json!({"raw": "a"}),
            "r.raw: raw is one whole pill that holds bytes, or {base64: …}; a text belongs into text",
        ),
        (json!({"raw": {"base64": "a b!"}}), "r.raw.base64: not base64: Invalid symbol 33, offset 2."),
        (json!({"multipart": []}), "r.multipart: a multipart body has 1 to 100 parts"),
        (json!({"multipart": [{"name": "a"}]}), "r.multipart[0]: a part has one of text, json, raw and each"),
        (
            json!({"multipart": [{"name": "a", "text": "b", "raw": "{{ b.x }}"}]}),
            "r.multipart[0]: a part has one of text, json, raw and each",
        ),
        (
            json!({"multipart": [{"name": "a", "text": "b", "content_type": "a\nb"}]}),
            "r.multipart[0].content_type: a content type holds no line breaks or other control characters",
        ),
        (
            json!({"multipart": [{"name": "a", "text": "b"}], "headers": {"Content-Type": "multipart/form-data"}}),
            "r.headers.Content-Type: the content type of a multipart body is set with its boundary; leave it out",
        ),
        (json!({"xml": {"a": 1, "b": 2}}), "r.xml: XML has one root element, so the object has one key"),
        (json!({"xml": {"a": {"b c": "{{ b.x }}"}}}), "r.xml: `a.b c`: `b c` is no name in XML"),
        (json!({"xml": "<a>"}), "r.xml: not XML: it ends before its elements are closed, at line 1"),
        (
            json!({"xml": "<?xml version='1.0' encoding='latin1'?><a/>"}),
            "r.xml: not XML: its declaration says `latin1`, and UTF-8 is sent",
        ),
        (json!({"xml": "<a/>", "text": "a"}), "r: give one of json, form, multipart, xml, text and raw"),
        (
            json!({"headers": {"X-A": "a\r\nX-B: b"}}),
            "r.headers.X-A: a header value holds no line breaks or other control characters",
        ),
    ] {
        assert_eq!(compile(&fields).err().unwrap(), [expected], "{fields}");
    }
    assert!(serde_json::from_value::<RequestStep>(json!({"method": "POST", "raw": {"base65": "a"}})).is_err());
}

#[test]
fn every_method_is_sent_as_it_is_written() {
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"] {
        assert_eq!(render(&json!({ "method": method })).unwrap().method, method);
    }
}

#[test]
fn headers_keep_their_order_and_their_bytes() {
    let headers = json!({"headers": {"X-Z": "é\t\"q\"", "X-A": "{{ b.n }} ", "Accept": "*/*"}, "text": "t"});
    let request = render(&headers).unwrap();
    let lines: Vec<_> = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let expected = [
        ("x-z", "é\t\"q\"".as_bytes()),
        ("x-a", b"7"),
        ("accept", b"*/*"),
        ("content-type", b"text/plain; charset=utf-8"),
    ];
    assert_eq!(lines, expected);
}

proptest! {
    #[test]
    fn a_pill_never_changes_the_shape_of_xml(text in any::<String>()) {
        let fields = json!({"xml": "<a b=\"{{ b.t }}\"><c>{{ b.t }}</c><![CDATA[{{ b.t }}]]></a>"});
        if let Ok(request) = render_with(&fields, json!({ "t": text })) {
            let tree = crate::xml::read(None, &request.body).unwrap();
            let keys: Vec<&str> = tree["a"].as_object().unwrap().keys().map(String::as_str).collect();
            prop_assert!(keys == ["@b", "c", "#text"] || keys == ["@b", "c"], "{:?}", keys);
            prop_assert_eq!(tree["a"]["c"].as_str().unwrap(), text);
        }
    }

    #[test]
    fn a_name_never_leaves_its_line(name in any::<String>(), filename in any::<String>()) {
        let part = IndexMap::from([("name", "{{ b.name }}"), ("filename", "{{ b.filename }}"), ("text", "x")]);
        let request = render_with(&json!({"multipart": [part]}), json!({"name": name, "filename": filename})).unwrap();
        let boundary = multipart::boundary_of(request.headers[0].1.to_str().unwrap()).unwrap().to_owned();
        let pieces = multipart::split(&boundary, &request.body).unwrap();
        prop_assert_eq!((pieces.len(), pieces[0].headers.len(), pieces[0].content), (1, 2, &b"x"[..]));
    }
}

#[test]
fn lists_and_objects_are_several_fields() {
    let fields = |values: Value| {
        let request = render(&json!({"query": values, "form": values})).unwrap();
        let query = request.url.query().unwrap_or_default().to_owned();
        (query, String::from_utf8(request.body.to_vec()).unwrap())
    };
    let (query, form) = fields(json!({"t": "{{ b.list }}", "j": "{{ b.list | join(',') }}", "s": "a{{ b.list }}"}));
    assert_eq!(query, "t=x&t=y&j=x,y&s=a%5B%22x%22%2C%22y%22%5D");
    assert_eq!(form, "t=x&t=y&j=x,y&s=a%5B%22x%22%2C%22y%22%5D");
    assert_eq!(
        fields(json!({"o": "{{ b.tree }}"})).0,
        "o%5Border%5D%5B%40id%5D=7&o%5Border%5D%5Bitem%5D%5B0%5D=x&o%5Border%5D%5Bitem%5D%5B1%5D=y"
    );
    assert_eq!(
        fields(json!({"l": "{{ [{'id': 1}, 2] }}", "n": "{{ b.null }}", "e": "{{ [] }}"})).0,
        "l%5B0%5D%5Bid%5D=1&l%5B1%5D=2&n="
    );
    // Many small fields take no more room than a text may.
    let many = json!({"list": vec![0; limits::RENDERED_BYTES / 4]});
    let fault = render_with(&json!({"query": {"name": "{{ b.list }}"}}), many).unwrap_err();
    assert!(fault.message.contains("longer than 1 MiB"), "{fault}");
}

#[test]
fn what_was_not_given_is_left_out_with_its_filters() {
    let scope = Scope::new().with_fields("b", [("given".to_owned(), Some(json!(["x"]))), ("absent".to_owned(), None)]);
    let query = |text: &str| {
        let compiled = compile(&json!({"query": {"q": text}})).unwrap();
        compiled.render(&scope, None).map(|request| request.url.query().unwrap_or_default().to_owned())
    };
    assert_eq!(query("{{ b.given | join(',') }}").unwrap(), "q=x");
    assert_eq!(query("{{ b.absent | join(',') | upper }}").unwrap(), "");
    assert_eq!(query("{{ b.absent | default('a') }}").unwrap(), "q=a");
    for text in
        ["{{ b.absent ~ 'a' }}", "{{ b.absent is empty }}", "{{ 'a' | replace('a', b.absent) }}", "{{ not b.absent }}"]
    {
        assert!(query(text).is_err(), "{text}");
    }
}

#[test]
fn a_declared_character_set_is_obeyed_or_refused() {
    let bytes = |content_type: &str, fields: Value| {
        let mut fields = fields;
        fields["headers"] = json!({"Content-Type": content_type});
        render_with(&fields, json!({"e": "é", "j": "あ"})).map(|request| request.body.to_vec())
    };
    for (content_type, fields, expected) in [
        (
            "text/xml; charset=iso-8859-1",
            json!({"xml": {"a": "{{ b.e }}"}}),
            &b"<?xml version=\"1.0\" encoding=\"iso-8859-1\"?><a>\xe9</a>"[..],
        ),
        (
            "text/xml; charset=latin1",
            json!({"xml": "<?xml version='1.0' encoding='utf-8'?><a>é</a>"}),
            b"<?xml version='1.0' encoding='latin1'?><a>\xe9</a>",
        ),
        ("text/xml; charset=latin1", json!({"xml": "<a>é utf-8?></a>"}), b"<a>\xe9 utf-8?></a>"),
        ("text/plain;charset=\"Windows-1252\"", json!({"text": "{{ b.e }}"}), b"\xe9"),
        ("application/json; charset=latin1", json!({"json": ["é"]}), b"[\"\xe9\"]"),
        ("application/x-www-form-urlencoded; charset=latin1", json!({"form": {"é": "{{ b.e }} 1"}}), b"%E9=%E9+1"),
        ("text/plain; charset=utf-16", json!({"text": "é"}), b"\xff\xfe\xe9\0"),
        ("text/plain; charset=UTF-8", json!({"text": "é"}), "é".as_bytes()),
        ("text/plain; charset=shift_jis", json!({"text": "{{ b.j }}"}), b"\x82\xa0"),
        // Bytes are what they are.
        ("text/plain; charset=latin1", json!({"raw": {"base64": "w6k="}}), "é".as_bytes()),
    ] {
        assert_eq!(bytes(content_type, fields.clone()).unwrap(), expected, "{content_type} {fields}");
    }
    for content_type in ["text/plain; charset=latin1", "text/plain; charset=us-ascii", "text/plain; charset=klingon"] {
        let fault = bytes(content_type, json!({"text": "{{ b.j }}"})).unwrap_err();
        assert_eq!((fault.code, fault.field.as_str()), ("request.body", "headers.Content-Type"), "{fault}");
    }
    let part = |text: &str| {
        let part = json!({"name": "n", "content_type": "text/plain; charset=latin1", "text": text});
        render_with(&json!({"multipart": [part]}), json!({})).map(|request| request.body.to_vec())
    };
    assert!(part("é").unwrap().windows(5).any(|window| window == b"\r\n\xe9\r\n"));
    assert_eq!(part("あ").unwrap_err().field, "multipart[0].content_type");
}

#[test]
fn what_joins_a_list_is_none_of_its_items() {
    let input = json!({"ids": ["x,y", "z w", "é"], "none": [], "one": "x,y", "deep": [[1]]});
    let url = |fields: Value| render_with(&fields, input.clone()).unwrap().url.to_string();
    for (text, query) in [
        ("{{ b.ids | join(',') }}", "x%2Cy,z%20w,%C3%A9"),
        ("{{ b.ids|join( \"|\" ) }}", "x%2Cy%7Cz%20w%7C%C3%A9"),
        ("{{ b.ids | join('|') }}", "x%2Cy%7Cz%20w%7C%C3%A9"),
        ("{{ b.ids | join(' ') }}", "x%2Cy%20z%20w%20%C3%A9"),
        ("{{ b.ids | join('&a=') }}", "x%2Cy%26a=z%20w%26a=%C3%A9"),
        ("{{ b.ids | sort | join(',') }}", "x%2Cy,z%20w,%C3%A9"),
        ("{{ b.ids | join(',') | upper }}", "X%2CY%2CZ%20W%2C%C3%89"),
        ("{{ b.ids | join }}", "x%2Cyz%20w%C3%A9"),
        ("-{{ b.ids | join(',') }}", "-x%2Cy%2Cz%20w%2C%C3%A9"),
        ("{{ b.none | join(',') }}", ""),
    ] {
        assert_eq!(url(json!({"query": {"q": text}})), format!("https://h/?q={query}"), "{text}");
    }
    let path = |text: &str| url(json!({"url": format!("https://h/a/{text}?b={text}")}));
    assert_eq!(path("{{ b.ids | join(',') }}"), "https://h/a/x%2Cy,z%20w,%C3%A9?b=x%2Cy,z%20w,%C3%A9");
    assert_eq!(
        path(";i={{ b.ids | join(';i=') }}"),
        "https://h/a/;i=x%2Cy;i=z%20w;i=%C3%A9?b=;i=x%2Cy;i=z%20w;i=%C3%A9"
    );
    assert!(render_with(&json!({"url": "https://h/a/{{ b.none | join(',') }}"}), input.clone()).is_err());
    assert!(render_with(&json!({"url": "https://h/{{ b.dots | join('.') }}"}), json!({"dots": ["", "", ""]})).is_err());
    let form = |text: &str| render_with(&json!({"form": {"f": text}}), input.clone()).unwrap().body;
    assert_eq!(form("{{ b.ids | join(',') }}"), "f=x%2Cy,z%20w,%C3%A9");
    assert_eq!(form("{{ b.one }}"), "f=x%2Cy");
}

#[test]
fn a_list_gives_a_part_for_each_item() {
    let parts = |part: Value, body: Value| {
        let request = render_with(&json!({"multipart": [part]}), body)?;
        Ok::<_, RenderFault>(String::from_utf8(request.body.to_vec()).unwrap())
    };
    let list = json!({"l": ["a", 1.5, true, {"x": 1}, {"base64": "aGk="}]});
    let sent = parts(json!({"name": "n", "each": "{{ b.l }}"}), list).unwrap();
    assert_eq!(sent.matches("name=\"n\"").count(), 5);
    for content in [
        "\r\n\r\na\r\n",
        "\r\n\r\n1.5\r\n",
        "\r\n\r\ntrue\r\n",
        "application/json\r\n\r\n{\"x\":1}\r\n",
        "octet-stream\r\n\r\nhi\r\n",
    ] {
        assert!(sent.contains(content), "{content:?}\n{sent}");
    }
    assert_eq!(
        parts(json!({"name": "n", "each": "{{ b.l }}"}), json!({"l": "one"})).unwrap().matches("one").count(),
        1
    );
    assert!(!parts(json!({"name": "n", "each": "{{ b.l }}"}), json!({"l": []})).unwrap().contains("name="));
    let many = json!({"l": vec!["x"; limits::MULTIPART_PARTS + 1]});
    assert_eq!(parts(json!({"name": "n", "each": "{{ b.l }}"}), many).unwrap_err().code, "request.too_large");
    let faults = compile(
        &json!({"multipart": [{"name": "n", "each": "x {{ b.l }}"}, {"name": "m", "each": "{{ b.l }}", "text": "x"}]}),
    );
    assert_eq!(faults.unwrap_err().len(), 2);
}
