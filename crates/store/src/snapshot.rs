//! What is configured, as the data plane reads it: immutable, in memory, rebuilt when a document changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use linkspan_model::account::AccountSpec;
use linkspan_model::connection::ConnectionSpec;
use linkspan_model::connector::{CompactConnector, Connector, ConnectorSpec};
use linkspan_model::destination::DestinationSpec;
use linkspan_model::document::Spec;
use linkspan_model::endpoint::EndpointSpec;
use linkspan_model::fault::in_words;
use linkspan_model::recipe::{Recipe, RecipeSpec};
use linkspan_model::sync::SyncSpec;
use linkspan_model::verify::{Verifier, Verify};
use linkspan_model::{Fault, Kind, Name, SecretBytes, Timestamp};
use rusqlite::{Connection, OptionalExtension as _};
use serde_json::Value;

use crate::connector::Connectors;
use crate::error::{Result, StoreError};
use crate::open::SecretSource;
use crate::seal::MasterKey;

/// The whole configuration at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts the changes of the configuration.
    pub revision: u64,
    /// Every document, as it was read.
    pub(crate) documents: BTreeMap<(Kind, Name), Stored>,
    by_key: HashMap<Box<str>, Arc<EndpointView>>,
    endpoints: BTreeMap<Name, Arc<EndpointView>>,
    recipes: BTreeMap<Name, Arc<RecipeView>>,
    /// Those that run, by their endpoints.
    running: HashMap<Name, Vec<Arc<RecipeView>>>,
    pub(crate) connectors: Connectors,
    connections: BTreeMap<Name, Arc<ConnectionView>>,
    accounts: BTreeMap<Name, Arc<AccountView>>,
    destinations: BTreeMap<Name, Arc<DestinationView>>,
    syncs: BTreeMap<Name, Arc<SyncView>>,
    secrets: BTreeMap<Name, std::result::Result<SecretBytes, String>>,
    unusable: BTreeMap<(Kind, Name), String>,
    /// Row and revision of every secret.
    secret_versions: BTreeMap<Name, String>,
}

/// An endpoint, ready to verify.
#[derive(Debug)]
pub struct EndpointView {
    /// Its row.
    pub row: i64,
    /// Its name.
    pub name: Name,
    /// The random part of its URL.
    pub key: String,
    /// What its document says, with what its connector's webhook says.
    pub spec: EndpointSpec,
    /// Its verification; or why it cannot verify, and then every request is turned away.
    pub verifier: std::result::Result<Verifier, String>,
}

/// A recipe, compiled.
#[derive(Debug)]
pub struct RecipeView {
    /// Its row.
    pub row: i64,
    /// Its name.
    pub name: Name,
    /// The revision of its document.
    pub revision: u64,
    /// Events up to this position came before it ran.
    pub from_seq: u64,
    /// What its document says.
    pub spec: RecipeSpec,
    /// Its condition and templates.
    pub recipe: Arc<Recipe>,
}

/// An account.
#[derive(Debug)]
pub struct AccountView {
    /// Its row.
    pub row: i64,
    /// Its name.
    pub name: Name,
    /// Row and revision of the account and of the secrets that it names: what its credentials were made of.
    pub basis: String,
    /// What its document says.
    pub spec: AccountSpec,
}

/// A connection with its account.
#[derive(Debug)]
pub struct ConnectionView {
    /// Its row.
    pub row: i64,
    /// Row and revision of the connection, its account and the secrets of both: what a test was made with.
    pub basis: String,
    /// Its name.
    pub name: Name,
    /// What its document says, with what its connector says.
    pub spec: Arc<ConnectionSpec>,
    /// Its account, when it has one.
    pub account: Option<Arc<AccountView>>,
    /// Its connector and its settings there, when it has one.
    pub connector: Option<(Arc<Connector>, Arc<Value>)>,
    /// Why it cannot be used: its connector is not what it was when the connection was written.
    pub unusable: Option<String>,
}

/// A connector, of a user or one that comes with the product.
#[derive(Debug)]
pub struct ConnectorView {
    /// Its name.
    pub name: Name,
    /// Whether it is a user's.
    pub is_users: bool,
    /// What it says, with what it extends; without its actions and streams.
    pub head: Arc<ConnectorSpec>,
    /// How many actions, streams and webhooks it offers.
    pub counts: [usize; 3],
}

/// A document that is stored, as the data plane and plans read it.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// Its row.
    pub(crate) row: i64,
    /// Its id.
    id: String,
    /// Counts its changes from 1.
    pub(crate) revision: u64,
    /// Of a recipe: events up to this position came before it ran.
    from_seq: u64,
    /// The set of the apply that made it.
    pub(crate) applied_set: Option<String>,
    /// Of one that was applied: whether a command has changed it since.
    pub(crate) by_hand: Option<bool>,
    /// When it was made.
    created_at: Timestamp,
    /// What it says; or why it cannot be used: another version of the product has stored it.
    pub(crate) said: Arc<std::result::Result<Said, String>>,
}

/// What a document says.
#[derive(Debug)]
pub(crate) enum Said {
    /// A connector, as it is kept in memory.
    Connector(CompactConnector),
    /// Any other.
    Spec(Spec),
}

impl Said {
    /// The documents that this one refers to, each with the path of the reference.
    pub(crate) fn references(&self) -> Vec<(String, Kind, &Name)> {
        match self {
            Self::Connector(connector) => {
                connector.head.extends.iter().map(|name| ("spec.extends".to_owned(), Kind::Connector, name)).collect()
            }
            Self::Spec(spec) => spec.references(),
        }
    }
}

/// A destination.
#[derive(Debug)]
pub struct DestinationView {
    /// Its name.
    pub name: Name,
    /// What its document says.
    pub spec: DestinationSpec,
}

/// A sync.
#[derive(Debug)]
pub struct SyncView {
    /// Its row.
    pub row: i64,
    /// Its id, which names its objects in the bucket.
    pub id: String,
    /// Its name.
    pub name: Name,
    /// When it was made; its first run is due then.
    pub created_at: Timestamp,
    /// What its document says.
    pub spec: SyncSpec,
}

impl Snapshot {
    /// Reads everything that is configured. Of what is in `earlier` at the same revision nothing is read again.
    pub(crate) fn load(db: &Connection, key: &MasterKey, source: &dyn SecretSource, earlier: &Self) -> Result<Self> {
        let revision: Option<i64> =
            db.query_row("SELECT value FROM meta WHERE key = 'revision'", [], |row| row.get(0)).optional()?;
        let mut snapshot = Self {
            revision: revision.unwrap_or(0).cast_unsigned(),
            connectors: Connectors::after(&earlier.connectors),
            ..Self::default()
        };
        // Kinds come in the order in which they depend on each other.
        for ((kind, name), stored) in stored(db, earlier)? {
            match stored.said.as_ref() {
                Ok(said) => snapshot.add(db, key, source, earlier, &name, &stored, said)?,
                Err(reason) => snapshot.add_unusable(db, kind, &name, &stored, reason)?,
            }
            snapshot.documents.insert((kind, name), stored);
        }
        snapshot.connectors.complete();
        Ok(snapshot)
    }

    #[expect(clippy::too_many_arguments, reason = "one loop, taken apart")]
    fn add(
        &mut self,
        db: &Connection,
        key: &MasterKey,
        source: &dyn SecretSource,
        earlier: &Self,
        name: &Name,
        stored: &Stored,
        said: &Said,
    ) -> Result<()> {
        let (name, row) = (name.clone(), stored.row);
        let version = format!("{row}.{}", stored.revision);
        let spec = match said {
            Said::Connector(connector) => {
                self.connectors.add(name, version, connector.clone());
                return Ok(());
            }
            Said::Spec(spec) => spec,
        };
        match spec {
            Spec::Secret(spec) => {
                let value = match stored_value(db, key, row)? {
                    Some(value) => Ok(value),
                    None => source
                        .value(spec)
                        .and_then(|value| value.ok_or_else(|| format!("secret `{name}` has no value yet"))),
                };
                self.secret_versions.insert(name.clone(), version);
                self.secrets.insert(name, value);
            }
            Spec::Account(spec) => {
                let mut basis = version;
                self.add_secrets(&mut basis, spec.secrets());
                let view = AccountView { row, name: name.clone(), basis, spec: spec.clone() };
                self.accounts.insert(name, Arc::new(view));
            }
            Spec::Connector(_) => {}
            Spec::Connection(spec) => {
                let account = spec.account.as_ref().and_then(|name| self.accounts.get(name)).cloned();
                let mut basis =
                    account.as_ref().map_or(version.clone(), |account| format!("{version} {}", account.basis));
                if let Some(connector) = &spec.connector {
                    basis.push_str(&self.connectors.basis(connector));
                }
                self.add_secrets(&mut basis, spec.secrets());
                let connected = self.connectors.connect(spec, account.as_ref().map(|account| &account.spec));
                let ((spec, connector), unusable) = match connected {
                    Ok(connected) => (connected, None),
                    Err(faults) => ((ConnectionSpec::clone(spec), None), Some(in_words(&faults))),
                };
                let spec = Arc::new(spec);
                let view = ConnectionView { row, basis, name: name.clone(), spec, account, connector, unusable };
                self.connections.insert(name, Arc::new(view));
            }
            Spec::Endpoint(spec) => {
                let intake = self.connectors.intake(spec).map_err(|faults| in_words(&faults));
                let verifier = intake.as_ref().map_err(Clone::clone).and_then(|whole| self.verifier(whole));
                let spec = intake.unwrap_or_else(|_| EndpointSpec::clone(spec));
                self.add_endpoint(db, row, name, spec, verifier)?;
            }
            Spec::Recipe(spec) => {
                let known = earlier.recipes.get(&name).filter(|known| {
                    (known.row, known.revision, known.from_seq) == (row, stored.revision, stored.from_seq)
                });
                let view = match known {
                    Some(known) => Arc::clone(known),
                    None => match recipe_view(&name, stored, spec) {
                        Ok(view) => Arc::new(view),
                        Err(faults) => return self.add_unusable(db, Kind::Recipe, &name, stored, &in_words(&faults)),
                    },
                };
                if view.spec.is_enabled() {
                    self.running.entry(view.spec.endpoint().clone()).or_default().push(Arc::clone(&view));
                }
                self.recipes.insert(name, view);
            }
            Spec::Destination(spec) => {
                self.destinations.insert(name.clone(), Arc::new(DestinationView { name, spec: spec.clone() }));
            }
            Spec::Sync(spec) => {
                let view = SyncView {
                    row,
                    id: stored.id.clone(),
                    name: name.clone(),
                    created_at: stored.created_at,
                    spec: spec.clone(),
                };
                self.syncs.insert(name, Arc::new(view));
            }
        }
        Ok(())
    }

    fn add_endpoint(
        &mut self,
        db: &Connection,
        row: i64,
        name: Name,
        spec: EndpointSpec,
        verifier: std::result::Result<Verifier, String>,
    ) -> Result<()> {
        let key = endpoint_key(db, row)?;
        let view = Arc::new(EndpointView { row, name: name.clone(), key: key.clone(), spec, verifier });
        self.by_key.insert(key.into(), Arc::clone(&view));
        self.endpoints.insert(name, view);
        Ok(())
    }

    /// Notes a document that cannot be used. It stops nothing else, and an apply replaces it.
    fn add_unusable(&mut self, db: &Connection, kind: Kind, name: &Name, stored: &Stored, reason: &str) -> Result<()> {
        tracing::error!(%kind, %name, reason, "a stored document cannot be used; apply it again");
        if kind == Kind::Endpoint {
            // Its senders are turned away until it can be used: an unknown URL would make them give up.
            self.add_endpoint(db, stored.row, name.clone(), EndpointSpec::default(), Err(reason.to_owned()))?;
        }
        self.unusable.insert((kind, name.clone()), reason.to_owned());
        Ok(())
    }

    /// Why a document cannot be used, when another version of the product has stored it.
    #[must_use]
    pub fn unusable(&self, kind: Kind, name: &Name) -> Option<&str> {
        self.unusable.get(&(kind, name.clone())).map(String::as_str)
    }

    /// Every document that cannot be used, and why.
    pub fn all_unusable(&self) -> impl Iterator<Item = (Kind, &Name, &str)> {
        self.unusable.iter().map(|((kind, name), reason)| (*kind, name, reason.as_str()))
    }

    /// Adds the states of secrets to what something was made of.
    fn add_secrets(&self, basis: &mut String, secrets: Vec<(String, &Name)>) {
        for (_, secret) in secrets {
            basis.push(' ');
            basis.push_str(self.secret_versions.get(secret).map_or("", String::as_str));
        }
    }

    fn verifier(&self, spec: &EndpointSpec) -> std::result::Result<Verifier, String> {
        let verify = spec.verify.as_ref().ok_or("it does not say how a caller proves itself")?;
        // One without a value, such as the next one of a rotation, must not take the others down.
        let given = verify.secrets().iter().filter(|reference| self.secret(&reference.secret).is_ok());
        let with_value = verify.clone().with_secrets(given.cloned().collect());
        if let (Some(first), []) = (verify.secrets().first(), with_value.secrets()) {
            self.secret(&first.secret)?;
        }
        Verifier::compile(&with_value, |name| self.secret(name).ok().cloned()).map_err(|faults| in_words(&faults))
    }

    /// The secrets of an endpoint's verification that have no value, while others have: it goes on with those.
    #[must_use]
    pub fn missing_secrets(&self, endpoint: &EndpointView) -> Vec<&Name> {
        if endpoint.verifier.is_err() {
            return Vec::new();
        }
        let secrets = endpoint.spec.verify.as_ref().map_or(&[][..], Verify::secrets);
        let known = secrets.iter().filter_map(|reference| self.secrets.get_key_value(&reference.secret));
        known.filter(|(_, value)| value.is_err()).map(|(name, _)| name).collect()
    }

    /// The endpoint with this key in its URL.
    #[must_use]
    pub fn endpoint_by_key(&self, key: &str) -> Option<&Arc<EndpointView>> {
        self.by_key.get(key)
    }

    /// The endpoint with this name.
    #[must_use]
    pub fn endpoint(&self, name: &Name) -> Option<&Arc<EndpointView>> {
        self.endpoints.get(name)
    }

    /// Every endpoint, by name.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<EndpointView>> {
        self.endpoints.values()
    }

    /// The recipe with this name.
    #[must_use]
    pub fn recipe(&self, name: &Name) -> Option<&Arc<RecipeView>> {
        self.recipes.get(name)
    }

    /// Every recipe, by name.
    pub fn recipes(&self) -> impl Iterator<Item = &Arc<RecipeView>> {
        self.recipes.values()
    }

    /// The recipes that run on the events of this endpoint, by name.
    #[must_use]
    pub fn recipes_on(&self, endpoint: &Name) -> &[Arc<RecipeView>] {
        self.running.get(endpoint).map_or(&[], Vec::as_slice)
    }

    /// The endpoints that a running recipe waits for.
    pub fn awaited_endpoints(&self) -> impl Iterator<Item = &Arc<EndpointView>> {
        self.running.keys().filter_map(|name| self.endpoints.get(name))
    }

    /// The account with this name.
    #[must_use]
    pub fn account(&self, name: &Name) -> Option<&Arc<AccountView>> {
        self.accounts.get(name)
    }

    /// Every account, by name.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<AccountView>> {
        self.accounts.values()
    }

    /// The connection with this name.
    #[must_use]
    pub fn connection(&self, name: &Name) -> Option<&Arc<ConnectionView>> {
        self.connections.get(name)
    }

    /// Every connection, by name.
    pub fn connections(&self) -> impl Iterator<Item = &Arc<ConnectionView>> {
        self.connections.values()
    }

    /// Every connector, by name: users' first, then those that come with the product.
    ///
    /// # Errors
    /// Of each, why it cannot be used.
    pub fn connectors(&self) -> impl Iterator<Item = (&Name, std::result::Result<ConnectorView, Fault>)> {
        self.connectors.names().map(|name| (name, self.connector(name)))
    }

    /// The connector with this name.
    ///
    /// # Errors
    /// There is none, or what it extends does not exist.
    pub fn connector(&self, name: &Name) -> std::result::Result<ConnectorView, Fault> {
        let whole = self.connectors.resolve(name)?;
        let counts = whole.counts();
        Ok(ConnectorView { name: name.clone(), is_users: self.connectors.is_users(name), head: whole.head, counts })
    }

    /// Whether a user has written the connector with this name.
    #[must_use]
    pub fn is_users_connector(&self, name: &Name) -> bool {
        self.connectors.is_users(name)
    }

    /// What the connector with this name says, with what it extends and all that it offers, but for its cases.
    ///
    /// # Errors
    /// There is none, what it extends does not exist, or an action does not read.
    pub fn whole_connector(&self, name: &Name) -> std::result::Result<ConnectorSpec, Fault> {
        self.connectors.resolve(name)?.spec()
    }

    /// Whether there is a connector with this name.
    #[must_use]
    pub fn has_connector(&self, name: &Name) -> bool {
        self.connectors.exists(name)
    }

    /// The destination with this name.
    #[must_use]
    pub fn destination(&self, name: &Name) -> Option<&Arc<DestinationView>> {
        self.destinations.get(name)
    }

    /// Every destination, by name.
    pub fn destinations(&self) -> impl Iterator<Item = &Arc<DestinationView>> {
        self.destinations.values()
    }

    /// The sync with this name.
    #[must_use]
    pub fn sync(&self, name: &Name) -> Option<&Arc<SyncView>> {
        self.syncs.get(name)
    }

    /// Every sync, by name.
    pub fn syncs(&self) -> impl Iterator<Item = &Arc<SyncView>> {
        self.syncs.values()
    }

    /// The value of a secret.
    ///
    /// # Errors
    /// Why it has none, in a sentence without the value.
    pub fn secret(&self, name: &Name) -> std::result::Result<&SecretBytes, String> {
        match self.secrets.get(name) {
            Some(Ok(value)) => Ok(value),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err(format!("there is no secret `{name}`")),
        }
    }

    /// The values of all secrets that have one, for what hides them.
    pub fn secret_values(&self) -> impl Iterator<Item = &SecretBytes> {
        self.secrets.values().filter_map(|value| value.as_ref().ok())
    }

    /// Every secret's name, and why it has no value when it has none.
    pub fn secrets(&self) -> impl Iterator<Item = (&Name, std::result::Result<(), &str>)> {
        self.secrets.iter().map(|(name, value)| (name, value.as_ref().map(|_| ()).map_err(String::as_str)))
    }
}

/// Where a sealed secret belongs: a value cannot be moved to another secret's row.
pub(crate) fn secret_place(row: i64) -> String {
    format!("secret_values/{row}")
}

/// The value of a secret that is stored here.
pub(crate) fn stored_value(db: &Connection, key: &MasterKey, row: i64) -> Result<Option<SecretBytes>> {
    let sealed: Option<Vec<u8>> = db
        .prepare_cached("SELECT sealed FROM secret_values WHERE resource = ?1")?
        .query_row([row], |row| row.get(0))
        .optional()?;
    sealed.map(|sealed| key.open(&secret_place(row), &sealed)).transpose()
}

fn endpoint_key(db: &Connection, row: i64) -> Result<String> {
    Ok(db.prepare_cached("SELECT key FROM endpoint_keys WHERE resource = ?1")?.query_row([row], |row| row.get(0))?)
}

fn recipe_view(name: &Name, stored: &Stored, spec: &RecipeSpec) -> std::result::Result<RecipeView, Vec<Fault>> {
    Ok(RecipeView {
        row: stored.row,
        name: name.clone(),
        revision: stored.revision,
        from_seq: stored.from_seq,
        spec: spec.clone(),
        recipe: Arc::new(Recipe::compile(spec)?),
    })
}

/// Every live document, by kind and name. The text of one is read only when it is not in `earlier` as it is now.
fn stored(db: &Connection, earlier: &Snapshot) -> Result<BTreeMap<(Kind, Name), Stored>> {
    let mut statement = db.prepare_cached(
        "SELECT id, public_id, kind, name, revision, from_seq, applied_set, created_at, by_hand
         FROM resources WHERE workspace = 1 AND deleted_at IS NULL",
    )?;
    let mut rows = statement.query([])?;
    let mut found = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (kind, name): (String, String) = (row.get(2)?, row.get(3)?);
        let kind: Kind = kind.parse().map_err(StoreError::Database)?;
        let name: Name = name.parse().map_err(|error| StoreError::Database(format!("{error}")))?;
        let (id, revision) = (row.get(0)?, row.get::<_, i64>(4)?.cast_unsigned());
        let known = earlier.documents.get(&(kind, name.clone()));
        let said = match known.filter(|known| (known.row, known.revision) == (id, revision)) {
            Some(known) => Arc::clone(&known.said),
            None => Arc::new(read_said(db, kind, id)?),
        };
        let stored = Stored {
            row: id,
            id: row.get(1)?,
            revision,
            from_seq: row.get::<_, i64>(5)?.cast_unsigned(),
            applied_set: row.get(6)?,
            created_at: Timestamp::from_micros(row.get(7)?),
            by_hand: row.get(8)?,
            said,
        };
        found.insert((kind, name), stored);
    }
    Ok(found)
}

/// What the document in a row says; or why it does not read: a version of the product that knew other fields stored it.
fn read_said(db: &Connection, kind: Kind, row: i64) -> Result<std::result::Result<Said, String>> {
    #[derive(serde::Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        spec: &'a serde_json::value::RawValue,
    }
    let text: String =
        db.prepare_cached("SELECT document FROM resources WHERE id = ?1")?.query_row([row], |row| row.get(0))?;
    let unreadable = |faults: Vec<Fault>| format!("it does not read with this version: {}", in_words(&faults));
    let spec = match serde_json::from_str::<Envelope<'_>>(&text) {
        Ok(envelope) => envelope.spec.get(),
        Err(error) => return Ok(Err(format!("it does not read with this version: {error}"))),
    };
    if kind == Kind::Connector {
        return Ok(CompactConnector::read(spec).map(Said::Connector).map_err(unreadable));
    }
    let written: Value = serde_json::from_str(spec)?;
    Ok(Spec::reread(kind, &written).map(Said::Spec).map_err(unreadable))
}
