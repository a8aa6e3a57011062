//! The pages in `docs`, which appear in the documentation of the crate and as files on
//! a repository host.

use std::{fs, path::Path};

/// A page: its lines outside of blocks of code, and those blocks.
struct Page {
    name: String,
    lines: Vec<String>,
    code: Vec<Code>,
}

struct Code {
    language: String,
    lines: Vec<String>,
}

impl Page {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let (mut lines, mut code) = (Vec::new(), Vec::<Code>::new());
        let mut is_code = false;
        for line in text.lines() {
            match line.trim_start().strip_prefix("```") {
                Some(_) if is_code => is_code = false,
                Some(language) => {
                    is_code = true;
                    code.push(Code {
                        language: language.into(),
                        lines: Vec::new(),
                    });
                }
                None if is_code => code.last_mut().unwrap().lines.push(line.into()),
                None => lines.push(line.into()),
            }
        }
        Self {
            name: path.file_name().unwrap().to_string_lossy().into(),
            lines,
            code,
        }
    }

    /// The labels that the page defines, with their targets.
    fn definitions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().filter_map(|line| definition(line))
    }
}

/// `[label]: target`
fn definition(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix('[')?.split_once("]: ")
}

/// The labels of `[text][label]` in a line.
fn labels(line: &str) -> impl Iterator<Item = &str> {
    line.split("][")
        .skip(1)
        .filter_map(|rest| rest.split_once(']'))
        .map(|(label, _)| label)
}

fn pages() -> Vec<Page> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(root.join("docs")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let pages: Vec<Page> = files.map(|path| Page::read(&path)).collect();
    assert!(pages.len() > 5);
    pages
}

#[test]
fn a_page_begins_with_its_title_and_a_sentence_on_its_purpose() {
    for Page { name, lines, .. } in pages() {
        assert!(lines[0].starts_with("# "), "{name} has no title");
        assert_eq!(lines[1], "", "{name}");
        assert!(
            lines[2].starts_with(char::is_uppercase),
            "{name}: {}",
            lines[2]
        );
        let end = lines[2..].iter().position(String::is_empty).unwrap();
        assert!(lines[2..2 + end].concat().contains('.'), "{name}");
        let titles = lines.iter().filter(|line| line.starts_with("# "));
        assert_eq!(
            titles.count(),
            1,
            "{name} has sections as large as its title"
        );
    }
}

#[test]
fn a_page_has_no_links_that_only_rustdoc_understands() {
    for Page { name, lines, .. } in pages() {
        for line in lines {
            assert!(!line.contains("](crate::"), "{name}: {line}");
            // A name in brackets is a link for rustdoc alone.
            let alone = line.match_indices("`]").any(|(at, found)| {
                let after = &line[at + found.len()..];
                !after.starts_with(['[', '('])
            });
            assert!(!alone, "{name}: {line}");
        }
    }
}

#[test]
fn the_links_of_a_page_are_defined_for_rustdoc_and_in_the_page() {
    let guide = include_str!("../src/guide.rs");
    let guide_links: Vec<_> = guide.lines().filter_map(definition).collect();
    for (label, target) in &guide_links {
        assert_eq!(*target, format!("crate::{label}"));
    }
    let mut used = Vec::new();
    for page in pages() {
        let name = &page.name;
        for label in page.lines.iter().flat_map(|line| labels(line)) {
            let mut matches_of_label = page.definitions().filter(|(defined, _)| *defined == label);
            let Some((_, target)) = matches_of_label.next() else {
                panic!("{name} does not define {label}");
            };
            // Plots reach rustdoc in another way. Other packages exist only on docs.rs.
            if target.ends_with(".svg") || target.starts_with("https://docs.rs/tower-operations-") {
                continue;
            }
            let is_known = guide_links.iter().any(|(other, _)| *other == label);
            assert!(is_known, "src/guide.rs does not define {label} of {name}");
            let is_page = target.strip_suffix(".md") == label.strip_prefix("guide::");
            let is_item = target.starts_with("https://docs.rs/tower-operations/latest/");
            assert!(is_page || is_item, "{name}: {label} leads to {target}");
            used.push(label.to_owned());
        }
    }
    for (label, _) in guide_links {
        assert!(
            used.iter().any(|used| used == label),
            "no page links to {label}"
        );
    }
}

#[test]
fn the_code_of_a_page_has_a_language_and_no_hidden_lines() {
    for Page { name, code, .. } in pages() {
        for Code { language, lines } in code {
            assert!(!language.is_empty(), "{name} has code of no language");
            let is_rust = language.starts_with("rust");
            let hidden = |line: &&String| *line == "#" || line.starts_with("# ");
            let hidden = lines.iter().find(|line| is_rust && hidden(line));
            assert_eq!(hidden, None, "{name} has code that a host would show");
        }
    }
}
