//! More than the writer can take: refused at once, and nothing half stored.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use linkspan_model::limits;
use linkspan_store::StoreError;

use crate::harness::{World, append_within};

pub async fn turns_events_away_when_too_many_bytes_wait(world: World) {
    // 1,600 bodies of 64 KiB are 100 MiB; 64 MiB may wait.
    let body = Bytes::from(vec![b'x'; limits::INLINE_BODY_BYTES]);
    let appends = (0..1_600).map(|_| append_within(world.store(), world.event(body.clone()), Duration::from_secs(60)));
    let outcomes = join_all(appends).await;
    let mut kept: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).map(|kept| kept.id).collect();
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(StoreError::Overloaded))).count();
    assert_eq!(kept.len() + refused, 1_600);
    assert!(refused > 0 && kept.len() >= 1_000, "{} kept", kept.len());
    kept.sort();
    let mut stored = Vec::new();
    let mut after = 0;
    loop {
        let events = world.store().events_after(after, 1_000).await.unwrap();
        let Some(last) = events.last() else { break };
        after = last.seq;
        stored.extend(events.into_iter().map(|stored| stored.event.id));
    }
    assert_eq!(stored, kept);
    assert_eq!(world.store().queue_depth(), (0, 0));
    world.append("room again").await;
}

pub async fn withdraws_an_event_that_missed_its_deadline(world: World) {
    let body = Bytes::from(vec![b'x'; limits::INLINE_BODY_BYTES + 1]);
    let spool = world.store().spool(body.clone()).await.unwrap();
    let mut late = world.event(body);
    late.spool = Some(spool);
    // Fills the writer's hands first, so that it cannot take the last one in time.
    let busy = (0..900).map(|_| {
        let body = Bytes::from(vec![b'x'; limits::INLINE_BODY_BYTES]);
        append_within(world.store(), world.event(body), Duration::from_secs(60))
    });
    // The others use up what one turn of a task may do; this one's deadline must count in the same turn.
    let withdrawn = tokio::task::unconstrained(append_within(world.store(), late, Duration::ZERO));
    let (kept, withdrawn) = tokio::join!(join_all(busy), withdrawn);
    assert!(matches!(withdrawn, Err(StoreError::Deadline)), "{withdrawn:?}");
    assert_eq!(kept.iter().filter(|kept| kept.is_ok()).count(), 900);
    assert_eq!(world.store().last_seq(), 900);
    assert!(world.spooled().is_empty(), "a withdrawn event leaves no body behind");
}
