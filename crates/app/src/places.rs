//! Lines of a YAML document by the paths of its values, for what is wrong with one of them.

use linkspan_model::Fault;
use linkspan_model::yaml::{Content, Node, RepeatedKeys, nodes};

use crate::documents::Source;

/// Where the values of a document stand.
pub(crate) struct Places<'a> {
    source: &'a Source,
    root: Option<Node>,
}

impl<'a> Places<'a> {
    /// Where the values of a document stand. Read only when something is wrong.
    pub(crate) fn of(source: &'a Source) -> Self {
        // What reads as a document reads as this; if ever not, the place of the document remains.
        Self { source, root: nodes(&source.text, RepeatedKeys::Refuse).ok().map(|(root, _)| root) }
    }

    /// A fault of the document with its place: `FILE:LINE: …`.
    pub(crate) fn say(&self, fault: &Fault) -> String {
        match self.line(&fault.path) {
            Some(line) => format!("{}:{line}: {fault}", self.source.file),
            None => format!("{}: {fault}", self.source.place),
        }
    }

    /// The line of the value at a path, or of what it would stand in.
    fn line(&self, path: &str) -> Option<usize> {
        let mut found = self.root.as_ref()?;
        let mut rest = path;
        while let Some((below, after)) = step(found, rest) {
            (found, rest) = (below, after);
        }
        if rest.len() == path.len() {
            return None;
        }
        Some(found.line + self.source.line - 1)
    }
}

/// The value that the beginning of a path leads to, and the rest of the path. Names may hold dots.
fn step<'a, 'p>(node: &'a Node, path: &'p str) -> Option<(&'a Node, &'p str)> {
    match &node.content {
        Content::Scalar(_) => None,
        Content::List(items) => {
            let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
            Some((items.get(index.parse::<usize>().ok()?)?, rest))
        }
        Content::Map(fields) => {
            let path = path.strip_prefix('.').unwrap_or(path);
            let leads = |key: &str| {
                let rest = path.strip_prefix(key)?;
                (rest.is_empty() || rest.starts_with(['.', '['])).then_some(rest)
            };
            let found = fields.iter().filter_map(|(key, value)| Some((key.len(), value, leads(key)?)));
            found.max_by_key(|(length, ..)| *length).map(|(_, value, rest)| (value, rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::parse;

    #[test]
    fn a_fault_is_at_the_line_of_its_value() {
        let text = "# a file\nkind: a\n---\nkind: connector\nname: x\nspec:\n  actions:\n    get:\n      request:\n        query:\n          a.b: 1\n          a: 2\n  tests: [\n    {name: one},\n    {name: two}]\n";
        let sources = parse("f.yaml", text).unwrap();
        let places = Places::of(&sources[1]);
        for (path, line) in [
            ("spec.actions.get.request.query.a.b", Some(11)),
            ("spec.actions.get.request.query.a", Some(12)),
            ("spec.actions.get.request.path", Some(10)),
            ("spec.tests[1].name", Some(15)),
            ("spec.tests[7]", Some(13)),
            ("nothing", None),
            ("", None),
        ] {
            assert_eq!(places.line(path), line, "{path}");
        }
        let fault = Fault::new("spec.tests[1].name", "is wrong");
        assert_eq!(places.say(&fault), "f.yaml:15: spec.tests[1].name: is wrong");
        assert_eq!(places.say(&Fault::new("", "is wrong")), "f.yaml:4: is wrong");
    }
}
