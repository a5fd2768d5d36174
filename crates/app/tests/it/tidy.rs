//! Rules about the repository itself: who may depend on whom, and what must not stand in a file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::repository;

/// Each crate and the crates that it may depend on. Another edge is a decision, not a detail.
const EDGES: [(&str, &[&str]); 8] = [
    (
        "linkspan",
        &[
            "linkspan-server",
            "linkspan-engine",
            "linkspan-outbound",
            "linkspan-store",
            "linkspan-connectors",
            "linkspan-model",
        ],
    ),
    ("linkspan-server", &["linkspan-outbound", "linkspan-store", "linkspan-model"]),
    ("linkspan-engine", &["linkspan-outbound", "linkspan-store", "linkspan-model"]),
    ("linkspan-outbound", &["linkspan-model"]),
    ("linkspan-store", &["linkspan-connectors", "linkspan-model"]),
    ("linkspan-connectors", &["linkspan-model"]),
    ("linkspan-model", &[]),
    ("linkspan-bench", &["linkspan-outbound", "linkspan-model"]),
];

/// The packages of the workspace as Cargo describes them.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// What a package needs to run, in contrast to what its tests need.
fn dependencies(package: &Value) -> impl Iterator<Item = &Value> {
    package["dependencies"].as_array().unwrap().iter().filter(|dependency| dependency["kind"] != "dev")
}

#[test]
fn crates_depend_only_downwards() {
    let packages = packages();
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        let (_, allowed) = EDGES.iter().find(|(of, _)| *of == name).unwrap_or_else(|| panic!("{name} has no rule"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            let is_ours = to == "linkspan" || to.starts_with("linkspan-");
            assert!(!is_ours || allowed.contains(&to), "{name} must not depend on {to}");
        }
    }
    assert_eq!(packages.len(), EDGES.len());
}

#[test]
fn libraries_stay_where_they_belong() {
    for package in packages() {
        let name = package["name"].as_str().unwrap().to_owned();
        for dependency in dependencies(&package) {
            let to = dependency["name"].as_str().unwrap();
            let homes: &[&str] = match to {
                "rusqlite" => &["linkspan-store", "linkspan-engine"],
                "refinery" => &["linkspan-store"],
                "axum" => &["linkspan-server"],
                "reqwest" | "ureq" | "native-tls" | "openssl" => &[],
                // The yardstick of the benchmark is a client too.
                "hyper" | "hyper-util" if asks_for_client(dependency) => &["linkspan-outbound", "linkspan-bench"],
                _ => continue,
            };
            assert!(homes.contains(&name.as_str()), "{name} must not use {to}: {dependency}");
        }
    }
}

fn asks_for_client(dependency: &Value) -> bool {
    dependency["features"].as_array().unwrap().iter().any(|feature| {
        let feature = feature.as_str().unwrap();
        feature == "full" || feature.starts_with("client")
    })
}

#[test]
fn architecture_page_names_every_crate_and_no_other() {
    let page = std::fs::read_to_string(repository().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let folders: BTreeSet<String> = std::fs::read_dir(repository().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // A paragraph of its own for each begins with its name: **`store`** is …
    let named: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("**`")?.split_once("`**"))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(named, folders, "ARCHITECTURE.md and crates/ differ");
}

/// The files that git knows or would add.
fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(repository())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let names = String::from_utf8(output.stdout).unwrap();
            names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect()
        }
        // A release archive holds no git; its files are then what is there.
        _ => {
            let mut found = Vec::new();
            walk(&repository(), Path::new(""), &mut found);
            found
        }
    }
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(root.join(folder)).unwrap() {
        let name = entry.unwrap().file_name();
        let path = folder.join(&name);
        if !root.join(&path).is_dir() {
            found.push(path);
        } else if !matches!(name.to_str(), Some(".git" | "target" | "data" | "node_modules")) {
            walk(root, &path, found);
        }
    }
}

/// Every line of every text file.
fn each_line(mut look: impl FnMut(&Path, usize, &str)) {
    let root = repository();
    let mut seen = 0;
    for path in files() {
        // Deleted, not yet committed; or not a text.
        let Some(text) = std::fs::read(root.join(&path)).ok().and_then(|bytes| String::from_utf8(bytes).ok()) else {
            continue;
        };
        seen += 1;
        for (n, line) in text.lines().enumerate() {
            look(&path, n + 1, line);
        }
    }
    assert!(seen > 50, "only {seen} files were looked at");
}

#[test]
fn nothing_is_left_for_later_in_a_comment() {
    // Put together here, so that this file is not its own first find.
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X:"].concat(), ["todo", "!("].concat()];
    let mut found = Vec::new();
    each_line(|path, n, line| {
        // Lock files hold hashes; the page of habits may name what it forbids.
        let is_code = path.extension().is_some_and(|extension| {
            ["rs", "py", "sh", "js", "ts", "toml", "sql", "yaml", "yml", "c"].iter().any(|known| extension == *known)
        });
        if is_code && marks.iter().any(|mark| line.contains(mark)) {
            found.push(format!("{}:{n}: {}", path.display(), line.trim()));
        }
    });
    assert!(found.is_empty(), "what waits stands in docs/roadmap.md:\n{}", found.join("\n"));
}

#[test]
fn nobodys_machine_is_named() {
    // Put together here, so that this file does not name them either.
    let places = ["wo,rk", "ho,me", "ro,ot", "Us,ers", "t,mp"].map(|halves| format!("/{}/", halves.replace(',', "")));
    let mut found = Vec::new();
    each_line(|path, n, line| {
        let hit = places.iter().find(|place| {
            line.match_indices(place.as_str()).any(|(at, _)| {
                // Within a URL or a relative path it is none.
                !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '}' | '/'))
            })
        });
        if hit.is_some() {
            found.push(format!("{}:{n}: {}", path.display(), line.trim()));
        }
    });
    assert!(found.is_empty(), "an absolute path of somebody's machine:\n{}", found.join("\n"));
}

#[test]
fn snapshots_are_inline_and_settled() {
    let leftovers: Vec<PathBuf> = files()
        .into_iter()
        .filter(|path| path.to_str().is_some_and(|path| path.ends_with(".snap.new") || path.ends_with(".pending-snap")))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}
