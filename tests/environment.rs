//! The one place that the crate asks for the wall clock, for randomness and for tasks.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The calls that only `src/environment` may make.
const RESERVED: [&str; 7] = [
    "SystemTime::now()",
    "tokio::spawn(",
    "task::spawn(",
    "thread::spawn(",
    "getrandom::",
    "RandomState::new()",
    "RandomState::random()",
];

/// Code of an application, which the documentation shows.
const EXAMPLES: [&str; 2] = ["store/custom_store.rs", "engine/map_engine.rs"];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false if path.extension().is_some_and(|ending| ending == "rs") => found.push(path),
            false => {}
        }
    }
}

#[test]
fn nothing_else_asks_for_the_clock_randomness_or_tasks() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&source, &mut all);
    let (mut found, mut inside) = (Vec::new(), 0);
    for path in all {
        let name = path.strip_prefix(&source).unwrap().to_str().unwrap();
        let is_test = name.ends_with("tests.rs") || name.contains("/tests/");
        if is_test || EXAMPLES.contains(&name) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        // Tests are at the end of a file.
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let is_code = !line.trim_start().starts_with("//");
            if is_code && RESERVED.iter().any(|reserved| line.contains(reserved)) {
                match name.starts_with("environment") {
                    true => inside += 1,
                    false => found.push(format!("{name}:{}: {}", number + 1, line.trim())),
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    assert!(inside > 0, "the names have changed");
}

/// Branches of a `select!` that are polled in a random order make runs differ.
#[test]
fn every_select_is_biased() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&source, &mut all);
    for path in all {
        let text = fs::read_to_string(&path).unwrap();
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let code: Vec<_> = code.collect();
        for (number, line) in code.iter().enumerate() {
            let is_biased = || code[number + 1].trim() == "biased;";
            assert!(
                !line.contains("select! {") || is_biased(),
                "{}: {line}",
                path.display()
            );
        }
    }
}
