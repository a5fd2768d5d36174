//! Requests made of data: from templates to what is sent.

use http::header::CONTENT_TYPE;
use percent_encoding::utf8_percent_encode;
use url::Url;

use super::RequestSpec;
use super::compile::{CompiledRequest, Target, checked_url};
use super::fields::Written;
use crate::charset;
use crate::job::StepError;
use crate::template::{self, RenderError, Scope};

/// Why a request could not be made of the data: which field of the step, where in it, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}, {message}")]
pub struct RenderFault {
    /// The field of the step: `path`, `headers.X-Name`, `json.items[0].title`.
    pub field: String,
    /// Dotted slug: `template.unknown_pill`, `template.failed`, `request.url`, `request.body`,
    /// `request.too_large`.
    pub code: &'static str,
    /// Where in the field, in characters from 1, when a template is at fault.
    pub column: Option<usize>,
    /// The pill that is missing, when one is.
    pub pill: Option<String>,
    /// What is wrong and what was probably meant.
    pub message: String,
}

impl RenderFault {
    pub(super) fn of(field: impl Into<String>, error: &RenderError) -> Self {
        Self {
            field: field.into(),
            code: error.code(),
            column: Some(error.column),
            pill: error.pill.clone(),
            message: error.to_string(),
        }
    }

    pub(super) fn new(field: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
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
    /// Makes the request of the data; `base` is the connection's base URL. Whether a whole URL is one of the
    /// connection's, its `admits` says. A parameter, header, field or body that is
    /// nothing but a pill of something that was not given is left out.
    ///
    /// # Errors
    /// Which field gives no value, or why the URL is not one that this step may call.
    pub fn render(&self, scope: &Scope, base: Option<&Url>) -> Result<RequestSpec, RenderFault> {
        let mut url = self.target.render(scope, base)?;
        self.append_query(scope, &mut url)?;
        let mut headers = Vec::with_capacity(self.headers.len() + 1);
        for (name, written, template) in self.headers.iter().filter(|(.., template)| !template.is_absent(scope)) {
            let value = template.render_header(scope).map_err(|e| RenderFault::of(format!("headers.{written}"), &e))?;
            headers.push((name.clone(), value));
        }
        let said = headers.iter().find(|(name, _)| name == CONTENT_TYPE).and_then(|(_, value)| value.to_str().ok());
        let (body, content_type) = self.body.render(scope, charset::declared(said))?;
        if let Some(content_type) = content_type
            && !self.headers.iter().any(|(name, ..)| name == CONTENT_TYPE)
        {
            headers.push((CONTENT_TYPE, content_type));
        }
        Ok(RequestSpec { method: self.method.clone(), url, headers, body: body.into() })
    }

    fn append_query(&self, scope: &Scope, url: &mut Url) -> Result<(), RenderFault> {
        if self.query.is_empty() {
            return Ok(());
        }
        let mut query = url.query().unwrap_or_default().to_owned();
        for (name, value) in self.query.render("query", scope)? {
            if !query.is_empty() && !query.ends_with('&') {
                query.push('&');
            }
            query.extend(utf8_percent_encode(&name, template::COMPONENT));
            query.push('=');
            match value {
                Written::Text(text) => query.extend(utf8_percent_encode(&text, template::COMPONENT)),
                Written::Joined(joined) => query.push_str(&joined.encoded()),
            }
        }
        url.set_query(Some(&query).filter(|query| !query.is_empty()).map(String::as_str));
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
                if let (true, Some(base)) = (text.starts_with('/') && template.is_whole_pill(), base) {
                    return join(base, &text).ok_or_else(|| {
                        RenderFault::new("url", "request.url", "the path leads out of the connection's base_url")
                    });
                }
                checked_url(&text).map_err(|reason| RenderFault::new("url", "request.url", reason))
            }
        }
    }
}

/// Appends a rendered path, perhaps with a query, to a base URL; `None` when it would lead out of it.
pub(crate) fn join(base: &Url, rendered: &str) -> Option<Url> {
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
