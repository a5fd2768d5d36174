//! Routes as declarations, and the router that is made from them.

use std::pin::Pin;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::routing::{MethodFilter, on};
use http::{Method, Request, Response, StatusCode};
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use super::Api;
use super::call::{Answer, Call};
use crate::problem::Problem;

/// A handler: the call, already checked against its declaration, to an answer.
pub(super) type Run = fn(Api, Call) -> Pin<Box<dyn Future<Output = Result<Answer, Problem>> + Send>>;

/// Makes the schema of a body.
pub(super) type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

/// One operation of the API.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) id: String,
    pub(super) tag: &'static str,
    pub(super) summary: String,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<BodySpec>,
    pub(super) status: StatusCode,
    pub(super) answer: AnswerSpec,
    /// Statuses besides those that every operation can give.
    pub(super) problems: Vec<StatusCode>,
    pub(super) access: Access,
    pub(super) run: Run,
    /// What a route that stands for one of several kinds is about.
    pub(super) kind: Option<linkspan_model::Kind>,
}

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Whoever reaches the operator listener: probes and the API's description.
    Open,
    /// Whoever holds an operator token.
    Operator,
}

/// What an operation answers.
pub(super) enum AnswerSpec {
    Json(MakeSchema),
    /// Lines of JSON, each of this schema.
    Lines(MakeSchema),
    Text,
    Nothing,
}

/// What an operation is sent.
pub(super) struct BodySpec {
    pub(super) schema: MakeSchema,
    pub(super) required: bool,
}

/// A parameter of an operation.
#[derive(Clone)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: ParameterPlace,
    pub(super) description: &'static str,
    pub(super) kind: ParameterKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ParameterPlace {
    Path,
    Query,
    IfMatch,
}

/// What a parameter's text must be.
#[derive(Clone)]
pub(super) enum ParameterKind {
    Text,
    Flag,
    Number { least: u64, most: u64, default: u64 },
    OneOf(Vec<&'static str>),
}

/// The schema of `T`.
pub(super) fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Route {
    pub(super) fn new(method: Method, path: impl Into<String>, id: impl Into<String>, run: Run) -> Self {
        Self {
            method,
            path: path.into(),
            id: id.into(),
            tag: "server",
            summary: String::new(),
            parameters: Vec::new(),
            body: None,
            status: StatusCode::OK,
            answer: AnswerSpec::Nothing,
            problems: Vec::new(),
            access: Access::Operator,
            run,
            kind: None,
        }
    }

    pub(super) fn about(mut self, tag: &'static str, summary: impl Into<String>) -> Self {
        self.tag = tag;
        self.summary = summary.into();
        self
    }

    pub(super) fn path_parameter(self, name: &'static str, description: &'static str) -> Self {
        self.parameter(name, ParameterPlace::Path, description, ParameterKind::Text)
    }

    pub(super) fn query(self, name: &'static str, description: &'static str, kind: ParameterKind) -> Self {
        self.parameter(name, ParameterPlace::Query, description, kind)
    }

    pub(super) fn if_match(self) -> Self {
        let description = "The revision (ETag) that the change is meant for; another one is refused with 412.";
        let mut route = self.parameter("If-Match", ParameterPlace::IfMatch, description, ParameterKind::Text);
        route.problems.push(StatusCode::PRECONDITION_FAILED);
        route
    }

    /// The parameters of a list: `limit` and `cursor`.
    pub(super) fn paged(self) -> Self {
        self.query("limit", "Most items of a page.", ParameterKind::Number { least: 1, most: 1_000, default: 100 })
            .query("cursor", "Where the page begins: `next` of the page before.", ParameterKind::Text)
    }

    fn parameter(
        mut self,
        name: &'static str,
        place: ParameterPlace,
        description: &'static str,
        kind: ParameterKind,
    ) -> Self {
        self.parameters.push(Parameter { name, place, description, kind });
        self
    }

    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        self.body = Some(BodySpec { schema: schema::<T>, required: true });
        self
    }

    pub(super) fn may_take<T: JsonSchema>(mut self) -> Self {
        self.body = Some(BodySpec { schema: schema::<T>, required: false });
        self
    }

    pub(super) fn gives<T: JsonSchema>(mut self) -> Self {
        self.answer = AnswerSpec::Json(schema::<T>);
        self
    }

    /// Gives lines of JSON, each one a `T`.
    pub(super) fn streams<T: JsonSchema>(mut self) -> Self {
        self.answer = AnswerSpec::Lines(schema::<T>);
        self
    }

    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(super) fn problems(mut self, statuses: &[u16]) -> Self {
        self.problems.extend(statuses.iter().filter_map(|status| StatusCode::from_u16(*status).ok()));
        self
    }

    pub(super) fn open(mut self) -> Self {
        self.access = Access::Open;
        self
    }

    pub(super) fn of(mut self, kind: linkspan_model::Kind) -> Self {
        self.kind = Some(kind);
        self
    }
}

/// Every operation of the API.
pub(super) fn all() -> Vec<Route> {
    let mut routes = super::admin::routes();
    routes.extend(super::apply::routes());
    routes.extend(super::resources::routes());
    routes.extend(super::accounts::routes());
    routes.extend(super::connections::routes());
    routes.extend(super::calls::routes());
    routes.extend(super::connectors::routes());
    routes.extend(super::events::routes());
    routes.extend(super::jobs::routes());
    routes.extend(super::refusals::routes());
    routes.extend(super::syncs::routes());
    routes.extend(super::tables::routes());
    routes
}

/// The router of these routes.
pub(super) fn router(api: Api, routes: &[Route]) -> Router {
    let mut router = Router::new();
    for route in routes {
        let declared = std::sync::Arc::new(Declared {
            parameters: route.parameters.clone(),
            body: route.body.as_ref().map(|body| body.required),
            access: route.access,
            run: route.run,
            kind: route.kind,
        });
        let handler = move |State(api): State<Api>, path: Path<Vec<(String, String)>>, request: Request<Body>| {
            let declared = std::sync::Arc::clone(&declared);
            async move { answer(api, &declared, path.0, request).await }
        };
        router = router.route(&route.path, on(filter(&route.method), handler));
    }
    router
        .fallback(|| async { Problem::not_found("there is nothing at this path; /openapi.json lists what there is") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "request.method", "this path does not take this method")
        })
        .with_state(api)
}

pub(super) struct Declared {
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<bool>,
    pub(super) access: Access,
    pub(super) run: Run,
    pub(super) kind: Option<linkspan_model::Kind>,
}

async fn answer(api: Api, declared: &Declared, path: Vec<(String, String)>, request: Request<Body>) -> Response<Body> {
    let outcome = match Call::read(&api, declared, path, request).await {
        Ok(call) => (declared.run)(api, call).await,
        Err(problem) => Err(problem),
    };
    match outcome {
        Ok(answer) => answer.respond(),
        Err(problem) => problem.respond().map(Body::new),
    }
}

fn filter(method: &Method) -> MethodFilter {
    match *method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::PATCH => MethodFilter::PATCH,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    }
}

/// `{"data": value}`.
pub(super) fn data(value: impl serde::Serialize) -> Result<Answer, Problem> {
    let value = serde_json::to_value(value).map_err(|error| super::internal(&error))?;
    Ok(Answer::json(StatusCode::OK, serde_json::json!({"data": value})))
}

/// `{"data": [...], "next": cursor or null}`.
pub(super) fn page(items: Vec<Value>, next: Option<String>) -> Answer {
    Answer::json(StatusCode::OK, serde_json::json!({"data": items, "next": next}))
}

/// Wraps an `async fn(Api, Call)` as a route's handler.
macro_rules! run {
    ($handler:path) => {
        |api, call| Box::pin($handler(api, call))
    };
}
pub(super) use run;
