//! Writes an initramfs: a cpio archive in the "newc" format, Linux's Documentation/driver-api/early-userspace/buffer-format.rst.
//! Everything is root's, whoever writes it.
#![allow(dead_code, unreachable_pub, reason = "each test is a crate of its own")]

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const S_IFCHR: u32 = 0o020_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;

/// The archive of a directory.
pub fn archive(root: &Path, out: &mut impl Write) -> io::Result<()> {
    let mut inode = 0;
    add_directory(root, "", &mut inode, out)?;
    entry("TRAILER!!!", 0, 0, b"", out)
}

/// The archive of a list, as usr/gen_init_cpio of the kernel reads it (`dir`, `file`, `slink`, `nod`); `variables` stand in
/// it as `${NAME}`.
pub fn from_list(list: &str, variables: &[(&str, &Path)], out: &mut impl Write) -> io::Result<()> {
    let lines = list.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    for (inode, line) in (1..).zip(lines) {
        let bad = || io::Error::other(format!("{line}: not as gen_init_cpio has it"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |text: &str, radix| u32::from_str_radix(text, radix).map_err(|_| bad());
        let name = |path: &str| path.trim_start_matches('/').to_owned();
        match words.as_slice() {
            ["dir", path, mode, "0", "0"] => {
                entry(&name(path), inode, S_IFDIR | number(mode, 8)?, b"", out)?;
            }
            ["file", path, from, mode, "0", "0"] => {
                let from = variables
                    .iter()
                    .fold((*from).to_owned(), |from, (name, value)| {
                        from.replace(&format!("${{{name}}}"), value.to_str().unwrap())
                    });
                let content =
                    fs::read(&from).map_err(|err| io::Error::other(format!("{from}: {err}")))?;
                entry(
                    &name(path),
                    inode,
                    S_IFREG | number(mode, 8)?,
                    &content,
                    out,
                )?;
            }
            ["slink", path, target, _mode, "0", "0"] => {
                entry(&name(path), inode, S_IFLNK | 0o777, target.as_bytes(), out)?;
            }
            ["nod", path, mode, "0", "0", "c", major, minor] => {
                let device = [number(major, 10)?, number(minor, 10)?];
                let mode = S_IFCHR | number(mode, 8)?;
                node(&name(path), inode, mode, device, b"", out)?;
            }
            _ => return Err(bad()),
        }
    }
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
    node(name, inode, mode, [0, 0], content, out)
}

/// The same of a device, by its number.
fn node(
    name: &str,
    inode: u32,
    mode: u32,
    [major, minor]: [u32; 2],
    content: &[u8],
    out: &mut impl Write,
) -> io::Result<()> {
    let len = u32::try_from(content.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let name_len = name.len() as u32 + 1;
    let (owner, group, links, time, device, check) = (0, 0, 1, 0, 0, 0);
    write!(out, "070701")?;
    for field in [
        inode, mode, owner, group, links, time, len, device, device, major, minor, name_len, check,
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
