//! What is configured: by words `xip.KEY=VALUE` of the kernel's command line, and by lines `KEY=VALUE` of a file. All but
//! `image` is for [`init`](crate::init).

use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Error, Result};

/// The configuration file.
pub const FILE: &str = "/etc/xip-run.conf";
/// What the words of the kernel's command line begin with.
const PREFIX: &str = "xip.";
/// All keys, for messages.
const KEYS: &str = "image, init, bind, module, mount, log, rescue, verify";

/// Settings, as they were written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Config {
    /// `image=SPEC`: see [`Spec`](crate::backing::spec::Spec).
    pub image: Option<String>,
    /// `init=PATH`: the program of the image that becomes process 1.
    pub init: Option<String>,
    /// `bind=SRC[:DST][:ro]`, any number of them.
    pub binds: Vec<String>,
    /// `module=FILE [PARAMETER=VALUE]...`: kernel modules, loaded in this order.
    pub modules: Vec<String>,
    /// `mount=DEVICE:DIR:TYPE[:OPTIONS]`: mounted before the image is looked for, in this order.
    pub mounts: Vec<String>,
    /// `log=LEVEL[,FILE]`: what is said, and where else than on the console.
    pub log: Option<String>,
    /// `rescue[=PROGRAM]`: the shell for when something fails; empty if none was named.
    pub rescue: Option<String>,
    /// `verify`: compute the image's CRC.
    pub verify: bool,
    /// Words of the command line that are nothing of this.
    pub unknown: Vec<String>,
}

impl Config {
    /// The command line's settings, and the file's where it says nothing. What there can be several of is taken from both, the
    /// file's first.
    ///
    /// # Errors
    /// [`Kind::Failed`](crate::error::Kind) if the file has a line that means nothing.
    pub fn read() -> Result<Self> {
        let text = read_file(Path::new(FILE))?;
        Ok(Self::of_kernel().over(Self::parse_file(&text)?))
    }

    /// What the kernel's command line says: nothing, if it cannot be read.
    pub fn of_kernel() -> Self {
        let text = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        Self::parse_cmdline(&text)
    }

    /// Reads a kernel command line. Quotes keep spaces, and what follows `--` is the init's, as for the kernel itself.
    ///
    /// ```
    /// # use xip_run::config::Config;
    /// let config = Config::parse_cmdline("quiet xip.image=mtd:rootfs xip.rescue xip.bind=/data");
    /// assert_eq!(config.image.as_deref(), Some("mtd:rootfs"));
    /// assert_eq!(config.rescue.as_deref(), Some(""));
    /// assert_eq!(config.binds, ["/data"]);
    /// ```
    pub fn parse_cmdline(text: &str) -> Self {
        let mut config = Self::default();
        for word in words(text).take_while(|word| word != "--") {
            let Some(setting) = word.strip_prefix(PREFIX) else {
                continue;
            };
            let (key, value) = match setting.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (setting, None),
            };
            if !config.set(key, value) {
                config.unknown.push(word);
            }
        }
        config
    }

    /// Reads a configuration file. A value is all of the rest of its line; `#` starts a comment line.
    ///
    /// # Errors
    /// [`Kind::Failed`](crate::error::Kind) with the line.
    pub fn parse_file(text: &str) -> Result<Self> {
        let mut config = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |what: &str| Error::failed(format!("{FILE}:{number}: {what}"));
            let (key, value) = match line.split_once('=') {
                Some((key, value)) => (key.trim(), Some(value.trim())),
                None => (line, None),
            };
            if key == "image"
                && !value.is_some_and(|value| {
                    value.starts_with('/') || value.starts_with("mtd:") || value == "auto"
                })
            {
                return Err(bad(
                    "image= takes an absolute path, mtd:NAME or auto, without quotes",
                ));
            }
            if !config.set(key, value) {
                return Err(bad(&match KEYS.split(", ").any(|known| known == key) {
                    true => format!("{key} needs a value: {key}=..."),
                    false => format!("unknown key {key:?}; this version knows {KEYS}"),
                }));
            }
        }
        Ok(config)
    }

    /// False if the key is unknown, or has no value and needs one. Of several values the last one counts, unless all do; an
    /// empty one is none.
    fn set(&mut self, key: &str, value: Option<&str>) -> bool {
        let text = value.map(str::to_owned);
        let list = match key {
            "rescue" => {
                self.rescue = Some(text.unwrap_or_default());
                return true;
            }
            "verify" => {
                self.verify = text.is_none_or(|text| text != "0");
                return true;
            }
            "bind" => &mut self.binds,
            "module" => &mut self.modules,
            "mount" => &mut self.mounts,
            _ => {
                let one = match key {
                    "image" => &mut self.image,
                    "init" => &mut self.init,
                    "log" => &mut self.log,
                    _ => return false,
                };
                let has_value = text.is_some();
                *one = text.filter(|text| !text.is_empty()).or(one.take());
                return has_value;
            }
        };
        let has_value = text.is_some();
        list.extend(text.filter(|text| !text.is_empty()));
        has_value
    }

    /// These settings, and others where these say nothing.
    fn over(self, other: Self) -> Self {
        let both = |mut first: Vec<String>, second| {
            first.extend(second);
            first
        };
        Self {
            image: self.image.or(other.image),
            init: self.init.or(other.init),
            binds: both(other.binds, self.binds),
            modules: both(other.modules, self.modules),
            mounts: both(other.mounts, self.mounts),
            log: self.log.or(other.log),
            rescue: self.rescue.or(other.rescue),
            verify: self.verify || other.verify,
            unknown: self.unknown,
        }
    }
}

/// What a configuration file says; nothing if there is none. One that cannot be read is not passed over: it may name
/// another image.
fn read_file(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(|err| {
            Error::failed(format!(
                "{}: {err}; make it readable, or name the image with --image SPEC",
                path.display()
            ))
        }),
    }
}

/// The words of a kernel command line, without their quotes: lib/cmdline.c next_arg().
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> {
    let mut quoted = false;
    let separate = move |char: char| {
        quoted ^= char == '"';
        char.is_whitespace() && !quoted
    };
    let words = text.split(separate).filter(|word| !word.is_empty());
    words.map(|word| word.replace('"', ""))
}

#[cfg(test)]
mod tests {
    use super::{Config, read_file};

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_file(&dir.path().join("none")).unwrap(), "");
        // Neither can root read a directory.
        let err = read_file(dir.path()).unwrap_err().to_string();
        let path = dir.path().to_str().unwrap();
        assert!(err.contains(path) && err.contains("--image"), "{err}");
    }

    #[test]
    fn the_kernel_command_line_is_read() {
        let config = Config::parse_cmdline(
            "console=ttyS0 xip.image=/a xip.imagery=/no xip.image=/flash.cramfs xip.image= quiet \
             xip.module=\"/m/a.ko x=1\" \"xip.bind=/with space:/b\" xip.module=/m/b.ko xip.log xip.rescue=/bin/dash \
             xip.init=/sbin/start -- xip.image=/not\n",
        );
        assert_eq!(config.image.as_deref(), Some("/flash.cramfs"));
        assert_eq!(config.modules, ["/m/a.ko x=1", "/m/b.ko"]);
        assert_eq!(config.binds, ["/with space:/b"]);
        assert_eq!(config.unknown, ["xip.imagery=/no", "xip.log"]);
        assert_eq!(config.rescue.as_deref(), Some("/bin/dash"));
        assert_eq!(config.init.as_deref(), Some("/sbin/start"));
        assert!(!config.verify);
        assert_eq!(Config::parse_cmdline("quiet"), Config::default());
    }

    #[test]
    fn the_file_is_read_and_its_mistakes_are_named() {
        let image = |text: &str| Config::parse_file(text).unwrap().image;
        let config = "# image=/old\nimage = /with space.cramfs\n\n";
        assert_eq!(image(config).as_deref(), Some("/with space.cramfs"));
        assert_eq!(image(""), None);
        for spec in ["/dev/mem@0x04000000+16M", "mtd:rootfs", "auto"] {
            assert_eq!(image(&format!("image={spec}")).as_deref(), Some(spec));
        }
        for (config, named) in [
            ("image=/a\nimag=/b", ":2: unknown key \"imag\""),
            ("image=relative", ":1: image= takes an absolute path"),
            ("image=\"/a\"", ":1: image= takes an absolute path"),
            ("image", ":1: image= takes an absolute path"),
            ("verify\n\nmodule", ":3: module needs a value"),
        ] {
            let err = Config::parse_file(config).unwrap_err().to_string();
            assert!(err.contains(named), "{err}");
        }
    }

    #[test]
    fn the_command_line_counts_more_than_the_file() {
        let file =
            "image=/a\ninit=/i\nmodule=/1.ko\nrescue\nmount=/dev/pmem0:/flash:ext4:dax\nverify\n";
        let file = Config::parse_file(file).unwrap();
        let both = Config::parse_cmdline("xip.image=/b xip.module=/2.ko").over(file);
        assert_eq!(both.image.as_deref(), Some("/b"));
        assert_eq!(both.init.as_deref(), Some("/i"));
        assert_eq!(both.modules, ["/1.ko", "/2.ko"]);
        assert_eq!(both.mounts, ["/dev/pmem0:/flash:ext4:dax"]);
        assert!(both.verify && both.rescue.is_some());
    }
}
