//! Sparse files: the old GNU format and GNU's three PAX formats (0.0, 0.1, 1.0).

use super::Limits;
use super::header::{BLOCK_BYTES, Block, decimal, number};

/// A run of data in a sparse file; what lies between runs is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The data runs of a file, growing up to a limit.
#[derive(Debug, Default)]
pub(super) struct Runs(Vec<Run>);

impl Runs {
    pub(super) fn push(&mut self, offset: i64, length: i64, limits: &Limits) -> Result<(), String> {
        if self.0.len() == limits.sparse_runs {
            return Err(format!("its sparse map has more than {} runs", limits.sparse_runs));
        }
        match (u64::try_from(offset), u64::try_from(length)) {
            (Ok(offset), Ok(length)) => self.0.push(Run { offset, length }),
            _ => return Err("its sparse map has a negative number".into()),
        }
        Ok(())
    }

    /// The runs, if they are in order, do not overlap, end within `size` and hold exactly the `stored`
    /// bytes the archive has.
    pub(super) fn check(self, size: u64, stored: u64) -> Result<Vec<Run>, String> {
        let (mut end, mut sum) = (0_u64, 0_u64);
        for run in &self.0 {
            let next = run.offset.checked_add(run.length).filter(|&next| run.offset >= end && next <= size);
            end = next.ok_or("its sparse map is out of order or beyond the file's size")?;
            sum += run.length;
        }
        if sum != stored {
            return Err(format!("its sparse map speaks of {sum} bytes but the archive has {stored}"));
        }
        Ok(self.0)
    }
}

/// The `GNU.sparse.*` records of a PAX header.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    major: Vec<u8>,
    minor: Vec<u8>,
    pub(super) name: Vec<u8>,
    size: Vec<u8>,
    real_size: Vec<u8>,
    blocks: Vec<u8>,
    /// Offsets and lengths by turns, from the list of 0.1 or the repeated records of 0.0.
    map: Vec<i64>,
}

/// Where a sparse file's map is.
pub(super) enum MapPlace {
    /// In the records: here it is.
    Records(Runs),
    /// Before the data, as decimal lines (1.0).
    Data,
}

impl PaxSparse {
    /// Takes a record in if it is one of these.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<bool, String> {
        match key {
            b"GNU.sparse.major" => self.major = value.to_vec(),
            b"GNU.sparse.minor" => self.minor = value.to_vec(),
            b"GNU.sparse.name" => self.name = value.to_vec(),
            b"GNU.sparse.size" => self.size = value.to_vec(),
            b"GNU.sparse.realsize" => self.real_size = value.to_vec(),
            b"GNU.sparse.numblocks" => self.blocks = value.to_vec(),
            b"GNU.sparse.map" => {
                self.map.clear();
                for part in value.split(|&byte| byte == b',').filter(|_| !value.is_empty()) {
                    self.push(part, limits)?;
                }
            }
            b"GNU.sparse.offset" if self.map.len().is_multiple_of(2) => self.push(value, limits)?,
            b"GNU.sparse.numbytes" if self.map.len() % 2 == 1 => self.push(value, limits)?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => return Err("its sparse map is out of step".into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn push(&mut self, text: &[u8], limits: &Limits) -> Result<(), String> {
        if self.map.len() == 2 * limits.sparse_runs {
            return Err(format!("its sparse map has more than {} runs", limits.sparse_runs));
        }
        self.map.push(decimal(text).ok_or("its sparse map has something else than numbers")?);
        Ok(())
    }

    /// Where the map is, if these records make the entry a sparse file.
    pub(super) fn place(&self, limits: &Limits) -> Result<Option<MapPlace>, String> {
        match (&self.major[..], &self.minor[..]) {
            (b"1", b"0") => return Ok(Some(MapPlace::Data)),
            (b"0", b"0" | b"1") => {}
            (b"", b"") if self.map.is_empty() => return Ok(None),
            (b"", b"") => {}
            _ => return Err("its sparse format is not known".into()),
        }
        if decimal(&self.blocks).and_then(|blocks| blocks.checked_mul(2)) != i64::try_from(self.map.len()).ok() {
            return Err("its sparse map has not as many runs as it says".into());
        }
        let mut runs = Runs::default();
        for pair in self.map.chunks_exact(2) {
            runs.push(pair[0], pair[1], limits)?;
        }
        Ok(Some(MapPlace::Records(runs)))
    }

    /// The file's size with its holes, where the records tell it.
    pub(super) fn size(&self) -> Result<Option<i64>, String> {
        let text = if self.size.is_empty() { &self.real_size } else { &self.size };
        if text.is_empty() {
            return Ok(None);
        }
        decimal(text).map(Some).ok_or_else(|| "its sparse size is not a number".into())
    }
}

/// The map of the old GNU format: four runs in the header, then blocks of 21 while a flag says so.
/// `next` reads the next block of the archive. Gives the runs and the file's size with its holes.
pub(super) fn old_gnu(
    header: &Block,
    limits: &Limits,
    mut next: impl FnMut() -> crate::Result<Block>,
    refuse: impl Fn(String) -> crate::Error,
) -> crate::Result<(Runs, i64)> {
    if &header[257..265] != b"ustar  \0" {
        return Err(refuse("it is a GNU sparse file in another format's header".into()));
    }
    let size = number(&header[483..495]).map_err(|why| refuse(why.into()))?;
    let mut runs = Runs::default();
    take_old(&header[386..482], &mut runs, limits).map_err(&refuse)?;
    let mut extended = header[482] != 0;
    while extended {
        let block = next()?;
        take_old(&block[..504], &mut runs, limits).map_err(&refuse)?;
        extended = block[504] != 0;
    }
    Ok((runs, size))
}

/// Runs of two twelve-byte numbers each, up to the first empty one.
fn take_old(field: &[u8], runs: &mut Runs, limits: &Limits) -> Result<(), String> {
    for run in field.chunks_exact(24) {
        if run[0] == 0 {
            break;
        }
        runs.push(number(&run[..12])?, number(&run[12..])?, limits)?;
    }
    Ok(())
}

/// The map of format 1.0: decimal lines, first how many runs, padded to a block. `next` reads the next
/// block of the entry's data.
pub(super) fn in_data(
    limits: &Limits,
    mut next: impl FnMut() -> crate::Result<Block>,
    refuse: impl Fn(String) -> crate::Error,
) -> crate::Result<Runs> {
    let (mut block, mut position) = (next()?, 0);
    let mut line = || -> crate::Result<i64> {
        let mut digits = Vec::new();
        loop {
            if position == BLOCK_BYTES {
                (block, position) = (next()?, 0);
            }
            let byte = block[position];
            position += 1;
            match byte {
                b'\n' => break,
                b'0'..=b'9' if digits.len() < 19 => digits.push(byte),
                _ => return Err(refuse("its sparse map has something else than numbers".into())),
            }
        }
        decimal(&digits).ok_or_else(|| refuse("its sparse map has an empty number".into()))
    };
    let count = line()?;
    let mut runs = Runs::default();
    for _ in 0..count {
        let (offset, length) = (line()?, line()?);
        runs.push(offset, length, limits).map_err(&refuse)?;
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(list: &[(i64, i64)]) -> Runs {
        let mut runs = Runs::default();
        for &(offset, length) in list {
            runs.push(offset, length, &Limits::default()).unwrap();
        }
        runs
    }

    #[test]
    fn only_ordered_runs_within_the_file_that_use_all_data_are_taken() {
        assert_eq!(runs(&[(0, 2), (5, 3), (10, 0)]).check(10, 5).unwrap().len(), 3);
        for bad in [&[(5, 3), (0, 2)][..], &[(0, 2), (1, 3)], &[(8, 3), (11, 2)], &[(i64::MAX, 5)], &[(0, 4)]] {
            assert!(runs(bad).check(10, 5).is_err(), "{bad:?}");
        }
    }
}
