//! A session at a terminal: what is typed, and what is shown.
#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// No answer takes longer.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// A pseudoterminal with a session leader on it, pty(7).
pub struct Terminal {
    pub child: Child,
    master: File,
    shown: Receiver<Vec<u8>>,
    transcript: String,
    /// How much of it has been waited for.
    seen: usize,
}

impl Terminal {
    /// Starts a command as the leader of a session of its own, whose controlling terminal this is: by setsid(1).
    pub fn start(command: &Command) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = File::from(rustix::fs::open(name, flags, Mode::empty()).unwrap());
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, size).unwrap();
        let mut setsid = Command::new("setsid");
        setsid
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        if command.get_envs().next().is_some() {
            setsid.env_clear();
        }
        setsid.envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let copy = || slave.try_clone().unwrap();
        let child = setsid
            .stdin(copy())
            .stdout(copy())
            .stderr(slave)
            .spawn()
            .unwrap();
        // The command's copies of the terminal are in this process until it is dropped.
        drop(setsid);
        let master = File::from(master);
        let (send, shown) = channel();
        let mut from = master.try_clone().unwrap();
        // Ends with EIO when nobody has the terminal open any more.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len) = from.read(&mut bytes) {
                if len == 0 || send.send(bytes[..len].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            master,
            shown,
            transcript: String::new(),
            seen: 0,
        }
    }

    /// Types something.
    pub fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until something is shown after what was waited for before.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let end = Instant::now() + TIME_LIMIT;
        loop {
            if let Some(at) = self.transcript[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            match self
                .shown
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(bytes) => self.transcript.push_str(&String::from_utf8_lossy(&bytes)),
                Err(why) => panic!("{text:?} is not shown ({why}):\n{}", self.transcript),
            }
        }
    }

    /// Types a line, and waits for a text and then for the prompt.
    #[track_caller]
    pub fn line(&mut self, keys: &str, text: &str, prompt: &str) {
        self.send(keys);
        self.send("\r");
        // Its echo.
        self.expect("\n");
        self.expect(text);
        self.expect(prompt);
    }

    /// Everything that is shown until nobody has the terminal any more.
    #[track_caller]
    pub fn finish(mut self) -> String {
        let end = Instant::now() + TIME_LIMIT;
        loop {
            match self
                .shown
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(bytes) => self.transcript.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Disconnected) => return std::mem::take(&mut self.transcript),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("somebody stays at the terminal:\n{}", self.transcript)
                }
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
