//! XML as a tree of values, and back.
//!
//! The rule, which loses nothing of what it covers (elements, attributes, text, their order):
//!
//! - A document is an object with one key: the name of its root element.
//! - An element with nothing but text is that text; an empty one is the empty text.
//! - Any other element is an object: `@name` holds an attribute, a name holds the child of that name, or a
//!   list where there are several, and `#text` the text.
//! - Keys stand in the order in which they first appear. Where that does not tell the whole order (children of
//!   one name apart from each other, text in several places), `#order` lists the names one by one; every
//!   mention takes the next item of its name.
//! - Space between elements is layout and left out, unless other text stands there too or `xml:space` says
//!   `preserve`.
//! - Names keep their prefixes, and namespace declarations are attributes. CDATA sections are text. Comments,
//!   processing instructions and the XML declaration are left out.
//!
//! Declarations of document types are refused, and with them all entities but the five of XML and character
//! references. Reading and writing work on XML 1.0 (fifth edition).

mod write;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;
use serde_json::{Map, Value};

pub use self::write::{WriteError, escape, write};
use crate::charset;
use crate::limits;
use crate::tree::TreeError;

const TEXT: &str = "#text";
const ORDER: &str = "#order";

/// Reads a document into a tree. The character set is told by a byte order mark, else by the content type, else
/// by the XML declaration, else it is UTF-8 (RFC 7303, section 3).
///
/// # Errors
/// When it is not XML, or its tree is too deep (lists of repeated elements count as levels) or too large.
pub fn read(content_type: Option<&str>, bytes: &[u8]) -> Result<Value, TreeError> {
    parse(&text(content_type, bytes)?)
}

/// Whether bytes are a well-formed document, of whatever depth and size.
///
/// # Errors
/// Where it is not, and why.
pub fn check(content_type: Option<&str>, bytes: &[u8]) -> Result<(), TreeError> {
    walk(&text(content_type, bytes)?, &mut |_| Ok(()))
}

/// Whether a text is a well-formed document that can be sent in UTF-8.
///
/// # Errors
/// Where it is not, and why; also when its declaration names another encoding.
pub(crate) fn check_sent(text: &str) -> Result<(), TreeError> {
    match named(text.as_bytes()) {
        Some(name) if !name.eq_ignore_ascii_case("utf-8") => {
            Err(TreeError::NotXml(format!("its declaration says `{}`, and UTF-8 is sent", shown(name))))
        }
        _ => walk(text, &mut |_| Ok(())),
    }
}

/// The same as [`read`] for what is text already.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str) -> Result<Value, TreeError> {
    let mut builder = Builder::default();
    walk(text, &mut |token| builder.take(token))?;
    // Without a root the walk has failed.
    Ok(builder.done.unwrap_or_default())
}

fn text<'a>(content_type: Option<&str>, bytes: &'a [u8]) -> Result<Cow<'a, str>, TreeError> {
    let declared = charset::declared(content_type).or_else(|| declared_within(bytes));
    charset::decode(bytes, declared).map_err(|error| TreeError::NotXml(error.to_string()))
}

/// The character set by the first bytes of a document without a byte order mark (XML 1.0, appendix F).
fn declared_within(bytes: &[u8]) -> Option<&str> {
    match bytes {
        [b'<', 0, b'?', 0, ..] => return Some("utf-16le"),
        [0, b'<', 0, b'?', ..] => return Some("utf-16be"),
        _ => {}
    }
    // It could be read, so it is not in UTF-16, whatever it says.
    named(bytes).filter(|name| !name.to_ascii_lowercase().starts_with("utf-16"))
}

/// The encoding that an XML declaration names.
fn named(bytes: &[u8]) -> Option<&str> {
    let declaration = bytes.strip_prefix(b"<?xml")?;
    let end = declaration.iter().take(200).position(|byte| *byte == b'>')?;
    let declaration = std::str::from_utf8(declaration.get(..end)?).ok()?;
    let value = declaration.split_once("encoding")?.1.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    value[1..].split(quote).next()
}

/// A piece of a document.
enum Token<'a> {
    /// A start tag, with the attributes' names and values.
    Open(&'a str, Vec<(&'a str, Cow<'a, str>)>),
    Text(Cow<'a, str>),
    Close,
}

/// Hands the pieces of a document to `take`, in order; checks all that well-formedness asks for.
fn walk(text: &str, take: &mut dyn FnMut(Token<'_>) -> Result<(), TreeError>) -> Result<(), TreeError> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_comments = true;
    let (mut depth, mut roots, mut is_first) = (0_usize, 0_usize, true);
    loop {
        let at = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        let fault = |reason: &str| not_xml(text, at, reason);
        let event = reader.read_event().map_err(|error| not_xml(text, at, &error.to_string()))?;
        match event {
            Event::Start(ref tag) | Event::Empty(ref tag) => {
                roots += usize::from(depth == 0);
                if roots > 1 {
                    return Err(fault("a document has one root element"));
                }
                let attributes = attributes(tag).map_err(|reason| fault(&reason))?;
                let name = tag.name().0;
                check_name(name).map_err(|reason| fault(&reason))?;
                take(Token::Open(name, attributes))?;
                if matches!(event, Event::Empty(_)) {
                    take(Token::Close)?;
                } else {
                    depth += 1;
                }
            }
            Event::End(_) => {
                depth = depth.checked_sub(1).ok_or_else(|| fault("an element is closed that was not opened"))?;
                take(Token::Close)?;
            }
            Event::Text(ref content) => {
                if depth == 0 && !content.trim_matches(SPACES).is_empty() {
                    return Err(fault("text stands outside the root element"));
                }
                if content.contains("]]>") {
                    return Err(fault("`]]>` stands in a text; write `]]&gt;`"));
                }
                if depth > 0 {
                    check_chars(content).map_err(|reason| fault(&reason))?;
                    take(Token::Text(content.xml10_content()))?;
                }
            }
            Event::CData(ref content) => {
                if depth == 0 {
                    return Err(fault("text stands outside the root element"));
                }
                check_chars(content).map_err(|reason| fault(&reason))?;
                take(Token::Text(content.xml10_content()))?;
            }
            Event::GeneralRef(ref reference) => {
                if depth == 0 {
                    return Err(fault("text stands outside the root element"));
                }
                let resolved = match reference.resolve_char_ref() {
                    Ok(Some(char)) => Cow::Owned(char.to_string()),
                    Ok(None) => Cow::Borrowed(
                        resolve_predefined_entity(reference)
                            .ok_or_else(|| fault(&format!("the entity `{}` is not known", shown(reference))))?,
                    ),
                    Err(error) => return Err(fault(&error.to_string())),
                };
                check_chars(&resolved).map_err(|reason| fault(&reason))?;
                take(Token::Text(resolved))?;
            }
            Event::Comment(ref content) => check_chars(content).map_err(|reason| fault(&reason))?,
            Event::PI(ref content) => check_chars(content).map_err(|reason| fault(&reason))?,
            Event::Decl(_) if is_first => {}
            Event::Decl(_) => return Err(fault("the XML declaration stands at the very beginning, and once")),
            Event::DocType(_) => return Err(fault("document types are not read")),
            Event::Eof if depth > 0 => return Err(fault("it ends before its elements are closed")),
            Event::Eof if roots == 0 => return Err(fault("there is no element")),
            Event::Eof => return Ok(()),
        }
        is_first = false;
    }
}

fn not_xml(text: &str, at: usize, reason: &str) -> TreeError {
    let line = text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
    TreeError::NotXml(format!("{reason}, at line {line}"))
}

fn attributes<'a>(tag: &'a BytesStart<'_>) -> Result<Vec<(&'a str, Cow<'a, str>)>, String> {
    let mut read = Vec::new();
    let mut names = HashSet::new();
    // The library's own check for repeated names takes quadratic time.
    for attribute in tag.attributes().with_checks(false) {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let name = attribute.key.0;
        check_name(name)?;
        if !names.insert(name) {
            return Err(format!("the attribute `{}` stands twice", shown(name)));
        }
        if attribute.value.contains('<') {
            return Err(format!("`<` stands in the attribute `{}`", shown(name)));
        }
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
        check_chars(&attribute.value)?;
        check_chars(&value)?;
        read.push((name, value));
    }
    Ok(read)
}

/// White space of XML.
const SPACES: [char; 4] = [' ', '\t', '\n', '\r'];

/// XML 1.0, production 2.
fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

fn check_chars(text: &str) -> Result<(), String> {
    match text.chars().find(|c| !is_char(*c)) {
        Some(c) => Err(format!("XML cannot hold the character {}", c.escape_unicode())),
        None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let mut chars = name.chars();
    if chars.next().is_some_and(is_name_start) && chars.all(is_name_char) {
        return Ok(());
    }
    Err(format!("`{}` is no name in XML", shown(name)))
}

/// XML 1.0, production 4; colons part a prefix from the name.
fn is_name_start(c: char) -> bool {
    matches!(c,
        ':' | 'A'..='Z' | '_' | 'a'..='z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
        | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}'
        | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
        | '\u{10000}'..='\u{effff}')
}

/// XML 1.0, production 4a.
fn is_name_char(c: char) -> bool {
    is_name_start(c) || matches!(c, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

/// The beginning of a name, for a message.
fn shown(name: &str) -> String {
    name.chars().take(40).flat_map(char::escape_debug).collect()
}

/// Builds the tree within its limits.
#[derive(Default)]
struct Builder {
    open: Vec<Element>,
    values: usize,
    done: Option<Value>,
}

#[derive(Default)]
struct Element {
    name: String,
    attributes: Map<String, Value>,
    pieces: Vec<Piece>,
    /// Whether `xml:space` asks to keep space.
    preserves: bool,
    has_children: bool,
}

/// A child or a text, under its key.
struct Piece {
    key: String,
    value: Value,
    /// How many levels of objects and lists the value has.
    levels: usize,
}

impl Builder {
    fn take(&mut self, token: Token<'_>) -> Result<(), TreeError> {
        match token {
            Token::Open(name, attributes) => self.open(name, attributes),
            Token::Text(text) => self.text(&text),
            Token::Close => self.close(),
        }
    }

    fn count(&mut self, values: usize) -> Result<(), TreeError> {
        self.values += values;
        if self.values > limits::TREE_NODES { Err(TreeError::TooLarge) } else { Ok(()) }
    }

    fn open(&mut self, name: &str, attributes: Vec<(&str, Cow<'_, str>)>) -> Result<(), TreeError> {
        self.count(1 + attributes.len())?;
        if self.open.len() >= limits::TREE_DEPTH {
            return Err(TreeError::TooDeep);
        }
        let space = attributes.iter().find(|(name, _)| *name == "xml:space").map(|(_, value)| &**value);
        let preserves = match space {
            Some("preserve") => true,
            Some("default") => false,
            _ => self.open.last().is_some_and(|parent| parent.preserves),
        };
        let attributes = attributes.into_iter().map(|(name, value)| (format!("@{name}"), value.into_owned().into()));
        let attributes = attributes.collect();
        self.open.push(Element { name: name.to_owned(), attributes, preserves, ..Element::default() });
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), TreeError> {
        let Some(element) = self.open.last_mut() else { return Ok(()) };
        // What comments, references and CDATA sections part is one text.
        match element.pieces.last_mut() {
            Some(Piece { key, value: Value::String(before), .. }) if key == TEXT => before.push_str(text),
            _ if text.is_empty() => {}
            _ => {
                element.pieces.push(Piece { key: TEXT.to_owned(), value: text.into(), levels: 0 });
                return self.count(1);
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), TreeError> {
        let Some(element) = self.open.pop() else { return Ok(()) };
        let key = element.name.clone();
        let (value, levels) = element.into_value();
        if levels >= limits::TREE_DEPTH {
            return Err(TreeError::TooDeep);
        }
        match self.open.last_mut() {
            Some(parent) => {
                parent.has_children = true;
                parent.pieces.push(Piece { key, value, levels });
            }
            None => self.done = Some(Value::Object(Map::from_iter([(key, value)]))),
        }
        Ok(())
    }
}

impl Element {
    /// The value, and how many levels of objects and lists it has.
    fn into_value(mut self) -> (Value, usize) {
        let mut object = self.attributes;
        if !self.has_children {
            let text = self.pieces.pop().map_or_else(|| Value::from(""), |piece| piece.value);
            if object.is_empty() {
                return (text, 0);
            }
            if text != "" {
                object.insert(TEXT.to_owned(), text);
            }
            return (Value::Object(object), 1);
        }
        let is_text = |piece: &Piece| {
            piece.key == TEXT && piece.value.as_str().is_some_and(|text| !text.trim_matches(SPACES).is_empty())
        };
        if !self.preserves && !self.pieces.iter().any(is_text) {
            self.pieces.retain(|piece| piece.key != TEXT);
        }
        let order = order(&self.pieces);
        let mut levels = usize::from(order.is_some());
        let mut deepest: HashMap<String, usize> = HashMap::new();
        for Piece { key, value, levels: own } in self.pieces {
            let below = deepest.entry(key.clone()).or_default();
            *below = own.max(*below);
            match object.get_mut(&key) {
                None => {
                    levels = levels.max(*below);
                    object.insert(key, value);
                    continue;
                }
                Some(Value::Array(values)) => values.push(value),
                Some(first) => *first = Value::Array(vec![first.take(), value]),
            }
            levels = levels.max(*below + 1);
        }
        if let Some(order) = order {
            object.insert(ORDER.to_owned(), order);
        }
        (Value::Object(object), levels + 1)
    }
}

/// The names one by one, where grouping them loses their order.
fn order(pieces: &[Piece]) -> Option<Value> {
    let mut ended = HashSet::new();
    let is_grouped = pieces.chunk_by(|one, other| one.key == other.key).all(|run| ended.insert(run[0].key.as_str()));
    (!is_grouped).then(|| pieces.iter().map(|piece| Value::from(piece.key.as_str())).collect())
}

#[cfg(test)]
mod tests;
