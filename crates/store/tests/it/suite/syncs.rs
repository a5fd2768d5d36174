//! Syncs: a batch's bounds are fixed before its object is put, and one batch is open at a time.

use std::time::Duration;

use linkspan_model::Clock as _;
use linkspan_model::limits::{LEFT_OUT_KEYS, SYNC_BATCH_ATTEMPTS};
use linkspan_store::{BatchOutcome, BatchState, NewBatch, StoreError};

use crate::harness::{World, name, sync};

pub fn batch(after: u64, last: u64, object: &str) -> NewBatch {
    NewBatch { after, last, object: object.to_owned(), endpoint: 1, events: last - after }
}

pub fn outcome(events: u64, rows: u64, unparsed: u64) -> BatchOutcome {
    BatchOutcome { events, rows, unparsed, ..BatchOutcome::default() }
}

async fn started(world: &World) -> i64 {
    world.apply(sync("s")).await;
    let row = world.sync("s");
    world.store().sync_started(row).await.unwrap();
    row
}

pub async fn takes_up_the_batch_that_was_begun(mut world: World) {
    let row = started(&world).await;
    assert_eq!(world.store().sync_state(row).await.unwrap().1, None);
    let begun = world.store().begin_batch(row, batch(0, 7, "a/0-7")).await.unwrap();
    assert_eq!((begun.number, begun.state), (1, BatchState::Begun));
    world.reopen();
    assert_eq!(world.store().sync_state(row).await.unwrap().1, Some(begun.clone()));
    world.store().batch_packed(row, begun.number, vec![1; 32]).await.unwrap();
    world.reopen();
    let packed = world.store().sync_state(row).await.unwrap().1.unwrap();
    assert_eq!((packed.state, packed.sha256.as_deref()), (BatchState::Packed, Some(&[1; 32][..])));
    world.store().batch_loaded(row, packed, outcome(3, 5, 1)).await.unwrap();
    let (state, open) = world.store().sync_state(row).await.unwrap();
    assert_eq!((state.position, state.events, state.rows, state.unparsed), (7, 3, 5, 1));
    assert_eq!(open, None);
    let done = world.store().sync_batches(row, 0, 10).await.unwrap();
    assert_eq!(done.iter().map(|batch| batch.object.as_str()).collect::<Vec<_>>(), ["a/0-7"]);
    assert_eq!((done[0].state, state.loaded), (BatchState::Loaded, 7));
    let next = world.store().begin_batch(row, batch(7, 9, "a/7-9")).await.unwrap();
    assert_eq!(next.number, 2);
    assert!(world.store().sync_batches(row, 7, 10).await.unwrap().is_empty(), "an open batch is not loaded");
}

pub async fn refuses_a_second_open_batch(world: World) {
    let row = started(&world).await;
    world.store().begin_batch(row, batch(0, 7, "a")).await.unwrap();
    for (after, last) in [(0, 7), (0, 8), (7, 9)] {
        let second = world.store().begin_batch(row, batch(after, last, "b")).await;
        assert!(matches!(second, Err(StoreError::Conflict(_))), "{second:?}");
    }
}

pub async fn counts_a_loaded_batch_once(world: World) {
    let row = started(&world).await;
    let batch = world.store().begin_batch(row, batch(0, 7, "a")).await.unwrap();
    world.store().batch_packed(row, batch.number, vec![1; 32]).await.unwrap();
    world.store().batch_loaded(row, batch.clone(), outcome(3, 5, 0)).await.unwrap();
    drop(world.store().batch_loaded(row, batch, outcome(3, 5, 0)).await);
    let (state, _) = world.store().sync_state(row).await.unwrap();
    assert_eq!((state.events, state.rows), (3, 5));
}

pub async fn skips_a_stretch_without_events(world: World) {
    let row = started(&world).await;
    world.store().skip_events(row, 0, 100).await.unwrap();
    assert_eq!(world.store().sync_state(row).await.unwrap().0.position, 100);
    assert!(matches!(world.store().skip_events(row, 0, 200).await, Err(StoreError::Conflict(_))));
    world.store().begin_batch(row, batch(100, 110, "a")).await.unwrap();
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
    world.store().sync_finished(row, None, None).await.unwrap();
    assert!(is_done(&world, first).await && !is_done(&world, during).await);
    // A run that a restart cut short has answered nothing.
    world.store().sync_started(row).await.unwrap();
    world.reopen();
    assert!(world.store().sync_state(row).await.unwrap().0.is_requested);
    assert!(!is_done(&world, during).await);
    world.store().sync_started(row).await.unwrap();
    world.store().sync_finished(row, Some("failed".to_owned()), None).await.unwrap();
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
    world.store().sync_finished(row, Some("the disk is full".to_owned()), None).await.unwrap();
    world.reopen();
    let (state, _) = world.store().sync_state(row).await.unwrap();
    assert_eq!((state.started_at, state.failed_at), (Some(begun), Some(world.clock.now())));
    assert_eq!((state.succeeded_at, state.error.as_deref()), (None, Some("the disk is full")));
    world.store().sync_started(row).await.unwrap();
    world.store().sync_finished(row, None, None).await.unwrap();
    let (state, _) = world.store().sync_state(row).await.unwrap();
    assert_eq!((state.succeeded_at, state.error), (Some(world.clock.now()), None));
    assert!(state.failed_at.is_some());
}

pub async fn sets_a_batch_aside_and_goes_on(mut world: World) {
    let row = started(&world).await;
    let first = world.store().begin_batch(row, batch(0, 7, "a/0-7")).await.unwrap();
    world.store().set_batch_aside(row, first.clone(), "it is cursed".to_owned()).await.unwrap();
    world.reopen();
    let (state, open) = world.store().sync_state(row).await.unwrap();
    assert_eq!((state.position, state.aside, state.aside_reason.as_deref()), (7, 1, Some("it is cursed")));
    assert_eq!((open, state.loaded), (None, 0));
    let second = world.store().begin_batch(row, batch(7, 9, "a/7-9")).await.unwrap();
    world.store().batch_loaded(row, second.clone(), outcome(2, 2, 0)).await.unwrap();
    let due = async |world: &World| world.store().sync_batches_aside(row, 0, SYNC_BATCH_ATTEMPTS, 9).await.unwrap();
    assert!(due(&world).await.is_empty(), "nobody asked for it to be tried again");
    world.store().request_sync(row).await.unwrap();
    let again = due(&world).await.remove(0);
    assert_eq!((again.number, again.state, again.attempts), (1, BatchState::Aside, 0));
    for _ in 0..SYNC_BATCH_ATTEMPTS {
        assert_eq!(due(&world).await.len(), 1);
        world.store().batch_attempted(row, 1).await.unwrap();
    }
    assert!(due(&world).await.is_empty(), "the process died of it again");
    world.store().batch_loaded(row, again, outcome(7, 7, 0)).await.unwrap();
    let (state, _) = world.store().sync_state(row).await.unwrap();
    assert_eq!((state.position, state.events, state.aside, state.aside_reason), (9, 9, 0, None));
    // One that was loaded before, and is lost, is not counted again.
    world.store().set_batch_aside(row, second, "it is gone".to_owned()).await.unwrap();
    world.store().request_resync(row).await.unwrap();
    let lost = due(&world).await.remove(0);
    assert_eq!((lost.number, lost.state), (2, BatchState::Lost));
    world.store().batch_loaded(row, lost, outcome(2, 2, 0)).await.unwrap();
    let (state, _) = world.store().sync_state(row).await.unwrap();
    assert_eq!((state.events, state.aside, state.loaded, state.is_resync_wanted), (9, 0, 9, true));
    world.store().resync_begun(row).await.unwrap();
    assert!(!world.store().sync_state(row).await.unwrap().0.is_resync_wanted);
}

pub async fn counts_attempts_that_did_not_end(mut world: World) {
    let row = started(&world).await;
    assert_eq!(world.store().begin_batch(row, batch(0, 7, "a")).await.unwrap().attempts, 1);
    let attempts = async |world: &World| world.store().sync_state(row).await.unwrap().1.unwrap().attempts;
    world.reopen();
    world.store().batch_attempted(row, 1).await.unwrap();
    assert_eq!(attempts(&world).await, 2);
    world.store().sync_finished(row, Some("locked".to_owned()), Some("seen".to_owned())).await.unwrap();
    assert_eq!(attempts(&world).await, 0, "the process outlived it");
    world.store().sync_finished(row, None, None).await.unwrap();
    assert_eq!(world.store().sync_state(row).await.unwrap().0.note.as_deref(), Some("seen"));
}

pub async fn names_few_of_the_keys_without_a_column(world: World) {
    let row = started(&world).await;
    for (after, from) in [(0, 0), (7, 60), (14, 200)] {
        let begun = world.store().begin_batch(row, batch(after, after + 7, "a")).await.unwrap();
        let left_out_keys = (from..from + 60).map(|n| format!("k{n}")).collect();
        let outcome = BatchOutcome { left_out: 60, left_out_keys, ..BatchOutcome::default() };
        world.store().batch_loaded(row, begun, outcome).await.unwrap();
    }
    let (state, _) = world.store().sync_state(row).await.unwrap();
    assert_eq!((state.left_out, state.left_out_keys.len()), (180, LEFT_OUT_KEYS));
    assert!(state.left_out_keys.contains("k0"));
}
