//! What is configured, as the data plane reads it: immutable, in memory, rebuilt when a document changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use linkspan_model::account::AccountSpec;
use linkspan_model::connection::ConnectionSpec;
use linkspan_model::connector::{Connector, ConnectorSpec};
use linkspan_model::destination::DestinationSpec;
use linkspan_model::document::Spec;
use linkspan_model::endpoint::EndpointSpec;
use linkspan_model::fault::in_words;
use linkspan_model::recipe::{Recipe, RecipeSpec};
use linkspan_model::sync::SyncSpec;
use linkspan_model::verify::Verifier;
use linkspan_model::{Fault, Name, SecretBytes, Timestamp};
use rusqlite::{Connection, OptionalExtension as _};
use serde_json::Value;

use crate::connector::Connectors;
use crate::error::{Result, StoreError};
use crate::open::SecretSource;
use crate::resource::{Resource, all, read_back};
use crate::seal::MasterKey;

/// The whole configuration at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts the changes of the configuration.
    pub revision: u64,
    by_key: HashMap<Box<str>, Arc<EndpointView>>,
    endpoints: BTreeMap<Name, Arc<EndpointView>>,
    recipes: BTreeMap<Name, Arc<RecipeView>>,
    connectors: Connectors,
    connections: BTreeMap<Name, Arc<ConnectionView>>,
    accounts: BTreeMap<Name, Arc<AccountView>>,
    destinations: BTreeMap<Name, Arc<DestinationView>>,
    syncs: BTreeMap<Name, Arc<SyncView>>,
    secrets: BTreeMap<Name, std::result::Result<SecretBytes, String>>,
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
    /// What it says, with what it extends.
    pub spec: ConnectorSpec,
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
    /// Reads everything that is configured.
    pub(crate) fn load(db: &Connection, key: &MasterKey, source: &dyn SecretSource) -> Result<Self> {
        let revision: Option<i64> =
            db.query_row("SELECT value FROM meta WHERE key = 'revision'", [], |row| row.get(0)).optional()?;
        let mut snapshot = Self { revision: revision.unwrap_or(0).cast_unsigned(), ..Self::default() };
        // Kinds come in the order in which they depend on each other.
        for resource in all(db, None)? {
            snapshot.add(db, key, source, &resource)?;
        }
        Ok(snapshot)
    }

    fn add(&mut self, db: &Connection, key: &MasterKey, source: &dyn SecretSource, resource: &Resource) -> Result<()> {
        let name = resource.name.clone();
        let version = format!("{}.{}", resource.row, resource.revision);
        match read_back(resource)?.spec {
            Spec::Secret(spec) => {
                let value = match stored_value(db, key, resource.row)? {
                    Some(value) => Ok(value),
                    None => source
                        .value(&spec)
                        .and_then(|value| value.ok_or_else(|| format!("secret `{name}` has no value yet"))),
                };
                self.secret_versions.insert(name.clone(), version);
                self.secrets.insert(name, value);
            }
            Spec::Account(spec) => {
                let mut basis = version;
                self.add_secrets(&mut basis, spec.secrets());
                let view = AccountView { row: resource.row, name: name.clone(), basis, spec };
                self.accounts.insert(name, Arc::new(view));
            }
            Spec::Connector(spec) => self.connectors.add(name, version, *spec),
            Spec::Connection(spec) => {
                let account = spec.account.as_ref().and_then(|name| self.accounts.get(name)).cloned();
                let mut basis =
                    account.as_ref().map_or(version.clone(), |account| format!("{version} {}", account.basis));
                if let Some(connector) = &spec.connector {
                    basis.push_str(&self.connectors.basis(connector));
                }
                self.add_secrets(&mut basis, spec.secrets());
                let connected = self.connectors.connect(&spec, account.as_ref().map(|account| &account.spec));
                let ((spec, connector), unusable) = match connected {
                    Ok(connected) => (connected, None),
                    Err(faults) => ((*spec, None), Some(in_words(&faults))),
                };
                let row = resource.row;
                let spec = Arc::new(spec);
                let view = ConnectionView { row, basis, name: name.clone(), spec, account, connector, unusable };
                self.connections.insert(name, Arc::new(view));
            }
            Spec::Endpoint(spec) => {
                let intake = self.connectors.intake(&spec).map_err(|faults| in_words(&faults));
                let verifier = intake.as_ref().map_err(Clone::clone).and_then(|whole| self.verifier(whole));
                let spec = intake.unwrap_or(*spec);
                let key = endpoint_key(db, resource.row)?;
                let view =
                    Arc::new(EndpointView { row: resource.row, name: name.clone(), key: key.clone(), spec, verifier });
                self.by_key.insert(key.into(), Arc::clone(&view));
                self.endpoints.insert(name, view);
            }
            Spec::Recipe(spec) => {
                let view = recipe_view(db, resource, spec)?;
                self.recipes.insert(name, Arc::new(view));
            }
            Spec::Destination(spec) => {
                self.destinations.insert(name.clone(), Arc::new(DestinationView { name, spec }));
            }
            Spec::Sync(spec) => {
                let view = SyncView {
                    row: resource.row,
                    id: resource.id.clone(),
                    name: name.clone(),
                    created_at: resource.created_at,
                    spec,
                };
                self.syncs.insert(name, Arc::new(view));
            }
        }
        Ok(())
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
        for reference in verify.secrets() {
            self.secret(&reference.secret)?;
        }
        Verifier::compile(verify, |name| self.secret(name).ok().cloned()).map_err(|faults| in_words(&faults))
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
        let spec = self.connectors.resolve(name)?;
        Ok(ConnectorView { name: name.clone(), is_users: self.connectors.is_users(name), spec })
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

fn recipe_view(db: &Connection, resource: &Resource, spec: RecipeSpec) -> Result<RecipeView> {
    let from_seq: i64 = db
        .prepare_cached("SELECT from_seq FROM resources WHERE id = ?1")?
        .query_row([resource.row], |row| row.get(0))?;
    let recipe = Recipe::compile(&spec)
        .map_err(|faults| StoreError::Database(format!("a stored recipe does not compile: {faults:?}")))?;
    Ok(RecipeView {
        row: resource.row,
        name: resource.name.clone(),
        revision: resource.revision,
        from_seq: from_seq.cast_unsigned(),
        spec,
        recipe: Arc::new(recipe),
    })
}
