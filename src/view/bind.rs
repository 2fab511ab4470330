//! What of the host shows in a view: its directories in the place of the image's empty ones, and `--bind`.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::cramfs::{Image, InodeKind};

/// A directory or file of the host that is put over one of the view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bind {
    /// Path on the host.
    pub source: PathBuf,
    /// Absolute path in the view, where there must be something of the same sort.
    pub target: PathBuf,
    /// Without permission to write.
    pub read_only: bool,
}

impl Bind {
    /// Reads `SRC[:DST][:ro]`; without DST the path is the same in the view.
    ///
    /// # Errors
    /// A sentence, if it has another form.
    ///
    /// ```
    /// # use xip_run::view::Bind;
    /// let bind = Bind::parse("/srv/data:/mnt:ro".as_ref())?;
    /// assert_eq!((bind.target.to_str(), bind.read_only), (Some("/mnt"), true));
    /// # Ok::<(), String>(())
    /// ```
    pub fn parse(text: &OsStr) -> Result<Self, String> {
        let mut parts: Vec<&[u8]> = text.as_bytes().split(|&byte| byte == b':').collect();
        let read_only = parts.len() > 1 && parts.last() == Some(&b"ro".as_slice());
        if read_only {
            parts.pop();
        }
        let (source, target) = match parts.as_slice() {
            [source] => (*source, *source),
            [source, target] => (*source, *target),
            _ => return Err("not of the form SRC[:DST][:ro]".to_owned()),
        };
        if source.is_empty() || !target.starts_with(b"/") {
            return Err("the path in the view must be absolute: SRC:/DST".to_owned());
        }
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        if !path(target)
            .components()
            .any(|part| matches!(part, Component::Normal(_)))
        {
            return Err(
                "the root of the view is the image's: name a directory in it, SRC:/DST".to_owned(),
            );
        }
        Ok(Self {
            source: path(source),
            target: path(target),
            read_only,
        })
    }
}

/// So many empty directories of an image are looked for on the host, and so many are mounted on: a Debian system has some
/// two hundred. More are a hostile image's, which can have one for every way that leads through `/proc/self/root`.
const CANDIDATES_MAX: usize = 10_000;
const HOST_DIRECTORIES_MAX: usize = 1000;

/// One for each empty directory of the image that the host has too, in the image's order, up to a thousand. The sources
/// are canonical.
///
/// What is damaged in the image is passed over: whoever goes there is told. Of a name that a directory has twice the
/// second is nowhere to be seen.
pub fn host_directories(image: &Image) -> Vec<Bind> {
    let mut seen = HashSet::new();
    let mut parent = (PathBuf::new(), None);
    image
        .walk()
        .filter_map(|found| found.ok())
        .filter(|found| {
            found.depth > 0 && found.inode.kind == InodeKind::Directory && found.inode.size == 0
        })
        .take(CANDIDATES_MAX)
        .filter_map(|found| {
            let target = Path::new(OsStr::from_bytes(&found.path)).to_owned();
            let above = target.parent()?;
            // Most have neighbours.
            if parent.0 != above {
                parent = (above.to_owned(), above.canonicalize().ok());
            }
            let source = parent.1.as_ref()?.join(target.file_name()?);
            let source = source.canonicalize().ok().filter(|path| path.is_dir())?;
            Some(Bind {
                source,
                target,
                read_only: false,
            })
        })
        .filter(|bind| seen.insert(bind.target.clone()))
        .take(HOST_DIRECTORIES_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_bind() {
        let parse = |text: &str| {
            let bind = Bind::parse(text.as_ref())?;
            let text = |path: PathBuf| path.into_os_string().into_string().unwrap();
            Ok::<_, String>((text(bind.source), text(bind.target), bind.read_only))
        };
        let ok = |source: &str, target: &str, ro| Ok((source.to_owned(), target.to_owned(), ro));
        assert_eq!(parse("/a"), ok("/a", "/a", false));
        assert_eq!(parse("/a:ro"), ok("/a", "/a", true));
        assert_eq!(parse("a:/b"), ok("a", "/b", false));
        assert_eq!(parse("/a:/b:ro"), ok("/a", "/b", true));
        for bad in [
            "",
            "a",
            ":/b",
            "/a:/",
            "/a://.",
            "/a:b",
            "/a:/b:rw",
            "/a:/b:/c:ro",
            "a:ro",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
