//! Syncs: a batch's bounds are fixed before its object is put, and one batch is open at a time.

use std::time::Duration;

use linkspan_model::Clock as _;
use linkspan_store::{BatchState, StoreError};

use crate::harness::{World, name, sync};

async fn started(world: &World) -> i64 {
    world.apply(sync("s")).await;
    let row = world.sync("s");
    world.store().sync_started(row).await.unwrap();
    row
}

pub async fn takes_up_the_batch_that_was_begun(mut world: World) {
    let row = started(&world).await;
    assert_eq!(world.store().sync_state(row).await.unwrap().1, None);
    let begun = world.store().begin_batch(row, 0, 7, "a/0-7".to_owned()).await.unwrap();
    assert_eq!((begun.number, begun.state), (1, BatchState::Begun));
    world.reopen();
    assert_eq!(world.store().sync_state(row).await.unwrap().1, Some(begun.clone()));
    world.store().batch_packed(row, begun.number, vec![1; 32]).await.unwrap();
    world.reopen();
    let packed = world.store().sync_state(row).await.unwrap().1.unwrap();
    assert_eq!((packed.state, packed.sha256.as_deref()), (BatchState::Packed, Some(&[1; 32][..])));
    world.store().batch_loaded(row, packed, 3, 5, 1).await.unwrap();
    let (state, open) = world.store().sync_state(row).await.unwrap();
    assert_eq!((state.position, state.events, state.rows, state.unparsed), (7, 3, 5, 1));
    assert_eq!(open, None);
    let done = world.store().sync_batches(row, 0, 10).await.unwrap();
    assert_eq!(done.iter().map(|batch| batch.object.as_str()).collect::<Vec<_>>(), ["a/0-7"]);
    assert_eq!((done[0].state, state.loaded), (BatchState::Loaded, 7));
    let next = world.store().begin_batch(row, 7, 9, "a/7-9".to_owned()).await.unwrap();
    assert_eq!(next.number, 2);
    assert!(world.store().sync_batches(row, 7, 10).await.unwrap().is_empty(), "an open batch is not loaded");
}

pub async fn refuses_a_second_open_batch(world: World) {
    let row = started(&world).await;
    world.store().begin_batch(row, 0, 7, "a".to_owned()).await.unwrap();
    for (after, last) in [(0, 7), (0, 8), (7, 9)] {
        let second = world.store().begin_batch(row, after, last, "b".to_owned()).await;
        assert!(matches!(second, Err(StoreError::Conflict(_))), "{second:?}");
    }
}

pub async fn counts_a_loaded_batch_once(world: World) {
    let row = started(&world).await;
    let batch = world.store().begin_batch(row, 0, 7, "a".to_owned()).await.unwrap();
    world.store().batch_packed(row, batch.number, vec![1; 32]).await.unwrap();
    world.store().batch_loaded(row, batch.clone(), 3, 5, 0).await.unwrap();
    drop(world.store().batch_loaded(row, batch, 3, 5, 0).await);
    let (state, _) = world.store().sync_state(row).await.unwrap();
    assert_eq!((state.events, state.rows), (3, 5));
}

pub async fn skips_a_stretch_without_events(world: World) {
    let row = started(&world).await;
    world.store().skip_events(row, 0, 100).await.unwrap();
    assert_eq!(world.store().sync_state(row).await.unwrap().0.position, 100);
    assert!(matches!(world.store().skip_events(row, 0, 200).await, Err(StoreError::Conflict(_))));
    world.store().begin_batch(row, 100, 110, "a".to_owned()).await.unwrap();
    assert!(matches!(world.store().skip_events(row, 100, 200).await, Err(StoreError::Conflict(_))));
}

pub async fn answers_a_request_by_a_run_that_began_after_it(mut world: World) {
    world.apply(sync("s")).await;
    let row = world.sync("s");
    let first = world.store().request_sync(row).await.unwrap();
    assert!(world.store().sync_states().await.unwrap()[&row].is_requested);
    world.store().sync_started(row).await.unwrap();
    let during = world.store().request_sync(row).await.unwrap();
    let is_done = async |world: &World, ticket| world.store().sync_is_done(row, ticket).await.unwrap();
    assert!(!is_done(&world, first).await);
    world.store().sync_finished(row, None).await.unwrap();
    assert!(is_done(&world, first).await && !is_done(&world, during).await);
    // A run that a restart cut short has answered nothing.
    world.store().sync_started(row).await.unwrap();
    world.reopen();
    assert!(world.store().sync_state(row).await.unwrap().0.is_requested);
    assert!(!is_done(&world, during).await);
    world.store().sync_started(row).await.unwrap();
    world.store().sync_finished(row, Some("failed".to_owned())).await.unwrap();
    assert!(is_done(&world, during).await, "a failure is an answer too");
    assert!(!world.store().sync_state(row).await.unwrap().0.is_requested);
    let last = world.store().request_sync(row).await.unwrap();
    world.store().delete(linkspan_model::Kind::Sync, name("s"), linkspan_store::Precondition::None).await.unwrap();
    assert!(is_done(&world, last).await, "nobody waits for a sync that is gone");
}

pub async fn wakes_who_waits_for_requests(world: World) {
    world.apply(sync("s")).await;
    let row = world.sync("s");
    let woken = tokio::time::timeout(Duration::from_secs(20), async {
        let mut requests = world.store().sync_requests();
        tokio::join!(requests.wait(Duration::from_secs(60)), async {
            world.store().request_sync(row).await.unwrap();
        });
    });
    woken.await.unwrap();
}

pub async fn remembers_how_runs_ended(mut world: World) {
    world.apply(sync("s")).await;
    let row = world.sync("s");
    assert_eq!(world.store().sync_state(row).await.unwrap().0, linkspan_store::SyncState::default());
    world.store().sync_started(row).await.unwrap();
    let begun = world.clock.now();
    world.clock.advance(Duration::from_secs(1));
    world.store().sync_finished(row, Some("the disk is full".to_owned())).await.unwrap();
    world.reopen();
    let (state, _) = world.store().sync_state(row).await.unwrap();
    assert_eq!((state.started_at, state.failed_at), (Some(begun), Some(world.clock.now())));
    assert_eq!((state.succeeded_at, state.error.as_deref()), (None, Some("the disk is full")));
    world.store().sync_started(row).await.unwrap();
    world.store().sync_finished(row, None).await.unwrap();
    let (state, _) = world.store().sync_state(row).await.unwrap();
    assert_eq!((state.succeeded_at, state.error), (Some(world.clock.now()), None));
    assert!(state.failed_at.is_some());
}
