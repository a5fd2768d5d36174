use proptest::prelude::*;
use serde_json::json;

use super::*;

fn tree(text: &str) -> Value {
    parse(text).unwrap()
}

fn written(tree: &Value) -> String {
    write(tree).unwrap().replacen("<?xml version=\"1.0\" encoding=\"UTF-8\"?>", "", 1)
}

#[test]
fn follows_the_rule() {
    for (text, expected) in [
        ("<a/>", json!({"a": ""})),
        ("<a></a>", json!({"a": ""})),
        ("<a> x </a>", json!({"a": " x "})),
        ("<a>1 &lt; 2 &amp; &#x20AC;<![CDATA[ <b> ]]>!<!-- no -->?</a>", json!({"a": "1 < 2 & € <b> !?"})),
        ("<a id='7' b=\"&quot;\"/>", json!({"a": {"@id": "7", "@b": "\""}})),
        ("<a id='7'>x</a>", json!({"a": {"@id": "7", "#text": "x"}})),
        ("<a>\n  <b>1</b>\n  <c/>\n</a>", json!({"a": {"b": "1", "c": ""}})),
        ("<a><b>1</b><b>2</b><c/></a>", json!({"a": {"b": ["1", "2"], "c": ""}})),
        ("<a><b>1</b><c/><b>2</b></a>", json!({"a": {"b": ["1", "2"], "c": "", "#order": ["b", "c", "b"]}})),
        ("<p>Hi <b>you</b></p>", json!({"p": {"#text": "Hi ", "b": "you"}})),
        (
            "<p>Hi <b>you</b> <i>there</i>!</p>",
            json!({"p": {"#text": ["Hi ", " ", "!"], "b": "you", "i": "there", "#order": ["#text", "b", "#text", "i", "#text"]}}),
        ),
        ("<p xml:space='preserve'> <b/></p>", json!({"p": {"@xml:space": "preserve", "#text": " ", "b": ""}})),
        (
            "<?xml version='1.0'?><s:E xmlns:s='urn:s'><s:B>1</s:B></s:E><?pi x?>\n",
            json!({"s:E": {"@xmlns:s": "urn:s", "s:B": "1"}}),
        ),
        ("<a b='x\n\ty&#10;z'>l1\r\nl2\rl3</a>", json!({"a": {"@b": "x  y\nz", "#text": "l1\nl2\nl3"}})),
    ] {
        assert_eq!(tree(text), expected, "{text}");
        assert_eq!(tree(&written(&expected)), expected, "{text}");
    }
}

#[test]
fn keeps_keys_in_document_order() {
    let text = "<a z=\"1\" y=\"2\"><c/><b>1</b><b/></a>";
    assert_eq!(tree(text).to_string(), r#"{"a":{"@z":"1","@y":"2","c":"","b":["1",""]}}"#);
    assert_eq!(written(&tree(text)), text);
}

#[test]
fn refuses_what_is_not_well_formed() {
    for (text, reason) in [
        ("", "there is no element"),
        ("x", "text stands outside the root element"),
        ("<a>", "it ends before its elements are closed"),
        ("<a/><b/>", "a document has one root element"),
        ("<a/>&amp;", "text stands outside the root element"),
        ("<a>&nbsp;</a>", "the entity `nbsp` is not known"),
        ("<!DOCTYPE a><a/>", "document types are not read"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "document types are not read"),
        ("<a>\n\n<b c='1' c='2'/></a>", "the attribute `c` stands twice, at line 3"),
        ("<a b='<'/>", "`<` stands in the attribute `b`"),
        ("<a>]]></a>", "`]]>` stands in a text"),
        ("<a>\u{b}</a>", "XML cannot hold the character \\u{b}"),
        ("<1a/>", "`1a` is no name in XML"),
        ("<a/><?xml version='1.0'?>", "the XML declaration stands at the very beginning"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with("not XML: ") && error.contains(reason), "{text}: {error}");
        assert_eq!(check(None, text.as_bytes()).unwrap_err().to_string(), error);
    }
    for text in [
        "<a></b>",
        "<a b></a>",
        "<a b=1/>",
        "<a>&#0;</a>",
        "<a>&#xD800;</a>",
        "<a>&</a>",
        "<a b='&x;'/>",
        "<a><!-- -- --></a>",
        "<",
        "<a",
        "</a>",
        "<a>\u{1}</a>",
    ] {
        assert!(matches!(parse(text), Err(TreeError::NotXml(_))), "{text}: {:?}", parse(text));
    }
}

#[test]
fn keeps_the_limits_of_trees() {
    let deep = |n: usize| "<a>".repeat(n) + &"</a>".repeat(n);
    assert!(parse(&deep(64)).is_ok());
    assert_eq!(parse(&deep(65)), Err(TreeError::TooDeep));
    assert_eq!(parse(&"<a>".repeat(1_000_000)), Err(TreeError::TooDeep));
    // A list is a level of its own.
    let lists = |n: usize| (0..n).fold("<a/><a/>".to_owned(), |text, _| format!("<a/><a>{text}</a>"));
    let levels = |text: &str| crate::tree::measure(parse(text).unwrap().to_string().as_bytes());
    assert_eq!(levels(&format!("<r>{}</r>", lists(30))), Ok(()));
    assert_eq!(parse(&format!("<r>{}</r>", lists(31))), Err(TreeError::TooDeep));
    let wide = |n: usize| format!("<r>{}</r>", "<a/>".repeat(n - 1));
    assert!(parse(&wide(200_000)).is_ok());
    assert_eq!(parse(&wide(200_001)), Err(TreeError::TooLarge));
    assert!(check(None, wide(200_001).as_bytes()).is_ok() && check(None, deep(70).as_bytes()).is_ok());
    let attributes: String = (0..200_000).map(|n| format!(" a{n}=''")).collect();
    assert_eq!(parse(&format!("<r{attributes}/>")), Err(TreeError::TooLarge));
}

#[test]
fn reads_every_character_set_that_says_so() {
    for (content_type, bytes, expected) in [
        (None, &b"<a>\xc3\xa9</a>"[..], "é"),
        (None, b"\xef\xbb\xbf<a>\xc3\xa9</a>", "é"),
        (None, b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9</a>", "é"),
        (None, b"<?xml version=\"1.0\" encoding = \"koi8-r\" ?><a>\xc1</a>", "а"),
        (Some("text/xml; charset=windows-1252"), b"<?xml version='1.0' encoding='utf-8'?><a>\xe9</a>", "é"),
        (None, b"\xff\xfe<\0a\0>\0x\0<\0/\0a\0>\0", "x"),
        (None, b"<\0?\0x\0m\0l\0 \0v\0e\0r\0s\0i\0o\0n\0=\0'\x001\0.\x000\0'\0?\0>\0<\0a\0>\0x\0<\0/\0a\0>\0", "x"),
        (None, b"<?xml version='1.0' encoding='utf-16'?><a>x</a>", "x"),
    ] {
        assert_eq!(read(content_type, bytes).unwrap(), json!({ "a": expected }), "{bytes:?}");
    }
    assert_eq!(read(None, b"<a>\xe9</a>").unwrap_err().to_string(), "not XML: not text in UTF-8, from byte 3 on");
    assert!(read(None, b"<?xml version='1.0' encoding='klingon'?><a/>").is_err());
}

#[test]
fn writes_what_people_give() {
    let number: Value = serde_json::from_str("1.50").unwrap();
    let order = json!({"order": {"@id": 7, "@note": null, "total": number, "paid": true, "note": null, "item": [{"@sku": "a\"b", "#text": "x"}, "y\r\nz"], "tag": []}});
    assert_eq!(
        written(&order),
        "<order id=\"7\"><total>1.50</total><paid>true</paid><note/><item sku=\"a&quot;b\">x</item><item>y&#13;\nz</item></order>"
    );
    assert_eq!(write(&json!({"a": ""})).unwrap(), "<?xml version=\"1.0\" encoding=\"UTF-8\"?><a/>");
    for (tree, error) in [
        (json!([]), "XML is an object with one key, the name of the root element"),
        (json!({"a": 1, "b": 2}), "XML has one root element, so the object has one key"),
        (json!({"a": [1]}), "`a`: XML has no lists in lists, and no list as its root"),
        (json!({"a": {"b c": 1}}), "`a.b c`: `b c` is no name in XML"),
        (json!({"a": {"b": ["x", {"@c": {}}]}}), "`a.b[1].@c`: a text or a number belongs here"),
        (json!({"a": {"b": [[1]]}}), "`a.b[0]`: XML has no lists in lists, and no list as its root"),
        (json!({"a": "\u{0}"}), "`a`: XML cannot hold the character \\u{0}"),
        (json!({"a": {"#txt": 1}}), "`a`: `#txt` is not known; use #text and #order"),
        (json!({"a": {"b": 1, "#order": ["b", "b"]}}), "`a`: `#order` names \"b\" more often than it is there"),
        (json!({"a": {"b": [1, 2], "#order": ["b"]}}), "`a`: `#order` names \"b\" less often than it is there"),
    ] {
        assert_eq!(write(&tree).unwrap_err().to_string(), error);
    }
    let deep = (0..70).fold(json!(1), |tree, _| json!({ "a": tree }));
    assert!(write(&deep).unwrap_err().to_string().ends_with("XML is written up to 64 levels deep"));
}

/// What the rule keeps of a document, without its help: tags, attributes by name, texts joined.
fn infoset(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    walk(text, &mut |token| {
        match token {
            Token::Open(name, mut attributes) => {
                attributes.sort();
                found.push(format!("<{name} {attributes:?}"));
            }
            Token::Text(text) => match found.last_mut() {
                Some(last) if last.starts_with('"') => last.push_str(&text),
                _ if text.is_empty() => {}
                _ => found.push(format!("\"{text}")),
            },
            Token::Close => found.push(">".to_owned()),
        }
        Ok(())
    })
    .unwrap();
    found
}

const NAMES: &str = "[a-c]|s:[a-c]|é";
/// No white space alone, which between elements is layout.
const TEXTS: &str = "[ \\t\\n\\r]{0,2}[!-~é€😀]{1,5}[ \\t\\n\\r<>&'\"]{0,3}";

/// An element as text: attributes, then children and texts in any order, written in various ways.
fn element() -> impl Strategy<Value = String> {
    let attributes = || {
        prop::collection::btree_map(NAMES, "[ -;=?-~\\n\\t]{0,4}|é", 0..3).prop_map(|attributes| {
            attributes.iter().map(|(name, value)| format!(" {name}='{}'", escape(value).unwrap())).collect::<String>()
        })
    };
    let text = TEXTS.prop_flat_map(|text| {
        let cdata = format!("<![CDATA[{}]]>", text.replace("]]>", ""));
        prop_oneof![Just(escape(&text).unwrap()), Just(cdata)]
    });
    let leaf = (NAMES, attributes(), prop_oneof![Just(String::new()), text.clone()])
        .prop_map(|(name, attributes, text)| format!("<{name}{attributes}>{text}</{name}>"));
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let piece = prop_oneof![3 => inner, 1 => text.clone(), 1 => Just("<!--c-->".to_owned()), 1 => Just("<?p i?>".to_owned())];
        (NAMES, attributes(), prop::collection::vec(piece, 0..6))
            .prop_map(|(name, attributes, pieces)| format!("<{name}{attributes}>{}</{name}>", pieces.concat()))
    })
}

proptest! {
    #[test]
    fn xml_to_tree_to_xml_keeps_the_infoset(text in element()) {
        let tree = parse(&text).unwrap();
        let again = write(&tree).unwrap();
        prop_assert_eq!(infoset(&again), infoset(&text), "{}", again);
    }

    #[test]
    fn tree_to_xml_to_tree_is_the_identity(text in element()) {
        // Every tree that reading gives is a tree; its keys' order counts too.
        let tree = parse(&text).unwrap();
        prop_assert_eq!(parse(&write(&tree).unwrap()).unwrap().to_string(), tree.to_string());
    }

    #[test]
    fn any_tree_that_can_be_written_says_the_same_when_read(tree in any_tree()) {
        if let Ok(text) = write(&tree) {
            let first = parse(&text).unwrap();
            prop_assert_eq!(parse(&write(&first).unwrap()).unwrap(), first);
        }
    }

    #[test]
    fn never_panics(text in "[<>/a='\"&;!\\[\\]?x# -]{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        prop_assert_eq!(parse(&text).is_ok(), check(None, text.as_bytes()).is_ok());
        drop(read(None, &bytes));
    }

    #[test]
    fn a_text_never_leaves_its_place(text in any::<String>()) {
        if let Ok(escaped) = escape(&text) {
            let within = parse(&format!("<a b=\"x\">{escaped}</a>")).unwrap();
            prop_assert_eq!(within["a"]["#text"].as_str().unwrap_or_default(), &text);
            let attributes = parse(&format!("<a b=\"{escaped}\" c='{escaped}'/>")).unwrap();
            prop_assert_eq!(attributes["a"].as_object().unwrap().len(), 2);
        }
    }
}

fn any_tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[ a<&é]{0,4}".prop_map(Value::from)
    ];
    let inner = leaf.prop_recursive(4, 30, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec(("@[ab]|[a-c]|#text", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    inner.prop_map(|root| json!({ "r": root }))
}
