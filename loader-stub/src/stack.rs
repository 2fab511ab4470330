//! The initial stack: what the kernel put there, and the few things that must be changed.
//!
//! `binfmt_elf.c create_elf_tables()` lays it out, from low to high: argc, argv, NULL, envp, NULL, auxv; some bytes of
//! padding, `AT_RANDOM` and platform strings; then the strings of argv and of envp, and the path of the executed file.

use crate::wire::{Record, Str};

pub const AT_NULL: usize = 0;
pub const AT_PHDR: usize = 3;
pub const AT_PHNUM: usize = 5;
pub const AT_PAGESZ: usize = 6;
pub const AT_BASE: usize = 7;
pub const AT_ENTRY: usize = 9;
pub const AT_EXECFN: usize = 31;
pub const AT_SYSINFO_EHDR: usize = 33;

const WORD: usize = size_of::<usize>();

/// The block of words from argc to the end of auxv.
pub struct Stack {
    /// Where it starts: the program's stack pointer.
    pub sp: usize,
    argc: usize,
    envc: usize,
    auxc: usize,
}

/// A string of the record, without its NUL.
pub fn record_str(record: &'static Record, str: Str) -> &'static [u8] {
    let start = (&raw const *record as usize + str.at as usize) as *const u8;
    // SAFETY: wire.rs: the launcher put the string, and its NUL, into the record, which is mapped and never changes.
    unsafe { core::slice::from_raw_parts(start, str.len as usize) }
}

/// How far the block moves down to make room for the path: a multiple of 16, the alignment that the ABIs ask for.
pub fn shift_bytes(record: &Record) -> usize {
    (record.execfn.len as usize + 1).next_multiple_of(16)
}

impl Stack {
    /// Finds the parts of the block at `sp`.
    pub fn parse(sp: usize) -> Self {
        let mut stack = Self {
            sp,
            argc: 0,
            envc: 0,
            auxc: 0,
        };
        stack.argc = stack.word(0);
        while stack.word(stack.envp() + stack.envc) != 0 {
            stack.envc += 1;
        }
        while stack.word(stack.auxv() + 2 * stack.auxc) != AT_NULL {
            stack.auxc += 1;
        }
        stack.auxc += 1;
        stack
    }

    /// Index of the first word of envp.
    fn envp(&self) -> usize {
        1 + self.argc + 1
    }

    /// Index of the first word of auxv.
    fn auxv(&self) -> usize {
        self.envp() + self.envc + 1
    }

    fn len_bytes(&self) -> usize {
        (self.auxv() + 2 * self.auxc) * WORD
    }

    fn word(&self, index: usize) -> usize {
        // SAFETY: the kernel ends argv, envp and auxv with a zero each, and no index goes past the first one.
        unsafe { *((self.sp + index * WORD) as *const usize) }
    }

    fn set_word(&mut self, index: usize, value: usize) {
        // SAFETY: as in `word`; the stack is ours to write until the program starts.
        unsafe { *((self.sp + index * WORD) as *mut usize) = value };
    }

    /// The index of the value of an auxv entry.
    fn find_aux(&self, kind: usize) -> Option<usize> {
        (0..self.auxc)
            .map(|entry| self.auxv() + 2 * entry)
            .find(|&at| self.word(at) == kind)
            .map(|at| at + 1)
    }

    /// The value of an auxv entry.
    pub fn aux(&self, kind: usize) -> Option<usize> {
        self.find_aux(kind).map(|at| self.word(at))
    }

    /// Changes an auxv entry that is there (all that the stub changes always are).
    pub fn set_aux(&mut self, kind: usize, value: usize) {
        if let Some(at) = self.find_aux(kind) {
            self.set_word(at, value);
        }
    }

    /// Was this started by the launcher, through the memfd's descriptor? If not, the program executed /proc/self/exe,
    /// and the path and name that the kernel took from that are the right ones.
    pub fn is_first_start(&self, record: &Record) -> bool {
        let Some(execfn) = self.aux(AT_EXECFN) else {
            return true;
        };
        let path = c_str(execfn);
        let number = path
            .strip_prefix(b"/dev/fd/")
            .or_else(|| path.strip_prefix(b"/proc/self/fd/"));
        let Some(number) = number else { return false };
        let value = number.iter().try_fold(0_u64, |value, digit| match digit {
            b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
            _ => None,
        });
        value == Some(record.launch_fd)
    }

    /// Moves the block down and puts the path into the room above it, for `AT_EXECFN` to point to.
    pub fn insert_execfn(&mut self, path: &[u8]) {
        let shift = (path.len() + 1).next_multiple_of(16);
        let len = self.len_bytes();
        let to = self.sp - shift;
        // SAFETY: `working_stack` put the stub's own stack below `to`; from there to the block's end is ours.
        unsafe { core::ptr::copy(self.sp as *const u8, to as *mut u8, len) };
        self.sp = to;
        let room = to + len;
        // SAFETY: `room` has `shift` bytes, more than the path and its NUL; they were the old block's end.
        let room_bytes = unsafe { core::slice::from_raw_parts_mut(room as *mut u8, shift) };
        room_bytes.fill(0);
        for (to, from) in room_bytes.iter_mut().zip(path) {
            *to = *from;
        }
        self.set_aux(AT_EXECFN, room);
    }

    /// Address and length in bytes of auxv.
    pub fn auxv_bytes(&self) -> (usize, usize) {
        (self.sp + self.auxv() * WORD, 2 * self.auxc * WORD)
    }

    /// Where the strings of argv start and end, and those of envp: they lie one after the other.
    pub fn string_ranges(&self) -> [usize; 4] {
        let end = |first: usize, count: usize| {
            let last = self.word(first + count - 1);
            last + c_str(last).len() + 1
        };
        let arg_start = if self.argc > 0 { self.word(1) } else { self.sp };
        let arg_end = if self.argc > 0 {
            end(1, self.argc)
        } else {
            arg_start
        };
        let env_end = if self.envc > 0 {
            end(self.envp(), self.envc)
        } else {
            arg_end
        };
        [arg_start, arg_end, arg_end, env_end]
    }
}

/// A string that the kernel put on the stack.
fn c_str(at: usize) -> &'static [u8] {
    let start = at as *const u8;
    let mut len = 0;
    // SAFETY: argv, envp and AT_EXECFN point to strings that the kernel copied there, each with its NUL, where the
    // loop ends; the slice is what it went over.
    unsafe {
        while *start.add(len) != 0 {
            len += 1;
        }
        core::slice::from_raw_parts(start, len)
    }
}
