//! Requests made of data: from templates to what is sent.

use http::HeaderValue;
use http::header::CONTENT_TYPE;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;
use url::Url;

use super::RequestSpec;
use super::compile::{Body, CompiledRequest, JsonTemplate, Target, checked_url};
use crate::job::StepError;
use crate::limits;
use crate::template::{self, RenderError, Scope};

/// Why a request could not be made of the data: which field of the step, where in it, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}, {message}")]
pub struct RenderFault {
    /// The field of the step: `path`, `headers.X-Name`, `json.items[0].title`.
    pub field: String,
    /// Dotted slug: `template.unknown_pill`, `template.failed`, `request.url`, `request.too_large`.
    pub code: &'static str,
    /// Where in the field, in characters from 1, when a template is at fault.
    pub column: Option<usize>,
    /// The pill that is missing, when one is.
    pub pill: Option<String>,
    /// What is wrong and what was probably meant.
    pub message: String,
}

impl RenderFault {
    fn of(field: impl Into<String>, error: &RenderError) -> Self {
        Self {
            field: field.into(),
            code: error.code(),
            column: Some(error.column),
            pill: error.pill.clone(),
            message: error.to_string(),
        }
    }

    fn new(field: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { field: field.into(), code, column: None, pill: None, message: message.into() }
    }
}

impl From<RenderFault> for StepError {
    fn from(fault: RenderFault) -> Self {
        Self {
            code: fault.code.to_owned(),
            description: fault.to_string(),
            field: Some(fault.field),
            outcome_unknown: None,
        }
    }
}

impl CompiledRequest {
    /// Makes the request of the data; `base` is the connection's base URL.
    ///
    /// # Errors
    /// Which field gives no value, or why the URL is not one that this step may call.
    pub fn render(&self, scope: &Scope, base: Option<&Url>) -> Result<RequestSpec, RenderFault> {
        let mut url = self.target.render(scope, base)?;
        self.append_query(scope, &mut url)?;
        let mut headers = Vec::with_capacity(self.headers.len() + 1);
        for (name, written, template) in &self.headers {
            let value = template.render_header(scope).map_err(|e| RenderFault::of(format!("headers.{written}"), &e))?;
            headers.push((name.clone(), value));
        }
        let (body, content_type) = self.body.render(scope)?;
        if let Some(content_type) = content_type
            && !self.headers.iter().any(|(name, ..)| name == CONTENT_TYPE)
        {
            headers.push((CONTENT_TYPE, HeaderValue::from_static(content_type)));
        }
        Ok(RequestSpec { method: self.method.clone(), url, headers, body: body.into() })
    }

    fn append_query(&self, scope: &Scope, url: &mut Url) -> Result<(), RenderFault> {
        if self.query.is_empty() {
            return Ok(());
        }
        let mut query = url.query().unwrap_or_default().to_owned();
        for (name, template) in &self.query {
            let value = template.render_text(scope).map_err(|e| RenderFault::of(format!("query.{name}"), &e))?;
            if !query.is_empty() && !query.ends_with('&') {
                query.push('&');
            }
            query.extend(utf8_percent_encode(name, template::COMPONENT));
            query.push('=');
            query.extend(utf8_percent_encode(&value, template::COMPONENT));
        }
        url.set_query(Some(&query));
        Ok(())
    }
}

impl Target {
    fn render(&self, scope: &Scope, base: Option<&Url>) -> Result<Url, RenderFault> {
        match self {
            Self::Path(template) => {
                let path = template.render_url_path(scope).map_err(|e| RenderFault::of("path", &e))?;
                let base = base.ok_or_else(|| {
                    RenderFault::new("path", "request.url", "the connection has no base_url; give the step a url")
                })?;
                join(base, &path).ok_or_else(|| {
                    RenderFault::new("path", "request.url", "the path leads out of the connection's base_url")
                })
            }
            Self::Url(template) => {
                let text = template.render_url(scope).map_err(|e| RenderFault::of("url", &e))?;
                let url = checked_url(&text).map_err(|reason| RenderFault::new("url", "request.url", reason))?;
                match base {
                    // Else the account's credentials would go to whoever a pill names.
                    Some(base) if base.origin() != url.origin() => Err(RenderFault::new(
                        "url",
                        "request.url",
                        format!(
                            "{} is not the origin of the connection, {}",
                            url.origin().ascii_serialization(),
                            base.origin().ascii_serialization()
                        ),
                    )),
                    _ => Ok(url),
                }
            }
        }
    }
}

/// Appends a rendered path, perhaps with a query, to a base URL; `None` when it would lead out of it.
fn join(base: &Url, rendered: &str) -> Option<Url> {
    let (path, query) = rendered.split_once('?').map_or((rendered, None), |(path, query)| (path, Some(query)));
    let root = base.path().trim_end_matches('/');
    let mut url = base.clone();
    if !path.is_empty() {
        url.set_path(&format!("{root}/{}", path.trim_start_matches('/')));
    }
    url.set_query(query);
    url.set_fragment(None);
    let inside = url.path().strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (inside && url.origin() == base.origin()).then_some(url)
}

impl Body {
    /// The bytes, and what they are.
    fn render(&self, scope: &Scope) -> Result<(Vec<u8>, Option<&'static str>), RenderFault> {
        match self {
            Self::None => Ok((Vec::new(), None)),
            Self::Json(json) => {
                let mut room = usize::try_from(limits::BODY_MAX_BYTES).unwrap_or(usize::MAX);
                let value = json.render("json", scope, &mut room)?;
                Ok((value.to_string().into_bytes(), Some("application/json")))
            }
            Self::Form(fields) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                for (name, template) in fields {
                    let value = template.render_text(scope).map_err(|e| RenderFault::of(format!("form.{name}"), &e))?;
                    form.append_pair(name, &value);
                }
                Ok((form.finish().into_bytes(), Some("application/x-www-form-urlencoded")))
            }
            Self::Text(template) => {
                let text = template.render_text(scope).map_err(|e| RenderFault::of("text", &e))?;
                Ok((text.into_bytes(), Some("text/plain; charset=utf-8")))
            }
        }
    }
}

impl JsonTemplate {
    /// The value; `room` is how much memory values of pills may still take, together.
    fn render(&self, field: &str, scope: &Scope, room: &mut usize) -> Result<Value, RenderFault> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Text(template) => {
                let value = template.render_value(scope).map_err(|e| RenderFault::of(field, &e))?;
                *room = room.checked_sub(template::weight(&value, *room)).ok_or_else(|| {
                    RenderFault::new(field, "request.too_large", "the body would take more than 64 MiB")
                })?;
                Ok(value)
            }
            Self::List(items) => {
                items.iter().enumerate().map(|(n, item)| item.render(&format!("{field}[{n}]"), scope, room)).collect()
            }
            Self::Object(fields) => fields
                .iter()
                .map(|(key, item)| Ok((key.clone(), item.render(&format!("{field}.{key}"), scope, room)?)))
                .collect::<Result<serde_json::Map<_, _>, _>>()
                .map(Value::Object),
        }
    }
}
