//! The seeds of the fuzz targets: every one runs through its target, without a panic and within its memory.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::path::{Path, PathBuf};

#[path = "../../../fuzz/targets.rs"]
mod targets;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Most bytes that a seed may have: they are to be read by people.
const SEED_BYTES: usize = 64 << 10;
/// Most bytes that are allocated for one seed: what does not depend on its length, …
const BYTES: u64 = 64 << 20;
/// … and for each of its bytes.
const BYTES_EACH: u64 = 8 << 10;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

// One test: the profiler counts for the whole process.
#[test]
fn every_seed_of_every_target_runs_within_its_memory() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut names: Vec<_> = targets::TARGETS.iter().map(|(name, _)| corpus.join(name)).collect();
    names.sort();
    assert_eq!(files(&corpus), names, "there is a folder of seeds for each target, and no other");
    for (name, run) in targets::TARGETS {
        let seeds = files(&corpus.join(name));
        assert!(seeds.len() >= 3, "{name} has {} seeds", seeds.len());
        // What is set up once is not counted.
        run(b"");
        for seed in seeds {
            let bytes = std::fs::read(&seed).unwrap();
            assert!(bytes.len() <= SEED_BYTES, "{} has {} bytes", seed.display(), bytes.len());
            let before = dhat::HeapStats::get().total_bytes;
            run(&bytes);
            let allocated = dhat::HeapStats::get().total_bytes - before;
            let most = BYTES + BYTES_EACH * bytes.len() as u64;
            assert!(allocated <= most, "{}: {allocated} bytes were allocated", seed.display());
        }
    }
}
