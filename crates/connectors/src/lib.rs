//! The connectors that come with the product: an API a file, with the samples that their cases use.
//!
//! They are written like those of users, and users extend them by their names.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use linkspan_model::connector::ConnectorSpec;
use linkspan_model::yaml::{self, RepeatedKeys};
use linkspan_model::{Document, Name, Spec};

/// Text and files of a connector.
struct Source {
    text: &'static str,
    /// What its cases name as files.
    files: &'static [(&'static str, &'static [u8])],
}

/// The connector with this name and its samples.
macro_rules! source {
    ($name:literal $(, $file:literal)*) => {
        Source {
            text: include_str!(concat!("../connectors/", $name, ".yaml")),
            files: &[$((
                concat!("samples/", $name, "/", $file),
                include_bytes!(concat!("../connectors/samples/", $name, "/", $file)).as_slice(),
            )),*],
        }
    };
}

static SOURCES: &[Source] = &[
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

static ALL: LazyLock<BTreeMap<Name, Bundled>> = LazyLock::new(|| {
    // That every one reads back is a test of this crate.
    SOURCES.iter().filter_map(|source| read(source).ok()).map(|read| (read.document.name.clone(), read)).collect()
});

fn read(source: &Source) -> Result<Bundled, String> {
    let read = yaml::read(source.text, RepeatedKeys::Refuse).map_err(|error| format!("{:?}: {error}", error.at))?;
    let document = Document::read(&read.value).map_err(|faults| format!("{faults:#?}"))?;
    match &document.spec {
        Spec::Connector(spec) => Ok(Bundled { spec: ConnectorSpec::clone(spec), document, files: source.files }),
        _ => Err("not a connector".to_owned()),
    }
}

/// The connector with this name.
#[must_use]
pub fn find(name: &Name) -> Option<&'static Bundled> {
    ALL.get(name)
}

/// Every connector, by name.
pub fn all() -> impl Iterator<Item = &'static Bundled> {
    ALL.values()
}

#[cfg(test)]
mod tests {
    use linkspan_model::connector::Connector;

    use super::*;

    #[test]
    fn every_one_reads_back_and_every_case_holds() {
        for source in SOURCES {
            let bundled = read(source).unwrap_or_else(|fault| panic!("{}: {fault}", source.text));
            let name = &bundled.document.name;
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
            let actions = connector.actions().map(|action| &action.name);
            let streams = connector.streams().map(|(name, _)| name);
            for offered in actions.chain(streams).chain(bundled.spec.webhooks.keys()) {
                assert!(shown.contains(&offered), "{name}: no case shows {offered}");
            }
            for (file, _) in bundled.files {
                assert!(source.text.contains(file), "{name}: no case uses {file}");
            }
        }
        assert_eq!(all().count(), SOURCES.len());
    }
}
