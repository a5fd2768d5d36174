//! Joins the server's tests of connections with the engine's.

use linkspan_engine::Engine;
use linkspan_engine::connection_test::{TestError, test};
use linkspan_model::Name;
use linkspan_server::{Connections, ConnectionsFuture, TestRefused};

pub(crate) struct EngineConnections(pub(crate) Engine);

impl Connections for EngineConnections {
    fn test(&self, connection: Name) -> ConnectionsFuture<'_> {
        Box::pin(async move {
            test(&self.0, &connection).await.map_err(|error| match error {
                TestError::Missing => TestRefused::Missing,
                TestError::NoTest(reason) => TestRefused::NoTest(reason.to_owned()),
                TestError::Store(error) => TestRefused::Store(error),
            })
        })
    }
}
