//! Joins the server's view of tables with the engine's destinations.

use std::path::PathBuf;

use linkspan_engine::destination::{self, DestinationError, TableName};
use linkspan_model::Name;
use linkspan_model::destination::DestinationSpec;
use linkspan_server::{TableColumn, TablePage, TableSummary, Tables, TablesError, TablesFuture};
use linkspan_store::Store;

pub(crate) struct DestinationTables {
    store: Store,
    folder: PathBuf,
}

impl DestinationTables {
    pub(crate) fn new(store: Store, folder: PathBuf) -> Self {
        Self { store, folder }
    }

    fn spec(&self, destination: &Name) -> Option<DestinationSpec> {
        self.store.snapshot().destination(destination).map(|found| found.spec.clone())
    }
}

impl Tables for DestinationTables {
    fn list(&self, destination: Name) -> TablesFuture<'_, Vec<TableSummary>> {
        Box::pin(async move {
            let Some(spec) = self.spec(&destination) else { return Ok(None) };
            let tables = destination::tables(self.folder.clone(), spec).await.map_err(refused)?;
            let summary = |table: destination::Table| TableSummary {
                destination: destination.to_string(),
                schema: table.schema,
                table: table.table,
                rows: table.rows,
            };
            Ok(Some(tables.into_iter().map(summary).collect()))
        })
    }

    fn check(&self, destination: Name) -> TablesFuture<'_, Vec<String>> {
        Box::pin(async move {
            let Some(spec) = self.spec(&destination) else { return Ok(None) };
            destination::check(self.folder.clone(), spec).await.map(Some).map_err(refused)
        })
    }

    fn page(
        &self,
        destination: Name,
        schema: String,
        table: String,
        offset: u64,
        limit: u32,
    ) -> TablesFuture<'_, TablePage> {
        Box::pin(async move {
            let Some(spec) = self.spec(&destination) else { return Ok(None) };
            let table = match TableName::new(&schema, &table) {
                Ok(table) => table,
                // No table has such a name.
                Err(DestinationError::Name(_)) => return Ok(None),
                Err(error) => return Err(refused(error)),
            };
            let page = destination::page(self.folder.clone(), spec, table, offset, limit).await;
            let column =
                |column: destination::ShownColumn| TableColumn { name: column.name, kind: column.kind.to_owned() };
            Ok(page.map_err(refused)?.map(|page| TablePage {
                columns: page.columns.into_iter().map(column).collect(),
                rows: page.rows,
                total: page.total,
            }))
        })
    }
}

fn refused(error: DestinationError) -> TablesError {
    let reason = error.to_string();
    match error {
        DestinationError::Busy { .. } => TablesError::Busy(reason),
        DestinationError::Place { .. } | DestinationError::Name(_) | DestinationError::Database { .. } => {
            TablesError::Unusable(reason)
        }
        DestinationError::Ended(_) => TablesError::Failed(reason),
    }
}
