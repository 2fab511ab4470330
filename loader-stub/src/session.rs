//! The stub of a session: what every program of it really executes first, and what keeps it in place then.
//!
//! On entry: the kernel has executed the boot memfd, as `/dev/fd/N`, as it executes any static program. The descriptors of
//! the program and of its interpreter are named by the first arguments (`START_ARGS`), if N is the number at which all
//! programs keep the boot memfd; else by a [`Start`] in a pipe, N - 1. Close-on-exec is done, signals, threads, timers and
//! robust lists are reset, the stack holds argc, argv, envp and auxv. Nothing else may be assumed, not even that /proc is
//! there.
//!
//! On exit: the program and its interpreter are mapped, the stack and what the kernel shows in /proc say what execve(2)
//! would have said, every register is zero, and those descriptors are closed. Of the stub one read-only, executable mapping
//! is left, of the resident memfd: the handler of SIGSYS, to which the filter sends what must stay in place. It lies beside
//! the stack, where it takes no page table of its own. If that cannot be, one line on standard error and the end that the
//! kernel gives to a program that it cannot load: SIGSEGV (exec.c bprm_execve(), past the point of no return).
//!
//! There is no writable data: no state is kept, of this program or of another.

#![no_std]
#![no_main]
#![no_builtins]

#[allow(dead_code, reason = "some of it is the launch's only")]
mod arch;
mod changed;
mod describe;
mod direct;
mod elf;
#[allow(dead_code, reason = "some of it is the launch's only")]
mod error;
mod exec;
mod image;
mod kill;
mod mem;
mod place;
mod sigsys;
#[allow(dead_code, reason = "some of it is the launch's only")]
mod stack;
#[allow(dead_code, reason = "some of it is the launch's only")]
mod sys;
mod virtual_action;
mod waits;
#[allow(dead_code, reason = "some of it is the launcher's only")]
mod wire;

use core::mem::MaybeUninit;

use arch::stub_base;
use describe::Described;
use error::{OrFail, fail_exec, fail_launcher};
use stack::{Stack, c_str};
use sys::Fd;
use wire::Start;

/// The most that a [`Start`]'s strings can have: a path and what six scripts add to it.
const STRINGS_MAX: usize = elf::PATH_MAX + 6 * exec::HEAD_BYTES;

/// The record, there for the copy of the stub that `map_resident` has mapped.
fn session_record() -> &'static wire::Session {
    // SAFETY: wire.rs: the resident memfd has it there; it is sealed, so nothing changes it, and the launcher wrote it from
    // the same source file.
    unsafe { &*((stub_base() + wire::SESSION_RECORD as usize) as *const wire::Session) }
}

/// What messages call the program.
fn program_name(comm: &mut [u8; 16]) -> &[u8] {
    sys::name(comm);
    let len = comm.iter().position(|&byte| byte == 0).unwrap_or(0);
    &comm[..len]
}

/// The most that a start can have.
const START_MAX: usize = size_of::<Start>() + STRINGS_MAX;

/// In as many bytes the stub works if the limit of the stack's size leaves it no room there.
const WORK_BYTES: usize = wire::PART as usize;
/// How many of them are above its stack, for the start.
const WORK_START_BYTES: usize = START_MAX.next_multiple_of(16);

/// Maps them, if they are needed.
fn work_area() -> Option<usize> {
    if sys::stack_limit() >= WORK_BYTES as u64 {
        return None;
    }
    let flags = sys::MAP_PRIVATE | sys::MAP_ANONYMOUS;
    // SAFETY: nothing is replaced.
    unsafe { sys::mmap(0, WORK_BYTES, 3, flags, None, 0) }.ok()
}

/// Called by `_start`: where the stub's own stack may begin. The block at `sp` moves down by as much as the strings that
/// are put above it need, so the stub works below that. In between there is room for the start, half of it at least: each page
/// of the stack that is touched is a page fault.
extern "C" fn working_stack(sp: usize) -> usize {
    if let Some(start) = work_area() {
        return start + WORK_BYTES - WORK_START_BYTES;
    }
    let start_bytes = match start_fd(&Stack::parse(sp)) {
        Some(fd) => sys::readable_bytes(fd).min(START_MAX),
        None => 0,
    };
    let room = stack::room_bytes(start_bytes, exec::ARGS_MAX);
    (sp - room - start_bytes - 128) & !15
}

/// What the boot memfd says, to the copy of the stub that is its own.
fn boot() -> wire::Boot {
    // SAFETY: wire.rs: it is there, before the code.
    unsafe { *((stub_base() + wire::BOOT as usize) as *const wire::Boot) }
}

/// Is the start told by arguments?
fn is_told_by_args(stack: &Stack) -> bool {
    stack.executed_fd() == Some(boot().boot_fd as usize)
}

/// The descriptor before the boot memfd's, if the start is in a pipe.
fn start_fd(stack: &Stack) -> Option<Fd> {
    if is_told_by_args(stack) {
        return None;
    }
    stack.executed_fd()?.checked_sub(1).map(Fd)
}

/// Takes the start from the arguments: what it says, and the path, which is where it shall be.
fn take_start(stack: &mut Stack) -> Option<(Start, &'static [u8])> {
    let [program, interpreter, before, path] = stack.take_args::<{ wire::START_ARGS }>()?;
    let start = Start {
        magic: wire::SESSION_MAGIC,
        program_fd: stack::parse_decimal(c_str(program))? as u64,
        interpreter_fd: stack::parse_decimal(c_str(interpreter))? as u64,
        strings_len: 0,
        args: 0,
        by_descriptor: u64::from(c_str(path).is_empty()),
    };
    let path = stack::join(before, path);
    stack.set_aux(stack::AT_EXECFN, path.as_ptr() as usize);
    Some((start, path))
}

/// Reads the start to `room`, which is below `sp`: what it says, and its strings.
fn read_start(fd: Fd, room: usize, sp: usize) -> Option<(Start, &'static [u8])> {
    let room_bytes = (sp.wrapping_sub(room) / 2).min(START_MAX);
    // SAFETY: (1) `working_stack` kept as many; all of them are read at once, and any bytes are a Start.
    let (read, start) = unsafe {
        let read = sys::read_pipe(fd, room, room_bytes).ok()?;
        (read, *(room as *const Start))
    };
    let strings_len = read.checked_sub(size_of::<Start>())?;
    // SAFETY: as above.
    let strings = unsafe {
        core::slice::from_raw_parts((room + size_of::<Start>()) as *const u8, strings_len)
    };
    (start.magic == wire::SESSION_MAGIC
        && start.strings_len == strings_len as u64
        && start.args <= exec::ARGS_MAX as u64)
        .then_some((start, strings))
}

/// What the boot memfd's copy of the stub hands on to the resident one.
struct Handover {
    /// As the kernel gave it.
    stack: Stack,
    page: usize,
    /// Where the working stack begins.
    room: usize,
    /// The pipe with the start.
    params: Option<Fd>,
    /// Where the boot memfd is mapped.
    boot_base: usize,
}

/// Called by `_start` on that stack, with the stack pointer that the kernel gave, and where the stack begins.
extern "C" fn stub_main(sp: usize, room: usize) -> ! {
    let stack = Stack::parse(sp);
    let page = stack.aux(stack::AT_PAGESZ).unwrap_or(4096);
    let resident = map_resident(&boot(), &stack, page);
    let handover = Handover {
        stack,
        page,
        room,
        params: start_fd(&stack),
        boot_base: stub_base(),
    };
    let there = (go_on as *const () as usize).wrapping_add(resident.wrapping_sub(stub_base()));
    // SAFETY: it is the same function in the other copy of the stub, which has no address in it that it is linked to.
    let go_on: extern "C" fn(&Handover) -> ! = unsafe { core::mem::transmute(there) };
    go_on(&handover)
}

/// The same, from the resident memfd.
extern "C" fn go_on(from: &Handover) -> ! {
    let &Handover {
        mut stack,
        page,
        room,
        params,
        boot_base,
    } = from;
    // SAFETY: (1) nothing returns to there.
    let _ = unsafe { sys::munmap(boot_base, arch::stub_len()) };
    if session_record().magic != wire::SESSION_MAGIC {
        fail_launcher("the session's record is of another version", None);
    }
    let told = match params {
        Some(params) => read_start(params, room, stack.sp),
        None => take_start(&mut stack),
    };
    let (start, strings) = told.unwrap_or_else(|| {
        fail_launcher(
            "the loader stub of a session is no program of its own",
            None,
        )
    });
    if let Some(params) = params {
        // The boot memfd's was close-on-exec.
        sys::close(params);
    }
    if start.program_fd == wire::NO_PROGRAM {
        sigsys::install_filter();
        let (argv, envp) = stack.vectors();
        let path = strings.as_ptr() as usize;
        let errno = exec::exec(sys::AT_FDCWD, path, argv, envp, 0);
        fail_exec(c_str(path), errno)
    }
    if !direct::filter(session_record()).is_empty() {
        sigsys::install();
        changed::install();
    }

    let program = Fd(start.program_fd as usize);
    set_comm(&start, last_string(strings), program);
    let loaded = elf::load(program, stack.sp, page, None);
    let (mut entry, mut interpreter_bias) = (loaded.entry, 0);
    if loaded.interp.1 != 0 {
        let fd = Fd(start.interpreter_fd as usize);
        let interpreter = elf::load(fd, stack.sp, page, Some(&loaded));
        sys::close(fd);
        (entry, interpreter_bias) = (interpreter.entry, interpreter.bias);
    }
    if loaded.stack_exec.unwrap_or(arch::STACK_EXEC_DEFAULT) {
        make_stack_executable(stack.sp, page);
    }

    stack.set_aux(stack::AT_PHDR, loaded.phdr);
    stack.set_aux(stack::AT_PHNUM, loaded.phnum);
    stack.set_aux(stack::AT_ENTRY, loaded.entry);
    stack.set_aux(stack::AT_BASE, interpreter_bias);
    match start.args as usize {
        _ if params.is_none() => {}
        0 => stack.insert_path(strings),
        args => stack.replace_argv0(strings, args),
    }
    let described = Described {
        start_code: loaded.start_code,
        end_code: loaded.end_code,
        start_data: loaded.start_data,
        end_data: loaded.end_data,
        behind_bss: loaded.behind_bss,
        has_room_for_brk: loaded.fixed || loaded.interp.1 != 0,
        randomize: session_record().randomize != 0,
    };
    if !describe::to_kernel(&described, Some(program), &stack, page) {
        // For the day that it executes /proc/self/exe.
        sys::keep_as(program, Fd(session_record().exe_fd as usize));
    }
    sys::close(program);
    if direct::filter(session_record()).is_empty() {
        // Nothing is trapped, so nobody will ever ask for the session's.
        let session = session_record();
        (session.first_fd..=session.last_fd).for_each(|number| sys::close(Fd(number as usize)));
    }
    // mmap(2) keeps far more away from the stack (`MIN_GAP`, mm/util.c) than the stub takes of it.
    let is_in_work_area = from.stack.sp.wrapping_sub(room) >= WORK_BYTES;
    let (unmap, len) = match is_in_work_area {
        true => (room + WORK_START_BYTES - WORK_BYTES, WORK_BYTES),
        // A range of no bytes is refused.
        false => (1, 0),
    };
    // SAFETY: (1) that is the stack of what never comes back. (2) both are the loaded program's; the working stack begins
    // far below `sp`, or is elsewhere.
    unsafe { arch::enter(entry, stack.sp, unmap, len, 0) }
}

/// Maps the resident memfd beside the stack, or anywhere: its address.
fn map_resident(boot: &wire::Boot, stack: &Stack, page: usize) -> usize {
    const READ_EXEC: usize = 5;
    let (fd, len) = (Fd(boot.resident_fd as usize), boot.resident_len as usize);
    let map = |at, more| {
        // SAFETY: nothing is replaced.
        unsafe { sys::mmap(at, len, READ_EXEC, sys::MAP_PRIVATE | more, Some(fd), 0) }
    };
    for at in place::beside_stack(stack, stack.end(page), page) {
        if let Ok(at) = map(at, sys::MAP_FIXED_NOREPLACE) {
            return at;
        }
    }
    map(0, 0).unwrap_or_else(|errno| fail_launcher("mmap of the session's memfd", Some(errno)))
}

/// The last of some strings, without its NUL.
fn last_string(strings: &[u8]) -> &[u8] {
    let whole = strings.strip_suffix(b"\0").unwrap_or(strings);
    whole.rsplit(|&byte| byte == 0).next().unwrap_or(whole)
}

/// `comm`: the last component of the path, at most 15 bytes. For a program without a path it is its file's name since Linux
/// 6.14 (exec.c begin_new_exec(), `comm_from_dentry`): a kernel that has it so has given the stub's.
fn set_comm(start: &Start, path: &[u8], program: Fd) {
    match start.by_descriptor {
        0 => set_comm_of_path(path),
        _ => set_comm_by_descriptor(path, program),
    }
}

#[inline(never)]
fn set_comm_by_descriptor(path: &[u8], program: Fd) {
    let mut room = MaybeUninit::<[u8; elf::PATH_MAX]>::uninit();
    let mut shown: &[u8] = b"";
    if program_name(&mut [0; 16]).starts_with(b"memfd:") {
        shown = sys::path_of(program, &mut room);
    }
    set_comm_of_path(match shown {
        b"" => path,
        _ => shown.strip_suffix(b" (deleted)").unwrap_or(shown),
    });
}

fn set_comm_of_path(path: &[u8]) {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    let mut comm = [0; 16];
    for (to, from) in comm.iter_mut().take(15).zip(name) {
        *to = *from;
    }
    sys::set_name(&comm);
}

/// A program that cannot be loaded ends as it would by the kernel.
fn end_program() -> ! {
    /// No user space has this page.
    const KERNELS: usize = usize::MAX & !0xfff;
    // SAFETY: nothing can be read there. Whatever is set for SIGSEGV, it is for the program that is gone, or the kernel
    // forces the default.
    unsafe { core::ptr::read_volatile(KERNELS as *const u8) };
    sys::exit(error::CANNOT_RUN)
}

/// `PT_GNU_STACK` with `PF_X`: binfmt_elf.c `EXSTACK_ENABLE_X`.
fn make_stack_executable(sp: usize, page: usize) {
    const RWX: usize = 7;
    // SAFETY: (1) more is allowed than before.
    unsafe { sys::mprotect(sp & !(page - 1), page, RWX | sys::PROT_GROWSDOWN) }.or_fail(
        "mprotect of the stack, which the program wants executable",
        &[],
    );
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    fail_launcher("the loader stub failed; this is a bug", None)
}
