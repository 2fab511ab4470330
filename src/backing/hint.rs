//! What a refusal means, and the way out: what a message says behind the kernel's own word.

use std::io;
use std::path::Path;

use super::device::Kind;
use super::open::Window;
use super::spec::show_range;
use super::system::System;
use crate::sys::Ended;

/// Why open(2) of an image or a device has failed.
pub(super) fn of_open(path: &Path, err: &io::Error, system: &System) -> String {
    let is_device = path.starts_with("/dev");
    match err.raw_os_error() {
        Some(libc::ENOENT) if path == Path::new("/dev/mem") => {
            "; is /dev mounted, and CONFIG_DEVMEM in this kernel?".to_owned()
        }
        Some(libc::ENOENT) if is_device => {
            "; is /dev mounted, and the device's driver there?".to_owned()
        }
        Some(libc::EPERM) if is_locked_down(system) => {
            "; the kernel is locked down: use a file on a DAX filesystem, or boot without lockdown"
                .to_owned()
        }
        Some(libc::EPERM | libc::EACCES) if path == Path::new("/dev/mem") => {
            "; it takes root's CAP_SYS_RAWIO".to_owned()
        }
        _ => String::new(),
    }
}

/// `/sys/kernel/security/lockdown` is `none [integrity] confidentiality` then.
fn is_locked_down(system: &System) -> bool {
    let text = system.text("/sys/kernel/security/lockdown");
    text.is_some_and(|text| text.contains('[') && !text.contains("[none]"))
}

/// Why mmap(2) has failed.
pub(super) fn of_map(
    kind: Kind,
    window: &Window,
    err: &io::Error,
    to_execute: bool,
    system: &System,
) -> String {
    match (kind, err.raw_os_error()) {
        (Kind::PciResource, Some(libc::EPERM)) if to_execute => {
            "; sysfs is mounted noexec, always; run from RAM with --copy-text".to_owned()
        }
        (Kind::PhysicalMemory, Some(libc::EPERM)) => {
            let cause = cause_of_refusal(window, system);
            match to_execute {
                true => "; is /dev mounted noexec? remount it with exec, or run from RAM with --copy-text".to_owned(),
                false => cause,
            }
        }
        (Kind::PhysicalMemory, Some(libc::EINVAL | libc::EAGAIN)) => {
            "; this machine has no such physical addresses, or something else has mapped them in another way"
                .to_owned()
        }
        (_, Some(libc::EPERM)) if to_execute => {
            "; is it on something that is mounted noexec? remount it with exec, or run from RAM with --copy-text".to_owned()
        }
        (Kind::DevDax, Some(libc::EINVAL)) => format!(
            "; its mappings have pages of {:#x} bytes: make it with smaller ones (ndctl create-namespace -m devdax --align \
             4k), or use a filesystem with DAX",
            window.align_bytes
        ),
        _ => String::new(),
    }
}

/// `drivers/char/mem.c range_is_allowed()`: ordinary memory never, and with CONFIG_IO_STRICT_DEVMEM nothing that a driver has.
fn cause_of_refusal(window: &Window, system: &System) -> String {
    let Some(addresses) = &window.addresses else {
        return String::new();
    };
    // Where no length was given: the first page says it.
    let page = crate::sys::page_size();
    let end = match window.len_known {
        true => addresses.end,
        false => addresses.start.saturating_add(page),
    };
    let addresses = &(addresses.start..end);
    let iomem = system.iomem();
    let names: Vec<&str> = iomem
        .overlapping(addresses)
        .map(|claim| claim.name.as_str())
        .collect();
    let range = show_range(addresses);
    match names.as_slice() {
        names if names.contains(&"System RAM") => format!(
            "; {range} is ordinary memory, which /dev/mem does not show (CONFIG_STRICT_DEVMEM): keep the kernel from using it \
             (x86: memmap=SIZE$ADDRESS on its command line; else a reserved-memory node with no-map)"
        ),
        [.., owner] => format!(
            "; {range} belongs to {owner:?} (/proc/iomem), and /dev/mem does not show what a driver has \
             (CONFIG_IO_STRICT_DEVMEM): boot with iomem=relaxed, or unbind the driver"
        ),
        [] => "; boot with iomem=relaxed if a driver has these addresses (/proc/iomem)".to_owned(),
    }
}

/// How a child ended, in words that go behind what it did.
pub(super) fn of_end(ended: &Ended) -> String {
    match ended {
        Ended::Succeeded => "succeeds".to_owned(),
        Ended::Failed(why) => format!("fails: {why}"),
        Ended::Exited(code) => format!("ends with {code}"),
        Ended::Killed(libc::SIGBUS) => "is a bus error (SIGBUS)".to_owned(),
        Ended::Killed(libc::SIGSEGV) => "is a fault (SIGSEGV)".to_owned(),
        Ended::Killed(libc::SIGILL) => "is an illegal instruction (SIGILL)".to_owned(),
        Ended::Killed(signal) => format!("ends by signal {signal}"),
        Ended::TimedOut => "never ends".to_owned(),
    }
}
