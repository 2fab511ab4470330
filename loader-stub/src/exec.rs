//! execve(2) from inside a session: the target is opened and judged as the kernel would, then the stub is executed with it.
//!
//! On entry: a trapped call with its own pointers, in any thread, perhaps a vfork child that shares its parent's memory.
//! On exit: the process is another program; or an errno, with every descriptor that was made closed again and nothing
//! mapped. What the new program must know goes through a pipe, which no RLIMIT_FSIZE limits: argv and envp are the caller's,
//! untouched.

use core::mem::MaybeUninit;

use crate::elf::{self, Head, Header};
use crate::session_record;
use crate::stack::{c_str, c_str_nul};
use crate::sys::{self, AT_EMPTY_PATH, AT_FDCWD, Errno, Fd, IoVec};
use crate::wire::{self, Start};

const AT_SYMLINK_NOFOLLOW: usize = 0x100;
const S_IFMT: u16 = 0o170_000;
const S_IFREG: u16 = 0o100_000;
const S_IFLNK: u16 = 0o120_000;
/// How much of a file tells what it is: `BINPRM_BUF_SIZE`.
pub const HEAD_BYTES: usize = 256;
/// exec.c exec_binprm(): how many interpreters of interpreters.
const MAX_DEPTH: usize = 5;
/// Two strings of each script, and its path.
pub const ARGS_MAX: usize = 2 * (MAX_DEPTH + 1) + 1;
/// The start, `/dev/fd/N/`, and those.
const PARTS_MAX: usize = 2 + ARGS_MAX;

/// Executes; an errno if that fails (and after `AT_EXECVE_CHECK`).
pub fn exec(dir: usize, path: usize, argv: usize, envp: usize, flags: usize) -> Errno {
    let flags = flags as u32 as usize;
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return sys::check_exec_at(dir, path, argv, envp, flags);
    }
    if path == 0 {
        // statx(2) would take that for an empty one.
        return Errno::EFAULT;
    }
    let fd = match open_target(dir, path, flags) {
        Ok(fd) => fd,
        Err(errno) => return errno,
    };
    let mut call = Call {
        argv,
        envp,
        parts: [IoVec::default(); PARTS_MAX],
        first: PARTS_MAX,
        args: 0,
        path_is_inaccessible: false,
        by_descriptor: false,
    };
    // alloc_bprm(): a path below a descriptor is shown as below /dev/fd.
    let mut dev_fd = *b"/dev/fd/\0\0\0\0\0\0\0\0\0\0\0\0";
    let bytes = c_str(path);
    let dir = dir as u32 as usize;
    if dir == AT_FDCWD as u32 as usize || bytes.starts_with(b"/") {
        call.push(path, bytes.len() + 1);
    } else {
        call.path_is_inaccessible = sys::is_close_on_exec(Fd(dir));
        let mut len = 8 + sys::decimal(dir, &mut dev_fd[8..]);
        if bytes.is_empty() {
            call.by_descriptor = true;
            len += 1;
        } else {
            call.push(path, bytes.len() + 1);
            dev_fd[len] = b'/';
            len += 1;
        }
        call.push(dev_fd.as_ptr() as usize, len);
    }
    let errno = call.run(fd, 0);
    // The kernel looks at the vectors before it looks at what is in the file.
    let vectors = sys::check_exec(fd, argv, envp);
    sys::close(fd);
    match vectors {
        Errno::EFAULT | Errno::E2BIG => vectors,
        _ => errno,
    }
}

/// Opens what is to be executed: do_open_execat()'s rules. The kernel checks the path, which may be no pointer at all.
fn open_target(dir: usize, path: usize, flags: usize) -> Result<Fd, Errno> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let stat = sys::statx_at(dir, path, flags)?;
    match stat.mode & S_IFMT {
        S_IFREG => {}
        S_IFLNK => return Err(Errno::ELOOP),
        _ => return Err(Errno::EACCES),
    }
    let session = session_record();
    let fd = if (stat.dev, stat.ino) == (session.boot_dev, session.boot_ino) {
        // /proc/self/exe, where the kernel would not make it the program.
        sys::reopen(Fd(session.exe_fd as usize))?
    } else if flags & AT_EMPTY_PATH != 0 && c_str(path).is_empty() {
        let fd = Fd(dir as u32 as usize);
        // Without /proc, or the right to read what was opened by somebody else, the descriptor itself must do.
        sys::reopen(fd).or_else(|errno| match sys::is_path_only(fd) {
            true => Err(errno),
            false => sys::dup_from(fd, 0),
        })?
    } else {
        let nofollow = match flags & AT_SYMLINK_NOFOLLOW {
            0 => 0,
            _ => sys::O_NOFOLLOW,
        };
        sys::open_at(dir, path, nofollow)?
    };
    let verdict = sys::check_executable(fd, stat.mode).and_then(|()| ask_kernel(fd, &stat));
    verdict.map(|()| fd).inspect_err(|_| sys::close(fd))
}

/// ETXTBSY, and what a security module says: only the kernel knows (Linux 6.14). It takes its time, some 50 us, so it is not
/// asked about the image's files, to which nobody writes.
fn ask_kernel(fd: Fd, stat: &sys::Statx) -> Result<(), Errno> {
    if stat.dev == session_record().view_dev {
        return Ok(());
    }
    let argv = [c"".as_ptr() as usize, 0];
    match sys::check_exec(fd, &raw const argv as usize, &raw const argv[1] as usize) {
        errno @ (Errno::ETXTBSY | Errno::EACCES | Errno::EPERM) => Err(errno),
        _ => Ok(()),
    }
}

/// Opens an interpreter of a script or a program, by a path that ends with NUL.
fn open_interpreter(path: &[u8]) -> Result<Fd, Errno> {
    match path {
        // No name is the current directory's here.
        [0, ..] => Err(Errno::EACCES),
        _ => open_target(AT_FDCWD, path.as_ptr() as usize, 0),
    }
}

/// What the program asked for, and what it will be told.
struct Call {
    argv: usize,
    envp: usize,
    /// The start's bytes, from `first` on: scripts put theirs in front.
    parts: [IoVec; PARTS_MAX],
    first: usize,
    args: u64,
    /// The descriptor that the path begins with is closed by the time that an interpreter opens it.
    path_is_inaccessible: bool,
    /// There is no path, only a descriptor.
    by_descriptor: bool,
}

impl Call {
    /// An argument that a script adds.
    fn push_string(&mut self, at: usize) {
        self.push(at, c_str(at).len() + 1);
        self.args += 1;
    }

    fn push(&mut self, at: usize, len: usize) {
        self.first -= 1;
        self.parts[self.first] = IoVec { at, len };
    }

    /// Executes an open file that is `depth` scripts deep.
    fn run(&mut self, fd: Fd, depth: usize) -> Errno {
        if depth > MAX_DEPTH {
            return Errno::ELOOP;
        }
        let mut head = Head([0; HEAD_BYTES]);
        if let Err(errno) = sys::pread(fd, &mut head.0, 0) {
            return errno;
        }
        if head.0[..2] == *b"#!" {
            return self.run_script(&mut head.0, depth);
        }
        let header = head.0.first_chunk().and_then(Header::of);
        let Some(header) = header.filter(|header| header.is_program()) else {
            return Errno::ENOEXEC;
        };
        match check_interpreter(header, fd) {
            Ok(()) => self.start(fd),
            Err(errno) => errno,
        }
    }

    /// binfmt_script.c load_script(): the first line names the interpreter and at most one argument for it.
    fn run_script(&mut self, head: &mut [u8; HEAD_BYTES], depth: usize) -> Errno {
        let Some((name, arg)) = parse_script(head) else {
            return Errno::ENOEXEC;
        };
        if self.path_is_inaccessible {
            return Errno::ENOENT;
        }
        if depth == 0 {
            self.args = 1;
        }
        let name = &raw const head[name] as usize;
        if let Some(arg) = arg {
            self.push_string(&raw const head[arg] as usize);
        }
        self.push_string(name);
        match open_interpreter(c_str_nul(name)) {
            Err(errno) => errno,
            Ok(fd) => {
                let errno = self.run(fd, depth + 1);
                sys::close(fd);
                errno
            }
        }
    }

    /// Executes the boot memfd; the descriptor before it is the pipe with the start.
    fn start(&mut self, program: Fd) -> Errno {
        let session = session_record();
        let strings = &self.parts[self.first..];
        let strings_len = strings.iter().map(|part| part.len).sum::<usize>();
        let start = Start {
            magic: wire::SESSION_MAGIC,
            resident_fd: session.resident_fd,
            resident_len: session.len,
            program_fd: program.0 as u64,
            strings_len: strings_len as u64,
            args: self.args,
            by_descriptor: u64::from(self.by_descriptor),
        };
        self.push(&raw const start as usize, size_of::<Start>());
        let (params, input) = match sys::pipe() {
            Ok(ends) => ends,
            Err(errno) => return errno,
        };
        let whole = size_of::<Start>() + strings_len;
        let written = sys::write_vector(input, &self.parts[self.first..]);
        sys::close(input);
        let errno = match written {
            Ok(written) if written == whole => self.execute(program, params),
            Ok(_) => Errno::ENOMEM,
            Err(errno) => errno,
        };
        sys::close(params);
        errno
    }

    fn execute(&self, program: Fd, params: Fd) -> Errno {
        let (before, boot) = match neighbours(params) {
            Ok(pair) => pair,
            Err(errno) => return errno,
        };
        for fd in [program, before] {
            sys::keep_open_on_exec(fd);
        }
        let empty = c"".as_ptr() as usize;
        let errno = sys::exec_at(boot.0, empty, self.argv, self.envp, AT_EMPTY_PATH);
        sys::close(boot);
        if before != params {
            sys::close(before);
        }
        errno
    }
}

/// Copies of the start's pipe and of the boot memfd with numbers that follow each other; the first may be `params`
/// itself.
fn neighbours(params: Fd) -> Result<(Fd, Fd), Errno> {
    let boot_fd = Fd(session_record().boot_fd as usize);
    let mut before = params;
    loop {
        let answer = sys::dup_from(boot_fd, before.0 + 1);
        match answer {
            Ok(boot) if boot.0 == before.0 + 1 => return Ok((before, boot)),
            _ => {}
        }
        if before != params {
            sys::close(before);
        }
        // Something is in between: from there on.
        let boot = answer?;
        sys::close(boot);
        before = sys::dup_from(params, boot.0)?;
    }
}

/// Cuts the first line into the interpreter's name and its argument, each ended with NUL: where they start. Every range
/// has both its ends, as in binfmt_script.c.
fn parse_script(head: &mut [u8; HEAD_BYTES]) -> Option<(usize, Option<usize>)> {
    const LAST: usize = HEAD_BYTES - 1;
    let blank = |byte: u8| byte == b' ' || byte == b'\t';
    let filled = |head: &[u8], from: usize, to: usize| (from..=to).find(|&at| !blank(head[at]));
    let ended = |head: &[u8], from: usize, to: usize| {
        (from..=to).find(|&at| blank(head[at]) || head[at] == 0)
    };
    let mut end = match head.iter().position(|&byte| byte == b'\n') {
        Some(end) => end,
        None => {
            // Cut off: the name must end before that.
            ended(head, filled(head, 2, LAST)?, LAST)?;
            LAST
        }
    };
    while blank(head[end - 1]) {
        end -= 1;
    }
    let name = filled(head, 2, end).filter(|&name| name != end)?;
    let separator = ended(head, name, end);
    let arg = separator
        .filter(|&at| head[at] != 0)
        .and_then(|at| filled(head, at, end));
    head[end] = 0;
    if let (Some(at), Some(_)) = (separator, arg) {
        head[at] = 0;
    }
    Some((name, arg))
}

/// A missing or broken interpreter is the caller's to hear of: once the stub runs it would be too late.
fn check_interpreter(header: &Header, fd: Fd) -> Result<(), Errno> {
    /// Longer paths are left to the stub: the handler's stack may be small.
    const USUAL_PATH_MAX: usize = 256;
    let mut interp = (0, 0);
    let read = header.each_phdr(fd, &mut |phdr| {
        if phdr.kind == elf::PT_INTERP && interp.1 == 0 {
            interp = phdr.interp();
        }
        true
    });
    read.or(Err(Errno::ENOEXEC))?;
    if interp.1 == 0 || (USUAL_PATH_MAX + 1..=elf::PATH_MAX).contains(&interp.1) {
        return Ok(());
    }
    let mut room = MaybeUninit::<[u8; USUAL_PATH_MAX]>::uninit();
    let path = elf::read_interpreter(fd, interp, &mut room)?;
    let interpreter = open_interpreter(path)?;
    let mut head = Head([0; size_of::<Header>()]);
    let read = sys::pread(interpreter, &mut head.0, 0);
    sys::close(interpreter);
    match read? {
        read if read < head.0.len() => Err(Errno::EIO),
        _ if Header::of(&head.0).is_none() => Err(Errno::ELIBBAD),
        _ => Ok(()),
    }
}
