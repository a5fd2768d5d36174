use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn masker(secrets: &[&str]) -> Masker {
    let secrets: Vec<_> = secrets.iter().map(|text| SecretBytes::new(*text)).collect();
    Masker::new(&secrets)
}

#[test]
fn leaves_what_holds_no_secret() {
    assert!(matches!(masker(&["hunter2"]).mask_text("nothing here"), Cow::Borrowed("nothing here")));
    assert!(masker(&[]).is_empty());
    assert!(masker(&["", "abc"]).is_empty(), "short secrets hide half of every text");
}

#[test]
fn hides_overlapping_secrets_as_a_whole() {
    assert_eq!(masker(&["abcd", "cdef"]).mask_text("xabcdefx"), format!("x{MASK}x"));
    assert_eq!(masker(&["abcd", "abcdefgh"]).mask_text("abcdefgh abcdef"), format!("{MASK} {MASK}ef"));
}

#[test]
fn hides_a_secret_across_the_cut() {
    let masker = masker(&["secret-value"]);
    assert_eq!(&*masker.mask_beginning(b"12345secret-value and more", 8), format!("12345{MASK}").as_bytes());
    assert_eq!(&*masker.mask_beginning(b"12345678secret-value", 8), b"12345678");
    assert_eq!(&*masker.mask_beginning(b"secret-value and more than that", 20), format!("{MASK} and mor").as_bytes());
    assert_eq!(&*masker.mask_beginning(b"short", 8), b"short");
}

#[test]
fn hides_secrets_in_values_keys_and_numbers() {
    let masked = masker(&["12345678", "hunter2"])
        .mask_value(json!({"pin": 12345678, "n": 1, "hunter2": ["x hunter2", null, true], "other": "kept"}));
    assert_eq!(masked, json!({"pin": MASK, "n": 1, MASK: [format!("x {MASK}"), null, true], "other": "kept"}));
}

#[test]
fn hides_escaped_forms() {
    let masker = masker(&["pä\"ss/w<o>r&d'"]);
    let forms = [
        r#"pä\"ss/w<o>r&d'"#,
        r#"pä\"ss\/w<o>r&d'"#,
        r#"p\u00e4\"ss/w<o>r&d'"#,
        r#"p\u00E4\"ss\/w<o>r&d'"#,
        r#"p\u00e4\"ss\/w\u003co\u003er\u0026d\u0027"#,
        "p%C3%A4%22ss%2Fw%3Co%3Er%26d%27",
        "p%c3%a4%22ss%2fw%3co%3er%26d%27",
        "pä&quot;ss/w&lt;o&gt;r&amp;d&#39;",
    ];
    for form in forms {
        assert_eq!(masker.mask_text(form), MASK, "{form}");
    }
}

#[test]
fn a_secret_that_is_not_utf_8_leaves_valid_text() {
    let masker = Masker::new(&[SecretBytes::new([0xa4, 0xc3, 0xa4, 0xc3])]);
    assert_eq!(masker.mask_text("xäääx"), format!("x{MASK}x"));
    assert_eq!(masker.mask_text(r"\xa4\xc3\xa4\xc3"), MASK);
}

proptest! {
    #[test]
    fn no_form_of_a_secret_stays(
        secret in "[ -~äß€😀]{4,40}",
        before in "[a-z ]{0,7}",
        after in "[a-z ]{0,7}",
    ) {
        let masker = masker(&[&secret]);
        let whole = format!("{before}{secret}{after}");
        let url = url::Url::parse_with_params("http://x.test/", [("q", &whole)]).unwrap();
        let shown = [
            whole.clone(),
            json!(whole).to_string(),
            url.query().unwrap().to_owned(),
            percent_encode(whole.as_bytes(), COMPONENT).to_string(),
        ];
        for text in shown {
            let masked = masker.mask_text(&text);
            prop_assert!(masked.contains(MASK), "{text}");
            if !MASK.contains(&secret) {
                prop_assert!(!masked.contains(&secret), "{masked}");
            }
        }
        for text in [STANDARD.encode(&secret), URL_SAFE_NO_PAD.encode(&secret)] {
            prop_assert_eq!(masker.mask_text(&text), MASK);
        }
        // Inside a longer encoded text, what stays decodes to less than four bytes of the secret's ends.
        if secret.len() >= 8 {
            let masked = masker.mask_text(&STANDARD.encode(&whole)).into_owned();
            prop_assert!(masked.contains(MASK), "{}", masked);
        }
    }

    #[test]
    fn a_cut_text_begins_as_the_whole_masked_one(text in "[ab ]{0,60}", max in 0usize..60) {
        let masker = masker(&["abab", "bbbb"]);
        let whole = masker.mask_bytes(text.as_bytes()).into_owned();
        let cut = masker.mask_beginning(text.as_bytes(), max).into_owned();
        prop_assert!(whole.starts_with(&cut), "{text:?} {whole:?} {cut:?}");
    }
}

#[test]
fn hides_what_encoders_and_filters_make_of_a_secret() {
    let secret = "Kx7/pQ+2vR=9 wL_aZ";
    let masker = masker(&[secret]);
    let percent = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let references = |text: &str, hex: bool| -> String {
        let reference = |c: char| if hex { format!("&#x{:x};", u32::from(c)) } else { format!("&#{};", u32::from(c)) };
        text.chars().map(reference).collect()
    };
    let escapes = |text: &str| text.chars().map(|c| format!("\\u{:04X}", u32::from(c))).collect::<String>();
    let json = json!({"token": secret}).to_string();
    for text in [
        hex::encode(secret),
        hex::encode_upper(secret),
        secret.to_uppercase(),
        secret.to_lowercase(),
        "Kx7/pq+2vr=9 wl_az".to_owned(),
        percent(secret),
        percent(secret).to_lowercase(),
        percent(&percent(secret)),
        // As Python's quote() writes it, its quote_plus(), and what leaves all but one character.
        secret.replace('+', "%2B").replace('=', "%3D").replace(' ', "%20"),
        secret.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D").replace(' ', "+"),
        secret.replace('Q', "%51"),
        references(secret, false),
        references(secret, true),
        references(secret, true).replace(';', ""),
        references(secret, false).replace("&#", "&#000"),
        escapes(secret),
        escapes(secret).replace('\\', "\\\\"),
        secret.bytes().map(|byte| format!("\\x{byte:02x}")).collect(),
        STANDARD.encode(secret),
        URL_SAFE.encode(secret),
        STANDARD.encode(secret).replace('=', "%3D").replace('/', "\\/"),
        percent(&STANDARD.encode(secret)),
        hex::encode(percent_encode(secret.as_bytes(), COMPONENT).to_string()),
    ] {
        assert_eq!(masker.mask_text(&format!("<{text}>")), format!("<{MASK}>"), "{text}");
    }
    assert_eq!(masker.mask_text(&hex::encode(&json)), hex::encode(&json).replace(&hex::encode(secret), MASK));
    for before in ["", "a", "ab"] {
        for engine in [STANDARD, URL_SAFE] {
            let text = engine.encode(format!("{before}{json}"));
            let masked = masker.mask_text(&text).into_owned();
            let (start, end) = masked.split_once(MASK).unwrap_or_else(|| panic!("{text}"));
            let kept = start.len() + end.len();
            assert!(kept <= (before.len() + json.len() - secret.len()) * 4 / 3 + 5, "{masked}");
        }
    }
    // JSON that was escaped before it was encoded.
    let quoted = super::Masker::new(&[SecretBytes::new("pa\"ss\nword")]);
    assert!(quoted.mask_text(&hex::encode(json!("pa\"ss\nword").to_string())).contains(MASK));
}

#[test]
fn a_secret_may_look_like_an_escape() {
    for secret in ["%Aa\\ä", "%41\"x", "&lt;\\u0041", "\\u0041%41&#65;", "%25%25", "\\\\xyz"] {
        let masker = masker(&[secret]);
        let json = json!(secret).to_string();
        let html = secret.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
        let percent = percent_encode(secret.as_bytes(), COMPONENT).to_string();
        for text in [secret, json.trim_matches('"'), &html, &percent] {
            assert_eq!(masker.mask_text(&format!("<{text}>")), format!("<{MASK}>"), "{secret}: {text}");
        }
    }
}

#[test]
fn leaves_escapes_that_stand_for_nothing_secret() {
    let masker = masker(&["hunter2hunter2"]);
    for text in [
        "100%",
        "%",
        "%4",
        "%zz",
        "&",
        "&#",
        "&#x;",
        "&#xd800;",
        "\\",
        "\\u",
        "\\ud800",
        "\\ud800\\u0041",
        "&amp;amp;",
        "%25%32%35",
    ] {
        let text = format!("hunter2 {text} hunter {text}");
        assert_eq!(masker.mask_text(&text), text);
    }
    assert_eq!(masker.mask_text("a%20b \\n hunter2h\\u0075nter2 &lt;%2541"), format!("a%20b \\n {MASK} &lt;%2541"));
    assert_eq!(masker.mask_text("x\\\\hunter2hunter2"), format!("x\\\\{MASK}"));
}

#[test]
fn hides_an_escaped_secret_across_the_cut() {
    let masker = masker(&["hunter2hunter2"]);
    let escaped: String = "hunter2hunter2".bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let text = format!("0123456789{escaped} and more");
    assert_eq!(&*masker.mask_beginning(text.as_bytes(), 20), format!("0123456789{MASK}").as_bytes());
}

#[test]
fn costs_as_much_as_its_secrets_are_long() {
    for token in ["A".repeat(16 << 10), "aB3-".repeat(4 << 10), "%41".repeat(5 << 10), "\\u0041".repeat(2 << 10)] {
        let masker = masker(&[&token]);
        let Finder::Secrets(secrets) = &masker.finder else { panic!("it hides something") };
        let forms: Vec<&form::Form> = secrets.forms.iter().flatten().collect();
        let bytes: usize = forms.iter().map(|form| form.bytes.len()).sum();
        assert!(bytes < 100 * token.len(), "{bytes} bytes for {}", token.len());
        let automata = secrets.any.memory_usage() + secrets.pieces.memory_usage();
        assert!(automata < 512 << 10, "{automata} bytes");
        // Texts in which a form, or all but its end, stands everywhere.
        for text in [token.repeat(4), token[1..].repeat(4), "A".repeat(64 << 10)] {
            let most = forms.len() * text.len();
            let steps: usize = forms.iter().map(|form| form.find(text.as_bytes(), &mut Vec::new())).sum();
            assert!(steps <= 4 * most, "{steps} steps of {most}");
        }
        let short = &token.as_bytes()[..100];
        assert_eq!(forms.iter().map(|form| form.find(short, &mut Vec::new())).sum::<usize>(), 0);
        assert_eq!(masker.mask_text(&token.repeat(3)), MASK);
        assert_eq!(masker.mask_text(&format!("<{token}>")), format!("<{MASK}>"));
    }
}
