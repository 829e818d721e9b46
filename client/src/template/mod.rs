//! Go's templates (`text/template`), as docker's `--format` takes them, over JSON documents.
//!
//! `lex` makes tokens of a text, `parse` a tree of them, `evaluate` text of the tree and a document; `functions` has what
//! can be called, `print` writes values as Go's `fmt` does. There are no templates with names, no methods but docker's
//! `.Label "NAME"`, no complex numbers.
//!
//! **Invariant: a template ends.** Its length, its depth, what it writes and how often it repeats are limited, so that
//! nobody's template takes the machine's memory or goes on for ever.

mod evaluate;
mod functions;
mod lex;
mod parse;
mod print;

use serde_json::Value as Json;

pub(crate) use evaluate::METHOD;
pub(crate) use functions::to_json;

/// The longest template.
pub(crate) const TEMPLATE_LIMIT_BYTES: usize = 64 * 1024;

/// How deep parentheses and blocks may be within each other.
pub(crate) const DEPTH_LIMIT: usize = 100;

/// The most that a template writes, and that a value it makes is long.
pub(crate) const OUTPUT_LIMIT_BYTES: usize = 16 << 20;

/// How many steps a template takes at most: each action, each turn of a `range`.
pub(crate) const STEPS_LIMIT: usize = 1_000_000;

/// A template that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    text: String,
    nodes: Vec<parse::Node>,
}

/// What a template finds where it looks up a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fields {
    /// Every object is a map: what is not in it is no value.
    Maps,
    /// Objects are docker's structures, but for those that it keeps as maps: a field that is not there is an error, and
    /// its name is found whatever its capitals are.
    Structures,
    /// As with structures, and the values are headings: what changes the case or the length of a text leaves it as it is.
    Headings,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > TEMPLATE_LIMIT_BYTES {
            return Err(format!("it is longer than {TEMPLATE_LIMIT_BYTES} bytes"));
        }
        Ok(Self { text: text.to_owned(), nodes: parse::parse(&lex::tokens(text)?)? })
    }

    /// The template as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the template makes of a document.
    ///
    /// # Errors
    ///
    /// Why it cannot be applied to that: a field that is not there, a function's argument that does not fit.
    pub fn render(&self, document: &Json, fields: Fields) -> Result<String, String> {
        evaluate::render(&self.nodes, document, fields)
    }
}

#[cfg(test)]
mod tests;
