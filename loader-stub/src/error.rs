//! A failure ends the launch: one line on standard error, without an allocator, and an exit status or signal.

use crate::stack::c_str;
use crate::sys::{self, Errno};

/// Exit status of a program that was found but cannot be run.
pub const CANNOT_RUN: u8 = 126;
/// Exit status of a program that was not found.
const NOT_FOUND: u8 = 127;
/// Exit status of a failure of the launcher itself.
const LAUNCHER_FAILED: u8 = 125;

/// What a number is that is shown.
#[derive(Clone, Copy)]
pub enum Name {
    Addr,
    Len,
    Prot,
    Align,
    End,
    ImageOffset,
}

impl Name {
    /// As it is shown. The stub runs where it is not linked to, so it must have no table of pointers.
    fn text(self) -> &'static [u8] {
        const NAMES: [[u8; 13]; 6] = [
            *b"addr\0\0\0\0\0\0\0\0\0",
            *b"len\0\0\0\0\0\0\0\0\0\0",
            *b"prot\0\0\0\0\0\0\0\0\0",
            *b"align\0\0\0\0\0\0\0\0",
            *b"end\0\0\0\0\0\0\0\0\0\0",
            *b"image offset\0",
        ];
        c_str(NAMES[self as usize].as_ptr() as usize)
    }
}

/// Numbers to show, with their names.
pub type Args<'a> = &'a [(Name, usize)];

/// The program cannot be run: `xip-run: PROGRAM: WHAT(arg=…): ERRNO`, and its end.
#[cold]
#[inline(never)]
pub fn fail(what: &'static str, args: Args<'_>, errno: Option<Errno>) -> ! {
    say(crate::program_name(&mut [0; 16]), what, args, errno);
    crate::end_program()
}

/// The stub itself failed: the same, exit status 125.
#[cold]
#[inline(never)]
pub fn fail_launcher(what: &'static str, errno: Option<Errno>) -> ! {
    say(b"", what, &[], errno);
    sys::exit(LAUNCHER_FAILED)
}

/// The session's first program cannot be executed, by the path given: exit status 127 if there is none, else 126.
pub fn fail_exec(path: &[u8], errno: Errno) -> ! {
    let (what, code) = match errno {
        Errno::ENOENT => (
            "not found in the view, or its interpreter is not",
            NOT_FOUND,
        ),
        _ => ("cannot be executed", CANNOT_RUN),
    };
    say(path, what, &[], Some(errno));
    sys::exit(code)
}

/// A system call without which the program cannot be run.
pub trait OrFail<T> {
    /// The call's value, or the end.
    fn or_fail(self, what: &'static str, args: Args<'_>) -> T;
}

impl<T> OrFail<T> for Result<T, Errno> {
    fn or_fail(self, what: &'static str, args: Args<'_>) -> T {
        match self {
            Ok(value) => value,
            Err(errno) => fail(what, args, Some(errno)),
        }
    }
}

pub fn say(program: &[u8], what: &str, args: Args<'_>, errno: Option<Errno>) {
    let mut line = Line {
        bytes: [0; 400],
        len: 0,
    };
    line.push(b"xip-run: ");
    if !program.is_empty() {
        line.push(&program[..program.len().min(200)]);
        line.push(b": ");
    }
    line.push(what.as_bytes());
    let mut before: &[u8] = b"(";
    for (name, value) in args {
        line.push(before);
        line.push(name.text());
        line.push(b"=0x");
        line.number(*value, 16);
        before = b", ";
    }
    if !args.is_empty() {
        line.push(b")");
    }
    if let Some(errno) = errno {
        line.push(b": ");
        match errno.name() {
            b"" => {
                line.push(b"errno ");
                line.number(errno.0 as usize, 10);
            }
            name => line.push(name),
        }
    }
    line.push(b"\n");
    sys::write_stderr(&line.bytes[..line.len]);
}

struct Line {
    bytes: [u8; 400],
    len: usize,
}

impl Line {
    #[inline(never)]
    fn push(&mut self, text: &[u8]) {
        for &byte in text {
            if let Some(to) = self.bytes.get_mut(self.len) {
                *to = byte;
                self.len += 1;
            }
        }
    }

    fn number(&mut self, value: usize, base: usize) {
        if value >= base {
            self.number(value / base, base);
        }
        let digit = (value % base) as u8;
        self.push(&[digit + if digit < 10 { b'0' } else { b'a' - 10 }]);
    }
}
