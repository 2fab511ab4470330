//! Which image: how one is named ([`Spec`]), and by whom ([`select`]): the command line, else the environment, else the
//! kernel's command line, else a configuration file.

use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::config::{self, Config};
use crate::error::{Error, Result};

/// The environment variable that names an image.
pub const ENV: &str = "XIP_IMAGE";

/// What is said of an image's place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Spec {
    /// `PATH[@PART]`: a file or a device, or a part of it.
    Path {
        /// The file or the device's node.
        path: PathBuf,
        /// Which part; `None` is all of it.
        part: Option<Part>,
    },
    /// `mtd:NAME` or `mtd:NUMBER`: an MTD device, by its physical addresses.
    Mtd(String),
    /// `auto`: what the kernel's command line and the device tree say, else what looks like a cramfs image.
    Auto,
}

/// A part of a file or a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// `ADDR[+SIZE]`, in bytes; of /dev/mem they are physical addresses. Without a size, it is the image's own.
    Bytes {
        /// First byte.
        at: u64,
        /// How many.
        len_bytes: Option<u64>,
    },
    /// `mapN`: one of the memory regions of a UIO device.
    Map(u32),
}

impl Spec {
    /// Reads what a user has written. What `is_file` says is a file is nothing else, whatever its name.
    ///
    /// ```
    /// use xip_run::backing::spec::{Part, Spec};
    /// let spec = Spec::parse("/dev/mem@0x04000000+16M".as_ref(), |_| false).unwrap();
    /// let part = Part::Bytes { at: 0x400_0000, len_bytes: Some(16 << 20) };
    /// assert_eq!(spec, Spec::Path { path: "/dev/mem".into(), part: Some(part) });
    /// ```
    ///
    /// # Errors
    /// [`Kind::Failed`](crate::error::Kind) for what cannot be meant, with an example of what can.
    pub fn parse(text: &OsStr, is_file: impl Fn(&Path) -> bool) -> Result<Self> {
        let path = |part| Self::Path {
            path: text.into(),
            part,
        };
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return Err(Error::failed("the image's name is empty"));
        }
        if is_file(Path::new(text)) {
            return Ok(path(None));
        }
        if bytes == b"auto" {
            return Ok(Self::Auto);
        }
        if let Some(name) = bytes.strip_prefix(b"mtd:") {
            return match std::str::from_utf8(name) {
                Ok(name) if !name.is_empty() => Ok(Self::Mtd(name.to_owned())),
                _ => Err(Error::failed(format!(
                    "{}: name an MTD device as /proc/mtd shows it: mtd:rootfs or mtd:3",
                    text.display()
                ))),
            };
        }
        let Some(at) = bytes.iter().rposition(|&byte| byte == b'@') else {
            return Ok(path(None));
        };
        let (before, part) = bytes.split_at(at);
        let part = part.get(1..).unwrap_or_default();
        let before = Path::new(OsStr::from_bytes(before));
        let part = std::str::from_utf8(part).ok().and_then(Part::parse);
        match part {
            Some(part) => Ok(Self::Path {
                path: before.into(),
                part: Some(part),
            }),
            // A mistake about a device, or just a file that is not there.
            None if before.starts_with("/dev") || is_file(before) => Err(Error::failed(format!(
                "{}: what follows @ is neither ADDRESS[+SIZE], as in /dev/mem@0x04000000+16M, nor mapN, as in \
                 /dev/uio0@map1",
                text.display()
            ))),
            None => Ok(path(None)),
        }
    }
}

impl Part {
    fn parse(text: &str) -> Option<Self> {
        if let Some(number) = text.strip_prefix("map") {
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            return number.parse().ok().filter(|_| digits).map(Self::Map);
        }
        let (at, len_bytes) = match text.split_once('+') {
            Some((at, len)) => (at, Some(bytes(len).filter(|&len| len > 0)?)),
            None => (text, None),
        };
        let at = bytes(at)?;
        at.checked_add(len_bytes.unwrap_or(0))?;
        Some(Self::Bytes { at, len_bytes })
    }
}

/// A number of bytes: decimal, or hexadecimal after `0x`, with K, M or G for 1024, 1024² or 1024³ of them.
fn bytes(text: &str) -> Option<u64> {
    let units = [("K", 10), ("M", 20), ("G", 30)];
    let with_unit = units.iter().find_map(|&(unit, shift)| {
        let lower = unit.to_ascii_lowercase();
        let number = text.strip_suffix(unit);
        Some((number.or_else(|| text.strip_suffix(&lower))?, shift))
    });
    let (number, shift) = with_unit.unwrap_or((text, 0));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let number = match number
        .strip_prefix("0x")
        .or_else(|| number.strip_prefix("0X"))
    {
        Some(hex) if digits(hex) => u64::from_str_radix(hex, 16).ok()?,
        None if digits(number) => number.parse().ok()?,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// Bytes from `start` on as the specs write them: `0x4000000+0x100000`.
pub(super) fn show_range(range: &Range<u64>) -> String {
    format!("{:#x}+{:#x}", range.start, range.end - range.start)
}

/// The image to use: `option` (`--image`), else `$XIP_IMAGE`, else `xip.image=` on the kernel's command line, else
/// `image=` in /etc/xip-run.conf.
///
/// # Errors
/// [`Kind::Failed`](crate::error::Kind) if nothing names one, or the configuration file cannot be read, or has a line that
/// means nothing.
pub fn select(option: Option<PathBuf>) -> Result<PathBuf> {
    let from_environment = || {
        std::env::var_os(ENV)
            .filter(|spec: &OsString| !spec.is_empty())
            .map(PathBuf::from)
    };
    let from_kernel = || Config::of_kernel().image.map(PathBuf::from);
    if let Some(spec) = option.or_else(from_environment).or_else(from_kernel) {
        return Ok(spec);
    }
    Config::read()?.image.map(PathBuf::from).ok_or_else(|| {
        Error::failed(format!(
            "no image named: use --image SPEC, ${ENV}, xip.image= on the kernel command line or image= in {}",
            config::FILE
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::Path;

    use super::{Part, Spec};

    fn parse(text: &str) -> Result<Spec, String> {
        let is_file = |path: &Path| path.to_str().is_some_and(|path| path.starts_with("/file"));
        Spec::parse(OsStr::new(text), is_file).map_err(|err| err.to_string())
    }

    fn path(path: &str, part: Option<Part>) -> Spec {
        Spec::Path {
            path: path.into(),
            part,
        }
    }

    fn window(at: u64, len_bytes: Option<u64>) -> Option<Part> {
        Some(Part::Bytes { at, len_bytes })
    }

    #[test]
    fn specs_are_parsed() {
        let meg = 1 << 20;
        for (text, spec) in [
            ("rootfs.cramfs", path("rootfs.cramfs", None)),
            (
                "/dev/mem@0x04000000+16M",
                path("/dev/mem", window(0x400_0000, Some(16 * meg))),
            ),
            ("/dev/mem@64M", path("/dev/mem", window(64 * meg, None))),
            (
                "/dev/mem@0X10+0x10k",
                path("/dev/mem", window(16, Some(16384))),
            ),
            ("/dev/mem@4g+1", path("/dev/mem", window(4 << 30, Some(1)))),
            ("/dev/uio0", path("/dev/uio0", None)),
            ("/dev/uio12@map3", path("/dev/uio12", Some(Part::Map(3)))),
            ("/dev/dax0.0", path("/dev/dax0.0", None)),
            (
                "/sys/bus/pci/devices/0000:00:04.0/resource2",
                path("/sys/bus/pci/devices/0000:00:04.0/resource2", None),
            ),
            ("a@b@0x1000", path("a@b", window(4096, None))),
            ("not-there@v2.cramfs", path("not-there@v2.cramfs", None)),
            ("mtd:rootfs", Spec::Mtd("rootfs".to_owned())),
            ("mtd:3", Spec::Mtd("3".to_owned())),
            ("auto", Spec::Auto),
            ("/file@0x1000", path("/file@0x1000", None)),
            ("./auto", path("./auto", None)),
        ] {
            assert_eq!(parse(text).as_ref(), Ok(&spec), "{text}");
        }
        // A file is a file.
        for name in ["auto", "mtd:3", "/dev/mem@0x1000", "/dev/mem@junk"] {
            assert_eq!(
                Spec::parse(name.as_ref(), |_| true).unwrap(),
                path(name, None)
            );
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_an_example() {
        for (text, example) in [
            ("/dev/mem@", "/dev/mem@0x04000000+16M"),
            ("/dev/mem@0x", "/dev/mem@0x04000000+16M"),
            ("/dev/mem@0xfffffffffffffff0+16K", "/dev/mem@0x04000000+16M"),
            ("/dev/mem@16E", "/dev/mem@0x04000000+16M"),
            ("/dev/mem@0x1000+0", "/dev/mem@0x04000000+16M"),
            ("/dev/mem@+16M", "/dev/mem@0x04000000+16M"),
            ("/dev/mem@-1", "/dev/mem@0x04000000+16M"),
            ("/dev/mem@17179869184G", "/dev/mem@0x04000000+16M"),
            ("/dev/uio0@map", "/dev/uio0@map1"),
            ("/dev/uio0@map-1", "/dev/uio0@map1"),
            ("mtd:", "mtd:rootfs"),
            ("", "empty"),
        ] {
            // What is refused of a device that is not there is refused of a file too.
            let said = parse(text).unwrap_err();
            assert!(said.contains(example) && said.contains(text), "{said}");
        }
        assert!(parse("/file@0x1000@junk").is_ok());
    }
}
