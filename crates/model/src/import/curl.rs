//! curl commands: what others paste, and what browsers copy.

mod options;

use std::collections::VecDeque;

use serde_json::Value;

use self::options::{is_about_output, long_name, takes_value};
use super::draft::Draft;
use super::example::{
    Body, Example, Given, INPUTS_MAX, PartGiven, Variables, Writer, decoded, encoded_text, json_with_variables,
    settle_base, shown, take_apart, unmarked, variable,
};
use super::only::Only;
use super::{credentials, shell, text};
use crate::fault::Fault;
use crate::limits;
use crate::units::Duration;

/// Whether a text is made of curl commands.
pub(super) fn looks_like(text: &str) -> bool {
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .take(1)
        .any(is_curl_line)
}

fn is_curl_line(line: &str) -> bool {
    let line = line.strip_prefix("$ ").unwrap_or(line);
    ["curl ", "curl.exe ", "curl\t"].iter().any(|word| line.starts_with(word))
}

/// Reads curl commands: an action each.
pub(super) fn read(source: &str, only: &Only) -> Result<Draft, Fault> {
    let commands = shell::commands(&unmarked(source))?;
    let mut draft = Draft::new(None);
    let mut requests = Vec::new();
    // What commands repeat for each of their URLs would be too large for a connector anyway.
    let mut copies = limits::IMPORTED_BYTES;
    let mut commands = commands.into_iter().peekable();
    let mut fed = None;
    while let Some(command) = commands.next() {
        let piped = fed.take().filter(|_| command.is_piped);
        let stdin = command.stdin.or(piped);
        let mut words: VecDeque<String> = command.words.into();
        while words.front().is_some_and(|word| is_before_program(word)) {
            words.pop_front();
        }
        let program = words.pop_front();
        if command.takes_curls_output {
            let text = "a curl command whose output another one takes is left out; import it by itself";
            draft.notes.add(text, &program.as_deref().map(program_name).unwrap_or_default());
        }
        let Some(program) = program else { continue };
        if is_curl(&program) {
            let mut rest = words;
            loop {
                let mut options = Options::default();
                let goes_on = options.read(&mut rest, stdin.as_deref(), &mut draft);
                requests.extend(options.requests(&mut copies, &mut draft));
                if !goes_on {
                    break;
                }
            }
        } else if commands.peek().is_some_and(feeds_curl) {
            fed = printed(&program, words, stdin);
        } else if !command.is_piped {
            draft.notes.add("left out, because it is no curl command", &program_name(&program));
        }
    }
    write(draft, requests, only)
}

fn is_curl(program: &str) -> bool {
    matches!(program.rsplit(['/', '\\']).next(), Some("curl" | "curl.exe"))
}

/// Whether a pipe leads into this command, and it is curl.
fn feeds_curl(command: &shell::Command) -> bool {
    command.is_piped && command.words.iter().find(|word| !is_before_program(word)).is_some_and(|word| is_curl(word))
}

/// What a program gives to the next, where it is plain: `echo text`, `cat` of what it is fed.
fn printed(program: &str, words: VecDeque<String>, stdin: Option<String>) -> Option<String> {
    match program {
        "echo" => {
            let is_bare = words.front().is_some_and(|word| word == "-n");
            let text = Vec::from(words)[usize::from(is_bare)..].join(" ");
            Some(if is_bare { text } else { text + "\n" })
        }
        "cat" if words.is_empty() => stdin,
        _ => None,
    }
}

/// Whether a word stands before the name of the program that a command runs.
fn is_before_program(word: &str) -> bool {
    let is_keyword = matches!(
        word,
        "$" | "{" | "!" | "sudo" | "time" | "nohup" | "exec" | "env" | "do" | "then" | "else" | "if" | "while"
    );
    is_keyword || is_assignment(word)
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// What a note may call a program: nothing that could be a value.
fn program_name(word: &str) -> String {
    let name: String =
        word.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '\\')).collect();
    if credentials::is_secret_segment(&name) { String::new() } else { name }
}

/// Makes a connector of requests; the first decides the base URL.
fn write(mut draft: Draft, requests: Vec<(Example, Connection)>, only: &Only) -> Result<Draft, Fault> {
    let first = requests.iter().find_map(|(request, _)| take_apart(&request.url));
    let Some(first) = first else {
        return Err(Fault::new("source", "there is no curl command with a URL"));
    };
    draft.name = host_name(&first.base);
    let mut variables = Variables::default();
    let base = settle_base(&mut draft, &mut variables, &first.base, &|_| None);
    draft.spec.connection.base_url = Some(base);
    let mut writer = Writer::new(&mut draft, &mut variables, &first.base, only);
    for (request, connection) in &requests {
        let url = take_apart(&request.url);
        let place = url.as_ref().map(|url| format!("{} {}{}", request.method, url.base, url.path)).unwrap_or_default();
        let place = shown(&place);
        if url.is_some_and(|url| url.lacks_scheme) {
            let text = "the URL says no scheme, which is http for curl; write https into base_url where the API has it";
            writer.draft.notes.add(text, &place);
        }
        if let Some(name) = writer.write(request, &place)? {
            connection.settle(writer.draft, &name);
        }
    }
    Ok(draft)
}

/// The name of a connector for a host: `api.github.com` is `github`.
fn host_name(base: &str) -> String {
    let host = base.split_once("://").map_or(base, |(_, host)| host);
    let host = host.split(':').next().unwrap_or_default();
    let is_address = host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[');
    let labels: Vec<&str> = host.split('.').collect();
    let inner = match labels.as_slice() {
        _ if is_address => "api".to_owned(),
        [one] => (*one).to_owned(),
        [labels @ .., _] => {
            let kept: Vec<&str> =
                labels.iter().copied().filter(|label| !matches!(*label, "api" | "www" | "rest")).collect();
            if kept.is_empty() { labels.join("-") } else { kept.join("-") }
        }
        [] => String::new(),
    };
    text::document_name(&unmarked(&inner)).unwrap_or_else(|| "api".to_owned())
}

/// What a command says of the connection rather than of its request.
#[derive(Debug, Clone, Default)]
struct Connection {
    follows: bool,
    /// How many redirects are followed at most; less than none: any number.
    most_redirects: Option<i64>,
    timeout: Option<Duration>,
    /// The kind of account that it needs, and what it is.
    account: Option<(&'static str, &'static str)>,
}

impl Connection {
    fn settle(&self, draft: &mut Draft, action: &str) {
        if self.follows {
            let most = i64::from(limits::REDIRECTS_MAX);
            let wanted = self.most_redirects.filter(|wanted| (0..most).contains(wanted)).unwrap_or(most);
            let redirects = u8::try_from(wanted).unwrap_or(limits::REDIRECTS_MAX);
            let known = draft.spec.connection.redirects.unwrap_or(0);
            draft.spec.connection.redirects = Some(known.max(redirects));
        }
        if let Some(action) = draft.spec.actions.get_mut(action) {
            action.request.timeout = self.timeout;
        }
        if let Some((kind, help)) = self.account {
            draft.asks_for_account(kind, None, help);
        }
    }
}

/// The options of one command.
#[derive(Debug, Default)]
struct Options {
    urls: Vec<String>,
    method: Option<String>,
    headers: Vec<(String, String)>,
    data: Vec<Data>,
    parts: Vec<PartGiven>,
    query: Vec<Given>,
    is_get: bool,
    is_head: bool,
    is_json: bool,
    uploads: bool,
    connection: Connection,
}

/// Most URLs of one command: each is a request with all of its headers.
const URLS_MAX: usize = 100;

/// Whether an option is one that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Yes,
    No,
}

/// What became of a word of short options.
enum Short {
    Read,
    /// The last of them is not known, so that the next word may be its value.
    Unknown,
    /// Another request begins.
    Next,
}

/// What a body is made of.
#[derive(Debug)]
enum Data {
    Text(String),
    /// A field of a form that curl encodes.
    Encoded(Given),
    File,
}

impl Options {
    /// Reads words up to the end, or to `--next`, which begins another request.
    fn read(&mut self, words: &mut VecDeque<String>, stdin: Option<&str>, draft: &mut Draft) -> bool {
        // What follows an option that is not known may be its value, and be a secret.
        let mut may_be_value = false;
        while let Some(word) = words.pop_front() {
            let was_unknown = std::mem::take(&mut may_be_value);
            if let Some(long) = word.strip_prefix("--").filter(|long| !long.is_empty()) {
                if long == "next" {
                    return true;
                }
                let (name, given) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                let value = given.or_else(|| takes_value(name).then(|| words.pop_front()).flatten());
                may_be_value = self.option(name, value.unwrap_or_default(), stdin, draft) == Known::No;
            } else if let Some(short) = word.strip_prefix('-').filter(|short| !short.is_empty()) {
                match self.short(short, words, stdin, draft) {
                    Short::Read => {}
                    Short::Unknown => may_be_value = true,
                    Short::Next => return true,
                }
            } else if !word.is_empty() && word != "--" && (!was_unknown || word.contains("://")) {
                self.urls.push(word);
            }
        }
        false
    }

    /// Several options in one word: `-sXPOST`.
    fn short(&mut self, letters: &str, words: &mut VecDeque<String>, stdin: Option<&str>, draft: &mut Draft) -> Short {
        let mut read = Short::Read;
        for (at, letter) in letters.char_indices() {
            let Some(name) = long_name(letter) else {
                draft.notes.add("an option that is not known is left out", &format!("-{letter}"));
                read = Short::Unknown;
                continue;
            };
            if name == "next" {
                return Short::Next;
            }
            if takes_value(name) {
                let rest = &letters[at + letter.len_utf8()..];
                let value = if rest.is_empty() { words.pop_front() } else { Some(rest.to_owned()) };
                self.option(name, value.unwrap_or_default(), stdin, draft);
                return Short::Read;
            }
            self.option(name, String::new(), stdin, draft);
        }
        read
    }

    fn option(&mut self, name: &str, value: String, stdin: Option<&str>, draft: &mut Draft) -> Known {
        match name {
            "url" => self.urls.push(value),
            "request" => {
                let method = value.to_ascii_uppercase();
                if method != value {
                    draft
                        .notes
                        .add("the method is sent in capitals, as servers know it; curl sends it as written", "-X");
                }
                self.method = Some(method);
            }
            "head" => self.is_head = true,
            "get" => self.is_get = true,
            "header" => self.header(&value, draft),
            "user-agent" => self.adds_header("User-Agent", value, draft),
            "referer" => self.adds_header("Referer", value, draft),
            "range" => self.adds_header("Range", format!("bytes={value}"), draft),
            "cookie" if value.contains('=') || value.is_empty() => self.adds_header("Cookie", value, draft),
            "data" | "data-ascii" | "data-binary" => self.data.push(data(&value, name, stdin)),
            "data-raw" => self.data.push(Data::Text(value)),
            "data-urlencode" => self.data.push(encoded(&value, stdin)),
            "json" => {
                self.is_json = true;
                self.data.push(data(&value, name, stdin));
            }
            // One more than there can be, which is said when the request is written.
            "form" | "form-string" if self.parts.len() > limits::MULTIPART_PARTS => {}
            "form" | "form-string" => self.parts.push(part(&value, name == "form")),
            // Behind a plus it is encoded already.
            "url-query" => match value.strip_prefix('+') {
                Some(encoded) => self.query.extend(fields(encoded)),
                None => self.query.push(given(&value)),
            },
            "upload-file" => self.uploads = true,
            "user" => {
                self.connection.account.get_or_insert(("basic", "User and password of HTTP Basic."));
            }
            "digest" => self.connection.account = Some(("digest", "User and password of HTTP Digest.")),
            "aws-sigv4" => self.connection.account = Some(("aws_sigv4", "An AWS key, with region and service.")),
            "oauth2-bearer" => self.connection.account = Some(("bearer", "A bearer token.")),
            "location" | "location-trusted" => self.connection.follows = true,
            "max-redirs" => self.connection.most_redirects = value.parse().ok(),
            "max-time" => self.max_time(&value, draft),
            "insecure" => draft.notes.add(
                "certificates are always verified; a private authority belongs into the connection's tls.authorities",
                "-k",
            ),
            "proxy" | "proxy-user" | "preproxy" | "socks5" | "socks5-hostname" => {
                draft.notes.add("the proxy is left out; say it in the connection's proxy", &format!("--{name}"));
            }
            "cert" | "key" | "cacert" | "capath" | "cert-type" | "key-type" | "pass" => {
                let said = "certificates and keys of TLS are left out; they belong into an account, authorities into the connection's tls";
                draft.notes.add(said, &format!("--{name}"));
            }
            "cookie" => draft.notes.add("cookies of a file are left out", "-b"),
            "resolve" | "connect-to" | "unix-socket" | "interface" | "config" | "ntlm" | "negotiate" | "netrc"
            | "request-target" | "variable" | "anyauth" | "haproxy-protocol" | "proto" => {
                draft.notes.add("an option that a request cannot say is left out", &format!("--{name}"));
            }
            name if name.starts_with("expand-") => {
                draft.notes.add("an option that a request cannot say is left out", &format!("--{name}"));
            }
            name if is_about_output(name) => {}
            name => {
                draft.notes.add("an option that is not known is left out", &format!("--{name}"));
                return Known::No;
            }
        }
        Known::Yes
    }

    fn header(&mut self, text: &str, draft: &mut Draft) {
        match text.split_once(':') {
            Some((name, value)) if !value.trim().is_empty() => {
                self.adds_header(name.trim(), value.trim().to_owned(), draft);
            }
            // `Name;` sends it without a value, `Name:` takes away what curl would say itself.
            _ => match text.trim_end().strip_suffix(';').map(str::trim) {
                Some(name) if !name.is_empty() && !name.contains([':', ' ']) => {
                    self.adds_header(name, String::new(), draft);
                }
                _ => draft.notes.add("a header that is taken away is left out", "-H"),
            },
        }
    }

    fn adds_header(&mut self, name: &str, value: String, draft: &mut Draft) {
        if self.headers.len() < limits::HEADERS_MAX {
            self.headers.push((name.to_owned(), value));
        } else {
            draft.notes.add(format!("at most {} headers are taken", limits::HEADERS_MAX), "");
        }
    }

    fn max_time(&mut self, value: &str, draft: &mut Draft) {
        let seconds = value.parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
        let most = limits::TOTAL_TIMEOUT_MAX;
        match seconds {
            Some(seconds) if seconds <= most.as_secs_f64() => {
                let millis = std::time::Duration::from_secs_f64(seconds).as_millis().max(1);
                self.connection.timeout = u64::try_from(millis).ok().map(Duration::from_millis);
            }
            _ => draft.notes.add(format!("the longest time is left out; it is at most {} s", most.as_secs()), "-m"),
        }
    }

    /// A request for each URL, with all that the command says of them. `copies` is how many bytes may be repeated.
    fn requests(self, copies: &mut usize, draft: &mut Draft) -> Vec<(Example, Connection)> {
        let to_query = self.is_get || self.is_head;
        let mut headers = self.headers;
        if self.is_json {
            for (name, value) in [("Content-Type", "application/json"), ("Accept", "application/json")] {
                if !headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
                    headers.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        let has_body = !to_query && (!self.data.is_empty() || !self.parts.is_empty());
        let method = self.method.unwrap_or_else(|| {
            let method = match () {
                () if self.is_head => "HEAD",
                () if self.is_get => "GET",
                () if self.uploads => "PUT",
                () if has_body => "POST",
                () => "GET",
            };
            method.to_owned()
        });
        let weight = weight(&headers, &self.query, &self.data, &self.parts);
        let mut query = self.query;
        let body = match () {
            () if to_query => {
                query.extend(self.data.into_iter().flat_map(Data::into_fields).take(INPUTS_MAX + 1));
                Body::None
            }
            () if self.uploads => Body::File,
            () if !self.parts.is_empty() => Body::Multipart(self.parts),
            () => {
                let is_said = content_type(&headers).is_some();
                let body = body(self.data, &headers);
                if matches!(body, Body::Json(_)) && !is_said {
                    let text = "curl sends the JSON labelled as a form, because the command names no content type; it is sent as application/json";
                    draft.notes.add(text, "-d");
                }
                if matches!(body, Body::Text(_) | Body::File) && !is_said {
                    // What curl says of any data when nothing else does.
                    headers.push(("Content-Type".to_owned(), FORM.to_owned()));
                }
                body
            }
        };
        let example = Example { method, query, headers, body, ..Example::default() };
        let total = self.urls.len();
        let copied = copies.checked_div(weight).unwrap_or(URLS_MAX);
        // The first is no copy.
        let count = total.min(URLS_MAX).min(copied.max(1));
        if count > 1 {
            *copies -= count * weight;
        }
        let mut example = Some(example);
        let mut requests = Vec::with_capacity(count);
        for (n, url) in self.urls.into_iter().enumerate().take(count) {
            let own = if n + 1 == count { example.take() } else { example.clone() };
            requests.push((Example { url, ..own.unwrap_or_default() }, self.connection.clone()));
        }
        let left_out = total - requests.len();
        if left_out > 0 {
            let text = format!("a command has too many URLs for what it sends; {left_out} of them are left out");
            draft.notes.add(text, "");
        }
        requests
    }
}

/// About how many bytes each request of a command repeats.
fn weight(headers: &[(String, String)], query: &[Given], data: &[Data], parts: &[PartGiven]) -> usize {
    let of = |given: &Given| given.name.len() + given.value.as_deref().map_or(0, str::len) + size_of::<Given>();
    let headers = headers.iter().map(|(name, value)| name.len() + value.len() + size_of::<(String, String)>());
    let data = data.iter().map(|data| match data {
        // Fields of a form may be as short as `a&`, values of JSON as `1,`.
        Data::Text(text) => text.len() + text.matches(['&', ',']).count() * size_of::<Given>(),
        Data::Encoded(given) => of(given),
        Data::File => 0,
    });
    let parts = parts.iter().map(|part| of(&part.field) + part.content_type.as_deref().map_or(0, str::len));
    headers.chain(query.iter().map(of)).chain(data).chain(parts).sum()
}

/// The media type of a form.
const FORM: &str = "application/x-www-form-urlencoded";

impl Data {
    /// What of it goes into a query or a form.
    fn into_fields(self) -> Vec<Given> {
        match self {
            Self::Text(text) => fields(&text),
            // A field that is its content alone has no value.
            Self::Encoded(Given { name, value, .. }) if name.is_empty() => {
                vec![Given { name: value.unwrap_or_default(), value: Some(String::new()), description: None }]
            }
            // The name is encoded already.
            Self::Encoded(given) => {
                let mut fields = fields(&given.name);
                if let Some(last) = fields.last_mut() {
                    last.value = given.value;
                }
                fields
            }
            Self::File => vec![given(&variable("file"))],
        }
    }
}

/// `name=value&name=value`, percent-encoded; of very many, the first.
fn fields(text: &str) -> Vec<Given> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(INPUTS_MAX + 1);
    let given = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Given { name: decoded(name), value: Some(decoded(value)), description: None }
    };
    pairs.map(given).collect()
}

/// `name=value`, as it is.
fn given(text: &str) -> Given {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    Given { name: name.to_owned(), value: Some(value.to_owned()), description: None }
}

/// The value of `--data` and its kin: `@file` reads a file, `@-` what the command is fed.
fn data(value: &str, option: &str, stdin: Option<&str>) -> Data {
    match (value.strip_prefix('@'), stdin) {
        (None, _) => Data::Text(value.to_owned()),
        (Some("-"), Some(fed)) if matches!(option, "data" | "data-ascii") => Data::Text(fed.replace('\n', "")),
        (Some("-"), Some(fed)) => Data::Text(fed.to_owned()),
        (Some(_), _) => Data::File,
    }
}

/// The value of `--data-urlencode`: `content`, `=content`, `name=content`, `@file`, `name@file`. Content that has no name
/// is a field of its own.
fn encoded(value: &str, stdin: Option<&str>) -> Data {
    let content = |name: &str, value: &str| {
        Data::Encoded(Given { name: name.to_owned(), value: Some(value.to_owned()), description: None })
    };
    match value.find('=').or_else(|| value.find('@')) {
        None => content("", value),
        Some(at) if value[at..].starts_with('=') => content(&value[..at], &value[at + 1..]),
        Some(0) => match data(value, "data-urlencode", stdin) {
            Data::Text(text) => content("", &text),
            data => data,
        },
        // Files of several fields are several inputs.
        Some(at) => content(&value[..at], &variable(&format!("{}_file", unmarked(&value[..at])))),
    }
}

/// The body that several data options make: curl joins them by `&`.
fn body(data: Vec<Data>, headers: &[(String, String)]) -> Body {
    let is_json_said = content_type(headers).is_some_and(|text| text.contains("json"));
    match data.as_slice() {
        [] => return Body::None,
        [Data::File] => return Body::File,
        [Data::Text(text)] if is_json_said || text.trim_start().starts_with(['{', '[']) => {
            if let Some(value) = json(text) {
                return Body::Json(value);
            }
        }
        _ => {}
    }
    // JSON in several pieces, as `--json` allows it.
    if is_json_said && data.iter().all(|data| matches!(data, Data::Text(_))) {
        let whole: String = data.iter().map(Data::as_text).collect();
        return json(&whole).map_or(Body::Text(whole), Body::Json);
    }
    let is_form_said = content_type(headers).is_none_or(|text| text.contains(FORM));
    if is_form_said && is_form(&data) {
        return Body::Form(data.into_iter().flat_map(Data::into_fields).take(INPUTS_MAX + 1).collect());
    }
    let pieces: Vec<String> = data.iter().map(Data::as_text).collect();
    Body::Text(pieces.join("&"))
}

/// Whether data are the fields of a form: at least one has a value, and the others are names.
fn is_form(data: &[Data]) -> bool {
    let is_name =
        |field: &str| field.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'%' | b'+'));
    let mut has_value = false;
    data.iter().all(|data| match data {
        Data::Text(text) => {
            !text.contains('\n')
                && text.split('&').all(|field| {
                    // A field without a name has no input to be; the text as it is says it.
                    let is_pair = field.contains('=') && !field.starts_with('=');
                    has_value |= is_pair;
                    is_pair || is_name(field)
                })
        }
        Data::Encoded(given) => {
            has_value |= !given.name.is_empty();
            true
        }
        Data::File => false,
    }) && has_value
}

impl Data {
    fn as_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Encoded(given) => {
                let value = encoded_text(given.value.as_deref().unwrap_or_default());
                if given.name.is_empty() { value } else { format!("{}={value}", given.name) }
            }
            Self::File => variable("file"),
        }
    }
}

fn content_type(headers: &[(String, String)]) -> Option<String> {
    let header = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    header.map(|(_, value)| value.to_ascii_lowercase())
}

/// A JSON object or list.
fn json(text: &str) -> Option<Value> {
    json_with_variables(text).filter(|value| value.is_object() || value.is_array())
}

/// The value of `--form`: `name=content`, `name=@file;type=…;filename=…`, `name=<file`.
fn part(value: &str, reads_files: bool) -> PartGiven {
    let (name, content) = value.split_once('=').unwrap_or((value, ""));
    let mut part = PartGiven::default();
    part.field.name = name.to_owned();
    if !reads_files {
        part.field.value = Some(content.to_owned());
        return part;
    }
    let (sign, rest) = match content.chars().next() {
        Some(sign @ ('@' | '<')) => (Some(sign), &content[1..]),
        _ => (None, content),
    };
    let (content, mut rest) = form_word(rest);
    while let Some(setting) = rest.strip_prefix(';') {
        let setting = setting.trim_start();
        let (key, after) = setting.split_once('=').filter(|(key, _)| !key.contains(';')).unwrap_or(("", setting));
        let (value, after) = form_word(after);
        rest = after;
        match (key.trim(), &mut part.content_type) {
            ("type", known) => *known = Some(value),
            ("filename", _) => part.file = Some(value),
            ("headers" | "encoder", _) => {}
            // What follows a type and is no setting of curl's is a parameter of the type.
            (key, Some(known)) if !key.is_empty() => *known += &format!("; {key}={value}"),
            _ => {}
        }
    }
    match sign {
        Some('@') => {
            part.file.get_or_insert(content);
        }
        Some(_) => part.field.value = Some(variable(name)),
        None => part.field.value = Some(content),
    }
    part
}

/// A word of `--form` up to the next semicolon, and what follows it: in double quotes, in which a backslash stands before
/// quotes and backslashes, or bare. Bare is also what begins with a quote and goes on behind the other one.
fn form_word(text: &str) -> (String, &str) {
    let trimmed = text.trim_start();
    if let Some(quoted) = trimmed.strip_prefix('"') {
        let mut word = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, escaped @ ('"' | '\\'))) => word.push(escaped),
                    Some((_, other)) => word.extend(['\\', other]),
                    None => word.push('\\'),
                },
                '"' => {
                    let rest = quoted[at + 1..].trim_start();
                    if rest.is_empty() || rest.starts_with(';') {
                        return (word, rest);
                    }
                    break;
                }
                c => word.push(c),
            }
        }
    }
    let end = text.find(';').unwrap_or(text.len());
    (text[..end].to_owned(), &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_form_are_quoted_or_bare() {
        for (text, word, rest) in [
            ("a", "a", ""),
            ("a; type=b", "a", "; type=b"),
            (r#""John; Doe""#, "John; Doe", ""),
            (r#""a \" b \\ c\n";type=x"#, r#"a " b \ c\n"#, ";type=x"),
            (r#""a" b;c"#, r#""a" b"#, ";c"),
            (r#""a"#, r#""a"#, ""),
            ("", "", ""),
        ] {
            assert_eq!(form_word(text), (word.to_owned(), rest), "{text}");
        }
        let made = part(r#"f=@"a;b.txt";type=text/plain; charset=utf-8;filename="c;d""#, true);
        assert_eq!(
            (made.file.as_deref(), made.content_type.as_deref()),
            (Some("c;d"), Some("text/plain; charset=utf-8"))
        );
        assert_eq!(part("f=@a.txt", true).file.as_deref(), Some("a.txt"));
        assert_eq!(part("f=a;type=text/html", true).field.value.as_deref(), Some("a"));
        assert_eq!(part("f=\"a;b\"", false).field.value.as_deref(), Some("\"a;b\""));
    }
}
