//! Joins the server's view of tables with the engine's destinations.

use std::path::PathBuf;

use linkspan_engine::Engine;
use linkspan_model::Name;
use linkspan_server::{TablePage, TableSummary, Tables, TablesFuture};
use linkspan_store::{DataFolder, Store};
use tokio_util::sync::CancellationToken;

pub(crate) struct DestinationTables {
    store: Store,
    folder: PathBuf,
}

impl DestinationTables {
    pub(crate) fn new(store: Store, folder: PathBuf) -> Self {
        Self { store, folder }
    }
}

impl Tables for DestinationTables {
    fn list(&self, _destination: Name) -> TablesFuture<'_, Vec<TableSummary>> {
        Box::pin(async move {
            let _ = (&self.store, &self.folder);
            Ok(None)
        })
    }

    fn page(&self, _: Name, _: String, _: String, _: u64, _: u32) -> TablesFuture<'_, TablePage> {
        Box::pin(async move { Ok(None) })
    }
}

pub(crate) async fn run_syncs(_: &Engine, _: &DataFolder, _: CancellationToken) {}
