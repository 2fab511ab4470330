//! The plan of a launch: which pages the program and its interpreter get, and where each comes from.
//!
//! This is the one place that decides. `layout` has the kernel's rules (what Linux would map), this module lays them
//! over the XIP index (what flash can be mapped for it), [`verify`](LaunchPlan::verify) proves the result, `explain`
//! prints it. A plan is data: the session and the report only read it.

mod explain;
mod layout;
mod mapping;
mod object;
mod verify;

use crate::backing::NoCow;
use crate::cramfs::{Image, Inode, InodeKind, show_path};
use crate::elf::{ElfKind, Machine};
use crate::error::{Error, Kind, Result};
use crate::units::{PageRange, PageSize, Prot};

pub use explain::{Explanation, Start};
pub use mapping::{CopyReason, Mapping, Source};
pub use object::ObjectPlan;

/// What to plan for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlanOptions {
    /// Page size of the kernel that will run the program.
    pub page: PageSize,
    /// The machine that will run it; a program of another is refused. `None` plans programs of any, to look at.
    pub machine: Option<Machine>,
    /// Copy what is executable into RAM (`--copy-text`): for debuggers, which cannot set breakpoints in flash, and for
    /// backings that cannot execute.
    pub copy_text: bool,
    /// Copy what is not executable as well.
    pub copy_data: bool,
    /// Can the backing be mapped copy-on-write? If not, what is writable is copied, for that reason.
    pub cow: Result<(), NoCow>,
    /// Addresses that are taken: where the loader stub lives.
    pub reserved: Option<PageRange>,
}

impl PlanOptions {
    /// For a program of any machine under a kernel with pages of `page`, from a backing that can do everything.
    pub fn new(page: PageSize) -> Self {
        Self {
            page,
            machine: None,
            copy_text: false,
            copy_data: false,
            cow: Ok(()),
            reserved: None,
        }
    }
}

impl PlanOptions {
    /// Is what has this protection to be copied, whatever the image has?
    fn copies(&self, prot: Prot) -> bool {
        match prot.exec {
            true => self.copy_text,
            false => self.copy_data,
        }
    }
}

/// What a launch costs, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Totals {
    /// Flash that is run and read in place and can never cost RAM.
    pub in_place_bytes: u64,
    /// Flash that is mapped copy-on-write: a page costs RAM once it is written to.
    pub copy_on_write_bytes: u64,
    /// RAM that is spent before the program's first instruction: copied pages, and direct ones in which bss is cleared.
    /// The stack, the page tables and the loader stub are not the plan's.
    pub upfront_ram_bytes: u64,
    /// RAM when every writable page has been written to. A copied page that is writable counts twice then: the copy,
    /// which other processes may share, and the page that was written to.
    pub worst_ram_bytes: u64,
}

/// The plan of a launch: the program and, if it names one, its interpreter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaunchPlan {
    /// What it was planned for.
    pub options: PlanOptions,
    /// The program.
    pub program: ObjectPlan,
    /// Its interpreter, from the same image.
    pub interp: Option<ObjectPlan>,
}

impl LaunchPlan {
    /// Plans the launch of the program at `path` of an image.
    ///
    /// # Errors
    /// What execve(2) and a shell after it would say: [`Kind::NotFound`] (exit code 127) if the path or the interpreter
    /// is not in the image, [`Kind::NotRunnable`] (126) for what may not or cannot be executed, with the reason; and
    /// [`Kind::BadImage`].
    pub fn new(image: &Image, path: &[u8], options: &PlanOptions) -> Result<Self> {
        image.require_runnable()?;
        let program = object(image, path, options)?;
        let interp = match &program.interp {
            None => None,
            Some(interp) => Some(
                interpreter(image, interp, options, &program)
                    .map_err(|err| err.context(show_path(&program.path)))?,
            ),
        };
        let plan = Self {
            options: *options,
            program,
            interp,
        };
        plan.verify_structure(image)?;
        Ok(plan)
    }

    /// The program and its interpreter.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectPlan> {
        std::iter::once(&self.program).chain(&self.interp)
    }

    /// Which executable pages are copied into RAM, and why; none if all text is direct but for what shares its page.
    pub fn copied_text(&self) -> Option<String> {
        self.objects().find_map(|object| {
            let text = object.mappings.iter().filter(|mapping| mapping.prot.exec);
            let direct = text
                .clone()
                .any(|mapping| matches!(mapping.source, Source::Direct { .. }));
            let copied = text.clone().find_map(|mapping| match mapping.source {
                Source::Copied { why, .. } => Some(why.explain()),
                _ => None,
            });
            copied
                .filter(|_| !direct)
                .map(|why| format!("{}: its text: {why}", show_path(&object.path)))
        })
    }

    /// What it costs.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for mapping in self.objects().flat_map(|object| &object.mappings) {
            let len_bytes = mapping.pages.len_bytes();
            match mapping.source {
                Source::Direct { .. } if mapping.prot.write => {
                    totals.copy_on_write_bytes += len_bytes;
                }
                Source::Direct { .. } => totals.in_place_bytes += len_bytes,
                Source::Copied { .. } => totals.worst_ram_bytes += len_bytes,
                Source::Zero => {}
            }
            if mapping.prot.write {
                totals.worst_ram_bytes += len_bytes;
            }
            totals.upfront_ram_bytes += mapping.ram_bytes(self.options.page);
        }
        totals
    }
}

/// Looks one file up, checks that it may be executed, and plans it.
fn object(image: &Image, path: &[u8], options: &PlanOptions) -> Result<ObjectPlan> {
    let found = image.resolve(path, true)?;
    let shown = show_path(&found.path);
    require_executable(&found.inode)
        .and_then(|()| ObjectPlan::new(image, &found.path, &found.inode, options))
        .map_err(|err| err.context(shown))
}

/// `do_open_execat()` and `path_noexec()`: a regular file with an x bit. Whose bit it is, is the launch's to check: the
/// plan does not know who will run it.
fn require_executable(inode: &Inode) -> Result<()> {
    match inode.kind {
        InodeKind::File if inode.mode & 0o111 != 0 => Ok(()),
        InodeKind::File => Err(Error::not_runnable(format!(
            "permission denied (EACCES): nobody may execute it, its mode is {:04o}",
            inode.mode & 0o7777
        ))),
        InodeKind::Directory => Err(Error::not_runnable(
            "permission denied (EACCES): it is a directory",
        )),
        _ => Err(Error::not_runnable(
            "permission denied (EACCES): it is not a regular file",
        )),
    }
}

/// The interpreter of a dynamic program, as `load_elf_binary()` opens it. A path that does not start with `/` is taken
/// from the image's root; Linux would take it from the working directory.
fn interpreter(
    image: &Image,
    path: &[u8],
    options: &PlanOptions,
    program: &ObjectPlan,
) -> Result<ObjectPlan> {
    let shown = show_path(path);
    let mut interp = object(image, path, options).map_err(|err| match err.kind() {
        // execve(2) answers ENOENT for the program itself, and shells then say "not found", exit code 127.
        Kind::NotFound => Error::new(
            Kind::NotFound,
            format!("its interpreter {shown} is not in the image; add it (and its libraries), or link statically"),
        ),
        _ => err.context("its interpreter"),
    })?;
    interp.interp = None;
    let fixed = |object: &ObjectPlan| object.kind == ElfKind::Fixed;
    // Linux would map the interpreter over the program. Stricter.
    if fixed(&interp) && fixed(program) && interp.span.overlaps(program.span) {
        return Err(Error::not_runnable(format!(
            "its interpreter {shown} is at {}, over the program at {}",
            interp.span, program.span
        )));
    }
    Ok(interp)
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
