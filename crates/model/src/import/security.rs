//! Security schemes of an OpenAPI document as accounts, and the parameters that are theirs.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::draft::Draft;
use super::schema::Schemas;
use super::{credentials, text};

/// Parameters that an account sends, so that no input does: place and name, lower case.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    parameters: HashSet<(String, String)>,
    /// Requests are signed with AWS keys.
    signs_aws: bool,
}

impl Credentials {
    /// Whether an account sends this parameter.
    pub(super) fn sends(&self, place: &str, name: &str) -> bool {
        let name = name.to_lowercase();
        self.parameters.contains(&(place.to_owned(), name.clone()))
            || (self.signs_aws && matches!(place, "header" | "query") && AWS_PARAMETERS.contains(&name.as_str()))
    }
}

/// What a signature of AWS is made of (Signature Version 4), in headers or in the query.
const AWS_PARAMETERS: &[&str] = &[
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
];

/// Most scopes that a text names.
const SCOPES_SHOWN: usize = 30;
/// Most schemes of a document.
const SCHEMES_MAX: usize = 50;

/// Puts the accounts that the document knows into the draft.
pub(super) fn settle<'a>(root: &'a Value, schemas: &Schemas<'a>, draft: &mut Draft) -> Credentials {
    let mut credentials = Credentials::default();
    let schemes = root.pointer("/components/securitySchemes").and_then(Value::as_object);
    for (name, scheme) in schemes.into_iter().flatten().take(SCHEMES_MAX) {
        let Some(scheme) = schemas.resolve(scheme).and_then(Value::as_object) else { continue };
        Scheme { name, scheme }.settle(draft, &mut credentials);
    }
    draft.spec.account_optional = !draft.spec.accounts.is_empty() && is_optional(root);
    credentials
}

/// Whether the document says of it all, or of one operation, that it can be called without any scheme: an empty list, or
/// one with an empty choice (OpenAPI 3.0.3, security requirement object).
fn is_optional(root: &Value) -> bool {
    let is_open = |holder: &Value| {
        let choices = holder.get("security").and_then(Value::as_array);
        choices.is_some_and(|choices| {
            choices.is_empty() || choices.iter().any(|choice| choice.as_object().is_some_and(Map::is_empty))
        })
    };
    let items = root.get("paths").and_then(Value::as_object).into_iter().flat_map(Map::values);
    is_open(root) || items.filter_map(Value::as_object).flat_map(Map::values).any(is_open)
}

struct Scheme<'a> {
    name: &'a str,
    scheme: &'a Map<String, Value>,
}

impl Scheme<'_> {
    fn text(&self, field: &str) -> &str {
        self.scheme.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    fn settle(&self, draft: &mut Draft, credentials: &mut Credentials) {
        let is_aws = self.text("x-amazon-apigateway-authtype").eq_ignore_ascii_case("awsSigv4");
        match self.text("type").to_ascii_lowercase().as_str() {
            _ if is_aws => {
                credentials.signs_aws = true;
                self.takes(draft, "aws_sigv4", "An AWS key, with region and service.");
            }
            "apikey" => self.api_key(draft, credentials),
            "http" => self.http(draft),
            // As Swagger has it.
            "basic" => self.takes(draft, "basic", "User and password."),
            "oauth2" => self.oauth2(draft),
            "openidconnect" => {
                let help = format!("The URLs of the provider stand at {}.", shown(self.text("openIdConnectUrl")));
                self.takes(draft, "oauth2", &help);
            }
            "mutualtls" => {
                draft.notes.add("the API wants a client certificate, which an import does not set up", self.name);
            }
            _ => draft.notes.add("a security scheme of an unknown type is left out", self.name),
        }
    }

    /// Adds an account; what the document says of the scheme stands behind our own words.
    fn takes(&self, draft: &mut Draft, kind: &str, help: &str) {
        let title = text::line(self.name, 60);
        let help = match text::plain(self.text("description"), 400) {
            Some(description) => format!("{help} {description}"),
            None => help.to_owned(),
        };
        draft.takes_account(kind, title, Some(help));
    }

    fn api_key(&self, draft: &mut Draft, credentials: &mut Credentials) {
        let (place, name) = (self.text("in").to_ascii_lowercase(), self.text("name"));
        let shown_name = shown(name);
        credentials.parameters.insert((place.clone(), name.to_lowercase()));
        match place.as_str() {
            "query" => self.takes(draft, "query", &format!("The query parameter `{shown_name}`.")),
            "cookie" => {
                credentials.parameters.insert(("header".to_owned(), "cookie".to_owned()));
                self.takes(draft, "headers", &format!("The header `Cookie` with `{shown_name}=…`."));
            }
            _ if name.eq_ignore_ascii_case("authorization") => {
                self.takes(draft, "headers", "The header `Authorization`, whole.");
                self.takes(draft, "bearer", "A token, where the API takes one in `Authorization: Bearer …`.");
            }
            _ => self.takes(draft, "headers", &format!("The header `{shown_name}`.")),
        }
    }

    fn http(&self, draft: &mut Draft) {
        match self.text("scheme").to_ascii_lowercase().as_str() {
            "basic" => self.takes(draft, "basic", "User and password."),
            "bearer" => self.takes(draft, "bearer", "A token."),
            "digest" => self.takes(draft, "digest", "User and password."),
            other => {
                self.takes(draft, "headers", &format!("The header `Authorization`, beginning with `{}`.", shown(other)))
            }
        }
    }

    fn oauth2(&self, draft: &mut Draft) {
        let flows = self.scheme.get("flows").and_then(Value::as_object);
        let mut can_be_obtained = false;
        for (flow, settings) in flows.into_iter().flatten() {
            let grant = match flow.as_str() {
                "authorizationCode" => "authorization_code",
                "clientCredentials" => "client_credentials",
                "password" => "password",
                _ => continue,
            };
            can_be_obtained = true;
            let mut help = format!("Grant `{grant}`.");
            for (field, word) in [("authorizationUrl", "authorize_url"), ("tokenUrl", "token_url")] {
                let url = text::field(settings, field).filter(|url| !credentials::looks_secret(url));
                if let Some(url) = url {
                    help += &format!(" {word}: {}", shown(url));
                }
            }
            help += &scopes(settings);
            self.takes(draft, "oauth2", &help);
        }
        if !can_be_obtained {
            // The implicit flow gives tokens to browsers only; whoever has one can use it.
            self.takes(
                draft,
                "bearer",
                "A token that was obtained elsewhere: the API describes no flow by which a server obtains one.",
            );
        }
    }
}

fn scopes(flow: &Value) -> String {
    let Some(scopes) = flow.get("scopes").and_then(Value::as_object).filter(|scopes| !scopes.is_empty()) else {
        return String::new();
    };
    let names: Vec<String> = scopes.keys().take(SCOPES_SHOWN).map(|name| shown(name)).collect();
    let more =
        if scopes.len() > SCOPES_SHOWN { format!(" and {} more", scopes.len() - SCOPES_SHOWN) } else { String::new() };
    format!(" Scopes: {}{more}.", names.join(", "))
}

fn shown(text: &str) -> String {
    text::line(text, 300).unwrap_or_default()
}
