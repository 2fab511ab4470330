//! samples/pages.c: a program that touches so many pages of each kind as it is told, and then waits.
#![allow(dead_code, unreachable_pub, reason = "each test is a crate of its own")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::launch::{Stage, compile, first_line, have_cc};

/// The program; none where there is no compiler.
pub fn program() -> Option<PathBuf> {
    let flags = [
        "-nostdlib",
        "-static",
        "-no-pie",
        "-ffreestanding",
        "-fno-stack-protector",
        "-O1",
    ];
    have_cc().then(|| compile("pages", &flags).unwrap())
}

/// The same in an image that is built with these options, and its path there.
pub fn stage(options: &[&str]) -> Option<(Stage, PathBuf)> {
    let program = program()?;
    let stage = Stage::new();
    let path = stage.add_program(&program, "pages");
    stage.build(options);
    Some((stage, path))
}

/// A process that waits for the end of its input.
pub struct Waits(Child);

impl Waits {
    /// Starts it; it says `ready`.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(first_line(&mut child), "ready\n");
        let waits = Self(child);
        let stat = format!("/proc/{}/stat", waits.pid());
        while !std::fs::read_to_string(&stat).unwrap().contains(") S ") {
            std::thread::yield_now();
        }
        waits
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
