//! The pages in `docs`, which are read in the documentation of the crate and as files on
//! a repository host.

use std::{fs, path::Path};

/// A page, without what is in its blocks of code; and those blocks.
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

    /// The labels that it defines, with what they lead to.
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
    let files = files.filter(|path| path.extension().is_some_and(|it| it == "md"));
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
fn what_a_page_links_to_is_known_to_rustdoc_and_to_its_file() {
    let guide = include_str!("../src/guide.rs");
    let known: Vec<_> = guide.lines().filter_map(definition).collect();
    for (label, target) in &known {
        assert_eq!(*target, format!("crate::{label}"));
    }
    let mut used = Vec::new();
    for page in pages() {
        let name = &page.name;
        for label in page.lines.iter().flat_map(|line| labels(line)) {
            let mut here = page.definitions().filter(|(defined, _)| *defined == label);
            let Some((_, target)) = here.next() else {
                panic!("{name} does not define {label}");
            };
            // A plot is there for rustdoc as well, in another way. Other packages are
            // known to docs.rs alone.
            if target.ends_with(".svg") || target.starts_with("https://docs.rs/tower-operations-") {
                continue;
            }
            let is_known = known.iter().any(|(known, _)| *known == label);
            assert!(is_known, "src/guide.rs does not define {label} of {name}");
            let is_page = target.strip_suffix(".md") == label.strip_prefix("guide::");
            let is_item = target.starts_with("https://docs.rs/tower-operations/latest/");
            assert!(is_page || is_item, "{name}: {label} leads to {target}");
            used.push(label.to_owned());
        }
    }
    for (label, _) in known {
        assert!(
            used.iter().any(|used| used == label),
            "no page links to {label}"
        );
    }
}

#[test]
fn the_code_of_a_page_can_be_read_as_it_stands() {
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
