//! Parses /proc/PID/mountinfo: proc_pid_mountinfo(5).

/// The mount that is a process's root directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootMount {
    /// Major and minor number of its device, as smaps shows them of the files that are mapped from it. Of a FUSE mount
    /// the minor number is the connection's: Linux `fs/fuse/inode.c`, `fc->dev`.
    pub device: (u32, u32),
    /// Its type, with subtype: `fuse.cramfs`.
    pub file_system: String,
    /// What is mounted, as it was named then.
    pub source: String,
}

impl RootMount {
    /// Is it a cramfs image: the kernel's own, or a view?
    pub fn is_image(&self) -> bool {
        matches!(self.file_system.as_str(), "cramfs" | "fuse.cramfs")
    }

    /// Is there a process that serves it?
    pub fn is_served(&self) -> bool {
        self.file_system.starts_with("fuse")
    }
}

/// The mount at `/`, of several the one on top. `None` if there is none: the root is no mount point.
///
/// ```
/// let text = b"63 42 0:39 / / ro,nosuid,nodev - fuse.cramfs xip-run ro,user_id=0\n";
/// let root = xip_run::report::mountinfo::root(text).unwrap();
/// assert_eq!((root.device, root.file_system.as_str()), ((0, 39), "fuse.cramfs"));
/// ```
pub fn root(text: &[u8]) -> Option<RootMount> {
    let mut lines = text.rsplit(|&byte| byte == b'\n');
    lines.find_map(|line| root_in(std::str::from_utf8(line).ok()?))
}

fn root_in(line: &str) -> Option<RootMount> {
    // A `-` ends the optional fields; names have their spaces escaped.
    let (mount, what) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(2);
    let (major, minor) = fields.next()?.split_once(':')?;
    let mounted_at = fields.nth(1)?;
    let mut what = what.split(' ');
    let root = RootMount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        file_system: what.next()?.to_owned(),
        source: what.next()?.to_owned(),
    };
    (mounted_at == "/").then_some(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_on_top_is_the_root() {
        let text = b"\
28 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda\\040x rw,discard\n\
30 28 0:5 / /dev rw - devtmpfs devtmpfs rw\n\
\xff\n\
cut off\n\
40 28 31:2 / / ro - cramfs mtd:rom ro\n\
41 40 0:22 / /sys rw - sysfs sysfs rw";
        let root = root(text).unwrap();
        assert_eq!(root.device, (31, 2));
        assert_eq!(root.source, "mtd:rom");
        assert!(root.is_image() && !root.is_served());
        let below = text.split(|&byte| byte == b'\n').nth(1).unwrap();
        assert_eq!(super::root(below), None);
        let ext4 = super::root(text.split(|&byte| byte == b'\n').next().unwrap()).unwrap();
        assert_eq!(
            (ext4.source.as_str(), ext4.is_image()),
            ("/dev/vda\\040x", false)
        );
    }
}
