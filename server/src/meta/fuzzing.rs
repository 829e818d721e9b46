//! What the fuzz targets ask of the journal. Compiled for fuzzing only.

use std::io::Cursor;
use std::path::Path;

use longshore_runtime::name::Digest;

use super::journal::{Found, encode, read};
use super::record::Record;

/// Whatever stands in a journal, reading it ends well; and every line that is whole is read.
pub fn journal(bytes: &[u8]) {
    let (_, found) = records(bytes);
    assert!(found.end <= bytes.len() as u64);
    assert!(found.first_damage_at.is_none_or(|at| at < found.end));
    sealed(bytes);
}

/// The same bytes as the JSON of lines whose checksums are right, else no input would get that far.
fn sealed(bytes: &[u8]) {
    let (mut lines, mut expected) = (Vec::new(), Vec::new());
    for json in bytes.split(|byte| *byte == b'\n') {
        lines.extend_from_slice(Digest::of(json).short().as_bytes());
        lines.extend_from_slice(&[b" ", json, b"\n"].concat());
        expected.extend(serde_json::from_slice::<Record>(json).ok());
    }
    assert_eq!(records(&lines).0, expected);
    let mut written = Vec::new();
    expected.iter().for_each(|record| encode(record, &mut written).expect("a record can be written"));
    let (again, found) = records(&written);
    assert_eq!((again, found.end, found.first_damage_at), (expected, written.len() as u64, None));
}

fn records(bytes: &[u8]) -> (Vec<Record>, Found) {
    let mut records = Vec::new();
    let take = |record| {
        records.push(record);
        Ok(())
    };
    let found = read(Path::new("journal"), &mut Cursor::new(bytes), 0, take).expect("memory can be read");
    (records, found)
}
