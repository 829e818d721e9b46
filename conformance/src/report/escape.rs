//! Text of strangers inside XML and HTML.
//!
//! The two functions are all that stands between a registry's answer and the reader's browser: every
//! value on a page and in a JUnit file goes through one of them. What they give is the same in XML 1.0
//! and in HTML, so that a page is both.

use std::fmt::{self, Write as _};

/// `text` between tags.
pub(super) fn text(text: &str) -> impl fmt::Display {
    Escaped { text, in_attribute: false }
}

/// `text` between the quotes of an attribute. Line ends and tabs keep what they are.
pub(super) fn attribute(text: &str) -> impl fmt::Display {
    Escaped { text, in_attribute: true }
}

struct Escaped<'a> {
    text: &'a str,
    in_attribute: bool,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.text.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // An XML parser makes spaces of them inside an attribute.
                '\n' | '\t' if self.in_attribute => write!(f, "&#{};", u32::from(c))?,
                '\n' | '\t' => f.write_char(c)?,
                c if c.is_control() || is_unfit(c) => f.write_char(char::REPLACEMENT_CHARACTER)?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Whether `c` is no character at all (XML 1.0, production 2), or one that changes the direction of
/// what stands around it: a registry could make an exchange read as another one.
pub(super) fn is_unfit(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped_and_what_is_no_character_is_replaced() {
        assert_eq!(text("<a href=\"x\">'&amp;'\n").to_string(), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;amp;&#39;\n");
        assert_eq!(attribute("\"\n\t").to_string(), "&quot;&#10;&#9;");
        assert_eq!(text("\0\r\u{1b}\u{85}\u{202e}\u{ffff}\u{1fffe}é漢").to_string(), "\u{fffd}".repeat(7) + "é漢");
    }
}
