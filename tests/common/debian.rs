//! A real system to work in: the Debian tree of tests/debian-tree and the programs of samples/debian in it, as an image and
//! as the directory that the image was made of. Every work is done twice, in a session of the image and in a chroot of
//! the directory, and must come to the same.
#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use similar::TextDiff;
use tempfile::TempDir;

use super::launch::{XIP_RUN, copy_program, have, skip, text};
use super::leftovers::{Traces, memfds};
use super::mounted::can_mount;
use super::sample::{Sample, ending, samples};

/// No session takes longer.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Where the programs of samples/debian are, `NAME.LAYOUT` each.
pub const PROGRAMS: &str = "/opt/session";
/// The whole environment of a session.
const ENVIRONMENT: [&str; 5] = [
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/tmp",
    "LANG=C.UTF-8",
    "TERM=dumb",
    // Sorted by it, whatever the order in which the kernel lists a directory.
    "LC_ALL=C.UTF-8",
];

/// Where tests/debian-tree puts what it makes.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian")
}

/// Where a work is done: the two must not differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `chroot` into the directory, in a mount namespace that shows what a session shows.
    Native,
    /// `xip-run` with the image.
    InPlace,
}

/// Who runs a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    Root,
    /// One without a privilege, and without a name in the system.
    Other,
}

/// The number of [`User::Other`], and of its group.
const OTHER: &str = "1000";

/// The system: `root` is the directory, `image` is made of it.
pub struct Debian {
    dir: PathBuf,
}

/// The programs of samples/debian.
pub fn programs() -> &'static [Sample] {
    static PROGRAMS: LazyLock<Vec<Sample>> = LazyLock::new(|| samples("debian"));
    &PROGRAMS
}

/// What a sample is called in the system.
pub fn program_path(sample: &Sample) -> String {
    let name = Path::new(&sample.name).file_name().unwrap();
    format!("{PROGRAMS}/{}.{}", name.display(), sample.layout)
}

/// The system; `None`, which is said, if there is none, or where sessions cannot be.
pub fn debian() -> Option<&'static Debian> {
    static DEBIAN: OnceLock<Debian> = OnceLock::new();
    if !can_mount() || !have("cc") || !have("musl-gcc") {
        return None;
    }
    if !cache().join("tree").is_dir() {
        skip("there is no Debian tree: tests/setup --tests");
        return None;
    }
    Some(DEBIAN.get_or_init(Debian::new))
}

impl Debian {
    /// Makes the system, if it is not there already for the same tree, samples and builder.
    fn new() -> Self {
        let tree = cache().join("tree").canonicalize().unwrap();
        let mut hasher = DefaultHasher::new();
        tree.hash(&mut hasher);
        let builder = fs::metadata(env!("CARGO_BIN_EXE_xip-image")).unwrap();
        (builder.mtime(), builder.mtime_nsec(), builder.len()).hash(&mut hasher);
        let mut compiled = Vec::new();
        for sample in programs() {
            let program = sample.compile().unwrap_or_else(|why| panic!("{why}"));
            (program_path(sample), &program).hash(&mut hasher);
            compiled.push((program_path(sample), program));
        }
        let dir = cache().join(format!("system-{:016x}", hasher.finish()));
        if !dir.is_dir() {
            let work = TempDir::new_in(cache()).unwrap();
            let root = work.path().join("root");
            succeed(Command::new("cp").arg("-al").args([&tree, &root]));
            fs::create_dir_all(root.join(&PROGRAMS[1..])).unwrap();
            for (path, program) in &compiled {
                succeed(Command::new("cp").arg(program).arg(root.join(&path[1..])));
            }
            let image = work.path().join("image");
            let xip_image = || Command::new(env!("CARGO_BIN_EXE_xip-image"));
            succeed(xip_image().arg("build").args([&root, &image]));
            succeed(xip_image().arg("check").arg(&image));
            // Another test may have been faster.
            let _ = fs::rename(work.path(), &dir);
            for old in fs::read_dir(cache()).unwrap() {
                let old = old.unwrap();
                if old.file_name().to_str().unwrap().starts_with("system-") && old.path() != dir {
                    let _ = fs::remove_dir_all(old.path());
                }
            }
        }
        Self { dir }
    }

    /// The directory.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The image.
    pub fn image(&self) -> PathBuf {
        self.dir.join("image")
    }

    /// Runs a program in both places, and holds all that comes of it against each other: what is printed, how it ends, what
    /// is in /tmp afterwards. Nothing may be left of either session.
    #[track_caller]
    pub fn same(&self, argv: &[&str], stdin: &str) -> Ended {
        self.same_with(User::Root, &[], argv, stdin)
    }

    /// The same, by a user, with copies of files in /tmp.
    #[track_caller]
    pub fn same_with(&self, user: User, files: &[&Path], argv: &[&str], stdin: &str) -> Ended {
        let [native, in_place] = [Place::Native, Place::InPlace].map(|place| {
            let session = Session::by(self, place, user);
            for file in files {
                let to = session.dir.path().join("tmp");
                let to = to.join(file.file_name().unwrap());
                copy_program(file, &to);
            }
            session.run(argv, stdin)
        });
        assert_same(&native.shown(), &in_place.shown());
        assert!(
            native == in_place,
            "the bytes differ where the text does not"
        );
        in_place
    }

    /// Does the work of a script of tests/debian in both places. It must come to the same, to success, and to what its lines
    /// that begin with `#= ` say: the rest of each is in what it prints, in this order.
    #[track_caller]
    pub fn work(&self, user: User, name: &str) {
        let path = format!("/tmp/{name}");
        let argv: &[&str] = match name.rsplit_once('.').unwrap().1 {
            "bash" => &["/bin/bash", "-euo", "pipefail", &path],
            "sh" => &["/bin/busybox", "sh", "-euo", "pipefail", &path],
            "py" => &["/usr/bin/python3", "-u", &path],
            other => panic!("how are .{other} files run?"),
        };
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/debian")
            .join(name);
        let ended = self.same_with(user, &[&file], argv, "");
        assert!(ended.status == "0", "{name} fails:\n{}", ended.shown());
        let script = fs::read_to_string(file).unwrap();
        let stdout = text(&ended.stdout);
        let mut rest = stdout.as_str();
        let mut expected = script
            .lines()
            .filter_map(|line| line.strip_prefix("#= "))
            .peekable();
        assert!(
            expected.peek().is_some(),
            "{name} says nothing of what it prints"
        );
        for says in expected {
            let Some((_, after)) = rest.split_once(says) else {
                panic!(
                    "{name}: {says:?} is not, or not here, in\n{}",
                    ended.shown()
                );
            };
            rest = after;
        }
    }
}

/// Are there user namespaces for those without a privilege? If not, the test is to be skipped, which is said here.
pub fn have_user_namespaces() -> bool {
    let mut setpriv = Command::new("setpriv");
    let user = [format!("--reuid={OTHER}"), format!("--regid={OTHER}")];
    setpriv
        .args(user)
        .args(["--clear-groups", "unshare", "-U", "true"]);
    let output = setpriv.output();
    let have = output.as_ref().is_ok_and(|output| output.status.success());
    if !have {
        skip(&format!("no user namespaces for users: {output:?}"));
    }
    have
}

/// Fails with the difference, if there is one.
#[track_caller]
pub fn assert_same(native: &str, in_place: &str) {
    if native != in_place {
        let diff = TextDiff::from_lines(native, in_place);
        let diff = diff.unified_diff().header("native", "in place").to_string();
        panic!("not the same in place:\n{diff}");
    }
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        text(&output.stderr)
    );
}

/// What came of a work.
#[derive(PartialEq, Eq)]
pub struct Ended {
    /// As samples write it.
    pub status: String,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// What is in /tmp afterwards, a line each.
    pub files: String,
}

impl Ended {
    /// All of it, to be read.
    pub fn shown(&self) -> String {
        format!(
            "status: {}\nstdout:\n{}\nstderr:\n{}\n/tmp:\n{}",
            self.status,
            text(&self.stdout),
            text(&self.stderr),
            self.files
        )
    }
}

/// A session to be: a directory of its own that is /tmp in it.
pub struct Session<'a> {
    debian: &'a Debian,
    place: Place,
    user: User,
    dir: TempDir,
}

impl<'a> Session<'a> {
    /// Root's in that place.
    pub fn new(debian: &'a Debian, place: Place) -> Self {
        Self::by(debian, place, User::Root)
    }

    /// A user's in that place.
    pub fn by(debian: &'a Debian, place: Place, user: User) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("session-")
            .tempdir_in(cache())
            .unwrap();
        for name in ["root", "tmp"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::set_permissions(dir.path().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        // A name of its own, by which its server is known.
        fs::hard_link(debian.image(), dir.path().join("image")).unwrap();
        if user == User::Other {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
            copy_program(Path::new(XIP_RUN), &dir.path().join("xip-run"));
        }
        Self {
            debian,
            place,
            user,
            dir,
        }
    }

    /// The command that runs a program there, in /tmp.
    pub fn command(&self, argv: &[&str]) -> Command {
        let path = |name: &str| self.dir.path().join(name);
        match (self.place, self.user) {
            (Place::InPlace, User::Root) => {
                let mut command = Command::new(XIP_RUN);
                let mut tmp = path("tmp").into_os_string();
                tmp.push(":/tmp");
                command.arg("--image").arg(path("image"));
                command.arg("--bind").arg(tmp).args(["--workdir", "/tmp"]);
                command.env_clear();
                command.envs(ENVIRONMENT.iter().map(|pair| pair.split_once('=').unwrap()));
                command.args(argv);
                command
            }
            // In a namespace in which the user can reach the image and /dev/fuse.
            (Place::InPlace, User::Other) => {
                let script = "mknod -m 666 \"$1/fuse\" c 10 229
                    mount --bind \"$1/fuse\" /dev/fuse
                    mount --bind \"$1\" /mnt
                    user=$2; shift 2
                    exec setpriv --reuid=$user --regid=$user --clear-groups env -i \"$@\"";
                let mut command = Command::new("unshare");
                command.args(["-m", "sh", "-ec", script, "sh"]);
                command.arg(self.dir.path()).arg(OTHER).args(ENVIRONMENT);
                command.args(["/mnt/xip-run", "--image", "/mnt/image"]);
                command.args(["--bind", "/mnt/tmp:/tmp", "--workdir", "/tmp"]);
                command.args(argv);
                command
            }
            // Read-only, without devices and set-user-ID programs, and with the host's directories: as in a session.
            (Place::Native, user) => {
                let mut command = Command::new("unshare");
                let script = "mount --bind \"$1\" \"$2\"
                    mount -o remount,bind,ro,nosuid,nodev \"$2\"
                    for name in dev proc run sys; do mount --rbind /$name \"$2/$name\"; done
                    mount --bind \"$3\" \"$2/tmp\"
                    root=$2; user=$4; shift 4
                    exec chroot --userspec=$user --groups= \"$root\" /usr/bin/env -i --chdir=/tmp \"$@\"";
                command.args(["-m", "sh", "-ec", script, "sh"]);
                command.args([self.debian.dir.join("root"), path("root"), path("tmp")]);
                command.arg(match user {
                    User::Root => "+0:+0".to_owned(),
                    User::Other => format!("+{OTHER}:+{OTHER}"),
                });
                command.args(ENVIRONMENT).args(argv);
                command
            }
        }
    }

    /// What its processes can be told by.
    pub fn traces(&self) -> Traces {
        Traces {
            image: self.dir.path().join("image"),
            mounts: Some(
                self.dir
                    .path()
                    .file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .into(),
            ),
            memfds: Default::default(),
        }
    }

    /// Runs a program to its end, and asserts that nothing is left of it.
    #[track_caller]
    pub fn run(&self, argv: &[&str], stdin: &str) -> Ended {
        let mut child = self
            .command(argv)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut to, input) = (child.stdin.take().unwrap(), stdin.to_owned());
        // It may end without having read all.
        let writer = thread::spawn(move || drop(to.write_all(input.as_bytes())));
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        let mut traces = self.traces();
        let status = self.wait(&mut child, &mut traces);
        // Before the ends of its output, which it might keep open.
        self.assert_gone(&traces);
        writer.join().unwrap();
        let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
        Ended {
            status,
            stdout,
            stderr: without_pids(&stderr),
            files: self.files(),
        }
    }

    /// Waits for a session's first process, and notes the session's memfd meanwhile.
    #[track_caller]
    pub fn wait(&self, child: &mut Child, traces: &mut Traces) -> String {
        let end = Instant::now() + TIME_LIMIT;
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        loop {
            if traces.memfds.is_empty() && self.place == Place::InPlace {
                traces.memfds = memfds(&process);
            }
            if let Some(status) = child.try_wait().unwrap() {
                return ending(status);
            }
            if Instant::now() > end {
                let left = traces.left();
                traces.kill();
                child.wait().unwrap();
                panic!(
                    "{:?} lasts for more than {TIME_LIMIT:?}:\n{}",
                    self.place,
                    left.join("\n")
                );
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Nothing is left of the session; what is, is ended, and the test fails.
    #[track_caller]
    pub fn assert_gone(&self, traces: &Traces) {
        let left = traces.wait_until_gone();
        if !left.is_empty() {
            traces.kill();
            panic!("the session has left behind:\n{}", left.join("\n"));
        }
    }

    /// What is in /tmp: names, modes, and what is in them.
    fn files(&self) -> String {
        let tmp = self.dir.path().join("tmp");
        let (mut lines, mut todo) = (Vec::new(), vec![tmp.clone()]);
        while let Some(path) = todo.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_dir() {
                todo.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
                String::new()
            } else if meta.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if meta.is_file() {
                let mut hasher = DefaultHasher::new();
                fs::read(&path).unwrap().hash(&mut hasher);
                format!("{} bytes, {:016x}", meta.len(), hasher.finish())
            } else {
                "special".into()
            };
            let name = path.strip_prefix(&tmp).unwrap().display();
            lines.push(format!("/{name} {:o} {content}\n", meta.mode()));
        }
        lines.sort();
        lines.concat()
    }
}

/// What bash says of a program that a signal has ended has its process's number in it, which cannot be the same twice:
/// `FILE: line 3:  4711 Killed   sleep 9`.
fn without_pids(stderr: &[u8]) -> Vec<u8> {
    let without = |line: &str| -> Option<String> {
        let (head, rest) = line.split_once(": line ")?;
        let (number, rest) = rest.split_once(": ")?;
        let (pid, rest) = rest.trim_start().split_once(' ')?;
        pid.parse::<u32>().ok()?;
        Some(format!("{head}: line {number}: PID {rest}"))
    };
    let Ok(text) = std::str::from_utf8(stderr) else {
        return stderr.to_vec();
    };
    let lines = text.split_inclusive('\n');
    let lines = lines.map(|line| without(line).unwrap_or_else(|| line.to_owned()));
    lines.collect::<String>().into_bytes()
}

/// Reads to the end, by a thread of its own.
fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}
