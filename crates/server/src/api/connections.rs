//! Connections: how they stand.

use linkspan_store::{ConnectionView, Snapshot};

/// What is allowed and should not stay so, in words.
pub(super) fn warnings(snapshot: &Snapshot, connection: &ConnectionView) -> Vec<String> {
    let carries = connection.account.as_ref().is_some_and(|account| account.spec.has_credentials());
    if !carries {
        return Vec::new();
    }
    let is_plain = |url: &str| url.trim_start().get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
    let mut warnings = Vec::new();
    if connection.spec.base_url.as_deref().is_some_and(is_plain) {
        warnings.push("its account's credentials go over plain http; use https://".to_owned());
    }
    for recipe in snapshot.recipes() {
        for step in &recipe.spec.steps {
            let is_ours = step.request.connection.as_ref() == Some(&connection.name);
            if is_ours && step.request.url.as_deref().is_some_and(is_plain) {
                let (recipe, step) = (&recipe.name, &step.id);
                warnings.push(format!(
                    "its account's credentials go over plain http in step `{step}` of recipe/{recipe}; use https://"
                ));
            }
        }
    }
    warnings
}
