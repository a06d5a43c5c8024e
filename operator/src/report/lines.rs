//! The lines of a log, in memory that does not depend on their length.

use std::io::{self, ErrorKind, Read};

use memchr::memchr;

/// Longest line that is read. Lines of the broker are far shorter, so a longer one is foreign.
const MAX_LINE_BYTES: usize = 256 * 1024;

/// Lines of one log.
pub(super) struct Lines<R> {
    log: R,
    buffer: Vec<u8>,
    /// The part of the buffer that has been read and not yet returned.
    begin: usize,
    end: usize,
    is_at_end: bool,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(log: R) -> Self {
        Self { log, buffer: vec![0; MAX_LINE_BYTES], begin: 0, end: 0, is_at_end: false }
    }

    /// Returns the next line without its end. A line that is too long is returned as an empty one,
    /// which is foreign too.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let mut is_too_long = false;
        let mut searched = self.begin;
        loop {
            if let Some(length) = memchr(b'\n', &self.buffer[searched..self.end]) {
                let line = self.begin..searched + length;
                self.begin = line.end + 1;
                return Ok(Some(if is_too_long { &[] } else { &self.buffer[line] }));
            }
            if self.is_at_end {
                let line = self.begin..self.end;
                self.begin = self.end;
                let is_line = is_too_long || !line.is_empty();
                return Ok(is_line.then_some(if is_too_long { &[] } else { &self.buffer[line] }));
            }
            if self.begin == 0 && self.end == self.buffer.len() {
                (is_too_long, self.end) = (true, 0);
            }
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            searched = self.end;
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let read = loop {
            match self.log.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.end += read;
        self.is_at_end = read == 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the lengths of the lines, with a log that gives at most `step` bytes at a time.
    fn lengths(log: &[u8], step: usize) -> Vec<usize> {
        struct Steps<'a>(&'a [u8], usize);

        impl Read for Steps<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let length = self.1.min(buffer.len());
                (&mut self.0).take(length as u64).read(&mut buffer[..length])
            }
        }

        let mut lines = Lines::new(Steps(log, step));
        let mut lengths = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            lengths.push(line.len());
        }
        lengths
    }

    #[test]
    fn lines_are_found_however_the_log_arrives() {
        for step in [1, 2, 3, 7, 1000] {
            assert_eq!(lengths(b"", step), [0; 0]);
            assert_eq!(lengths(b"\n\nab\nc", step), [0, 0, 2, 1]);
            assert_eq!(lengths(b"ab\n", step), [2]);
        }
    }

    #[test]
    fn line_that_is_too_long_is_one_empty_line() {
        let long = "x".repeat(3 * MAX_LINE_BYTES + 5);
        for step in [4096, MAX_LINE_BYTES, usize::MAX] {
            assert_eq!(lengths(format!("a\n{long}\nbc\n").as_bytes(), step), [1, 0, 2]);
            assert_eq!(lengths(long.as_bytes(), step), [0]);
        }
        let longest = "x".repeat(MAX_LINE_BYTES - 1);
        assert_eq!(lengths(format!("{longest}\ny").as_bytes(), 4096), [MAX_LINE_BYTES - 1, 1]);
    }
}
