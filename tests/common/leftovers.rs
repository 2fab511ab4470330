//! What a session may leave behind and must not: its server, processes, mounts, memfds.
#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use xip_run::session::MEMFD_PREFIX;

/// The directories of /proc that are processes.
fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
        .map(|entry| entry.path())
}

/// What the descriptors of a process are links to, with the path of each link.
fn descriptors(process: &Path) -> Vec<(PathBuf, PathBuf)> {
    let links = fs::read_dir(process.join("fd")).into_iter().flatten();
    links
        .filter_map(|fd| Some(fd.ok()?.path()))
        .filter_map(|fd| Some((fs::read_link(&fd).ok()?, fd)))
        .collect()
}

/// The servers of an image: processes of that name that have it open.
pub fn servers(image: &Path) -> Vec<PathBuf> {
    let server =
        |proc: &PathBuf| fs::read(proc.join("comm")).is_ok_and(|comm| comm == b"xip-view\n");
    let has_image = |proc: &PathBuf| descriptors(proc).iter().any(|(to, _)| to == image);
    processes().filter(server).filter(has_image).collect()
}

/// The inode numbers of the session memfds that a process has mapped or open.
pub fn memfds(process: &Path) -> BTreeSet<u64> {
    let is_session = |name: &str| name.starts_with(&format!("/memfd:{MEMFD_PREFIX}"));
    let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
    // proc_pid_maps(5): the inode stands fifth, the name behind it.
    let mapped = maps.lines().filter_map(|line| {
        let (head, name) = line.split_at(line.find("/memfd:")?);
        let inode = head.split_whitespace().nth(4)?.parse().ok()?;
        is_session(name).then_some(inode)
    });
    let open = descriptors(process)
        .into_iter()
        .filter(|(to, _)| to.to_str().is_some_and(is_session))
        .filter_map(|(_, fd)| Some(fs::metadata(fd).ok()?.ino()));
    mapped.chain(open).collect()
}

/// What can tell a session's from others'.
#[derive(Default)]
pub struct Traces {
    /// Its image, by a path that no other session uses.
    pub image: PathBuf,
    /// A name that is in the paths of its mounts only, if it has such.
    pub mounts: Option<String>,
    /// Memfds that its processes were seen to have.
    pub memfds: BTreeSet<u64>,
}

impl Traces {
    /// Everything there is of it, one a line.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for process in processes() {
            let mut has = |what: String| {
                let read = |file: &str| fs::read(process.join(file)).unwrap_or_default();
                let command = read("cmdline");
                let command =
                    String::from_utf8_lossy(&command[..command.len().min(60)]).replace('\0', " ");
                let comm = String::from_utf8_lossy(&read("comm")).trim().to_owned();
                left.push(format!("{} ({comm}: {command}) {what}", process.display()));
            };
            if let Some((to, _)) = descriptors(&process)
                .iter()
                .find(|(to, _)| *to == self.image)
            {
                has(format!("has {} open", to.display()));
            }
            // Those of the session, for they are in its namespace, and all others if it has mounted something there.
            let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
            if let Some(name) = &self.mounts
                && let Some(mount) = mounts.lines().find(|mount| mount.contains(name))
            {
                has(format!("has the mount {mount}"));
            }
            if memfds(&process).intersection(&self.memfds).next().is_some() {
                has("has the session's memfd".into());
            }
        }
        left
    }

    /// Waits until nothing is left, two seconds at most, for a server ends after its session; returns what is.
    pub fn wait_until_gone(&self) -> Vec<String> {
        let end = Instant::now() + Duration::from_secs(2);
        loop {
            let left = self.left();
            if left.is_empty() || Instant::now() > end {
                return left;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asserts that.
    #[track_caller]
    pub fn assert_gone(&self) {
        let left = self.wait_until_gone();
        assert!(
            left.is_empty(),
            "the session has left behind:\n{}",
            left.join("\n")
        );
    }

    /// Kills the session's processes: those in namespaces of their own that have its mounts.
    pub fn kill(&self) {
        let Some(name) = &self.mounts else { return };
        let namespace = |process: &Path| fs::read_link(process.join("ns/mnt")).ok();
        let own = namespace(Path::new("/proc/self"));
        for process in processes() {
            let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
            if mounts.contains(name) && namespace(&process) != own {
                let pid = process.file_name().unwrap().to_str().unwrap().parse();
                let pid = rustix::process::Pid::from_raw(pid.unwrap()).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}
