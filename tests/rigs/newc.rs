//! Writes an initramfs: a cpio archive in the "newc" format, Linux's Documentation/driver-api/early-userspace/buffer-format.rst.
//! Everything is root's, whoever writes it.
#![allow(unreachable_pub, reason = "tests/rigs.rs is a crate of its own")]

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;

/// The archive of a directory.
pub fn archive(root: &Path, out: &mut impl Write) -> io::Result<()> {
    let mut inode = 0;
    add_directory(root, "", &mut inode, out)?;
    entry("TRAILER!!!", 0, 0, b"", out)
}

fn add_directory(
    dir: &Path,
    prefix: &str,
    inode: &mut u32,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for found in entries {
        let name = found.file_name();
        let name = name.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
        let name = format!("{prefix}{name}");
        let meta = found.metadata()?;
        let mode = meta.permissions().mode() & 0o7777;
        *inode += 1;
        if meta.is_dir() {
            entry(&name, *inode, S_IFDIR | mode, b"", out)?;
            add_directory(&found.path(), &format!("{name}/"), inode, out)?;
        } else if meta.is_symlink() {
            let target = fs::read_link(found.path())?;
            let target = target.as_os_str().as_bytes();
            entry(&name, *inode, S_IFLNK | 0o777, target, out)?;
        } else {
            let content = fs::read(found.path())?;
            entry(&name, *inode, S_IFREG | mode, &content, out)?;
        }
    }
    Ok(())
}

fn entry(
    name: &str,
    inode: u32,
    mode: u32,
    content: &[u8],
    out: &mut impl Write,
) -> io::Result<()> {
    let len = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let name_len = name.len() as u32 + 1;
    let (owner, group, links, time, device, check) = (0, 0, 1, 0, 0, 0);
    write!(out, "070701")?;
    for field in [
        inode, mode, owner, group, links, time, len, device, device, device, device, name_len,
        check,
    ] {
        write!(out, "{field:08x}")?;
    }
    // The header has 110 bytes; name and content begin at multiples of 4.
    write!(out, "{name}\0")?;
    out.write_all(padding(110 + name_len))?;
    out.write_all(content)?;
    out.write_all(padding(len))
}

fn padding(len: u32) -> &'static [u8] {
    &[0; 3][..(len.wrapping_neg() % 4) as usize]
}
