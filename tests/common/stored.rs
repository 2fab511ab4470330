//! A directory tree, and an image of it that is written byte by byte, so that each file is stored in the form that the
//! test wants: every form that a page of a file can have, and every edge between two of them.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::image_bytes::{
    Block, ImageBytes, Node, dir, direct_file, file, hole, hole_direct, raw, raw_direct, symlink,
    zlib, zlib_direct,
};

/// The page size that the files are made for, unless the caller says another.
pub const PAGE: usize = 4096;
/// The bytes of a block.
const BLOCK: usize = 4096;

/// Where [`write_files`] puts its files: behind all other directories, because the image's last bytes are the last
/// file's.
pub const FILES_DIR: &str = "var/files";

/// A file and how the image stores it.
struct Stored {
    name: &'static str,
    /// A letter for each page: see [`block`].
    blocks: &'static str,
    /// Bytes in the last page; [`BLOCK`] is a whole one.
    last: usize,
    /// What comes behind its last byte in the image.
    after: After,
}

enum After {
    /// Whatever is next, four-byte aligned.
    Next,
    /// Zeros to the page's end and further.
    Zeros,
    /// Another file's bytes.
    Foreign,
}

use After::{Foreign, Next, Zeros};

const FILES: &[Stored] = &[
    stored("apart", "DDDD", 300, Zeros),
    stored("byte", "D", 1, Zeros),
    stored("byte-compressed", "z", 1, Next),
    stored("byte-foreign", "D", 1, Foreign),
    stored("code", "DzdZrdmDd", BLOCK, Foreign),
    stored("compressed", "zzzzzzz", 45, Next),
    stored("compressed-direct", "ZZZZ", 4095, Next),
    stored("direct", "Ddddd", 123, Zeros),
    stored("direct-foreign", "Ddddd", 123, Foreign),
    stored(
        "direct-long",
        "Dddddddddddddddddddddddddddddddd",
        4095,
        Foreign,
    ),
    stored("empty", "", 0, Next),
    stored("hole-first", "hDdh", BLOCK, Foreign),
    stored("holes", "hHhHh", 5, Next),
    stored("misaligned", "mdddd", 2000, Foreign),
    stored("mixed", "DdzDdhDdzzDdhDdD", 700, Foreign),
    stored("mixed-compressed", "DddzzzDdzDz", 99, Next),
    stored("page", "D", BLOCK, Foreign),
    stored("page-compressed", "z", BLOCK, Next),
    stored("pages", "Ddd", BLOCK, Foreign),
    stored("pages-compressed", "zzz", BLOCK, Next),
    stored(
        "turns",
        "DzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDzDz",
        1000,
        Foreign,
    ),
    stored("uncompressed", "rrrr", 1, Foreign),
    // The image ends with it, in the middle of a page.
    stored("zz-cut-off", "Dd", 10, Next),
];

const fn stored(name: &'static str, blocks: &'static str, last: usize, after: After) -> Stored {
    Stored {
        name,
        blocks,
        last,
        after,
    }
}

/// A block by its letter, in an image for kernels with pages of so many bytes.
fn block(letter: char, content: &[u8], page: usize) -> Block {
    match letter {
        'd' => raw_direct(content),
        // Not behind the one before it, but on a page.
        'D' => raw_direct(content).skip(1).align(page),
        // On no page, but by chance; then those behind it are not either.
        'm' => raw_direct(content).skip(4),
        'r' => raw(content),
        'z' => zlib(content),
        'Z' => zlib_direct(content),
        'h' => hole(),
        'H' => hole_direct(),
        _ => unreachable!("no block is stored as {letter}"),
    }
}

/// The blocks of a page by its letter: those behind the first follow it.
fn blocks(letter: char, content: &[u8], page: usize) -> impl Iterator<Item = Block> {
    let behind = match letter {
        'D' | 'm' => 'd',
        other => other,
    };
    let letters = std::iter::once(letter).chain(std::iter::repeat(behind));
    let chunks = content.chunks(BLOCK).zip(letters);
    chunks.map(move |(chunk, letter)| block(letter, chunk, page))
}

impl Stored {
    fn content(&self, page: usize) -> Vec<u8> {
        let mut content = Vec::new();
        for (number, letter) in self.blocks.chars().enumerate() {
            let mut bytes = match letter {
                'h' | 'H' => vec![0; page],
                'z' | 'Z' => format!("{} {number} ", self.name)
                    .into_bytes()
                    .into_iter()
                    .cycle()
                    .take(page)
                    .collect(),
                _ => noise(number as u32 + self.name.len() as u32 * 1000, page),
            };
            if self.name == "code" {
                // mov $(1000 + number), %eax; ret
                bytes[0] = 0xb8;
                bytes[1..5].copy_from_slice(&(1000 + number as u32).to_le_bytes());
                bytes[5] = 0xc3;
            }
            content.extend(bytes);
        }
        let last = match self.last {
            BLOCK => page,
            bytes => bytes,
        };
        content.truncate((content.len() + last).saturating_sub(page));
        content
    }

    fn node(&self, content: &[u8], page: usize) -> Node {
        let pages = content.chunks(page).zip(self.blocks.chars());
        let node = file(pages.flat_map(|(chunk, letter)| blocks(letter, chunk, page)));
        let node = node.size(content.len() as u32);
        match self.after {
            Next => node,
            Zeros => node.then(vec![0; page]),
            Foreign => node.then(noise(1, page)),
        }
    }
}

fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8 | 1
    };
    std::iter::repeat_with(step).take(len).collect()
}

/// Writes the files of every storage below `root`.
pub fn write_files(root: &Path) {
    write_files_of(root, PAGE);
}

/// The same, for kernels with pages of so many bytes.
pub fn write_files_of(root: &Path, page: usize) {
    let dir = root.join(FILES_DIR);
    fs::create_dir_all(&dir).unwrap();
    for stored in FILES {
        fs::write(dir.join(stored.name), stored.content(page)).unwrap();
    }
}

/// The bytes of an image of `root`: programs and libraries direct, the math library in part only, the files of
/// [`write_files`] each in its own way.
pub fn image_of(root: &Path) -> Vec<u8> {
    image_of_pages(root, PAGE)
}

/// The same, for kernels with pages of so many bytes: the files must be of that size too.
pub fn image_of_pages(root: &Path, page: usize) -> Vec<u8> {
    ImageBytes {
        flags: 0x903,
        pad_to: 4,
        ..ImageBytes::new(node_of(root, page))
    }
    .build()
}

fn node_of(path: &Path, page: usize) -> Node {
    let meta = fs::symlink_metadata(path).unwrap();
    let node = if meta.is_symlink() {
        return symlink(fs::read_link(path).unwrap().as_os_str().as_bytes());
    } else if meta.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        dir(entries.iter().map(|path| {
            let name = path.file_name().unwrap().as_bytes();
            (name, node_of(path, page))
        }))
    } else {
        file_of(path, page)
    };
    node.mode(
        (if meta.is_dir() { 0o40000 } else { 0o100_000 } | meta.permissions().mode() & 0o7777)
            as u16,
    )
}

fn file_of(path: &Path, page: usize) -> Node {
    let content = fs::read(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let of_every_storage = path.parent().unwrap().ends_with(FILES_DIR);
    match FILES.iter().find(|stored| stored.name == name) {
        Some(stored) if of_every_storage => stored.node(&content, page),
        _ if name == "libm.so.6" => {
            let pages = content.chunks(page).zip("DddzDdZ".chars().cycle());
            file(pages.flat_map(|(chunk, letter)| blocks(letter, chunk, page)))
        }
        _ => direct_file(&content, page),
    }
}
