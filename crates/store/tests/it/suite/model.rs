//! Any interleaving of append, dispatch, claim, record and restart, against a model that is easy to believe.

use std::collections::HashMap;
use std::time::Duration;

use linkspan_model::job::{JobStatus, StepError};
use linkspan_model::{Clock as _, EventId, JobId, limits};
use linkspan_store::{Claimed, DedupeKey, Dispatched, LogRun, Next, StepRecord, StoreError};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::harness::{World, append_within, step_run};

#[derive(Debug, Clone)]
enum Deed {
    /// Appends so many events at once; with a sender's id, duplicates among them are stored once.
    Append {
        count: usize,
        id: Option<u8>,
    },
    Dispatch {
        most: u32,
    },
    Claim {
        most: u32,
    },
    /// Records a step with one of the leases ever given, live or not.
    Record {
        lease: prop::sample::Index,
        end: End,
    },
    Cancel {
        job: prop::sample::Index,
    },
    Release {
        lease: prop::sample::Index,
    },
    LoseLeases,
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Continue,
    Retry,
    Succeed,
    Fail,
}

fn deed() -> impl Strategy<Value = Deed> {
    let index = || any::<prop::sample::Index>();
    let end = prop_oneof![Just(End::Continue), Just(End::Retry), Just(End::Succeed), Just(End::Fail)];
    prop_oneof![
        4 => (1..6_usize, prop::option::of(0..4_u8)).prop_map(|(count, id)| Deed::Append { count, id }),
        3 => (1..8_u32).prop_map(|most| Deed::Dispatch { most }),
        3 => (1..5_u32).prop_map(|most| Deed::Claim { most }),
        6 => (index(), end).prop_map(|(lease, end)| Deed::Record { lease, end }),
        1 => index().prop_map(|job| Deed::Cancel { job }),
        1 => index().prop_map(|lease| Deed::Release { lease }),
        1 => Just(Deed::LoseLeases),
        1 => Just(Deed::Restart),
    ]
}

/// What the store must hold.
#[derive(Default)]
struct Model {
    events: Vec<EventId>,
    ids: HashMap<u8, EventId>,
    dispatched: u64,
    jobs: Vec<ModelJob>,
    leases: Vec<Claimed>,
}

struct ModelJob {
    id: JobId,
    event: EventId,
    status: JobStatus,
    /// The lease that may record, by its place among those given.
    holder: Option<usize>,
    steps: u32,
}

impl Model {
    /// The job that the lease holds, when it still does.
    fn held_by(&mut self, lease: usize) -> Option<&mut ModelJob> {
        self.jobs.iter_mut().find(|job| job.holder == Some(lease))
    }
}

pub async fn agrees_with_a_small_model_under_any_interleaving(world: World) {
    let runtime = tokio::runtime::Handle::current();
    let tested = tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
        runner.run(&prop::collection::vec(deed(), 1..50), |deeds| {
            runtime.block_on(async {
                let mut world = world.another().await;
                let mut model = Model::default();
                for deed in deeds {
                    perform(&mut world, &mut model, deed).await;
                }
                compare(&world, &model).await;
                world.reopen();
                model.restart();
                compare(&world, &model).await;
            });
            Ok(())
        })
    });
    tested.await.unwrap().unwrap();
}

async fn perform(world: &mut World, model: &mut Model, deed: Deed) {
    match deed {
        Deed::Append { count, id } => append(world, model, count, id).await,
        Deed::Dispatch { most } => dispatch(world, model, most).await,
        Deed::Claim { most } => {
            let due: Vec<usize> = (0..model.jobs.len())
                .filter(|n| matches!(model.jobs[*n].status, JobStatus::Queued | JobStatus::Waiting))
                .take(most as usize)
                .collect();
            let claimed = world.claim(most).await.unwrap();
            assert_eq!(claimed.len(), due.len());
            for claimed in claimed {
                let holder = model.leases.len();
                let job = model.jobs.iter_mut().find(|job| job.id == claimed.lease.job).unwrap();
                assert!(matches!(job.status, JobStatus::Queued | JobStatus::Waiting), "claimed twice");
                assert_eq!(claimed.event, job.event);
                assert_eq!(claimed.steps.len(), job.steps as usize);
                (job.status, job.holder) = (JobStatus::Running, Some(holder));
                model.leases.push(claimed);
            }
        }
        Deed::Record { lease, end } => record(world, model, lease, end).await,
        Deed::Cancel { job } => {
            if model.jobs.is_empty() {
                return;
            }
            let at = job.index(model.jobs.len());
            let job = &mut model.jobs[at];
            let outcome = world.store().cancel(job.id).await;
            assert_eq!(outcome.is_ok(), !job.status.is_final());
            if outcome.is_ok() {
                (job.status, job.holder) = (JobStatus::Canceled, None);
            }
        }
        Deed::Release { lease } => {
            if model.leases.is_empty() {
                return;
            }
            let at = lease.index(model.leases.len());
            let outcome = world.store().release(model.leases[at].lease).await;
            match model.held_by(at) {
                Some(job) => {
                    outcome.unwrap();
                    (job.status, job.holder) = (JobStatus::Queued, None);
                }
                None => assert!(matches!(outcome, Err(StoreError::Fenced))),
            }
        }
        Deed::LoseLeases => {
            world.clock.advance(limits::LEASE + Duration::from_micros(1));
            let running = model.jobs.iter().filter(|job| job.status == JobStatus::Running).count();
            assert_eq!(world.store().reclaim_expired(&[]).await.unwrap(), running);
            model.restart();
        }
        Deed::Restart => {
            world.reopen();
            model.restart();
        }
    }
}

impl Model {
    /// Whoever worked is gone.
    fn restart(&mut self) {
        for job in self.jobs.iter_mut().filter(|job| job.status == JobStatus::Running) {
            (job.status, job.holder) = (JobStatus::Queued, None);
        }
    }
}

async fn append(world: &World, model: &mut Model, count: usize, id: Option<u8>) {
    let appends = (0..count).map(|_| {
        let mut event = world.event("{}");
        let until = event.received_at.after(Duration::from_secs(86_400));
        event.dedupe = id.map(|id| DedupeKey::new(&[id], until));
        append_within(world.store(), event, limits::COMMIT_DEADLINE)
    });
    for appended in futures_util::future::join_all(appends).await {
        let appended = appended.unwrap();
        let first = id.map(|id| *model.ids.entry(id).or_insert(appended.id));
        assert_eq!(appended.duplicate, model.events.contains(&appended.id));
        assert!(first.is_none_or(|first| first == appended.id));
        if !appended.duplicate {
            model.events.push(appended.id);
        }
    }
    model.events.sort_by_key(|event| event.seq());
}

async fn dispatch(world: &World, model: &mut Model, most: u32) {
    let after = world.store().dispatch_position().await.unwrap();
    assert_eq!(after, model.dispatched);
    let events = world.store().events_after(after, most).await.unwrap();
    let Some(last) = events.last() else { return };
    let dispatched = Dispatched {
        after,
        up_to: last.seq,
        runs: LogRun::of(events.iter().map(|stored| (stored.endpoint, stored.seq))),
        jobs: events.iter().map(|stored| world.job_for(stored.event.id)).collect(),
    };
    world.store().dispatch(dispatched.clone()).await.unwrap();
    assert!(matches!(world.store().dispatch(dispatched).await, Err(StoreError::Conflict(_))));
    model.dispatched = last.seq;
    let known = model.jobs.len();
    for (id, stored) in world.jobs().await.into_iter().skip(known).zip(events) {
        let event = stored.event.id;
        model.jobs.push(ModelJob { id, event, status: JobStatus::Queued, holder: None, steps: 0 });
    }
}

async fn record(world: &World, model: &mut Model, lease: prop::sample::Index, end: End) {
    if model.leases.is_empty() {
        return;
    }
    let at = lease.index(model.leases.len());
    let lease = model.leases[at].lease;
    let error = StepError { code: "a".to_owned(), description: "b".to_owned(), field: None, outcome_unknown: None };
    let (status, next) = match end {
        End::Continue => (JobStatus::Succeeded, Next::Continue),
        End::Retry => (JobStatus::Waiting, Next::RetryAt(world.clock.now())),
        End::Succeed => (JobStatus::Succeeded, Next::Succeed),
        End::Fail => (JobStatus::Failed, Next::Fail(error)),
    };
    let job = model.held_by(at);
    let position = job.as_ref().map_or(0, |job| job.steps);
    let run = step_run(status);
    let result = Some(serde_json::to_vec(&json!({"at": position})).unwrap());
    let outcome = world.store().record_step(lease, StepRecord { position, run, result }, next).await;
    let Some(job) = job else {
        assert!(matches!(outcome, Err(StoreError::Fenced)), "{outcome:?}");
        return;
    };
    outcome.unwrap();
    job.steps += 1;
    match end {
        End::Continue => {}
        End::Retry => (job.status, job.holder) = (JobStatus::Waiting, None),
        End::Succeed => (job.status, job.holder) = (JobStatus::Succeeded, None),
        End::Fail => (job.status, job.holder) = (JobStatus::Failed, None),
    }
}

async fn compare(world: &World, model: &Model) {
    let stored = world.store().events_after(0, u32::MAX).await.unwrap();
    assert_eq!(stored.iter().map(|stored| stored.event.id).collect::<Vec<_>>(), model.events);
    assert_eq!(world.store().dispatch_position().await.unwrap(), model.dispatched);
    assert_eq!(world.jobs().await, model.jobs.iter().map(|job| job.id).collect::<Vec<_>>());
    for expected in &model.jobs {
        let job = world.store().job(expected.id).await.unwrap();
        assert_eq!((job.status, job.event), (expected.status, expected.event));
        assert_eq!(job.steps.unwrap().len(), expected.steps as usize);
    }
}
