//! xip-mem looks at processes that may be anybody's, often as root: whatever they map and whatever they claim to be, it
//! opens no device for them, waits for nothing, and takes no more memory or time than what they have.

mod common {
    pub mod launch;
}
#[path = "../loader-stub/src/wire.rs"]
#[allow(dead_code, unreachable_pub, reason = "the launcher's own")]
mod wire;

use std::fs::{self, File};
use std::io::Write;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use common::launch::{run, skip, text};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{CWD, FileType, MemfdFlags, Mode, OFlags, makedev, memfd_create, mknodat};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

const PAGE: usize = 4096;

/// The tests measure this very process: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What xip-mem says of this process, with 2 GiB of addresses.
fn look(options: &[&str]) -> String {
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -v 2097152; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_xip-mem"))
        .args(options)
        .arg(std::process::id().to_string());
    let output = run(&mut limited, b"");
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
}

struct Mapped {
    at: *mut u8,
    len_bytes: usize,
}

impl Mapped {
    /// A private, writable mapping of a file.
    fn file(fd: impl AsFd, len_bytes: usize) -> Self {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses the address, so no memory of anybody else is replaced.
        let at = unsafe { mmap(std::ptr::null_mut(), len_bytes, prot, flags, fd, 0) };
        let at = at.unwrap().cast();
        Self { at, len_bytes }
    }

    fn anonymous(len_bytes: usize) -> Self {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: as above.
        let at = unsafe { mmap_anonymous(std::ptr::null_mut(), len_bytes, prot, flags) };
        let at = at.unwrap().cast();
        Self { at, len_bytes }
    }

    fn write(&self, at: usize) {
        assert!(at < self.len_bytes);
        // SAFETY: inside the mapping, which is private, writable and only this test's.
        unsafe { self.at.add(at).write_volatile(1) };
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { munmap(self.at.cast(), self.len_bytes) }.unwrap();
    }
}

#[test]
fn mappings_without_end_are_not_read_to_their_end() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut mapped = Vec::new();
    let zero = Mapped::file(File::open("/dev/zero").unwrap(), 2 * PAGE);
    zero.write(PAGE);
    mapped.push(zero);
    // As V8, Go and the sanitizers reserve addresses.
    let reserved = Mapped::anonymous(16 << 40);
    [0, 8 << 40].into_iter().for_each(|at| reserved.write(at));
    mapped.push(reserved);
    // What it is called makes it pages that a launcher copied.
    for name in ["huge", "xip-run:/bin/huge"] {
        let huge = memfd_create(name, MemfdFlags::CLOEXEC).unwrap();
        let huge = File::from(huge);
        huge.set_len(8 << 40).unwrap();
        let huge = Mapped::file(&huge, 8 << 40);
        [PAGE, 4 << 40].into_iter().for_each(|at| huge.write(at));
        mapped.push(huge);
    }
    look(&[]);
    let why = look(&["--why"]);
    assert!(why.contains("anonymous"), "{why}");
    assert!(
        why.contains("/memfd:huge is mapped for more than 4 GiB"),
        "{why}"
    );
    look(&["--why", "--json"]);
}

/// An ELF file whose headers make work: each of the most segments there can be is said to have all the addresses.
#[test]
fn headers_make_no_more_work_than_the_file_is_long() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut headers = fs::read("/proc/self/exe").unwrap()[..64].to_vec();
    let count = u16::MAX - 1;
    headers[32..40].copy_from_slice(&64_u64.to_le_bytes()); // e_phoff
    headers[40..48].fill(0); // e_shoff
    headers[56..58].copy_from_slice(&count.to_le_bytes()); // e_phnum
    headers[58..64].fill(0);
    for number in 0..count {
        // PT_LOAD, PT_GNU_RELRO
        let kind = [1_u32, 0x6474_e552][usize::from(number % 2)];
        headers.extend(kind.to_le_bytes());
        headers.extend(6_u32.to_le_bytes());
        for value in [0, 0, 0, 1 << 40, u64::MAX, 4096] {
            headers.extend(value.to_le_bytes());
        }
    }
    let file = tempfile::tempfile().unwrap();
    (&file).write_all(&headers).unwrap();
    file.set_len(128 << 20).unwrap();
    let mapped = Mapped::file(&file, PAGE);
    mapped.write(0);
    let why = look(&["--why"]);
    assert!(why.contains("written"), "{why}");
}

// ---- forged records

/// A memfd as a launcher makes them, with words at offsets of its record; mapped.
fn forged(record: u64, words: &[(usize, u64)], path: &Path) -> (File, Mapped) {
    let memfd = memfd_create("xip-run:forged", MemfdFlags::CLOEXEC).unwrap();
    let memfd = File::from(memfd);
    memfd.set_len(4 * wire::PART).unwrap();
    let path_at = wire::PART;
    memfd
        .write_all_at(path.as_os_str().as_bytes(), record + path_at)
        .unwrap();
    for &(at, value) in words {
        memfd
            .write_all_at(&value.to_ne_bytes(), record + at as u64)
            .unwrap();
    }
    let mapped = Mapped::file(&memfd, PAGE);
    (memfd, mapped)
}

/// Does somebody open the file while `work` is done?
fn is_opened(path: &Path, work: impl FnOnce()) -> bool {
    let watch: OwnedFd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, path, WatchFlags::OPEN).unwrap();
    work();
    let mut room = [MaybeUninit::uninit(); 1024];
    let mut events = inotify::Reader::new(&watch, &mut room);
    events
        .next()
        .is_ok_and(|event| event.events().contains(ReadFlags::OPEN))
}

#[test]
fn no_device_is_opened_on_a_forged_records_word() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let mut paths = vec![dir.path().join("fifo")];
    mknodat(CWD, &paths[0], FileType::Fifo, Mode::RWXU, 0).unwrap();
    let device = dir.path().join("device");
    // /dev/zero, under a name of its own: nobody else opens it. /dev/mem's number would do as well, where there is one.
    match mknodat(
        CWD,
        &device,
        FileType::CharacterDevice,
        Mode::RWXU,
        makedev(1, 5),
    ) {
        Ok(()) => paths.push(device),
        Err(err) => skip(&format!("devices: mknod: {err}")),
    }
    // It would be seen.
    assert!(is_opened(&paths[0], || {
        let flags = OFlags::RDWR | OFlags::NONBLOCK;
        rustix::fs::open(&paths[0], flags, Mode::empty()).unwrap();
    }));
    for path in &paths {
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let inode = rustix::fs::fstat(&fd).unwrap().st_ino;
        let single = offset_of!(wire::Record, image);
        let single_map = single + offset_of!(wire::Image, map);
        let session_map = offset_of!(wire::Session, image_map);
        let map = |at: usize, flags: u64| {
            [
                (at + offset_of!(wire::ImageMap, len), 1 << 20),
                (at + offset_of!(wire::ImageMap, flags), flags),
            ]
        };
        for flags in [
            0,
            wire::IMAGE_DEVICE,
            wire::IMAGE_DEVICE | wire::IMAGE_WHOLE,
        ] {
            let words = [
                (offset_of!(wire::Record, magic), wire::MAGIC),
                (single + offset_of!(wire::Str, at), wire::PART),
                (
                    single + offset_of!(wire::Str, len),
                    path.as_os_str().len() as u64,
                ),
                (single + offset_of!(wire::Image, ino), inode),
            ];
            let single = [&words[..], &map(single_map, flags)].concat();
            let words = [
                (offset_of!(wire::Session, magic), wire::SESSION_MAGIC),
                (offset_of!(wire::Session, image_fd), fd.as_raw_fd() as u64),
            ];
            let session = [&words[..], &map(session_map, flags)].concat();
            for (record, words) in [(wire::RECORD, single), (wire::SESSION_RECORD, session)] {
                let _forged = forged(record, &words, path);
                for options in [&[][..], &["--why"]] {
                    let opened = is_opened(path, || {
                        look(options);
                    });
                    assert!(!opened, "{} {options:?} {words:?}", path.display());
                }
            }
        }
    }
}
