//! The connectors of a configuration: users' documents, and those that come with the product.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use linkspan_model::account::AccountSpec;
use linkspan_model::connection::ConnectionSpec;
use linkspan_model::connector::{CompactConnector, Connector};
use linkspan_model::endpoint::EndpointSpec;
use linkspan_model::recipe::CallStep;
use linkspan_model::{Fault, Name, fault};
use serde_json::Value;

/// Where a connection leads: what it says with what its connector says, and the connector with the settings.
pub(crate) type Connected = (ConnectionSpec, Option<(Arc<Connector>, Arc<Value>)>);

/// A connector that was made of documents in these states.
type Compiled = (String, Result<Arc<Connector>, Vec<Fault>>);

/// Connectors by name, compiled when one is asked for.
#[derive(Debug, Default)]
pub(crate) struct Connectors {
    users: BTreeMap<Name, (String, CompactConnector)>,
    compiled: HashMap<Name, Compiled>,
    /// Of an earlier configuration: what was made of the same documents is used again.
    earlier: HashMap<Name, Compiled>,
}

impl Connectors {
    /// No connectors; what was made of those of an `earlier` configuration is used again where nothing has changed.
    pub(crate) fn after(earlier: &Self) -> Self {
        Self { earlier: earlier.compiled.clone(), ..Self::default() }
    }

    /// Forgets what nobody has asked for.
    pub(crate) fn complete(&mut self) {
        self.earlier = HashMap::new();
    }

    /// Takes a user's connector at a state of its document; one of the same name that comes with the product stands
    /// behind it.
    pub(crate) fn add(&mut self, name: Name, version: String, connector: CompactConnector) {
        self.users.insert(name, (version, connector));
    }

    /// The states of the users' documents that the connector of this name is made of.
    pub(crate) fn basis(&self, name: &Name) -> String {
        let mut basis = String::new();
        let mut next = Some(name);
        while let Some((version, connector)) = next.and_then(|name| self.users.get(name)) {
            basis.push(' ');
            basis.push_str(version);
            // One that extends its own name goes on with what comes with the product; circles are never used.
            next = connector.head.extends.as_ref().filter(|base| *base != name && basis.len() < 1_000);
        }
        basis
    }

    /// Whether there is one of this name.
    pub(crate) fn exists(&self, name: &Name) -> bool {
        self.users.contains_key(name) || linkspan_connectors::exists(name)
    }

    /// Every name.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        let bundled = linkspan_connectors::all().map(|bundled| &bundled.document.name);
        self.users.keys().chain(bundled.filter(|name| !self.users.contains_key(*name)))
    }

    /// Whether it is a user's.
    pub(crate) fn is_users(&self, name: &Name) -> bool {
        self.users.contains_key(name)
    }

    /// What the connector of this name says, with what it extends.
    ///
    /// # Errors
    /// It does not exist, or what it extends does not.
    pub(crate) fn resolve(&self, name: &Name) -> Result<CompactConnector, Fault> {
        let bundled = |name: &Name| Some(CompactConnector::of(linkspan_connectors::find(name)?.spec()));
        let find = |wanted: &Name, is_own: bool| {
            let users = if is_own { None } else { self.users.get(wanted).map(|(_, connector)| connector.clone()) };
            users.or_else(|| bundled(wanted))
        };
        let own = find(name, false).ok_or_else(|| Fault::new("", format_args!("there is no connector `{name}`")))?;
        own.resolve(name, &find)
    }

    /// The connector of this name.
    ///
    /// # Errors
    /// Every fault of it, paths relative to its `spec`.
    pub(crate) fn get(&mut self, name: &Name) -> Result<Arc<Connector>, Vec<Fault>> {
        if let Some((_, compiled)) = self.compiled.get(name) {
            return compiled.clone();
        }
        let basis = self.basis(name);
        let compiled = match self.earlier.remove(name).filter(|(of, _)| *of == basis) {
            Some((_, compiled)) => compiled,
            None => {
                let whole = self.resolve(name).map_err(|fault| vec![fault]);
                whole.and_then(|whole| Connector::open(&whole)).map(Arc::new)
            }
        };
        self.compiled.insert(name.clone(), (basis, compiled.clone()));
        compiled
    }

    /// Where a connection leads.
    ///
    /// # Errors
    /// Every fault, paths relative to the connection's `spec`.
    pub(crate) fn connect(
        &mut self,
        spec: &ConnectionSpec,
        account: Option<&AccountSpec>,
    ) -> Result<Connected, Vec<Fault>> {
        let Some(name) = &spec.connector else { return Ok((spec.clone(), None)) };
        let connector = self.usable(name)?;
        let (whole, settings) = connector.connect(spec)?;
        match connector.account_fault(account) {
            Some(fault) => Err(vec![fault]),
            None => Ok((whole, Some((connector, Arc::new(settings))))),
        }
    }

    /// An endpoint with what its connector's webhook says.
    ///
    /// # Errors
    /// Every fault, paths relative to the endpoint's `spec`.
    pub(crate) fn intake(&mut self, spec: &EndpointSpec) -> Result<EndpointSpec, Vec<Fault>> {
        let (Some(name), Some(webhook)) = (&spec.connector, &spec.webhook) else { return Ok(spec.clone()) };
        let connector = self.usable(name)?;
        let webhook = connector.spec.webhook(webhook).map_err(|fault| vec![fault.under("webhook")])?;
        webhook.endpoint.complete(spec)
    }

    /// The connector that a document names in its field `connector`.
    fn usable(&mut self, name: &Name) -> Result<Arc<Connector>, Vec<Fault>> {
        self.get(name).map_err(|faults| {
            let reasons = fault::in_words(&faults);
            vec![Fault::new("connector", format_args!("connector `{name}` cannot be used: {reasons}"))]
        })
    }

    /// What is wrong with a step that calls an action through this connection, paths relative to the step.
    pub(crate) fn call_faults(&mut self, call: &CallStep, connection: &ConnectionSpec) -> Vec<Fault> {
        let Some(name) = &connection.connector else {
            let reason = format!("connection `{}` has no connector, and so no actions", call.connection);
            return vec![Fault::new("call.connection", reason)];
        };
        // What is wrong with the connector is said of the connection.
        let Ok(connector) = self.get(name) else { return Vec::new() };
        match connector.action(&call.action) {
            Err(fault) => vec![fault.under("call.action")],
            Ok(action) => {
                let faults = action.input.name_faults(call.input.keys().map(String::as_str));
                faults.into_iter().map(|fault| fault.under("call.input")).collect()
            }
        }
    }
}
