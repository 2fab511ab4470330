//! What is measured: programs, an image with them, and the four ways to start them. All of it is gone when [`Setup`] is.

use std::ffi::{CString, OsString};
use std::fs;
use std::io::{Read, Seek};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tempfile::TempDir;
use xip_run::cramfs::build::{BuildOptions, build};
use xip_run::cramfs::xip::XipPolicy;
use xip_run::elf::ElfFile;

use crate::shared::xip_run;

/// The first argument that makes this benchmark the helper that calls userland-execve.
pub(crate) const HELPER: &str = "--userland-execve";

/// How a program is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    Native,
    InPlace,
    Copying,
    UserlandExecve,
    /// The helper that calls userland-execve, when it does not call it.
    HelperAlone,
}

impl Way {
    pub(crate) const ALL: [Self; 5] = [
        Self::Native,
        Self::InPlace,
        Self::Copying,
        Self::UserlandExecve,
        Self::HelperAlone,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::InPlace => "in place",
            Self::Copying => "copying (--copy-text)",
            Self::UserlandExecve => "userland-execve",
            Self::HelperAlone => "  (its helper alone)",
        }
    }
}

/// A program and how to let it end at once and sleep.
pub(crate) struct Program {
    pub(crate) title: String,
    pub(crate) is_static: bool,
    /// Paths in the tree and in the image, and arguments.
    pub(crate) ends: Vec<&'static str>,
    pub(crate) sleeps: Vec<&'static str>,
}

pub(crate) struct Setup {
    dir: TempDir,
    pub(crate) xip_run: PathBuf,
    pub(crate) xip_run_bytes: u64,
    /// Where the binary comes from, in words.
    pub(crate) xip_run_is: &'static str,
    helper: PathBuf,
    pub(crate) programs: Vec<Program>,
}

impl Setup {
    pub(crate) fn new() -> Result<Self> {
        let (xip_run, xip_run_is) = xip_run()?;
        let xip_run_bytes = fs::metadata(&xip_run)
            .with_context(|| format!("{}", xip_run.display()))?
            .len();
        let dir = tempfile::tempdir()?;
        let tree = dir.path().join("root");
        let mut programs = Vec::new();
        if add(&tree, Path::new("/bin/busybox"), "busybox")?.is_some_and(|interp| interp.is_empty())
        {
            programs.push(Program {
                title: "static busybox".to_owned(),
                is_static: true,
                ends: vec!["/bin/busybox", "true"],
                sleeps: vec!["/bin/busybox", "sleep", "1000"],
            });
        } else {
            println!("no static /bin/busybox: install busybox-static");
        }
        let interps = [
            add(&tree, Path::new("/bin/true"), "true")?,
            add(&tree, Path::new("/bin/sleep"), "sleep")?,
        ];
        if let [Some(interp), Some(other)] = interps
            && interp == other
            && !interp.is_empty()
        {
            let interp = PathBuf::from(OsString::from_vec(interp));
            let inside = tree.join(interp.strip_prefix("/").unwrap_or(&interp));
            fs::create_dir_all(inside.parent().unwrap_or(&tree))?;
            fs::copy(&interp, &inside).with_context(|| format!("copy {}", interp.display()))?;
            programs.push(Program {
                title: "dynamic true and sleep".to_owned(),
                is_static: false,
                ends: vec!["/bin/true"],
                sleeps: vec!["/bin/sleep", "1000"],
            });
        } else {
            println!("/bin/true and /bin/sleep are no dynamic programs here");
        }
        if programs.is_empty() {
            bail!("there is no program to measure");
        }
        let options = BuildOptions {
            xip: XipPolicy::new(&[], false)?,
            ..BuildOptions::default()
        };
        build(&tree, &dir.path().join("image"), &options, &mut |_, _| {})?;
        Ok(Self {
            dir,
            xip_run,
            xip_run_bytes,
            xip_run_is,
            helper: std::env::current_exe()?,
            programs,
        })
    }

    /// The command that starts a program; `argv` as in [`Program`].
    pub(crate) fn command(&self, way: Way, argv: &[&str]) -> Command {
        let (program, args) = argv.split_first().unwrap_or((&"", &[]));
        let in_tree = self
            .dir
            .path()
            .join("root")
            .join(program.trim_start_matches('/'));
        let mut command = match way {
            Way::Native => Command::new(in_tree),
            Way::InPlace | Way::Copying => {
                let mut command = Command::new(&self.xip_run);
                command.arg("--no-root");
                if way == Way::Copying {
                    command.arg("--copy-text");
                }
                command
                    .arg("--image")
                    .arg(self.dir.path().join("image"))
                    .arg(program);
                command
            }
            Way::UserlandExecve => {
                let mut command = Command::new(&self.helper);
                command.arg(HELPER).arg(in_tree);
                command
            }
            Way::HelperAlone => {
                let mut command = Command::new(&self.helper);
                command.arg(HELPER);
                return command;
            }
        };
        command.args(args).env_clear();
        command
    }

    /// Starts a program once, and says why it cannot be measured if it does not end well within seconds.
    pub(crate) fn try_once(&self, way: Way, argv: &[&str]) -> Result<Result<(), String>> {
        let mut stderr = tempfile::tempfile()?;
        let mut command = self.command(way, argv);
        command.stderr(stderr.try_clone()?);
        let mut running = Running::spawn(&mut command)?;
        let Some(status) = running.wait_for(Duration::from_secs(10))? else {
            return Ok(Err("does not end within 10 seconds".to_owned()));
        };
        if status.success() {
            return Ok(Ok(()));
        }
        let mut text = String::new();
        stderr.rewind()?;
        stderr.read_to_string(&mut text)?;
        // A panic says where it was in a line of its own, before what it was.
        let said = text
            .lines()
            .filter(|line| {
                !line.is_empty() && !line.starts_with("thread ") && !line.starts_with("note: ")
            })
            .collect::<Vec<_>>()
            .join(" ");
        Ok(Err(format!("cannot ({status}): {said}")))
    }

    /// Removes the temporary directory.
    pub(crate) fn close(self) -> Result<()> {
        self.dir.close().context("remove the temporary directory")
    }
}

/// A process that does not outlive this value.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        Ok(Self(child))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Its exit status; `None` if it still runs after `limit`.
    pub(crate) fn wait_for(&mut self, limit: Duration) -> Result<Option<std::process::ExitStatus>> {
        let end = Instant::now() + limit;
        loop {
            match self.0.try_wait()? {
                None if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                answer => return Ok(answer),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Puts a program into the tree, as /bin/`name`. Its interpreter's path, empty if it is static; `None` if there is no
/// such ELF program.
fn add(tree: &Path, from: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let Ok(bytes) = fs::read(from) else {
        return Ok(None);
    };
    let Ok(elf) = ElfFile::parse(&bytes) else {
        return Ok(None);
    };
    fs::create_dir_all(tree.join("bin"))?;
    fs::copy(from, tree.join("bin").join(name))?;
    Ok(Some(elf.interp.unwrap_or_default()))
}

/// What the helper process does: becomes the program, as the crate userland-execve can; without a program, ends.
pub(crate) fn helper(argv: Vec<OsString>) -> ExitCode {
    let Some(path) = argv.first().cloned() else {
        return ExitCode::SUCCESS;
    };
    let strings: Result<Vec<CString>, _> = argv
        .iter()
        .map(|arg| CString::new(arg.as_bytes()))
        .collect();
    match strings {
        Ok(argv) => become_program(Path::new(&path), &argv),
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn become_program(path: &Path, argv: &[CString]) -> ExitCode {
    userland_execve::exec(path, argv, &[] as &[CString])
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn become_program(_: &Path, _: &[CString]) -> ExitCode {
    eprintln!("the crate userland-execve is not for this processor");
    ExitCode::FAILURE
}
