//! Mappings of what holds an image: one to read from, and trials of others.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use super::process::fork_and_wait;

/// What is mapped, and how.
#[derive(Clone, Copy, Debug)]
pub struct Mapping<'a> {
    /// The device or file.
    pub fd: BorrowedFd<'a>,
    /// Offset in it, as mmap(2) takes it: page aligned.
    pub offset: u64,
    /// Bytes.
    pub len_bytes: usize,
    /// `MAP_SHARED`, else `MAP_PRIVATE`.
    pub shared: bool,
}

/// Why [`Mapping::store`] has failed.
#[derive(Debug)]
pub enum StoreError {
    /// It cannot be mapped so.
    Map(io::Error),
    /// What was written is not what is read, or it has changed what is mapped.
    NotPrivate,
    /// Who has written to it cannot fork.
    Fork(io::Error),
}

/// What [`StoreError::Fork`] says before the kernel's word.
pub const CANNOT_FORK: &str = "a process that has written to a private mapping of it cannot fork";

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Map(err) => write!(f, "mmap with PROT_WRITE: {err}"),
            Self::NotPrivate => f.write_str("what was written is not what is read"),
            Self::Fork(err) => write!(f, "{CANNOT_FORK}: {err}"),
        }
    }
}

/// What is mapped, unmapped in the end.
#[derive(Debug)]
struct Mapped {
    start: NonNull<u8>,
    len_bytes: usize,
}

impl Mapping<'_> {
    fn map(&self, prot: ProtFlags) -> io::Result<Mapped> {
        let sharing = match self.shared {
            true => MapFlags::SHARED,
            false => MapFlags::PRIVATE,
        };
        // SAFETY: a new mapping, wherever the kernel has room.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                self.len_bytes,
                prot,
                sharing,
                self.fd,
                self.offset,
            )?
        };
        Ok(Mapped {
            start: NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            len_bytes: self.len_bytes,
        })
    }

    /// Can it be mapped to be read from?
    ///
    /// # Errors
    /// The kernel's; so for the others.
    pub fn try_read(&self) -> io::Result<()> {
        self.map(ProtFlags::READ).map(drop)
    }

    /// Can it be mapped to be executed?
    ///
    /// # Errors
    /// EPERM on what is mounted `noexec`.
    pub fn try_execute(&self) -> io::Result<()> {
        self.map(ProtFlags::READ | ProtFlags::EXEC).map(drop)
    }

    /// Executes the return instruction that lies `at` bytes from its start, as [`find_return`] has found it. For a child under
    /// a time limit: where the mapping cannot be executed although the kernel gives it, this does not return.
    ///
    /// # Errors
    /// The kernel's, if it cannot be mapped so; `InvalidInput` if there is no such instruction.
    pub fn execute_return(&self, at: usize) -> io::Result<()> {
        let mapped = self.map(ProtFlags::READ | ProtFlags::EXEC)?;
        let window = Window(mapped);
        let mut bytes = [0; 4];
        let found = RETURNS.iter().find(|instruction| {
            let bytes = bytes.get_mut(..instruction.bytes.len()).unwrap_or_default();
            at.is_multiple_of(instruction.align_bytes)
                && window.read(bytes, at as u64)
                && bytes == instruction.bytes
        });
        let instruction = found.ok_or(io::ErrorKind::InvalidInput)?;
        let code = window.0.start.as_ptr().wrapping_add(at + instruction.mode);
        // SAFETY: what is called returns at once, and changes nothing: it is a return instruction.
        unsafe { std::mem::transmute::<*mut u8, extern "C" fn()>(code)() };
        Ok(())
    }

    /// Writes to a private mapping, and forks: x86 kernels refuse that to who has a copy of the first page of a mapping of
    /// physical memory (`arch/x86/mm/pat/memtype.c track_pfn_copy()`, Linux 6.9 to 6.15, and in their stable series older ones).
    /// For a child, as above.
    ///
    /// # Errors
    /// What cannot be done, or that what was written is not what is read then, or that others see it.
    pub fn store(&self) -> Result<(), StoreError> {
        let before = Window::map(self).map_err(StoreError::Map)?;
        let old = before.read_word(0);
        let private = self
            .map(ProtFlags::READ | ProtFlags::WRITE)
            .map_err(StoreError::Map)?;
        let word = private.start.as_ptr().cast::<u32>();
        // SAFETY: the mapping is writable, page aligned, and nobody else's.
        let now = unsafe {
            word.write_volatile(!old as u32);
            word.read_volatile()
        };
        if now != !old as u32 || before.read_word(0) != old {
            return Err(StoreError::NotPrivate);
        }
        fork_and_wait().map_err(StoreError::Fork)
    }
}

/// An instruction that returns from a function that has done nothing.
struct Return {
    bytes: &'static [u8],
    align_bytes: usize,
    /// What is added to its address in a pointer to the function: 1 for Thumb.
    mode: usize,
}

/// Those of this machine.
#[cfg(target_arch = "x86_64")]
const RETURNS: [Return; 1] = [Return {
    bytes: &[0xc3],
    align_bytes: 1,
    mode: 0,
}];
/// Those of this machine.
#[cfg(target_arch = "aarch64")]
const RETURNS: [Return; 1] = [Return {
    bytes: &0xd65f_03c0_u32.to_le_bytes(),
    align_bytes: 4,
    mode: 0,
}];
/// Those of this machine: `bx lr`, in either instruction set.
#[cfg(target_arch = "arm")]
const RETURNS: [Return; 2] = [
    Return {
        bytes: &0xe12f_ff1e_u32.to_le_bytes(),
        align_bytes: 4,
        mode: 0,
    },
    Return {
        bytes: &0x4770_u16.to_le_bytes(),
        align_bytes: 2,
        mode: 1,
    },
];
/// Those of this machine: `ret`, in its long and its short form.
#[cfg(target_arch = "riscv64")]
const RETURNS: [Return; 2] = [
    Return {
        bytes: &0x0000_8067_u32.to_le_bytes(),
        align_bytes: 4,
        mode: 0,
    },
    Return {
        bytes: &0x8082_u16.to_le_bytes(),
        align_bytes: 2,
        mode: 0,
    },
];

/// Where the first return instruction of this machine begins in `bytes`, which lie at a multiple of 4.
pub fn find_return(bytes: &[u8]) -> Option<usize> {
    let places = RETURNS.iter().filter_map(|instruction| {
        let len_bytes = instruction.bytes.len();
        let mut windows = bytes.windows(len_bytes).enumerate();
        let is_return = |(at, window): (usize, &[u8])| {
            at.is_multiple_of(instruction.align_bytes) && window == instruction.bytes
        };
        windows.find(|&window| is_return(window)).map(|(at, _)| at)
    });
    places.min()
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it was mapped here, and what borrowed from it is gone.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len_bytes) };
    }
}

/// A read-only mapping of a device, to read from: read(2) of /dev/mem fails where the kernel has no mapping of its own.
///
/// All accesses are of whole, aligned words: flash may be mapped as device memory, where others fault on some machines.
#[derive(Debug)]
pub struct Window(Mapped);

// SAFETY: it is only read, and the memory stays mapped as long as the value lives.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

const WORD_BYTES: usize = size_of::<usize>();

impl Window {
    /// Maps it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn map(mapping: &Mapping<'_>) -> io::Result<Self> {
        Ok(Self(mapping.map(ProtFlags::READ)?))
    }

    /// The word that holds a byte, which must be inside.
    fn read_word(&self, at: usize) -> usize {
        debug_assert!(at < self.0.len_bytes);
        let word = self.0.start.as_ptr().wrapping_add(at - at % WORD_BYTES);
        // SAFETY: aligned, as the mapping is, whose last page is mapped whole; flash is not Rust's memory: volatile.
        unsafe { word.cast::<usize>().read_volatile() }
    }

    /// Fills `buf` with the bytes from `at`; false if they are not all there.
    pub fn read(&self, buf: &mut [u8], at: u64) -> bool {
        let Ok(mut at) = usize::try_from(at) else {
            return false;
        };
        if at
            .checked_add(buf.len())
            .is_none_or(|end| end > self.0.len_bytes)
        {
            return false;
        }
        let mut rest = buf;
        while !rest.is_empty() {
            let word = self.read_word(at).to_ne_bytes();
            let bytes = word.get(at % WORD_BYTES..).unwrap_or_default();
            let take = bytes.len().min(rest.len());
            let (to, after) = rest.split_at_mut(take);
            to.copy_from_slice(bytes.get(..take).unwrap_or_default());
            at += take;
            rest = after;
        }
        true
    }

    /// Reads a byte of every so many, and the last one, so that what is not there is noticed: in a child, which may die of it.
    pub fn touch(&self, step_bytes: usize) {
        (0..self.0.len_bytes)
            .step_by(step_bytes)
            .chain(self.0.len_bytes.checked_sub(1))
            .for_each(|at| {
                std::hint::black_box(self.read_word(at));
            });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn any_bytes_can_be_read_and_none_beyond() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..8192_u32).map(|at| (at * 7 % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        let mapping = Mapping {
            fd: file.as_fd(),
            offset: 4096,
            len_bytes: 4000,
            shared: true,
        };
        let window = Window::map(&mapping).unwrap();
        for (at, len) in [(0, 0), (0, 1), (1, 2), (3, 21), (7, 8), (8, 8), (3989, 11)] {
            let mut buf = vec![0; len];
            assert!(window.read(&mut buf, at as u64));
            assert_eq!(buf, bytes[4096 + at..][..len]);
        }
        assert!(window.read(&mut [], 4000));
        for (at, len) in [(3999, 2), (4001, 0), (u64::MAX, 1)] {
            assert!(!window.read(&mut vec![0; len], at));
        }
        window.touch(64);
    }

    #[test]
    fn a_return_instruction_is_found_and_executed() {
        let mut file = tempfile::tempfile().unwrap();
        let mut bytes = vec![0x5a; 8192];
        assert_eq!(find_return(&bytes), None);
        bytes[4096 + 8..][..RETURNS[0].bytes.len()].copy_from_slice(RETURNS[0].bytes);
        assert_eq!(find_return(&bytes), Some(4096 + 8));
        file.write_all(&bytes).unwrap();
        let mapping = Mapping {
            fd: file.as_fd(),
            offset: 4096,
            len_bytes: 4096,
            shared: false,
        };
        mapping.execute_return(8).unwrap();
        let err = mapping.execute_return(16).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::InvalidInput);
        assert!(mapping.execute_return(1 << 20).is_err());
    }

    #[test]
    fn what_is_stored_privately_does_not_reach_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[5; 4096]).unwrap();
        let mapping = |shared| Mapping {
            fd: file.as_fd(),
            offset: 0,
            len_bytes: 4096,
            shared,
        };
        mapping(false).store().unwrap();
        // Of a shared mapping it does.
        let err = mapping(true).store().unwrap_err();
        assert!(matches!(err, StoreError::NotPrivate), "{err}");
    }
}
