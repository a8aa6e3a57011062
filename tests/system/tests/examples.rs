//! Requirements of every example.

use std::path::Path;

#[test]
fn every_example_begins_with_its_commands() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for name in [
        "cluster",
        "queue-worker",
        "quickstart",
        "server",
        "signaled",
        "with-hyper",
        "with-tonic-web",
        "with-tower-http",
        "workers",
    ] {
        let text = std::fs::read_to_string(examples.join(name).join("src/main.rs")).unwrap();
        let header: String = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        let command = format!("-p {name}");
        assert!(header.contains("cargo run"), "{name}: {header}");
        assert!(header.contains(&command), "{name}: {header}");
        assert!(header.contains("curl"), "{name}: {header}");
    }
}
