//! Proves a plan, without trusting the code that made it.
//!
//! The structure (aligned, sorted, disjoint, inside image and address space, nothing writable that is not private) is
//! checked for every plan. [`LaunchPlan::verify`] goes further: it works out anew, from the headers and by another
//! way than `layout`, what Linux would show at every page, and compares byte for byte. A direct page that equals the
//! file's bytes with zeros after them shows no other file's bytes, so that is proved too.

use super::{LaunchPlan, Mapping, ObjectPlan, PlanOptions, Source};
use crate::cramfs::{Image, ImageFile, show_path};
use crate::elf::{ElfFile, ElfKind, Segment};
use crate::error::{Error, Result};
use crate::units::{PageSize, Prot};

impl LaunchPlan {
    /// Proves the plan against the image it was made from, byte for byte. Reads every byte of every file mapping.
    ///
    /// # Errors
    /// [`Kind::Failed`](crate::error::Kind) with what is wrong: a bug, or an image that changed. As
    /// [`ImageFile::read`].
    pub fn verify(&self, image: &Image) -> Result<()> {
        self.verify_structure(image)?;
        for object in self.objects() {
            verify_bytes(object, image, &self.options).map_err(|err| wrong(object, &err))?;
        }
        Ok(())
    }

    /// The checks that read nothing.
    pub(super) fn verify_structure(&self, image: &Image) -> Result<()> {
        for object in self.objects() {
            verify_object(object, image, &self.options).map_err(|err| wrong(object, &err))?;
        }
        Ok(())
    }
}

fn wrong(object: &ObjectPlan, err: &Error) -> Error {
    let path = show_path(&object.path);
    Error::new(
        err.kind(),
        format!(
            "the plan of {path} is wrong: {err}; unless the image has changed, please report this"
        ),
    )
}

/// Turns a check into an error.
fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::failed(what()))
    }
}

fn verify_object(object: &ObjectPlan, image: &Image, options: &PlanOptions) -> Result<()> {
    let page = options.page;
    let task_size = object.machine.task_size_bytes(page);
    ensure(
        object.align_bytes.is_power_of_two() && object.align_bytes >= page.bytes(),
        || format!("alignment {:#x}", object.align_bytes),
    )?;
    let mut free_from = object.span.start();
    for mapping in &object.mappings {
        let pages = mapping.pages;
        let fail = |what: &str| format!("{pages} {}: {what}", mapping.prot);
        ensure(
            page.aligned(pages.start()) && page.aligned(pages.end()),
            || fail("not on page boundaries"),
        )?;
        ensure(pages.start() >= free_from, || {
            fail("overlaps the one before it, or lies before the span")
        })?;
        ensure(
            pages.end() <= object.span.end() && pages.end() <= task_size,
            || fail("lies beyond the span or the address space"),
        )?;
        if let (ElfKind::Fixed, Some(reserved)) = (object.kind, options.reserved) {
            ensure(!pages.overlaps(reserved), || fail("is the loader stub's"))?;
        }
        verify_source(mapping, object, image, options)
            .map_err(|err| err.context(format!("{pages} {}", mapping.prot)))?;
        free_from = pages.end();
    }
    Ok(())
}

fn verify_source(
    mapping: &Mapping,
    object: &ObjectPlan,
    image: &Image,
    options: &PlanOptions,
) -> Result<()> {
    let page = options.page;
    let len_bytes = mapping.pages.len_bytes();
    if let Some(clear) = &mapping.clear {
        ensure(
            matches!(mapping.source, Source::Direct { .. }) && mapping.prot.write,
            || "clears what is not direct and writable".to_owned(),
        )?;
        ensure(
            clear.start < clear.end
                && clear.end == mapping.pages.end()
                && page.floor(clear.start) == clear.end - page.bytes()
                && clear.start >= mapping.pages.start(),
            || format!("clears {clear:x?}, which is no end of its last page"),
        )?;
    }
    match mapping.source {
        Source::Zero => Ok(()),
        Source::Direct { at } => {
            ensure(page.aligned(at.0), || format!("{at} is no page boundary"))?;
            ensure(
                at.0.checked_add(len_bytes)
                    .is_some_and(|end| end <= image.limit_bytes()),
                || format!("{at} reaches beyond the image"),
            )?;
            ensure(options.cow.is_ok() || !mapping.prot.write, || {
                "writable, direct, and the backing cannot be mapped copy-on-write".to_owned()
            })?;
            ensure(!options.copies(mapping.prot), || {
                "executable and direct in spite of --copy-text".to_owned()
            })
        }
        Source::Copied { at, file_bytes, .. } => ensure(
            page.aligned(at.0)
                && (1..=len_bytes).contains(&file_bytes)
                && at
                    .0
                    .checked_add(file_bytes)
                    .is_some_and(|end| end <= object.inode.size),
            || format!("copies {file_bytes:#x} bytes from {at}"),
        ),
    }
}

/// What Linux shows between two addresses at which nothing begins or ends.
struct Shown<'a> {
    start: u64,
    end: u64,
    /// The last segment that maps these pages, and whether they are its file pages or its bss pages.
    by: Option<(&'a Segment, bool)>,
}

/// The pages of a segment as address ranges: those of its file part, and those after them that are all bss.
fn ranges(segment: &Segment, page: PageSize) -> Result<[(u64, u64); 2]> {
    let ceil = |value: Option<u64>| {
        value
            .and_then(|value| page.ceil(value))
            .ok_or_else(|| Error::failed(format!("PT_LOAD {} wraps", segment.number)))
    };
    let start = page.floor(segment.vaddr);
    let file_end = if segment.filesz_bytes == 0 {
        start
    } else {
        ceil(segment.vaddr.checked_add(segment.filesz_bytes))?
    };
    let end = if segment.memsz_bytes > segment.filesz_bytes {
        ceil(segment.vaddr.checked_add(segment.memsz_bytes))?
    } else {
        file_end
    };
    Ok([(start, file_end), (file_end, end.max(file_end))])
}

/// What Linux shows, as a list without gaps from the first address to the last.
fn shown<'a>(segments: &'a [Segment], page: PageSize) -> Result<Vec<Shown<'a>>> {
    let ranged = segments
        .iter()
        .map(|segment| Ok((segment, ranges(segment, page)?)))
        .collect::<Result<Vec<_>>>()?;
    let mut edges: Vec<u64> = ranged
        .iter()
        .flat_map(|(_, ranges)| ranges.iter().flat_map(|&(start, end)| [start, end]))
        .collect();
    edges.sort_unstable();
    edges.dedup();
    let between = edges.iter().zip(edges.iter().skip(1));
    Ok(between
        .map(|(&start, &end)| {
            let holds = |&(from, to): &(u64, u64)| from <= start && start < to;
            let by = ranged.iter().rev().find_map(|(segment, [file, bss])| {
                if holds(file) {
                    Some((*segment, true))
                } else {
                    holds(bss).then_some((*segment, false))
                }
            });
            Shown { start, end, by }
        })
        .collect())
}

/// The last address before which the file's own bytes are to be seen in a segment's file pages; zeros after it.
fn own_end(segment: &Segment, page: PageSize) -> u64 {
    let file_end = segment.vaddr.saturating_add(segment.filesz_bytes);
    if segment.memsz_bytes > segment.filesz_bytes && segment.prot.write {
        file_end
    } else {
        page.ceil(file_end).unwrap_or(u64::MAX)
    }
}

fn verify_bytes(object: &ObjectPlan, image: &Image, options: &PlanOptions) -> Result<()> {
    let page = options.page;
    let file = ImageFile::open(image, &object.inode)?;
    let elf = ElfFile::parse(&file)?;
    let shown = shown(&elf.segments, page)?;
    let planned: u64 = object
        .mappings
        .iter()
        .map(|mapping| mapping.pages.len_bytes())
        .sum();
    let native: u64 = shown
        .iter()
        .filter(|shown| shown.by.is_some())
        .map(|shown| shown.end - shown.start)
        .sum();
    ensure(planned == native, || {
        format!("it maps {planned:#x} bytes, Linux {native:#x}")
    })?;
    for shown in &shown {
        let Some((segment, from_file)) = shown.by else {
            continue;
        };
        let mut at = shown.start;
        while at < shown.end {
            let Some(mapping) = object.mapping_at(at) else {
                return Err(Error::failed(format!("nothing is mapped at {at:#x}")));
            };
            let end = mapping.pages.end().min(shown.end);
            let fail = |what: String| format!("{at:x}-{end:x}, PT_LOAD {}: {what}", segment.number);
            let prot = Prot {
                exec: segment.prot.exec,
                ..if from_file { segment.prot } else { Prot::RW }
            };
            ensure(mapping.prot == prot, || {
                fail(format!("is {}, Linux makes it {prot}", mapping.prot))
            })?;
            ensure((mapping.source == Source::Zero) != from_file, || {
                fail("is anonymous where Linux has the file, or the reverse".to_owned())
            })?;
            if from_file {
                let own_end = own_end(segment, page);
                verify_file_bytes(mapping, (at, end), (segment, own_end), &file, image)
                    .map_err(|err| err.context(format!("PT_LOAD {}", segment.number)))?;
            }
            at = end;
        }
    }
    Ok(())
}

/// Compares what the addresses `start..end` of a mapping show with what the segment has for them.
fn verify_file_bytes(
    mapping: &Mapping,
    (start, end): (u64, u64),
    (segment, own_end): (&Segment, u64),
    file: &ImageFile,
    image: &Image,
) -> Result<()> {
    let mut at = start;
    while at < end {
        // Small pieces: no more memory than a block, whatever the mapping's length.
        let len = (end - at).min(4096);
        let mut native = vec![0; len as usize];
        // Congruent, so that this cannot be negative; the planner refuses what is not.
        let file_at = (segment.offset + at).saturating_sub(segment.vaddr);
        let own = own_end.saturating_sub(at).min(len);
        let own = own.min(file.inode().size.saturating_sub(file_at));
        file.read(
            native.get_mut(..own as usize).unwrap_or_default(),
            file_at.min(file.inode().size),
        )?;
        let skip = at - mapping.pages.start();
        let mut ours = vec![0; len as usize];
        match mapping.source {
            Source::Zero => {}
            Source::Direct { at } => image.read_exact_at(&mut ours, at.0 + skip)?,
            Source::Copied { at, file_bytes, .. } => {
                let part = file_bytes.saturating_sub(skip).min(len) as usize;
                file.read(
                    ours.get_mut(..part).unwrap_or_default(),
                    at.0 + skip.min(file_bytes),
                )?;
            }
        }
        if let Some(clear) = &mapping.clear {
            for (byte, address) in ours.iter_mut().zip(at..) {
                if clear.contains(&address) {
                    *byte = 0;
                }
            }
        }
        let differs = native.iter().zip(&ours).position(|(a, b)| a != b);
        ensure(differs.is_none(), || {
            format!(
                "shows another byte at {:#x} than the file's",
                at + differs.unwrap_or_default() as u64
            )
        })?;
        at += len;
    }
    Ok(())
}
