//! What process 1 says: on the console, and in a file if one is named.

use std::fs::{File, OpenOptions};
use std::io::Write;

use crate::error::{Error, Result};

/// How much a message matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Level {
    /// The system cannot be started.
    Failure,
    /// It goes on without something.
    Loss,
    /// What is done.
    Step,
}

/// Where messages go, and which.
#[derive(Debug)]
pub(super) struct Log {
    level: Level,
    file: Option<File>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: Level::Loss,
            file: None,
        }
    }
}

impl Log {
    /// Reads `LEVEL[,FILE]`: `quiet` for failures only, `info` for what is lost too, `debug` for every step; the file may be
    /// /dev/kmsg, the kernel's own log.
    ///
    /// # Errors
    /// If it has another form, or the file cannot be opened.
    pub(super) fn configure(&mut self, text: Option<&str>) -> Result<()> {
        let Some(text) = text else { return Ok(()) };
        let (level, file) = match text.split_once(',') {
            Some((level, file)) => (level, Some(file)),
            None if text.starts_with('/') => ("info", Some(text)),
            None => (text, None),
        };
        self.level = match level {
            "quiet" => Level::Failure,
            "info" => Level::Loss,
            "debug" => Level::Step,
            _ => {
                return Err(Error::failed(format!(
                    "log={text}: not quiet, info or debug, with or without ,FILE"
                )));
            }
        };
        if let Some(path) = file {
            let opened = OpenOptions::new().append(true).create(true).open(path);
            self.file = Some(opened.map_err(|err| Error::failed(format!("log={text}: {err}")))?);
        }
        Ok(())
    }

    /// Says it, if it matters enough.
    pub(super) fn say(&mut self, level: Level, what: &str) {
        if level > self.level {
            return;
        }
        let line = format!("xip-run: {what}\n");
        // eprintln!() would panic where it cannot be written.
        let _ = std::io::stderr().write_all(line.as_bytes());
        if let Some(file) = &mut self.file {
            let _ = file.write_all(line.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_files() {
        let level = |text| {
            let mut log = Log::default();
            log.configure(Some(text)).map(|()| log.level)
        };
        assert_eq!(level("quiet").unwrap(), Level::Failure);
        assert_eq!(level("debug").unwrap(), Level::Step);
        assert_eq!(level("/dev/null").unwrap(), Level::Loss);
        assert_eq!(level("debug,/dev/null").unwrap(), Level::Step);
        for bad in ["loud", "debug,/no/such/file", ""] {
            assert!(level(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_matters_is_in_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = Log::default();
        let text = format!("quiet,{}", file.path().display());
        log.configure(Some(&text)).unwrap();
        log.say(Level::Step, "a step");
        log.say(Level::Failure, "a failure");
        let said = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(said, "xip-run: a failure\n");
    }
}
