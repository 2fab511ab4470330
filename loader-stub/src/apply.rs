//! Makes the address space what the record says.
//!
//! On entry: nothing but the stub, the stack and the vdso is mapped. On exit: the objects' pages and no others of them.

use crate::arch::{self, stub_base};
use crate::error::{Name, OrFail, fail, fail_launcher};
use crate::image;
use crate::place::{self, Wanted};
use crate::stack::{Stack, record_str};
use crate::sys::{self, Errno, Fd};
use crate::wire::{self, Mapping, Object, Record};

/// Opens the image, and proves that it is the file that was planned with.
pub fn open_image(record: &'static Record) -> Fd {
    let path = record_str(
        record,
        wire::Str {
            len: record.image.path.len + 1,
            ..record.image.path
        },
    );
    let fd = sys::open(path).or_fail("cannot open the image again", &[]);
    let stat = match sys::statx(fd) {
        Ok(stat) => stat,
        // Linux before 4.11, or a sandbox: nothing to compare with.
        Err(Errno::ENOSYS | Errno::EPERM) => return fd,
        Err(errno) => fail("statx of the image", &[], Some(errno)),
    };
    let image = &record.image;
    let same_file = (stat.dev, stat.ino) == (image.dev, image.ino);
    let unchanged = image.map.flags & wire::IMAGE_DEVICE != 0
        || (stat.size, stat.mtime_s, u64::from(stat.mtime_ns))
            == (image.size, image.mtime_s, image.mtime_ns);
    if !same_file || !unchanged {
        fail(
            "the image file was changed or replaced after the launch was planned; start again",
            &[],
            None,
        );
    }
    fd
}

/// Maps an object and returns its bias: what to add to its addresses.
pub fn map_object(
    record: &'static Record,
    object: &Object,
    image: Fd,
    sp: usize,
    page: usize,
) -> usize {
    let bias = match object.place {
        wire::PLACE_FIXED => 0,
        place => {
            let want = Wanted {
                place,
                start: object.span_start as usize,
                len: object.span_len as usize,
                // A plan's segments ascend.
                first: 0,
                align: object.align as usize,
                randomize: record.randomize != 0,
            };
            place::find(&want, sp, page).wrapping_sub(want.start)
        }
    };
    let table = (&raw const *record as usize + wire::MAPPINGS as usize) as *const Mapping;
    // SAFETY: wire.rs: the launcher put that many mappings behind the record.
    let all = unsafe { core::slice::from_raw_parts(table, record.mappings as usize) };
    let first = object.first_mapping as usize;
    for mapping in &all[first..first + object.mappings as usize] {
        map(
            record,
            mapping,
            image,
            bias,
            object.place == wire::PLACE_FIXED,
        );
    }
    bias
}

fn map(record: &Record, mapping: &Mapping, image: Fd, bias: usize, fixed: bool) {
    let addr = (mapping.addr as usize).wrapping_add(bias);
    let (len, prot) = (mapping.len as usize, mapping.prot as usize);
    let shown = [
        (Name::Addr, addr),
        (Name::Len, len),
        (Name::Prot, prot),
        (Name::ImageOffset, mapping.at as usize),
    ];
    // A relocatable object's place was found free; a fixed one must not replace anything (the stack, the stub).
    let how = sys::MAP_PRIVATE
        | if fixed {
            sys::MAP_FIXED_NOREPLACE
        } else {
            sys::MAP_FIXED
        };
    let at = match mapping.source {
        wire::SOURCE_DIRECT => {
            let map = &record.image.map;
            // SAFETY: (1) nothing can be replaced but what the object has itself.
            unsafe { image::map(image, map, [addr, len, prot, how], mapping.at) }
                .or_fail("mmap", &shown)
        }
        wire::SOURCE_ZERO => {
            // SAFETY: (1) as above.
            unsafe { sys::mmap(addr, len, prot, how | sys::MAP_ANONYMOUS, None, 0) }
                .or_fail("mmap", &shown)
        }
        wire::SOURCE_COPIED => {
            // SAFETY: (1) as above.
            let at =
                unsafe { sys::mmap(addr, len, sys::PROT_NONE, how | sys::MAP_ANONYMOUS, None, 0) }
                    .or_fail("mmap", &shown);
            if at == addr {
                let from = stub_base() + (record.pages_at + mapping.at) as usize;
                // SAFETY: (1) every copied page is moved once, to what was just mapped.
                unsafe { sys::move_mapping(from, len, addr) }.or_fail("mremap", &shown);
                if prot != sys::PROT_READ {
                    // SAFETY: (1) the program asked for it.
                    unsafe { sys::mprotect(addr, len, prot) }.or_fail("mprotect", &shown);
                }
            }
            at
        }
        _ => fail_launcher("the session's record is of another version", None),
    };
    if at != addr {
        fail(
            "something else is mapped where the program belongs",
            &shown,
            None,
        );
    }
    if mapping.zero_len != 0 {
        let start = (mapping.zero_start as usize).wrapping_add(bias);
        // SAFETY: the planner proved that the range lies in this mapping, and that it is writable.
        unsafe { core::slice::from_raw_parts_mut(start as *mut u8, mapping.zero_len as usize) }
            .fill(0);
    }
}

/// Moves the stub's twin to where page tables exist already, so that what stays of the stub costs no memory of the process's
/// own. Returns where it is now, `None` if it has to stay at its base.
pub fn move_beside_stack(stack: &Stack, end: usize, page: usize) -> Option<usize> {
    let flags =
        sys::MAP_PRIVATE | sys::MAP_ANONYMOUS | sys::MAP_NORESERVE | sys::MAP_FIXED_NOREPLACE;
    let len = arch::stub_len().next_multiple_of(page);
    for at in place::beside_stack(stack, end, page) {
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
