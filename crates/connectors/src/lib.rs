//! The connectors that come with the product: an API a file, with the samples that their cases use.
//!
//! They are written like those of users, and users extend them by their names.

use std::sync::OnceLock;

use linkspan_model::connector::ConnectorSpec;
use linkspan_model::yaml::{self, RepeatedKeys};
use linkspan_model::{Document, Name, Spec};

/// Name, text and files of a connector, and what was read of them.
struct Source {
    name: &'static str,
    text: &'static str,
    /// What its cases name as files.
    files: &'static [(&'static str, &'static [u8])],
    read: OnceLock<Option<Bundled>>,
}

/// The connector with this name and its samples.
macro_rules! source {
    ($name:literal $(, $file:literal)*) => {
        Source {
            name: $name,
            read: OnceLock::new(),
            text: include_str!(concat!("../connectors/", $name, ".yaml")),
            files: &[$((
                concat!("samples/", $name, "/", $file),
                include_bytes!(concat!("../connectors/samples/", $name, "/", $file)).as_slice(),
            )),*],
        }
    };
}

static SOURCES: [Source; 11] = [
    source!("eventbrite", "order-placed.json", "order.json", "user.json"),
    source!(
        "github",
        "comment.json",
        "comments.json",
        "commits.json",
        "content.json",
        "found-issues.json",
        "hook.json",
        "issue-opened.json",
        "issue.json",
        "issues.json",
        "labels.json",
        "merged.json",
        "pull.json",
        "pulls.json",
        "put-content.json",
        "release.json",
        "releases.json",
        "repositories.json",
        "repository.json",
        "status.json",
        "user.json",
        "workflow-runs.json"
    ),
    source!(
        "gitlab",
        "branches.json",
        "commit.json",
        "file.json",
        "issue-opened.json",
        "issue.json",
        "merge-request.json",
        "merge-requests.json",
        "note.json",
        "user.json",
        "users.json",
        "written-file.json"
    ),
    source!("http"),
    source!(
        "jira",
        "attachments.json",
        "comment.json",
        "comments.json",
        "created-issue.json",
        "created-project.json",
        "fields.json",
        "issue-updated.json",
        "issue.json",
        "myself.json",
        "project.json",
        "projects.json",
        "search.json",
        "transitions.json",
        "users.json"
    ),
    source!(
        "notion",
        "block.json",
        "children.json",
        "comment.json",
        "comments.json",
        "database.json",
        "found-pages.json",
        "page-created.json",
        "page.json",
        "updated-page.json",
        "user.json"
    ),
    source!(
        "sendgrid",
        "blocks.json",
        "bounce.json",
        "bounces.json",
        "found-contacts.json",
        "groups.json",
        "list.json",
        "lists.json",
        "mail-template.json",
        "scopes.json",
        "senders.json",
        "spam-reports.json",
        "suppressed.json",
        "templates.json",
        "unsubscribes.json",
        "validation.json"
    ),
    source!(
        "slack",
        "auth.test.json",
        "chat.postMessage.json",
        "chat.scheduleMessage.json",
        "chat.update.json",
        "conversations.create.json",
        "conversations.history.json",
        "conversations.info.json",
        "conversations.invite.json",
        "conversations.list.json",
        "conversations.members.json",
        "conversations.replies.json",
        "files.info.json",
        "reaction-added.json",
        "users.info.json",
        "users.list.json",
        "users.lookupByEmail.json"
    ),
    source!(
        "stripe",
        "customer.json",
        "customers.json",
        "error.json",
        "invoiceitem-created.json",
        "missing.json",
        "price.json",
        "prices.json",
        "product.json",
        "refund.json",
        "subscription.json",
        "updated-customer.json"
    ),
    source!("twilio", "call.json", "calls.json", "message.json", "messages.json", "numbers.json", "recordings.json"),
    source!(
        "zoom",
        "created-meeting.json",
        "meeting.json",
        "meetings.json",
        "participants.json",
        "recording.json",
        "recordings.json",
        "registered.json",
        "registrants.json",
        "user.json",
        "users.json",
        "webinar-registered.json"
    ),
];

/// A connector that comes with the product.
#[derive(Debug)]
pub struct Bundled {
    /// Its document.
    pub document: Document,
    spec: ConnectorSpec,
    files: &'static [(&'static str, &'static [u8])],
}

impl Bundled {
    /// What it says.
    #[must_use]
    pub fn spec(&self) -> &ConnectorSpec {
        &self.spec
    }

    /// A file that its cases name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&'static [u8]> {
        self.files.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes)
    }
}

fn read(source: &Source) -> Result<Bundled, String> {
    let read = yaml::read(source.text, RepeatedKeys::Refuse).map_err(|error| format!("{:?}: {error}", error.at))?;
    // That every one is right is a test of this crate.
    let document = Document::reread(&read.value).map_err(|faults| format!("{faults:#?}"))?;
    match &document.spec {
        Spec::Connector(spec) => Ok(Bundled { spec: ConnectorSpec::clone(spec), document, files: source.files }),
        _ => Err("not a connector".to_owned()),
    }
}

/// The connector with this name, read at the first use.
#[must_use]
pub fn find(name: &Name) -> Option<&'static Bundled> {
    bundled(SOURCES.iter().find(|source| source.name == name.as_str())?)
}

/// Whether there is one of this name.
#[must_use]
pub fn exists(name: &Name) -> bool {
    SOURCES.iter().any(|source| source.name == name.as_str())
}

/// Every connector, by name.
pub fn all() -> impl Iterator<Item = &'static Bundled> {
    SOURCES.iter().filter_map(bundled)
}

fn bundled(source: &'static Source) -> Option<&'static Bundled> {
    // That every one reads back is a test of this crate.
    source.read.get_or_init(|| read(source).ok()).as_ref()
}

#[cfg(test)]
mod tests {
    use linkspan_model::connector::Connector;

    use super::*;

    #[test]
    fn every_one_reads_back_and_every_case_holds() {
        for source in &SOURCES {
            let bundled = read(source).unwrap_or_else(|fault| panic!("{}: {fault}", source.name));
            let name = &bundled.document.name;
            assert_eq!(
                (name.as_str(), Document::read(&bundled.document.to_value())),
                (source.name, Ok(bundled.document.clone()))
            );
            let connector = Connector::compile(bundled.spec.clone()).unwrap();
            assert!(!bundled.spec.tests.is_empty(), "{name} has no cases");
            for case in &bundled.spec.tests {
                let files = |file: &str| {
                    bundled.file(file).map(<[u8]>::to_vec).ok_or_else(|| "there is no such file".to_owned())
                };
                if let Err(faults) = connector.run_case(case, &files) {
                    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                    panic!("{name}, {}:\n{}", case.name, faults.join("\n"));
                }
            }
            let tests = &bundled.spec.tests;
            let shown: Vec<&String> =
                tests.iter().flat_map(|case| [&case.action, &case.stream, &case.webhook]).flatten().collect();
            let actions = connector.actions();
            let streams = connector.streams();
            for offered in actions.chain(streams).chain(bundled.spec.webhooks.keys().map(String::as_str)) {
                assert!(shown.iter().any(|shown| *shown == offered), "{name}: no case shows {offered}");
            }
            for (file, _) in bundled.files {
                assert!(source.text.contains(file), "{name}: no case uses {file}");
            }
        }
        assert_eq!(all().count(), SOURCES.len());
        assert!(SOURCES.is_sorted_by_key(|source| source.name));
    }
}
