//! What people read.

#![expect(clippy::print_stderr, reason = "this is the command line's own output")]

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// Writes a line to standard output. A reader that has gone away ends the program quietly.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes a line for whoever may be looking; a server goes on when nobody is.
pub(crate) fn announce(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        tracing::debug!(text, "nobody reads the standard output");
    }
}

/// Writes an error.
pub(crate) fn error(text: &str) {
    eprintln!("error: {text}");
}

/// Writes something to know beside the answer.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Writes JSON, indented.
pub(crate) fn json(value: &Value) {
    line(&serde_json::to_string_pretty(value).unwrap_or_default());
}

/// A table of texts under headings.
pub(crate) fn table(headings: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
    for row in rows {
        table.add_row(row.into_iter().map(|cell| plain(&cell)));
    }
    for text in table.to_string().lines() {
        line(text.trim_end());
    }
}

/// A text that cannot move the cursor or colour the terminal of whoever looks at it.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// So many of something: `1 page`, `2 pages`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A value as one cell of a table.
pub(crate) fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut short: String = text.chars().take(80).map(|c| if c == '\n' { ' ' } else { c }).collect();
    if text.chars().count() > 80 {
        short.push('…');
    }
    short
}

/// A spinner while something takes long, where somebody is looking.
pub(crate) fn progress(what: &str) -> indicatif::ProgressBar {
    if !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let bar = indicatif::ProgressBar::new_spinner().with_message(what.to_owned());
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    bar
}

/// Asks at a terminal; elsewhere nobody can answer, and `otherwise` says how to agree.
///
/// # Errors
/// Nobody has agreed.
pub(crate) fn confirm(question: &str, otherwise: &str) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        anyhow::bail!("{otherwise}");
    }
    note(&format!("{question} [y/N]"));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { anyhow::bail!("nothing was changed") }
}
