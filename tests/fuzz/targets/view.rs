//! Invariant: whatever bytes an image has and whatever the kernel asks, the view's server answers with one message that the
//! kernel takes, no longer than was asked for, or with an errno; entries have names and types that Linux knows, and what is
//! read of a file is what the reader reads.
//!
//! The first [`REQUESTS_BYTES`] bytes are requests, the rest is the image.

use xip_run::cramfs::{Image, Inode, InodeKind};
use xip_run::units::ImageOffset;
use xip_run::view::{MAX_READ_BYTES, Server};

use super::{image_of, max_content_bytes, open};

/// Requests besides those that every image gets, eight bytes each.
pub const REQUESTS_BYTES: usize = 64;

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const READLINK: u32 = 5;
const READ: u32 = 15;
const INIT: u32 = 26;
const READDIR: u32 = 28;
const READDIRPLUS: u32 = 44;

/// Length of `fuse_out_header` and of `fuse_entry_out`, bytes.
const HEADER: usize = 16;
const ENTRY: usize = 128;
/// `fuse_attr.mode` in an entry.
const ENTRY_MODE: usize = 40 + 60;
/// Most nodes that are gone to.
const MAX_NODES: usize = 32;
const UNIQUE: u64 = 0x0123_4567_89ab_cdef;

/// The target.
pub fn run(input: &[u8]) {
    let Some((requests, input)) = input.split_first_chunk::<REQUESTS_BYTES>() else {
        return;
    };
    let Some(image) = open(&image_of(input)) else {
        return;
    };
    let mut kernel = Kernel {
        server: Server::new(image.clone()),
        nodes: vec![1],
        left_bytes: max_content_bytes(&image),
    };
    let init = [7_u32, 31, 0x2_0000, u32::MAX]
        .map(u32::to_ne_bytes)
        .concat();
    kernel.ask(INIT, 1, &init).unwrap();
    // As `find /` would go through it.
    let mut at = 0;
    while let Some(&node) = kernel.nodes.get(at) {
        at += 1;
        kernel.visit(&image, node);
    }
    for request in requests.chunks_exact(8) {
        let [opcode, node, style, len, at, high, ..] = request else {
            unreachable!()
        };
        let node = match style % 4 {
            0 => u64::from(*node),
            1 => u64::from(*node) << (high % 64),
            _ => kernel.nodes[usize::from(*node) % kernel.nodes.len()],
        };
        let at = u64::from(*at) << (high % 64);
        let body = match u32::from(opcode % 64) {
            LOOKUP => request[4..].to_vec(),
            _ => range(at, u32::from(*len) << (style % 32)),
        };
        let _ = kernel.ask(u32::from(opcode % 64), node, &body);
    }
}

/// `fuse_read_in`: fh, offset, size.
fn range(at: u64, len: u32) -> Vec<u8> {
    [&[0; 8][..], &at.to_ne_bytes(), &len.to_ne_bytes(), &[0; 20]].concat()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

struct Kernel {
    server: Server,
    /// Node ids that the server gave.
    nodes: Vec<u64>,
    /// Bytes of contents that may still be looked at.
    left_bytes: u64,
}

impl Kernel {
    /// Asks, and takes the answer apart as `fs/fuse/` does: what follows its header, or the errno.
    fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        let mut request = (40 + body.len() as u32).to_ne_bytes().to_vec();
        request.extend(opcode.to_ne_bytes());
        for word in [UNIQUE, node, 0, 0] {
            request.extend(word.to_ne_bytes());
        }
        request.extend(body);
        let answer = self.server.answer(&request);
        if answer.is_empty() {
            return Ok(Vec::new());
        }
        assert!(answer.len() <= HEADER + MAX_READ_BYTES as usize);
        assert_eq!(u32_at(answer, 0) as usize, answer.len());
        assert_eq!(u64_at(answer, 8), UNIQUE);
        let errno = u32_at(answer, 4).cast_signed();
        assert!((-511..=0).contains(&errno));
        if errno != 0 {
            assert_eq!(answer.len(), HEADER);
            return Err(-errno);
        }
        let answer = answer[HEADER..].to_vec();
        let asked = || u32_at(body, 16) as usize;
        match opcode {
            LOOKUP => self.entry(&answer, true),
            READ => assert!(answer.len() <= asked()),
            READDIR | READDIRPLUS => {
                assert!(answer.len() <= asked());
                self.listing(&answer, opcode == READDIRPLUS);
            }
            _ => {}
        }
        Ok(answer)
    }

    /// `fuse_lookup_name()`: another type would make the whole file system bad.
    fn entry(&mut self, entry: &[u8], may_be_none: bool) {
        assert!(entry.len() >= ENTRY);
        let node = u64_at(entry, 0);
        if node == 0 {
            assert!(may_be_none);
            return;
        }
        let kind = u32_at(entry, ENTRY_MODE) >> 12;
        assert!([1, 2, 4, 6, 8, 10, 12].contains(&kind), "type {kind}");
        assert!(u64_at(entry, 48) < 1 << 24, "size");
        if self.nodes.len() < MAX_NODES && !self.nodes.contains(&node) {
            self.nodes.push(node);
        }
    }

    /// `parse_dirfile()`, `parse_dirplusfile()`.
    fn listing(&mut self, mut rest: &[u8], plus: bool) {
        while !rest.is_empty() {
            if plus {
                self.entry(rest, true);
                rest = &rest[ENTRY..];
            }
            let len = u32_at(rest, 16) as usize;
            let name = &rest[24..24 + len];
            assert!((1..=255).contains(&len) && !name.contains(&b'/') && !name.contains(&0));
            rest = &rest[24 + len.next_multiple_of(8)..];
        }
    }

    fn visit(&mut self, image: &Image, node: u64) {
        let inode = match node {
            1 => image.root(),
            _ => image.inode_at(ImageOffset(node - 1)).unwrap(),
        };
        let attr = self.ask(GETATTR, node, &[0; 16]).unwrap();
        assert_eq!(u32_at(&attr, 16 + 60), u32::from(inode.mode));
        match inode.kind {
            InodeKind::Directory => {
                let _ = self.ask(READDIRPLUS, node, &range(0, 4096));
                for from in [0, 1, 2, 3, 9] {
                    let _ = self.ask(READDIR, node, &range(from, 512));
                }
            }
            InodeKind::Symlink => {
                let target = self.ask(READLINK, node, &[]);
                assert_eq!(target.ok(), image.read_link(&inode).ok());
            }
            InodeKind::File if inode.size <= self.left_bytes => {
                self.left_bytes -= inode.size;
                self.contents(image, node, &inode);
            }
            _ => drop(self.ask(READ, node, &range(0, 4096))),
        }
    }

    fn contents(&mut self, image: &Image, node: u64, inode: &Inode) {
        let Ok(whole) = image.read_file(inode) else {
            let _ = self.ask(READ, node, &range(0, MAX_READ_BYTES));
            return;
        };
        let len = whole.len();
        for (start, count) in [
            (0, len),
            (100, 5000),
            (4096, 8192),
            (len.saturating_sub(5), 4096),
        ] {
            let want = &whole[start.min(len)..(start + count).min(len)];
            let read = self.ask(READ, node, &range(start as u64, count as u32));
            assert!(read.unwrap() == want, "bytes {start}+{count}");
        }
    }
}
