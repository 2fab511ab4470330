//! Tells the kernel what execve(2) would have recorded: the break, auxv, what /proc/PID/stat, cmdline and exe show.

use crate::stack::Stack;
use crate::sys::{self, Fd};
use crate::{arch, place};

/// What execve(2) records of a program, all with the bias.
pub struct Described {
    pub start_code: usize,
    pub end_code: usize,
    pub start_data: usize,
    pub end_data: usize,
    /// The page boundary behind its bss.
    pub behind_bss: usize,
    /// False for a program that mmap(2) placed: load_elf_binary() moves the break then.
    pub has_room_for_brk: bool,
    pub randomize: bool,
}

/// It needs `CONFIG_CHECKPOINT_RESTORE`, and `exe`, what /proc/self/exe shall be, CAP_CHECKPOINT_RESTORE in the user
/// namespace (before Linux 5.9 CAP_SYS_ADMIN). Without it the program runs all the same, with a break that is far away
/// and an old /proc/PID/auxv. Returns whether `exe` is /proc/self/exe now.
pub fn to_kernel(program: &Described, exe: Option<Fd>, stack: &Stack, page: usize) -> bool {
    let brk = match program.has_room_for_brk {
        true => program.behind_bss,
        false => {
            let from = (arch::dyn_base(stack.sp) + page - 1) & !(page - 1);
            from + place::random_offset(program.randomize, stack.sp, page)
        }
    };
    let [arg_start, arg_end, env_start, env_end] = stack.string_ranges().map(|at| at as u64);
    let (auxv, auxv_len) = stack.auxv_bytes();
    let mut map = sys::MmMap {
        start_code: program.start_code as u64,
        end_code: program.end_code as u64,
        start_data: program.start_data as u64,
        end_data: program.end_data as u64,
        start_brk: 0,
        brk: 0,
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
    /// No vm.mmap_min_addr is higher.
    const MMAP_MIN_ADDR: usize = 0x1_0000;
    let described = [map.start_code, map.end_code, map.start_data, map.end_data];
    // No code at all, or addresses below vm.mmap_min_addr, are refused, and so is more data than RLIMIT_DATA allows,
    // which execve(2) does not mind.
    let others = [
        map.start_stack,
        map.start_stack + 1,
        map.start_stack,
        map.start_stack,
    ];
    for exe in [exe, None] {
        map.exe_fd = exe.map_or(u32::MAX, |fd| fd.0 as u32);
        // Kernels before 5.15 want the break above the data's end, not below it or at it.
        for (segments, brk) in [
            (described, brk),
            (described, program.behind_bss),
            (described, program.behind_bss + page),
            (others, brk),
            (others, brk.max(MMAP_MIN_ADDR)),
        ] {
            [map.start_code, map.end_code, map.start_data, map.end_data] = segments;
            (map.start_brk, map.brk) = (brk as u64, brk as u64);
            if sys::set_mm_map(&map).is_ok() {
                return exe.is_some();
            }
        }
    }
    false
}
