//! A failure, in one line of at most a screen's width, without an allocator.

use crate::sys::{self, Errno};

/// What went wrong: a system call with its arguments, and the kernel's answer.
pub struct Failure {
    what: &'static str,
    args: [(&'static str, usize); 4],
    errno: Option<Errno>,
    code: u8,
}

impl Failure {
    /// A failure that is no system call's.
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            args: [("", 0); 4],
            errno: None,
            code: 126,
        }
    }

    /// A system call's.
    pub fn syscall(what: &'static str, errno: Errno) -> Self {
        Self {
            errno: Some(errno),
            ..Self::new(what)
        }
    }

    /// The same with up to four arguments to show, as hexadecimal numbers.
    pub fn args(self, args: [(&'static str, usize); 4]) -> Self {
        Self { args, ..self }
    }

    /// The same with another exit status than 126.
    pub fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

/// Prints `xip-run: PROGRAM: WHAT(arg=…): ERRNO` to standard error and exits.
pub fn fail(program: &[u8], failure: &Failure) -> ! {
    let mut line = Line {
        bytes: [0; 400],
        len: 0,
    };
    line.push(b"xip-run: ");
    if !program.is_empty() {
        line.push(&program[..program.len().min(200)]);
        line.push(b": ");
    }
    line.push(failure.what.as_bytes());
    if !failure.args[0].0.is_empty() {
        for (number, (name, value)) in failure
            .args
            .iter()
            .filter(|(name, _)| !name.is_empty())
            .enumerate()
        {
            line.push(if number == 0 { b"(" } else { b", " });
            line.push(name.as_bytes());
            line.push(b"=0x");
            line.number(*value, 16);
        }
        line.push(b")");
    }
    if let Some(errno) = failure.errno {
        line.push(b": ");
        match errno.name() {
            Some(name) => line.push(name.as_bytes()),
            None => {
                line.push(b"errno ");
                line.number(errno.0 as usize, 10);
            }
        }
    }
    line.push(b"\n");
    sys::write_stderr(&line.bytes[..line.len]);
    sys::exit(failure.code)
}

struct Line {
    bytes: [u8; 400],
    len: usize,
}

impl Line {
    fn push(&mut self, text: &[u8]) {
        for &byte in text {
            if let Some(to) = self.bytes.get_mut(self.len) {
                *to = byte;
                self.len += 1;
            }
        }
    }

    fn number(&mut self, mut value: usize, base: usize) {
        let mut digits = [0; 20];
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b"0123456789abcdef"[value % base];
            value /= base;
            if value == 0 || first == 0 {
                break;
            }
        }
        self.push(&digits[first..]);
    }
}
