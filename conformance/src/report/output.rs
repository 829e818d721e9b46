//! The form results are put out in, and files that are there whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};

use super::measured::Loads;
use super::{Page, Report, junit};

/// A form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For reading in a terminal
    Table,
    /// For programs, and for `rconform report` and `compare`
    Json,
    /// JUnit XML, for continuous integration
    Junit,
    /// One page that needs nothing else
    Html,
}

impl Form {
    /// The form a file's name asks for by its extension.
    fn of(path: &Path) -> anyhow::Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("txt") => Ok(Self::Table),
            Some("json") => Ok(Self::Json),
            Some("xml") => Ok(Self::Junit),
            Some("html" | "htm") => Ok(Self::Html),
            _ => bail!("the name must end in .html, .json, .xml (JUnit) or .txt"),
        }
    }
}

/// A file to put results into, and the form its name asks for.
#[derive(Debug, Clone)]
pub struct Target {
    path: PathBuf,
    form: Form,
}

impl Target {
    /// A target by the file's name. That its directory is there is checked at once: who measures for an
    /// hour is not to learn of a typing error at the end.
    ///
    /// # Errors
    /// When the extension is none of those known, or there is no such directory.
    pub fn parse(path: &str) -> anyhow::Result<Self> {
        let path = PathBuf::from(path);
        let form = Form::of(&path)?;
        ensure!(!path.is_dir(), "it is a directory");
        let directory = directory(&path);
        ensure!(directory.is_dir(), "{} is no directory", directory.display());
        Ok(Self { path, form })
    }

    /// The form.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Has `write` write the file in its form. It replaces what was there in one step, when it is complete.
    ///
    /// # Errors
    /// When the file cannot be written, which is then named; what was there before stays.
    pub fn put(&self, write: impl FnOnce(Form, &mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
        let temporary = temporary(&self.path)?;
        let written = write_file(&temporary, |out| write(self.form, out)).and_then(|()| fs::rename(&temporary, &self.path));
        if written.is_err() {
            // The first error is the one to be told.
            let _ = fs::remove_file(&temporary);
        }
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name beside `path` that nobody else uses.
fn temporary(path: &Path) -> anyhow::Result<PathBuf> {
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    Ok(directory(path).join(format!(".rconform-{}-{nanoseconds:x}.tmp", std::process::id())))
}

fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    // A name that is there already, a link above all, is not followed.
    let mut out = BufWriter::new(File::create_new(path)?);
    write(&mut out)?;
    out.into_inner()?.sync_all()
}

/// Writes `report` in a form.
///
/// # Errors
/// Those of `out`.
pub fn write_report(report: &Report, form: Form, out: &mut dyn Write) -> io::Result<()> {
    match form {
        Form::Table => report.write_table(out),
        Form::Json => write_json(report, out),
        Form::Junit => report.write_junit(out),
        Form::Html => Page { reports: std::slice::from_ref(report), loads: &[] }.write(out),
    }
}

/// Writes what a load found in a form: `document` is its JSON, `table` writes it for people.
///
/// # Errors
/// Those of `out`; and when `document` is no summary of a load.
pub fn write_load(
    document: &impl serde::Serialize,
    table: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    form: Form,
    out: &mut dyn Write,
) -> io::Result<()> {
    let loads = || Ok::<_, io::Error>(Loads::read(&serde_json::to_value(document)?)?);
    match form {
        Form::Table => table(out),
        Form::Json => write_json(document, out),
        Form::Junit => junit::write_loads(&loads()?.loads, out),
        Form::Html => Page { reports: &[], loads: &[loads()?] }.write(out),
    }
}

/// Writes a document as JSON for people and programs.
///
/// # Errors
/// Those of `out`.
pub fn write_json(document: &impl serde::Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, document)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_says_the_form_and_a_missing_directory_is_noticed_before_anything_is_measured() {
        let directory = tempfile::tempdir().unwrap();
        let parse = |name: &str| Target::parse(directory.path().join(name).to_str().unwrap());
        for (name, form) in [("a.html", Form::Html), ("a.json", Form::Json), ("a.b.xml", Form::Junit), ("a.txt", Form::Table)] {
            assert_eq!(parse(name).unwrap().form(), form);
        }
        for name in ["a", "a.pdf", "nowhere/a.json", ""] {
            assert!(parse(name).is_err(), "{name}");
        }
    }

    #[test]
    fn what_fails_half_way_leaves_what_was_there_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        let target = Target::parse(path.to_str().unwrap()).unwrap();
        target.put(|_, out| out.write_all(b"first")).unwrap();
        let error = target
            .put(|_, out| {
                out.write_all(b"second")?;
                out.flush()?;
                assert_eq!(fs::read(&path)?, b"first", "nothing is replaced before all is written");
                Err(io::Error::other("no more"))
            })
            .unwrap_err();
        assert!(format!("{error:#}").contains("a.json: no more"), "{error:#}");
        assert_eq!(fs::read(&path).unwrap(), b"first");
        target.put(|_, out| out.write_all(b"third")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
