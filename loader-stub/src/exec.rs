//! execve(2) from inside a session: the target is opened and judged as the kernel would, then the stub is executed with it.
//!
//! On entry: a trapped call with its own pointers, in any thread, perhaps a vfork child that shares its parent's memory.
//! On exit: the process is another program; or an errno, with every descriptor that was made closed again and nothing
//! mapped. What the new program must know is told by more arguments, which it takes away again, or goes through a pipe, which
//! no RLIMIT_FSIZE limits: the caller's argv and envp are untouched.

use core::mem::MaybeUninit;

use crate::changed;
use crate::direct::{self, FirstPage};
use crate::elf::{self, Head, Header, Source};
use crate::session_record;
use crate::sigsys::set_action;
use crate::stack::{c_str, c_str_nul};
use crate::sys::{self, AT_EMPTY_PATH, AT_FDCWD, Errno, Fd, IoVec, SigAction};
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
/// The target, and as many interpreters as are opened before it is too many.
const FILES_MAX: usize = MAX_DEPTH + 2;

/// Executes; an errno if that fails.
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
        path: [IoVec::default(); 2],
        files: [fd; FILES_MAX],
        depth: 0,
        strings_len: 0,
        args: 0,
        interpreter: None,
        path_is_inaccessible: false,
        by_descriptor: false,
    };
    // alloc_bprm(): a path below a descriptor is shown as below /dev/fd.
    let mut dev_fd = *b"/dev/fd/\0\0\0\0\0\0\0\0\0\0\0\0";
    let bytes = c_str(path);
    let dir = dir as u32 as usize;
    let whole = IoVec {
        at: path,
        len: bytes.len() + 1,
    };
    if dir == AT_FDCWD as u32 as usize || bytes.starts_with(b"/") {
        call.path[1] = whole;
    } else {
        call.path_is_inaccessible = sys::is_close_on_exec(Fd(dir));
        let len = 8 + sys::decimal(dir, &mut dev_fd[8..]);
        if bytes.is_empty() {
            call.by_descriptor = true;
        } else {
            dev_fd[len] = b'/';
            call.path[1] = whole;
        }
        call.path[0] = IoVec {
            at: dev_fd.as_ptr() as usize,
            len: len + 1,
        };
    }
    call.strings_len = call.path[0].len + call.path[1].len;
    let errno = call.run();
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
        return changed::require_unchanged();
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

/// What the program asked for, and what it will be told. A vfork child may have as little stack as 5 KiB (posix_spawn(3)
/// of musl), so that what scripts add is not kept but read again.
struct Call {
    argv: usize,
    envp: usize,
    /// `/dev/fd/N/` or nothing, and the path, with NUL.
    path: [IoVec; 2],
    /// The target and the interpreters of scripts, as many as `depth`.
    files: [Fd; FILES_MAX],
    depth: usize,
    /// Bytes of the path and of what scripts put in front.
    strings_len: usize,
    args: u64,
    /// The program's `PT_INTERP`, opened.
    interpreter: Option<Fd>,
    /// The descriptor that the path begins with is closed by the time that an interpreter opens it.
    path_is_inaccessible: bool,
    /// There is no path, only a descriptor.
    by_descriptor: bool,
}

impl Call {
    /// Executes the target, which stays open.
    fn run(&mut self) -> Errno {
        let program = self.find_program();
        let fd = self.files[self.depth];
        let opened = program.and_then(|(interp, first)| open_interpreter_of(interp, fd, first));
        let errno = match opened {
            Ok(interpreter) => {
                self.interpreter = interpreter;
                self.start_by_args().unwrap_or_else(|| self.start())
            }
            Err(errno) => errno,
        };
        let scripts = &self.files[1..=self.depth];
        for &fd in scripts.iter().chain(&self.interpreter) {
            sys::close(fd);
        }
        errno
    }

    /// Opens interpreters until one is no script: where in it the path of its `PT_INTERP` is, and its first page, if that is
    /// in flash.
    #[inline(never)]
    fn find_program(&mut self) -> Result<((usize, usize), Option<FirstPage>), Errno> {
        let mut room = Head([0; HEAD_BYTES]);
        loop {
            let fd = self.files[self.depth];
            let first = FirstPage::of(fd);
            let (read, line) = read_script(fd, first.as_ref(), &mut room)?;
            let Some(line) = line else {
                // The kernel's own buffer ends in zeroes too.
                let (header, head) = match &first {
                    Some(first) => (first.bytes().first_chunk(), first.bytes()),
                    None => (room.0.first_chunk(), &room.0[..read]),
                };
                let header = header.and_then(Header::of);
                let header = header.filter(|header| header.is_program());
                let header = header.ok_or(Errno::ENOEXEC)?;
                return Ok((find_interpreter(header, Source { head, fd })?, first));
            };
            // Nothing is mapped while others are waited for: a vfork child may be killed there.
            drop(first);
            if self.path_is_inaccessible {
                return Err(Errno::ENOENT);
            }
            // The path is one.
            self.args = self.args.max(1);
            for string in line.iter().filter(|string| string.len != 0) {
                self.strings_len += string.len;
                self.args += 1;
            }
            let interpreter = open_interpreter(c_str_nul(line[0].at))?;
            self.depth += 1;
            self.files[self.depth] = interpreter;
            if self.depth > MAX_DEPTH {
                return Err(Errno::ELOOP);
            }
        }
    }

    /// Executes the boot memfd with more arguments, which are the start; `None` if there are scripts, or too many others.
    #[inline(never)]
    fn start_by_args(&self) -> Option<Errno> {
        /// How many pointers of argv are looked at.
        const ARGS_SEEN: usize = 12;
        /// How many the kernel reads at a time: an action's size.
        const STEP: usize = size_of::<SigAction>() / size_of::<usize>();
        let session = session_record();
        if session.starts_by_args == 0 || self.depth != 0 || self.argv == 0 {
            return None;
        }
        let mut argv = [0_usize; wire::START_ARGS + ARGS_SEEN];
        let (added, own) = argv.split_at_mut(wire::START_ARGS);
        let mut at = self.argv;
        for some in own.chunks_mut(STEP) {
            // No signal has the number 0.
            if set_action(0, at, 0) == Err(Errno::EFAULT) {
                return None;
            }
            for to in &mut *some {
                // SAFETY: the kernel has just read it.
                *to = unsafe { (at as *const usize).read_unaligned() };
                at += size_of::<usize>();
            }
            if some.contains(&0) {
                break;
            }
        }
        // An end must be there, and something before it.
        if own[0] == 0 || !own.contains(&0) {
            return None;
        }
        let mut numbers = [[0; 12]; 2];
        let program = self.files[0];
        for (fd, number) in [Some(program), self.interpreter]
            .into_iter()
            .flatten()
            .zip(&mut numbers)
        {
            sys::keep_open_on_exec(fd);
            sys::decimal(fd.0, number);
        }
        let [before, path] = self.path.map(|string| match string.len {
            0 => c"".as_ptr() as usize,
            _ => string.at,
        });
        let [program, interpreter] = numbers.each_ref().map(|number| number.as_ptr() as usize);
        added.copy_from_slice(&[program, interpreter, before, path]);
        let (boot, empty) = (session.boot_fd as usize, c"".as_ptr() as usize);
        let argv = argv.as_ptr() as usize;
        match sys::exec_at(boot, empty, argv, self.envp, AT_EMPTY_PATH) {
            // By so little more.
            Errno::E2BIG => None,
            errno => Some(errno),
        }
    }

    /// Executes the boot memfd; the descriptor before it is the pipe with the start.
    #[inline(never)]
    fn start(&self) -> Errno {
        let (params, input) = match sys::pipe() {
            Ok(ends) => ends,
            Err(errno) => return errno,
        };
        let written = self.write_start(input);
        sys::close(input);
        let errno = match written {
            Ok(written) if written == size_of::<Start>() + self.strings_len => {
                self.execute(self.files[self.depth], params)
            }
            // A script is another one by now.
            Ok(_) if self.depth != 0 => Errno::ETXTBSY,
            Ok(_) => Errno::ENOMEM,
            Err(errno) => errno,
        };
        sys::close(params);
        errno
    }

    /// How many bytes the start has: scripts put theirs in front, the last one's first.
    #[inline(never)]
    fn write_start(&self, to: Fd) -> Result<usize, Errno> {
        let start = Start {
            magic: wire::SESSION_MAGIC,
            program_fd: self.files[self.depth].0 as u64,
            interpreter_fd: self.interpreter.map_or(wire::NO_PROGRAM, |fd| fd.0 as u64),
            strings_len: self.strings_len as u64,
            args: self.args,
            by_descriptor: u64::from(self.by_descriptor),
        };
        let start = IoVec {
            at: &raw const start as usize,
            len: size_of::<Start>(),
        };
        if self.depth == 0 {
            return sys::write_vector(to, &[start, self.path[0], self.path[1]]);
        }
        let mut written = sys::write_vector(to, &[start])?;
        let mut head = Head([0; HEAD_BYTES]);
        for &script in self.files[..self.depth].iter().rev() {
            let line = read_script(script, None, &mut head)?.1;
            let line = line.ok_or(Errno::ETXTBSY)?;
            written += sys::write_vector(to, &line)?;
        }
        Ok(written + sys::write_vector(to, &self.path)?)
    }

    fn execute(&self, program: Fd, params: Fd) -> Errno {
        let (before, boot) = match neighbours(params) {
            Ok(pair) => pair,
            Err(errno) => return errno,
        };
        for fd in [program, before].into_iter().chain(self.interpreter) {
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

/// Reads what tells what a file is, unless its first page is there. A script's first line names the interpreter and at most
/// one argument for it: binfmt_script.c load_script(). Both end with NUL; no argument has no bytes. Also how many bytes were
/// read.
fn read_script(
    fd: Fd,
    first: Option<&FirstPage>,
    head: &mut Head<HEAD_BYTES>,
) -> Result<(usize, Option<[IoVec; 2]>), Errno> {
    head.0 = [0; HEAD_BYTES];
    let read = match first {
        Some(first) if !first.bytes().starts_with(b"#!") => return Ok((0, None)),
        Some(first) => direct::copy(first.bytes(), &mut head.0),
        None => sys::pread(fd, &mut head.0, 0)?,
    };
    if head.0[..2] != *b"#!" {
        return Ok((read, None));
    }
    let (name, arg) = parse_script(&mut head.0).ok_or(Errno::ENOEXEC)?;
    let string = |from: usize| {
        let at = &raw const head.0[from] as usize;
        let len = c_str(at).len() + 1;
        IoVec { at, len }
    };
    let line = [string(name), arg.map(string).unwrap_or_default()];
    Ok((read, Some(line)))
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

/// Where in a program its interpreter's path is, and how long: 0 without one.
#[inline(never)]
fn find_interpreter(header: &Header, source: Source<'_>) -> Result<(usize, usize), Errno> {
    let mut interp = (0, 0);
    let mut phdrs = header.phdrs(source);
    while interp.1 == 0 && phdrs.next().or(Err(Errno::ENOEXEC))? {
        if phdrs.phdr.kind == elf::PT_INTERP {
            interp = phdrs.phdr.interp();
        }
    }
    header.require_phdrs(source).or(Err(Errno::ENOEXEC))?;
    Ok(interp)
}

/// Opens a program's interpreter, if it has one. Of a missing or broken one the caller is to hear: once the stub runs it
/// would be too late.
#[inline(never)]
fn open_interpreter_of(
    interp: (usize, usize),
    fd: Fd,
    first: Option<FirstPage>,
) -> Result<Option<Fd>, Errno> {
    /// Longer paths have no room on the handler's stack, which may be small.
    const USUAL_PATH_MAX: usize = 256;
    const MAP_SHARED: usize = 1;
    let head = first.as_ref().map_or(&[][..], FirstPage::bytes);
    let source = Source { head, fd };
    if interp.1 <= USUAL_PATH_MAX {
        let mut room = MaybeUninit::<[u8; USUAL_PATH_MAX]>::uninit();
        if interp.1 == 0 {
            return Ok(None);
        }
        let path = elf::read_interpreter(source, interp, &mut room)?;
        drop(first);
        return judge_interpreter(path);
    }
    // Shared memory is not the program's data: RLIMIT_DATA.
    let flags = MAP_SHARED | sys::MAP_ANONYMOUS;
    // SAFETY: nothing is replaced.
    let at = unsafe { sys::mmap(0, elf::PATH_MAX, 3, flags, None, 0) }?;
    // SAFETY: just mapped, and nobody else's; any bytes will do.
    let room = unsafe { &mut *(at as *mut MaybeUninit<[u8; elf::PATH_MAX]>) };
    let judged = elf::read_interpreter(source, interp, room).and_then(|path| {
        drop(first);
        judge_interpreter(path)
    });
    // SAFETY: (1) nobody uses it any more.
    let _ = unsafe { sys::munmap(at, elf::PATH_MAX) };
    judged
}

/// Opens an interpreter, and reads its header.
fn judge_interpreter(path: &[u8]) -> Result<Option<Fd>, Errno> {
    let interpreter = open_interpreter(path)?;
    let judged = judge(interpreter);
    judged.inspect_err(|_| sys::close(interpreter))?;
    Ok(Some(interpreter))
}

/// Is that an interpreter? By its header.
#[inline(never)]
fn judge(fd: Fd) -> Result<(), Errno> {
    let mut room = Head([0; size_of::<Header>()]);
    let first = FirstPage::of(fd);
    let head = match &first {
        Some(first) => first.bytes(),
        None => {
            let read = sys::pread(fd, &mut room.0, 0)?;
            &room.0[..read]
        }
    };
    let whole = head.first_chunk().ok_or(Errno::EIO)?;
    let header = Header::of(whole).ok_or(Errno::ELIBBAD)?;
    let source = Source { head, fd };
    header.require_phdrs(source).or(Err(Errno::ELIBBAD))
}
