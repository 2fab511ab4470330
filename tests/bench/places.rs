//! Where the work is done: one tree of programs and files, and a shell in each of the places that have it as their root.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tempfile::NamedTempFile;

use super::launch::{Stage, compile, interpreter};

/// The files of the tree that are measured have so many bytes.
const FILE_BYTES: usize = 64 * 1024;
/// How many files the directory has that is read.
const MANY: usize = 100;
/// No answer takes longer, even under proot.
const LIMIT: Duration = Duration::from_secs(20);

/// A root directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Place {
    /// chroot(2) to the tree, in a mount namespace of its own.
    Native,
    /// The same to a copy of the tree in a tmpfs.
    Tmpfs,
    /// A session of xip-run.
    Session,
    Proot,
}

impl Place {
    pub(crate) const ALL: [Self; 4] = [Self::Native, Self::Tmpfs, Self::Session, Self::Proot];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Tmpfs => "native, tmpfs",
            Self::Session => "in place",
            Self::Proot => "proot",
        }
    }
}

/// Programs and files, an image of them, and what the places need beside it.
pub(crate) struct Tree {
    stage: Stage,
    xip_run: PathBuf,
    pub(crate) has_dash: bool,
    pub(crate) has_python: bool,
    pub(crate) has_proot: bool,
    /// A file of the host that all places see.
    pub(crate) host_file: NamedTempFile,
    /// The C library, which is in the tree by the same path.
    pub(crate) library: PathBuf,
}

impl Tree {
    pub(crate) fn new(xip_run: &Path) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "chroot(2) and mounts need root"
        );
        let stage = Stage::new();
        for dir in ["proc", "dev", "tmp"] {
            fs::create_dir(stage.in_root(Path::new(dir)))?;
        }
        let busybox = find("busybox").filter(|path| interpreter(path).is_none());
        let busybox = busybox.context("there is no static busybox: install busybox-static")?;
        stage.add_at(&busybox, Path::new("/bin/busybox"));
        find("cc").context("there is no C compiler: install gcc and libc6-dev")?;
        let compiled = |flag| compile("session/bench", &[flag]).map_err(anyhow::Error::msg);
        stage.add_at(&compiled("-static")?, Path::new("/bin/bench"));
        let dynamic = compiled("-pie")?;
        add_program(&stage, &dynamic, "/bin/instance")?;
        let library = libraries(&dynamic)?.into_iter();
        let library = library
            .max_by_key(|path| fs::metadata(path).map_or(0, |meta| meta.len()))
            .context("a dynamic program without libraries")?;
        let of_host = |name: &str| find(name).with_context(|| format!("there is no {name}"));
        add_program(&stage, &of_host("true")?, "/bin/true")?;
        let has_dash = match find("dash") {
            Some(dash) => add_program(&stage, &dash, "/bin/dash").is_ok(),
            None => false,
        };
        let has_python = add_python(&stage)?;

        fs::create_dir(stage.in_root(Path::new("/etc")))?;
        fs::write(
            stage.in_root(Path::new("/etc/loop")),
            "i=0\nwhile [ $i -lt $1 ]; do /bin/true; i=$((i+1)); done\n",
        )?;
        let bytes: Vec<u8> = std::iter::successors(Some(1_u32), |state| {
            Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
        })
        .map(|state| (state >> 24) as u8)
        .take(FILE_BYTES)
        .collect();
        fs::create_dir_all(stage.in_root(Path::new("/d/d/d")))?;
        for path in ["/f", "/d/f", "/d/d/d/f"] {
            fs::write(stage.in_root(Path::new(path)), &bytes)?;
        }
        fs::create_dir(stage.in_root(Path::new("/many")))?;
        for number in 0..MANY {
            let path = format!("/many/{number}");
            fs::write(stage.in_root(Path::new(&path)), "few bytes\n")?;
        }
        stage.build::<&str>(&[]);
        // Where the tmpfs will be.
        fs::create_dir(stage.path().join("tmpfs"))?;
        let mut host_file = tempfile::Builder::new()
            .prefix("xip-run-bench-")
            .tempfile_in("/tmp")?;
        host_file.write_all(&bytes)?;
        Ok(Self {
            xip_run: xip_run.to_owned(),
            has_dash,
            has_python,
            has_proot: find("proot").is_some(),
            host_file,
            library,
            stage,
        })
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.stage.image()
    }

    /// A shell in a place. Its /proc, /dev and /tmp are the host's.
    pub(crate) fn shell(&self, place: Place) -> Result<Shell> {
        let root = self.stage.path().join("root");
        let native = |prepare: &str, root: &Path| {
            // The mounts are the namespace's own: nothing outside can come upon them, not even who removes the tree.
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
            command.arg(format!(
                "cd \"$1\"; {prepare}; for dir in proc dev tmp; do mount --rbind /$dir \"$2/$dir\"; done
                 exec chroot \"$2\" /bin/busybox sh"
            ));
            command.arg("sh").arg(self.stage.path()).arg(root);
            command
        };
        let mut command = match place {
            Place::Native => native(":", &root),
            Place::Tmpfs => native(
                "mount -t tmpfs -o mode=755 tmpfs tmpfs; cp -a root/. tmpfs",
                &self.stage.path().join("tmpfs"),
            ),
            Place::Session => {
                let mut command = Command::new(&self.xip_run);
                command.arg("--image").arg(self.image());
                command.args(["--workdir", "/", "/bin/busybox", "sh"]);
                command
            }
            Place::Proot => {
                let mut command = Command::new("proot");
                command.arg("-r").arg(root);
                command.args(["-b", "/proc", "-b", "/dev", "-b", "/tmp", "-w", "/"]);
                command.args(["/bin/busybox", "sh"]);
                command
            }
        };
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        Shell::new(&mut command)
    }
}

/// A shell that does what it is told, line by line. Neither it nor what it started outlives this value.
pub(crate) struct Shell {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Shell {
    fn new(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let stdout = child.stdout.take().context("no standard output")?;
        Ok(Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(stdout),
            child,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has a command done that prints a line; the line, without its end.
    pub(crate) fn ask(&mut self, command: &str) -> Result<String> {
        self.begin(command)?;
        let line = self.line()?;
        ensure!(
            !line.starts_with('='),
            "{command}: exit status {}",
            &line[1..]
        );
        self.end(command)?;
        Ok(line)
    }

    /// Starts a command.
    pub(crate) fn begin(&mut self, command: &str) -> Result<()> {
        self.write(&format!("{command}; echo =$?\n"))
    }

    /// Sees a command to its end, of which nothing is left to be read.
    pub(crate) fn end(&mut self, command: &str) -> Result<()> {
        let status = self.line()?;
        ensure!(status == "=0", "{command}: not exit status 0: {status}");
        Ok(())
    }

    pub(crate) fn write(&mut self, text: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("it has no standard input")?;
        stdin
            .write_all(text.as_bytes())
            .context("write to the shell")
    }

    pub(crate) fn line(&mut self) -> Result<String> {
        if self.stdout.buffer().is_empty() {
            let mut fds = [PollFd::new(self.stdout.get_ref(), PollFlags::IN)];
            let limit = Timespec::try_from(LIMIT)?;
            if poll(&mut fds, Some(&limit))? == 0 {
                bail!("no answer within {LIMIT:?}");
            }
        }
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            bail!("the shell has ended: {}", self.child.wait()?);
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.stdin.take());
        if let Ok(group) = i32::try_from(self.child.id())
            && let Some(group) = Pid::from_raw(group)
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// A program of the host. Debian's come first: what else is in PATH may be a script.
fn find(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

/// Puts a program into the tree, and its interpreter and libraries where they are on the host.
fn add_program(stage: &Stage, program: &Path, to: &str) -> Result<()> {
    stage.add_at(program, Path::new(to));
    for library in libraries(program)? {
        stage.add_at(&library, &library);
    }
    Ok(())
}

/// The shared libraries of a dynamic program, and its interpreter, which lists them: ld.so(8).
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new(program)
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    let list = String::from_utf8_lossy(&output.stdout);
    let paths: Vec<PathBuf> = list
        .split_ascii_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect();
    ensure!(
        !paths.is_empty(),
        "{}: not a dynamic program",
        program.display()
    );
    Ok(paths)
}

/// Puts Debian's Python into the tree with what it loads to do nothing. Its byte code is not to be compared with its
/// source's time: cramfs has none, and every start would compile again.
fn add_python(stage: &Stage) -> Result<bool> {
    let Some(python) = find("python3") else {
        return Ok(false);
    };
    let isolated = |args: &[&str]| {
        let output = Command::new(&python).arg("-I").args(args).output()?;
        ensure!(output.status.success(), "{}: {output:?}", python.display());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let loaded = isolated(&[
        "-c",
        "import os, sys; print(os.path.dirname(os.__file__)); \
         [print(m.__file__) for m in list(sys.modules.values()) if getattr(m, '__file__', None)]",
    ])?;
    let (library, files) = loaded.split_once('\n').context("python3 says nothing")?;
    add_program(stage, &python, "/usr/bin/python3")?;
    fs::create_dir_all(stage.in_root(&Path::new(library).join("lib-dynload")))?;
    for file in files.lines().map(Path::new) {
        if file.starts_with(library) {
            stage.add_at(file, file);
        }
    }
    let in_tree = stage.in_root(Path::new(library));
    let in_tree = in_tree.to_str().context("a path that is no text")?;
    isolated(&[
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
        in_tree,
    ])?;
    Ok(true)
}
