//! Jobs: made once, worked on by one worker at a time, recorded step by step.

use std::time::Duration;

use linkspan_model::job::{JobStatus, StepError};
use linkspan_model::{Clock as _, JsonText, limits};
use linkspan_store::{Care, Claimed, Dispatched, JobFilter, LogRun, Next, Shares, StepRecord, StoreError};
use serde_json::{Value, json};

use crate::harness::{World, name, recipe, step_run};

/// The step at `position` with an output of its own, as it succeeded.
fn succeeded(position: u32, result: &Value) -> StepRecord {
    let mut run = step_run(JobStatus::Succeeded);
    run.id = format!("step{position}");
    run.input = Some(JsonText::of(&json!({"method": "POST", "price": 1.10})).unwrap());
    run.output = Some(JsonText::of(&json!({"status": 200})).unwrap());
    StepRecord { position, run, result: Some(serde_json::to_vec(result).unwrap()) }
}

/// The same step while it waits for its next attempt.
fn waiting(position: u32, at: linkspan_model::Timestamp) -> StepRecord {
    let mut record = succeeded(position, &Value::Null);
    record.run.status = JobStatus::Waiting;
    record.run.retry_at = Some(at);
    record.run.error = Some(error());
    record.result = None;
    record
}

fn error() -> StepError {
    StepError {
        code: "outbound.timeout".to_owned(),
        description: "no answer within 30,000 ms".to_owned(),
        field: None,
        outcome_unknown: Some(true),
    }
}

async fn status(world: &World, claimed: &Claimed) -> JobStatus {
    world.store().job(claimed.lease.job).await.unwrap().status
}

pub async fn makes_jobs_and_moves_the_position_together(mut world: World) {
    let (first, second) = (world.append("1").await, world.append("2").await);
    world.dispatch_all().await;
    world.reopen();
    assert_eq!(world.store().dispatch_position().await.unwrap(), second.seq());
    let jobs = world.jobs().await;
    assert_eq!(jobs.len(), 2);
    let job = world.store().job(jobs[0]).await.unwrap();
    assert_eq!((job.event, job.status, job.recipe.as_str()), (first, JobStatus::Queued, "act"));
    assert_eq!(job.created_at, world.clock.now());
    assert_eq!(job.steps, Some(Vec::new()));
}

pub async fn refuses_a_dispatch_from_another_position(world: World) {
    let event = world.append("1").await;
    let twice = || Dispatched {
        after: 0,
        up_to: event.seq(),
        runs: LogRun::of([(world.endpoint("in"), event.seq())]),
        jobs: vec![world.job_for(event)],
    };
    let (one, other) = tokio::join!(world.store().dispatch(twice()), world.store().dispatch(twice()));
    let conflict = |outcome: &linkspan_store::Result<()>| matches!(outcome, Err(StoreError::Conflict(_)));
    assert!(one.is_ok() && conflict(&other) || conflict(&one) && other.is_ok());
    assert_eq!(world.jobs().await.len(), 1);
}

pub async fn claims_oldest_first_and_each_job_once(world: World) {
    for n in 0..30 {
        world.append(format!("{n}")).await;
    }
    world.dispatch_all().await;
    let (one, other) = tokio::join!(world.claim(20), world.claim(20));
    let mut claimed: Vec<_> = one.unwrap();
    assert!(claimed.is_sorted_by_key(|claimed| claimed.lease.job.seq()));
    claimed.extend(other.unwrap());
    // Two that look at once see the same jobs, and each of these is taken by one.
    claimed.extend(world.claim(20).await.unwrap());
    assert_eq!(claimed.len(), 30);
    claimed.sort_by_key(|claimed| claimed.lease.job.seq());
    claimed.dedup_by_key(|claimed| claimed.lease.job);
    assert_eq!(claimed.iter().map(|claimed| claimed.lease.job).collect::<Vec<_>>(), world.jobs().await);
    assert!(claimed.iter().all(|claimed| claimed.claims == 1 && claimed.steps.is_empty()));
    assert!(world.claim(20).await.unwrap().is_empty());
    assert_eq!(world.store().open_jobs().await.unwrap(), [(JobStatus::Running, 30)]);
}

pub async fn gives_every_recipe_its_turn(world: World) {
    world.apply(json!([recipe("other", "in"), recipe("third", "in")])).await;
    let event = world.append("{}").await;
    let job = |name: &str| {
        let (recipe, recipe_revision) = world.recipe(name);
        linkspan_store::NewJob { recipe, recipe_revision, ..world.job_for(event) }
    };
    let busy = (0..100).map(|_| job("act")).collect();
    world.store().queue_jobs(busy).await.unwrap();
    let (act, other, third) = (world.recipe("act").0, world.recipe("other").0, world.recipe("third").0);
    let count = |claimed: &[linkspan_store::Claimed], recipe| claimed.iter().filter(|job| job.recipe == recipe).count();
    // Of sixteen places a recipe alone takes half: the rest is for whoever comes.
    let mut shares = Shares::of(16);
    shares.free = 16;
    assert_eq!(world.store().claim(&mut shares).await.unwrap().len(), 8);
    assert!(shares.is_short && shares.free == 8);
    world.store().queue_jobs(vec![job("other"), job("third"), job("other")]).await.unwrap();
    let claimed = world.store().claim(&mut shares).await.unwrap();
    assert_eq!((count(&claimed, act), count(&claimed, other), count(&claimed, third)), (0, 2, 1));
    // With many places each recipe has its turn, however many jobs another one has.
    let mut shares = Shares::of(4);
    shares.free = 64;
    world.store().queue_jobs(vec![job("other"), job("third"), job("other")]).await.unwrap();
    let claimed = world.store().claim(&mut shares).await.unwrap();
    assert_eq!((count(&claimed, act), count(&claimed, other), count(&claimed, third)), (2, 1, 1));
    assert!(!shares.is_short);
}

pub async fn calls_jobs_that_wait_for_a_connection(world: World) {
    world.append("1").await;
    world.append("2").await;
    let claimed = world.claimed_of(3).await;
    let far = world.clock.now().after(Duration::from_secs(3_600));
    for (job, connection) in claimed.iter().zip([7, 7, 8]) {
        let record = StepRecord { position: 0, run: step_run(JobStatus::Waiting), result: None };
        world.store().record_step(job.lease, record, Next::WaitFor { until: far, connection }).await.unwrap();
    }
    assert!(world.claim(10).await.unwrap().is_empty());
    assert_eq!(world.store().hasten(7, 1).await.unwrap(), 1);
    assert_eq!(
        world.claim(10).await.unwrap().iter().map(|job| job.lease.job).collect::<Vec<_>>(),
        [claimed[0].lease.job]
    );
    assert_eq!((world.store().hasten(7, 10).await.unwrap(), world.store().hasten(7, 10).await.unwrap()), (1, 0));
    assert_eq!(world.claim(10).await.unwrap().len(), 1);
    // The other connection's comes at its own time.
    world.clock.advance(Duration::from_secs(3_600));
    assert_eq!(world.claim(10).await.unwrap()[0].lease.job, claimed[2].lease.job);
}

pub async fn shows_a_deferred_job_when_its_condition_holds(world: World) {
    let event = world.append("{}").await;
    let deferred = || linkspan_store::NewJob { is_deferred: true, ..world.job_for(event) };
    world.store().queue_jobs(vec![deferred(), deferred()]).await.unwrap();
    assert!(world.jobs().await.is_empty());
    let claimed = world.claim(10).await.unwrap();
    assert!(claimed.iter().all(|job| job.is_deferred));
    world.store().decide_deferred(claimed[0].lease, true).await.unwrap();
    world.store().decide_deferred(claimed[1].lease, false).await.unwrap();
    assert_eq!(world.jobs().await, [claimed[0].lease.job]);
    // Its number is not given again.
    let next = world.store().queue_jobs(vec![world.job_for(event)]).await.unwrap();
    assert_eq!(next[0].seq(), claimed[1].lease.job.seq() + 1);
}

pub async fn keeps_what_is_held_whatever_the_clock_says(world: World) {
    let held = world.claimed().await;
    let gone = world.claimed().await;
    world.clock.advance(Duration::from_secs(31 * 86_400));
    assert_eq!(world.store().reclaim_expired(&[held.lease]).await.unwrap(), 1);
    assert_eq!(world.claim(10).await.unwrap()[0].lease.job, gone.lease.job);
    world.store().record_step(held.lease, succeeded(0, &json!(1)), Next::Succeed).await.unwrap();
}

pub async fn brings_jobs_nearer_when_the_clock_was_set_back(world: World) {
    let waiting = world.claimed().await;
    let at = world.clock.now().after(Duration::from_secs(60));
    let record = StepRecord { position: 0, run: step_run(JobStatus::Waiting), result: None };
    world.store().record_step(waiting.lease, record, Next::RetryAt(at)).await.unwrap();
    world.append("queued").await;
    world.dispatch_all().await;
    let back = Duration::from_secs(3_600);
    world.clock.set_back(back);
    assert!(world.claim(10).await.unwrap().is_empty());
    world.store().bring_forward(back).await.unwrap();
    assert_eq!(world.claim(10).await.unwrap().len(), 1);
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.claim(10).await.unwrap()[0].lease.job, waiting.lease.job);
}

pub async fn finds_the_jobs_of_a_recipe_that_was_deleted(world: World) {
    let old = world.claimed().await;
    world.store().record_step(old.lease, succeeded(0, &json!(1)), Next::Succeed).await.unwrap();
    for _ in 0..3 {
        world.append("{}").await;
    }
    world.dispatch_all().await;
    let count = async || world.store().open_jobs_of(name("act")).await.unwrap();
    let listed = async || {
        let filter = JobFilter { recipe: Some(name("act")), limit: 10, ..JobFilter::default() };
        world.store().jobs(filter).await.unwrap().jobs.len()
    };
    let delete = || world.store().delete(linkspan_model::Kind::Recipe, name("act"), linkspan_store::Precondition::None);
    delete().await.unwrap();
    assert_eq!((count().await, listed().await), (3, 4));
    assert_eq!(world.store().cancel_all(name("act")).await.unwrap(), 3);
    assert_eq!((count().await, listed().await), (0, 4));
    // One of the same name is the same recipe: its jobs are run again by it.
    world.apply(json!([recipe("act", "in")])).await;
    assert_eq!(listed().await, 4);
    let again = world.store().rerun(old.lease.job, 1).await.unwrap();
    assert_eq!(world.claim(10).await.unwrap()[0].lease.job, again);
    assert!(matches!(world.store().cancel_all(name("never")).await, Err(StoreError::NotFound(_))));
}

pub async fn gets_careful_where_several_processes_have_ended(mut world: World) {
    world.append("1").await;
    world.append("2").await;
    world.append("3").await;
    let began = async |world: &World| world.store().dispatch_began().await.unwrap();
    assert_eq!([began(&world).await, began(&world).await], [Care::Usual; 2]);
    world.reopen();
    assert_eq!(began(&world).await, Care::StepByStep);
    // Step by step it came past the first, and ended at the second.
    let passed = Dispatched { up_to: 1, ..Dispatched::default() };
    world.store().dispatch(passed).await.unwrap();
    world.reopen();
    assert_eq!([began(&world).await, began(&world).await], [Care::StepByStep, Care::SetAside]);
    world.store().dispatch_goes_on().await.unwrap();
    assert_eq!(began(&world).await, Care::Usual);
    // Where nothing waits nothing can have ended it.
    let all = Dispatched { after: 1, up_to: 3, ..Dispatched::default() };
    world.store().dispatch(all).await.unwrap();
    for _ in 0..10 {
        assert_eq!(began(&world).await, Care::Usual);
    }
}

pub async fn shuts_out_a_worker_whose_lease_was_taken_over(world: World) {
    let slow = world.claimed().await;
    world.clock.advance(limits::LEASE);
    assert_eq!(world.store().reclaim_expired(&[]).await.unwrap(), 0);
    world.clock.advance(Duration::from_micros(1));
    assert_eq!(world.store().reclaim_expired(&[]).await.unwrap(), 1);
    let quick = world.claim(1).await.unwrap().remove(0);
    assert_eq!((quick.lease.job, quick.claims), (slow.lease.job, 2));
    let large = json!("x".repeat(limits::INLINE_BODY_BYTES));
    let late = world.store().record_step(slow.lease, succeeded(0, &large), Next::Continue).await;
    assert!(matches!(late, Err(StoreError::Fenced)));
    assert!(world.spooled().is_empty());
    assert!(matches!(world.store().fail_job(slow.lease, error()).await, Err(StoreError::Fenced)));
    assert!(matches!(world.store().release(slow.lease).await, Err(StoreError::Fenced)));
    assert_eq!(world.store().renew(vec![slow.lease, quick.lease]).await.unwrap(), [slow.lease]);
    assert_eq!(world.store().job(quick.lease.job).await.unwrap().steps.unwrap(), []);
    world.store().record_step(quick.lease, succeeded(0, &json!(1)), Next::Succeed).await.unwrap();
    assert_eq!(status(&world, &quick).await, JobStatus::Succeeded);
}

pub async fn counts_workers_that_went_away_since_the_last_step(world: World) {
    let mut last = world.claimed().await;
    for (step, claims) in [(None, 2), (None, 3), (Some(0), 2), (None, 3), (Some(1), 2)] {
        if let Some(step) = step {
            world.store().record_step(last.lease, succeeded(step, &json!(1)), Next::Continue).await.unwrap();
        }
        world.clock.advance(limits::LEASE + Duration::from_micros(1));
        assert_eq!(world.store().reclaim_expired(&[]).await.unwrap(), 1);
        last = world.claim(1).await.unwrap().remove(0);
        assert_eq!((last.claims, last.was_interrupted), (claims, true));
    }
}

pub async fn renews_a_lease_before_it_runs_out(world: World) {
    let claimed = world.claimed().await;
    for _ in 0..3 {
        world.clock.advance(limits::LEASE);
        assert!(world.store().renew(vec![claimed.lease]).await.unwrap().is_empty());
        assert_eq!(world.store().reclaim_expired(&[]).await.unwrap(), 0);
    }
}

pub async fn waits_until_the_time_of_the_next_attempt(world: World) {
    let claimed = world.claimed().await;
    let at = world.clock.now().after(Duration::from_secs(5));
    world.store().record_step(claimed.lease, waiting(0, at), Next::RetryAt(at)).await.unwrap();
    let job = world.store().job(claimed.lease.job).await.unwrap();
    assert_eq!(job.status, JobStatus::Waiting);
    assert_eq!(job.steps.unwrap()[0].retry_at, Some(at));
    let mut shares = Shares::of(1);
    assert!(world.store().claim(&mut shares).await.unwrap().is_empty());
    assert_eq!(shares.next_at, Some(at));
    world.clock.advance(Duration::from_secs(5));
    let again = world.claim(1).await.unwrap().remove(0);
    assert_eq!(again.claims, 1, "a wait is not a worker that went away");
    assert_eq!(again.steps[0].run, waiting(0, at).run);
    assert_eq!(again.steps[0].result, None);
    let late = world.store().record_step(claimed.lease, succeeded(0, &json!(1)), Next::Succeed).await;
    assert!(matches!(late, Err(StoreError::Fenced)));
}

pub async fn gives_later_steps_the_whole_output_of_earlier_ones(mut world: World) {
    let claimed = world.claimed().await;
    let exact: Value = serde_json::from_str(r#"{"n": 12345678901234567890.10, "b": true}"#).unwrap();
    let large = json!("x".repeat(limits::INLINE_BODY_BYTES));
    for (position, result) in [(0, &exact), (1, &large)] {
        world.store().record_step(claimed.lease, succeeded(position, result), Next::Continue).await.unwrap();
    }
    assert_eq!(world.spooled().len(), 1);
    world.reopen();
    let again = world.claim(1).await.unwrap().remove(0);
    assert_eq!(again.steps.iter().map(|step| step.result.clone().unwrap()).collect::<Vec<_>>(), [exact, large]);
}

pub async fn replaces_what_an_attempt_left(world: World) {
    let claimed = world.claimed().await;
    for fill in ["x", "y", "z"] {
        let large = json!(fill.repeat(limits::INLINE_BODY_BYTES));
        world.store().record_step(claimed.lease, succeeded(0, &large), Next::Continue).await.unwrap();
        assert_eq!(world.spooled().len(), 1, "an output that was replaced is gone");
    }
    assert_eq!(world.store().job(claimed.lease.job).await.unwrap().steps.unwrap().len(), 1);
}

pub async fn removes_outputs_when_the_job_ends(world: World) {
    let large = json!("x".repeat(limits::INLINE_BODY_BYTES));
    for next in [Next::Succeed, Next::Fail(error())] {
        let claimed = world.claimed().await;
        world.store().record_step(claimed.lease, succeeded(0, &large), Next::Continue).await.unwrap();
        assert_eq!(world.spooled().len(), 1);
        world.store().record_step(claimed.lease, succeeded(1, &large), next.clone()).await.unwrap();
        assert!(world.spooled().is_empty());
        let job = world.store().job(claimed.lease.job).await.unwrap();
        assert!(job.status.is_final());
        assert_eq!(job.finished_at, Some(world.clock.now()));
        assert_eq!(job.error, matches!(next, Next::Fail(_)).then(error));
        assert_eq!(job.steps.unwrap()[0], succeeded(0, &large).run);
    }
}

pub async fn cancels_a_running_job_under_its_worker(world: World) {
    let claimed = world.claimed().await;
    let large = json!("x".repeat(limits::INLINE_BODY_BYTES));
    world.store().record_step(claimed.lease, succeeded(0, &large), Next::Continue).await.unwrap();
    world.store().cancel(claimed.lease.job).await.unwrap();
    assert_eq!(status(&world, &claimed).await, JobStatus::Canceled);
    assert!(world.spooled().is_empty());
    let late = world.store().record_step(claimed.lease, succeeded(1, &json!(1)), Next::Succeed).await;
    assert!(matches!(late, Err(StoreError::Fenced)));
    assert!(matches!(world.store().cancel(claimed.lease.job).await, Err(StoreError::Conflict(_))));
    let unknown = linkspan_model::JobId::new(world.clock.now(), 99, 0);
    assert!(matches!(world.store().cancel(unknown).await, Err(StoreError::NotFound(_))));
}

pub async fn reruns_a_job_with_the_recipe_as_it_is_now(world: World) {
    let first = world.claimed().await;
    world.store().record_step(first.lease, succeeded(0, &json!(1)), Next::Fail(error())).await.unwrap();
    let mut changed = recipe("act", "in");
    changed["spec"]["steps"][0]["id"] = json!("tell_again");
    world.apply(json!([changed])).await;
    let rerun = world.store().rerun(first.lease.job, 1).await.unwrap();
    assert_ne!(rerun, first.lease.job);
    let again = world.claim(1).await.unwrap().remove(0);
    assert_eq!((again.lease.job, again.rerun_of), (rerun, Some(first.lease.job)));
    assert_eq!((again.event, again.recipe_revision), (first.event, 2));
    assert!(again.steps.is_empty());
    let said = world.store().recipe_revision(again.recipe, again.recipe_revision).await.unwrap();
    assert_eq!(said.to_value(), changed);
    assert_eq!(status(&world, &first).await, JobStatus::Failed);
    world.store().delete(linkspan_model::Kind::Recipe, name("act"), linkspan_store::Precondition::None).await.unwrap();
    assert!(matches!(world.store().rerun(rerun, 2).await, Err(StoreError::NotFound(_))));
}

pub async fn gives_a_job_back_as_if_it_was_not_taken(world: World) {
    let mut claimed = world.claimed().await;
    for _ in 0..3 {
        world.store().release(claimed.lease).await.unwrap();
        assert_eq!(status(&world, &claimed).await, JobStatus::Queued);
        assert!(matches!(world.store().release(claimed.lease).await, Err(StoreError::Fenced)));
        claimed = world.claim(1).await.unwrap().remove(0);
        assert_eq!(claimed.claims, 1);
    }
    // After a wait too.
    let at = world.clock.now();
    world.store().record_step(claimed.lease, waiting(0, at), Next::RetryAt(at)).await.unwrap();
    for _ in 0..2 {
        let again = world.claim(1).await.unwrap().remove(0);
        assert_eq!(again.claims, 1);
        world.store().release(again.lease).await.unwrap();
    }
}

pub async fn takes_up_running_jobs_after_a_restart(mut world: World) {
    let before = world.claimed().await;
    world.store().record_step(before.lease, succeeded(0, &json!({"a": 1})), Next::Continue).await.unwrap();
    world.reopen();
    assert_eq!(status(&world, &before).await, JobStatus::Queued);
    let after = world.claim(1).await.unwrap().remove(0);
    assert_eq!((after.lease.job, after.claims), (before.lease.job, 2));
    assert_eq!(after.steps[0].result, Some(json!({"a": 1})));
    let late = world.store().record_step(before.lease, succeeded(1, &json!(1)), Next::Succeed).await;
    assert!(matches!(late, Err(StoreError::Fenced)));
}

pub async fn lists_jobs_by_recipe_status_and_event(world: World) {
    world.apply(json!([recipe("other", "in")])).await;
    let first = world.claimed().await;
    world.store().record_step(first.lease, succeeded(0, &json!(1)), Next::Succeed).await.unwrap();
    let event = world.append("2").await;
    world.dispatch_all().await;
    let (row, revision) = world.recipe("other");
    let mut other = world.job_for(event);
    (other.recipe, other.recipe_revision) = (row, revision);
    let other = world.store().queue_jobs(vec![other]).await.unwrap()[0];
    let of = async |filter: JobFilter| {
        let jobs = world.store().jobs(JobFilter { limit: 10, ..filter }).await.unwrap().jobs;
        assert!(jobs.iter().all(|job| job.steps.is_none()));
        jobs.into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    let all = of(JobFilter::default()).await;
    assert_eq!((all.len(), all[0], all[2]), (3, other, first.lease.job));
    assert_eq!(of(JobFilter { recipe: Some(name("other")), ..JobFilter::default() }).await, [other]);
    assert_eq!(of(JobFilter { event: Some(event), ..JobFilter::default() }).await, [other, all[1]]);
    let done = JobFilter { status: Some(JobStatus::Succeeded), ..JobFilter::default() };
    assert_eq!(of(done).await, [first.lease.job]);
    assert_eq!(of(JobFilter { before: Some(all[1].seq()), ..JobFilter::default() }).await, [first.lease.job]);
    let unknown = world.store().jobs(JobFilter { recipe: Some(name("nobody")), ..JobFilter::default() }).await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))));
    assert_eq!(world.store().open_jobs().await.unwrap(), [(JobStatus::Queued, 2)]);
}

pub async fn fails_a_job_that_comes_to_no_step(world: World) {
    let claimed = world.claimed().await;
    world.store().fail_job(claimed.lease, error()).await.unwrap();
    let job = world.store().job(claimed.lease.job).await.unwrap();
    assert_eq!((job.status, job.error), (JobStatus::Failed, Some(error())));
    assert!(matches!(world.store().fail_job(claimed.lease, error()).await, Err(StoreError::Fenced)));
}

pub async fn tells_a_job_whose_worker_went_away_from_one_that_waited(mut world: World) {
    let first = world.claimed().await;
    assert!(!first.was_interrupted);
    let at = world.clock.now();
    world.store().record_step(first.lease, waiting(0, at), Next::RetryAt(at)).await.unwrap();
    let waited = world.claim(1).await.unwrap().remove(0);
    assert!(!waited.was_interrupted);
    // The worker of the second attempt goes away: nothing says so but the claim.
    world.reopen();
    let again = world.claim(1).await.unwrap().remove(0);
    assert!(again.was_interrupted);
    assert_eq!(again.steps[0].run.status, JobStatus::Waiting);
}
