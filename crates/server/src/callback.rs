//! The callback of OAuth2 on the public listener: where a provider sends a user's browser back to.
//!
//! Guarantees that what comes with it, the code and the state, stands in no answer and no log, and that asking for it
//! without a state that we gave costs the store no write.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use linkspan_model::SecretBytes;
use linkspan_model::oauth2::ConsentAnswer;

use crate::accept::Handler;
use crate::api::Connections;
use crate::ingress::Ingress;

/// The path of the callback, behind the public URL.
pub const CALLBACK_PATH: &str = "/oauth/callback";

/// Callbacks that are answered at a time: each may wait for a provider, and no more users connect at once.
const AT_ONCE: usize = 16;

/// Answers requests on the public listener: webhooks, and the callback of OAuth2.
#[derive(Clone)]
pub struct PublicHandler {
    ingress: Ingress,
    connections: Arc<dyn Connections>,
    /// The callback's path where a proxy leaves the path of the public URL in front of it.
    prefixed: Arc<str>,
    under_way: Arc<AtomicUsize>,
}

impl PublicHandler {
    /// A handler of webhooks and callbacks under this public URL.
    #[must_use]
    pub fn new(ingress: Ingress, connections: Arc<dyn Connections>, public_url: &str) -> Self {
        let prefix =
            url::Url::parse(public_url).map_or(String::new(), |url| url.path().trim_end_matches('/').to_owned());
        let prefixed = format!("{prefix}{CALLBACK_PATH}").into();
        Self { ingress, connections, prefixed, under_way: Arc::default() }
    }

    async fn callback(&self, method: &Method, query: &str) -> Response<Full<Bytes>> {
        if method != Method::GET {
            let mut answer = page(StatusCode::METHOD_NOT_ALLOWED, "Not connected", "This address is opened by GET.");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
            return answer;
        }
        let _place = Place(Arc::clone(&self.under_way));
        if self.under_way.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
            return page(
                StatusCode::SERVICE_UNAVAILABLE,
                "Not connected",
                "Too many accounts are being connected; try again.",
            );
        }
        let outcome = match read(query) {
            Ok(answer) => self.connections.finish_consent(answer).await,
            Err(reason) => Err(reason.to_owned()),
        };
        match outcome {
            Ok(account) => {
                let text = format!("Account {account} is connected. You can close this window.");
                page(StatusCode::OK, "Connected", &text)
            }
            Err(reason) => page(StatusCode::BAD_REQUEST, "Not connected", &sentence(&reason)),
        }
    }
}

impl Handler for PublicHandler {
    type Body = Full<Bytes>;

    async fn handle(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if path == CALLBACK_PATH || path == &*self.prefixed {
            return self.callback(request.method(), request.uri().query().unwrap_or_default()).await;
        }
        self.ingress.handle(request, peer).await
    }
}

/// One of the callbacks under way.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn read(query: &str) -> Result<ConsentAnswer, &'static str> {
    let mut answer = ConsentAnswer::default();
    let mut seen = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let value = value.into_owned();
        match &*name {
            "state" => answer.state = value,
            "code" => answer.code = Some(SecretBytes::new(value)),
            "error" => answer.error = Some(value),
            "error_description" => answer.error_description = Some(value),
            "iss" => answer.iss = Some(value),
            // RFC 6749, section 4.1.2: what is not known is ignored.
            _ => continue,
        }
        // Section 3.1: a parameter stands once; of two it would be a guess which one somebody has checked.
        if seen.contains(&name) {
            return Err("the provider's answer gives a parameter twice");
        }
        seen.push(name);
    }
    if answer.state.is_empty() {
        return Err("this is where a provider sends a browser back to; it was opened without an answer of one");
    }
    Ok(answer)
}

/// A reason as the page says it: whole, and with what helps.
fn sentence(reason: &str) -> String {
    let mut rest = reason.chars();
    let first = rest.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let reason = format!("{first}{}", rest.as_str());
    let reason = reason.trim_end_matches('.');
    format!("{reason}. To try again, begin with `linkspan accounts connect`.")
}

fn page(status: StatusCode, title: &str, text: &str) -> Response<Full<Bytes>> {
    let escaped =
        |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let (title, text) = (escaped(title), escaped(text));
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>Linkspan: {title}</title>\n<h1>{title}</h1>\n<p>{text}</p>\n</html>\n"
    );
    let mut response = Response::new(Full::new(Bytes::from(html)));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_answers_and_refuses_ambiguous_ones() {
        let answer = read("code=a%2Bb+c&state=s&iss=https%3A%2F%2Fid.test&session_state=x").unwrap();
        assert_eq!((answer.state.as_str(), answer.iss.as_deref()), ("s", Some("https://id.test")));
        assert_eq!(answer.code.unwrap().expose(), b"a+b c");
        for wrong in ["", "code=a", "state=", "state=a&state=b", "state=a&code=b&code=c"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reasons_are_whole_sentences_with_what_helps() {
        let help = " To try again, begin with `linkspan accounts connect`.";
        assert_eq!(sentence("it was changed"), format!("It was changed.{help}"));
        assert_eq!(sentence("Über."), format!("Über.{help}"));
    }

    #[test]
    fn pages_hold_text_and_no_markup_of_others() {
        let text = format!("{:?}", page(StatusCode::OK, "x", "<script>\"&").body());
        assert!(!text.contains("<script>"), "{text}");
    }
}
