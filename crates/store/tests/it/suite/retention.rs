//! Retention: what is old goes, but never before everyone who needs it has seen it.

use std::time::Duration;

use linkspan_model::job::{JobStatus, StepError};
use linkspan_model::limits;
use linkspan_store::{Claimed, Expired, Next, Retention, StepRecord, Sweep};

use crate::harness::{World, append_within, step_run, sync};

const DAY: Duration = Duration::from_secs(86_400);

/// Expires until nothing goes any more.
async fn expire(world: &World) -> Expired {
    let (mut total, mut sweep) = (Expired::default(), Sweep::default());
    loop {
        let round = world.store().expire(Retention::default(), &mut sweep).await.unwrap();
        if !round.any() && sweep.is_whole() {
            return total;
        }
        total += round;
    }
}

async fn events(world: &World) -> usize {
    world.store().events_after(0, 100_000).await.unwrap().len()
}

async fn end(world: &World, claimed: &Claimed, failed: bool) {
    let error = || StepError {
        code: "response.status".to_owned(),
        description: "the answer was 404".to_owned(),
        field: None,
        outcome_unknown: None,
    };
    let status = if failed { JobStatus::Failed } else { JobStatus::Succeeded };
    let mut run = step_run(status);
    run.error = failed.then(error);
    let next = if failed { Next::Fail(error()) } else { Next::Succeed };
    world.store().record_step(claimed.lease, StepRecord { position: 0, run, result: None }, next).await.unwrap();
}

pub async fn removes_what_is_old(world: World) {
    let body = bytes::Bytes::from(vec![b'x'; limits::INLINE_BODY_BYTES + 1]);
    let mut event = world.event(body.clone());
    event.spool = Some(world.store().spool(body).await.unwrap());
    append_within(world.store(), event, limits::COMMIT_DEADLINE).await.unwrap();
    let claimed = world.claimed_of(2).await;
    end(&world, &claimed[0], false).await;
    end(&world, &claimed[1], false).await;
    world.clock.advance(29 * DAY);
    world.append("young").await;
    world.dispatch_all().await;
    let young = world.claim(1).await.unwrap().remove(0);
    end(&world, &young, false).await;
    assert_eq!(expire(&world).await, Expired { jobs: 2, ..Expired::default() });
    world.clock.advance(2 * DAY);
    assert_eq!(expire(&world).await, Expired { events: 2, ..Expired::default() });
    assert_eq!(events(&world).await, 1);
    assert!(world.spooled().is_empty());
    assert_eq!(world.jobs().await, [young.lease.job]);
}

pub async fn keeps_events_that_dispatch_has_not_seen(world: World) {
    world.append("1").await;
    world.clock.advance(365 * DAY);
    assert_eq!(expire(&world).await, Expired::default());
    assert_eq!(events(&world).await, 1);
}

pub async fn keeps_events_that_a_sync_has_not_loaded(world: World) {
    world.apply(sync("s")).await;
    let row = world.sync("s");
    for claimed in [world.claimed().await, world.claimed().await] {
        end(&world, &claimed, false).await;
    }
    world.clock.advance(365 * DAY);
    assert_eq!(expire(&world).await.events, 0, "a sync that never ran has loaded nothing");
    world.store().sync_started(row).await.unwrap();
    let batch = world.store().begin_batch(row, super::syncs::batch(0, 1, "object")).await.unwrap();
    assert_eq!(expire(&world).await.events, 0, "a batch that is begun is not loaded");
    world.store().batch_loaded(row, batch, super::syncs::outcome(1, 1, 0)).await.unwrap();
    assert_eq!(expire(&world).await.events, 1);
    assert_eq!(events(&world).await, 1);
}

pub async fn keeps_events_of_open_jobs(world: World) {
    let running = world.claimed().await;
    let ended = world.claimed().await;
    end(&world, &ended, false).await;
    world.clock.advance(365 * DAY);
    // Only that one: a job that waits long holds back no other event.
    assert_eq!(expire(&world).await, Expired { jobs: 1, events: 1, ..Expired::default() });
    end(&world, &running, false).await;
    assert_eq!(expire(&world).await.events, 1);
}

pub async fn keeps_failed_jobs_longer(world: World) {
    let failed = world.claimed().await;
    end(&world, &failed, true).await;
    let succeeded = world.claimed().await;
    end(&world, &succeeded, false).await;
    world.clock.advance(15 * DAY);
    assert_eq!(expire(&world).await.jobs, 1);
    assert_eq!(world.jobs().await, [failed.lease.job]);
    world.clock.advance(15 * DAY);
    assert_eq!(expire(&world).await.jobs, 0);
    world.clock.advance(DAY);
    assert_eq!(expire(&world).await.jobs, 1);
}

pub async fn goes_in_small_rounds(world: World) {
    let appends = (0..1_200).map(|n| world.append(format!("{n}")));
    futures_util::future::join_all(appends).await;
    let up_to = world.store().last_seq();
    let dispatched = linkspan_store::Dispatched { up_to, ..Default::default() };
    world.store().dispatch(dispatched).await.unwrap();
    world.clock.advance(31 * DAY);
    let round = world.store().expire(Retention::default(), &mut Sweep::default()).await.unwrap();
    assert!((1..=500).contains(&round.events), "{round:?}");
    assert_eq!(round.events + expire(&world).await.events, 1_200);
}
