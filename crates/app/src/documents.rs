//! Documents in files: YAML and JSON in, YAML out.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use linkspan_model::yaml::{self, Read, RepeatedKeys, YamlError};
use serde_json::Value;

use crate::client::Invalid;

/// A document with the place it was read from.
#[derive(Debug)]
pub(crate) struct Source {
    /// `FILE:LINE` of its beginning.
    pub(crate) place: String,
    /// The file.
    pub(crate) file: String,
    /// The line at which `text` begins, from 1.
    pub(crate) line: usize,
    /// Its text, with the comments before it.
    pub(crate) text: String,
    /// What it says.
    pub(crate) value: Value,
}

/// Reads every document of these files and folders, folders in the order of their paths.
pub(crate) fn read_all(paths: &[PathBuf]) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut faults = Vec::new();
    for file in files(paths)? {
        let (name, text) = read_file(&file)?;
        match parse(&name, &text) {
            Ok(found) => sources.extend(found),
            Err(found) => faults.extend(found),
        }
    }
    if !faults.is_empty() {
        return Err(Invalid(faults.join("\n")).into());
    }
    if sources.is_empty() {
        bail!(
            "there are no documents in {}",
            paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
        );
    }
    Ok(sources)
}

pub(crate) fn read_file(path: &Path) -> Result<(String, String)> {
    if path == Path::new("-") {
        let text = io::read_to_string(io::stdin()).context("standard input")?;
        return Ok(("standard input".to_owned(), text));
    }
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok((path.display().to_string(), text))
}

fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut seen = HashSet::new();
    for path in paths {
        if path.is_dir() {
            collect(path, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    files.retain(|file| seen.insert(file.clone()));
    Ok(files)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    entries.sort();
    for path in entries {
        let is_document =
            path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        if path.is_dir() {
            collect(&path, files)?;
        } else if is_document && has_kind(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// A folder may hold payloads beside documents: JSON without a `kind` is not one.
fn has_kind(path: &Path) -> bool {
    path.extension().is_none_or(|extension| extension != "json")
        || std::fs::read(path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
            .is_some_and(|value| value.get("kind").is_some())
}

/// Every document of a file.
pub(crate) fn read_documents(path: &Path) -> Result<Vec<Source>> {
    let (name, text) = read_file(path)?;
    parse(&name, &text).map_err(|faults| Invalid(faults.join("\n")).into())
}

/// One value in YAML; `name` is where it stands.
pub(crate) fn read_one(name: &str, text: &str) -> Result<Value> {
    match parse(name, text) {
        Ok(mut sources) if sources.len() == 1 => Ok(sources.swap_remove(0).value),
        Ok(sources) => Err(Invalid(format!("{name}: one document was expected, not {}", sources.len())).into()),
        Err(faults) => Err(Invalid(faults.join("\n")).into()),
    }
}

/// The documents of a file. A line that begins with `---` parts them; so says YAML, also inside texts.
pub(crate) fn parse(name: &str, text: &str) -> Result<Vec<Source>, Vec<String>> {
    let mut parts: Vec<(usize, String)> = vec![(1, String::new())];
    for (n, line) in text.lines().enumerate() {
        let is_marker = line == "---" || line.starts_with("--- ") || line.starts_with("---\t");
        if is_marker {
            parts.push((n + 2, line[3..].trim_start().to_owned()));
        }
        if let (false, Some((_, part))) = (is_marker, parts.last_mut()) {
            part.push_str(line);
            part.push('\n');
        }
    }
    let mut sources = Vec::new();
    let mut faults = Vec::new();
    for (line, part) in parts {
        if part.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            continue;
        }
        match yaml::read(&part, RepeatedKeys::Refuse) {
            Ok(Read { value, .. }) => {
                let place = format!("{name}:{}", first_line(line, &part));
                sources.push(Source { place, file: name.to_owned(), line, text: part, value });
            }
            Err(error) => faults.push(fault(name, line, &error)),
        }
    }
    if faults.is_empty() { Ok(sources) } else { Err(faults) }
}

/// Where a document begins, behind the comments before it.
fn first_line(line: usize, part: &str) -> usize {
    let before = part.lines().take_while(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    line + before.count()
}

fn fault(name: &str, first: usize, error: &YamlError) -> String {
    let place = error.at.map(|(line, column)| format!(":{}:{column}", line + first - 1));
    format!("{name}{}: {error}", place.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_several_documents_with_their_places() {
        let text = "# first\nkind: a\nname: x\n---\n\nkind: b\n--- \n# nothing\n";
        let sources = parse("f.yaml", text).unwrap();
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].place, "f.yaml:2");
        assert_eq!(sources[1].place, "f.yaml:6");
        assert_eq!(sources[1].value, json!({"kind": "b"}));
    }

    #[test]
    fn words_of_older_yaml_are_texts() {
        let sources = parse("f.yaml", "kind: off\ncountry: NO\nenabled: true\n").unwrap();
        assert_eq!(sources[0].value, json!({"kind": "off", "country": "NO", "enabled": true}));
    }

    #[test]
    fn names_the_line_of_a_syntax_error() {
        let faults = parse("f.yaml", "kind: a\n---\nkind: b\nname: [1\n").unwrap_err();
        assert!(faults[0].starts_with("f.yaml:"), "{faults:?}");
    }
}
