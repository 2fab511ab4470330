//! Scans the directory that an image is made from: names, kinds and owners, but no contents yet.
//!
//! On exit every entry fits the format: names, sizes, device numbers. The order is that of the image, breadth first and
//! sorted by unsigned bytes, so the same tree gives the same list whatever order readdir(3) has.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::dump::printable;
use super::format::{FILE_SIZE_LIMIT, NAME_MAX_BYTES};
use crate::error::{Error, Result};

/// What an entry is, with what the image keeps of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NodeKind {
    /// A regular file of so many bytes when it was scanned.
    File {
        /// Less than 16 MiB.
        size: u64,
    },
    /// A directory; its entries are these of [`Tree::nodes`].
    Directory {
        /// Consecutive, sorted by name.
        children: Range<usize>,
    },
    /// A symbolic link.
    Symlink {
        /// Where it leads.
        target: Vec<u8>,
    },
    /// A character or block device.
    Device {
        /// `major << 8 | minor`.
        rdev: u16,
    },
    /// A fifo or a socket. Sockets are kept, as mkcramfs keeps them.
    Other,
}

/// An entry of the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Path in the image, from `/`.
    pub path: Vec<u8>,
    /// `st_mode`, type included.
    pub mode: u16,
    /// Owner, cut to 16 bits.
    pub uid: u16,
    /// Group, cut to 8 bits.
    pub gid: u8,
    /// What it is.
    pub kind: NodeKind,
    /// `(st_dev, st_ino)` of a file with more than one link.
    pub hard_link: Option<(u64, u64)>,
}

impl Node {
    /// The last component of the path; empty for the root.
    pub fn name(&self) -> &[u8] {
        let start = self.path.iter().rposition(|&byte| byte == b'/');
        start
            .and_then(|at| self.path.get(at + 1..))
            .unwrap_or_default()
    }

    /// The path, for people.
    pub fn display(&self) -> String {
        printable(&self.path)
    }
}

/// How to scan.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScanOptions {
    /// Everything belongs to user 0, group 0.
    pub squash_owner: bool,
    /// Leave out what cannot be read, with a warning, instead of failing. A directory that cannot be listed stays, empty.
    pub skip_unreadable: bool,
    /// Leave character and block devices out; a warning says how many.
    pub skip_devices: bool,
}

/// A scanned directory.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
    nodes: Vec<Node>,
    /// What did not fit and was changed or left out, a sentence each.
    pub warnings: Vec<String>,
}

impl Tree {
    /// Scans `root`.
    ///
    /// # Errors
    /// For what cannot be read and what does not fit a cramfs: files of 16 MiB or more, names over 252 bytes, device
    /// numbers over 8 bits. The path is in the text.
    pub fn scan(root: &Path, options: ScanOptions) -> Result<Self> {
        let meta = fs::metadata(root)
            .map_err(|err| io_error(root.as_os_str().as_bytes(), "stat", &err))?;
        if !meta.is_dir() {
            return Err(Error::failed(format!(
                "{}: not a directory; name the directory that becomes the image's root",
                root.display()
            )));
        }
        let mut scan = Scan {
            options,
            cut_owners: BTreeMap::new(),
            skipped_devices: 0,
            warnings: Vec::new(),
        };
        let empty = NodeKind::Directory { children: 0..0 };
        let mut nodes = vec![scan.node(b"/".to_vec(), &meta, empty)];
        let mut todo = VecDeque::from([0]);
        while let Some(dir) = todo.pop_front() {
            let Some(path) = nodes.get(dir).map(|node| node.path.clone()) else {
                continue;
            };
            let first = nodes.len();
            for node in scan.directory(root, &path)? {
                if matches!(node.kind, NodeKind::Directory { .. }) {
                    todo.push_back(nodes.len());
                }
                nodes.push(node);
            }
            let last = nodes.len();
            if let Some(node) = nodes.get_mut(dir) {
                node.kind = NodeKind::Directory {
                    children: first..last,
                };
            }
        }
        for ((what, id), (count, path)) in scan.cut_owners {
            let (bits, mask) = if what == "uid" {
                (16, 0xffff)
            } else {
                (8, 0xff)
            };
            scan.warnings.push(format!(
                "{what} {id} does not fit {bits} bits and becomes {} ({count} entries, the first is {path}); \
                 --squash-owner gives everything to root",
                id & mask
            ));
        }
        if scan.skipped_devices > 0 {
            let warning = format!("{} devices are left out", scan.skipped_devices);
            scan.warnings.push(warning);
        }
        Ok(Self {
            root: root.to_owned(),
            nodes,
            warnings: scan.warnings,
        })
    }

    /// Every entry, the root first, breadth first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Opens the regular file that `node` was made from.
    ///
    /// # Errors
    /// If it cannot be opened, or is no regular file any more.
    pub fn open(&self, node: &Node) -> Result<File> {
        open_file(&self.root, &node.path).map_err(|err| io_error(&node.path, "open", &err))
    }

    /// What is stored for a file (its contents) or a link (its target); nothing for the rest.
    ///
    /// # Errors
    /// If it cannot be read or its length is no longer what was scanned.
    pub fn content(&self, node: &Node) -> Result<Vec<u8>> {
        match &node.kind {
            NodeKind::File { size: 0 } => Ok(Vec::new()),
            NodeKind::File { size } => {
                let mut bytes = Vec::with_capacity(*size as usize);
                self.open(node)?
                    .take(FILE_SIZE_LIMIT)
                    .read_to_end(&mut bytes)
                    .map_err(|err| io_error(&node.path, "read", &err))?;
                if bytes.len() as u64 != *size {
                    return Err(changed(node));
                }
                Ok(bytes)
            }
            NodeKind::Symlink { target } => Ok(target.clone()),
            _ => Ok(Vec::new()),
        }
    }
}

/// The error for a file that is not what it was a moment ago.
pub(super) fn changed(node: &Node) -> Error {
    Error::failed(format!(
        "{}: changed while the image was built; build it again when nothing writes to the tree",
        node.display()
    ))
}

fn io_error(path: &[u8], what: &str, err: &io::Error) -> Error {
    Error::failed(format!("{}: {what}: {err}", printable(path)))
}

/// Where the entry with this path in the image lies on the host.
fn host_path(root: &Path, path: &[u8]) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(
        path.strip_prefix(b"/").unwrap_or(path),
    ))
}

/// Opens a regular file, and neither follows a link nor waits for a fifo that took its place since the scan.
fn open_file(root: &Path, path: &[u8]) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(host_path(root, path))?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("no regular file any more"));
    }
    Ok(file)
}

/// What is done to a directory that cannot be read.
const LIST: &str = "list the directory";

struct Scan {
    options: ScanOptions,
    /// How often an id was cut, and where first.
    cut_owners: BTreeMap<(&'static str, u32), (u64, String)>,
    skipped_devices: u64,
    warnings: Vec<String>,
}

impl Scan {
    fn node(&mut self, path: Vec<u8>, meta: &Metadata, kind: NodeKind) -> Node {
        let (uid, gid) = if self.options.squash_owner {
            (0, 0)
        } else {
            (meta.uid(), meta.gid())
        };
        for (what, id, max) in [("uid", uid, 0xffff), ("gid", gid, 0xff)] {
            if id > max {
                let first = || (0, printable(&path));
                self.cut_owners.entry((what, id)).or_insert_with(first).0 += 1;
            }
        }
        let linked = meta.is_file() && meta.nlink() > 1;
        Node {
            path,
            mode: meta.mode() as u16,
            uid: uid as u16,
            gid: gid as u8,
            kind,
            hard_link: linked.then(|| (meta.dev(), meta.ino())),
        }
    }

    /// An error, or a warning where the user wants what cannot be read to be left out.
    fn unreadable<T>(&mut self, path: &[u8], what: &str, err: &io::Error) -> Result<Option<T>> {
        let error = io_error(path, what, err);
        if !self.options.skip_unreadable {
            return Err(Error::failed(format!(
                "{error}; --skip-unreadable goes on without it"
            )));
        }
        let instead = if what == LIST {
            "in the image it is an empty directory"
        } else {
            "left out"
        };
        self.warnings.push(format!("{error}; {instead}"));
        Ok(None)
    }

    /// The entries of a directory, sorted.
    fn directory(&mut self, root: &Path, path: &[u8]) -> Result<Vec<Node>> {
        let listed = fs::read_dir(host_path(root, path)).and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name().into_vec()))
                .collect()
        });
        let mut names: Vec<Vec<u8>> = match listed {
            Ok(names) => names,
            Err(err) => self.unreadable(path, LIST, &err)?.unwrap_or_default(),
        };
        names.sort_unstable();
        let mut nodes = Vec::with_capacity(names.len());
        for name in names {
            let mut child = path.to_vec();
            if !child.ends_with(b"/") {
                child.push(b'/');
            }
            child.extend_from_slice(&name);
            nodes.extend(self.entry(root, child, &name)?);
        }
        Ok(nodes)
    }

    fn entry(&mut self, root: &Path, path: Vec<u8>, name: &[u8]) -> Result<Option<Node>> {
        let does_not_fit = |what: String| Error::failed(format!("{}: {what}", printable(&path)));
        if name.len() > NAME_MAX_BYTES {
            return Err(does_not_fit(format!(
                "its name has {} bytes, a cramfs holds {NAME_MAX_BYTES}; rename it",
                name.len()
            )));
        }
        let host = host_path(root, &path);
        let meta = match fs::symlink_metadata(&host) {
            Ok(meta) => meta,
            Err(err) => return self.unreadable(&path, "lstat", &err),
        };
        let kind = meta.file_type();
        let kind = if kind.is_dir() {
            NodeKind::Directory { children: 0..0 }
        } else if kind.is_symlink() {
            match fs::read_link(&host) {
                Ok(target) => NodeKind::Symlink {
                    target: target.into_os_string().into_vec(),
                },
                Err(err) => return self.unreadable(&path, "readlink", &err),
            }
        } else if kind.is_file() {
            let size = meta.len();
            if size >= FILE_SIZE_LIMIT {
                return Err(does_not_fit(format!(
                    "{size} bytes; a file in a cramfs is smaller than 16 MiB ({FILE_SIZE_LIMIT} bytes): \
                     split it, strip it or leave it out"
                )));
            }
            if let Err(err) = open_file(root, &path) {
                return self.unreadable(&path, "open", &err);
            }
            NodeKind::File { size }
        } else if kind.is_char_device() || kind.is_block_device() {
            if self.options.skip_devices {
                self.skipped_devices += 1;
                return Ok(None);
            }
            let (major, minor) = (
                rustix::fs::major(meta.rdev()),
                rustix::fs::minor(meta.rdev()),
            );
            match (u8::try_from(major), u8::try_from(minor)) {
                (Ok(major), Ok(minor)) => NodeKind::Device {
                    rdev: u16::from_be_bytes([major, minor]),
                },
                _ => {
                    return Err(does_not_fit(format!(
                        "device {major}:{minor}; a cramfs has 8 bits for each number: --skip-devices leaves devices out, for \
                         devtmpfs to make"
                    )));
                }
            }
        } else {
            NodeKind::Other
        };
        Ok(Some(self.node(path, &meta, kind)))
    }
}
