//! What Linux would map for an ELF file: its rules, and nothing about images.
//!
//! Source: Linux 6.x `fs/binfmt_elf.c load_elf_binary(), load_elf_interp(), elf_load(), elf_map(),
//! total_mapping_size(), maximum_alignment()`. On entry the headers are only parsed; on exit the [`Layout`] is sorted, page aligned, without
//! overlaps, and inside the address space. Where this is stricter than Linux, the comment says so.

use crate::cramfs::format::FILE_SIZE_LIMIT;
use crate::elf::{ElfFile, ElfKind, Segment};
use crate::error::{Error, Result};
use crate::units::{FileOffset, PageRange, PageSize, Prot};

/// Most bytes of its file that a program may have mapped. The largest file of an image has 16 MiB and nobody maps one
/// over and over, but a hostile header could, 1170 times. Stricter than Linux.
const MAPPED_LIMIT_BYTES: u64 = 4 * FILE_SIZE_LIMIT;

/// Pages that Linux maps in one piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) pages: PageRange,
    pub(super) prot: Prot,
    pub(super) origin: Origin,
}

/// Where Linux takes the bytes of a [`Piece`] from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// The file, from this page boundary. From the address `bss_at`, which is in the last page, zeros to its end.
    File { at: FileOffset, bss_at: Option<u64> },
    /// Nowhere: anonymous.
    Zero,
}

/// All that the headers say about an address space, before bias.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub(super) pieces: Vec<Piece>,
    pub(super) span: PageRange,
    pub(super) align_bytes: u64,
    pub(super) phdr_addr: u64,
    pub(super) start_code: u64,
    pub(super) end_code: u64,
    pub(super) start_data: u64,
    pub(super) end_data: u64,
    pub(super) brk: u64,
}

impl Layout {
    /// Lays `elf`, a file of `file_len` bytes, out.
    ///
    /// # Errors
    /// [`Kind::NotRunnable`](crate::error::Kind) naming the segment for what Linux refuses or what would kill the
    /// program with SIGBUS.
    pub(super) fn new(elf: &ElfFile, file_len: u64, page: PageSize) -> Result<Self> {
        let task_size = elf.machine.task_size_bytes(page);
        if elf.entry >= task_size {
            return Err(Error::not_runnable(format!(
                "its entry {:#x} is outside the address space, which ends at {task_size:#x}",
                elf.entry
            )));
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut vaddr = 0;
        let mut mapped_bytes: u64 = 0;
        for segment in &elf.segments {
            let fail = |err: Error| err.context(format!("PT_LOAD {}", segment.number));
            // elf(5) demands it; Linux would map them for ET_EXEC and misplace the bias for ET_DYN. Stricter.
            if segment.vaddr < vaddr {
                return Err(fail(Error::not_runnable(format!(
                    "its address {:#x} is below the one before it, {vaddr:#x}: segments must ascend",
                    segment.vaddr
                ))));
            }
            vaddr = segment.vaddr;
            for piece in segment_pieces(segment, file_len, task_size, page).map_err(fail)? {
                if let Origin::File { .. } = piece.origin {
                    mapped_bytes = mapped_bytes.saturating_add(piece.pages.len_bytes());
                }
                overlay(&mut pieces, piece, page);
            }
            if mapped_bytes > MAPPED_LIMIT_BYTES {
                return Err(fail(Error::not_runnable(format!(
                    "the segments up to it map {mapped_bytes:#x} bytes of a file of {file_len:#x}: the same ones over \
                     and over"
                ))));
            }
        }
        let span = span(elf, page).ok_or_else(|| {
            Error::not_runnable(if elf.segments.is_empty() {
                "it has no PT_LOAD: there is nothing to run"
            } else {
                "its PT_LOADs are all empty: there is nothing to run"
            })
        })?;
        let ends = |prot_exec: bool| {
            elf.segments
                .iter()
                .filter(move |segment| segment.prot.exec || !prot_exec)
        };
        Ok(Self {
            pieces,
            span,
            align_bytes: match elf.kind {
                ElfKind::Fixed => page.bytes(),
                ElfKind::Relocatable => maximum_alignment(elf, page),
            },
            // The last segment that covers it counts.
            phdr_addr: ends(false)
                .rfind(|segment| {
                    (segment.offset..segment.offset.saturating_add(segment.filesz_bytes))
                        .contains(&elf.phoff)
                })
                .map_or(0, |segment| elf.phoff - segment.offset + segment.vaddr),
            start_code: ends(true).map(|segment| segment.vaddr).min().unwrap_or(0),
            end_code: ends(true).map(file_end).max().unwrap_or(0),
            start_data: ends(false).map(|segment| segment.vaddr).max().unwrap_or(0),
            end_data: ends(false).map(file_end).max().unwrap_or(0),
            brk: ends(false)
                .filter_map(|segment| page.ceil(segment.vaddr + segment.memsz_bytes))
                .max()
                .unwrap_or(0),
        })
    }
}

/// One past the address of a segment's last byte from the file. Cannot wrap once [`segment_pieces`] has seen it.
fn file_end(segment: &Segment) -> u64 {
    segment.vaddr + segment.filesz_bytes
}

/// The pages of one segment, as `elf_load()` maps them: those of the file, then those that are all bss.
fn segment_pieces(
    segment: &Segment,
    file_len: u64,
    task_size: u64,
    page: PageSize,
) -> Result<Vec<Piece>> {
    let Segment {
        offset,
        vaddr,
        filesz_bytes,
        memsz_bytes,
        prot,
        ..
    } = *segment;
    if filesz_bytes > memsz_bytes {
        return Err(Error::not_runnable(format!(
            "p_filesz {filesz_bytes:#x} is more than p_memsz {memsz_bytes:#x}"
        )));
    }
    let outside = || {
        Error::not_runnable(format!(
            "{memsz_bytes:#x} bytes at {vaddr:#x} are outside the address space, which ends at {task_size:#x}"
        ))
    };
    let memory_end = vaddr
        .checked_add(memsz_bytes)
        .and_then(|end| page.ceil(end))
        .filter(|&end| vaddr < task_size && end <= task_size)
        .ok_or_else(outside)?;
    let start = page.floor(vaddr);
    // In bounds: it is at most memory_end, which was rounded up without wrapping.
    let file_end = page.floor(vaddr + filesz_bytes + (page.bytes() - 1));
    let mut pieces = Vec::new();
    let mut bss_pages_at = start;
    if filesz_bytes > 0 {
        // elf_map(): the file's offset less the address's distance from its page must be a page boundary (mmap EINVAL).
        if page.offset(offset) != page.offset(vaddr) {
            return Err(Error::not_runnable(format!(
                "file offset {offset:#x} and address {vaddr:#x} differ within the {page} pages of this kernel; \
                 link it with -z max-page-size={:#x}",
                page.bytes()
            )));
        }
        // A page wholly beyond the file's end is mapped by Linux and kills whoever touches it with SIGBUS. Stricter.
        let fits = offset
            .checked_add(filesz_bytes)
            .is_some_and(|end| page.count(end) <= page.count(file_len));
        if !fits {
            return Err(Error::not_runnable(format!(
                "{filesz_bytes:#x} bytes at file offset {offset:#x} reach pages beyond the file's end at \
                 {file_len:#x}; the file is cut off"
            )));
        }
        let bss_at = vaddr + filesz_bytes;
        // padzero(): bss begins in the last file page, whose rest is cleared to the page's end. For a segment that
        // cannot be written that fails, Linux does not mind, and the file's bytes stay to be seen.
        let cleared = memsz_bytes > filesz_bytes && prot.write && !page.aligned(bss_at);
        pieces.extend(
            PageRange::new(page, start, file_end - start).map(|pages| Piece {
                pages,
                prot,
                origin: Origin::File {
                    at: FileOffset(page.floor(offset)),
                    bss_at: cleared.then_some(bss_at),
                },
            }),
        );
        bss_pages_at = file_end;
    }
    if memsz_bytes > filesz_bytes {
        // vm_brk_flags(): readable and writable whatever the segment's flags say, executable if they say so.
        let prot = Prot {
            exec: prot.exec,
            ..Prot::RW
        };
        let len_bytes = memory_end.saturating_sub(bss_pages_at);
        pieces.extend(
            PageRange::new(page, bss_pages_at, len_bytes).map(|pages| Piece {
                pages,
                prot,
                origin: Origin::Zero,
            }),
        );
    }
    Ok(pieces)
}

/// Puts `piece` over what is there, page by page, as `MAP_FIXED` does: segments may share the page in which one ends
/// and the next begins, and the later one has it.
fn overlay(pieces: &mut Vec<Piece>, piece: Piece, page: PageSize) {
    let (start, end) = (piece.pages.start(), piece.pages.end());
    let mut kept = Vec::with_capacity(pieces.len() + 2);
    for below in pieces.drain(..) {
        kept.extend(below.part(0, start, page));
        kept.extend(below.part(end, u64::MAX, page));
    }
    kept.push(piece);
    // Two sorted runs: the stable sort merges them in one pass.
    kept.sort_by_key(|piece| piece.pages.start());
    *pieces = kept;
}

impl Piece {
    /// What of it lies between two page boundaries.
    fn part(&self, from: u64, to: u64, page: PageSize) -> Option<Self> {
        let (start, end) = (self.pages.start().max(from), self.pages.end().min(to));
        let pages = PageRange::new(page, start, end.checked_sub(start)?)?;
        let origin = match self.origin {
            Origin::Zero => Origin::Zero,
            Origin::File { at, bss_at } => Origin::File {
                at: FileOffset(at.0 + (start - self.pages.start())),
                bss_at: bss_at.filter(|at| (start..end).contains(at)),
            },
        };
        Some(Self {
            pages,
            origin,
            ..*self
        })
    }
}

/// `total_mapping_size()`: from the first segment's page to the end of the last segment, empty ones included.
fn span(elf: &ElfFile, page: PageSize) -> Option<PageRange> {
    let segments = &elf.segments;
    let start = segments
        .iter()
        .map(|segment| page.floor(segment.vaddr))
        .min()?;
    let end = segments
        .iter()
        .filter_map(|segment| page.ceil(segment.vaddr + segment.memsz_bytes))
        .max()?;
    let any = segments.iter().any(|segment| segment.memsz_bytes > 0);
    PageRange::new(page, start, end.checked_sub(start)?).filter(|_| any)
}

/// `maximum_alignment()`: what is no power of two is skipped, less than a page counts as one. Larger than the address
/// space it could be met by no address but 0; Linux then fails to find one, here it is refused by who looks for one.
fn maximum_alignment(elf: &ElfFile, page: PageSize) -> u64 {
    elf.segments
        .iter()
        .map(|segment| segment.align_bytes)
        .filter(|align| align.is_power_of_two())
        .fold(page.bytes(), u64::max)
}
