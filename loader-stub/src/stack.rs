//! The initial stack: what the kernel put there, and the few things that must be changed.
//!
//! `binfmt_elf.c create_elf_tables()` lays it out, from low to high: argc, argv, NULL, envp, NULL, auxv; some bytes of
//! padding, `AT_RANDOM` and platform strings; then the strings of argv and of envp, and the path of the executed file.

use crate::mem;
use crate::wire::{Record, Str};

pub const AT_NULL: usize = 0;
pub const AT_PHDR: usize = 3;
pub const AT_PHNUM: usize = 5;
pub const AT_PAGESZ: usize = 6;
pub const AT_BASE: usize = 7;
pub const AT_ENTRY: usize = 9;
const AT_PLATFORM: usize = 15;
const AT_BASE_PLATFORM: usize = 24;
const AT_RANDOM: usize = 25;
pub const AT_EXECFN: usize = 31;
pub const AT_SYSINFO_EHDR: usize = 33;

const WORD: usize = size_of::<usize>();
/// No descriptor has as large a number.
const FD_LIMIT: usize = 1 << 24;

/// The block of words from argc to the end of auxv.
#[derive(Clone, Copy)]
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

/// How far the block moves down at most when strings of `strings_len` bytes are put above it, `args` of them as arguments:
/// the ABIs want the stack pointer at a multiple of 16.
pub fn room_bytes(strings_len: usize, args: usize) -> usize {
    (strings_len + args * WORD).next_multiple_of(16) + 16
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

    /// Addresses of argv and of envp.
    pub fn vectors(&self) -> (usize, usize) {
        (self.sp + WORD, self.sp + self.envp() * WORD)
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

    /// Where the stack ends, if nothing of it has been changed: the path is the last of all, but for a word of zeroes.
    pub fn end(&self, page: usize) -> usize {
        let path = self
            .aux(AT_EXECFN)
            .map_or(self.sp, |path| path + c_str(path).len());
        (path + WORD + page) & !(page - 1)
    }

    /// The descriptor through which this was executed (execveat(2): `/dev/fd/N`), if `AT_EXECFN` says so.
    pub fn executed_fd(&self) -> Option<usize> {
        let path = c_str(self.aux(AT_EXECFN)?);
        let number = path
            .strip_prefix(b"/dev/fd/")
            .or_else(|| path.strip_prefix(b"/proc/self/fd/"))?;
        parse_decimal(number)
    }

    /// Takes the first arguments away, an even number: their addresses.
    pub fn take_args<const N: usize>(&mut self) -> Option<[usize; N]> {
        let argc = self.argc.checked_sub(N)?;
        let mut args = [0; N];
        for (index, arg) in args.iter_mut().enumerate() {
            *arg = self.word(1 + index);
        }
        self.sp += N * WORD;
        self.argc = argc;
        self.set_word(0, argc);
        Some(args)
    }

    /// Moves the block down and puts the path, NUL included, into the room above it, for `AT_EXECFN` to point to.
    pub fn insert_path(&mut self, path: &[u8]) {
        let shift = path.len().next_multiple_of(16);
        let len = self.len_bytes();
        let to = self.sp - shift;
        // SAFETY: `working_stack` put the stub's own stack below `to`; from there to the block's end is ours.
        unsafe { mem::memmove(to as *mut u8, self.sp as *const u8, len) };
        self.sp = to;
        let room = to + len;
        // SAFETY: `room` has `shift` bytes, no fewer than the path; they were the old block's end.
        unsafe { mem::memmove(room as *mut u8, path.as_ptr(), path.len()) };
        self.set_aux(AT_EXECFN, room);
    }

    /// Puts `strings`, the first of which become `args` arguments, all of them, in the place of argv\[0\] (binfmt_script.c
    /// load_script()); the last one is what `AT_EXECFN` points to. They lie right before the string of argv\[1\], as
    /// /proc/PID/cmdline wants, so all that is below gives way.
    pub fn replace_argv0(&mut self, strings: &[u8], args: usize) {
        if self.argc == 0 {
            // Before Linux 5.18; nothing is in the way.
            return self.insert_path(strings);
        }
        let arg0 = self.word(1);
        let arg0_end = arg0 + c_str(arg0).len() + 1;
        let at = arg0_end - strings.len();
        let shift = arg0.saturating_sub(at).next_multiple_of(16);
        let old_end = self.sp + self.len_bytes();
        // argc, the new arguments, then the words behind argv[0]: these first, to where they were not.
        let tail = self.len_bytes() - 2 * WORD;
        let new_tail = ((old_end - shift - tail - (1 + args) * WORD) & !15) + (1 + args) * WORD;
        // SAFETY: `working_stack` put the stub's own stack below what moves down here; the words go first, then what
        // lies between them and the strings of argv, each over what has gone before.
        unsafe {
            mem::memmove(new_tail as *mut u8, (self.sp + 2 * WORD) as *const u8, tail);
            let between = old_end as *const u8;
            mem::memmove((old_end - shift) as *mut u8, between, arg0 - old_end);
            mem::memmove(at as *mut u8, strings.as_ptr(), strings.len());
        }
        self.sp = new_tail - (1 + args) * WORD;
        self.argc += args - 1;
        self.set_word(0, self.argc);
        let mut string = at;
        for number in 1..=args {
            self.set_word(number, string);
            self.set_aux(AT_EXECFN, string);
            string += c_str(string).len() + 1;
        }
        for kind in [AT_PLATFORM, AT_BASE_PLATFORM, AT_RANDOM] {
            if let Some(moved) = self.aux(kind).filter(|at| (old_end..arg0).contains(at)) {
                self.set_aux(kind, moved - shift);
            }
        }
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

/// Joins two strings that follow each other on the stack, NUL included.
pub fn join(first: usize, second: usize) -> &'static [u8] {
    let len = c_str(first).len();
    // SAFETY: the first one, without its NUL, moves up by that byte, and is right before the second.
    unsafe { mem::memmove((second - len) as *mut u8, first as *const u8, len) };
    c_str_nul(second - len)
}

/// The number that some digits are.
pub fn parse_decimal(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0_usize, |value, digit| match digit {
        b'0'..=b'9' => value
            .checked_mul(10)?
            .checked_add(usize::from(digit - b'0')),
        _ => None,
    })
}

/// A string that somebody vouches for: the kernel put it there, or has just read it. Without its NUL.
pub fn c_str(at: usize) -> &'static [u8] {
    let (_, string) = c_str_nul(at).split_last().unwrap_or((&0, &[]));
    string
}

/// The same with its NUL.
pub fn c_str_nul(at: usize) -> &'static [u8] {
    let start = at as *const u8;
    let mut len = 0;
    // SAFETY: the loop ends at the string's NUL; the slice is what it went over.
    unsafe {
        while *start.add(len) != 0 {
            len += 1;
        }
        core::slice::from_raw_parts(start, len + 1)
    }
}
