//! The words of shell commands, as POSIX shells and `bash` part them, with the line continuations of Windows' shells.
//!
//! Variables and command substitutions are not run: a mark stands in their place ([`super::example::variable`]).

use super::example;
use crate::fault::Fault;

/// A command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// Its words.
    pub(super) words: Vec<String>,
    /// What a here-document feeds it.
    pub(super) stdin: Option<String>,
    /// Whether a pipe feeds it, so that it is no command of its own.
    pub(super) is_piped: bool,
}

/// The commands of a text.
pub(super) fn commands(text: &str) -> Result<Vec<Command>, Fault> {
    let text = text.replace("\r\n", "\n");
    let text = if text.contains("^\n") || text.contains("^\"") { without_carets(&text) } else { text };
    Shell { rest: &text, line: 1, commands: Vec::new(), command: Command::default(), word: None }.read()
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
}

impl Shell<'_> {
    fn read(mut self) -> Result<Vec<Command>, Fault> {
        while let Some(c) = self.next() {
            match c {
                ' ' | '\t' => self.end_word(),
                '\n' | ';' => self.end_command(false),
                '|' => {
                    let is_pipe = !self.takes("|");
                    self.end_command(is_pipe);
                }
                '&' if self.takes("&") => self.end_command(false),
                // In a shell the command would end here; whoever forgot the quotes means the URL.
                '&' if self.word.is_some() && !self.rest.starts_with([' ', '\n']) && !self.rest.is_empty() => {
                    self.push('&')
                }
                '&' => self.end_command(false),
                '#' if self.word.is_none() => self.comment(),
                '<' if self.takes("<") => self.here_document()?,
                '<' | '>' => self.redirection()?,
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
                '"' => self.double_quoted()?,
                '$' if self.takes("'") => self.ansi_quoted()?,
                '$' | '`' => self.expansion(c)?,
                c => self.push(c),
            }
        }
        self.end_command(false);
        Ok(self.commands)
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
        self.command.words.extend(self.word.take());
    }

    fn end_command(&mut self, feeds_next: bool) {
        self.end_word();
        let next = Command { is_piped: feeds_next, ..Command::default() };
        let command = std::mem::replace(&mut self.command, next);
        if !command.words.is_empty() {
            self.commands.push(command);
        }
    }

    fn unclosed(&self, sign: &str) -> Fault {
        Fault::new("source", format_args!("line {}: a quotation that begins with {sign} has no end", self.line))
    }

    fn double_quoted(&mut self) -> Result<(), Fault> {
        self.append("");
        loop {
            match self.next() {
                None => return Err(self.unclosed("\"")),
                Some('"') => return Ok(()),
                Some('\\') => match self.next() {
                    Some('\n') => {}
                    Some(c @ ('$' | '`' | '"' | '\\')) => self.push(c),
                    Some(c) => {
                        self.push('\\');
                        self.push(c);
                    }
                    None => return Err(self.unclosed("\"")),
                },
                Some(c @ ('$' | '`')) => self.expansion(c)?,
                Some(c) => self.push(c),
            }
        }
    }

    /// `$'…'`: what browsers write when a body holds line breaks.
    fn ansi_quoted(&mut self) -> Result<(), Fault> {
        self.append("");
        loop {
            let c = match self.next() {
                None => return Err(self.unclosed("$'")),
                Some('\'') => return Ok(()),
                Some('\\') => match self.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('r') => '\r',
                    Some('a') => '\u{7}',
                    Some('b') => '\u{8}',
                    Some('e' | 'E') => '\u{1b}',
                    Some('f') => '\u{c}',
                    Some('v') => '\u{b}',
                    Some('x') => self.code("", 16, 2),
                    Some('u') => self.code("", 16, 4),
                    Some('U') => self.code("", 16, 8),
                    Some(digit @ '0'..='7') => self.code(&digit.to_string(), 8, 2),
                    Some(c) => c,
                    None => return Err(self.unclosed("$'")),
                },
                Some(c) => c,
            };
            self.push(c);
        }
    }

    /// A character by its number, whose first digits are `begun`.
    fn code(&mut self, begun: &str, radix: u32, most: usize) -> char {
        let digits: String = self.rest.chars().take(most).take_while(|c| c.is_digit(radix)).collect();
        self.skip(digits.len());
        let number = u32::from_str_radix(&format!("{begun}{digits}"), radix);
        number.ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    /// `$NAME`, `${NAME}`, `$(command)`, or a command in backquotes.
    fn expansion(&mut self, sign: char) -> Result<(), Fault> {
        if sign == '`' {
            self.until("`").ok_or_else(|| self.unclosed("`"))?;
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

    /// The rest of a command substitution.
    fn substitution(&mut self) -> Result<(), Fault> {
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Some('(') => depth += 1,
                Some(')') => depth -= 1,
                Some(_) => {}
                None => return Err(self.unclosed("$(")),
            }
        }
        Ok(())
    }

    /// `> file`, `2>&1`: where the answer goes is no part of the request.
    fn redirection(&mut self) -> Result<(), Fault> {
        if self.word.as_deref().is_some_and(|word| word.len() == 1 && word.starts_with(['1', '2'])) {
            self.word = None;
        }
        self.end_word();
        while self.takes(">") || self.takes("&") || self.takes(" ") {}
        let end = self.rest.find([' ', '\t', '\n', ';', '|']).unwrap_or(self.rest.len());
        self.skip(end);
        Ok(())
    }

    /// `<<EOF`: the lines up to the word are what the command reads.
    fn here_document(&mut self) -> Result<(), Fault> {
        self.end_word();
        let strips = self.takes("-");
        while self.takes(" ") {}
        let end = self.rest.find([' ', '\t', '\n', ';', '|', '>']).unwrap_or(self.rest.len());
        let written = self.skip(end);
        let word = written.trim_matches(['\'', '"', '\\']).to_owned();
        let Some(line_end) = self.rest.find('\n').filter(|_| !word.is_empty()) else {
            return Err(self.unclosed("<<"));
        };
        let head = self.rest[..line_end].to_owned();
        self.skip(line_end + 1);
        let mut body = String::new();
        loop {
            if self.rest.is_empty() {
                return Err(self.unclosed("<<"));
            }
            let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
            let line = self.skip(end);
            let content = line.trim_end_matches('\n');
            let content = if strips { content.trim_start_matches('\t') } else { content };
            if content == word {
                break;
            }
            body.push_str(content);
            body.push('\n');
        }
        self.command.stdin = Some(body);
        // What stands behind it on its line belongs to the command.
        for word in head.split_whitespace().take_while(|word| !word.starts_with(['|', '>', ';', '&'])) {
            self.command.words.push(word.to_owned());
        }
        self.end_command(false);
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
    }

    #[test]
    fn here_documents_feed_the_command() {
        let read = commands("curl -d @- <<'EOF' https://a.test\n{\"a\": 1}\nEOF\ncurl b").unwrap();
        assert_eq!(read[0].words, ["curl", "-d", "@-", "https://a.test"]);
        assert_eq!(read[0].stdin.as_deref(), Some("{\"a\": 1}\n"));
        assert_eq!(read[1].words, ["curl", "b"]);
    }

    #[test]
    fn an_open_quotation_is_named_with_its_line() {
        for text in ["\ncurl 'a", "\ncurl \"a", "\ncurl $'a", "\ncurl `a", "\ncurl $(a", "\ncurl <<EOF\na\n"] {
            assert!(commands(text).unwrap_err().reason.contains("has no end"), "{text}");
        }
        assert!(commands("a\nb\ncurl 'x").unwrap_err().reason.starts_with("line 3: "));
    }
}
