//! The API's description, committed so that a change to the API shows in review.

use std::path::Path;

#[test]
#[expect(clippy::disallowed_methods, reason = "a test's own switch")]
fn committed_description_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi.json");
    let generated = serde_json::to_string_pretty(&linkspan_server::openapi_document()).unwrap() + "\n";
    if std::env::var("UPDATE_OPENAPI").is_ok() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "openapi.json is not what the code says; `make openapi` writes it");
}

#[test]
fn every_operation_has_an_id_of_its_own() {
    let document = linkspan_server::openapi_document();
    let mut ids: Vec<&str> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
}
