//! The loader stub: what a program in place really executes first.
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
#![allow(
    clippy::result_large_err,
    reason = "there is no heap, and a failure is the last thing that is made"
)]

mod apply;
mod arch;
mod error;
mod mem;
mod stack;
mod sys;
#[allow(dead_code, reason = "some of it is the launcher's only")]
mod wire;

use error::{Failure, fail};

/// The record, mapped behind the stub by the kernel.
fn record() -> &'static wire::Record {
    // SAFETY: wire.rs: the kernel mapped the record there, read-only, when it executed the memfd; it is sealed, so
    // nothing changes it, and the launcher wrote it from the same source file.
    unsafe { &*((stub_base() + wire::RECORD as usize) as *const wire::Record) }
}

/// Where this copy of the stub is mapped: the linker's base for the first one.
fn stub_base() -> usize {
    arch::start_address() & !(wire::PART as usize - 1)
}

/// Called by `_start`: where the stub's own stack may begin. The block at `sp` moves down by as much as the record's
/// strings need, so the stub works below that.
extern "C" fn working_stack(sp: usize) -> usize {
    (sp - stack::shift_bytes(record()) - 128) & !15
}

/// Called by `_start` on that stack, with the stack pointer that the kernel gave.
extern "C" fn stub_main(sp: usize) -> ! {
    let record = record();
    if record.magic != wire::MAGIC {
        fail(
            b"",
            &Failure::new("the session's record is of another version").code(125),
        );
    }
    let program = stack::record_str(record, record.execfn);
    match start(record, sp) {
        Ok(never) => match never {},
        Err(failure) => fail(program, &failure),
    }
}

fn start(record: &'static wire::Record, sp: usize) -> Result<core::convert::Infallible, Failure> {
    let mut stack = stack::Stack::parse(sp);
    let page = stack.aux(stack::AT_PAGESZ).unwrap_or(4096);
    let first_start = stack.is_first_start(record);

    let image = apply::open_image(record)?;
    let [program, interpreter] = &record.objects;
    let program_bias = apply::map_object(record, program, image, sp, page)?;
    let interpreter_bias = match interpreter.place {
        wire::PLACE_NONE => None,
        _ => Some(apply::map_object(record, interpreter, image, sp, page)?),
    };
    sys::close(image);
    // A bias is a difference, which may be below zero: adding it wraps.
    let program_entry = (program.entry as usize).wrapping_add(program_bias);
    let entry = match interpreter_bias {
        Some(bias) => (interpreter.entry as usize).wrapping_add(bias),
        None => program_entry,
    };
    let phdr = (record.phdr as usize).wrapping_add(program_bias);
    stack.set_aux(stack::AT_PHDR, phdr);
    stack.set_aux(stack::AT_PHNUM, record.phnum as usize);
    stack.set_aux(stack::AT_ENTRY, program_entry);
    stack.set_aux(stack::AT_BASE, interpreter_bias.unwrap_or(0));
    if first_start {
        stack.insert_execfn(stack::record_str(record, record.execfn));
        sys::set_name(&record.comm);
    }
    apply::describe_to_kernel(record, &stack, program_bias, page);

    let base = stub_base();
    let moved_to = apply::move_beside_vdso(&stack, page);
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
    fail(
        b"",
        &Failure::new("the loader stub failed; this is a bug").code(125),
    )
}
