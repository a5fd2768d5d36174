//! Events: stored as they came, found again, in order.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use linkspan_model::{Clock as _, EventId, limits};
use linkspan_store::{EventFilter, StoreError};
use serde_json::json;

use crate::harness::{World, append_within, endpoint, head, name};

/// Bytes that no compression and no text handling would leave alone.
fn noise(size: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

pub async fn gives_back_every_byte(mut world: World) {
    let mut stored = Vec::new();
    for size in [0, 1, 64 << 10, (64 << 10) + 1, 5 << 20] {
        let body = noise(size);
        let mut event = world.event(body.clone());
        if size > limits::INLINE_BODY_BYTES {
            event.spool = Some(world.store().spool(body.clone()).await.unwrap());
        }
        let appended = append_within(world.store(), event, limits::COMMIT_DEADLINE).await.unwrap();
        stored.push((appended.id, body));
    }
    world.reopen();
    for (id, body) in stored {
        let event = world.store().event(id).await.unwrap();
        assert_eq!(event.id, id);
        assert_eq!(event.endpoint.as_str(), "in");
        assert_eq!(event.received_at, world.clock.now());
        assert_eq!(event.head, head());
        assert!(event.body == body, "{} bytes", body.len());
    }
}

pub async fn finds_an_event_by_its_whole_id_only(world: World) {
    let id = world.append("{}").await;
    assert_eq!(world.store().event(id).await.unwrap().id, id);
    let same_position = EventId::new(world.clock.now(), id.seq(), 0x111);
    for unknown in [same_position, EventId::new(world.clock.now(), id.seq() + 1, 0x5a5)] {
        assert!(matches!(world.store().event(unknown).await, Err(StoreError::NotFound(_))));
    }
}

pub async fn pages_both_ways(world: World) {
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(world.append(format!("{n}")).await);
    }
    let page = async |before, after| {
        let filter = EventFilter { before, after, limit: 3, ..EventFilter::default() };
        let events = world.store().events(filter).await.unwrap();
        events.into_iter().map(|event| event.id).collect::<Vec<_>>()
    };
    assert_eq!(page(None, None).await, [ids[6], ids[5], ids[4]]);
    assert_eq!(page(Some(ids[4].seq()), None).await, [ids[3], ids[2], ids[1]]);
    assert_eq!(page(Some(ids[0].seq()), None).await, []);
    assert_eq!(page(None, Some(0)).await, [ids[0], ids[1], ids[2]]);
    assert_eq!(page(Some(ids[1].seq()), Some(ids[4].seq())).await, [ids[5], ids[6]]);
    assert_eq!(page(None, Some(u64::MAX)).await, []);
}

pub async fn pages_one_endpoint_as_far_as_dispatch_has_come(world: World) {
    world.apply(json!([endpoint("other")])).await;
    let mine = world.append("mine").await;
    let mut event = world.event("theirs");
    event.endpoint = world.endpoint("other");
    let theirs = append_within(world.store(), event, limits::COMMIT_DEADLINE).await.unwrap().id;
    let of = async |endpoint: &str| {
        let filter = EventFilter { endpoint: Some(name(endpoint)), limit: 10, ..EventFilter::default() };
        let events = world.store().events(filter).await.unwrap();
        events.into_iter().map(|event| event.id).collect::<Vec<_>>()
    };
    assert_eq!(of("in").await, []);
    world.dispatch_all().await;
    assert_eq!(of("in").await, [mine]);
    assert_eq!(of("other").await, [theirs]);
    let row = world.endpoint("other");
    let read = world.store().endpoint_events_after(row, 0, u64::MAX, 10).await.unwrap();
    assert_eq!(read.events.iter().map(|stored| stored.event.id).collect::<Vec<_>>(), [theirs]);
    assert!(world.store().endpoint_events_after(row, 0, theirs.seq() - 1, 10).await.unwrap().events.is_empty());
    let unknown = EventFilter { endpoint: Some(name("nobody")), limit: 1, ..EventFilter::default() };
    assert!(matches!(world.store().events(unknown).await, Err(StoreError::NotFound(_))));
}

pub async fn reads_on_from_a_position_in_order(world: World) {
    for n in 0..10 {
        world.append(format!("{n}")).await;
    }
    let mut after = 0;
    let mut bodies = Vec::new();
    loop {
        let read = world.store().events_after(after, 4).await.unwrap();
        let Some(last) = read.last() else { break };
        after = last.seq;
        bodies.extend(read.into_iter().map(|stored| stored.event.body));
    }
    assert_eq!(bodies, (0..10).map(|n| Bytes::from(format!("{n}"))).collect::<Vec<_>>());
    assert_eq!(after, world.store().last_seq());
}

pub async fn bounds_a_read_by_bytes(world: World) {
    for _ in 0..5 {
        let body = noise(3 << 20);
        let mut event = world.event(body.clone());
        event.spool = Some(world.store().spool(body).await.unwrap());
        append_within(world.store(), event, limits::COMMIT_DEADLINE).await.unwrap();
    }
    assert_eq!(world.store().events_after(0, 100).await.unwrap().len(), 3);
    assert_eq!(world.store().events_after(3, 100).await.unwrap().len(), 2);
}

pub async fn never_gives_a_position_twice(mut world: World) {
    for _ in 0..3 {
        world.append("gone").await;
    }
    world.dispatch_all().await;
    for claimed in world.claim(10).await.unwrap() {
        world.store().cancel(claimed.lease.job).await.unwrap();
    }
    world.clock.advance(Duration::from_secs(90 * 86_400));
    while world
        .store()
        .expire(linkspan_store::Retention::default(), &mut linkspan_store::Sweep::default())
        .await
        .unwrap()
        .any()
    {}
    assert!(world.store().events_after(0, 10).await.unwrap().is_empty());
    world.reopen();
    assert_eq!(world.append("new").await.seq(), 4);
}

pub async fn keeps_two_thousand_concurrent_appends(mut world: World) {
    let appends = (0..2_000).map(|n| world.append(format!("{n}")));
    let ids = join_all(appends).await;
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 2_000);
    world.reopen();
    let events = world.store().events_after(0, 5_000).await.unwrap();
    assert_eq!(events.len(), 2_000);
    let bodies: HashSet<_> = events.iter().map(|stored| (stored.event.id, stored.event.body.clone())).collect();
    for (n, id) in ids.into_iter().enumerate() {
        assert!(bodies.contains(&(id, Bytes::from(format!("{n}")))), "{n}");
    }
}

pub async fn refuses_events_when_the_disk_is_short(mut world: World) {
    world.append("kept").await;
    world.disk_min_free = u64::MAX;
    world.reopen();
    let refused = append_within(world.store(), world.event("{}"), limits::COMMIT_DEADLINE).await;
    assert!(matches!(refused, Err(StoreError::DiskFull)));
    assert!(matches!(world.store().spool(Bytes::from("{}")).await, Err(StoreError::DiskFull)));
    let disk = world.store().check_disk().await.unwrap();
    assert!(disk.full && disk.free > 0 && disk.total > disk.free);
    assert_eq!(world.store().events_after(0, 10).await.unwrap().len(), 1);
    world.disk_min_free = 0;
    world.reopen();
    assert!(!world.store().disk_free().1);
    world.append("again").await;
}

pub async fn wakes_who_waits_for_events(world: World) {
    let woken = tokio::time::timeout(Duration::from_secs(20), async {
        let mut appends = world.store().appends();
        tokio::join!(appends.wait(Duration::from_secs(60)), world.append("{}"));
    });
    woken.await.unwrap();
}

pub async fn survives_reads_that_are_abandoned(world: World) {
    for _ in 0..8 {
        let body = noise(5 << 20);
        let mut event = world.event(body.clone());
        event.spool = Some(world.store().spool(body).await.unwrap());
        append_within(world.store(), event, limits::COMMIT_DEADLINE).await.unwrap();
    }
    // A caller that hangs up drops its read while the disk still works on it.
    for _ in 0..20 {
        let read = || world.store().events(EventFilter { limit: 8, ..EventFilter::default() });
        let abandoned = join_all([read(), read(), read(), read()]);
        drop(tokio::time::timeout(Duration::from_millis(1), abandoned).await);
        world.store().events_after(0, 1).await.unwrap();
    }
}

pub async fn goes_along_the_log_without_reading_large_bodies(world: World) {
    let small = world.append("small").await;
    let body = Bytes::from(vec![b'x'; linkspan_model::limits::INLINE_BODY_BYTES + 1]);
    let mut event = world.event(body.clone());
    event.spool = Some(world.store().spool(body.clone()).await.unwrap());
    let large = append_within(world.store(), event, linkspan_model::limits::COMMIT_DEADLINE).await.unwrap().id;
    // Not even one whose body is lost stops it.
    for file in world.spooled() {
        std::fs::remove_file(world.folder().join("spool").join(file)).unwrap();
    }
    let found = world.store().events_at(vec![small.seq(), large.seq(), 99]).await.unwrap();
    let shown: Vec<_> =
        found.iter().map(|found| (found.stored.event.id, found.is_large, found.stored.event.body.len())).collect();
    assert_eq!(shown, [(small, false, 5), (large, true, 0)]);
    assert!(world.store().shown_event(large).await.unwrap().body.is_err());
}
