//! Sealed memfds, and the ELF header that makes one an executable of the loader stub.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{Error, Result};
use crate::sys::wire;

/// Longest name of a memfd in bytes: memfd_create(2).
const NAME_MAX: usize = 249;
/// What the memfd's name starts with; `/proc/PID/maps` shows it after `/memfd:`.
pub const MEMFD_PREFIX: &str = "xip-run:";

/// Makes a memfd, close-on-exec, called [`MEMFD_PREFIX`] and `name`, of parts: the offset and the bytes of each, and zeroes up
/// to `len_bytes` at least, which take no memory. Nobody can change it afterwards.
///
/// # Errors
/// [`Kind::Failed`](crate::error::Kind), with what the kernel refused and the way out; [`Kind::Lacking`](crate::error::Kind)
/// if it has no such memfds.
pub(super) fn sealed(name: &[u8], parts: &[(u64, Vec<u8>)], len_bytes: u64) -> Result<File> {
    let fail =
        |what: &str, err: io::Error| Error::failed(format!("the session's memfd: {what}: {err}"));
    let memfd = create(name).map_err(|err| match err.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => fail("memfd_create", err),
        _ => Error::lacking(format!("the session's memfd: memfd_create: {err}")),
    })?;
    let len_bytes = parts
        .iter()
        .filter(|(_, bytes)| !bytes.is_empty())
        .map(|(at, bytes)| at + bytes.len() as u64)
        .fold(len_bytes, u64::max);
    with_file_size_limit(len_bytes, || {
        memfd
            .set_len(len_bytes)
            .map_err(|err| fail("ftruncate", err))?;
        for (at, bytes) in parts {
            memfd
                .write_all_at(bytes, *at)
                .map_err(|err| fail("write", err))?;
        }
        Ok(())
    })?;
    // Whoever opens it for writing, through /proc, would keep others from executing it (ETXTBSY).
    rustix::fs::fchmod(&memfd, Mode::from_raw_mode(0o555))
        .map_err(|err| fail("fchmod", err.into()))?;
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

fn create(name: &[u8]) -> io::Result<File> {
    let mut name = [MEMFD_PREFIX.as_bytes(), name].concat();
    name.truncate(NAME_MAX);
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

/// `PF_R`
pub(super) const R: u32 = 4;
/// `PF_W`
const W: u32 = 2;
/// `PF_X`
pub(super) const X: u32 = 1;

/// A part of a memfd that the kernel maps when it is executed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    /// `PF_` bits.
    pub(super) flags: u32,
    /// Offset in the memfd, bytes.
    pub(super) at: u64,
    /// Address.
    pub(super) addr: u64,
    /// Bytes; a segment of none is left out. It may be longer than the memfd, so that its addresses are taken.
    pub(super) len_bytes: u64,
}

/// The start of a memfd, for the machine that this was compiled for: ELF header and program headers (elf(5)) for the
/// segments, then the stub's code at [`wire::CODE`]. It is to be mapped at `base` (`ET_EXEC`), or where the kernel wants it:
/// where libraries are, with which it shares page tables then. The `PT_GNU_STACK` is the program's, or missing as there, so that the
/// kernel itself does what follows from it: an executable stack, and READ_IMPLIES_EXEC where a missing one means that
/// (`arm_elf_read_implies_exec()`).
pub(super) fn executable(
    stub: &[u8],
    base: Option<u64>,
    segments: &[Segment],
    stack_exec: Option<bool>,
) -> Vec<u8> {
    let mut elf = header(base, segments, stack_exec);
    elf.resize(wire::CODE as usize, 0);
    elf.extend_from_slice(stub);
    elf
}

fn header(base: Option<u64>, segments: &[Segment], stack_exec: Option<bool>) -> Vec<u8> {
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
    const ET_EXEC: u16 = 2;
    const ET_DYN: u16 = 3;
    const PT_LOAD: u32 = 1;
    const PT_GNU_STACK: u32 = 0x6474_e551;
    let stack = stack_exec.map(|exec| Segment {
        flags: if exec { R | W | X } else { R | W },
        ..Segment::default()
    });
    let loads = segments.iter().filter(|segment| segment.len_bytes > 0);
    let segments: Vec<_> = loads
        .map(|segment| (PT_LOAD, *segment))
        .chain(stack.map(|segment| (PT_GNU_STACK, segment)))
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
    half(&mut elf, if base.is_some() { ET_EXEC } else { ET_DYN });
    half(&mut elf, MACHINE);
    word(&mut elf, 1);
    addr(&mut elf, base.unwrap_or(0) + wire::CODE);
    addr(&mut elf, if WIDE { 64 } else { 52 }); // program headers follow
    addr(&mut elf, 0);
    word(&mut elf, FLAGS);
    half(&mut elf, if WIDE { 64 } else { 52 });
    half(&mut elf, if WIDE { 56 } else { 32 });
    half(&mut elf, segments.len() as u16);
    half(&mut elf, if WIDE { 64 } else { 40 });
    half(&mut elf, 0);
    half(&mut elf, 0);
    for (kind, segment) in segments {
        let Segment {
            flags,
            at,
            addr: address,
            len_bytes,
        } = segment;
        word(&mut elf, kind);
        if WIDE {
            word(&mut elf, flags);
        }
        for value in [at, address, address, len_bytes, len_bytes] {
            addr(&mut elf, value);
        }
        if !WIDE {
            word(&mut elf, flags);
        }
        // No more than every kernel's pages are: what asks for more newer kernels map twice, to find it.
        addr(&mut elf, if kind == PT_LOAD { 4096 } else { 16 });
    }
    elf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_fits_before_the_code_and_goblin_reads_it() {
        const BASE: u64 = 0x7000_0000;
        let segment = |part| Segment {
            flags: R | X,
            at: part * wire::PART,
            addr: BASE + part * wire::PART,
            len_bytes: 100 * part,
        };
        let segments = [0, 1, 2, 3, 4].map(segment);
        let elf = executable(&[0; 400], Some(BASE), &segments, Some(false));
        let parsed = goblin::elf::Elf::parse(&elf).unwrap();
        assert_eq!(parsed.entry, BASE + wire::CODE);
        assert_eq!(parsed.program_headers.len(), 5);
        assert!(header(Some(BASE), &segments, Some(false)).len() as u64 <= wire::CODE);
        assert!(
            parsed
                .program_headers
                .iter()
                .all(|phdr| phdr.p_flags & 3 != 3)
        );
    }
}
