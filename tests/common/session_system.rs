//! Programs of samples/session/ in a tree with files of every storage, and the same in an image: what runs natively in the
//! one and in a session of the other.
#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use super::launch::{compile_with, copy_program, have, interpreter, run, text};
use super::{chroot, stored};

/// A way to link: its name, the compiler driver and its flags.
pub type Layout = (&'static str, &'static str, &'static [&'static str]);

pub const LAYOUTS: [Layout; 4] = [
    ("static", "cc", &["-static"]),
    ("dynamic", "cc", &["-pie", "-fPIE"]),
    ("musl-static", "musl-gcc", &["-static"]),
    ("musl-dynamic", "musl-gcc", &["-pie", "-fPIE"]),
];

/// Libraries that are loaded by name while a program runs: `dlopen(3)` in a probe, `pthread_cancel(3)` in glibc.
const LIBRARIES: [&str; 3] = ["libc.so.6", "libm.so.6", "libgcc_s.so.1"];

/// A tree, its image, and a directory that is /tmp natively and in a session.
pub struct System {
    pub dir: TempDir,
}

impl System {
    pub fn new(programs: &[(&str, PathBuf)]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("xip-run-test-")
            .tempdir()
            .unwrap();
        let system = Self { dir };
        let root = system.root();
        for name in ["bin", "dev", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::create_dir(system.tmp()).unwrap();
        for (name, program) in programs {
            copy_program(program, &root.join("bin").join(name));
            let Some(interpreter) = interpreter(program) else {
                continue;
            };
            system.add(&interpreter);
            if interpreter.ends_with("ld-linux-x86-64.so.2") {
                for library in LIBRARIES {
                    system.add(&library_path(library));
                }
            }
        }
        // For system(3) and popen(3).
        if let Some((shell, _)) = programs.first() {
            symlink(shell, root.join("bin/sh")).unwrap();
        }
        stored::write_files(&root);
        fs::write(system.image(), stored::image_of(&root)).unwrap();
        system
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn tmp(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }

    pub fn image(&self) -> PathBuf {
        self.dir.path().join("image.cramfs")
    }

    /// Puts a file of the host into the tree, at the same path; what a link leads to as well.
    fn add(&self, path: &Path) {
        let here = self.root().join(path.strip_prefix("/").unwrap());
        fs::create_dir_all(here.parent().unwrap()).unwrap();
        if here.symlink_metadata().is_ok() {
            return;
        }
        match fs::read_link(path) {
            Ok(target) => {
                symlink(&target, &here).unwrap();
                self.add(&path.parent().unwrap().join(target));
            }
            Err(_) => copy_program(path, &here),
        }
    }

    /// Both ways; nothing is left in /tmp.
    pub fn both(&self, program: &str, args: &[&str]) -> (Output, Output) {
        self.both_after("", program, args)
    }

    /// Both ways, once a shell has done what is inherited from it.
    pub fn both_after(&self, setup: &str, program: &str, args: &[&str]) -> (Output, Output) {
        let start = |command: Command| {
            let mut shell = Command::new("sh");
            shell
                .args(["-euc", &format!("{setup}\nexec \"$@\""), "sh"])
                .current_dir("/")
                .env_remove("XIP_IMAGE")
                .arg(command.get_program())
                .args(command.get_args());
            let mut command = shell;
            command.arg(Path::new("/bin").join(program)).args(args);
            let output = run(&mut command, b"");
            let left: Vec<_> = fs::read_dir(self.tmp()).unwrap().collect();
            assert!(left.is_empty(), "{program} leaves {left:?}");
            output
        };
        (
            start(chroot::native(&self.root(), &self.tmp())),
            start(chroot::session(&self.image(), &self.tmp())),
        )
    }
}

/// Where the C library's dynamic linker finds a library.
fn library_path(name: &str) -> PathBuf {
    let output = Command::new("cc")
        .arg(format!("-print-file-name={name}"))
        .output()
        .unwrap();
    let path = PathBuf::from(text(&output.stdout).trim());
    // The compiler has its own name for it; programs look in the system's directory.
    let path = path.canonicalize().unwrap();
    let system = Path::new("/lib/x86_64-linux-gnu").join(name);
    if system.exists() { system } else { path }
}

/// A probe in every layout that there is a compiler for.
pub fn compiled(probe: &str) -> Vec<(&'static str, PathBuf)> {
    let layouts = LAYOUTS
        .iter()
        .filter(|(_, driver, _)| *driver == "cc" || have(driver));
    layouts
        .map(|(layout, driver, flags)| {
            let flags: Vec<&str> = flags.iter().copied().chain(["-pthread"]).collect();
            let program = compile_with(driver, &format!("session/{probe}"), &flags);
            (
                *layout,
                program.unwrap_or_else(|failure| panic!("{failure}")),
            )
        })
        .collect()
}
