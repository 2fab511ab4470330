//! The stub of a launch: what one program that was planned ahead really executes first.
//!
//! On entry: the kernel has executed the session memfd as it executes any static program. Close-on-exec is done,
//! signals, threads, timers and robust lists are reset, the stack holds argc, argv, envp and auxv, and the parts that
//! wire.rs lists are mapped. Nothing else may be assumed, not even that /proc is there.
//!
//! On exit: the program and its interpreter are mapped as the record says, the stack and what the kernel shows in
//! /proc say what execve(2) would have said, every register is zero, and of the stub one read-only, executable, shared
//! mapping is left. If that cannot be, one line on standard error and exit status 126, as a shell would have it.
//!
//! There is no writable data: the stub can be executed again through /proc/self/exe, and keeps no state.

#![no_std]
#![no_main]
#![no_builtins]

mod apply;
#[allow(dead_code, reason = "some of it is the session's only")]
mod arch;
mod describe;
#[allow(dead_code, reason = "some of it is the session's only")]
mod error;
mod image;
mod mem;
mod place;
#[allow(dead_code, reason = "some of it is the session's only")]
mod stack;
#[allow(dead_code, reason = "some of it is the session's only")]
mod sys;
#[allow(dead_code, reason = "some of it is the launcher's only")]
mod wire;

use arch::stub_base;
use describe::Described;
use error::fail_launcher;
use stack::Stack;

/// The record, mapped behind the stub by the kernel.
fn record() -> &'static wire::Record {
    // SAFETY: wire.rs: the kernel mapped the record there, read-only, when it executed the memfd; it is sealed, so
    // nothing changes it, and the launcher wrote it from the same source file.
    unsafe { &*((stub_base() + wire::RECORD as usize) as *const wire::Record) }
}

/// A program that cannot be loaded has never begun.
fn end_program() -> ! {
    sys::exit(error::CANNOT_RUN)
}

/// What messages call the program.
fn program_name(_: &mut [u8; 16]) -> &[u8] {
    stack::record_str(record(), record().execfn)
}

/// Called by `_start`: where the stub's own stack may begin. The block at `sp` moves down by as much as the path that is
/// put above it needs, so the stub works below that.
extern "C" fn working_stack(sp: usize) -> usize {
    let room = stack::room_bytes(record().execfn.len as usize + 1, 0);
    (sp - room - 128) & !15
}

/// Called by `_start` on that stack, with the stack pointer that the kernel gave.
extern "C" fn stub_main(sp: usize) -> ! {
    let mut stack = Stack::parse(sp);
    let page = stack.aux(stack::AT_PAGESZ).unwrap_or(4096);
    let record = record();
    if record.magic != wire::MAGIC {
        fail_launcher("the session's record is of another version", None);
    }
    let stack_end = stack.end(page);
    let first_start = stack.executed_fd() == Some(record.launch_fd as usize);

    let image = apply::open_image(record);
    let [program, interpreter] = &record.objects;
    let program_bias = apply::map_object(record, program, image, stack.sp, page);
    let interpreter_bias = match interpreter.place {
        wire::PLACE_NONE => None,
        _ => Some(apply::map_object(
            record,
            interpreter,
            image,
            stack.sp,
            page,
        )),
    };
    sys::close(image);
    // A bias is a difference, which may be below zero: adding it wraps.
    let biased = |addr: u64| (addr as usize).wrapping_add(program_bias);
    let entry = match interpreter_bias {
        Some(bias) => (interpreter.entry as usize).wrapping_add(bias),
        None => biased(program.entry),
    };
    stack.set_aux(stack::AT_PHDR, biased(record.phdr));
    stack.set_aux(stack::AT_PHNUM, record.phnum as usize);
    stack.set_aux(stack::AT_ENTRY, biased(program.entry));
    stack.set_aux(stack::AT_BASE, interpreter_bias.unwrap_or(0));
    // If not, the program executed /proc/self/exe, and the path and name that the kernel took from that are right.
    if first_start {
        let execfn = record.execfn;
        let with_nul = wire::Str {
            len: execfn.len + 1,
            ..execfn
        };
        stack.insert_path(stack::record_str(record, with_nul));
        sys::set_name(&record.comm);
    }
    let described = Described {
        start_code: biased(record.start_code),
        end_code: biased(record.end_code),
        start_data: biased(record.start_data),
        end_data: biased(record.end_data),
        behind_bss: biased(record.brk),
        has_room_for_brk: program.place != wire::PLACE_ANYWHERE,
        randomize: record.randomize != 0,
    };
    let _ = describe::to_kernel(&described, None, &stack, page);

    let base = stub_base();
    let moved_to = apply::move_beside_stack(&stack, stack_end, page);
    let code_len = arch::stub_len().next_multiple_of(page);
    let (code, moved_by) = match moved_to {
        Some(twin) => (base, twin.wrapping_sub(base)),
        None => (base + wire::TWIN as usize, 0),
    };
    // Part by part: what lies between them may be somebody else's, the vdso's for one. The copied pages have all been
    // moved. From here on the record is gone, so nothing may be read from it again, not even by an optimizer.
    let record_len = (record.len as usize).next_multiple_of(page);
    let (entry, sp, record_len) = core::hint::black_box((entry, stack.sp, record_len));
    // SAFETY: (1) the record is done with.
    let _ = unsafe { sys::munmap(base + wire::RECORD as usize, record_len) };
    // SAFETY: (1) `code` is the copy of the stub that does not stay. (2) the planner took the entry from the ELF header,
    // and the working stack begins far below `sp`.
    unsafe { arch::enter(entry, sp, code, code_len, moved_by) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    fail_launcher("the loader stub failed; this is a bug", None)
}
