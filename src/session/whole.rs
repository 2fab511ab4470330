//! A whole session: the memfds that all its programs share, their descriptors, and the start of the first one.
//!
//! Every process of the session inherits four descriptors: the boot memfd, which is executed in the place of every program;
//! the resident memfd, which is mapped over it; the image; and a place where a process keeps its own program, should the
//! kernel not let it be `/proc/self/exe`.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{Resource, getrlimit};

use super::filter::{self, filter};
use super::index::Index;
use super::memfd::{self, R, Segment, X};
use super::{SESSION_STUB, STUB_BASE, addresses_are_randomized, image_map};
use crate::access;
use crate::backing::{Backing, FileIdentity, NoCow};
use crate::cramfs::{Image, show_path};
use crate::error::{Error, Kind, Result};
use crate::plan::LaunchPlan;
use crate::sys::{self, wire};
use crate::units::PageSize;

/// Highest number of a descriptor of the session. As many numbers as a word has bits cost a process nothing: its first
/// table is a part of `struct files_struct` (fdtable.h `NR_OPEN_DEFAULT`). One more, and each has a table of 256, which is
/// 2.2 KiB of RAM on 64 bits and 1.2 on 32, and which fork(2) copies. Shells keep descriptors from 10 up and bash from 63
/// down, for process substitution: four of these are left to it, and round numbers to whoever likes them.
const FD_MAX: RawFd = if usize::BITS == 64 { 59 } else { 29 };
/// How many there are: the program's, the image, the resident memfd, the boot memfd.
const FDS: RawFd = 4;
/// What scripts name by one digit: taken only if nothing else is free.
const DIGITS: RangeInclusive<RawFd> = 3..=9;
/// Where the two descriptors of the first start are looked for a place: in the first table, too.
const START_FD_MIN: RawFd = 20;

const _: () = assert!(wire::CODE + SESSION_STUB.len() as u64 <= wire::SESSION_RECORD);

/// How a session begins.
#[derive(Debug)]
pub struct Begin<'a> {
    /// The first program's path in the view, as the caller gave it.
    pub path: &'a [u8],
    /// Its `argv`, `argv[0]` included.
    pub argv: Vec<CString>,
    /// The page size of this kernel.
    pub page: PageSize,
    /// Map from the image what can be; else everything is mapped from the view.
    pub in_place: bool,
    /// Install the filter: else only the first program is started in place.
    pub stay: bool,
    /// The process that serves the view, if the session must not be able to end it: the session is the whole system.
    pub server: Option<u32>,
}

/// What a session inherits of the image: a descriptor that gives nobody more than they have.
pub struct ImageDescriptor {
    fd: OwnedFd,
    /// It is `O_PATH`, to be opened again by whoever may.
    reopen: bool,
    map: wire::ImageMap,
    /// By which it is seen that the image was changed.
    identity: FileIdentity,
    name: String,
}

impl ImageDescriptor {
    /// A read-only descriptor of a file that everybody may read; else, and of every device, one that is only a place
    /// (`O_PATH`). `data` says whether what is writable can be copied on write. To be made while the host's root is still the
    /// caller's.
    ///
    /// # Errors
    /// [`Kind::Failed`](crate::error::Kind) if the image cannot be opened again, or is another file by now.
    pub fn new(backing: &Backing, data: Result<(), NoCow>) -> Result<Self> {
        let map = image_map(backing, data);
        let path = backing.path();
        let fail = |err: rustix::io::Errno| {
            Error::failed(format!("{}: open again: {err}", path.display()))
        };
        let stat = rustix::fs::fstat(backing).map_err(fail)?;
        let for_all = stat.st_mode & Mode::ROTH.as_raw_mode() != 0;
        // /dev/mem is all of the machine: a service that gives up its rights must not carry it along.
        let reopen = backing.kind().is_device() || !for_all;
        let fd = match reopen {
            true => rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()),
            false => rustix::io::fcntl_dupfd_cloexec(backing, 0),
        };
        let fd = fd.map_err(fail)?;
        let again = rustix::fs::fstat(&fd).map_err(fail)?;
        if (again.st_dev, again.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(Error::failed(format!(
                "{}: replaced while the session began; start again",
                path.display()
            )));
        }
        Ok(Self {
            fd,
            reopen,
            map,
            identity: backing.identity(),
            name: backing.name().to_owned(),
        })
    }
}

/// Can the session's first program be executed, as far as can be known? `path` is of the root directory that the caller has
/// by now, `plan` what was found of it in the image.
///
/// # Errors
/// What is wrong, with what stands in the way: the stub could only give a number.
pub fn require_program(path: &[u8], plan: Result<LaunchPlan>) -> Result<()> {
    // The plan knows best what is wrong with a program of the image; of others it knows nothing.
    match plan {
        _ if is_elsewhere(path) => {}
        // So it is no script. To read it here would bring its first page into the view's page cache.
        Ok(_) => return access::require_executable_here(path),
        Err(err) if !is_script(path) => return Err(err),
        Err(_) => {}
    }
    access::require_executable_here(path)?;
    require_interpreter(path)
}

/// Is the file at a path, in the root directory that the caller has by now, no file of the image?
fn is_elsewhere(path: &[u8]) -> bool {
    let dev_of_view = rustix::fs::stat("/").map(|stat| stat.st_dev);
    match rustix::fs::stat(path).map(|stat| stat.st_dev) {
        // Who may not see it is not told where it is either.
        Err(err) => err == rustix::io::Errno::ACCESS,
        dev => dev != dev_of_view,
    }
}

fn is_script(path: &[u8]) -> bool {
    let mut head = [0; 2];
    File::open(OsStr::from_bytes(path))
        .and_then(|file| file.read_exact_at(&mut head, 0))
        .is_ok_and(|()| head == *b"#!")
}

/// The interpreter of a script that is the session's first program must be there: the stub could only say that something
/// is not.
///
/// # Errors
/// [`Kind::NotFound`] that names it.
fn require_interpreter(path: &[u8]) -> Result<()> {
    let mut head = [0; 256];
    let read = File::open(OsStr::from_bytes(path)).and_then(|file| file.read_at(&mut head, 0));
    // What was not read is zero, and ends the line.
    let Some(line) = head.strip_prefix(b"#!").filter(|_| read.is_ok()) else {
        return Ok(());
    };
    let line = line
        .split(|&byte| byte == b'\n' || byte == 0)
        .next()
        .unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ' || byte == b'\t');
    match words.find(|word| !word.is_empty()) {
        Some(interpreter)
            if matches!(rustix::fs::stat(interpreter), Err(rustix::io::Errno::NOENT)) =>
        {
            Err(Error::new(
                Kind::NotFound,
                format!(
                    "{}: its interpreter {} is not in the view",
                    show_path(path),
                    show_path(interpreter)
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// Has the image anything that can be mapped from it with such pages?
pub fn has_direct_pages(image: &Image, page: PageSize) -> bool {
    !Index::new(image, page).runs.is_empty()
}

/// xip-run must not be a program of a session itself: that one's filter would trap what the stub does.
///
/// # Errors
/// [`Kind::Lacking`] if it is.
pub fn require_no_session() -> Result<()> {
    // Its programs have the resident memfd among their descriptors.
    let is_resident = |number| {
        sys::peek(number, wire::SESSION_RECORD)
            // The last digit is the version's.
            .is_some_and(|magic| u64::from_ne_bytes(magic) >> 8 == wire::SESSION_MAGIC >> 8)
    };
    match (3..=FD_MAX).any(is_resident) {
        false => Ok(()),
        true => Err(Error::lacking(
            "this is a session of xip-run already, and there is none in a session: run the program as it is",
        )),
    }
}

/// Begins the session: becomes its first program, in the root directory that the caller has by now. Returns only if that
/// fails.
pub fn begin(image: &Image, descriptor: ImageDescriptor, begin: &Begin<'_>) -> Error {
    match try_begin(image, descriptor, begin) {
        Ok(never) => match never {},
        Err(err) => err,
    }
}

fn try_begin(
    image: &Image,
    descriptor: ImageDescriptor,
    begin: &Begin<'_>,
) -> Result<std::convert::Infallible> {
    let first_fd = free_numbers()?;
    let [exe_fd, image_fd, resident_fd, boot_fd] = [0, 1, 2, 3].map(|at| first_fd + at);
    let kept = first_fd as u32..=boot_fd as u32;
    let tables = Tables::of_session(image, &descriptor.name, begin, kept);
    let [text_truncated, text_changed, text_server] = tables.texts_at();
    let resident_len = tables.resident_len();
    let boot = wire::Boot {
        boot_fd: boot_fd as u64,
        resident_fd: resident_fd as u64,
        resident_len,
    };
    let has_memory_map = sys::has_memory_map();
    let boot = boot_memfd(&boot, (!has_memory_map).then_some(STUB_BASE))?;
    let stat = rustix::fs::fstat(&boot).map_err(|err| Error::failed(format!("fstat: {err}")))?;
    let view = rustix::fs::stat("/").map_err(|err| Error::failed(format!("stat /: {err}")))?;
    let session = wire::Session {
        magic: wire::SESSION_MAGIC,
        len: resident_len,
        actions: tables.actions_at(),
        first_fd: first_fd as u64,
        last_fd: boot_fd as u64,
        boot_fd: boot_fd as u64,
        boot_dev: device(stat.st_dev),
        boot_ino: stat.st_ino,
        exe_fd: exe_fd as u64,
        image_fd: image_fd as u64,
        starts_by_args: u64::from(has_memory_map),
        image_reopen: u64::from(descriptor.reopen),
        image_map: descriptor.map,
        text_truncated,
        text_changed,
        text_server,
        image_mtime_s: descriptor.identity.mtime_s,
        image_mtime_ns: descriptor.identity.mtime_ns.cast_unsigned(),
        view_dev: device(view.st_dev),
        randomize: u64::from(addresses_are_randomized()),
        page: begin.page.bytes(),
        server: begin.server.map_or(0, u64::from),
        pid_max: pid_max(),
        filter: tables.filter.len() as u64,
        files: tables.files.len() as u64,
        runs: tables.runs.len() as u64,
    };
    let resident = resident_memfd(&session, &tables)?;
    for (fd, number) in [
        // Nobody's yet, and no program's to be given by open(2).
        (boot.try_clone().map_err(no_descriptor)?.into(), exe_fd),
        (descriptor.fd, image_fd),
        (resident.into(), resident_fd),
        (boot.try_clone().map_err(no_descriptor)?.into(), boot_fd),
    ] {
        inherit_as(fd, number)?;
    }
    let mut strings = begin.path.to_vec();
    strings.push(0);
    let start = wire::Start {
        magic: wire::SESSION_MAGIC,
        program_fd: wire::NO_PROGRAM,
        interpreter_fd: wire::NO_PROGRAM,
        strings_len: strings.len() as u64,
        args: 0,
        by_descriptor: 0,
    };
    let start = [sys::bytes_of(&start), strings.as_slice()].concat();
    let boot = start_descriptors(pipe_with(&start)?, &boot)?;
    if begin.stay {
        // As every program of a session is told: loader-stub/src/virtual_action.rs.
        sys::block_if_ignored(libc::SIGSYS);
    }
    let err = sys::execveat(boot.as_fd(), &begin.argv);
    let hint = match err.raw_os_error() {
        Some(libc::E2BIG) => ": the arguments and the environment are too long (execve(2))",
        Some(libc::EACCES) => ": does a security policy forbid to execute a memfd?",
        _ => "",
    };
    Err(Error::not_runnable(format!(
        "{}: execveat of the loader stub: {err}{hint}",
        show_path(begin.path)
    )))
}

/// `kernel.pid_max`, or its default.
fn pid_max() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    text.trim().parse().unwrap_or(32768)
}

fn device(dev: u64) -> [u32; 2] {
    [rustix::fs::major(dev), rustix::fs::minor(dev)]
}

fn no_descriptor(err: impl Into<std::io::Error>) -> Error {
    let err = err.into();
    Error::failed(format!(
        "no descriptor is free for the session, which needs about 16: {err}; raise RLIMIT_NOFILE (ulimit -n)"
    ))
}

/// The first of as many free numbers in a row as the session needs.
fn free_numbers() -> Result<RawFd> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let end = RawFd::try_from(limit).unwrap_or(RawFd::MAX) - FDS;
    (DIGITS.end() + 1..=FD_MAX - FDS + 1)
        .rev()
        .chain(FD_MAX + 1..=end)
        .chain(DIGITS.rev())
        .filter(|&first| first <= end)
        .find(|&first| (first..first + FDS).all(|number| !sys::is_open(number)))
        .ok_or_else(|| no_descriptor(rustix::io::Errno::MFILE))
}

/// Gives a descriptor a number, which is free, for every program of the session to have.
fn inherit_as(fd: OwnedFd, number: RawFd) -> Result<()> {
    let placed = rustix::io::fcntl_dupfd_cloexec(&fd, number).map_err(no_descriptor)?;
    if placed.as_raw_fd() != number {
        return Err(no_descriptor(rustix::io::Errno::MFILE));
    }
    inherit(placed)
}

/// Makes a descriptor the program's.
fn inherit(fd: OwnedFd) -> Result<()> {
    rustix::io::fcntl_setfd(&fd, FdFlags::empty()).map_err(no_descriptor)?;
    let _ = std::os::fd::IntoRawFd::into_raw_fd(fd);
    Ok(())
}

/// A pipe with some bytes in it, fewer than a pipe has room for.
fn pipe_with(bytes: &[u8]) -> Result<OwnedFd> {
    let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
    let (read, write) = rustix::pipe::pipe_with(flags).map_err(no_descriptor)?;
    match rustix::io::write(&write, bytes) {
        Ok(written) if written == bytes.len() => Ok(read),
        _ => Err(Error::failed("a pipe has no room for the path")),
    }
}

/// The start's pipe and the boot memfd at two numbers, one behind the other. Returns the boot memfd's.
fn start_descriptors(start: OwnedFd, boot: &File) -> Result<OwnedFd> {
    // A small table has no such number.
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let mut least =
        RawFd::try_from(limit).map_or(START_FD_MIN, |limit| START_FD_MIN.min(limit / 2));
    loop {
        let before = rustix::io::fcntl_dupfd_cloexec(&start, least).map_err(no_descriptor)?;
        let next = before.as_raw_fd() + 1;
        let boot = rustix::io::fcntl_dupfd_cloexec(boot, next).map_err(no_descriptor)?;
        if boot.as_raw_fd() == next {
            inherit(before)?;
            return Ok(boot);
        }
        least = boot.as_raw_fd();
    }
}

/// What follows the record in the resident memfd.
struct Tables {
    filter: Vec<filter::Instruction>,
    files: Vec<wire::File>,
    runs: Vec<wire::Run>,
    /// What the stub says of an image that was truncated, of one that was changed, and of a server that is no more.
    texts: [String; 3],
}

impl Tables {
    fn of_session(image: &Image, name: &str, begin: &Begin<'_>, kept: RangeInclusive<u32>) -> Self {
        let index = match begin.in_place {
            true => Index::new(image, begin.page),
            false => Index::default(),
        };
        let filter = match begin.stay {
            true => filter(&filter::Session {
                kept,
                server: begin.server,
            }),
            false => Vec::new(),
        };
        let Index { files, runs } = index;
        let texts = [
            format!(
                "the image {name} was truncated beneath it; replace images by renaming new ones over them; it needs the page \
                 that was there "
            ),
            format!(
                "the image {name} was changed since the session began, and starts nothing any more; begin another"
            ),
            "the server of the root directory has ended, and with it a page that was not read yet; begin another session"
                .to_owned(),
        ];
        Self {
            filter,
            files,
            runs,
            texts,
        }
    }

    /// Where the texts are, from the record's start.
    fn texts_at(&self) -> [wire::Str; 3] {
        let tables = size_of_val(self.filter.as_slice())
            + size_of_val(self.files.as_slice())
            + size_of_val(self.runs.as_slice());
        let mut at = (size_of::<wire::Session>() + tables) as u64;
        self.texts.each_ref().map(|text| {
            let len = text.len() as u64;
            let text = wire::Str { at, len };
            at += len;
            text
        })
    }

    /// Where the memory for the actions of SIGSYS is, from the base.
    fn actions_at(&self) -> u64 {
        let [.., last] = self.texts_at();
        (wire::SESSION_RECORD + last.at + last.len).next_multiple_of(wire::PART)
    }

    fn resident_len(&self) -> u64 {
        self.actions_at() + wire::ACTIONS
    }
}

/// Nothing but the stub. The kernel may place it, unless nobody can tell it where the break shall be: it would be where programs
/// go, or where the stack grows (`load_elf_binary()`, of a loader).
pub(super) fn boot_memfd(boot: &wire::Boot, base: Option<u64>) -> Result<File> {
    let code = Segment {
        flags: R | X,
        addr: base.unwrap_or(0),
        len_bytes: wire::CODE + SESSION_STUB.len() as u64,
        ..Segment::default()
    };
    // The stub makes the stack executable for those that want it.
    let mut elf = memfd::executable(SESSION_STUB, base, &[code], Some(false));
    elf.splice(
        wire::BOOT as usize..wire::CODE as usize,
        sys::bytes_of(boot).iter().copied(),
    );
    memfd::sealed(b"boot", &[(0, elf)], 0)
}

/// The stub at the same place, and the record with its tables.
fn resident_memfd(session: &wire::Session, tables: &Tables) -> Result<File> {
    let code = memfd::executable(SESSION_STUB, None, &[], None);
    let mut record = sys::bytes_of(session).to_vec();
    record.extend(tables.filter.iter().flat_map(|insn| insn.bytes()));
    for file in &tables.files {
        record.extend_from_slice(sys::bytes_of(file));
    }
    for run in &tables.runs {
        record.extend_from_slice(sys::bytes_of(run));
    }
    for text in &tables.texts {
        record.extend_from_slice(text.as_bytes());
    }
    let parts = [(0, code), (wire::SESSION_RECORD, record)];
    memfd::sealed(b"session", &parts, session.len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_memfd_is_the_stub_and_no_more() {
        use goblin::elf::header::{ET_DYN, ET_EXEC};
        for (base, kind, addr) in [(None, ET_DYN, 0), (Some(STUB_BASE), ET_EXEC, STUB_BASE)] {
            let boot = boot_memfd(&wire::Boot::default(), base).unwrap();
            let mut bytes = vec![0; boot.metadata().unwrap().len() as usize];
            boot.read_exact_at(&mut bytes, 0).unwrap();
            let elf = goblin::elf::Elf::parse(&bytes).unwrap();
            let loads: Vec<_> = elf
                .program_headers
                .iter()
                .filter(|phdr| phdr.p_type == goblin::elf::program_header::PT_LOAD)
                .map(|phdr| (phdr.p_vaddr, phdr.p_filesz, phdr.p_memsz, phdr.p_flags))
                .collect();
            let len = bytes.len() as u64;
            assert_eq!(loads, [(addr, len, len, R | X)]);
            assert_eq!(elf.header.e_type, kind);
            assert_eq!(elf.entry, addr + wire::CODE);
        }
    }
}
