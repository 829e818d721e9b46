//! Lines taken out of what comes in chunks; one that is too long is left out.

use crate::error::Result;

/// The longest line: an entry of 16 KiB in which each byte is escaped, and what else is said with it.
const LINE_LIMIT_BYTES: usize = 1 << 20;

/// The beginning of a line whose rest has not come yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
    /// It has become too long, and has been thrown away so far.
    too_long: bool,
}

impl Lines {
    /// What comes now has nothing to do with what came before.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Gives each line that ends in `chunk`, without its line feed, to `each`, until that says false.
    pub(super) fn take(&mut self, chunk: &[u8], each: &mut dyn FnMut(&[u8]) -> Result<bool>) -> Result<bool> {
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            if self.partial.len() + text.len() > LINE_LIMIT_BYTES {
                self.too_long = true;
                self.partial = Vec::new();
            }
            if !self.too_long {
                self.partial.extend(text);
            }
            if ends {
                let goes_on = self.too_long || each(&self.partial)?;
                self.partial.clear();
                self.too_long = false;
                if !goes_on {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines
                .take(chunk, &mut |line| {
                    all.push(line.to_owned());
                    Ok(true)
                })
                .unwrap();
        }
        all
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out_and_the_next_is_whole() {
        let long = vec![b'x'; LINE_LIMIT_BYTES];
        assert_eq!(taken(&[b"a\n", &long, b"x", &long, b"y\nb\n", b"c"]), [b"a", b"b"]);
        assert_eq!(taken(&[&long, b"\n"]), std::slice::from_ref(&long));
    }

    proptest! {
        #[test]
        fn however_lines_are_cut_they_are_the_same(text in "[ab\n]{0,40}", cuts in prop::collection::vec(0_usize..40, 0..4)) {
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= text.len()).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            let mut expected: Vec<&str> = text.split('\n').collect();
            expected.pop();
            prop_assert_eq!(taken(&chunks), expected.iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>());
        }
    }
}
