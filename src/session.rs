//! The session: a sealed memfd that is an ELF executable of the loader stub and everything it needs to know.
//!
//! On entry: a plan. On exit the calling process *is* the program: same PID, same descriptors but for those that are
//! close-on-exec, nothing of the launcher left. The memfd is executed like any program, so the kernel does what
//! execve(2) does; the stub in it then maps the program. Being `/proc/self/exe`, it can be executed again by the
//! program itself (busybox does so for its applets), which starts the same program in place once more.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, RawFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::backing::FileBacking;
use crate::cramfs::{Image, ImageFile, show_path};
use crate::elf::ElfKind;
use crate::error::{Error, Result};
use crate::plan::{LaunchPlan, ObjectPlan, Source};
use crate::sys::{self, wire};
use crate::units::{PageRange, PageSize};

/// The loader stub's code, built by loader-stub/build.rs.
pub const STUB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stub.bin"));

/// Longest name of a memfd in bytes: memfd_create(2).
const MEMFD_NAME_MAX: usize = 249;
/// Where the memfd's descriptor is looked for a place. Not above 63: the kernel's table of descriptors would grow for it,
/// and the program would keep the larger one.
const LAUNCH_FD_MIN: i32 = 60;
/// What the memfd's name starts with; `/proc/PID/maps` shows it after `/memfd:`.
pub const MEMFD_PREFIX: &str = "xip-run:";

/// Where the stub is linked: loader-stub/build.rs.
const STUB_BASE: u64 = match u64::from_str_radix(env!("XIP_STUB_BASE"), 10) {
    Ok(base) => base,
    Err(_) => 0,
};

/// Room that the session takes at the stub's base before any copied page, in bytes.
const RESERVED_BYTES: u64 = 0x1000_0000;

/// The addresses that no fixed program may use: the stub's, its record's and those of the pages that are copied. The
/// stub unmaps all of it before the program starts, but it needs it until then.
pub const RESERVED: Option<PageRange> = PageRange::new(PageSize::K64, STUB_BASE, RESERVED_BYTES);
const _: () = assert!(STUB_BASE != 0 && RESERVED.is_some());

/// What the program is started with.
#[derive(Debug)]
pub struct Start<'a> {
    /// The path as the caller gave it: `AT_EXECFN` and, its last component, `comm`.
    pub execfn: &'a [u8],
    /// `argv`, `argv[0]` included.
    pub argv: Vec<CString>,
    /// A path by which the program's process can open the image, each time that it is started.
    pub image_path: Vec<u8>,
}

/// Highest number that [`inherit`] gives, for the kernel's descriptor table is as long as its highest number: 2 KiB of
/// RAM for each process, where a thousand would be 8.
const INHERITED_FD_MAX: RawFd = 255;

/// Makes the image a descriptor that the program and what it starts inherit, and gives the path by which they can open
/// it where its own path does not lead there. It is read-only, and closed by a program that closes all it does not
/// know; such a program can no longer start itself through `/proc/self/exe`.
///
/// # Errors
/// [`Kind::Failed`](crate::error::Kind) if no descriptor is free, or if there is no /proc.
pub fn inherit(backing: &FileBacking) -> Result<Vec<u8>> {
    let fail = |what: &str| Error::failed(format!("{}: {what}", backing.path().display()));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let highest = limit.map_or(INHERITED_FD_MAX, |limit| {
        INHERITED_FD_MAX.min(RawFd::try_from(limit).unwrap_or(RawFd::MAX) - 1)
    });
    let fd = (3..=highest)
        .rev()
        .find_map(|number| {
            let fd = rustix::io::fcntl_dupfd_cloexec(backing, number).ok()?;
            (fd.as_raw_fd() <= highest).then_some(fd)
        })
        .ok_or_else(|| fail("no descriptor is free for it (RLIMIT_NOFILE)"))?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    if let Err(err) = File::open(&path) {
        return Err(fail(&format!(
            "not to be opened as {path}: {err}; the image needs an empty directory /proc"
        )));
    }
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty())
        .map_err(|err| fail(&format!("fcntl(F_SETFD): {err}")))?;
    // It is the program's now.
    let _ = fd.into_raw_fd();
    Ok(path.into_bytes())
}

/// Becomes the program. Returns only if that fails.
pub fn start(image: &Image, backing: &FileBacking, plan: &LaunchPlan, start: &Start<'_>) -> Error {
    match compose_memfd(image, backing, plan, start) {
        Ok(memfd) => {
            let err = sys::execveat(memfd.as_fd(), &start.argv);
            let path = show_path(start.execfn);
            let hint = match err.raw_os_error() {
                Some(libc::E2BIG) => ": the arguments and the environment are too long (execve(2))",
                Some(libc::EACCES) => ": does a security policy forbid to execute a memfd?",
                _ => "",
            };
            Error::not_runnable(format!("{path}: execveat of the loader stub: {err}{hint}"))
        }
        Err(err) => err,
    }
}

fn compose_memfd(
    image: &Image,
    backing: &FileBacking,
    plan: &LaunchPlan,
    start: &Start<'_>,
) -> Result<File> {
    let fail =
        |what: &str, err: io::Error| Error::failed(format!("the session's memfd: {what}: {err}"));
    let memfd = create_memfd(start.execfn).map_err(|err| fail("memfd_create", err))?;
    // Above the numbers that programs use, so that AT_EXECFN tells the launch from the program's own fexecve().
    let memfd = rustix::io::fcntl_dupfd_cloexec(&memfd, LAUNCH_FD_MIN).map_or(memfd, File::from);
    let parts = compose(image, backing, plan, start, memfd.as_raw_fd() as u64)?;
    let len_bytes = parts
        .iter()
        .filter(|(_, bytes)| !bytes.is_empty())
        .map(|(at, bytes)| at + bytes.len() as u64)
        .max();
    with_file_size_limit(len_bytes.unwrap_or(0), || {
        for (at, bytes) in &parts {
            memfd
                .write_all_at(bytes, *at)
                .map_err(|err| fail("write", err))?;
        }
        Ok(())
    })?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memfd, seals).map_err(|err| fail("seal", err.into()))?;
    Ok(memfd)
}

/// Does `write` with a file size limit of at least `len_bytes`: RLIMIT_FSIZE counts for a memfd too, and SIGXFSZ would end
/// the launch without a word.
fn with_file_size_limit(len_bytes: u64, write: impl FnOnce() -> Result<()>) -> Result<()> {
    let limit = getrlimit(Resource::Fsize);
    if limit.current.is_none_or(|current| current >= len_bytes) {
        return write();
    }
    let raised = Rlimit {
        current: Some(len_bytes),
        ..limit
    };
    setrlimit(Resource::Fsize, raised).map_err(|err| {
        Error::failed(format!(
            "the limit of file sizes (ulimit -f, RLIMIT_FSIZE) is below the {len_bytes} bytes of the session's memfd, and \
             cannot be raised: {err}"
        ))
    })?;
    let result = write();
    setrlimit(Resource::Fsize, limit)
        .map_err(|err| Error::failed(format!("restoring RLIMIT_FSIZE: {err}")))?;
    result
}

fn create_memfd(execfn: &[u8]) -> io::Result<File> {
    let mut name = [MEMFD_PREFIX.as_bytes(), execfn].concat();
    name.truncate(MEMFD_NAME_MAX);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux 6.3 wants to be told that it will be executed; older ones do not know the flag.
    match rustix::fs::memfd_create(name.as_slice(), flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => {
            Ok(rustix::fs::memfd_create(name.as_slice(), flags)?.into())
        }
        Err(rustix::io::Errno::ACCESS) => Err(io::Error::other(
            "EACCES: this system forbids to execute memfds (sysctl vm.memfd_noexec=2); set it to 1 or 0",
        )),
        answer => Ok(answer?.into()),
    }
}

/// The parts of the memfd: offset and bytes of each. `wire.rs` has the picture.
fn compose(
    image: &Image,
    backing: &FileBacking,
    plan: &LaunchPlan,
    start: &Start<'_>,
    launch_fd: u64,
) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut pages = Vec::new();
    let mut mappings = Vec::new();
    let mut objects = [wire::Object {
        place: wire::PLACE_NONE,
        ..Default::default()
    }; 2];
    for (object, to) in plan.objects().zip(&mut objects) {
        *to = describe(plan, object, mappings.len());
        let mut file = None;
        for mapping in &object.mappings {
            let (source, at) = match mapping.source {
                Source::Zero => (wire::SOURCE_ZERO, 0),
                Source::Direct { at } => (wire::SOURCE_DIRECT, at.0),
                Source::Copied { .. } => {
                    let at = pages.len() as u64;
                    let file = match &file {
                        Some(file) => file,
                        None => file.insert(ImageFile::open(image, &object.inode)?),
                    };
                    pages.extend(mapping.copied_bytes(file)?.unwrap_or_default());
                    (wire::SOURCE_COPIED, at)
                }
            };
            let zero = mapping.clear.clone().unwrap_or_default();
            mappings.push(wire::Mapping {
                addr: mapping.pages.start(),
                len: mapping.pages.len_bytes(),
                prot: u64::from(mapping.prot.bits()),
                source,
                at,
                zero_start: zero.start,
                zero_len: zero.end - zero.start,
            });
        }
    }
    let mut strings = Vec::new();
    let strings_at = wire::MAPPINGS + (mappings.len() * size_of::<wire::Mapping>()) as u64;
    let mut string = |bytes: &[u8]| {
        let at = strings_at + strings.len() as u64;
        strings.extend_from_slice(bytes);
        strings.push(0);
        wire::Str {
            at,
            len: bytes.len() as u64,
        }
    };
    let identity = backing.identity();
    let program = &plan.program;
    let path = string(&start.image_path);
    let execfn = string(start.execfn);
    let len = strings_at + strings.len() as u64;
    let pages_at = (wire::RECORD + len).next_multiple_of(wire::PART);
    if pages_at + pages.len() as u64 > RESERVED_BYTES {
        return Err(Error::not_runnable(format!(
            "{}: {} bytes of it would have to be copied, too many; rebuild the image with xip-image build --xip=auto --xip=PATH",
            show_path(start.execfn),
            pages.len()
        )));
    }
    let record = wire::Record {
        magic: wire::MAGIC,
        len,
        pages_at,
        pages_len: pages.len() as u64,
        image: wire::Image {
            path,
            dev: [
                rustix::fs::major(identity.dev),
                rustix::fs::minor(identity.dev),
            ],
            ino: identity.ino,
            size: identity.size,
            mtime_s: identity.mtime_s,
            mtime_ns: identity.mtime_ns.cast_unsigned(),
        },
        execfn,
        comm: comm(start.execfn),
        launch_fd,
        objects,
        phdr: program.phdr_addr,
        phnum: u64::from(program.phnum),
        start_code: program.start_code,
        end_code: program.end_code,
        start_data: program.start_data,
        end_data: program.end_data,
        brk: program.brk,
        randomize: u64::from(is_relocatable(plan) && addresses_are_randomized()),
        mappings: mappings.len() as u64,
    };
    let mut record_bytes = sys::bytes_of(&record).to_vec();
    for mapping in &mappings {
        record_bytes.extend_from_slice(sys::bytes_of(mapping));
    }
    record_bytes.extend_from_slice(&strings);

    let mut code = elf_header(len, pages_at, pages.len() as u64, program.stack_exec);
    code.resize(wire::CODE as usize, 0);
    code.extend_from_slice(STUB);
    Ok(vec![
        (0, code),
        (wire::RECORD, record_bytes),
        (pages_at, pages),
    ])
}

fn describe(plan: &LaunchPlan, object: &ObjectPlan, first_mapping: usize) -> wire::Object {
    let is_program = std::ptr::eq(object, &plan.program);
    wire::Object {
        place: match object.kind {
            ElfKind::Fixed => wire::PLACE_FIXED,
            ElfKind::Relocatable if is_program && plan.interp.is_some() => wire::PLACE_PROGRAM,
            ElfKind::Relocatable => wire::PLACE_ANYWHERE,
        },
        span_start: object.span.start(),
        span_len: object.span.len_bytes(),
        align: object.align_bytes,
        entry: object.entry,
        first_mapping: first_mapping as u64,
        mappings: object.mappings.len() as u64,
    }
}

/// `comm`: the last component of the path, at most 15 bytes (`fs/exec.c begin_new_exec()`).
fn comm(execfn: &[u8]) -> [u8; 16] {
    let name = execfn
        .rsplit(|&byte| byte == b'/')
        .next()
        .unwrap_or_default();
    let mut comm = [0; 16];
    for (to, from) in comm.iter_mut().take(15).zip(name) {
        *to = *from;
    }
    comm
}

/// Has it objects whose address the stub chooses? Only for these it matters what the system says of random addresses.
fn is_relocatable(plan: &LaunchPlan) -> bool {
    plan.objects()
        .any(|object| object.kind == ElfKind::Relocatable)
}

/// `kernel.randomize_va_space`; where it cannot be read, addresses are randomized.
fn addresses_are_randomized() -> bool {
    std::fs::read("/proc/sys/kernel/randomize_va_space")
        .map_or(true, |text| !text.starts_with(b"0"))
}

/// The ELF header and program headers of the memfd, for the machine that this was compiled for: elf(5). Its `PT_GNU_STACK`
/// is the program's, or missing as there, so that the kernel itself does what follows from it: an executable stack, and
/// READ_IMPLIES_EXEC where a missing one means that (`arm_elf_read_implies_exec()`).
fn elf_header(record_len: u64, pages_at: u64, pages_len: u64, stack_exec: Option<bool>) -> Vec<u8> {
    const WIDE: bool = cfg!(target_pointer_width = "64");
    const MACHINE: u16 = match () {
        () if cfg!(target_arch = "x86_64") => 62,
        () if cfg!(target_arch = "aarch64") => 183,
        () if cfg!(target_arch = "riscv64") => 243,
        () => 40,
    };
    // EF_ARM_EABI_VER5 with hard float; RISC-V's double-float ABI with compressed code. The others have none.
    const FLAGS: u32 = match () {
        () if cfg!(target_arch = "arm") => 0x0500_0400,
        () if cfg!(target_arch = "riscv64") => 0x5,
        () => 0,
    };
    const R: u32 = 4;
    const RW: u32 = 6;
    const RWX: u32 = 7;
    const RX: u32 = 5;
    const PT_LOAD: u32 = 1;
    const PT_GNU_STACK: u32 = 0x6474_e551;
    let code_len = wire::CODE + STUB.len() as u64;
    let stack = stack_exec.map(|exec| (PT_GNU_STACK, if exec { RWX } else { RW }, 0, 0, 0));
    let segments: Vec<_> = [
        (PT_LOAD, RX, 0, STUB_BASE, code_len),
        (PT_LOAD, RX, 0, STUB_BASE + wire::TWIN, code_len),
        (
            PT_LOAD,
            R,
            wire::RECORD,
            STUB_BASE + wire::RECORD,
            record_len,
        ),
        (PT_LOAD, R, pages_at, STUB_BASE + pages_at, pages_len),
    ]
    .into_iter()
    .filter(|(.., len)| *len > 0)
    .chain(stack)
    .collect();
    let mut elf = Vec::with_capacity(wire::CODE as usize);
    let half = |elf: &mut Vec<u8>, value: u16| elf.extend_from_slice(&value.to_ne_bytes());
    let word = |elf: &mut Vec<u8>, value: u32| elf.extend_from_slice(&value.to_ne_bytes());
    let addr = |elf: &mut Vec<u8>, value: u64| match WIDE {
        true => elf.extend_from_slice(&value.to_ne_bytes()),
        false => elf.extend_from_slice(&(value as u32).to_ne_bytes()),
    };
    let data = if cfg!(target_endian = "big") { 2 } else { 1 };
    elf.extend_from_slice(&[0x7f, b'E', b'L', b'F', if WIDE { 2 } else { 1 }, data, 1, 0]);
    elf.extend_from_slice(&[0; 8]);
    half(&mut elf, 2); // ET_EXEC
    half(&mut elf, MACHINE);
    word(&mut elf, 1);
    addr(&mut elf, STUB_BASE + wire::CODE);
    addr(&mut elf, if WIDE { 64 } else { 52 }); // program headers follow
    addr(&mut elf, 0);
    word(&mut elf, FLAGS);
    half(&mut elf, if WIDE { 64 } else { 52 });
    half(&mut elf, if WIDE { 56 } else { 32 });
    half(&mut elf, segments.len() as u16);
    half(&mut elf, if WIDE { 64 } else { 40 });
    half(&mut elf, 0);
    half(&mut elf, 0);
    for (kind, flags, offset, vaddr, len) in segments {
        word(&mut elf, kind);
        if WIDE {
            word(&mut elf, flags);
        }
        for value in [offset, vaddr, vaddr, len, len] {
            addr(&mut elf, value);
        }
        if !WIDE {
            word(&mut elf, flags);
        }
        addr(&mut elf, if kind == PT_LOAD { wire::PART } else { 16 });
    }
    elf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comm_is_the_last_component_cut_to_15_bytes() {
        assert_eq!(&comm(b"/bin/busybox")[..8], b"busybox\0");
        assert_eq!(&comm(b"/a/0123456789abcdefgh"), b"0123456789abcde\0");
        assert_eq!(comm(b"/"), [0; 16]);
    }

    #[test]
    fn the_header_fits_before_the_code_and_goblin_reads_it() {
        let mut elf = elf_header(100, 3 * wire::PART, 4096, Some(false));
        assert!(elf.len() as u64 <= wire::CODE);
        elf.resize(wire::CODE as usize, 0);
        let parsed = goblin::elf::Elf::parse(&elf).unwrap();
        assert_eq!(parsed.entry, STUB_BASE + wire::CODE);
        assert_eq!(parsed.program_headers.len(), 5);
        assert!(
            parsed
                .program_headers
                .iter()
                .all(|phdr| phdr.p_flags & 3 != 3)
        );
    }
}
