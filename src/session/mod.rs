//! Becomes the program: sealed memfds of the loader stub and everything it needs to know, and a real execve of one.
//!
//! On entry: an image, and what is to be executed. On exit the calling process *is* the program: same PID, same
//! descriptors but for those that are close-on-exec. The memfd is executed like any program, so the kernel does what
//! execve(2) does; the stub in it then maps the program.
//!
//! There are two ways. [`launch`] starts one program that was planned ahead: nothing of the launcher is left in it, and
//! what it starts is the kernel's. [`begin`] starts a whole session: the stub stays, as the handler of what a seccomp
//! filter traps, so that all that is started and every library is in place too.

pub mod attempt;
mod filter;
mod index;
mod lack;
mod launch;
mod memfd;
mod whole;

pub use lack::{require_exe, require_filter};
pub use launch::{Launch, launch};
pub use memfd::MEMFD_PREFIX;
pub use whole::{
    Begin, ImageDescriptor, begin, has_direct_pages, require_no_session, require_program,
};

use crate::backing::{Backing, Kind, NoCow};
use crate::sys::wire;
use crate::units::{PageRange, PageSize};

/// The stub of a launch, built by loader-stub/build.rs.
pub const LAUNCH_STUB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/launch.bin"));
/// The stub of a session, built by loader-stub/build.rs.
pub const SESSION_STUB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/session.bin"));

/// Where both are linked: loader-stub/build.rs.
const STUB_BASE: u64 = match u64::from_str_radix(env!("XIP_STUB_BASE"), 10) {
    Ok(base) => base,
    Err(_) => 0,
};

/// Room that is taken at the stub's base, in bytes.
const RESERVED_BYTES: u64 = 0x1000_0000;

/// The addresses that no fixed program may use: the stub's, its record's and those of the pages that are copied. In a
/// launch the stub unmaps all of it before the program starts, but it needs it until then.
pub const RESERVED: Option<PageRange> = PageRange::new(PageSize::K64, STUB_BASE, RESERVED_BYTES);
const _: () = assert!(STUB_BASE != 0 && RESERVED.is_some());

/// How the stub maps the image. `data` says whether what is writable can be copied on write.
fn image_map(backing: &Backing, data: Result<(), NoCow>) -> wire::ImageMap {
    let window = backing.window();
    let flags = [
        (backing.kind() != Kind::File, wire::IMAGE_DEVICE),
        (window.shared_only, wire::IMAGE_SHARED),
        (window.whole_only, wire::IMAGE_WHOLE),
        (data.is_err(), wire::IMAGE_NO_COW),
        (backing.path() == "/dev/mem", wire::IMAGE_MEM),
        (counts_as_flash(backing), wire::IMAGE_FLASH),
    ];
    let why = data.err().and_then(|why| {
        let number = NoCow::ALL.iter().position(|&other| other == why)?;
        Some((number as u64) << wire::IMAGE_NO_COW_WHY)
    });
    wire::ImageMap {
        base: window.at,
        len: window.len_bytes,
        shown: window.shown_at,
        flags: flags
            .iter()
            .filter(|(is_so, _)| *is_so)
            .fold(why.unwrap_or(0), |flags, (_, flag)| flags | flag),
    }
}

/// Is it memory-mapped flash? The tests ask for any image to be taken for that, which has the same bytes: what has flash are
/// emulated boards, and they are too slow for some thousands of programs.
fn counts_as_flash(backing: &Backing) -> bool {
    let is_asked_for = || cfg!(debug_assertions) && std::env::var_os("XIP_AS_FLASH").is_some();
    backing.is_flash() || is_asked_for()
}

/// Why a session's data is not mapped from its image, by its record.
pub(crate) fn no_cow(map: &wire::ImageMap) -> Option<NoCow> {
    let number = usize::try_from(map.flags >> wire::IMAGE_NO_COW_WHY).ok()?;
    let is_so = map.flags & wire::IMAGE_NO_COW != 0;
    NoCow::ALL.get(number).copied().filter(|_| is_so)
}

/// Where an image is that is not all of a file, as the records of sessions say it.
pub(crate) fn device_map(backing: &Backing) -> Option<wire::ImageMap> {
    let map = image_map(backing, Ok(()));
    (map.flags & wire::IMAGE_DEVICE != 0 || map.base != 0).then_some(map)
}

/// `kernel.randomize_va_space`; where it cannot be read, addresses are randomized.
fn addresses_are_randomized() -> bool {
    std::fs::read("/proc/sys/kernel/randomize_va_space")
        .map_or(true, |text| !text.starts_with(b"0"))
}
