//! Which pages of an image's files a session has touched: a small text, which adds up over runs.
//!
//! A session that is traced has everything from the view, whose page cache is its own and empty when it begins, and
//! without readahead. So the kernel asks the view's server for each page once: when it is touched first, by whomever.
//! Nothing else is traced, and nothing slows down after that.
//!
//! What it cannot tell: how often a page is touched, when, and by how many processes. read(2) touches pages as a
//! mapping does; so do `MAP_POPULATE`, mlock(2), readahead(2) and posix_fadvise(2), needed or not. Directories, inodes
//! and the targets of symbolic links are not among the pages. Pages are the kernel's, of `page` bytes.
//!
//! ```text
//! xip-run trace 1
//! page 4096
//! runs 2
//! 2 0-3 /bin/busybox
//! 1 7 /bin/busybox
//! ```
//!
//! A line is: how many runs have touched the pages, their numbers in the file, its path in the image. In paths what is
//! no printable ASCII, and the backslash, is written as `\xNN`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, Write};

use crate::cramfs::Image;
use crate::error::{Error, Result};
use crate::units::PageSize;

const HEAD: &str = "xip-run trace 1";
/// More pages than an image of the largest size has: 256 MiB of files of 16 MiB each at most, and none is longer.
const MAX_PAGE: u64 = 1 << 13;

/// What runs of sessions have touched.
///
/// ```
/// use xip_run::trace::Trace;
/// let text = "xip-run trace 1\npage 4096\nruns 1\n1 0-1 /bin/a\\x20b\n";
/// let mut trace = Trace::parse(text).unwrap();
/// trace.add(&trace.clone()).unwrap();
/// assert_eq!(trace.to_string(), text.replace("runs 1\n1", "runs 2\n2"));
/// assert_eq!(trace.runs_of(b"/bin/a b", 1), 2);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// The page size of the kernel that it was made on.
    pub page: PageSize,
    /// How many runs it has.
    pub runs: u64,
    /// By path in the image and number of the page: runs that have touched it.
    pub files: BTreeMap<Vec<u8>, BTreeMap<u64, u64>>,
}

impl Trace {
    /// A trace of no run.
    pub fn new(page: PageSize) -> Self {
        Self {
            page,
            runs: 0,
            files: BTreeMap::new(),
        }
    }

    /// Reads the text.
    ///
    /// # Errors
    /// If it is no trace, or a line of it means nothing.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = (1..).zip(text.lines());
        let bad = |number: usize, what: &str| Error::failed(format!("line {number}: {what}"));
        if lines.next().is_none_or(|(_, line)| line != HEAD) {
            return Err(bad(
                1,
                "not `xip-run trace 1`: this is no trace, or of another version",
            ));
        }
        let mut number = |name: &str, at: usize| {
            let line = lines.next().map_or("", |(_, line)| line);
            let value = line
                .strip_prefix(name)
                .and_then(|value| value.trim().parse().ok());
            value.ok_or_else(|| bad(at, &format!("not `{name} NUMBER`")))
        };
        let page = PageSize::new(number("page", 2)?);
        let mut trace = Self::new(page.ok_or_else(|| bad(2, "not a page size"))?);
        trace.runs = number("runs", 3)?;
        for (at, line) in lines {
            let mut fields = line.splitn(3, ' ');
            let mut field = || {
                fields
                    .next()
                    .ok_or_else(|| bad(at, "not `RUNS PAGES PATH`"))
            };
            let runs: u64 = field()?.parse().map_err(|_| bad(at, "no number of runs"))?;
            let pages = field()?;
            let (first, last) = pages.split_once('-').unwrap_or((pages, pages));
            let page = |text: &str| text.parse().ok().filter(|&page: &u64| page < MAX_PAGE);
            let (Some(first), Some(last)) = (page(first), page(last)) else {
                return Err(bad(
                    at,
                    "pages are NUMBER or NUMBER-NUMBER, and a file has 16 MiB at most",
                ));
            };
            let path = unescape(field()?).ok_or_else(|| bad(at, "the path has a bad escape"))?;
            let file = trace.files.entry(path).or_default();
            for page in first..=last {
                let sum = file.entry(page).or_default();
                *sum = runs.saturating_add(*sum);
            }
        }
        Ok(trace)
    }

    /// Adds the runs of another one.
    ///
    /// # Errors
    /// If its pages are of another size.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        if self.page != other.page {
            return Err(Error::failed(format!(
                "traces of pages of {} and of {} cannot be added up",
                self.page, other.page
            )));
        }
        self.runs = self.runs.saturating_add(other.runs);
        for (path, pages) in &other.files {
            let file = self.files.entry(path.clone()).or_default();
            for (&page, &runs) in pages {
                let sum = file.entry(page).or_default();
                *sum = runs.saturating_add(*sum);
            }
        }
        Ok(())
    }

    /// How many runs have touched a page of a file.
    pub fn runs_of(&self, path: &[u8], page: u64) -> u64 {
        let file = self.files.get(path);
        file.and_then(|pages| pages.get(&page))
            .copied()
            .unwrap_or(0)
    }

    /// How many pages were touched by any run.
    pub fn pages(&self) -> u64 {
        self.files.values().map(|pages| pages.len() as u64).sum()
    }

    /// Reads what is in a file: nothing, or a trace.
    ///
    /// # Errors
    /// If it cannot be read, or is something else.
    pub fn read(file: &mut File, page: PageSize) -> Result<Self> {
        let mut text = String::new();
        let fail = |err: std::io::Error| Error::failed(err.to_string());
        file.rewind().map_err(fail)?;
        file.read_to_string(&mut text).map_err(fail)?;
        let trace = match text.is_empty() {
            true => Self::new(page),
            false => Self::parse(&text)?,
        };
        // Of another page size nothing can be added.
        Self::new(page).add(&trace).map(|()| trace)
    }

    /// Adds this to what is in a file, while no other session does.
    ///
    /// # Errors
    /// As [`Trace::read`], and if the file cannot be written to.
    pub fn add_to(&self, file: &mut File) -> Result<()> {
        let fail = |err: std::io::Error| Error::failed(err.to_string());
        rustix::fs::flock(&*file, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|err| fail(err.into()))?;
        let mut all = Self::read(file, self.page)?;
        all.add(self)?;
        file.rewind().map_err(fail)?;
        file.set_len(0).map_err(fail)?;
        file.write_all(all.to_string().as_bytes()).map_err(fail)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}\npage {}\nruns {}", self.page.bytes(), self.runs)?;
        for (path, pages) in &self.files {
            let mut pages = pages.iter().peekable();
            while let Some((&first, runs)) = pages.next() {
                let mut last = first;
                while let Some(&(&next, _)) = pages
                    .peek()
                    .filter(|(page, more)| **page == last + 1 && *more == runs)
                {
                    last = next;
                    pages.next();
                }
                match first == last {
                    true => write!(f, "{runs} {first} ")?,
                    false => write!(f, "{runs} {first}-{last} ")?,
                }
                writeln!(f, "{}", escape(path))?;
            }
        }
        Ok(())
    }
}

fn escape(path: &[u8]) -> String {
    let mut out = String::new();
    for &byte in path {
        match byte {
            b'!'..=b'~' if byte != b'\\' => out.push(byte.into()),
            _ => out += &format!("\\x{byte:02x}"),
        }
    }
    out
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.extend(before.bytes());
        out.push(u8::from_str_radix(escape.strip_prefix("\\x")?.get(..2)?, 16).ok()?);
        rest = escape.get(4..)?;
    }
    out.extend(rest.bytes());
    Some(out)
}

/// What one session has touched, while it does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recorder {
    page: PageSize,
    /// By where the inode lies in the image: numbers of pages.
    touched: BTreeMap<u64, BTreeSet<u64>>,
}

impl Recorder {
    /// Of a kernel with these pages.
    pub fn new(page: PageSize) -> Self {
        Self {
            page,
            touched: BTreeMap::new(),
        }
    }

    /// Bytes `start..end` were asked for of the file whose inode lies at `inode`.
    pub fn touch(&mut self, inode: u64, start: u64, end: u64) {
        let pages = start / self.page.bytes()..self.page.count(end);
        self.touched.entry(inode).or_default().extend(pages);
    }

    /// The trace of the run: what lies where in the image has its paths again.
    pub fn trace(&self, image: &Image) -> Trace {
        let mut trace = Trace::new(self.page);
        trace.runs = 1;
        for found in image.walk().flatten() {
            if let Some(pages) = self.touched.get(&found.inode.at.0) {
                let pages = pages.iter().map(|&page| (page, 1)).collect();
                trace.files.insert(found.path, pages);
            }
        }
        trace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_comes_back_and_nonsense_is_refused() {
        let mut trace = Trace::new(PageSize::K4);
        trace.runs = 3;
        let odd = (0..=255_u8).collect::<Vec<u8>>();
        trace
            .files
            .insert(odd, [(0, 1), (1, 1), (2, 3), (9, 3)].into());
        trace.files.insert(b"/a".to_vec(), [(4095, 2)].into());
        let text = trace.to_string();
        assert_eq!(text.lines().count(), 3 + 3 + 1);
        assert_eq!(Trace::parse(&text).unwrap(), trace);
        for end in 0..text.len() {
            // Whole lines are a trace, of fewer pages.
            let cut = Trace::parse(&text[..end]);
            assert!(cut.is_err() || cut.unwrap().pages() <= trace.pages());
        }
        for (bad, says) in [
            ("", "line 1"),
            ("xip-run trace 2\n", "another version"),
            ("xip-run trace 1\npage 4095\nruns 1\n", "not a page size"),
            ("xip-run trace 1\npage 4096\nruns x\n", "line 3"),
            ("xip-run trace 1\npage 4096\nruns 1\n1 0\n", "line 4"),
            (
                "xip-run trace 1\npage 4096\nruns 1\n1 0-99999999999 /a\n",
                "16 MiB",
            ),
            (
                "xip-run trace 1\npage 4096\nruns 1\n1 0 /a\\x4\n",
                "bad escape",
            ),
        ] {
            let err = Trace::parse(bad).unwrap_err().to_string();
            assert!(err.contains(says), "{bad:?}: {err}");
        }
        let other = Trace::new(PageSize::K16);
        assert!(trace.add(&other).is_err());
    }
}
