//! The seccomp filter of a session: which system calls the stub's handler takes over.
//!
//! It is installed once, by the session's first program, and inherited by all. A call that the handler has marked as its own
//! passes (wire.rs: `OWN_CALL` and others); that is how it makes the calls that it traps, and no security boundary. Source of
//! the format: seccomp(2), `include/uapi/linux/{filter,seccomp,audit}.h`.

use std::ops::RangeInclusive;

use crate::sys::wire;

/// One instruction of classic BPF, `struct sock_filter`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
}

impl Instruction {
    /// As the kernel reads it.
    pub(super) fn bytes(self) -> [u8; 8] {
        let [a, b] = self.code.to_ne_bytes();
        let [c, d, e, f] = self.k.to_ne_bytes();
        [a, b, self.if_true, self.if_false, c, d, e, f]
    }
}

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ABOVE: u16 = 0x25;
const JUMP_SET: u16 = 0x45;
const AND: u16 = 0x54;
/// With what was copied by [`COPY`].
const JUMP_EQUAL_COPY: u16 = 0x1d;
const COPY: u16 = 0x07;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const TRAP: u32 = 0x0003_0000 | wire::TRAP_DATA as u32;
const ERRNO: u32 = 0x0005_0000;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// `AUDIT_ARCH_*` of this machine.
const AUDIT_ARCH: u32 = match () {
    () if cfg!(target_arch = "x86_64") => 0xc000_003e,
    () if cfg!(target_arch = "aarch64") => 0xc000_00b7,
    () if cfg!(target_arch = "riscv64") => 0xc000_00f3,
    () => 0x4000_0028,
};

/// `__X32_SYSCALL_BIT`
const X32_SYSCALL_BIT: u32 = 0x4000_0000;
const MAP_ANONYMOUS: u32 = 0x20;
const SIG_UNBLOCK: u32 = 1;
/// execveat(2) flag, Linux 6.14.
const AT_EXECVE_CHECK: u32 = 0x10000;
/// io_uring_enter(2) flag.
const IORING_ENTER_EXT_ARG_REG: u32 = 1 << 6;

/// Where the low and high words of an argument are.
fn arg(number: u32) -> (u32, u32) {
    let at = 16 + 8 * number;
    if cfg!(target_endian = "big") {
        (at + 4, at)
    } else {
        (at, at + 4)
    }
}

fn load(at: u32) -> Instruction {
    Instruction {
        code: LOAD,
        if_true: 0,
        if_false: 0,
        k: at,
    }
}

fn jump(code: u16, k: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction {
        code,
        if_true,
        if_false,
        k,
    }
}

fn answer(k: u32) -> Instruction {
    Instruction {
        code: RETURN,
        if_true: 0,
        if_false: 0,
        k,
    }
}

const COPY_IT: Instruction = Instruction {
    code: COPY,
    if_true: 0,
    if_false: 0,
    k: 0,
};

/// What is loaded, but for other bits.
fn and(k: u32) -> Instruction {
    Instruction {
        code: AND,
        if_true: 0,
        if_false: 0,
        k,
    }
}

fn errno(errno: i32) -> Instruction {
    answer(ERRNO | errno.cast_unsigned())
}

/// What the filter is to know of the session.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// Numbers of the descriptors that programs cannot close.
    pub(super) kept: RangeInclusive<u32>,
    /// The process that programs can neither kill nor stop: `loader-stub/src/kill.rs`.
    pub(super) server: Option<u32>,
}

/// The filter of a session.
///
/// The number alone decides first, so that the kernel knows beforehand which calls always pass, and does not run the
/// filter for them (`seccomp_cache_prepare()`, Linux 5.11).
pub(super) fn filter(session: &Session) -> Vec<Instruction> {
    let mut program = vec![
        load(ARCH),
        jump(JUMP_EQUAL, AUDIT_ARCH, 1, 0),
        // Another ABI's numbers mean other calls.
        errno(libc::ENOSYS),
        load(NUMBER),
    ];
    if cfg!(target_arch = "x86_64") {
        program.extend([
            jump(JUMP_AT_LEAST, X32_SYSCALL_BIT, 0, 1),
            errno(libc::ENOSYS),
        ]);
    }
    // Each rule ends in an answer; a call that is not its own jumps over it, the number still loaded.
    for (number, body) in rules(session) {
        program.push(jump(JUMP_EQUAL, number as u32, 0, body.len() as u8));
        program.extend(body);
    }
    program.push(answer(ALLOW));
    program
}

/// A call passes if it is the handler's own.
fn own() -> [Instruction; 5] {
    let (low, high) = arg(5);
    [
        load(low),
        jump(JUMP_EQUAL, wire::OWN_CALL, 0, 3),
        load(high),
        jump(JUMP_EQUAL, 0, 0, 1),
        answer(ALLOW),
    ]
}

/// What is done with the calls that do not always pass, unless the stub itself makes them.
fn rules(session: &Session) -> Vec<(libc::c_long, Vec<Instruction>)> {
    let unless_own = |then: Instruction| {
        let mut body = own().to_vec();
        body.push(then);
        body
    };
    // What only reads, and what only unblocks, can do no harm.
    let if_pointer = |number: u32, then: Vec<Instruction>| {
        let (low, high) = arg(number);
        let mut body = vec![
            load(low),
            jump(JUMP_EQUAL, 0, 0, 3),
            load(high),
            jump(JUMP_EQUAL, 0, 0, 1),
            answer(ALLOW),
        ];
        body.extend(then);
        body
    };
    // The mask of a call that waits.
    let mask = |number: u32| {
        let rest = vec![
            load(arg(number).0),
            and(wire::OWN_POINTER_MASK),
            jump(JUMP_EQUAL, wire::OWN_POINTER, 0, 1),
            answer(ALLOW),
            answer(TRAP),
        ];
        if_pointer(number, rest)
    };
    let (first, last) = (*session.kept.start(), *session.kept.end());
    let keep = |number: u32| {
        let mut body = vec![
            load(arg(number).0),
            jump(JUMP_AT_LEAST, first, 0, 1),
            jump(JUMP_ABOVE, last, 0, 1),
            answer(ALLOW),
        ];
        body.extend(unless_own(errno(libc::EBADF)));
        body
    };
    // Unknown flags, and a descriptor onto itself, are the kernel's to refuse.
    let mut dup3 = vec![
        load(arg(2).0),
        jump(JUMP_EQUAL, 0, 2, 0),
        jump(JUMP_EQUAL, libc::O_CLOEXEC.cast_unsigned(), 1, 0),
        answer(ALLOW),
        load(arg(0).0),
        COPY_IT,
        load(arg(1).0),
        jump(JUMP_EQUAL_COPY, 0, 0, 1),
        answer(ALLOW),
    ];
    dup3.extend(keep(1));
    let mut enter = vec![
        load(arg(3).0),
        // Where the structure is no filter can see, nor the handler.
        jump(JUMP_SET, IORING_ENTER_EXT_ARG_REG, 0, 1),
        answer(ALLOW),
    ];
    enter.extend(mask(4));
    let mut unblock = vec![
        load(arg(0).0),
        jump(JUMP_EQUAL, SIG_UNBLOCK, 0, 1),
        answer(ALLOW),
    ];
    unblock.extend(if_pointer(1, unless_own(answer(TRAP))));
    let mut sigaction = own().to_vec();
    sigaction.extend([
        load(arg(0).0),
        jump(JUMP_EQUAL, libc::SIGSYS.cast_unsigned(), 1, 0),
        // Its default has a handler in its place: loader-stub/src/changed.rs.
        jump(JUMP_EQUAL, libc::SIGBUS.cast_unsigned(), 0, 1),
        answer(TRAP),
    ]);
    sigaction.extend(if_pointer(1, vec![answer(TRAP)]));
    let mut execveat = vec![
        load(arg(4).0),
        // It only asks.
        jump(JUMP_SET, AT_EXECVE_CHECK, 0, 1),
        answer(ALLOW),
    ];
    execveat.extend(unless_own(answer(TRAP)));
    let own_mapping = match cfg!(target_pointer_width = "32") {
        // The protection's upper half.
        true => vec![load(arg(2).0), and(0xffff_0000)],
        // The descriptor's.
        false => vec![load(arg(4).1)],
    };
    let mut mmap = vec![
        load(arg(3).0),
        jump(JUMP_SET, MAP_ANONYMOUS, 0, 1),
        answer(ALLOW),
    ];
    mmap.extend(own_mapping);
    mmap.extend([
        jump(JUMP_EQUAL, wire::OWN_MAPPING, 0, 1),
        answer(ALLOW),
        answer(TRAP),
    ]);
    #[allow(unused_mut, reason = "newer architectures have no older calls")]
    let mut rules = vec![
        (MMAP, mmap),
        (libc::SYS_rt_sigprocmask, unblock),
        (libc::SYS_rt_sigaction, sigaction),
        (libc::SYS_close, keep(0)),
        (libc::SYS_execve, vec![answer(TRAP)]),
        (libc::SYS_execveat, execveat),
        (libc::SYS_close_range, unless_own(answer(TRAP))),
        (libc::SYS_rt_sigsuspend, mask(0)),
        // The masks of these hold while they wait, and for the handlers that run then.
        (libc::SYS_ppoll, mask(3)),
        (libc::SYS_pselect6, mask(5)),
        (libc::SYS_epoll_pwait, mask(4)),
        (SYS_EPOLL_PWAIT2, mask(4)),
        (SYS_IO_PGETEVENTS, mask(5)),
        (libc::SYS_io_uring_enter, enter),
        // Its CLONE_CLEAR_SIGHAND cannot be seen here; every caller falls back to clone(2).
        (libc::SYS_clone3, vec![errno(libc::ENOSYS)]),
        (libc::SYS_dup3, dup3),
    ];
    if let Some(server) = session.server {
        let mut kill = vec![
            load(arg(1).0),
            jump(JUMP_EQUAL, libc::SIGKILL.cast_unsigned(), 1, 0),
            jump(JUMP_EQUAL, libc::SIGSTOP.cast_unsigned(), 0, 3),
            load(arg(0).0),
            // Everybody, or just that one.
            jump(JUMP_EQUAL, u32::MAX, 2, 0),
            jump(JUMP_EQUAL, server, 1, 0),
            answer(ALLOW),
        ];
        kill.extend(unless_own(answer(TRAP)));
        rules.push((libc::SYS_kill, kill));
    }
    #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
    rules.push((libc::SYS_dup2, keep(1)));
    #[cfg(target_arch = "arm")]
    rules.extend([(SYS_PPOLL_TIME64, mask(3)), (SYS_PSELECT6_TIME64, mask(5))]);
    rules
}

/// The same number everywhere; libc does not have it on all.
const SYS_EPOLL_PWAIT2: libc::c_long = 441;
const SYS_IO_PGETEVENTS: libc::c_long = match () {
    () if cfg!(target_arch = "x86_64") => 333,
    () if cfg!(target_arch = "arm") => 399,
    () => 292,
};
#[cfg(target_arch = "arm")]
const SYS_PSELECT6_TIME64: libc::c_long = 413;
#[cfg(target_arch = "arm")]
const SYS_PPOLL_TIME64: libc::c_long = 414;
#[cfg(target_arch = "arm")]
const MMAP: libc::c_long = libc::SYS_mmap2;
#[cfg(not(target_arch = "arm"))]
const MMAP: libc::c_long = libc::SYS_mmap;

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter on a call, as the kernel would.
    fn run(number: libc::c_long, args: [u64; 6], arch: u32) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&(number as u32).to_ne_bytes());
        data.extend_from_slice(&arch.to_ne_bytes());
        // The instruction's address, at which nothing looks.
        data.extend_from_slice(&[0xff; 8]);
        args.iter()
            .for_each(|arg| data.extend_from_slice(&arg.to_ne_bytes()));
        let program = filter(&Session {
            kept: 1000..=1003,
            server: Some(77),
        });
        let (mut at, mut value, mut copy) = (0, 0, 0);
        loop {
            let insn = program[at];
            at += 1;
            let truth = match insn.code {
                RETURN => return insn.k,
                LOAD => {
                    let from = insn.k as usize;
                    value = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                    continue;
                }
                AND => {
                    value &= insn.k;
                    continue;
                }
                COPY => {
                    copy = value;
                    continue;
                }
                JUMP_EQUAL => value == insn.k,
                JUMP_EQUAL_COPY => value == copy,
                JUMP_AT_LEAST => value >= insn.k,
                JUMP_ABOVE => value > insn.k,
                JUMP_SET => value & insn.k != 0,
                code => panic!("{code:#x}"),
            };
            at += usize::from(if truth { insn.if_true } else { insn.if_false });
        }
    }

    fn call(number: libc::c_long, args: [u64; 6]) -> u32 {
        run(number, args, AUDIT_ARCH)
    }

    #[test]
    fn it_traps_what_the_handler_does_and_nothing_else() {
        let errno = |number: i32| ERRNO | number as u32;
        assert_eq!(call(MMAP, [0, 4096, 1, 0x22, u64::MAX, 0]), ALLOW);
        assert_eq!(call(MMAP, [0, 4096, 1, 0x2, 3, 0]), TRAP);
        assert_eq!(call(libc::SYS_execve, [1; 6]), TRAP);
        assert_eq!(call(libc::SYS_getppid, [0; 6]), ALLOW);
        assert_eq!(
            call(libc::SYS_rt_sigprocmask, [0, 0, 0x1000, 8, 0, 0]),
            ALLOW
        );
        assert_eq!(
            call(libc::SYS_rt_sigprocmask, [1, 0x1000, 0, 8, 0, 0]),
            ALLOW
        );
        assert_eq!(
            call(libc::SYS_rt_sigprocmask, [0, 0x1000, 0, 8, 0, 0]),
            TRAP
        );
        assert_eq!(
            call(libc::SYS_rt_sigprocmask, [2, 1 << 32, 0, 8, 0, 0]),
            TRAP
        );
        assert_eq!(
            call(libc::SYS_rt_sigaction, [10, 0, 0x1000, 8, 0, 0]),
            ALLOW
        );
        assert_eq!(call(libc::SYS_rt_sigaction, [31, 0, 0x1000, 8, 0, 0]), TRAP);
        assert_eq!(call(libc::SYS_rt_sigaction, [7, 0, 0x1000, 8, 0, 0]), TRAP);
        assert_eq!(call(libc::SYS_rt_sigaction, [10, 0x1000, 0, 8, 0, 0]), TRAP);
        assert_eq!(call(libc::SYS_close, [999, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(
            call(libc::SYS_close, [1000, 0, 0, 0, 0, 0]),
            errno(libc::EBADF)
        );
        assert_eq!(
            call(libc::SYS_dup3, [3, 1001, 0, 0, 0, 0]),
            errno(libc::EBADF)
        );
        assert_eq!(call(libc::SYS_dup3, [1001, 1001, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_dup3, [3, 1001, 1, 0, 0, 0]), ALLOW);
        assert_eq!(
            call(libc::SYS_dup3, [1002, 1001, 0, 0, 0, 0]),
            errno(libc::EBADF)
        );
        assert_eq!(call(libc::SYS_close, [1004, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_clone3, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(call(libc::SYS_ppoll, [0; 6]), ALLOW);
        assert_eq!(call(libc::SYS_ppoll, [0, 0, 0, 0x1000, 8, 0]), TRAP);
        let enter = |flags, arg| call(libc::SYS_io_uring_enter, [3, 1, 1, flags, arg, 8]);
        assert_eq!(enter(1, 0), ALLOW);
        assert_eq!(enter(1, 0x1000), TRAP);
        assert_eq!(enter(9, 0x1000), TRAP);
        assert_eq!(enter(0x49, 0x1000), ALLOW);
        assert_eq!(call(libc::SYS_execveat, [3, 1, 1, 1, 0x1000, 0]), TRAP);
        assert_eq!(call(libc::SYS_execveat, [3, 1, 1, 1, 0x11000, 0]), ALLOW);
    }

    #[test]
    fn the_server_cannot_be_killed() {
        let kill = |pid: i32, signal| call(libc::SYS_kill, [pid as u64, signal, 0, 0, 0, 0]);
        for (pid, signal, answer) in [
            (-1, 9, TRAP),
            (77, 9, TRAP),
            (-1, 19, TRAP),
            (77, 19, TRAP),
            (-1, 15, ALLOW),
            (77, 18, ALLOW),
            (78, 9, ALLOW),
            (-77, 19, ALLOW),
            (0, 9, ALLOW),
        ] {
            assert_eq!(kill(pid, signal), answer, "{pid} {signal}");
        }
    }

    #[test]
    fn the_handlers_own_calls_pass_and_other_abis_do_not() {
        const OWN: u64 = wire::OWN_CALL as u64;
        for (number, arg) in [
            (libc::SYS_execveat, 3),
            (libc::SYS_rt_sigaction, 31),
            (libc::SYS_rt_sigaction, 10),
            (libc::SYS_rt_sigprocmask, 2),
            (libc::SYS_close_range, 3),
            (libc::SYS_close, 1001),
        ] {
            let answer = |last| call(number, [arg, 0x1000, 0x1000, 0x1000, 0, last]);
            assert_eq!(answer(OWN), ALLOW, "{number}");
            assert_ne!(answer(OWN ^ 1), ALLOW, "{number}");
            assert_ne!(answer(OWN ^ 1 << 32), ALLOW, "{number}");
        }
        assert_eq!(call(libc::SYS_dup3, [3, 1001, 0, 0, 0, OWN]), ALLOW);
        assert_eq!(call(libc::SYS_execve, [1, 1, 1, 0, 0, OWN]), TRAP);
        let odd = u64::from(0x1000 | wire::OWN_POINTER);
        for (number, at) in [
            (libc::SYS_rt_sigsuspend, 0),
            (libc::SYS_ppoll, 3),
            (libc::SYS_pselect6, 5),
            (libc::SYS_epoll_pwait, 4),
            (SYS_IO_PGETEVENTS, 5),
            (libc::SYS_io_uring_enter, 4),
        ] {
            for (pointer, answer) in [(odd, ALLOW), (odd + 1, TRAP), (0x1000, TRAP)] {
                let mut args = [0; 6];
                args[at] = pointer;
                assert_eq!(call(number, args), answer, "{number}");
            }
        }
        let (prot, fd) = wire::own_mapping(5, 3);
        assert_eq!(call(MMAP, [0, 4096, prot as u64, 2, fd as u64, 0]), ALLOW);
        assert_eq!(run(11, [0; 6], 0x4000_0003), ERRNO | libc::ENOSYS as u32);
    }
}
