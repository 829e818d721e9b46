//! A strict reader of XML, small enough to be believed: what it takes is well-formed.

/// A document's elements by name in the order in which they begin, and all its text and attribute values.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) elements: Vec<String>,
    pub(crate) texts: Vec<String>,
    pub(crate) attributes: Vec<(String, String)>,
}

/// Reads a document.
///
/// # Panics
/// When it is not well-formed, with what is wrong.
pub(crate) fn read(text: &str) -> Document {
    for c in text.chars() {
        let is_xml = matches!(c, '\n' | '\t' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}');
        assert!(is_xml && !('\u{7f}'..='\u{9f}').contains(&c), "{c:?} is no character of a document");
    }
    let (mut found, mut open, mut rest) = (Document::default(), Vec::<String>::new(), text);
    while let Some(start) = rest.find('<') {
        push_text(&mut found, &rest[..start], !open.is_empty());
        let tag = &rest[start + 1..];
        // A quoted value may hold no `<`, and none here holds a `>`: the first one ends the tag.
        let end = tag.find('>').expect("a tag that ends");
        rest = &tag[end + 1..];
        let tag = &tag[..end];
        if tag.starts_with("?xml ") || tag == "!DOCTYPE html" {
            assert!(found.elements.is_empty(), "{tag} stands first");
        } else if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "an element that ends is the last that began");
        } else {
            assert!(!open.is_empty() || found.elements.is_empty(), "one element holds all others");
            let (tag, is_empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
            let name = read_tag(tag, &mut found);
            found.elements.push(name.clone());
            if !is_empty {
                open.push(name);
            }
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} are open, {rest:?} comes after");
    found
}

/// A tag's name; its attributes go to `found`.
fn read_tag(tag: &str, found: &mut Document) -> String {
    let (name, mut attributes) = tag.split_once(' ').unwrap_or((tag, ""));
    assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{name:?} is no name");
    let mut seen = Vec::new();
    while !attributes.is_empty() {
        let (key, rest) = attributes.split_once("=\"").unwrap_or_else(|| panic!("{attributes:?} is no attribute"));
        assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{key:?} is no attribute's name");
        let (value, rest) = rest.split_once('"').expect("a value that ends");
        assert!(rest.is_empty() || rest.starts_with(' '), "{rest:?} follows a value");
        assert!(!value.contains(['\n', '\t']), "{value:?} would lose its line ends");
        assert!(!seen.contains(&key), "{key} is there twice");
        seen.push(key);
        found.attributes.push((key.to_owned(), plain(value)));
        attributes = rest.trim_start_matches(' ');
    }
    name.to_owned()
}

fn push_text(found: &mut Document, text: &str, is_inside: bool) {
    assert!(is_inside || text.trim().is_empty(), "{text:?} is outside of everything");
    if !text.is_empty() {
        found.texts.push(plain(text));
    }
}

/// Text with its references resolved.
fn plain(text: &str) -> String {
    let mut parts = text.split('&');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (reference, rest) = part.split_once(';').expect("a reference that ends");
        plain.push(match reference {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            other => other.strip_prefix('#').and_then(|n| n.parse().ok()).and_then(char::from_u32).expect("a known reference"),
        });
        plain.push_str(rest);
    }
    plain
}
