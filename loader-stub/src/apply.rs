//! Makes the address space what the record says.
//!
//! On entry: nothing but the stub, the stack and the vdso is mapped. On exit: the objects' pages and no others of them.

use crate::error::Failure;
use crate::stack::{self, Stack, record_str};
use crate::sys::{self, Errno, Fd};
use crate::wire::{self, Mapping, Object, Record};
use crate::{arch, stub_base};

/// Opens the image, and proves that it is the file that was planned with.
pub fn open_image(record: &'static Record) -> Result<Fd, Failure> {
    let path = record_str(
        record,
        wire::Str {
            len: record.image.path.len + 1,
            ..record.image.path
        },
    );
    let fd =
        sys::open(path).map_err(|errno| Failure::syscall("cannot open the image again", errno))?;
    let stat = match sys::statx(fd) {
        Ok(stat) => stat,
        // Linux before 4.11, or a sandbox: nothing to compare with.
        Err(Errno::ENOSYS | Errno::EPERM) => return Ok(fd),
        Err(errno) => return Err(Failure::syscall("statx of the image", errno)),
    };
    let image = &record.image;
    let found = (
        stat.dev,
        stat.ino,
        stat.size,
        stat.mtime_s,
        u64::from(stat.mtime_ns),
    );
    if found
        != (
            image.dev,
            image.ino,
            image.size,
            image.mtime_s,
            image.mtime_ns,
        )
    {
        return Err(Failure::new(
            "the image file was changed or replaced after the launch was planned; start again",
        ));
    }
    Ok(fd)
}

/// Maps an object and returns its bias: what to add to its addresses.
pub fn map_object(
    record: &'static Record,
    object: &Object,
    image: Fd,
    sp: usize,
    page: usize,
) -> Result<usize, Failure> {
    let bias = match object.place {
        wire::PLACE_FIXED => 0,
        _ => reserve(record, object, sp, page)?.wrapping_sub(object.span_start as usize),
    };
    let table = (&raw const *record as usize + wire::MAPPINGS as usize) as *const Mapping;
    // SAFETY: wire.rs: the launcher put that many mappings behind the record.
    let all = unsafe { core::slice::from_raw_parts(table, record.mappings as usize) };
    let first = object.first_mapping as usize;
    let mut mapped_end = object.span_start;
    for mapping in &all[first..first + object.mappings as usize] {
        if object.place != wire::PLACE_FIXED && mapping.addr > mapped_end {
            // A hole between segments: unmapped, as elf_map() leaves it.
            // SAFETY: (1) it is a part of the reservation that nothing was mapped into.
            let _ = unsafe {
                sys::munmap(
                    (mapped_end as usize).wrapping_add(bias),
                    (mapping.addr - mapped_end) as usize,
                )
            };
        }
        mapped_end = mapping.addr + mapping.len;
        map(
            record,
            mapping,
            image,
            bias,
            object.place == wire::PLACE_FIXED,
        )?;
    }
    let span_end = object.span_start + object.span_len;
    if object.place != wire::PLACE_FIXED && span_end > mapped_end {
        // SAFETY: (1) as above.
        let _ = unsafe {
            sys::munmap(
                (mapped_end as usize).wrapping_add(bias),
                (span_end - mapped_end) as usize,
            )
        };
    }
    Ok(bias)
}

/// Finds a place for a relocatable object and keeps it with a mapping that nothing can use.
fn reserve(record: &Record, object: &Object, sp: usize, page: usize) -> Result<usize, Failure> {
    let (len, align) = (object.span_len as usize, object.align as usize);
    let flags = sys::MAP_PRIVATE | sys::MAP_ANONYMOUS | sys::MAP_NORESERVE;
    let failed = |errno| {
        Failure::syscall("mmap", errno).args([("len", len), ("align", align), ("", 0), ("", 0)])
    };
    if object.place == wire::PLACE_PROGRAM {
        // binfmt_elf.c load_elf_binary(): ELF_ET_DYN_BASE plus arch_mmap_rnd(), aligned.
        let base = (arch::dyn_base(sp) + random_offset(record, sp, page)) & !(align - 1);
        // SAFETY: nothing is replaced.
        match unsafe {
            sys::mmap(
                base,
                len,
                sys::PROT_NONE,
                flags | sys::MAP_FIXED_NOREPLACE,
                None,
                0,
            )
        } {
            Ok(at) if at == base => return Ok(base),
            // SAFETY: (1) just mapped, by a kernel that takes the flag for a hint (before 4.17).
            Ok(at) => drop(unsafe { sys::munmap(at, len) }),
            Err(_) => {}
        }
        // Something is there; anywhere else will do.
    }
    let slack = align - page;
    // SAFETY: nothing is replaced.
    let at =
        unsafe { sys::mmap(0, len + slack, sys::PROT_NONE, flags, None, 0) }.map_err(failed)?;
    let base = (at + slack) & !(align - 1);
    for (start, end) in [(at, base), (base + len, at + len + slack)] {
        if end > start {
            // SAFETY: (1) a part of the reservation, unused.
            let _ = unsafe { sys::munmap(start, end - start) };
        }
    }
    Ok(base)
}

/// How far from `ELF_ET_DYN_BASE`: as many random pages as mmap(2) gets by default (`arch_mmap_rnd()`).
fn random_offset(record: &Record, sp: usize, page: usize) -> usize {
    if record.randomize == 0 || sys::wants_fixed_addresses() {
        return 0;
    }
    // Early at boot there may be nothing better than where the kernel put the stack.
    let random =
        sys::random().unwrap_or_else(|| (sp as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32);
    (random as usize & ((1 << arch::RANDOM_BITS) - 1)) * page
}

fn map(
    record: &Record,
    mapping: &Mapping,
    image: Fd,
    bias: usize,
    fixed: bool,
) -> Result<(), Failure> {
    let addr = (mapping.addr as usize).wrapping_add(bias);
    let (len, prot) = (mapping.len as usize, mapping.prot as usize);
    let shown = [
        ("addr", addr),
        ("len", len),
        ("prot", prot),
        ("image offset", mapping.at as usize),
    ];
    let failed = |what| move |errno| Failure::syscall(what, errno).args(shown);
    // A relocatable object replaces its own reservation; a fixed one must not replace anything (the stack, the stub).
    let how = sys::MAP_PRIVATE
        | if fixed {
            sys::MAP_FIXED_NOREPLACE
        } else {
            sys::MAP_FIXED
        };
    let at = match mapping.source {
        wire::SOURCE_DIRECT => {
            // SAFETY: (1) only the object's own reservation can be replaced.
            unsafe { sys::mmap(addr, len, prot, how, Some(image), mapping.at) }
                .map_err(failed("mmap"))?
        }
        wire::SOURCE_ZERO => {
            // SAFETY: (1) as above.
            unsafe { sys::mmap(addr, len, prot, how | sys::MAP_ANONYMOUS, None, 0) }
                .map_err(failed("mmap"))?
        }
        wire::SOURCE_COPIED => {
            // SAFETY: (1) as above.
            let at =
                unsafe { sys::mmap(addr, len, sys::PROT_NONE, how | sys::MAP_ANONYMOUS, None, 0) }
                    .map_err(failed("mmap"))?;
            if at == addr {
                let from = stub_base() + (record.pages_at + mapping.at) as usize;
                // SAFETY: (1) every copied page is moved once, into the place just reserved.
                unsafe { sys::move_mapping(from, len, addr) }.map_err(failed("mremap"))?;
                if prot != sys::PROT_READ {
                    // SAFETY: (1) the program asked for it.
                    unsafe { sys::mprotect(addr, len, prot) }.map_err(failed("mprotect"))?;
                }
            }
            at
        }
        _ => return Err(Failure::new("the session's record is of another version").code(125)),
    };
    if at != addr {
        return Err(Failure::new("something else is mapped where the program belongs").args(shown));
    }
    if mapping.zero_len != 0 {
        let start = (mapping.zero_start as usize).wrapping_add(bias);
        // SAFETY: the planner proved that the range lies in this mapping, and that it is writable.
        unsafe { core::slice::from_raw_parts_mut(start as *mut u8, mapping.zero_len as usize) }
            .fill(0);
    }
    Ok(())
}

/// Tells the kernel what execve(2) would have recorded: the break, auxv, and what /proc/PID/stat and cmdline show.
///
/// It needs `CONFIG_CHECKPOINT_RESTORE`. Without it the program runs all the same, with a break that is far away and an
/// old /proc/PID/auxv.
pub fn describe_to_kernel(record: &Record, stack: &Stack, bias: usize, page: usize) {
    let biased = |addr: u64| (addr as usize).wrapping_add(bias) as u64;
    let behind_bss = biased(record.brk);
    // A program that mmap(2) placed has no room for a break behind it: load_elf_binary() moves it then.
    let brk = match record.objects[0].place {
        wire::PLACE_ANYWHERE => (arch::dyn_base(stack.sp) + random_offset(record, stack.sp, page))
            .next_multiple_of(page) as u64,
        _ => behind_bss,
    };
    let [arg_start, arg_end, env_start, env_end] = stack.string_ranges().map(|at| at as u64);
    let (auxv, auxv_len) = stack.auxv_bytes();
    // Kernels before 5.15 want the break above the data's end, not below it or at it.
    for brk in [brk, behind_bss, behind_bss + page as u64] {
        let map = sys::MmMap {
            start_code: biased(record.start_code),
            end_code: biased(record.end_code),
            start_data: biased(record.start_data),
            end_data: biased(record.end_data),
            start_brk: brk,
            brk,
            start_stack: stack.sp as u64,
            arg_start,
            arg_end,
            env_start,
            env_end,
            auxv,
            auxv_size: auxv_len as u32,
            exe_fd: u32::MAX,
            #[cfg(target_pointer_width = "32")]
            pad: 0,
        };
        if sys::set_mm_map(&map).is_ok() {
            break;
        }
    }
}

/// Moves the stub's twin to where page tables exist already, beside the vdso, so that what stays of the stub costs no
/// memory of the process's own. Returns where it is now, `None` if it has to stay at its base.
pub fn move_beside_vdso(stack: &Stack, page: usize) -> Option<usize> {
    let vdso = stack.aux(stack::AT_SYSINFO_EHDR)?;
    let flags =
        sys::MAP_PRIVATE | sys::MAP_ANONYMOUS | sys::MAP_NORESERVE | sys::MAP_FIXED_NOREPLACE;
    let len = arch::stub_len().next_multiple_of(page);
    // The vdso has one to a few pages; what lies behind is free nearly always.
    for pages in 1..8 {
        let at = (vdso & !(page - 1)) + pages * page;
        // SAFETY: nothing is replaced.
        let Ok(got) = (unsafe { sys::mmap(at, len, sys::PROT_NONE, flags, None, 0) }) else {
            continue;
        };
        if got == at {
            // SAFETY: (1) the twin runs only from its new place, which was just reserved.
            return unsafe { sys::move_mapping(stub_base() + wire::TWIN as usize, len, at) }
                .ok()
                .map(|()| at);
        }
        // SAFETY: (1) just mapped, by a kernel that takes the flag for a hint.
        let _ = unsafe { sys::munmap(got, len) };
        return None;
    }
    None
}
