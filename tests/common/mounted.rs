//! A mount of an image, served by a thread of the test.
#![allow(dead_code, unreachable_pub)]

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;
use xip_run::cramfs::Image;
use xip_run::view::{MAX_READ_BYTES, Server};

/// A view needs /dev/fuse, and root or user namespaces.
pub fn can_mount() -> bool {
    let open = File::options().read(true).write(true).open("/dev/fuse");
    let ok = rustix::process::geteuid().is_root() && open.is_ok();
    if !ok {
        assert!(
            std::env::var_os("CI").is_none(),
            "views need root and /dev/fuse: {open:?}"
        );
        println!("skipped: views are tested as root, with /dev/fuse: {open:?}");
    }
    ok
}

/// A mount of an image, served by a thread.
pub struct Mounted {
    pub dir: TempDir,
    server: Option<JoinHandle<std::io::Result<()>>>,
}

impl Mounted {
    pub fn new(image: Image) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .unwrap();
        let data = format!(
            "fd={},rootmode=40755,user_id=0,group_id=0,default_permissions,allow_other,max_read={MAX_READ_BYTES}",
            device.as_raw_fd()
        );
        let data = CString::new(data).unwrap();
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("test", dir.path(), "fuse.cramfs", flags, data.as_c_str()).unwrap();
        let server = std::thread::spawn(move || Server::new(image).serve(device));
        Self {
            dir,
            server: Some(server),
        }
    }

    pub fn path(&self, path: impl AsRef<OsStr>) -> PathBuf {
        let path = Path::new(path.as_ref());
        self.dir.path().join(path.strip_prefix("/").unwrap_or(path))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(self.dir.path(), UnmountFlags::DETACH).unwrap();
        let served = self.server.take().unwrap().join().unwrap();
        if !std::thread::panicking() {
            served.unwrap();
        }
    }
}
