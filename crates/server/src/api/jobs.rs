//! Jobs: listed, shown with every step, run again, ended; and recipes started and stopped.

use http::{Method, StatusCode};
use linkspan_model::job::{Job, JobStatus};
use linkspan_model::{Document, JobId, Kind};
use linkspan_store::{JobFilter, Precondition};
use metrics::counter;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::call::{Answer, Call};
use super::route::{ParameterKind, Route, data, page, run};
use super::{Api, internal};
use crate::problem::Problem;

#[derive(Serialize, JsonSchema)]
struct JobAnswer {
    data: Job,
}

#[derive(Serialize, JsonSchema)]
struct JobPage {
    data: Vec<Job>,
    /// The cursor of the next page.
    next: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct RerunAnswer {
    data: Rerun,
}

#[derive(Serialize, JsonSchema)]
struct Rerun {
    /// The new job.
    id: JobId,
}

#[derive(Serialize, JsonSchema)]
struct RunningAnswer {
    data: Running,
}

#[derive(Serialize, JsonSchema)]
struct Running {
    /// Whether the recipe runs now.
    running: bool,
    /// The command whose next run takes this back, where the recipe stands in documents that were applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_by: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct CanceledAnswer {
    data: Canceled,
}

#[derive(Serialize, JsonSchema)]
struct Canceled {
    /// How many jobs were canceled.
    canceled: u64,
}

pub(super) fn routes() -> Vec<Route> {
    let statuses = JobStatus::ALL.map(JobStatus::as_str).to_vec();
    let recipe = "The name of the recipe.";
    vec![
        Route::new(Method::GET, "/api/v1/jobs", "list_jobs", run!(list))
            .about("jobs", "Lists jobs, newest first, without their steps.")
            .query("recipe", "Only of this recipe.", ParameterKind::Text)
            .query("status", "Only in this state.", ParameterKind::OneOf(statuses))
            .query("event", "Only those that this event started.", ParameterKind::Text)
            .paged()
            .gives::<JobPage>()
            .problems(&[404]),
        Route::new(Method::GET, "/api/v1/jobs/{id}", "get_job", run!(get))
            .about("jobs", "Gives one job with the input and output of every step.")
            .path_parameter("id", "The id of the job.")
            .gives::<JobAnswer>(),
        Route::new(Method::POST, "/api/v1/jobs/{id}/rerun", "rerun_job", run!(rerun))
            .about("jobs", "Runs the recipe, as it is now, on the job's stored event again.")
            .path_parameter("id", "The id of the job.")
            .gives::<RerunAnswer>()
            .with_status(StatusCode::CREATED),
        Route::new(Method::POST, "/api/v1/jobs/{id}/cancel", "cancel_job", run!(cancel))
            .about("jobs", "Ends a job that has not ended.")
            .path_parameter("id", "The id of the job.")
            .gives::<JobAnswer>()
            .problems(&[409]),
        Route::new(Method::POST, "/api/v1/recipes/{name}/jobs/cancel", "cancel_recipe_jobs", run!(cancel_all))
            .about(
                "jobs",
                "Cancels the jobs of a recipe that wait, also of one that was deleted; those under way go on.",
            )
            .path_parameter("name", recipe)
            .gives::<CanceledAnswer>()
            .of(Kind::Recipe),
        Route::new(Method::POST, "/api/v1/recipes/{name}/start", "start_recipe", run!(start))
            .about("recipes", "Starts a recipe, at the end of the log.")
            .path_parameter("name", recipe)
            .gives::<RunningAnswer>()
            .problems(&[409, 412])
            .of(Kind::Recipe),
        Route::new(Method::POST, "/api/v1/recipes/{name}/stop", "stop_recipe", run!(stop))
            .about("recipes", "Stops a recipe; jobs that it has started go on.")
            .path_parameter("name", recipe)
            .gives::<RunningAnswer>()
            .problems(&[409, 412])
            .of(Kind::Recipe),
    ]
}

async fn list(api: Api, call: Call) -> Result<Answer, Problem> {
    let limit = call.limit();
    let filter = JobFilter {
        recipe: call.parsed("recipe")?,
        status: call.parsed("status")?,
        event: call.parsed("event")?,
        before: call.parsed::<JobId>("cursor")?.map(JobId::seq),
        limit,
    };
    let found = api.store.jobs(filter).await?;
    let next = found.next.map(|job| job.to_string());
    let items: Result<Vec<Value>, _> = found.jobs.into_iter().map(serde_json::to_value).collect();
    Ok(page(items.map_err(|error| internal(&error))?, next))
}

async fn get(api: Api, call: Call) -> Result<Answer, Problem> {
    data(api.store.job(call.id()?).await?)
}

async fn rerun(api: Api, call: Call) -> Result<Answer, Problem> {
    let id = api.store.rerun(call.id()?, super::events::salt(&api)).await?;
    counter!("linkspan_jobs_queued_total").increment(1);
    Ok(Answer::json(StatusCode::CREATED, serde_json::json!({"data": {"id": id}})))
}

async fn cancel(api: Api, call: Call) -> Result<Answer, Problem> {
    let id = call.id()?;
    api.store.cancel(id).await?;
    counter!("linkspan_jobs_total", "status" => "canceled").increment(1);
    data(api.store.job(id).await?)
}

async fn cancel_all(api: Api, call: Call) -> Result<Answer, Problem> {
    let canceled = api.store.cancel_all(call.name()?).await?;
    counter!("linkspan_jobs_total", "status" => "canceled").increment(canceled);
    data(Canceled { canceled })
}

async fn start(api: Api, call: Call) -> Result<Answer, Problem> {
    set_enabled(api, call, true).await
}

async fn stop(api: Api, call: Call) -> Result<Answer, Problem> {
    set_enabled(api, call, false).await
}

async fn set_enabled(api: Api, call: Call, enabled: bool) -> Result<Answer, Problem> {
    let found = api.store.resource(Kind::Recipe, call.name()?).await?;
    let mut document = found.document.clone();
    if enabled {
        if let Some(spec) = document["spec"].as_object_mut() {
            spec.shift_remove("enabled");
        }
    } else {
        document["spec"]["enabled"] = Value::Bool(false);
    }
    let document = Document::read(&document).map_err(Problem::invalid)?;
    let (stored, _) = api.store.put(document, Precondition::Present(Some(found.revision))).await?;
    data(Running { running: enabled, managed_by: super::resources::managed_by(&stored) })
}
