//! The same program natively and in a session, from the same tree: what a session is held against.
#![allow(dead_code, unreachable_pub)]

use std::path::Path;
use std::process::Command;

/// Makes `$1` the root directory, read-only as an image is, with the host's /proc, /dev and /sys in it, and `$2` as /tmp.
/// All of it in a mount namespace that ends with the program. Files that are to be mapped are on a tmpfs: other
/// filesystems have flags of mmap(2) of their own.
const CHROOT: &str = r#"
root=$1 tmp=$2
mount --bind "$root" "$root"
mount -o remount,bind,ro,nosuid,nodev "$root"
for dir in proc dev sys; do mount --rbind "/$dir" "$root/$dir"; done
mount --bind "$tmp" "$root/tmp"
if [ -d "$root/var/files" ]; then
    mount -t tmpfs files "$root/sys"
    cp -a "$root/var/." "$root/sys"
    mount -o remount,ro,nosuid,nodev "$root/sys"
    mount --move "$root/sys" "$root/var"
fi
cd "$root"
shift 2
exec chroot . "$@"
"#;

/// A command that runs natively what is added to it, in a chroot of the tree `root` with `tmp` as /tmp. Root only.
pub fn native(root: &Path, tmp: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private"])
        .args(["sh", "-euc", CHROOT, "sh"])
        .args([root, tmp]);
    command
}

/// The same in a session of the image, which is made of that tree.
pub fn session(image: &Path, tmp: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xip-run"));
    let bind = [tmp.as_os_str(), ":/tmp".as_ref()].join("".as_ref());
    command
        .env_remove("XIP_IMAGE")
        .current_dir("/")
        .arg("--image")
        .arg(image)
        .arg("--bind")
        .arg(bind);
    command
}
