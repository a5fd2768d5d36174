//! Documents: planned together, changed together, and never left dangling.

use std::future::{Future as _, poll_fn};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use linkspan_model::{Clock as _, Document, Fault, Kind};
use linkspan_store::{Action, Change, Precondition, StoreError};
use serde_json::{Value, json};

use crate::harness::{World, endpoint, name, read, recipe, sync};

/// The plan as `action kind/name fields`.
fn lines(changes: &[Change]) -> Vec<String> {
    let line = |change: &Change| {
        let action = serde_json::to_value(change.action).unwrap();
        let line = format!("{} {}/{} {}", action.as_str().unwrap(), change.kind, change.name, change.fields.join(","));
        line.trim_end().to_owned()
    };
    changes.iter().map(line).collect()
}

async fn apply_set(world: &World, documents: Value, set: &str, prune: bool) -> linkspan_store::Result<Vec<Change>> {
    world.store().apply(read(documents), Some(set.to_owned()), prune, false).await
}

fn faults<T: std::fmt::Debug>(outcome: linkspan_store::Result<T>) -> Vec<Fault> {
    match outcome {
        Err(StoreError::Invalid(faults)) => faults,
        other => panic!("{other:?}"),
    }
}

async fn names(world: &World, kind: Kind) -> Vec<String> {
    let found = world.store().resources(Some(kind), None, 100).await.unwrap();
    found.into_iter().map(|resource| resource.name.to_string()).collect()
}

pub async fn applies_all_documents_or_none(world: World) {
    let wrong = json!([endpoint("good"), recipe("bad", "missing")]);
    let revision = world.store().snapshot().revision;
    assert_eq!(faults(world.store().apply(read(wrong), None, false, false).await).len(), 1);
    assert_eq!(names(&world, Kind::Endpoint).await, ["in"]);
    assert_eq!(world.store().snapshot().revision, revision);
    // A recipe may stand before its endpoint.
    let changes = world.apply(json!([recipe("good", "new"), endpoint("new")])).await;
    assert_eq!(lines(&changes), ["create recipe/good", "create endpoint/new"]);
}

pub async fn names_the_fields_that_change(world: World) {
    let mut document = endpoint("in");
    assert_eq!(lines(&world.apply(json!([document])).await), ["unchanged endpoint/in"]);
    document["spec"]["limits"] = json!({"body": "1MiB"});
    document["description"] = json!("orders");
    assert_eq!(lines(&world.apply(json!([document])).await), ["change endpoint/in spec.limits,description"]);
    document["spec"]["limits"]["body"] = json!("2MiB");
    document.as_object_mut().unwrap().shift_remove("description");
    let changes = world.apply(json!([document])).await;
    let mut fields = changes[0].fields.clone();
    fields.sort();
    assert_eq!(fields, ["description", "spec.limits.body"]);
    let stored = world.store().resource(Kind::Endpoint, name("in")).await.unwrap();
    assert_eq!((stored.document, stored.revision), (document, 3));
}

pub async fn says_that_an_apply_takes_back_a_change_by_hand(world: World) {
    let running = recipe("r", "in");
    apply_set(&world, json!([running]), "one", false).await.unwrap();
    let mut stopped = running.clone();
    stopped["spec"]["enabled"] = json!(false);
    let by_hand = |document: &Value| world.store().put(read(json!([document])).remove(0), Precondition::None);
    by_hand(&stopped).await.unwrap();
    let plan = apply_set(&world, json!([running]), "one", false).await.unwrap();
    assert!(plan[0].undoes_change_by_hand && plan[0].action == Action::Change);
    // The set's own change is none by hand, and neither is one of a document that no set owns.
    let plan = apply_set(&world, json!([stopped]), "one", false).await.unwrap();
    assert!(!plan[0].undoes_change_by_hand);
    by_hand(&endpoint("free")).await.unwrap();
    let mut free = endpoint("free");
    free["description"] = json!("changed");
    assert!(!world.apply(json!([free])).await[0].undoes_change_by_hand);
    // From then on it is applied, if by a set without a name.
    by_hand(&endpoint("free")).await.unwrap();
    assert!(world.apply(json!([free])).await[0].undoes_change_by_hand);
}

pub async fn plans_without_changing_anything(world: World) {
    let before = world.store().resources(None, None, 100).await.unwrap();
    let documents = read(json!([endpoint("new"), endpoint("in")]));
    let plan = world.store().apply(documents, Some("s".to_owned()), true, true).await.unwrap();
    assert_eq!(lines(&plan), ["create endpoint/new", "unchanged endpoint/in"]);
    assert_eq!(world.store().resources(None, None, 100).await.unwrap(), before);
}

pub async fn prunes_only_what_the_same_set_made(world: World) {
    apply_set(&world, json!([endpoint("a"), endpoint("b"), recipe("r", "b")]), "one", false).await.unwrap();
    apply_set(&world, json!([endpoint("c")]), "two", false).await.unwrap();
    let changes = apply_set(&world, json!([endpoint("a")]), "one", true).await.unwrap();
    assert_eq!(lines(&changes), ["unchanged endpoint/a", "delete recipe/r", "delete endpoint/b"]);
    assert_eq!(names(&world, Kind::Endpoint).await, ["a", "c", "in"]);
    // What others still use is not pruned, and then nothing is.
    world.apply(json!([recipe("uses", "c")])).await;
    let faults = faults(apply_set(&world, json!([endpoint("d")]), "two", true).await);
    assert_eq!(faults[0].subject.as_deref(), Some("recipe/uses"));
    assert_eq!(names(&world, Kind::Endpoint).await, ["a", "c", "in"]);
    // Without a set nothing was made by it.
    let changes = world.store().apply(Vec::new(), None, true, false).await.unwrap();
    assert!(changes.is_empty());
}

pub async fn gives_an_unchanged_document_to_the_set_that_names_it_last(world: World) {
    apply_set(&world, json!([endpoint("moved"), endpoint("stays")]), "one", false).await.unwrap();
    let changes = apply_set(&world, json!([endpoint("moved")]), "two", false).await.unwrap();
    assert_eq!(lines(&changes), ["unchanged endpoint/moved"]);
    let revision = world.store().resource(Kind::Endpoint, name("moved")).await.unwrap().revision;
    assert_eq!(revision, 1);
    let changes = apply_set(&world, json!([endpoint("stays")]), "one", true).await.unwrap();
    assert_eq!(lines(&changes), ["unchanged endpoint/stays"]);
    assert_eq!(names(&world, Kind::Endpoint).await, ["in", "moved", "stays"]);
}

pub async fn refuses_a_dangling_reference_with_a_near_match(world: World) {
    world.apply(json!([endpoint("github")])).await;
    let wrong = read(json!([recipe("r", "githb")]));
    let faults = faults(world.store().apply(wrong, None, false, true).await);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].document, Some(0));
    assert_eq!(
        faults[0].to_string(),
        "recipe/r: spec.trigger.webhook.endpoint: there is no endpoint `githb` (did you mean `github`?)"
    );
}

pub async fn lists_every_fault_of_every_document(world: World) {
    let wrong = read(json!([endpoint("twice"), recipe("r", "nowhere"), endpoint("twice"), recipe("q", "nothing")]));
    let faults = faults(world.store().apply(wrong, None, false, false).await);
    let mut found: Vec<_> = faults.iter().map(|fault| (fault.document.unwrap(), fault.path.as_str())).collect();
    found.sort_unstable();
    let trigger = "spec.trigger.webhook.endpoint";
    assert_eq!(found, [(1, trigger), (2, "name"), (3, trigger)]);
}

pub async fn refuses_two_syncs_into_one_table(world: World) {
    world.apply(sync("first")).await;
    let mut second = sync("second")[1].clone();
    second["spec"]["to"]["table"] = json!("Orders");
    let faults = faults(world.store().apply(read(json!([second])), None, false, false).await);
    assert_eq!(faults[0].path, "spec.to.table");
    // Another name for the same file is the same table.
    let same_file = json!({"kind": "destination", "name": "copy", "spec": {"sqlite": {"path": "warehouse.db"}}});
    second["spec"]["to"]["destination"] = json!("copy");
    let outcome = world.store().apply(read(json!([same_file, second])), None, false, false).await;
    assert_eq!(self::faults(outcome)[0].path, "spec.to.table");
    second["spec"]["to"]["table"] = json!("returns");
    world.apply(json!([same_file, second])).await;
}

pub async fn keeps_what_is_referred_to(world: World) {
    let delete = async |kind, of: &str| world.store().delete(kind, name(of), Precondition::None).await;
    match delete(Kind::Endpoint, "in").await {
        Err(StoreError::Conflict(reason)) => assert!(reason.contains("recipe/act"), "{reason}"),
        other => panic!("{other:?}"),
    }
    delete(Kind::Recipe, "act").await.unwrap();
    delete(Kind::Endpoint, "in").await.unwrap();
    assert!(matches!(delete(Kind::Endpoint, "in").await, Err(StoreError::NotFound(_))));
    // Its name is free again, and is another document then.
    world.apply(json!([endpoint("in")])).await;
    assert_eq!(world.store().resource(Kind::Endpoint, name("in")).await.unwrap().revision, 1);
}

pub async fn checks_preconditions(world: World) {
    let document = || Document::read(&endpoint("in")).unwrap();
    let new = || Document::read(&endpoint("new")).unwrap();
    let put = async |document, must| world.store().put(document, must).await;
    assert!(matches!(put(document(), Precondition::Absent).await, Err(StoreError::Conflict(_))));
    assert!(matches!(put(new(), Precondition::Present(None)).await, Err(StoreError::NotFound(_))));
    let stale = put(document(), Precondition::Present(Some(9))).await;
    assert!(matches!(stale, Err(StoreError::Revision { expected: 9, current: 1 })));
    let (stored, created) = put(new(), Precondition::Absent).await.unwrap();
    assert!(created && stored.revision == 1 && stored.created_at == world.clock.now());
    world.clock.advance(Duration::from_secs(1));
    let mut changed = endpoint("new");
    changed["description"] = json!("changed");
    let changed = Document::read(&changed).unwrap();
    let (again, created) = put(changed, Precondition::Present(Some(1))).await.unwrap();
    assert_eq!((again.id, again.revision, created), (stored.id, 2, false));
    assert_eq!((again.created_at, again.updated_at), (stored.created_at, world.clock.now()));
    let stale = world.store().delete(Kind::Endpoint, name("new"), Precondition::Present(Some(1))).await;
    assert!(matches!(stale, Err(StoreError::Revision { expected: 1, current: 2 })));
    // Of concurrent changes to one revision, one is made.
    let changes = (0..8).map(|n| {
        let mut changed = endpoint("new");
        changed["description"] = json!(n.to_string());
        put(Document::read(&changed).unwrap(), Precondition::Present(Some(2)))
    });
    let outcomes = join_all(changes).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
}

pub async fn treats_another_name_as_another_document(world: World) {
    let before = world.store().resource(Kind::Endpoint, name("in")).await.unwrap();
    world.apply(json!([endpoint("renamed")])).await;
    let after = world.store().resource(Kind::Endpoint, name("renamed")).await.unwrap();
    assert_ne!(after.id, before.id);
    let snapshot = world.store().snapshot();
    assert_ne!(snapshot.endpoint(&name("in")).unwrap().key, snapshot.endpoint(&name("renamed")).unwrap().key);
    drop(snapshot);
    // One name may stand once in each kind.
    world.apply(json!([recipe("renamed", "renamed")])).await;
    assert_eq!(names(&world, Kind::Recipe).await, ["act", "renamed"]);
}

pub async fn pages_the_documents_of_a_kind(world: World) {
    world.apply(json!([endpoint("c"), endpoint("a"), endpoint("b")])).await;
    let page = async |after: Option<&str>| {
        let found = world.store().resources(Some(Kind::Endpoint), after.map(name), 2).await.unwrap();
        found.into_iter().map(|resource| resource.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(page(None).await, ["a", "b"]);
    assert_eq!(page(Some("b")).await, ["c", "in"]);
    assert_eq!(page(Some("in")).await, Vec::<String>::new());
    let every = world.store().resources(None, None, 100).await.unwrap();
    assert!(every.is_sorted_by_key(|resource| (resource.kind, resource.name.clone())));
}

pub async fn keeps_what_each_revision_of_a_recipe_said(world: World) {
    let (row, first) = world.recipe("act");
    let mut changed = recipe("act", "in");
    changed["spec"]["steps"][0]["id"] = json!("other");
    world.apply(json!([changed])).await;
    let said = world.store().recipe_revision(row, first).await.unwrap();
    assert_eq!(said.to_value(), recipe("act", "in"));
    assert_eq!(world.store().recipe_revision(row, first + 1).await.unwrap().to_value(), changed);
    assert!(matches!(world.store().recipe_revision(row, 9).await, Err(StoreError::NotFound(_))));
}

pub async fn starts_a_recipe_at_the_end_of_the_log(world: World) {
    let from = |world: &World, of: &str| world.store().snapshot().recipe(&name(of)).unwrap().from_seq;
    world.append("before").await;
    world.apply(json!([recipe("late", "in")])).await;
    assert_eq!((from(&world, "act"), from(&world, "late")), (0, 1));
    let mut stopped = recipe("late", "in");
    stopped["spec"]["enabled"] = json!(false);
    world.apply(json!([stopped])).await;
    world.append("meanwhile").await;
    world.apply(json!([recipe("late", "in")])).await;
    assert_eq!(from(&world, "late"), 2);
    world.append("after").await;
    let mut changed = recipe("late", "in");
    changed["description"] = json!("still running");
    world.apply(json!([changed])).await;
    assert_eq!(from(&world, "late"), 2, "a change does not skip events");
}

pub async fn rotates_the_key_of_an_endpoint(mut world: World) {
    let key = |world: &World| world.store().snapshot().endpoint(&name("in")).unwrap().key.clone();
    let old = key(&world);
    let new = world.store().rotate_endpoint_key(name("in")).await.unwrap();
    assert_ne!(old, new);
    assert_eq!(key(&world), new);
    assert!(world.store().snapshot().endpoint_by_key(&old).is_none());
    world.reopen();
    assert_eq!(world.store().snapshot().endpoint_by_key(&new).unwrap().name, name("in"));
    let unknown = world.store().rotate_endpoint_key(name("nobody")).await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))));
}

pub async fn shows_every_change_in_the_snapshot(world: World) {
    let mut changes = world.store().changes();
    changes.borrow_and_update();
    let before = world.store().snapshot().revision;
    world.apply(sync("s")).await;
    assert!(changes.has_changed().unwrap());
    assert!(*changes.borrow_and_update() > before);
    {
        let snapshot = world.store().snapshot();
        assert_eq!(snapshot.sync(&name("s")).unwrap().spec.to.full_name(), "sales.orders");
        assert!(snapshot.destination(&name("warehouse")).is_some());
    }
    world.store().delete(Kind::Sync, name("s"), Precondition::None).await.unwrap();
    assert!(changes.has_changed().unwrap());
    assert!(world.store().snapshot().sync(&name("s")).is_none());
    let unchanged = world.apply(json!([endpoint("in")])).await;
    assert_eq!(unchanged[0].action, Action::Unchanged);
}

pub async fn shows_a_change_whose_caller_went_away(world: World) {
    let mut changes = world.store().changes();
    changes.borrow_and_update();
    let document = Document::read(&endpoint("new")).unwrap();
    let mut put = Box::pin(world.store().put(document, Precondition::Absent));
    // Polled once, then dropped; a time-out would be rounded up to a millisecond, in which it can end.
    assert!(poll_fn(|cx| Poll::Ready(put.as_mut().poll(cx).is_pending())).await);
    drop(put);
    tokio::time::timeout(Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
    assert!(world.store().snapshot().endpoint(&name("new")).is_some());
}

pub async fn ends_with_the_newest_snapshot_after_concurrent_changes(world: World) {
    for round in 0..10 {
        let mut puts = tokio::task::JoinSet::new();
        for n in 0..16 {
            let document = Document::read(&endpoint(&format!("e-{round}-{n}"))).unwrap();
            let store = world.store().clone();
            puts.spawn(async move { store.put(document, Precondition::Absent).await });
        }
        assert!(puts.join_all().await.iter().all(Result::is_ok));
        assert_eq!(world.store().snapshot().endpoints().count(), 1 + 16 * (round + 1));
    }
}
