//! What must be mounted and found before there is an image.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::MountFlags;

use crate::backing::Backing;
use crate::backing::spec::Spec;
use crate::error::{Error, Result};

/// How long a device may take to appear: drivers look for their hardware in their own time.
const DEVICE_LIMIT: Duration = Duration::from_secs(5);

/// Mounts /proc, /sys and /dev, where they are not mounted yet. Their directories are made, if need be.
///
/// # Errors
/// With what the kernel must have.
pub(super) fn prepare() -> Result<()> {
    let noexec = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // /dev must not be noexec: the image is mapped from a device.
    for (kind, dir, flags, option) in [
        ("proc", "/proc", noexec, "CONFIG_PROC_FS"),
        ("sysfs", "/sys", noexec, "CONFIG_SYSFS"),
        ("devtmpfs", "/dev", MountFlags::NOSUID, "CONFIG_DEVTMPFS"),
    ] {
        let _ = fs::create_dir(dir);
        match rustix::mount::mount(kind, dir, kind, flags, None) {
            // It is there already.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(Errno::NODEV) => {
                return Err(Error::lacking(format!("{dir}: the kernel has no {option}")));
            }
            Err(err) => return Err(Error::failed(format!("mount {kind} on {dir}: {err}"))),
        }
    }
    Ok(())
}

/// Mounts `DEVICE:DIR:TYPE[:OPTIONS]`, once the device is there.
///
/// # Errors
/// If it has another form, or cannot be mounted.
pub(super) fn mount(text: &str) -> Result<()> {
    let fail = |what: &dyn std::fmt::Display| Error::failed(format!("mount={text}: {what}"));
    let parts: Vec<&str> = text.splitn(4, ':').collect();
    let (device, dir, kind, options) = match parts.as_slice() {
        [device, dir, kind] => (*device, *dir, *kind, ""),
        [device, dir, kind, options] => (*device, *dir, *kind, *options),
        _ => return Err(fail(&"not of the form DEVICE:DIR:TYPE[:OPTIONS]")),
    };
    if device.starts_with('/') {
        wait_for(Path::new(device));
    }
    fs::create_dir_all(dir).map_err(|err| fail(&err))?;
    let (flags, data) = split_options(options);
    let data = std::ffi::CString::new(data).map_err(|err| fail(&err))?;
    rustix::mount::mount(device, dir, kind, flags, data.as_c_str()).map_err(|err| {
        let hint = match err {
            Errno::NODEV => "; the kernel does not know this file system: is its module loaded?",
            Errno::NOENT => "; there is no such device",
            _ => "",
        };
        fail(&format!("{}{hint}", io::Error::from(err)))
    })
}

/// mount(8)'s options: those that are flags of mount(2), and the file system's own.
fn split_options(options: &str) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => flags |= MountFlags::RDONLY,
            "rw" => {}
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            own => data.push(own),
        }
    }
    (flags, data.join(","))
}

/// Opens the image, once what it is on is there.
///
/// # Errors
/// See [`Backing::open`].
pub(super) fn open_image(text: &str) -> Result<Backing> {
    match Spec::parse(text.as_ref(), Path::is_file)? {
        Spec::Path { path, .. } => {
            wait_for(&path);
            Backing::open(text.as_ref())
        }
        // Which devices there will be, nobody knows.
        Spec::Mtd(_) | Spec::Auto => {
            let mut opened = Backing::open(text.as_ref());
            until_limit(|| {
                let done = opened.is_ok();
                if !done {
                    opened = Backing::open(text.as_ref());
                }
                done
            });
            opened
        }
    }
}

fn wait_for(path: &Path) {
    until_limit(|| path.exists());
}

/// Asks until it is so, or the limit is reached.
fn until_limit(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEVICE_LIMIT;
    while !done() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_flags_or_the_file_systems_own() {
        let (flags, data) = split_options("ro,dax,noatime,data=ordered");
        assert_eq!(flags, MountFlags::RDONLY | MountFlags::NOATIME);
        assert_eq!(data, "dax,data=ordered");
        assert_eq!(split_options(""), (MountFlags::empty(), String::new()));
    }

    #[test]
    fn what_is_no_mount_is_refused() {
        for text in ["", "/dev/pmem0", "/dev/pmem0:/flash"] {
            let err = mount(text).unwrap_err().to_string();
            assert!(err.contains("DEVICE:DIR:TYPE"), "{err}");
        }
    }
}
