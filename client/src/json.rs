//! JSON as it is printed: valid JSON for whoever parses it, and nothing in it that a terminal would obey.

use serde_json::Value;

use crate::text::is_harmless;

/// On one line.
pub(crate) fn compact(document: &Value) -> String {
    escaped(&document.to_string())
}

/// For people: a line for each member.
pub(crate) fn pretty(document: &Value) -> String {
    serde_json::to_string_pretty(document).map_or_else(|_| compact(document), |text| escaped(&text))
}

/// JSON escapes only what is below U+0020. The rest of what must not be shown stands in its strings alone, and is escaped
/// there in its way, `\u009b`; outside of them there are line ends.
fn escaped(json: &str) -> String {
    let is_shown = |c: char| c == '\n' || is_harmless(c);
    if json.chars().all(is_shown) {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match is_shown(c) {
            true => out.push(c),
            false => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::text::printable_lines;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_as_json_does() {
        let hostile = json!({ "a\u{9b}": ["\u{1b}[31m\u{7f}", "\u{202e}x\n", "größe 日本"] });
        let text = r#"{"a\u009b":["\u001b[31m\u007f","\u202ex\n","größe 日本"]}"#;
        assert_eq!(compact(&hostile), text);
    }

    proptest! {
        #[test]
        fn it_needs_no_further_escaping_and_says_the_same(key in ".*", value in any::<String>()) {
            let document = json!({ key: [value, {}] });
            for text in [compact(&document), pretty(&document)] {
                prop_assert_eq!(&printable_lines(&text), &text);
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document.clone());
            }
        }
    }
}
