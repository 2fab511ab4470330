//! Loads kernel modules: an initramfs that holds nothing but this program has no insmod(8).

use std::ffi::CString;
use std::fs::File;

use rustix::io::Errno;

use crate::error::{Error, Result};

/// finit_module(2): let the kernel decompress it (Linux 5.17, `CONFIG_MODULE_DECOMPRESS`).
const MODULE_INIT_COMPRESSED_FILE: i32 = 4;

/// Loads `FILE [PARAMETER=VALUE]...`; one that is loaded already is as good.
///
/// # Errors
/// If the kernel refuses it, with the likely reason.
pub(super) fn load(text: &str) -> Result<()> {
    let (path, parameters) = text.split_once(' ').unwrap_or((text, ""));
    let fail = |err: &dyn std::fmt::Display, hint: &str| {
        Error::failed(format!("module {path}: {err}{hint}"))
    };
    let file = File::open(path).map_err(|err| fail(&err, ""))?;
    let parameters = CString::new(parameters).map_err(|err| fail(&err, ""))?;
    let compressed = [".gz", ".xz", ".zst"].iter().any(|end| path.ends_with(end));
    let flags = match compressed {
        true => MODULE_INIT_COMPRESSED_FILE,
        false => 0,
    };
    match rustix::system::finit_module(&file, &parameters, flags) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(err) => Err(fail(
            &err,
            match err {
                Errno::NOENT => "; a module that it needs must be loaded before it",
                Errno::NOEXEC | Errno::INVAL if compressed => {
                    "; this kernel does not decompress modules: put it into the initramfs decompressed"
                }
                Errno::NOEXEC => "; it is not a module of this very kernel",
                _ => "",
            },
        )),
    }
}
