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
/// [`Kind::Failed`] if nothing names one.
pub fn select(option: Option<PathBuf>) -> Result<PathBuf> {
    let from_file = |path: &str, key: &str, separator: fn(char) -> bool| {
        let text = std::fs::read_to_string(path).ok()?;
        value_of(&text, key, separator).map(PathBuf::from)
    };
    option
        .or_else(|| std::env::var_os(ENV).filter(|spec: &OsString| !spec.is_empty()).map(PathBuf::from))
        .or_else(|| from_file("/proc/cmdline", "xip.image", char::is_whitespace))
        .or_else(|| from_file(CONFIG, "image", |c| c == '\n'))
        .ok_or_else(|| {
            Error::failed(format!(
                "no image named: use --image FILE, ${ENV}, xip.image= on the kernel command line or image= in {CONFIG}"
            ))
        })
}

/// The value of the last `key=value` among the words of a text; a word that starts with `#` is a comment.
fn value_of<'a>(text: &'a str, key: &str, separator: fn(char) -> bool) -> Option<&'a str> {
    text.split(separator)
        .map(str::trim)
        .filter(|word| !word.starts_with('#'))
        .filter_map(|word| word.split_once('='))
        .filter(|(name, _)| name.trim_end() == key)
        .map(|(_, value)| value.trim_start())
        .next_back()
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
    use super::value_of;

    #[test]
    fn the_kernel_command_line_and_the_configuration_file_are_read() {
        let cmdline = "console=ttyS0 xip.image=/a xip.imagery=/no xip.image=/flash.cramfs quiet\n";
        assert_eq!(
            value_of(cmdline, "xip.image", char::is_whitespace),
            Some("/flash.cramfs")
        );
        assert_eq!(value_of("quiet", "xip.image", char::is_whitespace), None);
        let config = "# image=/old\nimage = /with space.cramfs\n\n";
        assert_eq!(
            value_of(config, "image", |c| c == '\n'),
            Some("/with space.cramfs")
        );
    }
}
