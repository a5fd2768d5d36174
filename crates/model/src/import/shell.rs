//! The words of shell commands, as POSIX shells and `bash` part them, with the line continuations of Windows' shells.
//!
//! Variables and command substitutions are not run: a mark stands in their place ([`super::example::variable`]).

use super::example;
use crate::fault::Fault;
use crate::limits;

/// A command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// Its words.
    pub(super) words: Vec<String>,
    /// What a here-document or a here-string feeds it.
    pub(super) stdin: Option<String>,
    /// Whether a pipe feeds it.
    pub(super) is_piped: bool,
    /// Whether one of its words is what an inner curl command gives.
    pub(super) takes_curls_output: bool,
}

/// Most words of a source: forty for each command that can be an action.
const WORDS_MAX: usize = 40 * limits::ACTIONS_MAX;

/// The commands of a text.
pub(super) fn commands(text: &str) -> Result<Vec<Command>, Fault> {
    let text = text.replace("\r\n", "\n");
    // As browsers copy for `cmd.exe`: the first quotation is escaped, or lines are joined by carets.
    let is_cmd = text.contains("^\n") || text.trim_start().lines().next().is_some_and(|line| line.contains(" ^\""));
    let text = if is_cmd { without_carets(&text) } else { text };
    Shell::new(&text).read()
}

/// What `cmd.exe` makes of its escapes: a caret takes the character behind it as it is, and joins lines.
fn without_carets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '^' => match chars.next() {
                Some('\n') => out.push(' '),
                Some(escaped) => out.push(escaped),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

/// What stands for a variable: shells write them in capitals.
fn variable(name: &str) -> String {
    let is_upper = !name.contains(|c: char| c.is_ascii_lowercase());
    if is_upper { example::variable(&name.to_ascii_lowercase()) } else { example::variable(name) }
}

struct Shell<'a> {
    rest: &'a str,
    line: usize,
    commands: Vec<Command>,
    command: Command,
    /// The word that is being read, when one was begun.
    word: Option<String>,
    role: Role,
    /// Here-documents whose lines come after this one.
    documents: Vec<HereDocument>,
    /// How many words there were.
    words: usize,
}

/// What the next word is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Role {
    #[default]
    Argument,
    /// The name of a file that is read or written, which is no part of a request.
    File,
    /// What the command is fed.
    HereString,
}

struct HereDocument {
    /// The number that its command has.
    command: usize,
    /// The word that ends it.
    end: String,
    /// Whether variables in it stay as they are.
    is_quoted: bool,
    /// Whether tabs before its lines are no part of it.
    strips: bool,
}

impl<'a> Shell<'a> {
    fn new(rest: &'a str) -> Self {
        Self {
            rest,
            line: 1,
            commands: Vec::new(),
            command: Command::default(),
            word: None,
            role: Role::Argument,
            documents: Vec::new(),
            words: 0,
        }
    }

    fn read(mut self) -> Result<Vec<Command>, Fault> {
        while let Some(c) = self.next() {
            if self.words > WORDS_MAX {
                return Err(Fault::new("source", format_args!("at most {WORDS_MAX} words of commands are read")));
            }
            match c {
                ' ' | '\t' => self.end_word(),
                '\n' => {
                    self.end_command(false);
                    self.here_documents()?;
                }
                ';' => self.end_command(false),
                '|' => {
                    let is_pipe = !self.takes("|");
                    if is_pipe {
                        self.takes("&");
                    }
                    self.end_command(is_pipe);
                }
                '&' if self.takes("&") => self.end_command(false),
                // `&>` writes both, answers and errors.
                '&' if self.rest.starts_with('>') => self.end_word(),
                // In a shell the command would end here; whoever forgot the quotes means the URL.
                '&' if self.word.is_some() && !self.rest.starts_with([' ', '\n']) && !self.rest.is_empty() => {
                    self.push('&')
                }
                '&' => self.end_command(false),
                '#' if self.word.is_none() => self.comment(),
                '<' | '>' if self.takes("(") => {
                    self.substitution()?;
                    self.append(&variable("output"));
                }
                '<' if self.takes("<<") => {
                    self.end_word();
                    self.role = Role::HereString;
                }
                '<' if self.takes("<") => self.here_document()?,
                // Nor would a shell take `https://a.test/<id>` as it is meant.
                '<' if self.word.is_some() && self.placeholder().is_some() => {
                    let name = self.until(">").unwrap_or_default();
                    self.append(&example::variable(&name));
                }
                '<' | '>' => self.redirection(),
                '\\' | '`' if self.takes("\n") => {}
                '\\' => {
                    if let Some(escaped) = self.next() {
                        self.push(escaped);
                    }
                }
                '\'' => {
                    let text = self.until("'").ok_or_else(|| self.unclosed("'"))?;
                    self.append(&text);
                }
                '"' => self.template(Some('"'))?,
                '$' if self.takes("'") => self.ansi_quoted()?,
                '$' | '`' => self.expansion(c)?,
                c => self.push(c),
            }
        }
        self.end_command(false);
        if self.documents.is_empty() { Ok(self.commands) } else { Err(self.unclosed("<<")) }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn takes(&mut self, text: &str) -> bool {
        let found = self.rest.starts_with(text);
        if found {
            self.skip(text.len());
        }
        found
    }

    fn skip(&mut self, bytes: usize) -> String {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken.to_owned()
    }

    /// The text up to `end`, which is taken too; nothing is taken when it does not come.
    fn until(&mut self, end: &str) -> Option<String> {
        let text = self.skip(self.rest.find(end)?);
        self.skip(end.len());
        Some(text)
    }

    /// The rest of the line is a comment.
    fn comment(&mut self) {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        self.skip(end);
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn append(&mut self, text: &str) {
        self.word.get_or_insert_default().push_str(text);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        self.words += 1;
        match std::mem::take(&mut self.role) {
            Role::Argument => self.command.words.push(word),
            Role::File => {}
            Role::HereString => self.command.stdin = Some(word + "\n"),
        }
    }

    fn end_command(&mut self, feeds_next: bool) {
        self.end_word();
        self.role = Role::Argument;
        let next = Command { is_piped: feeds_next, ..Command::default() };
        let command = std::mem::replace(&mut self.command, next);
        if !command.words.is_empty() {
            self.commands.push(command);
        }
    }

    fn unclosed(&self, sign: &str) -> Fault {
        Fault::new("source", format_args!("line {}: a quotation that begins with {sign} has no end", self.line))
    }

    /// A text in which variables count, up to the sign that closes it; none: all of the rest.
    fn template(&mut self, end: Option<char>) -> Result<(), Fault> {
        self.append("");
        loop {
            match self.next() {
                None if end.is_none() => return Ok(()),
                None => return Err(self.unclosed("\"")),
                Some(c) if Some(c) == end => return Ok(()),
                Some('\\') => match self.next() {
                    Some('\n') => {}
                    Some(c @ ('$' | '`' | '\\')) => self.push(c),
                    Some(c) if Some(c) == end => self.push(c),
                    Some(c) => {
                        self.push('\\');
                        self.push(c);
                    }
                    None if end.is_none() => self.push('\\'),
                    None => return Err(self.unclosed("\"")),
                },
                Some(c @ ('$' | '`')) => self.expansion(c)?,
                Some(c) => self.push(c),
            }
        }
    }

    /// `$'…'`: what browsers write when a body holds line breaks. Numbers of one byte make up characters together.
    fn ansi_quoted(&mut self) -> Result<(), Fault> {
        let mut bytes: Vec<u8> = Vec::new();
        loop {
            let c = match self.next() {
                None => return Err(self.unclosed("$'")),
                Some('\'') => break,
                Some('\\') => match self.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('r') => '\r',
                    Some('a') => '\u{7}',
                    Some('b') => '\u{8}',
                    Some('e' | 'E') => '\u{1b}',
                    Some('f') => '\u{c}',
                    Some('v') => '\u{b}',
                    Some('u') => self.character(4),
                    Some('U') => self.character(8),
                    Some('x') => {
                        bytes.extend(self.number("", 16, 2).and_then(|number| u8::try_from(number).ok()));
                        continue;
                    }
                    Some(digit @ '0'..='7') => {
                        bytes.extend(self.number(&digit.to_string(), 8, 2).map(|number| (number & 0xff) as u8));
                        continue;
                    }
                    Some(c) => c,
                    None => return Err(self.unclosed("$'")),
                },
                Some(c) => c,
            };
            bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        // The signs of variables are never made of numbers.
        self.append(&example::unmarked(&String::from_utf8_lossy(&bytes)));
        Ok(())
    }

    /// A character by its number of so many digits.
    fn character(&mut self, most: usize) -> char {
        self.number("", 16, most).and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    /// A number whose first digits are `begun`.
    fn number(&mut self, begun: &str, radix: u32, most: usize) -> Option<u32> {
        let digits: String = self.rest.chars().take(most).take_while(|c| c.is_digit(radix)).collect();
        self.skip(digits.len());
        u32::from_str_radix(&format!("{begun}{digits}"), radix).ok()
    }

    /// `$NAME`, `${NAME}`, `$(command)`, or a command in backquotes.
    fn expansion(&mut self, sign: char) -> Result<(), Fault> {
        if sign == '`' {
            let inner = self.until("`").ok_or_else(|| self.unclosed("`"))?;
            self.command.takes_curls_output |= inner.contains("curl ");
            self.append(&variable("output"));
        } else if self.takes("(") {
            self.substitution()?;
            self.append(&variable("output"));
        } else if self.takes("{") {
            let inner = self.until("}").ok_or_else(|| self.unclosed("${"))?;
            let name: String = inner.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            self.append(&variable(&name));
        } else {
            let length = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
            // `$5` and a lone dollar sign stand for themselves: they are prices more often than arguments.
            if length == 0 || self.rest.starts_with(|c: char| c.is_ascii_digit()) {
                self.push('$');
            } else {
                let name = self.skip(length);
                self.append(&variable(&name));
            }
        }
        Ok(())
    }

    /// The rest of a command substitution. Parentheses in quotations are none.
    fn substitution(&mut self) -> Result<(), Fault> {
        let whole = self.rest;
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Some('(') => depth += 1,
                Some(')') => depth -= 1,
                Some('\\') => drop(self.next()),
                Some(sign @ ('\'' | '"')) => drop(self.until(sign.encode_utf8(&mut [0; 4]))),
                Some(_) => {}
                None => return Err(self.unclosed("$(")),
            }
        }
        self.command.takes_curls_output |= whole[..whole.len() - self.rest.len()].contains("curl ");
        Ok(())
    }

    /// The name of a placeholder whose sign was taken: `<id>`.
    fn placeholder(&self) -> Option<&str> {
        // No farther than a name can reach.
        let name = &self.rest[..self.rest.bytes().take(60).position(|b| b == b'>')?];
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        is_name.then_some(name)
    }

    /// `> file`, `2>&1`: where the answer goes is no part of the request.
    fn redirection(&mut self) {
        if self.word.as_deref().is_some_and(|word| word.len() == 1 && word.starts_with(['1', '2'])) {
            self.word = None;
        }
        self.end_word();
        while self.takes(">") || self.takes("&") || self.takes("|") {}
        self.role = Role::File;
    }

    /// `<<EOF`: the lines up to the word are what the command reads. They begin behind the end of this line.
    fn here_document(&mut self) -> Result<(), Fault> {
        self.end_word();
        let strips = self.takes("-");
        while self.takes(" ") {}
        let end = self.rest.find([' ', '\t', '\n', ';', '|', '>', '<', '&', ')']).unwrap_or(self.rest.len());
        let written = self.skip(end);
        let is_quoted = written.contains(['\'', '"', '\\']);
        let end = written.replace(['\'', '"', '\\'], "");
        if end.is_empty() {
            return Err(self.unclosed("<<"));
        }
        self.documents.push(HereDocument { command: self.commands.len(), end, is_quoted, strips });
        Ok(())
    }

    /// The lines of the here-documents that the line before has named.
    fn here_documents(&mut self) -> Result<(), Fault> {
        for document in std::mem::take(&mut self.documents) {
            let mut body = String::new();
            loop {
                if self.rest.is_empty() {
                    return Err(self.unclosed("<<"));
                }
                let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
                let line = self.skip(end);
                let content = line.trim_end_matches('\n');
                let content = if document.strips { content.trim_start_matches('\t') } else { content };
                if content == document.end {
                    break;
                }
                body.push_str(content);
                body.push('\n');
            }
            let Some(command) = self.commands.get_mut(document.command) else { continue };
            let mut inner = Shell::new(&body);
            let read = (!document.is_quoted).then(|| inner.template(None).ok()).flatten();
            command.takes_curls_output |= inner.command.takes_curls_output;
            // As it is where a variable in it does not end.
            command.stdin = read.and(inner.word).or(Some(body));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        commands(text).unwrap().into_iter().map(|command| command.words).collect()
    }

    #[test]
    fn words_are_parted_as_shells_do() {
        for (text, parted) in [
            ("curl -H 'a: b c'  \"d e\"", vec!["curl", "-H", "a: b c", "d e"]),
            ("curl \\\n  x", vec!["curl", "x"]),
            ("curl `\n x", vec!["curl", "x"]),
            ("curl 'it'\\''s' ''", vec!["curl", "it's", ""]),
            ("curl \"a\\\"b\\n\"", vec!["curl", "a\"b\\n"]),
            ("curl $'a\\n\\u0021\\x41\\101\\'b'", vec!["curl", "a\n!AA'b"]),
            ("curl https://a.test/?x=1&y=2", vec!["curl", "https://a.test/?x=1&y=2"]),
            ("curl x > out.json 2>&1", vec!["curl", "x"]),
            ("curl > \"my file\" x >'a b' -v 2>>/dev/null &>all -s", vec!["curl", "x", "-v", "-s"]),
            ("curl '{\"a\":\"b^\"}'", vec!["curl", "{\"a\":\"b^\"}"]),
            ("curl $'\\xc3\\xa9\\303\\251'", vec!["curl", "éé"]),
            (
                "curl ^\"https://a.test/?a=1^&b=2^\" ^\n  -H ^\"x: y^\"",
                vec!["curl", "https://a.test/?a=1&b=2", "-H", "x: y"],
            ),
            ("curl x # a comment", vec!["curl", "x"]),
            ("curl '{\"price\": \"$5\"}' \"$5\"", vec!["curl", "{\"price\": \"$5\"}", "$5"]),
        ] {
            assert_eq!(words(text), [parted], "{text}");
        }
    }

    #[test]
    fn commands_end_at_their_separators() {
        let read = commands("# first\ncurl a | jq .\n\ncurl b; curl c && curl d &\ncurl e").unwrap();
        let read: Vec<(String, bool)> =
            read.into_iter().map(|command| (command.words.join(" "), command.is_piped)).collect();
        let wanted = [
            ("curl a", false),
            ("jq .", true),
            ("curl b", false),
            ("curl c", false),
            ("curl d", false),
            ("curl e", false),
        ];
        assert_eq!(read, wanted.map(|(words, piped)| (words.to_owned(), piped)));
    }

    #[test]
    fn variables_are_marked() {
        let command = format!("curl {}/{} {}", variable("BASE"), variable("id"), variable("output"));
        assert_eq!(words("curl $BASE/\"${id}\" \"$(cat x)\"")[0].join(" "), command);
        assert_eq!(words("curl '$BASE'"), [["curl", "$BASE"]]);
        let command = format!("curl a/{}/b", variable("user-id"));
        assert_eq!(words("curl a/<user-id>/b <in.txt >out.txt")[0].join(" "), command);
    }

    #[test]
    fn here_documents_feed_the_command() {
        let read = commands("curl -d @- <<'EOF' https://a.test\n{\"a\": \"$1 $B\"}\nEOF\ncurl b").unwrap();
        assert_eq!(read[0].words, ["curl", "-d", "@-", "https://a.test"]);
        assert_eq!(read[0].stdin.as_deref(), Some("{\"a\": \"$1 $B\"}\n"));
        assert_eq!(read[1].words, ["curl", "b"]);

        let read = commands("cat <<EOF | curl -H 'a: b c' -d @- x\n{\"a\": \"$B\"} $5 it's\nEOF\ncurl b").unwrap();
        assert_eq!(read[0].stdin, Some(format!("{{\"a\": \"{}\"}} $5 it's\n", variable("B"))));
        assert_eq!((read[1].words.len(), read[1].is_piped), (6, true));
        assert_eq!(read[2].words, ["curl", "b"]);

        let read = commands("curl -d @- <<-EOF -H \"a: b\"; curl y\n\t$(x\n\tEOF\ncurl b").unwrap();
        assert_eq!(read[0].words, ["curl", "-d", "@-", "-H", "a: b"]);
        assert_eq!(read[0].stdin.as_deref(), Some("$(x\n"));
        assert_eq!(read[1..].iter().map(|command| command.words[1].as_str()).collect::<Vec<_>>(), ["y", "b"]);
    }

    #[test]
    fn here_strings_feed_the_command() {
        let read = commands("curl -d @- <<< '{\"a\": 1}' x\ncurl -d @- <<<\"$A\"").unwrap();
        assert_eq!(read[0].words, ["curl", "-d", "@-", "x"]);
        assert_eq!(read[0].stdin.as_deref(), Some("{\"a\": 1}\n"));
        assert_eq!(read[1].stdin, Some(format!("{}\n", variable("A"))));
    }

    #[test]
    fn inner_commands_are_told() {
        let read = commands("T=$(curl -s x | jq \")\") curl y\nD=$(date)\ncurl -d @<(jq . f) z\ncat <<E\n$(curl q)\nE")
            .unwrap();
        let told: Vec<bool> = read.iter().map(|command| command.takes_curls_output).collect();
        assert_eq!(told, [true, false, false, true]);
        assert_eq!(read[0].words[1..], ["curl", "y"]);
        assert_eq!(read[2].words[2..], [format!("@{}", variable("output")), "z".to_owned()]);
    }

    #[test]
    fn an_open_quotation_is_named_with_its_line() {
        for text in ["\ncurl 'a", "\ncurl \"a", "\ncurl $'a", "\ncurl `a", "\ncurl $(a", "\ncurl <<EOF\na\n"] {
            assert!(commands(text).unwrap_err().reason.contains("has no end"), "{text}");
        }
        assert!(commands("a\nb\ncurl 'x").unwrap_err().reason.starts_with("line 3: "));
    }
}
