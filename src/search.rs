//! Finds a program that is named without a directory: in those of `PATH`, as execvp(3), env(1) and chroot(1) do.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Access, FileType};

use crate::cramfs::{Image, InodeKind, show_path};
use crate::error::{Error, Kind};

/// Where programs are looked for without a `PATH`: confstr(3) `_CS_PATH`.
const USUAL: &[u8] = b"/bin:/usr/bin";

/// A name, and the paths that it can mean.
#[derive(Clone, Debug)]
pub struct Search {
    name: Vec<u8>,
    candidates: Vec<Vec<u8>>,
}

impl Search {
    /// For `name`, with the value of `PATH`; `None` if it has a slash, and so is a path already.
    ///
    /// ```
    /// use xip_run::search::Search;
    /// assert!(Search::new(b"sh", Some("/usr/bin:/bin".as_ref())).is_some());
    /// assert!(Search::new(b"bin/sh", None).is_none());
    /// ```
    pub fn new(name: &[u8], path: Option<&OsStr>) -> Option<Self> {
        if name.contains(&b'/') || name.is_empty() {
            return None;
        }
        let directories = path
            .map_or(USUAL, OsStr::as_bytes)
            .split(|&byte| byte == b':');
        let candidates = directories
            .map(|directory| match directory {
                // The current one.
                [] => name.to_vec(),
                [.., b'/'] => [directory, name].concat(),
                _ => [directory, b"/", name].concat(),
            })
            .collect();
        let name = name.to_vec();
        Some(Self { name, candidates })
    }

    /// The first that is an executable file of the image, else the first that is there at all.
    pub fn in_image(&self, image: &Image) -> Option<&[u8]> {
        let is_program = |path: &[u8]| match image.resolve(path, true) {
            Ok(found) => Some(found.inode.kind == InodeKind::File && found.inode.mode & 0o111 != 0),
            Err(_) => None,
        };
        self.first(is_program)
    }

    /// The same in the root directory that the caller has by now.
    pub fn in_root(&self) -> Option<&[u8]> {
        let is_program = |path: &[u8]| {
            let mode = rustix::fs::stat(path).ok()?.st_mode;
            let is_file = FileType::from_raw_mode(mode) == FileType::RegularFile;
            Some(is_file && rustix::fs::access(path, Access::EXEC_OK).is_ok())
        };
        self.first(is_program)
    }

    fn first(&self, is_program: impl Fn(&[u8]) -> Option<bool>) -> Option<&[u8]> {
        let mut there = None;
        for candidate in &self.candidates {
            match is_program(candidate) {
                Some(true) => return Some(candidate),
                Some(false) => there = there.or(Some(candidate)),
                None => {}
            }
        }
        there.map(Vec::as_slice)
    }

    /// It is nowhere in `place`.
    pub fn not_found(&self, place: &str) -> Error {
        let (name, directories) = (show_path(&self.name), self.directories());
        Error::new(
            Kind::NotFound,
            format!(
                "{name}: not in {place}, in any directory of PATH ({directories}); name it by its path: /bin/{name}"
            ),
        )
    }

    fn directories(&self) -> String {
        let directory = |candidate: &Vec<u8>| {
            let path = candidate.strip_suffix(self.name.as_slice());
            match path.unwrap_or_default() {
                [] => ".".to_owned(),
                [b'/'] => "/".to_owned(),
                [path @ .., _] => show_path(path).to_string(),
            }
        };
        let directories: Vec<_> = self.candidates.iter().map(directory).collect();
        directories.join(":")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(path: Option<&str>) -> Vec<String> {
        let search = Search::new(b"sh", path.map(OsStr::new)).unwrap();
        let text = |path: &Vec<u8>| String::from_utf8(path.clone()).unwrap();
        search.candidates.iter().map(text).collect()
    }

    #[test]
    fn a_name_is_looked_for_as_execvp_does() {
        assert_eq!(candidates(None), ["/bin/sh", "/usr/bin/sh"]);
        assert_eq!(candidates(Some("/a:/b/:c")), ["/a/sh", "/b/sh", "c/sh"]);
        // An empty one is the current directory.
        assert_eq!(candidates(Some("")), ["sh"]);
        assert_eq!(candidates(Some("/a::")), ["/a/sh", "sh", "sh"]);
        for path in ["/bin/sh", "./sh", "bin/sh", ""] {
            assert!(Search::new(path.as_bytes(), None).is_none(), "{path}");
        }
    }

    #[test]
    fn what_is_not_found_is_said_with_where_it_was_looked_for() {
        let search = Search::new(b"bash", Some("/usr/bin/::/".as_ref())).unwrap();
        let said = search.not_found("the image").to_string();
        assert!(
            said.starts_with("bash: not in the image, in any directory of PATH (/usr/bin:.:/)"),
            "{said}"
        );
    }
}
