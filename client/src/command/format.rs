//! `--format`: the one place where what verbs list and inspect becomes text.
//!
//! A verb gives its rows as JSON objects with docker's keys, the headings of these, and its table as a template, as docker
//! does. With docker an object `Label` among them is a method: the labels that `.Label "NAME"` looks up.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value};

use super::print;
use crate::error::{Error, Result};
use crate::json;
use crate::stderr::say;
use crate::template::{Fields, METHOD, Template, to_json};
use crate::text::{self, printable};

/// How a list is printed.
#[derive(Debug, Args)]
pub(super) struct ListFormat {
    /// table, json, a Go template as '{{.ID}} {{.Names}}', or 'table TEMPLATE' for columns with headings
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse)]
    format: Option<Format>,
}

/// How documents are printed.
#[derive(Debug, Args)]
pub(super) struct DocumentFormat {
    /// json for one line, or a Go template as '{{.Config.Image}}' [default: JSON for people]
    #[arg(short, long, value_name = "FORMAT", value_parser = Format::parse_of_documents)]
    format: Option<Format>,
}

impl DocumentFormat {
    /// A document by the template that was given, or as JSON; `None` if it is to be as the verb prints it.
    pub(super) fn line(&self, document: &Value) -> Result<Option<String>> {
        match &self.format {
            None | Some(Format::Default) => Ok(None),
            Some(format) => line(format, document).map(Some),
        }
    }
}

#[derive(Debug, Clone)]
enum Format {
    /// The verb's own.
    Default,
    Json,
    /// In columns, with headings.
    Table(Template),
    Template(Template),
}

impl Format {
    /// docker's words and templates.
    fn parse(text: &str) -> std::result::Result<Self, String> {
        match text.trim_matches(' ') {
            "" | "table" => Ok(Self::Default),
            "json" => Ok(Self::Json),
            text => {
                let (table, template) =
                    text.strip_prefix("table").map_or((false, text), |rest| (true, rest.trim_start_matches(' ')));
                // A shell passes them on as they are written.
                let template = Template::parse(&template.replace("\\t", "\t").replace("\\n", "\n"))?;
                Ok(if table { Self::Table(template) } else { Self::Template(template) })
            }
        }
    }

    /// The same without tables, and as docker has it without `\t` and `\n`.
    fn parse_of_documents(text: &str) -> std::result::Result<Self, String> {
        match text {
            "" => Ok(Self::Default),
            "json" => Ok(Self::Json),
            text => Template::parse(text).map(Self::Template),
        }
    }
}

/// What a verb lists, as docker does.
pub(super) struct List<'a> {
    /// The fields of a row and their headings.
    pub(super) headings: &'a [(&'a str, &'a str)],
    /// What is printed if nothing else is asked for: `table TEMPLATE`, or a template.
    pub(super) default: &'a str,
}

impl ListFormat {
    /// Prints rows, which have docker's keys.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] for a field that rows do not have.
    pub(super) fn print(&self, list: &List<'_>, rows: impl IntoIterator<Item = Value>) -> Result<ExitCode> {
        let text = self.text(list, rows)?;
        print(|out| out.write_all(text.as_bytes()))?;
        Ok(ExitCode::SUCCESS)
    }

    /// What [`ListFormat::print`] prints.
    pub(super) fn text(&self, list: &List<'_>, rows: impl IntoIterator<Item = Value>) -> Result<String> {
        let default;
        let format = match &self.format {
            None | Some(Format::Default) => {
                default = Format::parse(list.default).map_err(|why| failed(list.default, why))?;
                &default
            }
            Some(format) => format,
        };
        match format {
            Format::Table(template) => table(template, list.headings, rows),
            format => rows.into_iter().map(|row| Ok(line(format, &row)? + "\n")).collect(),
        }
    }

    /// One row by the template that was given, or as JSON; `None` if it is to be as the verb prints it.
    pub(super) fn line(&self, row: &Value) -> Result<Option<String>> {
        match &self.format {
            None | Some(Format::Default) => Ok(None),
            Some(format) => line(format, row).map(Some),
        }
    }

    /// Whether it is the verb's own table, or one of these columns.
    pub(super) fn is_table(&self) -> bool {
        matches!(self.format, None | Some(Format::Default | Format::Table(_)))
    }

    /// Whether a template names a field.
    pub(super) fn names(&self, field: &str) -> bool {
        match &self.format {
            Some(Format::Table(template) | Format::Template(template)) => template.text().contains(&format!(".{field}")),
            _ => false,
        }
    }
}

/// A row, or a document, without the end of its line.
fn line(format: &Format, row: &Value) -> Result<String> {
    match format {
        Format::Table(template) | Format::Template(template) => {
            let made = template.render(row, Fields::Structures).map_err(|why| failed(template.text(), why))?;
            Ok(text::printable_lines(&made))
        }
        Format::Default | Format::Json => Ok(to_json(row)),
    }
}

/// Headings and rows in columns.
fn table(template: &Template, headings: &[(&str, &str)], rows: impl IntoIterator<Item = Value>) -> Result<String> {
    let mut heading: Map<String, Value> = headings.iter().map(|&(name, heading)| (name.to_owned(), heading.into())).collect();
    heading.insert(METHOD.into(), "LABEL".into());
    // As with docker: what cannot be applied to headings has none.
    let mut text = template.render(&heading.into(), Fields::Headings).unwrap_or_default() + "\n";
    for mut row in rows {
        make_cells(&mut row);
        text.push_str(&template.render(&row, Fields::Structures).map_err(|why| failed(template.text(), why))?);
        text.push('\n');
    }
    Ok(text::columns(&text::printable_lines(&text)))
}

/// Has the texts of a row break neither a line nor a column.
fn make_cells(row: &mut Value) {
    match row {
        Value::String(text) if !text::is_printable(text) => *text = printable(text),
        Value::Array(list) => list.iter_mut().for_each(make_cells),
        Value::Object(map) => map.values_mut().for_each(make_cells),
        _ => {}
    }
}

fn failed(template: &str, why: String) -> Error {
    Error::Template { template: template.to_owned(), why }
}

/// What docker leaves out of a document if there is none; a template finds it as nothing.
const OPTIONAL: [&str; 6] = ["Health", "Healthcheck", "SizeRootFs", "SizeRw", "StopTimeout", "Variant"];

impl DocumentFormat {
    /// Prints what `describe` makes of each name, whatever becomes of the others; as docker does.
    pub(super) fn print(&self, names: &[String], describe: impl FnMut(&String) -> Result<Value>) -> Result<ExitCode> {
        let (mut described, mut failures) = (Vec::new(), Vec::new());
        for result in names.iter().map(describe) {
            match result {
                Ok(document) => described.push(document),
                Err(failure) => failures.push(failure),
            }
        }
        let text = match &self.format {
            Some(format @ Format::Template(_)) => {
                described.iter().map(|one| Ok(line(format, one)? + "\n")).collect::<Result<String>>()?
            }
            format => {
                let all = Value::Array(described.into_iter().map(without_absent).collect());
                let text = if matches!(format, Some(Format::Json)) { json::compact(&all) } else { json::pretty(&all) };
                text + "\n"
            }
        };
        print(|out| out.write_all(text.as_bytes()))?;
        failures.iter().for_each(|failure| say(format_args!("rbox: {}", printable(&failure.to_string()))));
        Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn without_absent(document: Value) -> Value {
    match document {
        Value::Object(map) => {
            let there = map.into_iter().filter(|(name, value)| !(value.is_null() && OPTIONAL.contains(&name.as_str())));
            there.map(|(name, value)| (name, without_absent(value))).collect::<Map<_, _>>().into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIST: List<'_> = List { headings: &[("ID", "CONTAINER ID"), ("Names", "NAMES")], default: "table {{.ID}}\t{{.Names}}" };

    fn text(format: Option<&str>, rows: &[Value]) -> Result<String> {
        let format = format.map(|text| Format::parse(text).unwrap());
        ListFormat { format }.text(&LIST, rows.to_vec())
    }

    #[test]
    fn rows_are_printed_in_each_of_docker_s_ways() {
        let row = |id: &str, name: &str| json!({ "ID": id, "Names": name, "Label": { "a.b": "1" } });
        let rows = [row("abc", "web"), row("def", "db")];
        let table = "CONTAINER ID   NAMES\nabc            web\ndef            db\n";
        for (format, expected) in [
            (None, table),
            (Some("table"), table),
            (Some("json"), "{\"ID\":\"abc\",\"Names\":\"web\"}\n{\"ID\":\"def\",\"Names\":\"db\"}\n"),
            (Some("{{json .}}"), "{\"ID\":\"abc\",\"Names\":\"web\"}\n{\"ID\":\"def\",\"Names\":\"db\"}\n"),
            (Some("{{.ID}}"), "abc\ndef\n"),
            (Some("{{.ID}}\\t{{upper .Names}}"), "abc\tWEB\ndef\tDB\n"),
            (Some("table {{upper .Names}}\\t{{.ID}}"), "NAMES     CONTAINER ID\nWEB       abc\nDB        def\n"),
            (Some("table {{.ID}}\t{{.Label \"a.b\"}}"), "CONTAINER ID   b\nabc            1\ndef            1\n"),
        ] {
            assert_eq!(text(format, &rows).unwrap(), expected, "{format:?}");
        }
        assert_eq!(text(None, &[]).unwrap(), "CONTAINER ID   NAMES\n");
        assert_eq!(text(Some("{{.ID}}"), &[]).unwrap(), "");
        let said = text(Some("{{.Nope}}"), &rows).unwrap_err().to_string();
        assert!(said.contains("{{.Nope}}") && said.contains("there are ID Label Names"), "{said}");
        assert!(Format::parse("{{.ID").is_err());
    }

    #[test]
    fn what_is_untrusted_neither_reaches_the_terminal_nor_breaks_a_table() {
        let rows = [json!({ "ID": "a\tb\nc\u{1b}[31m", "Names": "x" })];
        assert_eq!(text(None, &rows).unwrap(), "CONTAINER ID        NAMES\na\\tb\\nc\\u{1b}[31m   x\n");
        assert_eq!(text(Some("{{.ID}}"), &rows).unwrap(), "a\tb\nc\\u{1b}[31m\n");
        assert_eq!(text(Some("{{\"\\x1b\"}}"), &rows).unwrap(), "\\u{1b}\n");
    }

    #[test]
    fn documents_leave_out_what_is_not_there_and_templates_find_nothing() {
        let document = json!({ "State": { "Health": null, "Pid": 1 }, "Labels": null });
        assert_eq!(without_absent(document.clone()), json!({ "State": { "Pid": 1 }, "Labels": null }));
        let format = Format::parse_of_documents("{{if .State.Health}}x{{else}}none{{end}}\\n").unwrap();
        assert_eq!(line(&format, &document).unwrap(), "none\\n");
    }
}
