//! Templates against what Go's own `text/template` makes of them, and against nonsense.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

/// `client/tests/template/cases.json`: templates, and what Go made of each (`null` for an error); `record.go` beside it
/// is the program that wrote it.
fn recorded() -> (Json, Vec<(String, Option<String>)>) {
    let file: Json = serde_json::from_str(include_str!("../../tests/template/cases.json")).unwrap();
    let text = |value: &Json| value.as_str().map(str::to_owned);
    let cases = file["cases"].as_array().unwrap().iter();
    (file["data"].clone(), cases.map(|case| (text(&case["template"]).unwrap(), text(&case["output"]))).collect())
}

fn render(template: &str, document: &Json, fields: Fields) -> Result<String, String> {
    Template::parse(template)?.render(document, fields)
}

#[test]
fn templates_print_what_go_prints() {
    let (data, cases) = recorded();
    assert!(cases.len() > 200);
    let mut wrong = Vec::new();
    for (template, expected) in cases {
        let made = render(&template, &data, Fields::Maps);
        if made.as_ref().ok() != expected.as_ref() {
            wrong.push(format!("{template}\n  Go: {expected:?}\n  we: {made:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_structure_s_fields_are_known_and_a_map_s_are_not() {
    let document = json!({
        "Id": "abc", "timeNano": 5, "Labels": { "a": "1" }, "Label": { "a": "1" },
        "Networks": { "front": { "Gateway": "g" } }, "Health": null,
    });
    let made = |template: &str| render(template, &document, Fields::Structures);
    for (template, expected) in [
        ("{{.Id}} {{.ID}} {{.TimeNano}}", "abc abc 5"),
        ("{{.Labels.a}} {{.Labels.b}} {{.Labels.A}}", "1 <no value> <no value>"),
        ("{{index .Labels \"b\"}}|", "|"),
        ("{{.Label \"a\"}} {{.Label \"b\"}}| {{\"a\" | .Label}}", "1 | 1"),
        ("{{.Networks.front.Gateway}} {{.Networks.back}}", "g <no value>"),
        ("{{if .Health}}{{.Health.Status}}{{else}}none{{end}}", "none"),
    ] {
        assert_eq!(made(template).as_deref(), Ok(expected), "{template}");
    }
    for (template, part) in [
        ("{{.Nope}}", "can't evaluate field Nope; there are Health Id"),
        ("{{.Networks.front.Nope}}", "Gateway"),
        ("{{range .Networks}}{{.Nope}}{{end}}", "Gateway"),
        ("{{.Health.Status}}", "Status"),
        ("{{.Label}}", "wants the name"),
        ("{{.Id \"a\"}}", "no function"),
    ] {
        assert!(made(template).unwrap_err().contains(part), "{template}: {:?}", made(template));
    }
    assert!(!made("{{json .}}{{.}}").unwrap().contains("Label\""), "a method is no field");
    let headings = json!({ "ID": "CONTAINER ID", "Label": "LABEL" });
    let heading = render("{{lower .ID}} {{truncate .ID 3}} {{.Label \"a.b-c\"}}", &headings, Fields::Headings);
    assert_eq!(heading.as_deref(), Ok("CONTAINER ID CONTAINER ID b c"));
}

#[test]
fn what_goes_on_for_ever_or_is_too_large_is_refused() {
    let refused = |template: &str| render(template, &json!({}), Fields::Maps).unwrap_err();
    assert!(refused(&"x".repeat(TEMPLATE_LIMIT_BYTES + 1)).contains("longer"));
    for (open, close) in [("{{if 1}}", "{{end}}"), ("{{(", ")}}"), ("{{if 0}}{{else if 1}}", "")] {
        let deep = open.repeat(10_000) + &close.repeat(10_000);
        assert!(refused(&deep[..deep.len().min(TEMPLATE_LIMIT_BYTES)]).contains("line 1"), "{open}");
    }
    assert!(refused(&format!("{{{{{}1{}}}}}", "(".repeat(200), ")".repeat(200))).contains("levels"));
    assert!(refused("{{range 100000}}{{range 100000}}{{end}}{{end}}").contains("steps"));
    assert!(refused("{{range 9999999999}}{{end}}").contains("steps"));
    assert!(refused("{{range 1000}}{{pad \"x\" 10000000 0}}{{end}}").contains("bytes"));
    assert!(refused("{{pad \"x\" 999999999999 0}}").contains("spaces"));
    assert!(refused("{{$x := \"aaaaaaaaaaaaaaaa\"}}{{range 60}}{{$x = print $x $x}}{{end}}").contains("bytes"));
}

proptest! {
    #[test]
    fn reading_and_applying_never_panic(
        words in proptest::collection::vec(prop_oneof![
            "[ -~\n\té日]{0,6}".boxed(),
            proptest::sample::select(vec![
                "{{", "}}", "{{- ", " -}}", ".", ".Name", ".list", "$x", "$", ":=", "=", "|", "(", ")", "if ", "end", "else ",
                "range ", "with ", "break", "printf ", "\"%", "index ", "slice ", "truncate ", "\"", "'", "`", "0x", "1e", "/*",
                "*/", " ", "9999999999999999999", "-1", "%+08.3", "é", "join ", "eq ", "json ", "nil ", "title ", "pad ",
            ]).prop_map(str::to_owned).boxed(),
        ], 0..24)
    ) {
        let (data, _) = recorded();
        for fields in [Fields::Maps, Fields::Structures, Fields::Headings] {
            let _ = render(&words.concat(), &data, fields);
        }
    }

    #[test]
    fn every_number_and_text_prints_by_every_verb(
        text in "\\PC{0,12}", number in any::<i64>(), float in any::<f64>(), format in "%[-+# 0]{0,3}[0-9]{0,2}(\\.[0-9]{0,2})?[a-zA-Z]",
    ) {
        let document = json!([text, number, float]);
        for index in 0..3 {
            let template = format!("{{{{printf {format:?} (index . {index})}}}}");
            prop_assert!(render(&template, &document, Fields::Maps).is_ok());
        }
    }
}
