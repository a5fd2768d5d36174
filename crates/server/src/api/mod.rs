//! The operator API: everything that the CLI and the console do, under `/api/v1`, with the probes beside it.
//!
//! A route is declared once, with its parameters, bodies and answers; the router and the OpenAPI document are
//! both made from that declaration, and what a caller sends is checked against it before a handler runs.

mod accounts;
mod admin;
mod apply;
mod body;
mod call;
mod calls;
mod connections;
mod connectors;
mod events;
mod jobs;
mod openapi;
mod readiness;
mod refusals;
mod resources;
mod route;
mod syncs;
mod tables;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use linkspan_model::{Clock, Name};
use linkspan_outbound::Traffic;
use linkspan_store::Store;
use metrics_exporter_prometheus::PrometheusHandle;
use tower_service::Service as _;

use crate::accept::Handler;
use crate::framing;
use crate::ingress::Ingress;
use crate::problem::Problem;

pub use accounts::ConsentRefused;
pub use connections::{Connections, ConnectionsFuture, TestRefused};
pub use openapi::document as openapi_document;
pub use tables::{TableColumn, TablePage, TableSummary, TablesError};

/// Reads the tables of destinations. Destinations are an open set and not this crate's business.
pub trait Tables: Send + Sync + 'static {
    /// The tables of a destination.
    fn list(&self, destination: Name) -> TablesFuture<'_, Vec<TableSummary>>;
    /// What is damaged in a destination; reads all of it.
    fn check(&self, destination: Name) -> TablesFuture<'_, Vec<String>>;
    /// A page of a table: `limit` rows after `offset`.
    fn page(
        &self,
        destination: Name,
        schema: String,
        table: String,
        offset: u64,
        limit: u32,
    ) -> TablesFuture<'_, TablePage>;
}

/// What a reader of tables gives: `None` when there is no such table.
pub type TablesFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<Option<T>, TablesError>> + Send + 'a>>;

/// What the operator should know about how this server stands in the network.
#[derive(Debug, Clone)]
pub struct Exposure {
    /// What callers put before `/webhooks/…`.
    pub public_url: String,
    /// The address of the public listener.
    pub public: SocketAddr,
    /// The address of the operator listener.
    pub operator: SocketAddr,
    /// Names besides localhost by which the operator listener may be addressed.
    pub operator_hosts: Vec<String>,
    /// Whether the public listener speaks TLS itself.
    pub tls: bool,
    /// Private addresses that recipes may call.
    pub egress_allow: Vec<String>,
    /// Whether the master key lies in the data folder.
    pub key_in_data_folder: bool,
    /// The data folder.
    pub data: std::path::PathBuf,
}

/// What the handlers work with.
#[derive(Clone)]
pub struct Api(Arc<(Parts, readiness::Readiness)>);

/// The parts of an operator API.
pub struct Parts {
    /// The store.
    pub store: Store,
    /// The ingress, for test events.
    pub ingress: Ingress,
    /// Whose turn it is at each connection, for its status.
    pub traffic: Traffic,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Reads destination tables.
    pub tables: Box<dyn Tables>,
    /// Tests connections, and connects accounts.
    pub connections: Arc<dyn Connections>,
    /// How this server stands in the network.
    pub exposure: Exposure,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// Set while the server drains.
    pub draining: Arc<AtomicBool>,
}

impl std::ops::Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.0
    }
}

impl Api {
    /// An API over these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new((parts, readiness::Readiness::default())))
    }

    fn readiness(&self) -> &readiness::Readiness {
        &self.0.1
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Answers requests on the operator listener.
#[derive(Clone)]
pub struct OperatorHandler {
    router: axum::Router,
    hosts: Arc<[String]>,
}

impl OperatorHandler {
    /// A handler of every route.
    #[must_use]
    pub fn new(api: Api) -> Self {
        let hosts = api.exposure.operator_hosts.clone().into();
        Self { router: route::router(api, &route::all()), hosts }
    }
}

impl Handler for OperatorHandler {
    type Body = Body;

    async fn handle(&self, request: Request<Incoming>, _peer: SocketAddr) -> Response<Body> {
        let headers = request.headers();
        let checked = call::check_origin(request.uri(), headers, &self.hosts).and_then(|()| framing::check(headers));
        if let Err(problem) = checked {
            return problem.respond().map(Body::new);
        }
        let mut router = self.router.clone();
        match router.call(request.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// An unexpected fault of ours: the caller learns that it is ours, the log learns what.
fn internal(reason: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%reason, "an operator request failed");
    Problem::new(http::StatusCode::INTERNAL_SERVER_ERROR, "server.internal", "the server failed; its log says why")
}
