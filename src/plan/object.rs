//! The plan of one ELF file: the kernel's layout, laid over what flash can be mapped for.

use std::ops::Range;

use super::layout::{Layout, Origin, Piece};
use super::{CopyReason, Mapping, PlanOptions, Source};
use crate::backing::ReadAt;
use crate::cramfs::{Image, ImageFile, Inode, show_path};
use crate::elf::{ElfFile, ElfKind, Machine, Segment};
use crate::error::{Error, Result};
use crate::extent;
use crate::index::{FileIndex, NotDirect};
use crate::units::{FileOffset, ImageOffset, PageRange, PageSize};

/// The plan of one ELF file. All addresses are before bias: the same for every launch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectPlan {
    /// Its path in the image, without symbolic links.
    pub path: Vec<u8>,
    /// The file.
    pub inode: Inode,
    /// What it is a program for.
    pub machine: Machine,
    /// Fixed addresses, or to be biased.
    pub kind: ElfKind,
    /// Its mappings, by address, without overlaps; what lies between two is not mapped.
    pub mappings: Vec<Mapping>,
    /// All its addresses: what a bias must find room for (`total_mapping_size()`).
    pub span: PageRange,
    /// What the address of the span's start less the span's start must be a multiple of: at least a page, a power of
    /// two (`maximum_alignment()`). A page for [`ElfKind::Fixed`].
    pub align_bytes: u64,
    /// `e_entry`.
    pub entry: u64,
    /// Where the program headers are in memory, for `AT_PHDR`; 0 if no segment covers them. Linux adds the bias either
    /// way.
    pub phdr_addr: u64,
    /// `AT_PHNUM`
    pub phnum: u16,
    /// `AT_PHENT`
    pub phent_bytes: u16,
    /// `mm->start_code`: the lowest address of an executable segment, 0 if there is none.
    pub start_code: u64,
    /// `mm->end_code`: where the last executable segment's bytes from the file end.
    pub end_code: u64,
    /// `mm->start_data`: the address of the highest segment.
    pub start_data: u64,
    /// `mm->end_data`: where the highest segment's bytes from the file end.
    pub end_data: u64,
    /// `mm->start_brk`: the page boundary after the last bss.
    pub brk: u64,
    /// May the stack be executable? `None` if the file does not say (`PT_GNU_STACK`).
    pub stack_exec: Option<bool>,
    /// What `PT_INTERP` names; `None` for an interpreter, whose own is ignored.
    pub interp: Option<Vec<u8>>,
}

impl ObjectPlan {
    /// The mapping that holds an address.
    pub fn mapping_at(&self, address: u64) -> Option<&Mapping> {
        let after = self
            .mappings
            .partition_point(|mapping| mapping.pages.start() <= address);
        let mapping = self.mappings.get(after.checked_sub(1)?)?;
        (address < mapping.pages.end()).then_some(mapping)
    }

    pub(super) fn new(
        image: &Image,
        path: &[u8],
        inode: &Inode,
        options: &PlanOptions,
    ) -> Result<Self> {
        let file = ImageFile::open(image, inode)?;
        refuse_script(&file, path)?;
        let elf = ElfFile::parse(&file)?;
        if let Some(machine) = options.machine {
            elf.require_machine(machine)?;
        }
        if elf.kind == ElfKind::Fixed {
            refuse_reserved(&elf.segments, options)?;
        }
        let layout = Layout::new(&elf, inode.size, options.page)?;
        let extents = extent::of_blocks(file.blocks());
        let index = FileIndex::of_extents(image, inode, &extents, options.page)?;
        let mut plan = Self {
            path: path.to_vec(),
            inode: *inode,
            machine: elf.machine,
            kind: elf.kind,
            mappings: Vec::new(),
            span: layout.span,
            align_bytes: layout.align_bytes,
            entry: elf.entry,
            phdr_addr: layout.phdr_addr,
            phnum: elf.phnum,
            phent_bytes: elf.phent_bytes,
            start_code: layout.start_code,
            end_code: layout.end_code,
            start_data: layout.start_data,
            end_data: layout.end_data,
            brk: layout.brk,
            stack_exec: elf.stack_exec,
            interp: elf.interp,
        };
        for piece in &layout.pieces {
            match piece.origin {
                Origin::Zero => plan.push(
                    Mapping {
                        pages: piece.pages,
                        prot: piece.prot,
                        source: Source::Zero,
                        clear: None,
                    },
                    options.page,
                ),
                Origin::File { at, bss_at } => {
                    plan.push_file_pages(image, &index, piece, at, bss_at, options)?;
                }
            }
        }
        Ok(plan)
    }

    fn push(&mut self, mapping: Mapping, page: PageSize) {
        if !self
            .mappings
            .last_mut()
            .is_some_and(|last| last.absorb(&mapping, page))
        {
            self.mappings.push(mapping);
        }
    }

    /// Decides, run by run, where the file pages of a piece come from.
    fn push_file_pages(
        &mut self,
        image: &Image,
        index: &FileIndex,
        piece: &Piece,
        piece_at: FileOffset,
        bss_at: Option<u64>,
        options: &PlanOptions,
    ) -> Result<()> {
        let page = options.page;
        let mut start = piece.pages.start();
        while start < piece.pages.end() {
            let at = FileOffset(piece_at.0 + (start - piece.pages.start()));
            let run = index.run_from(at.0 / page.bytes());
            let run_bytes = run.map_or(page.bytes(), |run| run.pages * page.bytes());
            let len_bytes = run_bytes.min(piece.pages.end() - start);
            let Some(pages) = PageRange::new(page, start, len_bytes) else {
                break;
            };
            // Bss begins in the piece's last page.
            let bss_at = bss_at.filter(|&bss_at| bss_at < pages.end());
            start = pages.end();
            // The image's reasons first: they have a way out.
            let source = match run.map_or(Err(NotDirect::BeyondFile), |run| run.state) {
                Err(why) => Err(CopyReason::NotDirect(why)),
                Ok(_) if options.copies(piece.prot) => Err(CopyReason::Asked),
                Ok(image_at) => match options.cow {
                    Err(why) if piece.prot.write => Err(CopyReason::CannotCow(why)),
                    _ => Ok(image_at),
                },
            };
            let (source, clear) = match source {
                Ok(at) => (Source::Direct { at }, clear(image, at, pages, bss_at)?),
                Err(why) => {
                    let file_left = self.inode.size.saturating_sub(at.0);
                    let segment_left = bss_at.map_or(len_bytes, |bss_at| bss_at - pages.start());
                    let file_bytes = file_left.min(segment_left);
                    (
                        Source::Copied {
                            at,
                            file_bytes,
                            why,
                        },
                        None,
                    )
                }
            };
            let mapping = Mapping {
                pages,
                prot: piece.prot,
                source,
                clear,
            };
            self.push(mapping, page);
        }
        Ok(())
    }
}

/// What must be cleared in a direct page with bss from `bss_at` on: nothing if flash has only zeros there. Most linkers
/// leave the file's next bytes there, but the last page of a file that xip-image laid out ends in zeros.
fn clear(
    image: &Image,
    at: ImageOffset,
    pages: PageRange,
    bss_at: Option<u64>,
) -> Result<Option<Range<u64>>> {
    let Some(bss_at) = bss_at else {
        return Ok(None);
    };
    let mut tail = vec![0; (pages.end() - bss_at) as usize];
    image.read_exact_at(&mut tail, at.0 + (bss_at - pages.start()))?;
    let dirty = tail.iter().any(|&byte| byte != 0);
    Ok(dirty.then(|| bss_at..pages.end()))
}

/// A program of fixed addresses cannot be where the loader stub is.
fn refuse_reserved(segments: &[Segment], options: &PlanOptions) -> Result<()> {
    let Some(reserved) = options.reserved else {
        return Ok(());
    };
    for segment in segments {
        let start = options.page.floor(segment.vaddr);
        let end = segment.vaddr.saturating_add(segment.memsz_bytes);
        let end = options.page.ceil(end).unwrap_or(u64::MAX);
        if start < reserved.end() && reserved.start() < end {
            return Err(Error::not_runnable(format!(
                "PT_LOAD {}: its pages {start:08x}-{end:08x} are where the loader stub is, {reserved}; \
                 link it elsewhere or as PIE",
                segment.number
            )));
        }
    }
    Ok(())
}

/// `#!`: not launched yet, so say what to launch instead.
fn refuse_script(file: &ImageFile, path: &[u8]) -> Result<()> {
    /// `BINPRM_BUF_SIZE`: Linux looks no further either.
    const LINE_MAX_BYTES: u64 = 256;
    let mut head = vec![0; file.len_bytes().min(LINE_MAX_BYTES) as usize];
    file.read(&mut head, 0)?;
    let Some(line) = head.strip_prefix(b"#!") else {
        return Ok(());
    };
    let line: Vec<u8> = line
        .iter()
        .copied()
        .take_while(|&byte| byte != b'\n' && byte != 0)
        .collect();
    let line = show_path(&line);
    Err(Error::not_runnable(match line.trim() {
        "" => "a script that names no interpreter after #!".to_owned(),
        line => format!(
            "a script, which only a session starts (without --no-root); run `{line} {}`",
            show_path(path)
        ),
    }))
}
