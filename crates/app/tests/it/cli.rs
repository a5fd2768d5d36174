//! The command line, as people and scripts use it.

use serde_json::{Value, json};

use crate::harness::{Options, Server, eventually, open_endpoint, repository, request, run, unheard};

const SECRET: &str = "a-value-that-nobody-may-see";

fn write(server: &Server, name: &str, text: &str) -> String {
    let path = server.folder().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn plan_shows_what_apply_then_does() {
    let server = Server::start(&Options::default());
    let first = [open_endpoint("a"), open_endpoint("b"), open_endpoint("c")].join("---\n");
    let file = write(&server, "first.yaml", &first);
    let planned = server.cli(&["apply", "-f", &file, "--set", "mine", "--dry-run"]).success();
    insta::assert_snapshot!(planned, @r#"
    + create    endpoint/a
    + create    endpoint/b
    + create    endpoint/c
    planned: 3 create, 0 change, 0 delete, 0 unchanged
    "#);
    assert_eq!(server.data("/api/v1/endpoints"), json!([]));
    let applied = server.cli(&["apply", "-f", &file, "--set", "mine"]).success();
    insta::assert_snapshot!(applied, @r#"
    + create    endpoint/a
    + create    endpoint/b
    + create    endpoint/c
    applied: 3 create, 0 change, 0 delete, 0 unchanged
    "#);

    // By hand, and so nothing that `--prune` may delete.
    server.apply(&open_endpoint("by-hand"));
    let second = [open_endpoint("a"), open_endpoint("b").replace("json", "text"), open_endpoint("d")].join("---\n");
    let file = write(&server, "second.yaml", &second);
    let asks = server.cli(&["apply", "-f", &file, "--set", "mine", "--prune"]);
    assert!(asks.failure(1).contains("--yes"));
    assert_eq!(server.data("/api/v1/endpoints").as_array().unwrap().len(), 4);
    let applied = server.cli(&["apply", "-f", &file, "--set", "mine", "--prune", "--yes"]).success();
    insta::assert_snapshot!(applied, @r#"
    = unchanged endpoint/a
    ~ change    endpoint/b  (spec.format)
    + create    endpoint/d
    - delete    endpoint/c
    applied: 1 create, 1 change, 1 delete, 1 unchanged
    "#);
    let names: Vec<Value> =
        server.data("/api/v1/endpoints").as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, ["a", "b", "by-hand", "d"]);
}

#[test]
fn wrong_documents_are_named_by_file_line_path_and_near_match() {
    let server = Server::start(&Options::default());
    let text = format!(
        "# A comment\n{}---\nkind: endpoint\nname: wrong\nspec: {{verify: none, limit: 1}}\n",
        open_endpoint("right")
    );
    let one = write(&server, "docs/one.yaml", &text);
    let two = write(
        &server,
        "docs/two.yaml",
        "kind: recipe\nname: r\nspec:\n  trigger: {webhook: {endpoint: right}}\n  steps:\n    - id: a\n      request: {method: GET, url: 'https://a.test/{{ triger.id }}'}\n",
    );
    let folder = server.folder().join("docs");
    let said = server.cli(&["apply", "-f", folder.to_str().unwrap()]).failure(5);
    let said = said.replace(&one, "ONE").replace(&two, "TWO");
    insta::assert_snapshot!(said, @r#"
    error: nothing was changed:
      ONE:8: endpoint/wrong: spec.limit: unknown field `limit`, expected one of `connector`, `webhook`, `secrets`, `format`, `verify`, `dedupe`, `limits`, `enabled` (did you mean `limits`?)
      TWO:7: recipe/r: spec.steps[0].request.url: column 19: pill "triger.id" names nothing; use trigger, steps, job (did you mean `trigger`?)
    "#);
    assert_eq!(server.data("/api/v1/endpoints"), json!([]));
}

#[test]
fn fault_between_documents_is_placed_too() {
    let server = Server::start(&Options::default());
    let text = format!(
        "{}---\nkind: recipe\nname: r\nspec:\n  trigger: {{webhook: {{endpoint: githup}}}}\n  steps: [{{id: a, request: {{method: GET, url: 'https://a.test/'}}}}]\n",
        open_endpoint("github")
    );
    let file = write(&server, "a.yaml", &text);
    let said = server.cli(&["apply", "-f", &file]).failure(5);
    assert!(said.contains(&format!("{file}:8: recipe/r: spec.trigger.webhook.endpoint: ")), "{said}");
    assert!(said.contains("did you mean `github`?"), "{said}");
}

#[test]
fn syntax_error_is_named_by_line() {
    let server = Server::start(&Options::default());
    let file = write(&server, "a.yaml", "kind: endpoint\nname: [a\nspec: {}\n");
    let said = server.cli(&["apply", "-f", &file]).failure(5);
    assert!(said.contains(&format!("{file}:")), "{said}");
    assert_eq!(server.cli(&["apply", "-f", "/nowhere.yaml"]).code, 1);
}

#[test]
fn export_applied_again_changes_nothing() {
    let examples = repository().join("examples/first-hour");
    let server = Server::start(&Options::default().flag("--apply", examples.display()));
    let exported = server.cli(&["export"]).success();
    let file = write(&server, "exported.yaml", &exported);
    let again = server.cli_json(&["apply", "-f", &file]);
    let changes = again["data"]["changes"].as_array().unwrap();
    assert!(changes.len() >= 8 && changes.iter().all(|change| change["action"] == "unchanged"), "{again:#}");
    assert_eq!(server.cli(&["export"]).success(), exported);

    // On an empty server they make the same documents; values of secrets are not in them.
    let other = server.beside(&server.folder().join("other"), &Options::default());
    other.cli(&["apply", "-f", &file]).success();
    assert_eq!(other.cli(&["export"]).success(), exported);
    assert_eq!(other.data("/api/v1/secrets/github-webhook")["status"]["has_value"], false);

    let defaults = server.cli(&["export", "--defaults"]).success();
    assert!(defaults.contains("enabled: true") && defaults.len() > exported.len(), "{defaults}");
    let file = write(&server, "defaults.yaml", &defaults);
    server.cli(&["apply", "-f", &file]).success();
    assert_eq!(server.cli(&["export", "--defaults"]).success(), defaults);
}

#[test]
fn secret_value_is_nowhere_to_be_read() {
    let server = Server::start(&Options::default().env("LINKSPAN_LOG", "trace"));
    server.apply(&format!("kind: secret\nname: mine\nspec: {{value: {SECRET}}}\n"));
    server.cli_with_input(&["secrets", "set", "other"], SECRET).success();
    for name in ["mine", "other"] {
        assert_eq!(server.data(&format!("/api/v1/secrets/{name}"))["status"]["has_value"], true);
    }
    server.cli(&["backup"]).success();
    for path in [
        "/api/v1/secrets",
        "/api/v1/secrets/mine",
        "/api/v1/export",
        "/api/v1/export?defaults=true",
        "/api/v1/check",
        "/metrics",
    ] {
        assert!(!server.get(path).text().contains(SECRET), "{path}");
    }
    assert!(!server.cli(&["export"]).success().contains(SECRET));
    let patched = server.api("PATCH", "/api/v1/secrets/mine", Some(&json!({"description": "d"})));
    assert!(!patched.text().contains(SECRET), "{patched:?}");
    assert_eq!(server.data("/api/v1/secrets/mine")["status"]["has_value"], true, "a value is kept when it is left out");
    assert_eq!(server.files_with(SECRET), [] as [std::path::PathBuf; 0]);
    assert!(!server.log().contains(SECRET));
}

#[test]
fn wrong_secret_document_does_not_give_its_value_away() {
    let server = Server::start(&Options::default());
    let file = write(
        &server,
        "a.yaml",
        &format!("kind: secret\nname: mine\nspec: {{value: {SECRET}, env: LINKSPAN_SECRET_A}}\n"),
    );
    let said = server.cli(&["apply", "-f", &file]).failure(5);
    assert!(!said.contains(SECRET), "{said}");
    let file = write(&server, "b.yaml", &format!("kind: secret\nname: mine\nspec: {{value: [{SECRET}]}}\n"));
    let said = server.cli(&["apply", "-f", &file]).failure(5);
    assert!(!said.contains(SECRET), "{said}");
}

#[test]
fn secret_comes_from_the_servers_environment() {
    let server = Server::start(&Options::default().env("LINKSPAN_SECRET_A", "from-the-environment"));
    server.apply("kind: secret\nname: a\nspec: {env: LINKSPAN_SECRET_A}\n---\nkind: secret\nname: b\nspec: {env: LINKSPAN_SECRET_B}\n---\nkind: endpoint\nname: in\nspec: {verify: {token: {header: X-Key, secrets: [{secret: a}]}}}\n");
    assert_eq!(server.data("/api/v1/secrets/a")["status"]["has_value"], true);
    let reason = server.data("/api/v1/secrets/b")["status"]["reason"].clone();
    assert!(reason.as_str().unwrap().contains("LINKSPAN_SECRET_B"), "{reason}");
    assert_eq!(server.post(&server.path_of("in"), &[("X-Key", "from-the-environment")], "").status, 202);
    let refused = server.cli_with_input(&["apply", "-f", "-"], "kind: secret\nname: c\nspec: {env: PATH}\n");
    assert!(refused.failure(5).contains("LINKSPAN_SECRET_"));
}

#[test]
fn exit_codes_tell_scripts_what_happened() {
    let server = Server::start(&Options::default());
    assert!(server.cli(&["endpoints", "show", "nobody"]).failure(3).contains("endpoint/nobody"));
    assert_eq!(server.cli(&["endpoints", "url", "nobody"]).code, 3);
    assert_eq!(server.cli(&["jobs", "show", "nobody"]).code, 3);
    assert_eq!(server.cli(&["endpoints", "frobnicate"]).code, 2);
    let data = server.data.to_str().unwrap();
    let (_kept, closed) = unheard();
    let away = run(&["events"], &[("LINKSPAN_URL", &format!("http://{closed}")), ("LINKSPAN_DATA", data)]);
    assert!(away.failure(4).contains(&closed.to_string()));
    let url = format!("http://{}", server.operator);
    let wrong = run(&["events"], &[("LINKSPAN_URL", &url), ("LINKSPAN_TOKEN", "wrong")]);
    assert_eq!(wrong.code, 6, "{wrong:?}");
    let tokenless = run(&["events"], &[("LINKSPAN_URL", &url), ("LINKSPAN_DATA", "/nowhere")]);
    assert!(tokenless.failure(1).contains("LINKSPAN_TOKEN"));
    let public = format!("http://{}", server.public);
    let other_listener = run(&["events"], &[("LINKSPAN_URL", &public), ("LINKSPAN_DATA", data)]);
    assert_ne!(other_listener.code, 0);
}

#[test]
fn json_output_is_the_apis_own_body() {
    let server = Server::start(&Options::default());
    server.apply(&open_endpoint("in"));
    let id = server.accept(&server.path_of("in"), &json!({"a": 1}));
    // Dispatch writes the index by which events of an endpoint are listed.
    server.dispatched();
    for (args, path) in [
        (&["endpoints", "list"][..], "/api/v1/endpoints".to_owned()),
        (&["endpoints", "show", "in"], "/api/v1/endpoints/in".to_owned()),
        (&["events", "list", "--endpoint", "in"], "/api/v1/events?endpoint=in".to_owned()),
        (&["events", "show", &id], format!("/api/v1/events/{id}")),
        (&["jobs", "list"], "/api/v1/jobs".to_owned()),
        (&["refusals"], "/api/v1/refusals".to_owned()),
        (&["export"], "/api/v1/export".to_owned()),
    ] {
        assert_eq!(server.cli_json(args), server.get(&path).json(), "{args:?}");
    }
}

#[test]
fn tables_are_for_people() {
    let server = Server::start(&Options::default());
    server.apply(&open_endpoint("in"));
    let url = server.cli(&["endpoints", "url", "in"]).success();
    assert_eq!(url.trim(), format!("http://{}{}", server.public, server.path_of("in")));
    let listed = server.cli(&["endpoints"]).success();
    assert!(listed.starts_with("NAME") || listed.trim_start().starts_with("NAME"), "{listed}");
    assert!(listed.contains(url.trim()), "{listed}");
    // Whatever a caller sends cannot steer the terminal of whoever looks at it.
    server.post(&server.path_of("in"), &[("X-A", "b")], "\"\u{1b}[2J\u{9b}31m\"").assert_error(400, "body.malformed");
    let id = server.accept(&server.path_of("in"), &json!("\u{9b}31m"));
    for args in [&["events", "show", &id][..], &["events"], &["refusals"], &["listen", "--from-start", "--count", "1"]]
    {
        let said = server.cli(args).success();
        assert!(!said.contains('\u{1b}') && !said.contains('\u{9b}'), "{args:?}: {said:?}");
    }
}

#[test]
fn check_says_what_could_be_better_and_what_is_wrong() {
    let server = Server::start(&Options::egress());
    server.apply(&open_endpoint("open"));
    let said = server.cli(&["check"]).success();
    for wanted in ["endpoint/open", "key", "egress", "disk", "store"] {
        assert!(said.lines().any(|line| line.split_whitespace().nth(1) == Some(wanted)), "{wanted}: {said}");
    }
    server.apply("kind: secret\nname: gone\nspec: {file: gone}\n---\nkind: endpoint\nname: shut\nspec: {verify: {token: {header: X, secrets: [{secret: gone}]}}}\n");
    let failed = server.cli(&["check"]);
    assert!(failed.stdout.contains("secret/gone") && failed.stdout.contains("endpoint/shut"), "{failed:?}");
    assert_eq!(failed.code, 1);
    server.post(&server.path_of("shut"), &[("X", "a")], "").assert_error(503, "endpoint.not_ready");
}

#[test]
fn backup_restores_into_a_new_folder_that_serves() {
    let server = Server::start(&Options::default());
    server.apply(&format!("kind: secret\nname: key\nspec: {{value: {SECRET}}}\n---\nkind: endpoint\nname: in\nspec: {{verify: {{token: {{header: X-Key, secrets: [{{secret: key}}]}}}}}}\n"));
    let path = server.path_of("in");
    let large = "x".repeat(200_000);
    let send = |server: &Server, body: &str| {
        let answer = server.post(&path, &[("X-Key", SECRET)], body);
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["data"]["id"].as_str().unwrap().to_owned()
    };
    let ids = [send(&server, "small"), send(&server, &large)];
    let backup = server.cli(&["backup"]).success().trim().to_owned();
    send(&server, "after the backup");

    let new = server.folder().join("new");
    let new_data = new.to_str().unwrap();
    let restored = run(&["restore", &backup, "--data", new_data], &[]);
    assert!(restored.stderr.contains("--key-file"), "{restored:?}");
    assert!(restored.success().contains("2 events"));
    std::fs::copy(server.data.join("key"), new.join("key")).unwrap();
    let mut other = server.beside(&new, &Options::default());
    other.token.clone_from(&server.token);
    let bodies = ids.map(|id| other.data(&format!("/api/v1/events/{id}"))["body"].clone());
    assert!(bodies == [json!("small"), json!(large)], "the restored events are others");
    assert_eq!(other.data("/api/v1/events").as_array().unwrap().len(), 2);
    send(&other, "to the restored server");

    let again = run(&["restore", &backup, "--data", new_data], &[]);
    assert_eq!(again.code, 1, "a folder in use is not overwritten: {again:?}");
    drop(other);
    let again = run(&["restore", &backup, "--data", new_data], &[]);
    assert_eq!(again.code, 1, "a folder that holds data is not overwritten: {again:?}");
}

#[test]
fn damaged_backup_is_not_restored() {
    let server = Server::start(&Options::default());
    let backup = server.cli(&["backup"]).success().trim().to_owned();
    let database = std::path::Path::new(&backup).join("linkspan.db");
    let mut bytes = std::fs::read(&database).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&database, bytes).unwrap();
    let new = server.folder().join("new");
    let restored = run(&["restore", &backup, "--data", new.to_str().unwrap()], &[]);
    assert!(restored.failure(1).contains("linkspan.db"));
    assert!(!new.join("linkspan.db").exists());
}

#[test]
fn rotated_token_is_shown_once_and_the_old_one_is_dead() {
    let mut server = Server::start(&Options::default());
    let old = server.token.clone();
    let new = server.cli(&["token", "rotate"]).success().trim().to_owned();
    assert!(new.len() >= 32 && new != old, "{new}");
    assert!(!server.data.join("operator-token").exists());
    assert_eq!(server.get("/api/v1/version").status, 401);
    server.token.clone_from(&new);
    assert_eq!(server.get("/api/v1/version").status, 200);
    server.cli(&["events"]).success();
    for token in [&old, &new] {
        assert_eq!(server.files_with(token), [] as [std::path::PathBuf; 0]);
    }

    let mut server = server.restart(&Options::default());
    server.token = new;
    assert_eq!(server.get("/api/v1/version").status, 200);
    assert!(!server.data.join("operator-token").exists(), "no second first-run token");
}

#[test]
fn lost_token_is_replaced_while_the_server_is_stopped() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut server = Server::start(&Options::default());
    let first = server.token.clone();
    let lost = server.cli(&["token", "rotate"]).success().trim().to_owned();
    let (data, file) = (server.data.clone(), server.data.join("operator-token"));
    let reset = |data: &std::path::Path| run(&["token", "reset", "--data", data.to_str().unwrap()], &[]);
    assert!(reset(&data).failure(1).contains("in use by another linkspan; stop it"));
    assert!(!file.exists());

    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    // The key may lie where only the server finds it.
    std::fs::rename(data.join("key"), server.folder().join("key")).unwrap();
    let token = reset(&data).success().trim().to_owned();
    std::fs::rename(server.folder().join("key"), data.join("key")).unwrap();
    assert!(token.starts_with("lso_") && token.len() == first.len() && ![&first, &lost].contains(&&token));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), token);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(server.files_with(&token), [file]);

    let mut server = server.restart(&Options::default());
    assert_eq!(server.token, token);
    server.cli(&["events"]).success();
    for dead in [first, lost] {
        server.token = dead;
        assert_eq!(server.get("/api/v1/version").status, 401);
    }

    let nowhere = server.folder().join("nowhere");
    assert!(reset(&nowhere).failure(1).contains("holds no database"));
    assert!(!nowhere.exists());
}

#[test]
fn schema_completions_and_version_need_no_server() {
    let schema: Value = serde_json::from_str(&run(&["schema"], &[]).success()).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["oneOf"].as_array().unwrap().len(), 8);
    let script = run(&["completions", "bash"], &[]).success();
    assert!(script.contains("complete -F _linkspan"), "{script}");
    let version = run(&["version"], &[("LINKSPAN_DATA", "/nowhere")]).success();
    assert_eq!(version, format!("client {}\nserver not reached\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn version_names_the_server_where_there_is_one() {
    let server = Server::start(&Options::default());
    let version = server.cli_json(&["version"]);
    assert_eq!(version["data"], json!({"client": env!("CARGO_PKG_VERSION"), "server": env!("CARGO_PKG_VERSION")}));
}

#[test]
fn listen_shows_the_next_event_and_ends() {
    let server = Server::start(&Options::default());
    server.apply(&open_endpoint("in"));
    let path = server.path_of("in");
    server.accept(&path, &json!({"n": "before"}));
    std::thread::scope(|scope| {
        let listening = scope.spawn(|| server.cli(&["listen", "in", "--count", "1"]));
        // Nothing tells when it has begun to listen, so events go on until it has seen one.
        eventually("it has ended", || {
            server.accept(&path, &json!({"n": "after"}));
            listening.is_finished().then_some(())
        });
        let said = listening.join().unwrap().success();
        assert!(said.contains("after") && !said.contains("before"), "{said}");
    });
    let first = server.cli(&["listen", "in", "--from-start", "--count", "1", "--output", "json"]).success();
    assert_eq!(serde_json::from_str::<Value>(&first).unwrap()["body"], "{\"n\":\"before\"}");
}

#[test]
fn wrong_documents_keep_a_server_from_starting() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("wrong.yaml");
    std::fs::write(&file, "kind: endpoint\nname: a\nspec: {verfy: none}\n").unwrap();
    let options = Options::default().flag("--apply", file.display());
    let output = Server::command(&folder.path().join("data"), &options).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("wrong.yaml:3") && said.contains("did you mean `verify`?"), "{said}");
}

#[test]
fn data_folder_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start(&Options::default());
    let mode = |name: &str| std::fs::metadata(server.data.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("key"), mode("operator-token")), (0o700, 0o600, 0o600));
    assert_eq!(request(server.operator, "GET", "/livez", &[], b"").status, 200);
}
