//! Builds and inspects cramfs images.
//!
//! It has no Rust runtime around its `main`: that would open /dev/null for a closed standard output, and what is printed
//! would get lost without an error.

#![no_main]

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use xip_run::backing::Backing;
use xip_run::cramfs::build::{self, BuildOptions};
use xip_run::cramfs::check::{Severity, check};
use xip_run::cramfs::dump;
use xip_run::cramfs::extract::{self, ExtractOptions, Extracted};
use xip_run::cramfs::tree::ScanOptions;
use xip_run::cramfs::writer::{Layout, Summary};
use xip_run::cramfs::xip::XipPolicy;
use xip_run::cramfs::{Endian, Image, InodeKind};
use xip_run::error::{Error, Kind, Result};
use xip_run::inspect;
use xip_run::units::PageSize;

#[path = "xip-image/map.rs"]
mod map;

/// Builds, checks, lists, reads, unpacks and pictures cramfs images whose programs can run in place from flash.
#[derive(Parser)]
#[command(
    name = "xip-image",
    version,
    max_term_width = 80,
    after_help = "\
Make an image of a root directory, and see that its programs can run in place:
  xip-image build rootfs/ rootfs.cramfs
  xip-image map rootfs.cramfs

Names are any bytes. For people they are escaped: \\xff is a byte that is not
UTF-8, \\t \\n \\r and \\u{1b} are control characters, \\\\ is a backslash. In JSON
\"path\" is the exact name; of one that is not UTF-8 \"path_bytes\" has all bytes
in hexadecimal (likewise name, target, same_as). On the command line paths are
given as they are, without escapes.

Exit code: 0 done; 125 failed, or the image is bad; 126 not a directory, or too
many links; 127 no such path."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Build(Build),
    Ls(Ls),
    Cat(Cat),
    Extract(Extract),
    /// Find what is wrong with an image: everything Linux would trip on, and what looks odd.
    ///
    /// Fails (125) if there are errors; warnings and notes are only printed.
    #[command(
        after_help = "Example:\n  xip-image check rootfs.cramfs && flashcp rootfs.cramfs /dev/mtd3"
    )]
    Check(One),
    /// Show the superblock, whether the CRC is right, what there is and how much can run in place.
    ///
    /// Of a damaged image it shows what can be read, and what cannot; then it fails (125).
    #[command(after_help = "Example:\n  xip-image info --json rootfs.cramfs | jq .pages")]
    Info(One),
    /// Show where every file's blocks lie and which pages can be mapped, then every byte of the image.
    ///
    /// A page that is not direct is listed with the reason: compressed, hole, not-consecutive, misaligned (for kernels with
    /// that page size), shared-last-page, beyond-image. Of a damaged image it shows what can be read, and what cannot; then
    /// it fails (125).
    #[command(after_help = "\
Examples: the list; the strip, with the pages that a shell touches
  xip-image map rootfs.cramfs | less
  xip-run --trace sh.trace --image rootfs.cramfs /bin/sh -c true
  xip-image map --trace sh.trace --html map.html rootfs.cramfs")]
    Map(map::Map),
}

/// Make an image from a directory.
///
/// The blocks of programs and libraries that are mapped when they run are kept as they are, on page boundaries, so that
/// they can be mapped straight from flash; everything else is compressed. The same tree gives the same image, byte for
/// byte. OUTPUT is written whole or not at all. Equal files are stored once. Sockets and fifos are kept as what they are.
/// An image in which nothing runs in place (--xip=none) is one that every cramfs driver and tool can read, however old.
///
/// An image that xip-run shall start sessions from has empty directories proc, dev and tmp, and whatever else of the host
/// (sys, run ...) its programs want: the host's appear there.
#[derive(Args)]
#[command(after_help = "\
Examples:
  xip-image build rootfs/ rootfs.cramfs
  xip-image build --xip=auto --xip='/usr/share/fonts/**' rootfs/ rootfs.cramfs
  xip-image build --page-size 65536 --endian big --squash-owner rootfs/ rootfs.cramfs")]
struct Build {
    /// The directory that becomes the image's root.
    root: PathBuf,
    /// The image to write.
    output: PathBuf,
    /// What runs in place; may be given several times.
    ///
    /// auto (the default): the loaded parts of every ELF program and library, 32 or 64 bits, either byte order.
    /// none: nothing; the smallest image. all: every regular file, whole. Anything else is a glob for paths in the image
    /// of files to keep whole, `*` within a directory and `**` across them. A glob replaces auto; give --xip=auto as well to
    /// keep it. If no file matches any glob, the build fails.
    #[arg(long, value_name = "auto|none|all|GLOB", num_args = 1)]
    xip: Vec<String>,
    /// Compress writable segments (.data) too: less flash, but RAM is filled from them when a program starts.
    #[arg(long)]
    compress_data: bool,
    /// Alignment in bytes of what runs in place: 4096, 16384 or 65536.
    ///
    /// It must be the page size of the kernel that will run from the image, or larger: 4096 nearly everywhere, 16384 or
    /// 65536 on arm64 kernels built so. A larger one costs about half of it for every program and library.
    #[arg(long, value_name = "BYTES", default_value = "4096", value_parser = page_size)]
    page_size: PageSize,
    /// Byte order of the machine that will mount the image.
    #[arg(long, value_enum, default_value_t = ByteOrder::Host)]
    endian: ByteOrder,
    /// A name to keep in the superblock, at most 16 bytes.
    #[arg(long, default_value = "Compressed", value_parser = image_name)]
    name: String,
    /// A number to keep in the superblock.
    #[arg(long, default_value_t = 0)]
    edition: u32,
    /// Leave 512 bytes before the superblock, for a boot sector.
    #[arg(long)]
    pad: bool,
    /// Keep blocks of zeros as holes, in files of which nothing runs in place.
    ///
    /// Smaller for sparse files, but fsck.cramfs of util-linux refuses such an image.
    #[arg(long)]
    holes: bool,
    /// Make user 0, group 0 own everything.
    #[arg(long)]
    squash_owner: bool,
    /// Leave out what cannot be read, with a warning, instead of failing.
    ///
    /// A directory that cannot be listed is in the image, but empty.
    #[arg(long)]
    skip_unreadable: bool,
    /// Leave character and block devices out; devtmpfs makes them when the board starts.
    ///
    /// A cramfs has 8 bits for the major and 8 for the minor number: devices with larger ones do not fit.
    #[arg(long)]
    skip_devices: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ByteOrder {
    Little,
    Big,
    Host,
}

/// List what is in an image.
#[derive(Args)]
#[command(after_help = "\
Example: every set-user-ID file
  xip-image ls -lR rootfs.cramfs | grep '^-..s'

How names are escaped: xip-image --help")]
struct Ls {
    /// The image: a file, or what `xip-run --image` takes.
    image: PathBuf,
    /// What to list: a directory's entries, or a file.
    #[arg(default_value = "/")]
    path: PathBuf,
    /// Mode, owner, group, size, target.
    #[arg(short, long)]
    long: bool,
    /// Directories below as well, each entry with its path.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Print an array of JSON objects.
    #[arg(long)]
    json: bool,
}

/// Write files of an image to standard output.
///
/// Symbolic links are followed inside the image, whose root is `/`.
#[derive(Args)]
#[command(after_help = "Example:\n  xip-image cat rootfs.cramfs /etc/passwd")]
struct Cat {
    /// The image: a file, or what `xip-run --image` takes.
    image: PathBuf,
    /// Paths in the image.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

/// Unpack an image into a new or empty directory.
///
/// Nothing is written outside it, whatever the names and links in the image say. Permissions are kept, but without
/// set-user-ID and set-group-ID; files belong to you; devices are left out. All that needs root and --special. What cannot
/// be unpacked is named and left out, the rest is unpacked, and then it fails (125).
#[derive(Args)]
#[command(after_help = "Example:\n  xip-image extract rootfs.cramfs rootfs/")]
struct Extract {
    /// The image: a file, or what `xip-run --image` takes.
    image: PathBuf,
    /// The directory to make, or an empty one.
    dest: PathBuf,
    /// Make devices, keep owners, set-user-ID and set-group-ID bits (as root).
    #[arg(long)]
    special: bool,
    /// Stop before writing more than this; every entry counts as 4096 besides its contents.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 30)]
    max_bytes: u64,
    /// Print what was unpacked as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct One {
    /// The image: a file, or what `xip-run --image` takes.
    image: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn page_size(text: &str) -> Result<PageSize, String> {
    text.parse()
        .ok()
        .and_then(PageSize::new)
        .ok_or_else(|| "a page has 4096, 16384 or 65536 bytes".to_owned())
}

fn image_name(text: &str) -> Result<String, String> {
    if text.len() <= 16 {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "{} bytes; the superblock has room for 16",
            text.len()
        ))
    }
}

xip_run::c_main!(run);

fn run(args: Vec<OsString>) -> u8 {
    let done = standard_descriptors().and_then(|()| match Cli::try_parse_from(args) {
        Ok(cli) => cli.run(),
        Err(err) => {
            // --help and --version are no failure.
            let _ = err.print();
            let _ = io::stdout().flush();
            std::process::exit(if err.use_stderr() {
                Kind::Failed.exit_code().into()
            } else {
                0
            });
        }
    });
    match done {
        Ok(()) => 0,
        Err(err) => {
            eprintln!("xip-image: {err}");
            err.kind().exit_code()
        }
    }
}

/// Makes sure that no file that is opened later gets the number of a standard descriptor.
fn standard_descriptors() -> Result<()> {
    if rustix::io::fcntl_getfd(io::stdout()).is_err() {
        return Err(Error::failed("standard output is closed"));
    }
    let missing = [
        rustix::io::fcntl_getfd(io::stdin()).is_err(),
        rustix::io::fcntl_getfd(io::stderr()).is_err(),
    ];
    for _ in missing.into_iter().filter(|missing| *missing) {
        let null = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null");
        // It stays open: the lowest free number is the one that is missing.
        let null = null.map_err(|err| Error::failed(format!("/dev/null: open: {err}")))?;
        std::mem::forget(null);
    }
    Ok(())
}

impl Cli {
    fn run(self) -> Result<()> {
        match self.command {
            Command::Build(args) => args.run(),
            Command::Ls(args) => args.run(),
            Command::Cat(args) => args.run(),
            Command::Extract(args) => args.run(),
            Command::Check(args) => args.check(),
            Command::Info(args) => {
                let info = inspect::info(&open(&args.image)?);
                args.print(&info, info.errors.len())
            }
            Command::Map(args) => args.run(),
        }
    }
}

fn open(path: &Path) -> Result<Image> {
    Image::open(Backing::open(path)?).map_err(|err| err.context(path.display()))
}

/// Warns if the image is damaged as a whole; what is read from it may be wrong.
fn warn_of_damage(image: &Image, path: &Path) -> bool {
    let damage = image.damage();
    if let Some(damage) = &damage {
        eprintln!("xip-image: warning: {}: {damage}", path.display());
    }
    damage.is_some()
}

fn damaged(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::bad_image(format!("{}: {what}", path.display()))
}

/// Writes to standard output. If nobody reads it any more, there is nothing left to do.
fn output(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        done => done.map_err(|err| Error::failed(format!("standard output: {err}"))),
    }
}

fn print_json(value: &impl Serialize) -> Result<()> {
    output(|out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        writeln!(out)
    })
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("xip-image: warning: {warning}");
    }
}

impl Build {
    fn run(self) -> Result<()> {
        let options = BuildOptions {
            scan: ScanOptions {
                squash_owner: self.squash_owner,
                skip_unreadable: self.skip_unreadable,
                skip_devices: self.skip_devices,
            },
            layout: Layout {
                endian: match self.endian {
                    ByteOrder::Little => Endian::Little,
                    ByteOrder::Big => Endian::Big,
                    ByteOrder::Host => Endian::HOST,
                },
                page: self.page_size,
                name: self.name.into_bytes(),
                edition: self.edition,
                pad: self.pad,
                holes: self.holes,
            },
            xip: XipPolicy::new(&self.xip, self.compress_data)?,
        };
        let bar = if io::stderr().is_terminal() {
            ProgressBar::no_length()
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {eta}") {
            bar.set_style(style);
        }
        let summary = build::build(&self.root, &self.output, &options, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let summary = summary?;
        warn(&summary.warnings);
        if self.json {
            print_json(&summary)
        } else {
            output(|out| {
                print_summary(out, &self.output, &summary)?;
                match summary.in_place_files {
                    0 => Ok(()),
                    _ => print_missing(out, &self.root),
                }
            })
        }
    }
}

/// Says which of the host's directories the image has no place for.
fn print_missing(out: &mut dyn Write, root: &Path) -> io::Result<()> {
    let missing: Vec<&str> = ["proc", "dev", "tmp"]
        .into_iter()
        .filter(|name| !root.join(name).is_dir())
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => writeln!(
            out,
            "  for sessions of xip-run it should have empty directories: {} (the host's appear there)",
            missing.join(", ")
        ),
    }
}

fn print_summary(out: &mut dyn Write, image: &Path, summary: &Summary) -> io::Result<()> {
    let Summary {
        files,
        directories,
        symlinks,
        special_files,
        shared_files,
        content_bytes,
        image_bytes,
        in_place_files,
        in_place_bytes,
        padding_bytes,
        warnings: _,
    } = summary;
    let percent = |part: &u64| (100 * part).checked_div(*image_bytes).unwrap_or(0);
    writeln!(out, "{}", image.display())?;
    writeln!(
        out,
        "  {files} files ({shared_files} the same as another), {directories} directories, {symlinks} symbolic links, {special_files} special files"
    )?;
    writeln!(
        out,
        "  {image_bytes:>10} bytes of flash for {content_bytes} bytes of files"
    )?;
    writeln!(
        out,
        "  {in_place_bytes:>10} bytes can run in place, in {in_place_files} files ({} %)",
        percent(in_place_bytes)
    )?;
    writeln!(
        out,
        "  {padding_bytes:>10} bytes are padding ({} %)",
        percent(padding_bytes)
    )
}

impl Ls {
    fn run(self) -> Result<()> {
        let image = open(&self.image)?;
        warn_of_damage(&image, &self.image);
        let list = dump::list(&image, self.path.as_os_str().as_bytes(), self.recursive)?;
        if self.json {
            return print_json(&list.collect::<Result<Vec<_>>>()?);
        }
        let mut failed = None;
        output(|out| {
            for listed in list {
                match listed {
                    Ok(listed) if self.long => writeln!(out, "{listed}")?,
                    Ok(listed) => writeln!(out, "{}", listed.path)?,
                    // The rest is still worth seeing.
                    Err(err) => {
                        eprintln!("xip-image: {err}");
                        failed = Some(err);
                    }
                }
            }
            Ok(())
        })?;
        failed.map_or(Ok(()), |err| {
            Err(Error::new(err.kind(), "not everything could be listed"))
        })
    }
}

impl Cat {
    fn run(self) -> Result<()> {
        let image = open(&self.image)?;
        warn_of_damage(&image, &self.image);
        for path in &self.paths {
            let path = path.as_os_str().as_bytes();
            let inode = image.lookup(path)?;
            let fail = |err: Error| err.context(dump::printable(path));
            if inode.kind != InodeKind::File {
                return Err(fail(Error::failed("not a regular file")));
            }
            let bytes = image.read_file(&inode).map_err(fail)?;
            output(|out| out.write_all(&bytes))?;
        }
        Ok(())
    }
}

impl Extract {
    fn run(self) -> Result<()> {
        let image = open(&self.image)?;
        let wrong = warn_of_damage(&image, &self.image);
        let options = ExtractOptions {
            special: self.special,
            max_bytes: self.max_bytes,
        };
        let done = extract::extract(&image, &self.dest, options)?;
        warn(&done.skipped);
        for failed in &done.failed {
            eprintln!("xip-image: {failed}");
        }
        if self.json {
            print_json(&done)?;
        } else {
            output(|out| {
                let dest = self.dest.display();
                let Extracted { entries, bytes, .. } = &done;
                writeln!(out, "{dest}: {entries} entries, {bytes} bytes")
            })?;
        }
        match done.failed.len() {
            0 if wrong => Err(damaged(
                &self.image,
                "damaged: what was unpacked may be wrong",
            )),
            0 => Ok(()),
            failed => Err(damaged(
                &self.image,
                format!("not all of it was unpacked: {failed} failures"),
            )),
        }
    }
}

impl One {
    fn print<T: Serialize + std::fmt::Display>(&self, value: &T, errors: usize) -> Result<()> {
        if self.json {
            print_json(value)?;
        } else {
            output(|out| writeln!(out, "{value}"))?;
        }
        match errors {
            0 => Ok(()),
            _ => Err(damaged(
                &self.image,
                format!("damaged, {errors} errors; `xip-image check` says more"),
            )),
        }
    }

    fn check(self) -> Result<()> {
        let report = check(&open(&self.image)?);
        let (errors, warnings) = (
            report.count(Severity::Error),
            report.count(Severity::Warning),
        );
        if self.json {
            print_json(&report)?;
        } else {
            output(|out| {
                for finding in &report.findings {
                    writeln!(out, "{finding}")?;
                }
                let entries = report.entries;
                writeln!(
                    out,
                    "{entries} entries, {errors} errors, {warnings} warnings"
                )
            })?;
        }
        if report.is_sound() {
            return Ok(());
        }
        let rest = if report.complete {
            ""
        } else {
            ", and not everything was looked at"
        };
        Err(Error::bad_image(format!(
            "{}: {errors} errors{rest}",
            self.image.display()
        )))
    }
}
