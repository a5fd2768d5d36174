//! The OpenAPI 3.1 document, made from the routes' declarations.

use http::StatusCode;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::route::{Access, AnswerSpec, ParameterKind, ParameterPlace, Route, all, schema};
use crate::problem::ErrorBody;

/// The document. The same at every run: it is committed, and a test compares.
#[must_use]
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let error = schema::<ErrorBody>(&mut generator);
    let mut paths = Map::new();
    for route in all() {
        let operation = operation(&route, &mut generator, error.as_value());
        let path = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Linkspan operator API",
            "version": "1",
            "description": "Everything that the CLI and the console do. Answers are {\"data\": …}, lists {\"data\": […], \"next\": cursor or null}, errors {\"error\": {\"code\", \"description\"}}.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"}
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"operator": {"type": "http", "scheme": "bearer"}}
        }
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator, error: &Value) -> Value {
    let mut operation = json!({
        "operationId": route.id,
        "tags": [route.tag],
        "summary": route.summary,
        "parameters": route.parameters.iter().map(parameter).collect::<Vec<_>>(),
        "responses": responses(route, generator, error),
    });
    if let Some(body) = &route.body {
        operation["requestBody"] = json!({
            "required": body.required,
            "content": {"application/json": {"schema": (body.schema)(generator)}},
        });
    }
    if route.access == Access::Operator {
        operation["security"] = json!([{"operator": []}]);
    }
    operation
}

fn parameter(parameter: &super::route::Parameter) -> Value {
    let (place, required) = match parameter.place {
        ParameterPlace::Path => ("path", true),
        ParameterPlace::Query => ("query", false),
        ParameterPlace::IfMatch => ("header", false),
    };
    let schema = match &parameter.kind {
        _ if parameter.place == ParameterPlace::IfMatch => {
            json!({"type": "string", "pattern": r#"^(\*|(W/)?"[0-9]{1,18}")$"#})
        }
        ParameterKind::Text => json!({"type": "string"}),
        ParameterKind::Flag => json!({"type": "boolean", "default": false}),
        ParameterKind::Number { least, most, default } => {
            json!({"type": "integer", "minimum": least, "maximum": most, "default": default})
        }
        ParameterKind::OneOf(words) => json!({"type": "string", "enum": words}),
    };
    json!({
        "name": parameter.name,
        "in": place,
        "required": required,
        "description": parameter.description,
        "schema": schema,
    })
}

fn responses(route: &Route, generator: &mut SchemaGenerator, error: &Value) -> Value {
    let mut responses = Map::new();
    let success = match &route.answer {
        AnswerSpec::Json(make) => json!({
            "description": "Done.",
            "content": {"application/json": {"schema": make(generator)}},
        }),
        AnswerSpec::Lines(make) => json!({
            "description": "Done; a line for each piece, as they come.",
            "content": {"application/x-ndjson": {"schema": make(generator)}},
        }),
        AnswerSpec::Text => json!({
            "description": "Done.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }),
        AnswerSpec::Nothing => json!({"description": "Done."}),
    };
    responses.insert(route.status.as_str().to_owned(), success.clone());
    for status in problems(route) {
        responses.entry(status.as_str()).or_insert_with(|| {
            // A PUT that creates answers with what it made, as one that changes does.
            if status.is_success() {
                return success.clone();
            }
            json!({
                "description": status.canonical_reason().unwrap_or_default(),
                "content": {"application/json": {"schema": error}},
            })
        });
    }
    Value::Object(responses)
}

/// What can go wrong, from the declaration itself and from what the route adds.
fn problems(route: &Route) -> Vec<StatusCode> {
    let mut statuses = vec![StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN, StatusCode::SERVICE_UNAVAILABLE];
    if route.access == Access::Operator {
        statuses.push(StatusCode::UNAUTHORIZED);
    }
    if route.path.contains('{') {
        statuses.push(StatusCode::NOT_FOUND);
    }
    if route.body.is_some() {
        statuses.extend([
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            StatusCode::UNPROCESSABLE_ENTITY,
        ]);
    }
    statuses.extend(&route.problems);
    statuses.sort();
    statuses
}
