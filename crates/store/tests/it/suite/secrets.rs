//! Secrets: write-only, sealed, and kept or replaced as documents say.

use linkspan_model::Kind;
use linkspan_store::{MasterKey, Precondition, StoreError};
use serde_json::{Value, json};

use crate::harness::{World, name};

fn secret(spec: &Value) -> Value {
    json!([{"kind": "secret", "name": "desk", "spec": spec}])
}

fn value(world: &World) -> Result<String, String> {
    let snapshot = world.store().snapshot();
    snapshot.secret(&name("desk")).map(|value| value.expose_str().unwrap().to_owned())
}

pub async fn keeps_a_value_that_a_later_apply_leaves_out(mut world: World) {
    let first = world.apply(secret(&json!({"value": "hunter2"}))).await;
    assert_eq!(first[0].fields, Vec::<String>::new());
    assert_eq!(value(&world).unwrap(), "hunter2");
    let exported = world.store().resource(Kind::Secret, name("desk")).await.unwrap().document;
    assert_eq!(exported["spec"], json!({}));
    let again = world.apply(json!([exported])).await;
    assert_eq!(again[0].action, linkspan_store::Action::Unchanged);
    let same = world.apply(secret(&json!({"value": "hunter2"}))).await;
    assert_eq!(same[0].action, linkspan_store::Action::Unchanged);
    world.reopen();
    assert_eq!(value(&world).unwrap(), "hunter2");
}

pub async fn reads_values_that_stand_elsewhere(world: World) {
    world.apply(secret(&json!({"env": "LINKSPAN_SECRET_DESK"}))).await;
    assert!(value(&world).unwrap_err().contains("LINKSPAN_SECRET_DESK"));
    world.outside.set("LINKSPAN_SECRET_DESK", "from outside");
    world.store().reload().await.unwrap();
    assert_eq!(value(&world).unwrap(), "from outside");
}

pub async fn replaces_and_forgets_values(world: World) {
    world.apply(secret(&json!({"value": "old"}))).await;
    let changed = world.apply(secret(&json!({"value": "new"}))).await;
    assert_eq!(changed[0].fields, ["spec.value"]);
    assert_eq!(value(&world).unwrap(), "new");
    // A value that stands elsewhere takes the place of the stored one, for good.
    world.outside.set("desk", "from a file");
    world.apply(secret(&json!({"file": "desk"}))).await;
    assert_eq!(value(&world).unwrap(), "from a file");
    world.apply(secret(&json!({}))).await;
    assert!(value(&world).is_err());
    world.apply(secret(&json!({"value": "third"}))).await;
    world.store().delete(Kind::Secret, name("desk"), Precondition::None).await.unwrap();
    assert!(value(&world).unwrap_err().contains("no secret"));
    world.apply(secret(&json!({}))).await;
    assert!(value(&world).is_err(), "a new document of that name does not find the old value");
}

pub async fn seals_values_under_the_master_key(mut world: World) {
    world.apply(secret(&json!({"value": "hunter2"}))).await;
    world.close();
    world.key = MasterKey::new(&[8; 32]);
    match world.open() {
        Err(StoreError::Unusable(reason)) => assert!(reason.contains("another master key"), "{reason}"),
        other => panic!("{other:?}"),
    }
    world.key = MasterKey::new(&[7; 32]);
    world.reopen();
    assert_eq!(value(&world).unwrap(), "hunter2");
}

pub async fn turns_requests_away_without_a_secret(world: World) {
    world.apply(secret(&json!({"env": "LINKSPAN_SECRET_DESK"}))).await;
    let endpoint = json!([{"kind": "endpoint", "name": "signed", "spec": {"verify": {"hmac": {
        "header": "X-Signature", "algorithm": "SHA_256", "encoding": "HEXA_DECIMAL", "secrets": [{"secret": "desk"}]
    }}}}]);
    world.apply(endpoint).await;
    let ready = |world: &World| {
        let snapshot = world.store().snapshot();
        snapshot.endpoint(&name("signed")).unwrap().verifier.as_ref().map(drop).map_err(Clone::clone)
    };
    assert!(ready(&world).unwrap_err().contains("LINKSPAN_SECRET_DESK"));
    world.outside.set("LINKSPAN_SECRET_DESK", "0123456789abcdef0123456789abcdef");
    world.store().reload().await.unwrap();
    assert_eq!(ready(&world), Ok(()));
}

pub async fn verifies_with_the_secrets_that_have_a_value(world: World) {
    let verify = json!({"token": {"header": "X-Token", "secrets": [{"secret": "new"}, {"secret": "old"}]}});
    world
        .apply(json!([
            {"kind": "secret", "name": "old", "spec": {"value": "a-token-of-long-standing"}},
            {"kind": "secret", "name": "new", "spec": {}},
            {"kind": "endpoint", "name": "signed", "spec": {"verify": verify}},
        ]))
        .await;
    let snapshot = world.store().snapshot();
    let endpoint = snapshot.endpoint(&name("signed")).unwrap();
    assert!(endpoint.verifier.is_ok(), "{:?}", endpoint.verifier);
    assert_eq!(snapshot.missing_secrets(endpoint), [&name("new")]);
    drop(snapshot);
    world.apply(json!([{"kind": "secret", "name": "new", "spec": {"value": "the-next-token"}}])).await;
    let snapshot = world.store().snapshot();
    assert!(snapshot.missing_secrets(snapshot.endpoint(&name("signed")).unwrap()).is_empty());
    let empty = json!({"kind": "secret", "name": "new", "spec": {"value": ""}});
    assert!(linkspan_model::Document::read(&empty).unwrap_err()[0].to_string().contains("empty"));
}

pub async fn keeps_only_the_newest_operator_token(world: World) {
    let first = world.store().rotate_operator_token().await.unwrap();
    assert!(world.store().is_operator_token(&first).await.unwrap());
    let second = world.store().rotate_operator_token().await.unwrap();
    assert!(!world.store().is_operator_token(&first).await.unwrap());
    assert!(world.store().is_operator_token(&second).await.unwrap());
    assert!(!world.store().is_operator_token("").await.unwrap());
}
