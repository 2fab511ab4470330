//! Lists an image, for people and for scripts.

use std::fmt;

use super::{Image, Inode, InodeKind};
use crate::error::Result;

/// A path as text: what is not UTF-8 as `\xff`, control characters as `\n` or `\u{1b}`, a backslash doubled. So a hostile
/// name does nothing to a terminal, and different names stay different.
///
/// ```
/// assert_eq!(xip_run::cramfs::dump::printable(b"/a\n\xff\xc3\xbc"), "/a\\n\\xff\u{fc}");
/// ```
pub fn printable(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_control() || char == '\\' {
                text.extend(char.escape_default());
            } else {
                text.push(char);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A path, a name or a link's target out of an image: any bytes.
///
/// For people ([`Display`](fmt::Display)) it is [`printable`]. In JSON it is what it is: `"path"`, the exact string; and
/// where the bytes are not UTF-8, with U+FFFD for what is not, and `"path_bytes"` beside it, all of them in hexadecimal.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Name(pub Vec<u8>);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl From<&[u8]> for Name {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

/// Writes the fields of JSON of one [`Name`], none if there is none; for `#[serde(flatten, serialize_with)]`.
pub(crate) mod json {
    use serde::Serializer;
    use serde::ser::SerializeMap;

    use super::Name;

    fn fields<S: Serializer>(key: &str, name: Option<&Name>, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        if let Some(Name(bytes)) = name {
            map.serialize_entry(key, &String::from_utf8_lossy(bytes))?;
            if std::str::from_utf8(bytes).is_err() {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                map.serialize_entry(&format!("{key}_bytes"), &hex)?;
            }
        }
        map.end()
    }

    pub(crate) fn path<S: Serializer>(name: &Name, to: S) -> Result<S::Ok, S::Error> {
        fields("path", Some(name), to)
    }

    pub(crate) fn path_if_any<S: Serializer>(
        name: &Option<Name>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        fields("path", name.as_ref(), to)
    }

    pub(crate) fn target<S: Serializer>(name: &Option<Name>, to: S) -> Result<S::Ok, S::Error> {
        fields("target", name.as_ref(), to)
    }

    pub(crate) fn same_as<S: Serializer>(name: &Option<Name>, to: S) -> Result<S::Ok, S::Error> {
        fields("same_as", name.as_ref(), to)
    }

    pub(crate) fn name<S: Serializer>(name: &Name, to: S) -> Result<S::Ok, S::Error> {
        fields("name", Some(name), to)
    }
}

/// `drwxr-sr-t`, as ls(1) writes a mode.
pub fn mode_text(mode: u16) -> String {
    let kind = match mode >> 12 {
        0o10 => '-',
        0o04 => 'd',
        0o12 => 'l',
        0o02 => 'c',
        0o06 => 'b',
        0o01 => 'p',
        0o14 => 's',
        _ => '?',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (false, false) => '-',
            (true, false) => 'x',
            (false, true) => letter.to_ascii_uppercase(),
            (true, true) => letter,
        });
    }
    text
}

/// A line of a listing.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Listed {
    /// Path from the image's root.
    #[serde(flatten, serialize_with = "json::path")]
    pub path: Name,
    /// Type.
    pub kind: InodeKind,
    /// `st_mode`, type included.
    pub mode: u16,
    /// Owner.
    pub uid: u16,
    /// Group.
    pub gid: u8,
    /// Bytes.
    pub size: u64,
    /// Inode number.
    pub inode: u64,
    /// `[major, minor]` of a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<[u8; 2]>,
    /// Target of a symbolic link.
    #[serde(flatten, serialize_with = "json::target")]
    pub target: Option<Name>,
}

impl Listed {
    /// The line of an inode.
    ///
    /// # Errors
    /// As [`Image::read_link`].
    pub fn new(image: &Image, path: &[u8], inode: &Inode) -> Result<Self> {
        let device = matches!(inode.kind, InodeKind::CharDevice | InodeKind::BlockDevice);
        let target = if inode.kind == InodeKind::Symlink {
            let target = image.read_link(inode);
            Some(Name(target.map_err(|err| err.context(printable(path)))?))
        } else {
            None
        };
        Ok(Self {
            path: path.into(),
            kind: inode.kind,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            inode: inode.number(),
            device: device.then(|| inode.rdev.to_be_bytes()),
            target,
        })
    }
}

/// The long form: mode, owner, group, size or device number, path, target.
impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = match self.device {
            Some([major, minor]) => format!("{major}, {minor}"),
            None => self.size.to_string(),
        };
        write!(
            f,
            "{} {:>5} {:>3} {size:>9} {}",
            mode_text(self.mode),
            self.uid,
            self.gid,
            self.path
        )?;
        match &self.target {
            Some(target) => write!(f, " -> {target}"),
            None => Ok(()),
        }
    }
}

/// Lists what is at `path`: a directory's entries (with `recursive` everything below it), or the one file. A link in the
/// last component is not followed.
///
/// # Errors
/// As [`Image::lookup`]; an iterator's item if a directory or a link cannot be read.
pub fn list<'a>(
    image: &'a Image,
    path: &[u8],
    recursive: bool,
) -> Result<impl Iterator<Item = Result<Listed>> + use<'a>> {
    let resolved = image.resolve(path, false)?;
    let is_dir = resolved.inode.kind == InodeKind::Directory;
    let max_depth = if recursive { usize::MAX } else { 1 };
    let walk = image.walk_from(&resolved.path, resolved.inode, max_depth);
    Ok(walk.filter_map(move |found| match found {
        // A directory stands for what is in it.
        Ok(found) if found.depth == 0 && is_dir => None,
        Ok(found) => Some(Listed::new(image, &found.path, &found.inode)),
        Err(refused) => Some(Err(refused.into())),
    }))
}
