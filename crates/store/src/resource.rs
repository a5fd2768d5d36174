//! Documents: planned, checked against each other, and changed in one transaction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use linkspan_model::connector::{CompactConnector, Connector};
use linkspan_model::destination::DestinationSpec;
use linkspan_model::document::Spec;
use linkspan_model::name::{SHOWN_BYTES, near_match};
use linkspan_model::{Document, Fault, Kind, Name, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use serde_json::Value;

use crate::Store;
use crate::connector::Connectors;
use crate::error::{Result, StoreError};
use crate::seal::MasterKey;
use crate::snapshot::{Said, Snapshot, Stored, secret_place, stored_value};

/// A stored document.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    pub(crate) row: i64,
    /// Its id, which a rename does not change.
    pub id: String,
    /// The document as its author wrote it.
    pub document: Value,
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// Counts its changes from 1.
    pub revision: u64,
    /// The set of the apply that made it.
    pub applied_set: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Whether it stands in documents that were applied, which say what it is at their next apply.
    pub is_applied: bool,
}

/// What an apply does with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new.
    Create,
    /// It says something else.
    Change,
    /// It goes.
    Delete,
    /// It says the same.
    Unchanged,
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What happens.
    pub action: Action,
    /// The kind of the document.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// The fields that change: `spec.limits.body`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Whether this takes back what a command has changed since the set was applied.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub undoes_change_by_hand: bool,
}

/// What must be true of a document for a change to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// It does not exist.
    Absent,
    /// It exists, at this revision where one is named.
    Present(Option<u64>),
}

/// What is to become of the documents.
struct Plan {
    changes: Vec<Change>,
    writes: Vec<Write>,
}

enum Write {
    Create(Box<Written>),
    Change { row: i64, written: Box<Written>, starts: bool },
    Adopt { row: i64 },
    ByHand { row: i64 },
    Delete { row: i64, kind: Kind },
}

/// A document as it goes into its row.
struct Written {
    document: Document,
    text: String,
}

impl Written {
    fn new(document: Document) -> Box<Self> {
        let text = document.to_value().to_string();
        Box::new(Self { document, text })
    }
}

impl Store {
    /// Creates and changes documents, all or none; gives what happened, or with `dry_run` what would.
    /// `prune` deletes what an earlier apply of the same `set` made and this one leaves out.
    ///
    /// # Errors
    /// `Invalid` with every fault of every document.
    pub async fn apply(
        &self,
        documents: Vec<Document>,
        set: Option<String>,
        prune: bool,
        dry_run: bool,
    ) -> Result<Vec<Change>> {
        let (key, sealing) = (self.key().clone(), self.key().clone());
        if dry_run {
            let snapshot = Arc::clone(&self.snapshot());
            return self
                .read_for_engine(move |db| Ok(plan(db, &key, &snapshot, &documents, set.as_deref(), prune)?.changes))
                .await;
        }
        let (now, from_seq) = (self.now(), self.last_seq());
        let of_set = set.clone();
        self.reconfigure(
            move |db, snapshot| plan(db, &key, snapshot, &documents, set.as_deref(), prune),
            move |db, plan: Plan| {
                for write in plan.writes {
                    perform(db, &sealing, write, of_set.as_deref(), Some(false), from_seq, now)?;
                }
                Ok(plan.changes)
            },
        )
        .await
    }

    /// Creates or replaces one document; gives it and whether it is new.
    ///
    /// # Errors
    /// `Invalid`, or what the precondition says: `Conflict`, `NotFound`, `Revision`.
    pub async fn put(&self, document: Document, must: Precondition) -> Result<(Resource, bool)> {
        let (key, sealing) = (self.key().clone(), self.key().clone());
        let (now, from_seq) = (self.now(), self.last_seq());
        let (kind, name) = (document.kind(), document.name.clone());
        let of = name.clone();
        let documents = vec![document];
        let is_new = self
            .reconfigure(
                move |db, snapshot| {
                    let found = snapshot.documents.get(&(kind, of.clone()));
                    check_precondition(found, must, kind, &of)?;
                    let set = found.and_then(|found| found.applied_set.clone());
                    let mut plan = plan(db, &key, snapshot, &documents, None, false)?;
                    // Who applies its set again hears of it.
                    let row =
                        found.filter(|found| found.by_hand.is_some() && !plan.writes.is_empty()).map(|found| found.row);
                    plan.writes.extend(row.map(|row| Write::ByHand { row }));
                    Ok((plan, set, found.is_none()))
                },
                move |db, (plan, set, is_new): (Plan, Option<String>, bool)| {
                    for write in plan.writes {
                        perform(db, &sealing, write, set.as_deref(), None, from_seq, now)?;
                    }
                    Ok(is_new)
                },
            )
            .await?;
        Ok((self.resource(kind, name).await?, is_new))
    }

    /// Deletes one document.
    ///
    /// # Errors
    /// `NotFound`; `Revision`; `Conflict` when another document refers to it.
    pub async fn delete(&self, kind: Kind, name: Name, must: Precondition) -> Result<()> {
        let now = self.now();
        let key = self.key().clone();
        self.reconfigure(
            move |_, snapshot| {
                let found = snapshot.documents.get(&(kind, name.clone())).ok_or_else(|| missing(kind, &name))?;
                check_precondition(Some(found), must, kind, &name)?;
                match needed_by(snapshot, kind, &name) {
                    Some(needed) => {
                        Err(StoreError::Conflict(format!("{kind}/{name} {needed}; change or delete that first")))
                    }
                    None => Ok(found.row),
                }
            },
            move |db, row| perform(db, &key, Write::Delete { row, kind }, None, None, 0, now),
        )
        .await
    }

    /// One document.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn resource(&self, kind: Kind, name: Name) -> Result<Resource> {
        self.read(move |db| find(db, kind, &name)?.ok_or_else(|| missing(kind, &name))).await
    }

    /// A page of the documents of one kind, or of every kind, by kind and name.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn resources(&self, kind: Option<Kind>, after: Option<Name>, limit: usize) -> Result<Vec<Resource>> {
        self.read(move |db| {
            let mut found = Vec::new();
            for kind in kind.map_or_else(|| Kind::ALL.to_vec(), |kind| vec![kind]) {
                found.extend(page(db, kind, after.as_ref(), limit - found.len())?);
            }
            Ok(found)
        })
        .await
    }

    /// Gives an endpoint a new key; the old URL is dead when this returns. Gives the new key.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn rotate_endpoint_key(&self, name: Name) -> Result<String> {
        let now = self.now();
        self.reconfigure(move |db, _| row_of(db, Kind::Endpoint, &name), move |db, row| new_endpoint_key(db, row, now))
            .await
    }
}

/// What would be wrong without a document, in words that follow its name.
fn needed_by(snapshot: &Snapshot, kind: Kind, name: &Name) -> Option<String> {
    let mut after = stored_side(snapshot);
    after.remove(&(kind, name.clone()));
    let refers = |side: &Side<'_>| side.references().iter().any(|(_, of, to)| *of == kind && *to == name);
    let (user, name_of_user) = after.iter().find(|(_, side)| refers(side)).map(|(key, _)| key)?;
    // Behind a connector may stand one of the same name that comes with the product, and that may do.
    if kind == Kind::Connector && linkspan_connectors::exists(name) {
        let faults = cross_faults(&after, &snapshot.connectors);
        return faults.first().map(|fault| format!("is used as it is: without it, {fault}"));
    }
    Some(format!("is used by {user}/{name_of_user}"))
}

/// A document in a plan: one that is stored, or one that is given.
enum Side<'a> {
    Stored(&'a Stored),
    Given(usize, &'a Document),
}

impl Side<'_> {
    fn references(&self) -> Vec<(String, Kind, &Name)> {
        match self {
            Self::Stored(stored) => stored.said.as_ref().as_ref().map_or_else(|_| Vec::new(), Said::references),
            Self::Given(_, document) => document.spec.references(),
        }
    }

    /// What it says, unless it is a connector or cannot be used.
    fn spec(&self) -> Option<&Spec> {
        match self {
            Self::Stored(stored) => match stored.said.as_ref() {
                Ok(Said::Spec(spec)) => Some(spec),
                _ => None,
            },
            Self::Given(_, document) => Some(&document.spec),
        }
    }

    /// Its number among those that are given.
    fn number(&self) -> Option<usize> {
        match self {
            Self::Stored(_) => None,
            Self::Given(n, _) => Some(*n),
        }
    }
}

/// Documents that stand side by side.
type Sides<'a> = BTreeMap<(Kind, Name), Side<'a>>;

fn stored_side(snapshot: &Snapshot) -> Sides<'_> {
    snapshot.documents.iter().map(|(key, stored)| (key.clone(), Side::Stored(stored))).collect()
}

fn missing(kind: Kind, name: &Name) -> StoreError {
    StoreError::NotFound(format!("{kind}/{name}"))
}

fn check_precondition(found: Option<&Stored>, must: Precondition, kind: Kind, name: &Name) -> Result<()> {
    match (must, found) {
        (Precondition::Absent, Some(_)) => Err(StoreError::Conflict(format!("{kind}/{name} exists already"))),
        (Precondition::Present(_), None) => Err(missing(kind, name)),
        (Precondition::Present(Some(expected)), Some(found)) if found.revision != expected => {
            Err(StoreError::Revision { expected, current: found.revision })
        }
        _ => Ok(()),
    }
}

const COLUMNS: &str = "id, public_id, kind, name, document, revision, applied_set, created_at, updated_at, by_hand";

/// The first documents of a kind after a name, by name.
fn page(db: &Connection, kind: Kind, after: Option<&Name>, limit: usize) -> Result<Vec<Resource>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM resources WHERE workspace = 1 AND kind = ?1 AND name > ?2 AND deleted_at IS NULL
         ORDER BY name LIMIT ?3"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![kind.as_str(), after.map_or("", Name::as_str), limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(resource_of(row)?);
    }
    Ok(found)
}

fn find(db: &Connection, kind: Kind, name: &Name) -> Result<Option<Resource>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM resources WHERE workspace = 1 AND kind = ?1 AND name = ?2 AND deleted_at IS NULL"
    );
    db.prepare_cached(&sql)?
        .query_row(params![kind.as_str(), name.as_str()], |row| Ok(resource_of(row)))
        .optional()?
        .transpose()
}

/// The row of a live document.
pub(crate) fn row_of(db: &Connection, kind: Kind, name: &Name) -> Result<i64> {
    db.prepare_cached(
        "SELECT id FROM resources WHERE workspace = 1 AND kind = ?1 AND name = ?2 AND deleted_at IS NULL",
    )?
    .query_row(params![kind.as_str(), name.as_str()], |row| row.get(0))
    .optional()?
    .ok_or_else(|| missing(kind, name))
}

fn resource_of(row: &Row<'_>) -> Result<Resource> {
    let text = |error: String| StoreError::Database(error);
    let kind: String = row.get(2)?;
    let name: String = row.get(3)?;
    let document: String = row.get(4)?;
    Ok(Resource {
        row: row.get(0)?,
        id: row.get(1)?,
        kind: kind.parse().map_err(text)?,
        name: name.parse().map_err(|error| StoreError::Database(format!("{error}")))?,
        document: serde_json::from_str(&document)?,
        revision: row.get::<_, i64>(5)?.cast_unsigned(),
        applied_set: row.get(6)?,
        created_at: Timestamp::from_micros(row.get(7)?),
        updated_at: Timestamp::from_micros(row.get(8)?),
        is_applied: row.get::<_, Option<bool>>(9)?.is_some(),
    })
}

fn plan(
    db: &Connection,
    key: &MasterKey,
    snapshot: &Snapshot,
    documents: &[Document],
    set: Option<&str>,
    prune: bool,
) -> Result<Plan> {
    let mut faults = duplicates(documents);
    let mut after = stored_side(snapshot);
    let mut deleted = Vec::new();
    if prune {
        let given: HashSet<(Kind, &Name)> =
            documents.iter().map(|document| (document.kind(), &document.name)).collect();
        for ((kind, name), stored) in &snapshot.documents {
            if stored.applied_set.as_deref() == Some(set.unwrap_or_default()) && !given.contains(&(*kind, name)) {
                after.remove(&(*kind, name.clone()));
                deleted.push((*kind, name, stored.row));
            }
        }
    }
    for (n, document) in documents.iter().enumerate() {
        after.insert((document.kind(), document.name.clone()), Side::Given(n, document));
    }
    faults.extend(cross_faults(&after, &snapshot.connectors));
    faults.extend(key_faults(db, key, snapshot, &after)?);
    if !faults.is_empty() {
        return Err(StoreError::Invalid(faults));
    }

    let mut changes = Vec::new();
    let mut writes = Vec::new();
    for document in documents {
        let (kind, name) = (document.kind(), document.name.clone());
        let stored = snapshot.documents.get(&(kind, name.clone()));
        let (action, fields) = match stored {
            None => (Action::Create, Vec::new()),
            Some(stored) => {
                let mut fields = Vec::new();
                differences(&document_in(db, stored.row)?, &document.to_value(), "", &mut fields);
                if brings_new_value(db, key, stored.row, document)? {
                    fields.push("spec.value".to_owned());
                }
                if fields.is_empty() { (Action::Unchanged, fields) } else { (Action::Change, fields) }
            }
        };
        match (action, stored) {
            (Action::Create, _) => writes.push(Write::Create(Written::new(document.clone()))),
            (Action::Change, Some(stored)) => writes.push(Write::Change {
                row: stored.row,
                written: Written::new(document.clone()),
                starts: is_enabled_recipe(&document.spec) && !was_enabled(stored),
            }),
            // The set that names it last owns it, so that pruning another set does not delete it.
            (Action::Unchanged, Some(stored)) if set.is_some() && stored.applied_set.as_deref() != set => {
                writes.push(Write::Adopt { row: stored.row });
            }
            _ => {}
        }
        let undoes_change_by_hand =
            action == Action::Change && stored.is_some_and(|stored| stored.by_hand == Some(true));
        changes.push(Change { action, kind, name, fields, undoes_change_by_hand });
    }
    // What refers to others goes before what it refers to.
    deleted.sort_by_key(|(kind, _, _)| std::cmp::Reverse(*kind));
    for (kind, name, row) in deleted {
        changes.push(Change {
            action: Action::Delete,
            kind,
            name: name.clone(),
            fields: Vec::new(),
            undoes_change_by_hand: false,
        });
        writes.push(Write::Delete { row, kind });
    }
    Ok(Plan { changes, writes })
}

fn is_enabled_recipe(spec: &Spec) -> bool {
    matches!(spec, Spec::Recipe(recipe) if recipe.is_enabled())
}

fn was_enabled(stored: &Stored) -> bool {
    matches!(stored.said.as_ref(), Ok(Said::Spec(spec)) if is_enabled_recipe(spec))
}

/// The document in a row, as its author wrote it.
fn document_in(db: &Connection, row: i64) -> Result<Value> {
    let text: String =
        db.prepare_cached("SELECT document FROM resources WHERE id = ?1")?.query_row([row], |row| row.get(0))?;
    Ok(serde_json::from_str(&text)?)
}

fn duplicates(documents: &[Document]) -> Vec<Fault> {
    let mut seen = HashMap::new();
    let mut faults = Vec::new();
    for (n, document) in documents.iter().enumerate() {
        if let Some(first) = seen.insert((document.kind(), &document.name), n) {
            let fault = Fault::new("name", format_args!("stands twice; the first is document {first}"));
            faults.push(about(document.kind(), &document.name, Some(n), fault));
        }
    }
    faults
}

fn about(kind: Kind, name: &Name, n: Option<usize>, mut fault: Fault) -> Fault {
    fault.document = n;
    fault.subject = Some(format!("{kind}/{name}"));
    fault
}

/// Keys of accounts that do not fit what the accounts say, as far as the values are known here. Only of accounts that
/// are written now: one whose secret is changed first, and the account after it, must not be in its own way.
fn key_faults(db: &Connection, key: &MasterKey, snapshot: &Snapshot, after: &Sides<'_>) -> Result<Vec<Fault>> {
    let mut faults = Vec::new();
    for ((kind, name), side) in after.iter().filter(|(_, side)| side.number().is_some()) {
        let Some(Spec::Account(account)) = side.spec() else { continue };
        for (path, secret, wanted) in account.keys() {
            let given = match after.get(&(Kind::Secret, secret.clone())).and_then(Side::spec) {
                Some(Spec::Secret(spec)) => spec,
                _ => continue,
            };
            let value = match (&given.value, snapshot.documents.get(&(Kind::Secret, secret.clone()))) {
                (Some(value), _) => Some(value.to_bytes()),
                // Read where the server runs, when it is used.
                (None, _) if given.env.is_some() || given.file.is_some() => None,
                (None, Some(stored)) => stored_value(db, key, stored.row)?,
                (None, None) => None,
            };
            if let Some(reason) = value.and_then(|value| wanted.check(&value).err()) {
                let reason = format!("the value of secret `{secret}` does not do: {reason}");
                faults.push(about(*kind, name, side.number(), Fault::new(format!("spec.{path}"), reason)));
            }
        }
    }
    Ok(faults)
}

/// What only shows when documents stand side by side.
fn cross_faults(after: &Sides<'_>, known: &Connectors) -> Vec<Fault> {
    let mut faults = connector_faults(after, known);
    let mut tables: HashMap<(&str, String), &Name> = HashMap::new();
    for ((of, document), side) in after {
        for (path, kind, name) in side.references() {
            let is_bundled = kind == Kind::Connector && linkspan_connectors::exists(name);
            if !is_bundled && !after.contains_key(&(kind, name.clone())) {
                let reason = match kind {
                    // What is longer may be the secret itself.
                    Kind::Secret if name.as_str().len() > SHOWN_BYTES => "there is no secret of this name".to_owned(),
                    _ => format!("there is no {kind} `{name}`"),
                };
                let mut fault = Fault::new(path, reason);
                let names = after.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.as_str());
                if let Some(near) = near_match(name.as_str(), names) {
                    fault = fault.hint(format!("did you mean `{near}`?"));
                }
                faults.push(about(*of, document, side.number(), fault));
            }
        }
        if let Some(Spec::Sync(sync)) = side.spec() {
            // Two destinations may name one file; table names are compared as SQLite does, without case.
            let file = match after.get(&(Kind::Destination, sync.to.destination.clone())).and_then(Side::spec) {
                Some(Spec::Destination(DestinationSpec::Sqlite(sqlite))) => sqlite.path.as_str(),
                _ => sync.to.destination.as_str(),
            };
            let table = (file, sync.to.full_name().to_lowercase());
            if let Some(other) = tables.insert(table, document) {
                let reason = format!("sync `{other}` loads {} too; a table belongs to one sync", sync.to.full_name());
                faults.push(about(*of, document, side.number(), Fault::new("spec.to.table", reason)));
            }
        }
    }
    faults
}

/// What shows when connectors, connections and endpoints over them and steps that call their actions stand side by
/// side. `known` is what was compiled of the documents that are stored.
fn connector_faults(after: &Sides<'_>, known: &Connectors) -> Vec<Fault> {
    let find = |kind: Kind, name: &Name| after.get(&(kind, name.clone())).and_then(Side::spec);
    let mut connectors = Connectors::after(known);
    for ((_, name), side) in after.iter().filter(|((kind, _), _)| *kind == Kind::Connector) {
        match side {
            Side::Stored(stored) => {
                if let Ok(Said::Connector(connector)) = stored.said.as_ref() {
                    connectors.add(name.clone(), format!("{}.{}", stored.row, stored.revision), connector.clone());
                }
            }
            Side::Given(n, document) => {
                if let Spec::Connector(spec) = &document.spec {
                    connectors.add(name.clone(), format!("given {n}"), CompactConnector::of(spec));
                }
            }
        }
    }
    let mut faults = Vec::new();
    for ((kind, name), side) in after {
        if *kind == Kind::Connector {
            faults.extend(extension_faults(&mut connectors, name, side));
            continue;
        }
        let found = match side.spec() {
            Some(Spec::Connection(spec)) if spec.connector.as_ref().is_some_and(|name| connectors.exists(name)) => {
                let account = spec.account.as_ref().and_then(|name| find(Kind::Account, name));
                let account = account.and_then(|spec| match spec {
                    Spec::Account(account) => Some(account),
                    _ => None,
                });
                connectors.connect(spec, account).err().unwrap_or_default()
            }
            Some(Spec::Endpoint(spec)) if spec.connector.as_ref().is_some_and(|name| connectors.exists(name)) => {
                connectors.intake(spec).err().unwrap_or_default()
            }
            Some(Spec::Recipe(recipe)) => {
                let calls = recipe.steps.iter().enumerate().filter_map(|(n, step)| Some((n, step.call.as_ref()?)));
                let mut found = Vec::new();
                for (n, call) in calls {
                    if let Some(Spec::Connection(connection)) = find(Kind::Connection, &call.connection) {
                        let faults = connectors.call_faults(call, connection);
                        found.extend(faults.into_iter().map(|fault| fault.under(&format!("steps[{n}]"))));
                    }
                }
                found
            }
            _ => Vec::new(),
        };
        faults.extend(found.into_iter().map(|fault| about(*kind, name, side.number(), fault.under("spec"))));
    }
    faults
}

/// What is wrong with a connector that extends another, which can only be judged with that. One that is stored and
/// whose base has not changed was judged before.
fn extension_faults(connectors: &mut Connectors, name: &Name, side: &Side<'_>) -> Vec<Fault> {
    let is_extension = side.references().iter().any(|(_, _, base)| connectors.exists(base));
    if !is_extension || !connectors.basis(name).contains("given") {
        return Vec::new();
    }
    let whole = connectors.resolve(name).and_then(|whole| whole.spec()).map_err(|fault| vec![fault]);
    let faults = whole.and_then(Connector::compile).err().unwrap_or_default();
    faults.into_iter().map(|fault| about(Kind::Connector, name, side.number(), fault.under("spec"))).collect()
}

/// The paths at which two documents differ.
fn differences(old: &Value, new: &Value, path: &str, found: &mut Vec<String>) {
    let at = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                differences(value, new.get(key).unwrap_or(&Value::Null), &at(key), found);
            }
            for key in new.keys().filter(|key| !old.contains_key(*key)) {
                found.push(at(key));
            }
        }
        _ if old != new => found.push(path.to_owned()),
        _ => {}
    }
}

fn brings_new_value(db: &Connection, key: &MasterKey, row: i64, document: &Document) -> Result<bool> {
    let Spec::Secret(secret) = &document.spec else { return Ok(false) };
    let Some(value) = &secret.value else { return Ok(false) };
    let sealed: Option<Vec<u8>> = db
        .prepare_cached("SELECT sealed FROM secret_values WHERE resource = ?1")?
        .query_row([row], |row| row.get(0))
        .optional()?;
    match sealed {
        Some(sealed) => Ok(key.open(&secret_place(row), &sealed)? != value.to_bytes()),
        None => Ok(true),
    }
}

fn perform(
    db: &Connection,
    key: &MasterKey,
    write: Write,
    set: Option<&str>,
    by_hand: Option<bool>,
    from_seq: u64,
    now: Timestamp,
) -> Result<()> {
    match write {
        Write::Create(written) => {
            let document = &written.document;
            if document.kind() == Kind::Recipe && revive(db, &written, set, by_hand, from_seq, now)? {
                return Ok(());
            }
            db.prepare_cached(
                "INSERT INTO resources (kind, name, public_id, document, applied_set, revision, from_seq, created_at, updated_at, by_hand)
                 VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?7, ?8)",
            )?
            .execute(params![
                document.kind().as_str(),
                document.name.as_str(),
                format!("{}_{}", document.kind(), uuid::Uuid::now_v7().simple()),
                written.text,
                set,
                from_seq.cast_signed(),
                now.as_micros(),
                by_hand
            ])?;
            let row = db.last_insert_rowid();
            if document.kind() == Kind::Endpoint {
                new_endpoint_key(db, row, now)?;
            }
            keep_parts(db, key, row, document, now)
        }
        Write::Change { row, written, starts } => {
            db.prepare_cached(
                "UPDATE resources SET document = ?2, revision = revision + 1, updated_at = ?3,
                 applied_set = ifnull(?4, applied_set), by_hand = ifnull(?5, by_hand) WHERE id = ?1",
            )?
            .execute(params![row, written.text, now.as_micros(), set, by_hand])?;
            // A recipe that is started again begins at the end of the log.
            if starts {
                db.execute("UPDATE resources SET from_seq = ?2 WHERE id = ?1", params![row, from_seq.cast_signed()])?;
            }
            keep_parts(db, key, row, &written.document, now)
        }
        Write::ByHand { row } => {
            db.execute("UPDATE resources SET by_hand = 1 WHERE id = ?1", [row])?;
            Ok(())
        }
        Write::Adopt { row } => {
            db.execute("UPDATE resources SET applied_set = ?2 WHERE id = ?1", params![row, set])?;
            Ok(())
        }
        Write::Delete { row, kind } => {
            db.execute("UPDATE resources SET deleted_at = ?2 WHERE id = ?1", params![row, now.as_micros()])?;
            match kind {
                Kind::Secret => db.execute("DELETE FROM secret_values WHERE resource = ?1", [row])?,
                Kind::Endpoint => {
                    // The ids that its senders gave stay until they are over: there may be a million.
                    db.execute("DELETE FROM endpoint_keys WHERE resource = ?1", [row])?
                }
                Kind::Account => {
                    db.execute("DELETE FROM oauth_consents WHERE account = ?1", [row])?;
                    db.execute("DELETE FROM oauth_tokens WHERE account = ?1", [row])?
                }
                Kind::Connection => db.execute("DELETE FROM connection_tests WHERE connection = ?1", [row])?,
                Kind::Sync => {
                    // Whoever waits for a run is answered; expiry removes the batches, a few at a time.
                    db.execute("UPDATE sync_states SET answered = requests WHERE sync = ?1", [row])?;
                    db.execute(
                        "DELETE FROM sync_states
                         WHERE sync = ?1 AND NOT EXISTS (SELECT 1 FROM sync_batches WHERE sync = ?1)",
                        [row],
                    )?
                }
                _ => 0,
            };
            Ok(())
        }
    }
}

/// Takes the row of a deleted recipe of the same name, so that its jobs are found by it again. Gives whether there is
/// one.
fn revive(
    db: &Connection,
    written: &Written,
    set: Option<&str>,
    by_hand: Option<bool>,
    from_seq: u64,
    now: Timestamp,
) -> Result<bool> {
    let name = written.document.name.as_str();
    let Some(row) = deleted_recipe(db, name)? else { return Ok(false) };
    db.prepare_cached(
        "UPDATE resources SET document = ?2, applied_set = ?3, revision = revision + 1, from_seq = ?4, updated_at = ?5,
                created_at = ?5, deleted_at = NULL, by_hand = ?6 WHERE id = ?1",
    )?
    .execute(params![row, written.text, set, from_seq.cast_signed(), now.as_micros(), by_hand])?;
    db.prepare_cached(
        "INSERT INTO recipe_revisions (recipe, revision, document) SELECT id, revision, document FROM resources WHERE id = ?1",
    )?
    .execute([row])?;
    Ok(true)
}

/// The row of the recipe of this name that was deleted last.
fn deleted_recipe(db: &Connection, name: &str) -> Result<Option<i64>> {
    Ok(db
        .prepare_cached(
            "SELECT id FROM resources WHERE workspace = 1 AND kind = 'recipe' AND name = ?1 AND deleted_at IS NOT NULL
             ORDER BY deleted_at DESC LIMIT 1",
        )?
        .query_row([name], |row| row.get(0))
        .optional()?)
}

/// The row of a recipe, or of the one of this name that was deleted last: its jobs are still there.
pub(crate) fn recipe_with_jobs(db: &Connection, name: &Name) -> Result<i64> {
    match row_of(db, Kind::Recipe, name) {
        Err(missing @ StoreError::NotFound(_)) => deleted_recipe(db, name.as_str())?.ok_or(missing),
        found => found,
    }
}

/// What a document brings besides its row: a secret's value, a recipe's revision.
fn keep_parts(db: &Connection, key: &MasterKey, row: i64, document: &Document, now: Timestamp) -> Result<()> {
    match &document.spec {
        Spec::Secret(secret) => match &secret.value {
            Some(value) => {
                let sealed = key.seal(&secret_place(row), &value.to_bytes())?;
                db.execute(
                    "INSERT OR REPLACE INTO secret_values (resource, sealed, updated_at) VALUES (?1, ?2, ?3)",
                    params![row, sealed, now.as_micros()],
                )?;
                Ok(())
            }
            None if secret.env.is_some() || secret.file.is_some() => {
                db.execute("DELETE FROM secret_values WHERE resource = ?1", [row])?;
                Ok(())
            }
            None => Ok(()),
        },
        Spec::Recipe(_) => {
            db.execute(
                "INSERT INTO recipe_revisions (recipe, revision, document)
                 SELECT id, revision, document FROM resources WHERE id = ?1",
                [row],
            )?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn new_endpoint_key(db: &Connection, row: i64, now: Timestamp) -> Result<String> {
    // 122 random bits: the URL is a secret of its own.
    let key = uuid::Uuid::new_v4().to_string();
    db.execute(
        "INSERT OR REPLACE INTO endpoint_keys (resource, key, created_at) VALUES (?1, ?2, ?3)",
        params![row, key, now.as_micros()],
    )?;
    Ok(key)
}
