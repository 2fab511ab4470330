//! The one public error: what failed, where, and the exit code it means.

use std::fmt;

/// What sort of failure it was; each has one exit code (as env(1) and chroot(1) use them).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// xip-run itself failed, or was told something it cannot do: exit code 125.
    Failed,
    /// The image is damaged, hostile or of a form nobody can run: exit code 125.
    BadImage,
    /// The program was found but cannot be run: exit code 126.
    NotRunnable,
    /// The kernel has no feature that is needed, or the user no right to it: exit code 123.
    Lacking,
    /// A path does not exist in the image: exit code 127.
    NotFound,
    /// A path has more symbolic links than Linux follows (`ELOOP`): exit code 126.
    SymlinkLoop,
    /// A path uses something that is not a directory as one (`ENOTDIR`): exit code 126.
    NotDirectory,
}

impl Kind {
    /// The exit code of a command that ends with this error.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Lacking => 123,
            Self::Failed | Self::BadImage => 125,
            Self::NotRunnable | Self::SymlinkLoop | Self::NotDirectory => 126,
            Self::NotFound => 127,
        }
    }
}

/// An error of the library: its kind, and a sentence that names the thing, the place and the way out.
#[derive(Clone, Debug)]
pub struct Error {
    kind: Kind,
    message: String,
}

/// The library's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with its sentence.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// Shorthand for [`Kind::BadImage`].
    pub fn bad_image(message: impl Into<String>) -> Self {
        Self::new(Kind::BadImage, message)
    }

    /// Shorthand for [`Kind::Failed`].
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Shorthand for [`Kind::NotRunnable`].
    pub fn not_runnable(message: impl Into<String>) -> Self {
        Self::new(Kind::NotRunnable, message)
    }

    /// Shorthand for [`Kind::Lacking`].
    pub fn lacking(message: impl Into<String>) -> Self {
        Self::new(Kind::Lacking, message)
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same error with what it happened to in front: `/bin/sh: block 3: …`.
    #[must_use]
    pub fn context(self, thing: impl fmt::Display) -> Self {
        Self {
            kind: self.kind,
            message: format!("{thing}: {}", self.message),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
