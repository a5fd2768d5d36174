//! What others call: ingress, the operator API, probes, OpenAPI.

pub mod accept;
mod api;
pub mod callback;
mod framing;
pub mod ingress;
mod metrics;
mod problem;
pub mod staged;

pub use api::{
    Api, Connections, ConnectionsFuture, ConsentRefused, Exposure, OperatorHandler, Parts, TableColumn, TablePage,
    TableSummary, Tables, TablesError, TablesFuture, TestRefused, openapi_document,
};
pub use problem::Problem;
