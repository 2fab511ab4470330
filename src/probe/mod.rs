//! What this kernel has for a session, and lets this user have: every feature is tried, and nothing of the trials
//! stays.

mod image;
mod text;

use std::fmt::Display;
use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::StatxFlags;
use serde::{Serialize, Serializer};

use crate::backing::Backing;
use crate::error::{Error, Result};
use crate::feature::{self, Feature, Need};
use crate::session::attempt as session;
use crate::sys::{self, Ended};
use crate::units::PageSize;
use crate::view::attempt as view;

pub use image::{Ability, ImageFinding};

/// `PROC_SUPER_MAGIC`
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// Release of the kernel: uname(2).
    pub kernel: String,
    /// Its machine.
    pub machine: String,
    /// Size of its pages in bytes.
    pub page_size: u64,
    /// Who asks: the effective user.
    pub uid: u32,
    /// Every feature of [`feature::ALL`], in that order.
    pub features: Vec<Finding>,
    /// What the image gives, if one was named and can be run from.
    pub image: Option<ImageFinding>,
    /// Why the one that was named cannot.
    #[serde(serialize_with = "as_text")]
    pub image_failure: Option<Error>,
    /// Can one program be in place, with the host's root directory?
    pub one_program_in_place: bool,
    /// Can a whole session be in place, with the image as its root directory?
    pub session_in_place: bool,
}

/// A feature, and whether it is here.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Which.
    #[serde(flatten)]
    pub feature: Feature,
    /// Has the trial succeeded?
    pub available: bool,
    /// Why not, and the way out; or what is to be said of it all the same.
    pub detail: Option<String>,
}

impl Probe {
    /// Tries everything. `image` is what was named by `--image`.
    ///
    /// To be called while the process has one thread.
    ///
    /// # Errors
    /// If there are no descriptors to try anything with.
    pub fn new(image: Option<&Path>) -> Result<Self> {
        sys::expect_children();
        open_standard_descriptors()?;
        let image = image.map(|spec| {
            let backing = Backing::open(spec)?;
            ImageFinding::new(&Arc::new(backing))
        });
        let (image, image_failure) = match image.transpose() {
            Ok(image) => (image, None),
            Err(err) => (None, Some(err)),
        };
        let features: Vec<_> = feature::ALL.iter().map(Finding::new).collect();
        let all = |needed: &[Need]| {
            let mut of_interest = features
                .iter()
                .filter(|finding| needed.contains(&finding.feature.needed_for));
            of_interest.all(|finding| finding.available)
                && image_failure.is_none()
                && image.as_ref().is_none_or(|image| image.executable)
        };
        let uname = rustix::system::uname();
        Ok(Self {
            kernel: uname.release().to_string_lossy().into_owned(),
            machine: uname.machine().to_string_lossy().into_owned(),
            page_size: crate::sys::page_size(),
            uid: rustix::process::geteuid().as_raw(),
            one_program_in_place: all(&[Need::Everything]),
            session_in_place: all(&[Need::Everything, Need::Session]),
            features,
            image,
            image_failure,
        })
    }
}

fn as_text<S: Serializer>(err: &Option<Error>, to: S) -> Result<S::Ok, S::Error> {
    err.as_ref().map(ToString::to_string).serialize(to)
}

/// Where one of the three is closed, what is opened next would get its number, and a child that complains would write
/// there.
fn open_standard_descriptors() -> Result<()> {
    loop {
        let null = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|err| Error::failed(format!("/dev/null: {err}")))?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        let _ = null.into_raw_fd();
    }
}

/// Runs a trial in a child.
fn in_child<E: Display>(run: impl FnOnce() -> Result<(), E>) -> Result<()> {
    match sys::in_child(run) {
        Ok(Ended::Succeeded) => Ok(()),
        Ok(Ended::Failed(why)) => Err(Error::lacking(why)),
        Ok(other) => Err(Error::lacking(format!("{other:?}"))),
        Err(err) => Err(Error::lacking(format!("a child: {err}"))),
    }
}

fn lacking(err: impl Into<std::io::Error>) -> Error {
    Error::lacking(err.into().to_string())
}

/// The feature's trial; something to be said of it.
fn attempt(name: &str) -> Result<Option<String>> {
    let tried = match name {
        "page-size" => PageSize::of_running_kernel().map(drop),
        "memfd" => session::seal_memfd(),
        "memfd-exec" => session::make_executable_memfd(),
        "execveat" => session::execute_memfd(),
        "seccomp" => {
            return Ok(session::trap()?.then(|| {
                "for this user with no_new_privs: set-user-ID programs run as their caller"
                    .to_owned()
            }));
        }
        "mount-namespace" => in_child(view::enter_namespaces),
        "user-namespace" => in_child(view::enter_any_user_namespace).map_err(|err| {
            match view::needs_no_user_namespace() {
                true => Error::lacking(format!("{err}; not needed: this user may mount")),
                false => err,
            }
        }),
        "fuse" => view::open_fuse_device(),
        "fuse-mount" if view::open_fuse_device().is_err() => {
            Err(Error::lacking("cannot be tried without /dev/fuse"))
        }
        "fuse-mount" => in_child(view::mount_view),
        "mm-map" => in_child(sys::set_memory_map),
        "set-exe" => in_child(|| {
            view::enter_needed_user_namespace()?;
            crate::session::require_exe()
        }),
        "proc" => is_proc_mounted(),
        "statx" => rustix::fs::statx(
            rustix::fs::CWD,
            "/",
            rustix::fs::AtFlags::empty(),
            StatxFlags::BASIC_STATS,
        )
        .map(drop)
        .map_err(lacking),
        "map-fixed-noreplace" => sys::map_without_replacing().map_err(lacking),
        "faccessat2" => sys::access_effective(c"/").map_err(lacking),
        "mount-setattr" => in_child(|| {
            view::enter_namespaces()?;
            sys::make_mounts_read_only(c"/").map_err(lacking)
        }),
        other => Err(Error::failed(format!("nothing tries {other}"))),
    };
    tried.map(|()| None)
}

fn is_proc_mounted() -> Result<()> {
    std::fs::read_link("/proc/self/exe")
        .map_err(|err| Error::lacking(format!("readlink /proc/self/exe: {err}; mount /proc")))?;
    let kind = rustix::fs::statfs("/proc").map_err(lacking)?.f_type as u64;
    match kind == PROC_SUPER_MAGIC {
        true => Ok(()),
        false => Err(Error::lacking("/proc is no proc filesystem; mount one")),
    }
}

impl Finding {
    fn new(feature: &Feature) -> Self {
        let answer = attempt(feature.name);
        Self {
            feature: *feature,
            available: answer.is_ok(),
            detail: answer.unwrap_or_else(|err| Some(err.to_string())),
        }
    }
}
