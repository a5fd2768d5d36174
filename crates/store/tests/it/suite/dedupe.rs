//! Senders' ids of events: the same id within its window is one event.

use std::time::Duration;

use futures_util::future::join_all;
use linkspan_model::limits;
use linkspan_store::Retention;
use serde_json::json;

use crate::harness::{World, append_within, endpoint};

const HOUR: Duration = Duration::from_secs(3_600);

pub async fn stores_a_repeated_id_once_within_its_window(mut world: World) {
    let first = world.append_once("in", "a", HOUR).await;
    assert!(!first.duplicate);
    world.clock.advance(HOUR - Duration::from_micros(1));
    world.reopen();
    let again = world.append_once("in", "a", HOUR).await;
    assert_eq!((again.id, again.duplicate), (first.id, true));
    assert!(!world.append_once("in", "b", HOUR).await.duplicate);
    world.clock.advance(Duration::from_micros(1));
    let later = world.append_once("in", "a", HOUR).await;
    assert!(!later.duplicate);
    assert_ne!(later.id, first.id);
    let again = world.append_once("in", "a", HOUR).await;
    assert_eq!((again.id, again.duplicate), (later.id, true));
    assert_eq!(world.store().events_after(0, 10).await.unwrap().len(), 3);
}

pub async fn keeps_ids_of_endpoints_apart(world: World) {
    world.apply(json!([endpoint("other")])).await;
    assert!(!world.append_once("in", "a", HOUR).await.duplicate);
    assert!(!world.append_once("other", "a", HOUR).await.duplicate);
}

pub async fn gives_concurrent_duplicates_the_same_event(world: World) {
    let body = bytes::Bytes::from(vec![b'x'; limits::INLINE_BODY_BYTES + 1]);
    let appends = (0..64).map(|n| {
        let (world, body) = (&world, body.clone());
        async move {
            let mut event = world.event(body.clone());
            if n % 2 == 0 {
                event.spool = Some(world.store().spool(body).await.unwrap());
            }
            let until = event.received_at.after(HOUR);
            event.dedupe = Some(linkspan_store::DedupeKey::new(b"same", until));
            append_within(world.store(), event, limits::COMMIT_DEADLINE).await.unwrap()
        }
    });
    let appended = join_all(appends).await;
    assert_eq!(appended.iter().filter(|appended| !appended.duplicate).count(), 1);
    assert!(appended.iter().all(|other| other.id == appended[0].id));
    let events = world.store().events_after(0, 100).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].event.id, appended[0].id);
    assert!(world.spooled().len() <= 1, "the bodies of duplicates are gone");
}

pub async fn forgets_ids_with_retention(world: World) {
    world.append_once("in", "a", HOUR).await;
    world.append_once("in", "b", 3 * HOUR).await;
    world.clock.advance(HOUR);
    assert_eq!(
        world.store().expire(Retention::default(), &mut linkspan_store::Sweep::default()).await.unwrap().dedupe,
        1
    );
    assert!(world.append_once("in", "b", HOUR).await.duplicate);
}
