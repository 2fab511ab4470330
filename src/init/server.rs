//! The view's server from flash: the image's own xip-run, if it has one.

use crate::access;
use crate::backing::Backing;
use crate::cramfs::Image;
use crate::error::{Error, Result};
use crate::plan::{LaunchPlan, PlanOptions};
use crate::session::{self, Launch};
use crate::view::serve::Descriptors;

/// Where the image may have it.
const PLACES: [&str; 4] = [
    "/sbin/xip-run",
    "/usr/sbin/xip-run",
    "/bin/xip-run",
    "/usr/bin/xip-run",
];

/// The image's xip-run, ready to be started in place.
pub(super) struct Program<'a> {
    image: &'a Image,
    backing: &'a Backing,
    path: &'static str,
    plan: LaunchPlan,
}

/// Finds it.
///
/// # Errors
/// Why there is none that would be in place.
pub(super) fn in_image<'a>(
    image: &'a Image,
    backing: &'a Backing,
    options: &PlanOptions,
) -> Result<Program<'a>> {
    let mut first = None;
    for path in PLACES {
        let plan = LaunchPlan::new(image, path.as_bytes(), options);
        match plan.and_then(|plan| access::require_executable(image, &plan).map(|()| plan)) {
            Ok(plan) => {
                return match plan.copied_text() {
                    Some(why) => Err(Error::failed(why)),
                    None => Ok(Program {
                        image,
                        backing,
                        path,
                        plan,
                    }),
                };
            }
            Err(err) => first = first.or(Some(err)),
        }
    }
    Err(first.unwrap_or_else(|| Error::failed("no place to look at")))
}

impl Program<'_> {
    /// Executes it in place, with these descriptors; returns if it cannot.
    pub(super) fn runner(&self) -> Box<dyn Fn(Descriptors<'_>) -> Error + '_> {
        Box::new(|descriptors| {
            let argv = match descriptors.to_program(self.backing) {
                Ok(argv) => argv,
                Err(err) => return err,
            };
            let launch = Launch {
                execfn: self.path.as_bytes(),
                argv,
                image_path: std::os::unix::ffi::OsStrExt::as_bytes(self.backing.path().as_os_str())
                    .to_vec(),
            };
            session::launch(self.image, self.backing, &self.plan, &launch)
        })
    }
}
