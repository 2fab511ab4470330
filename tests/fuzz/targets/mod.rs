//! What the fuzzer and the tests feed with bytes: each target is a function that panics where its invariant does not hold.
//! It is a matter of bounded time and memory too, which whoever calls it watches: see `tests/fuzz/run`.
//!
//! Images are backed by the input's bytes, and how much of them a target looks at follows from their number: so a small
//! input takes some microseconds, and a fuzzer can try very many. What bounds a target: [`MAX_ENTRIES`],
//! [`max_content_bytes`], the requests of `view`, the programs of `plan`, the bytes that `extract` may write.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each fuzz target is a crate of its own"
)]

pub mod check;
pub mod extract;
pub mod index;
pub mod plan;
pub mod reader;
pub mod view;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use xip_run::backing::ReadAt;
use xip_run::cramfs::Image;
use xip_run::cramfs::format::{RawSuper, SUPER_OFFSETS};
use xip_run::cramfs::walk::Found;
use xip_run::error::{Error, Kind};

/// A target's name and the target.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 6] = [
    ("reader", reader::run),
    ("check", check::run),
    ("extract", extract::run),
    ("index", index::run),
    ("plan", plan::run),
    ("view", view::run),
];

/// Most entries of an image that a target looks at.
const MAX_ENTRIES: usize = 64;
/// Most zeros that an input may leave out at its image's end.
pub const MAX_ZEROS_BYTES: usize = 16 << 10;

/// Most bytes of contents of an image that a target looks at, each file's taken whole: a file may claim 16 MiB, in an
/// image of any size.
fn max_content_bytes(image: &Image) -> u64 {
    (4 * image.limit_bytes()).clamp(16 << 10, 256 << 10)
}

/// The image that an input stands for. Where its superblock claims more than there is, but for little, the rest is zeros:
/// so an image with pages that can be mapped has some hundred bytes, and most of what a fuzzer changes in it matters.
pub fn image_of(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let superblocks = SUPER_OFFSETS.iter().filter_map(|&at| {
        let (_, from) = input.split_at_checked(at as usize)?;
        RawSuper::decode(from.first_chunk()?)
    });
    for (superblock, _) in superblocks.take(1) {
        let claimed = superblock.size as usize;
        if claimed > input.len() && claimed - input.len() <= MAX_ZEROS_BYTES {
            bytes.resize(claimed, 0);
        }
    }
    bytes
}

/// Bytes of an image, of which none may be read beyond the image's end.
struct Guarded {
    bytes: Vec<u8>,
    limit: Arc<AtomicU64>,
}

impl ReadAt for Guarded {
    fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let end = at.checked_add(buf.len() as u64);
        assert!(
            end.is_some_and(|end| end <= self.limit.load(Relaxed)),
            "{at:#x}+{:#x} is outside the image",
            buf.len()
        );
        self.bytes.read_exact_at(buf, at)
    }
}

/// The image in these bytes, guarded.
pub fn open(bytes: &[u8]) -> Option<Image> {
    let limit = Arc::new(AtomicU64::new(u64::MAX));
    let guarded = Guarded {
        bytes: bytes.to_vec(),
        limit: limit.clone(),
    };
    let image = match Image::open(guarded) {
        Ok(image) => image,
        Err(err) => {
            assert_eq!(err.kind(), Kind::BadImage, "{err}");
            return None;
        }
    };
    assert!(image.limit_bytes() <= bytes.len() as u64);
    limit.store(image.limit_bytes(), Relaxed);
    Some(image)
}

/// The first entries that a walk of the image comes to.
pub fn entries(image: &Image) -> Vec<Found> {
    let walk = image
        .walk()
        .take(MAX_ENTRIES)
        .filter_map(|found| match found {
            Ok(found) => Some(found),
            Err(refused) => {
                assert_honest(&refused.error);
                None
            }
        });
    walk.collect()
}

/// Nothing but the image is to blame, and the text says where, in few words.
pub fn assert_honest(err: &Error) {
    let text = err.to_string();
    assert!(
        matches!(err.kind(), Kind::BadImage | Kind::NotDirectory),
        "{text}"
    );
    assert!(
        err.kind() != Kind::BadImage || text.contains("0x") || text.contains("PATH_MAX"),
        "no place in {text:?}"
    );
    assert!(text.len() < 8192, "an endless message");
}
