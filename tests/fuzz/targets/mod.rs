//! What the fuzzer and the tests feed with bytes: each target is a function that panics where its invariant does not hold.
//! It is a matter of bounded time and memory too, which whoever calls it watches: see `tests/fuzz/run`.
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

/// Most entries of an image that a target looks at, and most bytes of contents: each file may claim 16 MiB.
const MAX_ENTRIES: usize = 64;
const MAX_CONTENT_BYTES: u64 = 256 << 10;

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
