//! A JSON document as it is, with every value on a line of its own. Nothing of it is read: its keys stay in their order.

/// How deep is indented; what is deeper stays at that depth.
const DEPTH_LIMIT: usize = 64;

/// Indents a valid document by `unit`, as Go's `json.Indent` does.
pub fn indent(document: &str, unit: &str) -> String {
    let mut out = String::with_capacity(document.len() * 2);
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    let mut characters = document.chars().filter(|c| !c.is_control()).peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        (0..depth.min(DEPTH_LIMIT)).for_each(|_| out.push_str(unit));
    };
    while let Some(c) = characters.next() {
        if in_text {
            out.push(c);
            in_text = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            ' ' => {}
            '{' | '[' => {
                out.push(c);
                while characters.next_if_eq(&' ').is_some() {}
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => {
                in_text = c == '"';
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn documents_are_indented_as_by_go_and_keep_their_order() {
        let document = "{\"b\":[1,{\"a\": \"x,\\\"{\\\\\"}],\n \"a\":{ },\"c\":[]}";
        let expected = "{\n\t\"b\": [\n\t\t1,\n\t\t{\n\t\t\t\"a\": \"x,\\\"{\\\\\"\n\t\t}\n\t],\n\t\"a\": {},\n\t\"c\": []\n}";
        assert_eq!(indent(document, "\t"), expected);
        assert_eq!(indent("[]", " "), "[]");
    }

    proptest! {
        #[test]
        fn what_is_indented_says_the_same(keys in proptest::collection::vec(("[a-z\\\\\" {,:]{0,8}", any::<i32>()), 0..8)) {
            let map: serde_json::Map<String, serde_json::Value> =
                keys.into_iter().map(|(key, value)| (key.clone(), serde_json::json!([value, { key: value }]))).collect();
            let value = serde_json::Value::Object(map);
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&indent(&value.to_string(), "   ")).unwrap(), value);
        }

        #[test]
        fn indenting_never_panics(text in "\\PC{0,40}", likely in "[\\[\\]{}\",: \\\\]{0,200}") {
            let _ = (indent(&text, " "), indent(&likely, "\t"));
        }
    }
}
