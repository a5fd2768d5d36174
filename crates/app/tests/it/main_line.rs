//! Events, the recipes that they start, and what the record of a job shows.

use serde_json::{Value, json};

use crate::harness::{
    Options, Reply, Server, Upstream, connection, eventually, hmac_sha256, is_ended, open_endpoint, repository, unheard,
};

const GITHUB_SECRET: &str = "first-hour-github-secret";
const DESK_KEY: &str = "first-hour-desk-key";

/// A recipe that posts the field `title` of every event of endpoint `in` to connection `desk`.
fn recipe(name: &str) -> String {
    format!(
        "kind: recipe
name: {name}
spec:
  trigger:
    webhook: {{endpoint: in, when: trigger.body.skip != true}}
  steps:
    - id: tell
      request:
        connection: desk
        method: POST
        path: /tickets
        json: {{title: '{{{{ trigger.body.title }}}}', n: '{{{{ trigger.body.n | default(0) }}}}'}}
"
    )
}

fn documents(upstream: &Upstream) -> String {
    [open_endpoint("in"), connection("desk", &upstream.url()), recipe("tell")].join("---\n")
}

/// A server with endpoint `in`, and recipe `tell` that posts to the upstream; and the endpoint's path.
fn server_with(upstream: &Upstream) -> (Server, String) {
    let server = Server::start(&Options::egress());
    server.apply(&documents(upstream));
    let path = server.path_of("in");
    (server, path)
}

/// Changes from run to run and has tests of its own elsewhere: ids, times, ports, keys.
fn steady(value: &Value, server: &Server) -> String {
    let mut value = value.clone();
    if let Some(output) = value.pointer_mut("/output").and_then(Value::as_object_mut) {
        assert!(output["timings"].is_object(), "{output:?}");
        output.shift_remove("timings");
        for header in output["headers"].as_array_mut().into_iter().flatten() {
            if header[0] == "date" {
                header[1] = "DATE".into();
            }
        }
    }
    for attempt in value["attempt_log"].as_array_mut().into_iter().flatten() {
        assert!(attempt["timings"].is_object() && attempt["started_at"].is_string(), "{attempt:?}");
        attempt.as_object_mut().map(|attempt| attempt.shift_remove("timings"));
        attempt["started_at"] = "TIME".into();
    }
    for field in ["started_at", "finished_at"] {
        assert!(value[field].is_string(), "{value}");
        value[field] = "TIME".into();
    }
    serde_json::to_string_pretty(&value).unwrap().replace(&server.public.to_string(), "PUBLIC")
}

#[test]
fn first_hour_example_runs_from_signed_payload_to_second_endpoint() {
    let examples = repository().join("examples/first-hour");
    let server = Server::start(&Options::egress().flag("--apply", examples.display()));
    let payload = std::fs::read(examples.join("payload.json")).unwrap();
    let signature = format!("sha256={}", hmac_sha256(GITHUB_SECRET, &payload));
    let headers = [
        ("Content-Type", "application/json"),
        ("X-GitHub-Event", "issues"),
        ("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("X-Hub-Signature-256", signature.as_str()),
    ];
    let answer = server.post(&server.path_of("github"), &headers, &payload);
    assert_eq!(answer.status, 202, "{answer:?}");
    let event = answer.json()["data"]["id"].as_str().unwrap().to_owned();

    let job = server.job_of(&event);
    assert_eq!(job["status"], "succeeded", "{job:#}");
    assert_eq!(job["recipe"], "new-issue");
    let second = server.data("/api/v1/events?endpoint=desk")[0].clone();
    let mark = hops_of(&second);
    assert!(mark.starts_with("1.") && mark.len() == 34, "{mark}");
    let (desk, id) = (server.path_of("desk"), second["id"].as_str().unwrap());
    let step = steady(&job["steps"][0], &server)
        .replace(&desk, "/webhooks/DESK")
        .replace(id, "SECOND")
        .replace(&mark, "MARK")
        .replace(job["id"].as_str().unwrap(), "JOB");
    insta::assert_snapshot!(step, @r#"
    {
      "id": "tell_desk",
      "status": "succeeded",
      "attempts": 1,
      "attempt_log": [
        {
          "number": 1,
          "started_at": "TIME",
          "status": 202,
          "decision": "succeeded"
        }
      ],
      "input": {
        "method": "POST",
        "url": "http://PUBLIC/webhooks/DESK/tickets-1347",
        "headers": [
          [
            "host",
            "PUBLIC"
          ],
          [
            "x-repository",
            "octo-org/octo-repo"
          ],
          [
            "content-type",
            "application/json"
          ],
          [
            "idempotency-key",
            "JOB-tell_desk"
          ],
          [
            "linkspan-hops",
            "MARK"
          ],
          [
            "user-agent",
            "linkspan/0.1.0"
          ],
          [
            "accept-encoding",
            "gzip, br, zstd"
          ],
          [
            "x-api-key",
            "••••••"
          ],
          [
            "content-length",
            "52"
          ]
        ],
        "body": {
          "text": "{\"title\":\"Found a bug\",\"votes\":3,\"sender\":\"octocat\"}",
          "size": 52
        }
      },
      "output": {
        "status": 202,
        "headers": [
          [
            "content-type",
            "application/json"
          ],
          [
            "content-length",
            "54"
          ],
          [
            "date",
            "DATE"
          ]
        ],
        "body": {
          "data": {
            "id": "SECOND"
          }
        },
        "size": 54
      },
      "started_at": "TIME",
      "finished_at": "TIME"
    }
    "#);

    assert_eq!(second["body"], r#"{"title":"Found a bug","votes":3,"sender":"octocat"}"#);
    assert_eq!(second["event_name"], "tickets-1347");
    assert_eq!(second["verified"], json!({"by": "token", "ok": true}));
    assert!(!server.get(&format!("/api/v1/jobs/{}", job["id"].as_str().unwrap())).text().contains(DESK_KEY));
    assert!(!server.get(&format!("/api/v1/events/{id}")).text().contains(DESK_KEY));
}

#[test]
fn send_command_signs_as_the_endpoint_wants_it() {
    let examples = repository().join("examples/first-hour");
    let server = Server::start(&Options::egress().flag("--apply", examples.display()));
    let payload = examples.join("payload.json");
    let id = server.cli(&["send", "github", "--file", payload.to_str().unwrap()]).success();
    let event = server.data(&format!("/api/v1/events/{}", id.trim()));
    assert_eq!(event["verified"], json!({"by": "hmac", "ok": true}));
    assert_eq!(event["body"].as_str().unwrap().as_bytes(), std::fs::read(payload).unwrap());
    assert_eq!(server.job_of(id.trim())["status"], "succeeded");
}

#[test]
fn event_that_a_condition_does_not_pick_starts_no_job() {
    let upstream = Upstream::ok();
    let (server, path) = server_with(&upstream);
    let skipped = server.accept(&path, &json!({"title": "a", "skip": true}));
    let taken = server.accept(&path, &json!({"title": "b"}));
    assert_eq!(server.job_of(&taken)["status"], "succeeded");
    assert_eq!(server.data(&format!("/api/v1/jobs?event={skipped}")), json!([]));
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn upstream_gets_typed_json_with_the_idempotency_key_of_the_step() {
    let upstream = Upstream::ok();
    let (server, path) = server_with(&upstream);
    let event = server.accept(&path, &json!({"title": "a \"quoted\" ü", "n": 12_345_678_901_234_567_890_u64}));
    let job = server.job_of(&event);
    let seen = upstream.wait_for(1)[0].clone();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/tickets"));
    assert_eq!(seen.json(), json!({"title": "a \"quoted\" ü", "n": 12_345_678_901_234_567_890_u64}));
    assert_eq!(seen.header("idempotency-key"), format!("{}-tell", job["id"].as_str().unwrap()));
    assert_eq!(seen.header("content-type"), "application/json");
}

#[test]
fn rerun_sends_the_same_bytes_and_says_what_it_repeats() {
    let upstream = Upstream::ok();
    let (server, path) = server_with(&upstream);
    let event = server.accept(&path, &json!({"title": "once more", "n": 1.50}));
    let first = server.job_of(&event);
    let id = first["id"].as_str().unwrap();
    // In a pipe nobody can be asked whether the ticket is to be written twice.
    let refused = server.cli(&["jobs", "rerun", id]).failure(1);
    assert!(refused.contains("tell: POST ") && refused.contains("--yes"), "{refused}");
    assert_eq!(server.data("/api/v1/jobs").as_array().unwrap().len(), 1);
    let again = server.cli(&["jobs", "rerun", id, "--yes"]).success();
    let second = server.ended_job(again.trim());
    assert_eq!(second["rerun_of"], id);
    assert_eq!(second["event"], first["event"]);
    let seen = upstream.wait_for(2);
    assert_eq!(seen[0].body, seen[1].body);
    assert_eq!(second["steps"][0]["input"]["body"], first["steps"][0]["input"]["body"]);
    assert_ne!(seen[0].header("idempotency-key"), seen[1].header("idempotency-key"));
}

#[test]
fn a_rerun_of_what_wrote_nothing_asks_nothing() {
    let upstream = Upstream::start(|_, _| Reply::Json(404, json!({})));
    let (server, path) = server_with(&upstream);
    let job = server.job_of(&server.accept(&path, &json!({"title": "a"})));
    assert_eq!(job["status"], "failed");
    server.cli(&["jobs", "rerun", job["id"].as_str().unwrap()]).success();
}

#[test]
fn what_waits_of_a_deleted_recipe_is_counted_and_canceled() {
    let (_listener, silent) = unheard();
    let server = Server::start(&Options::egress());
    let desk = connection("desk", &format!("http://{silent}"));
    server.apply(&[open_endpoint("in"), desk, recipe("tell")].join("---\n"));
    let path = server.path_of("in");
    for n in 0..70 {
        server.accept(&path, &json!({"title": n}));
    }
    server.dispatched();
    let open = server.data("/api/v1/recipes/tell")["status"]["open_jobs"].as_u64().unwrap();
    assert!(open >= 6, "{open}");
    let said = server.cli(&["recipes", "delete", "tell"]).success_all();
    assert!(said.contains("jobs that wait go on") && said.contains("jobs cancel --recipe tell"), "{said}");
    let said = server.cli(&["jobs", "cancel", "--recipe", "tell"]).success_all();
    assert!(said.contains("canceled"), "{said}");
    let listed = server.cli_json(&["jobs", "--recipe", "tell", "--status", "canceled"])["data"].clone();
    assert!(listed.as_array().unwrap().len() >= 6);
    assert_eq!(server.cli_json(&["jobs", "--recipe", "tell", "--status", "queued"])["data"], json!([]));
}

#[test]
fn commands_say_which_documents_will_take_their_change_back() {
    let upstream = Upstream::ok();
    let server = Server::start(&Options::egress());
    server.apply(&documents(&upstream));
    let said = server.cli(&["recipes", "stop", "tell"]).success_all();
    assert!(said.contains("the next `apply` sets whether it runs as they say"), "{said}");
}

#[test]
fn replay_starts_every_running_recipe_again() {
    let upstream = Upstream::ok();
    let (server, path) = server_with(&upstream);
    server.apply(&recipe("tell-too"));
    let event = server.accept(&path, &json!({"title": "a"}));
    upstream.wait_for(2);
    let jobs = server.cli_json(&["events", "replay", &event])["data"]["jobs"].clone();
    assert_eq!(jobs.as_array().unwrap().len(), 2, "{jobs}");
    for job in jobs.as_array().unwrap() {
        let job = server.ended_job(job.as_str().unwrap());
        assert_eq!((&job["status"], &job["event"]), (&json!("succeeded"), &json!(event)));
    }
    assert_eq!(upstream.seen().len(), 4);
}

#[test]
fn stopped_recipe_starts_nothing_and_gets_its_events_by_replay() {
    let upstream = Upstream::ok();
    let (server, path) = server_with(&upstream);
    assert_eq!(server.cli(&["recipes", "stop", "tell"]).success(), "stopped\n");
    let missed = server.accept(&path, &json!({"title": "missed"}));
    server.dispatched();
    assert_eq!(server.cli(&["recipes", "start", "tell"]).success(), "running\n");
    let taken = server.accept(&path, &json!({"title": "taken"}));
    server.job_of(&taken);
    assert_eq!(server.data(&format!("/api/v1/jobs?event={missed}")), json!([]));
    assert_eq!(upstream.seen().len(), 1);

    let replayed = server.cli(&["events", "replay", &missed, "--recipe", "tell"]).success();
    assert_eq!(server.ended_job(replayed.trim())["status"], "succeeded");
    assert_eq!(upstream.seen()[1].json()["title"], "missed");
}

#[test]
fn replay_names_a_recipe_that_is_stopped() {
    let upstream = Upstream::ok();
    let (server, path) = server_with(&upstream);
    server.cli(&["recipes", "stop", "tell"]).success();
    let event = server.accept(&path, &json!({"title": "a"}));
    assert_eq!(server.cli(&["events", "replay", &event]).success(), "");
    let job = server.cli(&["events", "replay", &event, "--recipe", "tell"]).success();
    assert_eq!(server.ended_job(job.trim())["status"], "succeeded");
}

#[test]
fn duplicate_is_acknowledged_with_the_first_id_and_starts_nothing() {
    let upstream = Upstream::ok();
    let server = Server::start(&Options::egress());
    let documents =
        documents(&upstream).replace("verify: none}", "verify: none, dedupe: {by: 'header:X-Delivery', within: 1h}}");
    server.apply(&documents);
    let path = server.path_of("in");
    let send = |id: &str, title: &str| {
        let headers = [("Content-Type", "application/json"), ("X-Delivery", id)];
        let answer = server.post(&path, &headers, json!({"title": title}).to_string());
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()
    };
    let first = send("a", "one");
    let id = first["data"]["id"].clone();
    assert_eq!(first, json!({"data": {"id": id}}));
    assert_eq!(send("a", "two"), json!({"data": {"id": id, "duplicate": true}}));
    let other = send("b", "three");
    assert_ne!(other["data"]["id"], id);
    server.job_of(other["data"]["id"].as_str().unwrap());
    assert_eq!(server.data("/api/v1/events").as_array().unwrap().len(), 2);
    assert_eq!(server.data("/api/v1/jobs").as_array().unwrap().len(), 2);
}

#[test]
fn pill_to_a_missing_field_fails_the_step_naming_pill_and_column() {
    let upstream = Upstream::ok();
    let (server, path) = server_with(&upstream);
    let job = server.job_of(&server.accept(&path, &json!({"titel": "a"})));
    assert_eq!(job["status"], "failed");
    let error = &job["steps"][0]["error"];
    assert_eq!(error["code"], "template.unknown_pill");
    assert_eq!(error["field"], "json.title");
    insta::assert_snapshot!(error["description"].as_str().unwrap(), @r#"json.title, column 4: pill "trigger.body.title" is not in the data (did you mean "trigger.body.titel"?)"#);
    assert_eq!(upstream.seen().len(), 0);
}

#[test]
fn upstream_that_is_down_leaves_the_job_waiting_with_the_connections_message() {
    let (_kept, closed) = unheard();
    let server = Server::start(&Options::egress());
    server.apply(&[open_endpoint("in"), connection("desk", &format!("http://{closed}")), recipe("tell")].join("---\n"));
    server.accept(&server.path_of("in"), &json!({"title": "a"}));
    let job = server.job_when("tell", |job| job["status"] == "waiting");
    let step = &job["steps"][0];
    assert_eq!(step["status"], "waiting");
    assert!(step["retry_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{step:#}");
    let description = step["error"]["description"].as_str().unwrap();
    assert!(description.starts_with("The desk is away. ("), "{description}");
    assert!(description.contains(&closed.to_string()), "{description}");

    let id = job["id"].as_str().unwrap();
    assert_eq!(server.api("POST", &format!("/api/v1/jobs/{id}/cancel"), None).status, 200);
    assert_eq!(server.ended_job(id)["status"], "canceled");
    server.api("POST", &format!("/api/v1/jobs/{id}/cancel"), None).assert_error(409, "resource.conflict");
}

#[test]
fn step_is_tried_again_with_the_same_key_until_it_succeeds() {
    let upstream = Upstream::start(|n, _| match n {
        0 => Reply::Json(503, json!({"error": "later"})),
        _ => Reply::Json(201, json!({"id": 7})),
    });
    let (server, path) = server_with(&upstream);
    let job = server.job_of(&server.accept(&path, &json!({"title": "a"})));
    assert_eq!(job["status"], "succeeded");
    assert_eq!(job["steps"][0]["attempts"], 2);
    assert_eq!(job["steps"][0]["output"]["status"], 201);
    assert_eq!(job["steps"][0]["output"]["body"], json!({"id": 7}));
    let seen = upstream.seen();
    assert_eq!(seen[0].header("idempotency-key"), seen[1].header("idempotency-key"));
}

#[test]
fn write_whose_answer_is_lost_is_not_repeated() {
    let upstream = Upstream::start(|_, _| Reply::Hang);
    let server = Server::start(&Options::egress());
    server.apply(&documents(&upstream).replace("timeout_message", "timeout: 200ms\n  timeout_message"));
    let job = server.job_of(&server.accept(&server.path_of("in"), &json!({"title": "a"})));
    assert_eq!(job["status"], "failed");
    let error = &job["steps"][0]["error"];
    assert_eq!(error["outcome_unknown"], true, "{error}");
    assert!(error["description"].as_str().unwrap().starts_with("The desk is away. ("), "{error}");
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn later_step_sees_the_answer_of_an_earlier_one() {
    let upstream = Upstream::start(|n, _| Reply::Json(200, json!({"id": format!("t/{n}")})));
    let server = Server::start(&Options::egress());
    let second = "    - id: note
      request:
        connection: desk
        method: PUT
        path: /tickets/{{ steps.tell.body.id }}/note
        query: {status: '{{ steps.tell.status }}'}
        text: made by {{ trigger.body.title }}
";
    server.apply(&(documents(&upstream) + second));
    let job = server.job_of(&server.accept(&server.path_of("in"), &json!({"title": "a"})));
    assert_eq!(job["status"], "succeeded", "{job:#}");
    let seen = upstream.seen();
    assert_eq!(seen[1].target, "/tickets/t%2F0/note?status=200");
    assert_eq!(seen[1].body, b"made by a");
}

#[test]
fn recipe_that_feeds_its_own_endpoint_ends() {
    let server = Server::start(&Options::egress());
    server.apply(
        "kind: endpoint
name: in
spec: {format: json, verify: none}
---
kind: connection
name: self
spec: {endpoint: in}
---
kind: recipe
name: loop
spec:
  trigger: {webhook: {endpoint: in}}
  steps:
    - id: again
      request:
        connection: self
        method: POST
        path: /round
        headers: {Linkspan-Hops: '0'}
        json: {n: '{{ trigger.body.n + 1 }}'}
",
    );
    server.accept(&server.path_of("in"), &json!({"n": 0}));
    let refusal = server.refusal("recipe.loop");
    assert_eq!((&refusal["endpoint"], &refusal["status"]), (&json!("in"), &json!(202)));
    let jobs = eventually("every job has ended", || {
        let jobs = server.data("/api/v1/jobs");
        jobs.as_array().unwrap().iter().all(is_ended).then_some(jobs)
    });
    assert_eq!(jobs.as_array().unwrap().len(), 8);
    let events = server.data("/api/v1/events");
    assert_eq!(events.as_array().unwrap().len(), 9);
    assert_eq!(events[0]["body"], r#"{"n":8}"#);

    // What this server wrote ends a loop, also beside something else; what anybody else writes counts as absent.
    let mark = hops_of(&events[0]);
    let post = |hops: &[&str]| {
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(hops.iter().map(|value| ("linkspan-hops", *value)));
        let answer = server.post(&server.path_of("in"), &headers, r#"{"n":100}"#);
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["data"]["id"].as_str().unwrap().to_owned()
    };
    for ended in [&[mark.as_str()][..], &["0", &mark], &["1.00000000000000000000000000000000", &mark]] {
        let event = post(ended);
        assert!(server.refusal("recipe.loop")["cause"].as_str().unwrap().contains(&event));
        assert_eq!(server.data(&format!("/api/v1/jobs?event={event}")), json!([]));
    }
    let forged = format!("9{}", &mark[1..]);
    for forged in ["8", "99", "8.00000000000000000000000000000000", &forged] {
        assert_eq!(server.job_of(&post(&[forged]))["status"], "succeeded", "{forged}");
        server.refusal("recipe.loop");
    }
}

/// The value of an event's `linkspan-hops`.
fn hops_of(event: &Value) -> String {
    let headers = event["headers"].as_array().unwrap();
    headers.iter().find(|header| header[0] == "linkspan-hops").unwrap()[1].as_str().unwrap().to_owned()
}

#[test]
fn private_address_is_refused_unless_the_operator_opens_it() {
    let upstream = Upstream::ok();
    let server = Server::start(&Options::default());
    server.apply(&documents(&upstream));
    let job = server.job_of(&server.accept(&server.path_of("in"), &json!({"title": "a"})));
    assert_eq!(job["status"], "failed");
    let error = &job["steps"][0]["error"];
    assert_eq!(error["code"], "outbound.refused");
    assert!(error["description"].as_str().unwrap().contains("--egress-allow"), "{error}");
    assert_eq!(upstream.seen().len(), 0);
}

#[test]
fn operator_listener_is_never_called_by_a_recipe() {
    let server = Server::start(&Options::egress());
    let url = format!("http://{}", server.operator);
    server.apply(&[open_endpoint("in"), connection("desk", &url), recipe("tell")].join("---\n"));
    let job = server.job_of(&server.accept(&server.path_of("in"), &json!({"title": "a"})));
    assert_eq!(job["steps"][0]["error"]["code"], "outbound.refused", "{job:#}");
    assert_eq!(job["status"], "failed");
}
