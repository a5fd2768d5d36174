//! Joins the server's tests of connections, calls and consents with the engine's.

use std::convert::Infallible;

use linkspan_engine::connection_test::{TestError, test};
use linkspan_engine::oauth::{self, ConsentError};
use linkspan_engine::{Engine, call};
use linkspan_model::Name;
use linkspan_model::call::{Called, CompiledCall, CompiledRead, Piece};
use linkspan_model::oauth2::{ConsentAnswer, ConsentAt};
use linkspan_server::{Connections, ConnectionsFuture, ConsentRefused, TestRefused};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

pub(crate) struct EngineConnections {
    pub(crate) engine: Engine,
    /// Where a consent is taken to its end, also when the browser goes away meanwhile: its code is good only once.
    pub(crate) tasks: TaskTracker,
}

impl Connections for EngineConnections {
    fn test(&self, connection: Name) -> ConnectionsFuture<'_, (), TestRefused> {
        Box::pin(async move {
            test(&self.engine, &connection).await.map_err(|error| match error {
                TestError::Missing => TestRefused::Missing,
                TestError::NoTest(reason) => TestRefused::NoTest(reason.to_owned()),
                TestError::Store(error) => TestRefused::Store(error),
            })
        })
    }

    fn call(&self, connection: Name, call: CompiledCall) -> ConnectionsFuture<'_, Called, Infallible> {
        Box::pin(async move {
            let snapshot = self.engine.store.snapshot().clone();
            Ok(call::call(&self.engine, &snapshot, &connection, &call).await)
        })
    }

    fn read(&self, connection: Name, list: CompiledRead) -> mpsc::Receiver<Piece> {
        // One page waits while the one before is written: whoever reads slowly is not read ahead of.
        let (pieces, taken) = mpsc::channel(1);
        let engine = self.engine.clone();
        self.tasks.spawn(async move {
            let snapshot = engine.store.snapshot().clone();
            call::read(&engine, &snapshot, &connection, &list, pieces).await;
        });
        taken
    }

    fn begin_consent(&self, account: Name, callback_url: String) -> ConnectionsFuture<'_, ConsentAt, ConsentRefused> {
        Box::pin(async move {
            oauth::begin_consent(&self.engine, &account, &callback_url).await.map_err(|error| match error {
                ConsentError::Missing => ConsentRefused::Missing,
                ConsentError::OtherGrant => ConsentRefused::OtherGrant,
                ConsentError::NotReady(reason) => ConsentRefused::NotReady(reason),
                ConsentError::Store(error) => ConsentRefused::Store(error),
            })
        })
    }

    fn finish_consent(&self, answer: ConsentAnswer) -> ConnectionsFuture<'_, Name, String> {
        let engine = self.engine.clone();
        let task = self.tasks.spawn(async move { oauth::finish_consent(&engine, answer).await });
        Box::pin(
            async move { task.await.unwrap_or_else(|_| Err("the server is about to end; connect again".to_owned())) },
        )
    }
}
