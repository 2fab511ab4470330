//! One program, planned ahead: a memfd of the stub, the plan and the pages that are copied.
//!
//! Being `/proc/self/exe`, the memfd can be executed again by the program itself (busybox does so for its applets), which
//! starts the same program in place once more.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use super::memfd::{self, R, Segment, X};
use super::{LAUNCH_STUB, RESERVED_BYTES, STUB_BASE, addresses_are_randomized, image_map};
use crate::backing::Backing;
use crate::cramfs::{Image, ImageFile, show_path};
use crate::elf::ElfKind;
use crate::error::{Error, Result};
use crate::plan::{LaunchPlan, ObjectPlan, Source};
use crate::sys::{self, wire};

/// Where the memfd's descriptor is looked for a place. Not above what the first table of descriptors has, which has as many
/// as a word has bits: the program would keep the larger one.
const LAUNCH_FD_MIN: i32 = usize::BITS.cast_signed() - 4;

/// What the program is started with.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The path as the caller gave it: `AT_EXECFN` and, its last component, `comm`.
    pub execfn: &'a [u8],
    /// `argv`, `argv[0]` included.
    pub argv: Vec<CString>,
    /// A path by which the program's process can open the image, each time that it is started.
    pub image_path: Vec<u8>,
}

/// Becomes the program. Returns only if that fails.
pub fn launch(image: &Image, backing: &Backing, plan: &LaunchPlan, launch: &Launch<'_>) -> Error {
    // Above the numbers that programs use, so that AT_EXECFN tells the launch from the program's own fexecve().
    let reserved = rustix::io::fcntl_dupfd_cloexec(backing, LAUNCH_FD_MIN)
        .or_else(|_| rustix::io::fcntl_dupfd_cloexec(backing, 0));
    let number = reserved.as_ref().map_or(-1, AsRawFd::as_raw_fd);
    let memfd = compose(image, backing, plan, launch, number)
        .and_then(|parts| memfd::sealed(launch.execfn, &parts, 0));
    drop(reserved);
    let memfd = match memfd {
        Ok(memfd) => memfd,
        Err(err) => return err,
    };
    let err = match rustix::io::fcntl_dupfd_cloexec(&memfd, number.max(0)) {
        Ok(memfd) => sys::execveat(memfd.as_fd(), &launch.argv),
        Err(err) => err.into(),
    };
    let path = show_path(launch.execfn);
    let hint = match err.raw_os_error() {
        Some(libc::E2BIG) => ": the arguments and the environment are too long (execve(2))",
        Some(libc::EACCES) => ": does a security policy forbid to execute a memfd?",
        _ => "",
    };
    Error::not_runnable(format!("{path}: execveat of the loader stub: {err}{hint}"))
}

/// The parts of the memfd: offset and bytes of each. `wire.rs` has the picture.
fn compose(
    image: &Image,
    backing: &Backing,
    plan: &LaunchPlan,
    launch: &Launch<'_>,
    launch_fd: RawFd,
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
    let path = string(&launch.image_path);
    let execfn = string(launch.execfn);
    let len = strings_at + strings.len() as u64;
    let pages_at = (wire::RECORD + len).next_multiple_of(wire::PART);
    if pages_at + pages.len() as u64 > RESERVED_BYTES {
        return Err(Error::not_runnable(format!(
            "{}: {} bytes of it would have to be copied, too many; rebuild the image with xip-image build --xip=auto --xip=PATH",
            show_path(launch.execfn),
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
            map: image_map(backing, plan.options.cow),
        },
        execfn,
        comm: comm(launch.execfn),
        launch_fd: launch_fd as u64,
        objects,
        phdr: program.phdr_addr,
        phnum: u64::from(program.phnum),
        // Without code mm->start_code stays what it is before there is any.
        start_code: match program.end_code {
            0 => u64::MAX,
            _ => program.start_code,
        },
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

    let code_len = wire::CODE + LAUNCH_STUB.len() as u64;
    let segment = |flags, at, from_base, len_bytes| Segment {
        flags,
        at,
        addr: STUB_BASE + from_base,
        len_bytes,
    };
    let segments = [
        segment(R | X, 0, 0, code_len),
        segment(R | X, 0, wire::TWIN, code_len),
        segment(R, wire::RECORD, wire::RECORD, len),
        segment(R, pages_at, pages_at, pages.len() as u64),
    ];
    let code = memfd::executable(LAUNCH_STUB, Some(STUB_BASE), &segments, program.stack_exec);
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
            ElfKind::Relocatable if !is_program && plan.program.kind == ElfKind::Fixed => {
                wire::PLACE_HINTED
            }
            ElfKind::Relocatable => wire::PLACE_ANYWHERE,
        },
        span_start: object.span.start(),
        span_len: object.span.len_bytes(),
        // load_elf_interp() asks for none.
        align: match is_program {
            true => object.align_bytes,
            false => plan.options.page.bytes(),
        },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comm_is_the_last_component_cut_to_15_bytes() {
        assert_eq!(&comm(b"/bin/busybox")[..8], b"busybox\0");
        assert_eq!(&comm(b"/a/0123456789abcdefgh"), b"0123456789abcde\0");
        assert_eq!(comm(b"/"), [0; 16]);
    }
}
