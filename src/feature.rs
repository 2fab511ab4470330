//! What xip-run needs of the kernel: each feature with what it gives, and what happens without it.
//!
//! `--probe` shows this table with what it found, the README shows it too (a test holds the two against each other), and
//! what a session says when it goes on without a feature is the same sentence.

use serde::Serialize;

/// What a feature is needed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// For anything to run.
    Everything,
    /// For a session that is all in place.
    Session,
    /// For less than that.
    Detail,
}

/// A feature of the kernel, or a right of its user.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Feature {
    /// For scripts: it stays.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// The first Linux that has it; "-" for what is no matter of versions.
    pub since: &'static str,
    /// What it is needed for.
    pub needed_for: Need,
    /// What it gives.
    pub gives: &'static str,
    /// What happens without it.
    pub without: &'static str,
}

macro_rules! features {
    ($($name:ident: $since:literal, $need:ident, $title:literal, $gives:literal, $without:literal;)*) => {
        $(
            #[doc = $title]
            pub const $name: Feature = Feature {
                name: stringify!($name),
                title: $title,
                since: $since,
                needed_for: Need::$need,
                gives: $gives,
                without: $without,
            };
        )*
        /// All of them, in the order in which they are shown.
        pub const ALL: &[Feature] = &[$($name),*];
    };
}

features! {
    PAGE_SIZE: "-", Everything, "pages of 4, 16 or 64 KiB",
        "images are laid out for one of these", "nothing runs";
    MEMFD: "3.17", Everything, "`memfd_create`, sealing",
        "the stub and the plan are in memory that nobody can change", "nothing runs";
    MEMFD_EXEC: "6.3", Everything, "`vm.memfd_noexec` not 2",
        "memfds can be executed", "nothing runs; the message names the setting";
    EXECVEAT: "3.19", Everything, "`execveat`",
        "the stub is started by a real execve(2)", "nothing runs";
    SECCOMP: "3.5", Session, "`CONFIG_SECCOMP_FILTER`",
        "what programs start and load goes through the handler",
        "only the first program is in place; what it loads and starts comes from the page cache of the view";
    MOUNT_NAMESPACE: "2.4.19", Session, "mount namespace (root, or a user namespace)",
        "a root directory of the session's own",
        "no root view: one program is in place, with the host's root directory";
    USER_NAMESPACE: "3.8", Detail, "user namespaces for users (`CONFIG_USER_NS`)",
        "users who are not root can have a root view",
        "no root view for users who are not root: one program is in place, with the host's root directory";
    FUSE: "3.15", Session, "`/dev/fuse` (`CONFIG_FUSE_FS`)",
        "the image's tree can be served",
        "no root view but with `--view`: one program is in place, with the host's root directory";
    FUSE_MOUNT: "4.18", Session, "FUSE mounts (in a user namespace, if not root)",
        "the image's tree becomes the root directory",
        "no root view but with `--view`: one program is in place, with the host's root directory";
    MM_MAP: "3.18", Session, "`CONFIG_CHECKPOINT_RESTORE` (`PR_SET_MM_MAP`)",
        "/proc and the break are as execve(2) makes them",
        "programs run; their break lies far from their bss, /proc/PID/auxv and stat describe the stub";
    SET_EXE: "5.9", Session, "CAP_CHECKPOINT_RESTORE in the session's user namespace (before 5.9 CAP_SYS_ADMIN)",
        "/proc/self/exe is the program",
        "in a session /proc/self/exe is the stub; executing it starts the program again all the same";
    PROC: "-", Session, "/proc mounted",
        "programs start themselves through /proc/self/exe; user namespaces are set up",
        "programs run, but cannot start themselves through /proc/self/exe; a root view for root only";
    STATX: "4.11", Detail, "`statx`",
        "an image that is replaced during a launch is noticed",
        "an image that is replaced during a launch is not noticed";
    FIXED_NOREPLACE: "4.17", Detail, "`MAP_FIXED_NOREPLACE`",
        "programs with fixed addresses never cover anything",
        "the address is a hint, and a collision is still an error";
    FACCESSAT2: "5.8", Detail, "`faccessat2`",
        "who may execute a program is the kernel's to say",
        "in a session, who may execute is judged by the superuser's rule";
    MOUNT_SETATTR: "5.12", Detail, "`mount_setattr`",
        "`--bind ...:ro` shows what is mounted below, read-only too",
        "with `--bind ...:ro`, what is mounted below SRC is not shown";
}
