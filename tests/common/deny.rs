//! Features that a kernel has, taken away: a seccomp filter answers as a kernel without them does.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test crate uses its own part"
)]

/// A system call of this machine's that fails, with any arguments or only with this first one.
#[derive(Clone, Copy)]
pub struct Deny(pub libc::c_long, pub Option<u32>, pub i32);

pub const NO_SECCOMP: Deny = Deny(libc::SYS_seccomp, None, libc::ENOSYS);
/// `PR_SET_SECCOMP`, the older way to the same.
pub const NO_PRCTL_SECCOMP: Deny = Deny(libc::SYS_prctl, Some(22), libc::EINVAL);
/// `PR_SET_MM`, as without `CONFIG_CHECKPOINT_RESTORE`.
pub const NO_SET_MM: Deny = Deny(libc::SYS_prctl, Some(35), libc::EINVAL);
/// `CLONE_NEWUSER`
pub const NO_USER_NAMESPACE: Deny = Deny(libc::SYS_unshare, Some(0x1000_0000), libc::EPERM);

/// The filter that does it: seccomp(2).
pub fn filter(deny: &[Deny]) -> Vec<[u8; 8]> {
    const NUMBER: u32 = 0;
    const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };
    let instruction = |code: u16, if_true: u8, if_false: u8, k: u32| {
        let (code, k) = (code.to_ne_bytes(), k.to_ne_bytes());
        [code[0], code[1], if_true, if_false, k[0], k[1], k[2], k[3]]
    };
    let load = |from| instruction(0x20, 0, 0, from);
    let skip_unless = |value, skip| instruction(0x15, 0, skip, value);
    let answer = |value| instruction(0x06, 0, 0, value);
    let mut filter = Vec::new();
    for &Deny(number, argument, errno) in deny {
        let errno = answer(0x0005_0000 | errno as u32);
        filter.push(load(NUMBER));
        match argument {
            None => filter.extend([skip_unless(number as u32, 1), errno]),
            Some(argument) => filter.extend([
                skip_unless(number as u32, 3),
                load(FIRST_ARGUMENT),
                skip_unless(argument, 1),
                errno,
            ]),
        }
    }
    filter.push(answer(0x7fff_0000));
    filter
}
