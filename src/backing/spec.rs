//! Which image: the command line, else the environment, else the kernel's command line, else a configuration file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// The environment variable that names an image.
pub const ENV: &str = "XIP_IMAGE";
/// The configuration file; its line `image=SPEC` names an image.
pub const CONFIG: &str = "/etc/xip-run.conf";

/// The image to use: `option` (`--image`), else `$XIP_IMAGE`, else `xip.image=` on the kernel's command line, else
/// `image=` in /etc/xip-run.conf.
///
/// # Errors
/// [`Kind::Failed`] if nothing names one, or the configuration file has a line that means nothing.
pub fn select(option: Option<PathBuf>) -> Result<PathBuf> {
    let from_environment = || {
        std::env::var_os(ENV)
            .filter(|spec: &OsString| !spec.is_empty())
            .map(PathBuf::from)
    };
    let from_kernel = || {
        let text = std::fs::read_to_string("/proc/cmdline").ok()?;
        from_cmdline(&text).map(PathBuf::from)
    };
    if let Some(spec) = option.or_else(from_environment).or_else(from_kernel) {
        return Ok(spec);
    }
    let text = std::fs::read_to_string(CONFIG).unwrap_or_default();
    from_config(&text)?.map(PathBuf::from).ok_or_else(|| {
        Error::failed(format!(
            "no image named: use --image FILE, ${ENV}, xip.image= on the kernel command line or image= in {CONFIG}"
        ))
    })
}

/// The value of the last `xip.image=` on a kernel command line.
fn from_cmdline(text: &str) -> Option<&str> {
    text.split_whitespace()
        .filter_map(|word| word.strip_prefix("xip.image="))
        .rfind(|value| !value.is_empty())
}

/// The value of the last `image=` line of a configuration file. Its value is all of the rest of the line and an absolute
/// path; `#` starts a comment line.
fn from_config(text: &str) -> Result<Option<&str>> {
    let mut image = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |what: &str| Error::failed(format!("{CONFIG}:{}: {what}", number + 1));
        let (key, value) = line.split_once('=').ok_or_else(|| bad("not KEY=VALUE"))?;
        match (key.trim(), value.trim()) {
            ("image", value) if value.starts_with('/') => image = Some(value),
            ("image", _) => return Err(bad("image= takes an absolute path, without quotes")),
            (key, _) => {
                return Err(bad(&format!(
                    "unknown key {key:?}; this version knows image="
                )));
            }
        }
    }
    Ok(image)
}

/// Refuses what is no file yet by name, with the way out.
pub(super) fn require_file_spec(path: &Path) -> Result<()> {
    let text = path.to_string_lossy();
    if text.starts_with("mtd:") || text == "auto" || text.starts_with("/dev/mem") {
        return Err(Error::new(
            Kind::Failed,
            format!("{text}: this version reads images from files only; copy the image to a file"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{from_cmdline, from_config};

    #[test]
    fn the_kernel_command_line_is_read() {
        let cmdline =
            "console=ttyS0 xip.image=/a xip.imagery=/no xip.image=/flash.cramfs xip.image= quiet\n";
        assert_eq!(from_cmdline(cmdline), Some("/flash.cramfs"));
        assert_eq!(from_cmdline("quiet"), None);
    }

    #[test]
    fn the_configuration_file_is_read_and_its_mistakes_are_named() {
        let config = "# image=/old\nimage = /with space.cramfs\n\n";
        assert_eq!(from_config(config).unwrap(), Some("/with space.cramfs"));
        assert_eq!(from_config("").unwrap(), None);
        for (config, named) in [
            ("image=/a\nimag=/b", ":2: unknown key \"imag\""),
            ("image=relative", ":1: image= takes an absolute path"),
            ("image=\"/a\"", ":1: image= takes an absolute path"),
            ("image", ":1: not KEY=VALUE"),
        ] {
            let err = from_config(config).unwrap_err().to_string();
            assert!(err.contains(named), "{err}");
        }
    }
}
