//! Pills and expressions look at large data where it is.

use linkspan_model::template::{Expression, Scope, Template};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Bytes that are allocated while `run` runs.
fn allocated<T>(run: impl FnOnce() -> T) -> u64 {
    let before = dhat::HeapStats::get().total_bytes;
    let value = run();
    let after = dhat::HeapStats::get().total_bytes;
    drop(value);
    after - before
}

// One test: the profiler counts for the whole process.
#[test]
fn an_expression_over_a_body_of_1_mib_costs_no_copy_of_it() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let items: Vec<Value> = (0..20_000).map(|n| json!({"id": n, "name": format!("thing number {n:030}")})).collect();
    let body = json!({"action": "opened", "text": "x".repeat(1 << 20), "items": items, "last": {"id": 7}});
    assert!(serde_json::to_vec(&body).unwrap().len() > 2 << 20);
    let scope = Scope::new().with("trigger.body", body);
    for text in [
        "trigger.body.action == 'opened'",
        "trigger.body.last.id > 3 and trigger.body.items[19999].id == 19999",
        "trigger.body.text != 'y' and trigger.body.items | length == 20000",
        "'thing' in trigger.body.items[5].name or trigger.body.text | length > 10",
    ] {
        let expression = Expression::parse(text).unwrap();
        // What the engine sets up once is not counted.
        expression.holds(&scope).unwrap();
        let bytes = allocated(|| assert!(expression.holds(&scope).unwrap(), "{text}"));
        assert!(bytes < 16 << 10, "{text}: {bytes} bytes");
    }
    // A condition on parts of the body, as a step's field.
    let template = Template::parse("{{ trigger.body.items[19999].name }}").unwrap();
    let bytes = allocated(|| template.render_text(&scope).unwrap());
    assert!(bytes < 4 << 10, "{bytes} bytes");
    // What a sender chose to name its keys costs nothing, seen or not.
    let keys = json!({"k".repeat(4_900_000): 1}).as_object().cloned().unwrap();
    let keys = (0..190_000).map(|n| (format!("key{n}"), Value::from(n))).chain(keys);
    let chosen = Scope::new().with("trigger.body", Value::Object(keys.collect()));
    let condition = Expression::parse("trigger.body.action == 'opened'").unwrap();
    let strict = ["{{ trigger.body.action }}".to_owned(), format!("{{{{ trigger.body.{} }}}}", "k".repeat(2_000))];
    let strict = strict.map(|text| Template::parse(&text).unwrap());
    condition.holds(&chosen).unwrap();
    let bytes = allocated(|| condition.holds(&chosen).unwrap());
    assert!(bytes < 16 << 10, "{bytes} bytes");
    for template in strict {
        let bytes = allocated(|| template.render_text(&chosen).unwrap_err());
        assert!(bytes < 256 << 10, "{bytes} bytes");
    }
    // The instrument itself: a copy is seen.
    let copy = Template::parse("{{ trigger.body.text }}").unwrap();
    assert!(allocated(|| copy.render_value(&scope).unwrap()) > 1 << 20);
}
