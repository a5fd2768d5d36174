//! Commits on the threads that serve requests.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use linkspan_model::{EventId, limits};
use linkspan_store::{Durability, Store};
use tokio::sync::Barrier;

use crate::harness::{World, append_within};

/// A store whose commits wait for nothing, whatever the disk.
async fn swift(mut world: World) -> World {
    world.durability = Durability::Off;
    world.reopen();
    world
}

/// Sits on a thread with a runtime of its own for as long as `work` takes.
async fn at_a_seat<T, F>(store: Store, work: impl FnOnce(Store) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let sitting = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::select! {
                // With one processor there is one seat; the other thread serves without.
                () = async { store.commit_here().await; std::future::pending().await } => unreachable!(),
                done = work(store.clone()) => done,
            }
        })
    });
    sitting.await.unwrap()
}

/// Appends one by one until commits are made at the seats.
async fn warm(world: &World) {
    for _ in 0..2_000 {
        if world.store().is_swift() {
            return;
        }
        world.append("warm").await;
    }
    panic!("commits that wait for nothing are still left to the thread");
}

pub async fn commits_on_the_threads_that_serve(world: World) {
    const EACH: usize = 400;
    let world = swift(world).await;
    let (begin, end) = (std::sync::Arc::new(Barrier::new(3)), std::sync::Arc::new(Barrier::new(3)));
    let serve = |name: &'static str| {
        let events: Vec<_> = (0..EACH).map(|n| world.event(format!("{name} {n}"))).collect();
        let (begin, end) = (begin.clone(), end.clone());
        at_a_seat(world.store().clone(), move |store| async move {
            begin.wait().await;
            let appends = events.into_iter().map(|event| append_within(&store, event, limits::COMMIT_DEADLINE));
            let appended: Vec<EventId> = join_all(appends).await.into_iter().map(|kept| kept.unwrap().id).collect();
            end.wait().await;
            appended
        })
    };
    // Operations from elsewhere go on all the while.
    let elsewhere = async {
        warm(&world).await;
        begin.wait().await;
        for _ in 0..20 {
            world.append("elsewhere").await;
            world.dispatch_all().await;
        }
        assert!(world.store().is_swift());
        end.wait().await;
    };
    let (one, other, ()) = tokio::join!(serve("one"), serve("other"), elsewhere);
    let ids: HashSet<_> = one.iter().chain(&other).collect();
    assert_eq!(ids.len(), 2 * EACH);
    let stored = world.store().events_after(0, u32::MAX).await.unwrap();
    let positions: Vec<u64> = stored.iter().map(|stored| stored.seq).collect();
    assert_eq!(positions, (1..=stored.len() as u64).collect::<Vec<_>>());
    for (name, appended) in [("one", one), ("other", other)] {
        for (n, id) in appended.into_iter().enumerate() {
            let found = stored.iter().find(|stored| stored.event.id == id).unwrap();
            assert_eq!(found.event.body, format!("{name} {n}"));
        }
    }
    assert_eq!(world.store().queue_depth(), (0, 0));
}

pub async fn lets_the_thread_go_on_when_a_seat_is_left(world: World) {
    let world = swift(world).await;
    let events: Vec<_> = (0..200).map(|n| world.event(format!("{n}"))).collect();
    let store = world.store().clone();
    let (ready, go) = tokio::sync::oneshot::channel::<()>();
    let appends = async {
        warm(&world).await;
        ready.send(()).unwrap();
        // The seat is left in the midst of these.
        join_all(events.into_iter().map(|event| append_within(&store, event, limits::COMMIT_DEADLINE))).await
    };
    let sitting = at_a_seat(store.clone(), |_| async { go.await.unwrap() });
    let (kept, ()) = tokio::join!(appends, sitting);
    assert!(kept.iter().all(Result::is_ok));
    assert!(!world.store().is_swift());
    world.append("after").await;
    world.dispatch_all().await;
}

pub async fn leaves_a_slow_disk_to_the_thread(world: World) {
    let store = world.store().clone();
    let first = world.event("first");
    // Until commits were measured, a disk counts as slow.
    at_a_seat(store, |store| async move {
        append_within(&store, first, Duration::from_secs(10)).await.unwrap();
        assert!(!store.is_swift());
    })
    .await;
}

pub async fn ends_with_what_was_queued_by_who_went_away(mut world: World) {
    for n in 0..50 {
        let event = world.event(format!("{n}"));
        // Queued at the first look, and nobody waits for it; now and then the writer is quicker than that look.
        if let Some(answered) = append_within(world.store(), event, limits::COMMIT_DEADLINE).now_or_never() {
            answered.unwrap();
        }
        world.reopen();
    }
    assert_eq!(world.store().events_after(0, 100).await.unwrap().len(), 50);
}
