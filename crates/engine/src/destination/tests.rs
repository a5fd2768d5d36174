use std::fs;
use std::os::unix::fs::symlink;

use linkspan_model::EventId;
use linkspan_model::rows::rows;
use linkspan_model::sync::SyncFormat;
use rusqlite::Connection;
use serde_json::json;

use super::*;

const AT: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn spec(path: &str) -> DestinationSpec {
    serde_json::from_value(json!({"sqlite": {"path": path}})).unwrap()
}

fn orders() -> TableName {
    TableName::new("sales", "orders").unwrap()
}

/// A folder of destinations with the file `w.db` in it.
struct Warehouse {
    folder: tempfile::TempDir,
}

impl Warehouse {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> Box<dyn Destination> {
        open(self.folder.path(), &spec("w.db")).unwrap()
    }

    fn db(&self) -> Connection {
        Connection::open(self.folder.path().join("w.db")).unwrap()
    }

    /// Loads one event for each body, from position `after` on.
    fn load(&self, after: u64, bodies: &[&str]) -> Loaded {
        self.load_as(after, bodies, SyncFormat::Unpacked)
    }

    fn load_as(&self, after: u64, bodies: &[&str], format: SyncFormat) -> Loaded {
        self.load_in(Turn::Next, after, bodies, format)
    }

    fn load_in(&self, turn: Turn, after: u64, bodies: &[&str], format: SyncFormat) -> Loaded {
        let rows_of = |at: usize| {
            let body = bodies.get(at)?;
            Some(rows(EventId::new(AT, after + 1 + at as u64, 0), AT, None, body.as_bytes(), format).rows)
        };
        let table = orders();
        let last = after + bodies.len() as u64;
        let batch = LoadBatch { sync: "sync_1", table: &table, last, turn, rows_of: &rows_of, synced_at: AT };
        self.open().load(&batch).unwrap()
    }

    fn position(&self) -> u64 {
        self.open().position("sync_1", &orders()).unwrap().seq
    }

    fn page(&self, offset: u64, limit: u32) -> Page {
        self.open().page(&orders(), offset, limit).unwrap().unwrap()
    }

    /// The values of one column, as JSON texts.
    fn column(&self, name: &str) -> Vec<String> {
        self.page(0, 100).rows.iter().map(|row| row[name].to_string()).collect()
    }

    fn kinds(&self) -> Vec<(String, &'static str)> {
        self.page(0, 1).columns.into_iter().skip(4).map(|column| (column.name, column.kind)).collect()
    }
}

#[test]
fn names_tables_strictly() {
    assert_eq!(orders().full(), "sales.orders");
    for (schema, table) in [("", "a"), ("a", ""), ("1a", "b"), ("a.b", "c"), ("a", "b\""), ("ä", "b"), ("a", "b c")] {
        assert!(matches!(TableName::new(schema, table), Err(DestinationError::Name(_))), "{schema}.{table}");
    }
    assert!(TableName::new("a", &"x".repeat(64)).is_err());
}

#[test]
fn keeps_values_exactly() {
    let warehouse = Warehouse::new();
    let body = r#"{"max": 9223372036854775807, "over": 9223372036854775808, "price": 1.10, "big": 1e400, "yes": true,
                   "text": "a\u0000b ü", "nothing": null, "list": [1, 2.50], "object": {"b": 1, "a": {"x": -0}}}"#;
    assert_eq!(warehouse.load(0, &[body]).left_out, 0);
    let page = warehouse.page(0, 10);
    let mut row = page.rows[0].clone();
    assert_eq!(row.shift_remove("_id").unwrap(), json!(EventId::new(AT, 1, 0)));
    assert_eq!(row.shift_remove("_index").unwrap(), json!(0));
    assert_eq!(row.shift_remove("_received_at").unwrap(), json!(AT));
    assert_eq!(row.shift_remove("_synced_at").unwrap(), json!(AT));
    let expected = r#"{"max":9223372036854775807,"over":"9223372036854775808","price":"1.10","big":"1e400","yes":true,"text":"a\u0000b ü","nothing":null,"list":[1,2.50],"object":{"b":1,"a":{"x":-0}}}"#;
    assert_eq!(serde_json::to_string(&row).unwrap(), expected);
    let kinds: Vec<_> = warehouse.kinds().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, ["int64", "decimal", "decimal", "decimal", "bool", "text", "", "json", "json"]);
    // SQLite itself holds them so, whatever reads the file.
    let types: String = warehouse
        .db()
        .query_row(
            r#"SELECT typeof("max") || typeof("over") || typeof(price) || typeof(yes) FROM "sales.orders""#,
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(types, "integertexttextinteger");
}

#[test]
fn widens_columns_without_rounding_and_rewrites_what_stands_there() {
    let warehouse = Warehouse::new();
    warehouse.load(0, &[r#"{"n": 1, "b": true, "m": 5, "l": [1.0]}"#, r#"{"n": 9007199254740993, "b": false}"#]);
    assert_eq!(warehouse.column("n"), ["1", "9007199254740993"]);
    warehouse.load(2, &[r#"{"n": 0.30, "b": "maybe", "m": "five", "l": 7}"#]);
    assert_eq!(warehouse.column("n"), [r#""1""#, r#""9007199254740993""#, r#""0.30""#]);
    assert_eq!(warehouse.column("b"), [r#""true""#, r#""false""#, r#""maybe""#]);
    assert_eq!(warehouse.column("m"), [r#""5""#, "null", r#""five""#]);
    assert_eq!(warehouse.column("l"), [r#""[1.0]""#, "null", r#""7""#]);
    assert_eq!(
        warehouse.kinds(),
        [("n", "decimal"), ("b", "text"), ("m", "text"), ("l", "text")].map(|(name, kind)| (name.to_owned(), kind))
    );
    warehouse.load(3, &[r#"{"n": 4, "b": true, "m": 6}"#]);
    assert_eq!(warehouse.column("n")[3], r#""4""#);
    assert_eq!(warehouse.column("b")[3], r#""true""#);
}

#[test]
fn gives_a_key_the_same_column_for_good() {
    let warehouse = Warehouse::new();
    warehouse.load(0, &[r#"{"fullName": "a", "_id": "mine"}"#]);
    warehouse.load(1, &[r#"{"full_name": "b", "fullName": "c", "select": 1, "\"; DROP TABLE x": 2}"#]);
    assert_eq!(warehouse.column("full_name"), [r#""a""#, r#""c""#]);
    assert_eq!(warehouse.column("full_name_2"), ["null", r#""b""#]);
    assert_eq!(warehouse.column("_id_2"), [r#""mine""#, "null"]);
    assert_eq!(warehouse.column("select"), ["null", "1"]);
    assert_eq!(warehouse.kinds().len(), 5);
}

#[test]
fn has_one_row_for_each_element_however_often_it_is_loaded() {
    let warehouse = Warehouse::new();
    let bodies = [r#"[{"a": 1}, {"a": 2}]"#, "[]", "7", r#"{"a": 3}"#];
    for _ in 0..2 {
        assert_eq!(warehouse.load(0, &bodies).rows, 4);
        assert_eq!((warehouse.page(0, 1).total, warehouse.position()), (4, 4));
    }
    // One that begins before the position and ends after it.
    warehouse.load(2, &["7", r#"{"a": 3}"#, r#"{"a": 4}"#]);
    assert_eq!((warehouse.page(0, 1).total, warehouse.position()), (5, 5));
    assert_eq!(warehouse.column("a"), ["1", "2", "null", "3", "4"]);
    assert_eq!(warehouse.column("_index"), ["0", "1", "0", "0", "0"]);
    // One that was set aside moves no position.
    warehouse.load_in(Turn::Late, 1, &["[7, 8]"], SyncFormat::Unpacked);
    assert_eq!((warehouse.page(0, 1).total, warehouse.position()), (7, 5));
}

#[test]
fn holds_a_position_for_each_sync_and_table() {
    let warehouse = Warehouse::new();
    warehouse.load(0, &["{}", "{}"]);
    let other = TableName::new("sales", "returns").unwrap();
    let mut destination = warehouse.open();
    assert_eq!(destination.position("sync_1", &orders()).unwrap().seq, 2);
    assert_eq!(destination.position("sync_1", &other).unwrap().seq, 0);
    assert_eq!(destination.position("sync_2", &orders()).unwrap().seq, 0);
    let found = destination.tables().unwrap();
    assert_eq!(found, [Table { schema: "sales".to_owned(), table: "orders".to_owned(), rows: 2 }]);
}

#[test]
fn packs_a_body_into_one_column() {
    let warehouse = Warehouse::new();
    warehouse.load_as(0, &["[1, 2]", "no json"], SyncFormat::Packed);
    assert_eq!(warehouse.column("payload"), [r#""[1, 2]""#, r#""no json""#]);
}

#[test]
fn keeps_what_has_no_column_in_the_row() {
    let warehouse = Warehouse::new();
    let wide: serde_json::Map<_, _> = (0..1_003).map(|n| (format!("k{n}"), n.into())).collect();
    let wide = serde_json::to_string(&wide).unwrap();
    let loaded = warehouse.load(0, &["{}", &wide]);
    assert_eq!((loaded.rows, loaded.left_out), (2, 3));
    assert_eq!(loaded.left_out_keys.into_iter().collect::<Vec<_>>(), ["k1000", "k1001", "k1002"]);
    let kinds = warehouse.kinds();
    assert_eq!((kinds.len(), kinds.last().unwrap()), (1_001, &("_rest".to_owned(), "json")));
    let row = &warehouse.page(0, 2).rows[1];
    assert_eq!((&row["k999"], &row["_rest"]), (&json!(999), &json!({"k1000": 1000, "k1001": 1001, "k1002": 1002})));
    // An honest key that comes later has none either, and its value is there.
    warehouse.load(2, &[r#"{"k0": 1, "total": 1.10}"#, r#"{"k0": 2}"#]);
    let rows = warehouse.page(2, 2).rows;
    assert_eq!((rows[0]["_rest"].to_string(), &rows[1]["_rest"]), (r#"{"total":1.10}"#.to_owned(), &json!(null)));
}

#[test]
fn keys_that_are_too_long_make_no_column() {
    let warehouse = Warehouse::new();
    let key = "k".repeat(1 << 20);
    let loaded = warehouse.load(0, &[&format!(r#"{{"{key}": 1, "a": 2}}"#), r#"{"_rest": 3}"#]);
    assert_eq!((loaded.left_out, loaded.left_out_keys.len()), (1, 1));
    assert!(loaded.left_out_keys.iter().all(|key| key.len() < 100));
    let row = &warehouse.page(0, 1).rows[0];
    assert_eq!((&row["a"], &row["_rest"][&key], &row["_rest_2"]), (&json!(2), &json!(1), &json!(null)));
    assert_eq!(warehouse.column("_rest_2"), ["null", "3"]);
    let longest: i64 = warehouse
        .db()
        .query_row("SELECT max(octet_length(source)) FROM _linkspan_columns", [], |row| row.get(0))
        .unwrap();
    assert_eq!(longest, 5);
}

#[test]
fn long_keys_of_an_earlier_catalogue_keep_their_names() {
    let warehouse = Warehouse::new();
    warehouse.load(0, &[r#"{"a": 1, "b": 2}"#]);
    let long = "a".repeat(5_000);
    warehouse.db().execute("UPDATE _linkspan_columns SET source = ?1 WHERE name = 'a'", [&long]).unwrap();
    let loaded = warehouse.load(1, &[&format!(r#"{{"{long}": 5, "a": 6, "b": 7}}"#)]);
    assert_eq!(loaded.left_out, 1);
    assert_eq!(
        (warehouse.column("a"), warehouse.column("a_2")),
        (vec!["1".to_owned(), "null".to_owned()], vec!["null".to_owned(), "6".to_owned()])
    );
    assert_eq!(warehouse.column("b"), ["2", "7"]);
}

#[test]
fn widening_touches_no_row() {
    let warehouse = Warehouse::new();
    let bodies: Vec<String> = (0..90).map(|n| format!(r#"{{"n": {n}, "b": {}, "x": null}}"#, n % 2 == 0)).collect();
    warehouse.load(0, &bodies.iter().map(String::as_str).collect::<Vec<_>>());
    // Whoever updated a row of before would be stopped.
    warehouse
        .db()
        .execute_batch(
            r#"CREATE TRIGGER untouched BEFORE UPDATE ON "sales.orders" BEGIN SELECT raise(ABORT, 'touched'); END"#,
        )
        .unwrap();
    warehouse.load(90, &[r#"{"n": 1.5, "b": 3, "x": true}"#, r#"{"n": "7", "b": true, "x": 1}"#]);
    warehouse.load(92, &[r#"{"n": 8, "b": "y", "x": false}"#]);
    let last = |name: &str| warehouse.column(name)[88..].to_vec();
    assert_eq!(last("n"), [r#""88""#, r#""89""#, r#""1.5""#, r#""7""#, r#""8""#]);
    assert_eq!(last("b"), [r#""true""#, r#""false""#, r#""3""#, r#""true""#, r#""y""#]);
    assert_eq!(last("x"), ["null", "null", r#""true""#, r#""1""#, r#""false""#]);
}

#[test]
fn a_table_does_not_depend_on_how_its_events_were_cut_into_batches() {
    let values = ["null", "1", "true", r#""t""#, "1.50", "[1]", "-7", "false"];
    for first in 0..values.len() {
        let bodies: Vec<String> = (0..values.len())
            .map(|at| {
                format!(
                    r#"{{"a": {}, "b": {}}}"#,
                    values[(first + at) % values.len()],
                    values[(first + 3 * at) % values.len()]
                )
            })
            .collect();
        let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
        let (whole, pieces) = (Warehouse::new(), Warehouse::new());
        whole.load(0, &bodies);
        for (after, body) in bodies.iter().enumerate() {
            pieces.load(after as u64, &[body]);
        }
        assert_eq!(whole.page(0, 100), pieces.page(0, 100));
        let stored = |warehouse: &Warehouse| -> String {
            let sql = r#"SELECT group_concat(typeof(a) || quote(a) || typeof(b) || quote(b)) FROM "sales.orders""#;
            warehouse.db().query_row(sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!(stored(&whole), stored(&pieces));
    }
}

#[test]
fn goes_on_with_a_catalogue_that_does_not_say_what_integers_mean() {
    let warehouse = Warehouse::new();
    warehouse.load(0, &[r#"{"n": 1, "b": true, "t": "x"}"#]);
    warehouse.db().execute_batch("ALTER TABLE _linkspan_columns DROP COLUMN integers").unwrap();
    assert_eq!((warehouse.column("n"), warehouse.column("b")), (vec!["1".to_owned()], vec!["true".to_owned()]));
    warehouse.load(1, &[r#"{"n": "two", "b": 5, "t": 3}"#]);
    assert_eq!(warehouse.column("n"), [r#""1""#, r#""two""#]);
    assert_eq!(warehouse.column("b"), [r#""true""#, r#""5""#]);
    assert_eq!(warehouse.column("t"), [r#""x""#, r#""3""#]);
}

#[test]
fn sees_a_table_that_is_gone_or_empty() {
    let warehouse = Warehouse::new();
    let seen = || warehouse.open().position("sync_1", &orders()).unwrap();
    assert_eq!(seen(), Position { seq: 0, is_there: false, is_empty: false });
    warehouse.load(0, &[r#"{"a": 1}"#]);
    assert_eq!(seen(), Position { seq: 1, is_there: true, is_empty: false });
    warehouse.db().execute_batch(r#"DELETE FROM "sales.orders""#).unwrap();
    assert_eq!(seen(), Position { seq: 1, is_there: true, is_empty: true });
    warehouse.db().execute_batch(r#"DROP TABLE "sales.orders""#).unwrap();
    assert_eq!(seen(), Position { seq: 1, is_there: false, is_empty: false });
    warehouse.load(1, &[r#"{"b": 2}"#]);
    assert_eq!(warehouse.kinds(), [("b".to_owned(), "int64")], "it begins anew");
    warehouse.open().forget_position("sync_1", &orders()).unwrap();
    assert_eq!(seen().seq, 0);
}

#[test]
fn pages_in_the_order_of_loading() {
    let warehouse = Warehouse::new();
    let bodies: Vec<String> = (0..10).map(|n| format!(r#"{{"n": {n}}}"#)).collect();
    warehouse.load(0, &bodies.iter().map(String::as_str).collect::<Vec<_>>());
    let page = warehouse.page(4, 3);
    assert_eq!(page.rows.iter().map(|row| row["n"].clone()).collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!((page.total, warehouse.page(10, 3).rows.len()), (10, 0));
    assert_eq!(warehouse.open().page(&TableName::new("sales", "none").unwrap(), 0, 1).unwrap(), None);
    // A page of large values is shorter, and never empty.
    let large = format!(r#"{{"n": "{}"}}"#, "x".repeat(9 << 20));
    warehouse.load(10, &[&large, &large, &large]);
    assert_eq!(warehouse.page(10, 3).rows.len(), 2);
}

#[tokio::test]
async fn has_no_tables_before_the_first_load() {
    let warehouse = Warehouse::new();
    let folder = warehouse.folder.path().to_owned();
    assert!(tables(folder.clone(), spec("w.db")).await.unwrap().is_empty());
    assert_eq!(page(folder.clone(), spec("w.db"), orders(), 0, 1).await.unwrap(), None);
    assert!(!folder.join("w.db").exists(), "reading makes no file");
    warehouse.load(0, &["{}"]);
    assert_eq!(tables(folder.clone(), spec("w.db")).await.unwrap().len(), 1);
    assert_eq!(page(folder, spec("w.db"), orders(), 0, 1).await.unwrap().unwrap().total, 1);
}

#[test]
fn shows_tables_and_columns_that_others_made() {
    let warehouse = Warehouse::new();
    warehouse.load(0, &[r#"{"a": 1}"#]);
    warehouse
        .db()
        .execute_batch(
            r#"CREATE TABLE "own.notes" (x, y); INSERT INTO "own.notes" VALUES (1.5, x'ff');
               CREATE TABLE plain (z); ALTER TABLE "sales.orders" ADD COLUMN remark; ALTER TABLE "sales.orders" DROP COLUMN a;"#,
        )
        .unwrap();
    let names: Vec<_> = warehouse.open().tables().unwrap().into_iter().map(|table| table.table).collect();
    assert_eq!(names, ["notes", "orders"]);
    let notes = warehouse.open().page(&TableName::new("own", "notes").unwrap(), 0, 9).unwrap().unwrap();
    assert_eq!(serde_json::to_value(&notes.rows).unwrap(), json!([{"x": 1.5, "y": "/w=="}]));
    // A column that somebody dropped comes back.
    warehouse.load(1, &[r#"{"a": 2}"#]);
    assert_eq!(warehouse.column("a"), ["null", "2"]);
}

#[test]
fn waits_for_another_program() {
    let warehouse = Warehouse::new();
    warehouse.load(0, &["{}"]);
    let other = warehouse.db();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| warehouse.load(1, &["{}"]));
        std::thread::sleep(std::time::Duration::from_millis(300));
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(loading.join().unwrap().rows, 1);
    });
    assert_eq!(warehouse.page(0, 1).total, 2);
}

#[test]
fn stays_in_the_folder_of_destinations() {
    let outside = tempfile::tempdir().unwrap();
    let folder = outside.path().join("destinations");
    fs::create_dir(&folder).unwrap();
    fs::write(outside.path().join("linkspan.db"), "").unwrap();
    symlink(outside.path().join("linkspan.db"), folder.join("link.db")).unwrap();
    symlink(outside.path().join("new.db"), folder.join("dangling.db")).unwrap();
    symlink(outside.path(), folder.join("up")).unwrap();
    for path in [
        "../linkspan.db",
        "/var/x.db",
        "",
        "a//b",
        "a/./b",
        "link.db",
        "dangling.db",
        "up/linkspan.db",
        "w.db-wal",
        "a\\b",
    ] {
        let refused = open(&folder, &spec(path)).err();
        assert!(matches!(refused, Some(DestinationError::Place { .. })), "{path}: {refused:?}");
    }
    assert!(!outside.path().join("new.db").exists());
    open(&folder, &spec("deep/er/w.db")).unwrap();
    assert!(folder.join("deep/er/w.db").exists());
}

#[test]
fn says_that_a_file_is_no_database() {
    let warehouse = Warehouse::new();
    fs::write(
        warehouse.folder.path().join("w.db"),
        "no database at all, and long enough to be taken for one".repeat(30),
    )
    .unwrap();
    let refused = open(warehouse.folder.path(), &spec("w.db")).err().unwrap().to_string();
    assert!(refused.starts_with("destination w.db: "), "{refused}");
    assert!(refused.contains("not a database"), "{refused}");
}

#[test]
fn finds_damage_that_no_load_would_meet() {
    let warehouse = Warehouse::new();
    let body = format!(r#"{{"a": "{}"}}"#, "x".repeat(3_000));
    let bodies = vec![body.as_str(); 200];
    warehouse.load(0, &bodies);
    assert_eq!(warehouse.open().check().unwrap(), Vec::<String>::new());
    warehouse.db().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let path = warehouse.folder.path().join("w.db");
    let mut bytes = fs::read(&path).unwrap();
    // A page that holds nothing but one of the first rows.
    let page = bytes.chunks(4096).position(|page| page.iter().filter(|byte| **byte == b'x').count() > 2_900).unwrap();
    bytes[page * 4096..(page + 1) * 4096].fill(0xaa);
    fs::write(&path, bytes).unwrap();
    warehouse.load(200, &[&body]);
    let faults = warehouse.open().check().unwrap();
    assert!(!faults.is_empty() && faults.len() <= 10, "{faults:?}");
}
