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
    ($($constant:ident, $name:literal, $title:literal, $since:literal, $need:ident, $gives:literal, $without:literal;)*) => {
        $(
            #[doc = $title]
            pub const $constant: Feature = Feature {
                name: $name,
                title: $title,
                since: $since,
                needed_for: Need::$need,
                gives: $gives,
                without: $without,
            };
        )*
        /// All of them, in the order in which they are shown.
        pub const ALL: &[Feature] = &[$($constant),*];
    };
}

features! {
    PAGE_SIZE, "page-size", "pages of 4, 16 or 64 KiB", "-", Everything,
        "images are laid out for one of these",
        "nothing runs";
    MEMFD, "memfd", "`memfd_create`, sealing", "3.17", Everything,
        "the stub and the plan lie in memory that nobody can change",
        "nothing runs";
    MEMFD_EXEC, "memfd-exec", "`vm.memfd_noexec` not 2", "6.3", Everything,
        "memfds can be executed",
        "nothing runs; the message names the setting";
    EXECVEAT, "execveat", "`execveat`", "3.19", Everything,
        "the stub is started by a real execve(2)",
        "nothing runs";
    SECCOMP, "seccomp", "`CONFIG_SECCOMP_FILTER`", "3.5", Session,
        "what programs start and load goes through the handler",
        "only the first program is in place; what it loads and starts comes from the view's page cache";
    MOUNT_NAMESPACE, "mount-namespace", "mount namespaces", "3.8", Session,
        "a root directory of the session's own; users need a user namespace for it",
        "no root view: one program is in place, with the host's root directory";
    FUSE, "fuse", "`/dev/fuse` (`CONFIG_FUSE_FS`)", "3.15", Session,
        "the image's tree can be served",
        "no root view, but with `--view`: one program is in place, with the host's root directory";
    FUSE_MOUNT, "fuse-mount", "FUSE mounts", "4.18", Session,
        "the image's tree becomes the root directory; before 4.18 for root only",
        "no root view, but with `--view`: one program is in place, with the host's root directory";
    MM_MAP, "mm-map", "`CONFIG_CHECKPOINT_RESTORE`", "3.18", Session,
        "/proc and the break are as execve(2) makes them (prctl(2) `PR_SET_MM_MAP`)",
        "programs run; their break lies far from their bss, /proc/PID/auxv and stat describe the stub";
    SET_EXE, "set-exe", "CAP_CHECKPOINT_RESTORE", "5.9", Session,
        "/proc/self/exe is the program; root has it, users in their namespace (before 5.9 CAP_SYS_ADMIN does)",
        "in a session /proc/self/exe is the stub; executing it starts the program again all the same";
    PROC, "proc", "/proc mounted", "-", Detail,
        "programs can start themselves through /proc/self/exe; user namespaces can be set up",
        "programs run, but cannot start themselves through /proc/self/exe; a root view for root only";
    USER_NAMESPACE, "user-namespace", "`CONFIG_USER_NS`, for users", "3.8", Detail,
        "users who are not root can have a root view",
        "a root view needs root";
    STATX, "statx", "`statx`", "4.11", Detail,
        "an image that is replaced during a launch is noticed",
        "it is not noticed";
    FIXED_NOREPLACE, "map-fixed-noreplace", "`MAP_FIXED_NOREPLACE`", "4.17", Detail,
        "programs with fixed addresses never cover anything",
        "the address is a hint, and a collision is still an error";
    FACCESSAT2, "faccessat2", "`faccessat2`", "5.8", Detail,
        "in a session, who may execute a program is the kernel's to say",
        "it is judged by the superuser's rule";
    MOUNT_SETATTR, "mount-setattr", "`mount_setattr`", "5.12", Detail,
        "`--bind SRC:DST:ro` shows what is mounted below SRC",
        "it is not shown";
}
