use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

fn is_json_for_serde(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes);
    text.is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

#[test]
fn json_is_accepted_as_the_standard_defines_it() {
    let long = "p".repeat(200);
    for text in [
        "",
        " ",
        "1",
        " 1 ",
        "01",
        "-0",
        "-",
        "+1",
        "1.",
        ".5",
        "1.5e",
        "1e+",
        "1E-7",
        "1e07",
        "true",
        "tru",
        "truex",
        "null",
        "false",
        "\"\"",
        "\"",
        "\"\\\"",
        "\"\\\"\"",
        "\"\\x\"",
        "\"\\u00e\"",
        "\"\\u00eF\"",
        "\"\\ud800\"",
        "\"a\nb\"",
        "\"a\tb\"",
        "\"\u{7f}ü\"",
        "[]",
        "[ ]",
        "[,]",
        "[1,]",
        "[1 2]",
        "[1,[2,{}]]",
        "{}",
        "{ }",
        "{,}",
        "{\"a\":1}",
        "{\"a\":1,}",
        "{\"a\"}",
        "{\"a\" : {\"b\":[1]} , \"c\":2}",
        "{a:1}",
        "{1:1}",
        "[}",
        "{]",
        "[1]]",
        "{} {}",
        "\u{c}1",
        "\u{feff}1",
        "[1\u{b}]",
        "NaN",
        "[\"a\" \"b\"]",
        "{\"a\":1 \"b\":2}",
        "{\"a\",1}",
        "[\"a\":1]",
    ] {
        for text in [
            text.to_owned(),
            text.replace('a', &long),
            text.replace('a', &format!("{long}\\n{long}\\u00e")),
        ] {
            assert_eq!(
                is_json(text.as_bytes()),
                is_json_for_serde(text.as_bytes()),
                "{text:?}"
            );
        }
    }
    assert!(!is_json(b"\"\xff\""));
}

/// Returns `levels` arrays or objects inside one another, around a number.
fn nested(levels: usize, [open, close]: [&str; 2]) -> Vec<u8> {
    [open.repeat(levels), "1".into(), close.repeat(levels)]
        .concat()
        .into()
}

#[test]
fn values_deeper_than_128_are_refused_without_an_overflow() {
    for kind in [["[", "]"], ["{\"a\":", "}"], ["[{\"a\":", "}]"]] {
        let a_step = kind[1].len();
        for is_taken in [is_json, is_shallow] {
            assert!(is_taken(&nested(128 / a_step, kind)), "{kind:?}");
            assert!(!is_taken(&nested(128 / a_step + 1, kind)), "{kind:?}");
            assert!(!is_taken(&nested(1_000_000, kind)), "{kind:?}");
        }
        assert!(is_json_down_to(6, &nested(6 / a_step, kind)), "{kind:?}");
        assert!(
            !is_json_down_to(6, &nested(6 / a_step + 1, kind)),
            "{kind:?}"
        );
    }
    let around_nothing = |levels| ["[".repeat(levels), "]".repeat(levels)].concat();
    assert!(is_json(around_nothing(128).as_bytes()));
    assert!(!is_json(around_nothing(129).as_bytes()));
    let wide = format!("[{}[]]", "[],".repeat(1000));
    assert!(is_json(wide.as_bytes()) && is_shallow(wide.as_bytes()));
    let in_a_string = format!("\"{}\"", "[".repeat(1000));
    assert!(is_json(in_a_string.as_bytes()) && is_shallow(in_a_string.as_bytes()));
}

proptest! {
    #[test]
    fn texts_are_judged_as_serde_judges_them(text in r#"([\[\]{},:" \\/ntfue0-9.+-]|"a":|true|\\u00|[ü\n]){0,24}"#) {
        prop_assert_eq!(is_json(text.as_bytes()), is_json_for_serde(text.as_bytes()));
    }

    #[test]
    fn brackets_are_closed_by_brackets_of_their_kind(
        objects in prop::collection::vec(any::<bool>(), 1..=128),
        at in any::<prop::sample::Index>(),
    ) {
        let open = |object: &bool| if *object { "{\"a\":" } else { "[" };
        let close = |object: &bool| if *object { b'}' } else { b']' };
        let mut bytes: Vec<u8> = objects.iter().flat_map(|object| open(object).bytes()).collect();
        bytes.push(b'1');
        bytes.extend(objects.iter().rev().map(close));
        prop_assert!(is_json(&bytes));
        let at = bytes.len() - 1 - at.index(objects.len());
        bytes[at] ^= b'}' ^ b']';
        prop_assert!(!is_json(&bytes));
    }

    #[test]
    fn changed_json_is_judged_as_serde_judges_it(
        names in prop::collection::vec("\\PC{0,40}", 1..4),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let value = serde_json::json!({ "names": names, "more": [1.5e9, -3, null, true, { "b": [] }] });
        let mut bytes = value.to_string().into_bytes();
        prop_assert!(is_json(&bytes));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        prop_assert_eq!(is_json(&bytes), is_json_for_serde(&bytes));
    }

    #[test]
    fn strings_are_written_as_serde_writes_them(text in "\\PC{0,60}|[a-z\"\\\\\n]{0,60}") {
        let mut out = Vec::new();
        push_string(&text, &mut out);
        prop_assert_eq!(out, serde_json::to_vec(&text).unwrap());
    }
}
