//! Whatever text a report holds, its page and its JUnit XML are well-formed, hold no element more, and
//! say that text.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod markup;

use longshore_conformance::report::output::{Form, write_load, write_report};
use longshore_conformance::report::saved::Saved;
use longshore_conformance::report::{Loads, Page, Report};
use markup::Document;
use proptest::prelude::*;
use serde_json::json;

/// Text that means harm more often than any text would.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => any::<char>().prop_map(String::from),
        1 => (0u32..0xa0).prop_map(|c| char::from_u32(c).unwrap().into()),
        3 => prop::sample::select(vec![
            "<", ">", "&", "\"", "'", "]]>", "<!--", "-->", "</pre>", "</script>", "<script>", "<?", "&amp;", "&#0;", "\" onload=\"",
            "\u{0}", "\u{b}", "\u{ffff}", "\u{fffe}", "\u{202e}", "\r\n", "\t", " ", "\\", "é", "\u{1f600}",
        ]).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// What a reader is to find of `text`.
fn shown(text: &str) -> String {
    let is_replaced = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fdd0}'..='\u{fdef}')
            || u32::from(c) % 0x10000 >= 0xfffe
    };
    text.chars().map(|c| if is_replaced(c) { '\u{fffd}' } else { c }).collect()
}

/// A report of one requirement of each verdict, with texts from `text` in every field that is text.
fn report(text: &[String]) -> Report {
    let row = |verdict, n: usize| {
        let mut row = json!({"id": format!("g-{}", text[n]), "section": text[n + 1], "level": "MUST", "title": text[n + 2],
            "verdict": verdict, "detail": text[n + 3]});
        if verdict == "fail" {
            row["exchange"] = text[n + 4].clone().into();
        }
        row
    };
    let rows = [row("pass", 3), row("fail", 4), row("not-offered", 5), row("differs", 6)];
    let document = json!({"registry": text[0], "specification": text[1], "judged_at": format!("x{}", text[2]), "requirements": rows,
        "left_behind": [text[3]]});
    match Saved::parse(document.to_string().as_bytes()).unwrap() {
        Saved::Spec(report) => report,
        Saved::Load(_) => panic!("it is a report"),
    }
}

fn load(text: &[String]) -> serde_json::Value {
    json!({"registry": text[0], "kind": format!("x{}", text[1]), "connections": 2, "requests": 3, "failures": 1,
        "first_failure": text[2], "seconds": 1.0, "per_second": 3.0, "megabytes_per_second": 0.0, "measured_at": format!("x{}", text[3]),
        "latency_ms": {"mean": 1.0, "p50": 1.0, "p90": 2.0, "p99": 3.0, "p999": 4.0, "max": 5.0},
        "timeline": [[0.5, 3.0], [1.0, 2.0]]})
}

/// The same registry twice, in turn.
fn versus(text: &[String]) -> serde_json::Value {
    let ratio = json!({"name": text[1], "first": 1.0, "second": 2.0, "ratio": 2.0, "ratio_min": 1.5, "ratio_max": 2.5});
    json!({"rounds": [[load(text), load(text)]], "figures": [ratio]})
}

fn written(form: Form, report: &Report) -> Document {
    let mut out = Vec::new();
    write_report(report, form, &mut out).unwrap();
    markup::read(std::str::from_utf8(&out).unwrap())
}

fn written_load(form: Form, load: &serde_json::Value) -> Document {
    let mut out = Vec::new();
    write_load(load, |_| Ok(()), form, &mut out).unwrap();
    markup::read(std::str::from_utf8(&out).unwrap())
}

/// Every attribute's name, and the value of those that do something.
fn active(document: &Document) -> Vec<(&str, &str)> {
    let inert = ["aria-label", "name", "value", "message", "timestamp", "classname"];
    document
        .attributes
        .iter()
        .map(|(key, value)| (key.as_str(), if inert.contains(&key.as_str()) { "" } else { value.as_str() }))
        .collect()
}

fn says(document: &Document, text: &str) -> bool {
    let text = shown(text.trim_end());
    document.texts.iter().chain(document.attributes.iter().map(|(_, value)| value)).any(|found| found.contains(&text))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_text_in_a_report_stays_text(text in prop::collection::vec(texts(), 11)) {
        let harmless = vec!["x".to_owned(); 11];
        for form in [Form::Html, Form::Junit] {
            let (found, expected) = (written(form, &report(&text)), written(form, &report(&harmless)));
            prop_assert_eq!(&found.elements, &expected.elements);
            prop_assert_eq!(active(&found), active(&expected));
            let everywhere = [&text[0], &text[1], &text[4], &text[5], &text[6], &text[7], &text[8]];
            for text in everywhere {
                prop_assert!(says(&found, text), "{:?} is missing", text);
            }
        }
    }

    #[test]
    fn any_text_in_a_load_stays_text(text in prop::collection::vec(texts(), 4)) {
        let harmless = vec!["x".to_owned(); 4];
        for (form, document) in [(Form::Html, load as fn(&[String]) -> _), (Form::Junit, load), (Form::Html, versus)] {
            let (found, expected) = (written_load(form, &document(&text)), written_load(form, &document(&harmless)));
            prop_assert_eq!(&found.elements, &expected.elements);
            prop_assert_eq!(active(&found), active(&expected));
            for text in &text[..3] {
                prop_assert!(says(&found, text), "{:?} is missing", text);
            }
        }
    }
}

#[test]
fn a_page_of_nothing_and_of_everything_is_well_formed() {
    let text: Vec<_> = (0..11).map(|n| format!("text {n}")).collect();
    let reports = [report(&text), report(&text)];
    let loads = [load(&text), versus(&text), load(&text)].map(|document| Loads::read(&document).unwrap());
    for (reports, loads) in [(&reports[..0], &loads[..0]), (&reports[..], &loads[..])] {
        let mut out = Vec::new();
        Page { reports, loads }.write(&mut out).unwrap();
        let page = markup::read(std::str::from_utf8(&out).unwrap());
        let ids: Vec<_> = page.attributes.iter().filter(|(key, _)| key == "id").map(|(_, id)| id).collect();
        let unique: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(unique.len(), ids.len(), "{ids:?}");
        for (_, link) in page.attributes.iter().filter(|(key, _)| key == "href") {
            let is_there = link.strip_prefix('#').is_some_and(|id| ids.iter().any(|there| *there == id));
            assert!(is_there || link == "data:,", "{link} leads nowhere");
        }
        // Headings skip no level.
        let levels: Vec<u32> = page.elements.iter().filter_map(|e| e.strip_prefix('h')?.parse().ok()).collect();
        assert!(levels.first() == Some(&1) && levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{levels:?}");
    }
}
