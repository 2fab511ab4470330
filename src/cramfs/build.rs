//! Makes an image file from a directory: whole and checked, or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::check::{Severity, check};
use super::output::{Output, Written};
use super::reader::Image;
use super::tree::{NodeKind, ScanOptions, Tree};
use super::writer::{self, Layout, Summary};
use super::xip::XipPolicy;
use crate::error::{Error, Result};

/// How to make an image. The defaults are those of `xip-image build`, except that nothing runs in place: for that `xip`
/// is [`XipPolicy::new`]`(&[], false)`.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Owners, and what to do about unreadable files.
    pub scan: ScanOptions,
    /// Byte order, page size, name.
    pub layout: Layout,
    /// What runs in place.
    pub xip: XipPolicy,
}

/// Makes the image `output` from the directory `root`. `progress` is called with the bytes that are done and those there
/// are.
///
/// The image is written to a file without a name in the directory of `output`, flushed to the disk, checked, and only then
/// gets its name; a regular file of that name is replaced. A build that is killed leaves nothing (on a filesystem without
/// `O_TMPFILE`: a `.xip-image-*` beside `output`).
///
/// # Errors
/// As [`Tree::scan`] and [`writer::write`]; if no glob of `--xip` matches anything; if `output` is
/// not a regular file or lies in `root`; if it cannot be written.
pub fn build(
    root: &Path,
    output: &Path,
    options: &BuildOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let dir = output_directory(root, output)?;
    let tree = Tree::scan(root, options.scan)?;
    let total = tree.nodes().iter().map(|node| match node.kind {
        NodeKind::File { size } => size,
        _ => 0,
    });
    let total = total.sum();
    let failed =
        |what: &str, err: io::Error| Error::failed(format!("{}: {what}: {err}", output.display()));
    let temporary =
        Output::new(&dir).map_err(|err| failed("make a temporary file beside it", err))?;
    let mut xip = options.xip.clone();
    let mut summary = writer::write(
        &tree,
        &options.layout,
        &mut xip,
        temporary.file(),
        &mut |done| progress(done, total),
    )
    .map_err(|err| err.context(output.display()))?;
    if let Some(glob) = xip.useless() {
        return Err(Error::failed(format!(
            "--xip={glob}: no regular file has such a path; a glob is held against paths in the image, like /bin/*"
        )));
    }
    for glob in xip.unmatched() {
        let warning = format!("--xip={glob}: no regular file has such a path");
        summary.warnings.push(warning);
    }
    let sync = temporary.file().sync_all();
    sync.map_err(|err| failed("fsync", err))?;
    let written = Written::new(temporary.file());
    verify(written.map_err(|err| failed("fstat", err))?, output)?;
    let persisted = temporary.persist(&dir, output);
    persisted.map_err(|err| failed("give the finished image its name", err))?;
    // Without this a crash may forget the name; not every filesystem can do it.
    let _ = File::open(&dir).and_then(|dir| dir.sync_all());
    Ok(summary)
}

/// The directory that `output` goes into, after a look at what must not be overwritten.
fn output_directory(root: &Path, output: &Path) -> Result<PathBuf> {
    let refuse = |why: &str| Error::failed(format!("{}: {why}", output.display()));
    if fs::symlink_metadata(output).is_ok_and(|meta| !meta.is_file()) {
        return Err(refuse(
            "exists and is not a regular file; build into a file, then write that to the flash",
        ));
    }
    if output.file_name().is_none() {
        return Err(refuse("not the name of a file"));
    }
    let dir = match output.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let dir = fs::canonicalize(dir).map_err(|err| refuse(&format!("its directory: {err}")))?;
    if fs::canonicalize(root).is_ok_and(|root| dir.starts_with(root)) {
        return Err(refuse(
            "lies in the directory that the image is made from; put it elsewhere",
        ));
    }
    Ok(dir)
}

/// Holds the finished image against the checker: what this program would refuse, it does not hand out.
fn verify(image: Written, output: &Path) -> Result<()> {
    let report = check(&Image::open(image)?);
    let mut worst = report.findings.iter();
    if let Some(finding) = worst.find(|finding| finding.severity == Severity::Error) {
        return Err(Error::failed(format!(
            "{}: the finished image is wrong, which is a bug in xip-image, so it was thrown away: {finding}",
            output.display()
        )));
    }
    Ok(())
}
