//! Pictures an image: what it is as a whole, where every file's blocks lie, how much of it can be mapped.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::cramfs::check::MAX_FINDINGS;
use crate::cramfs::dump::{Name, json};
use crate::cramfs::format::flags;
use crate::cramfs::regions::{Region, RegionKind};
use crate::cramfs::{Endian, Image, Inode, InodeKind, PointerBudget};
use crate::error::{Error, Result};
use crate::extent::{self, Extent, Storage};
use crate::index::{FileIndex, NotDirect};
use crate::units::{BLOCK_BYTES, ImageOffset, PageSize};

/// Most bytes of paths that a picture holds: a hostile image can name a few megabytes of entries by long paths each.
const MAX_PATHS_BYTES: usize = 256 << 20;

/// How many pages of a file can be mapped straight from flash, for one page size.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct PageCount {
    /// The page size in bytes.
    pub page_bytes: u64,
    /// Pages in all.
    pub pages: u64,
    /// Those that can be mapped.
    pub direct: u64,
    /// The others, by reason.
    pub not_direct: BTreeMap<NotDirect, u64>,
}

impl PageCount {
    fn new(page: PageSize) -> Self {
        Self {
            page_bytes: page.bytes(),
            pages: 0,
            direct: 0,
            not_direct: BTreeMap::new(),
        }
    }

    fn add(&mut self, index: &FileIndex) {
        for run in index.runs() {
            self.pages += run.pages;
            match run.state {
                Ok(_) => self.direct += run.pages,
                Err(why) => *self.not_direct.entry(why).or_default() += run.pages,
            }
        }
    }
}

/// `4 KiB: 469 of 479 direct (10 compressed)`.
impl fmt::Display for PageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pages, direct, .. } = self;
        write!(
            f,
            "{} KiB: {direct} of {pages} direct",
            self.page_bytes / 1024
        )?;
        let reasons = self.not_direct.iter();
        let reasons: Vec<String> = reasons
            .map(|(why, pages)| format!("{pages} {why}"))
            .collect();
        if reasons.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", reasons.join(", "))
    }
}

/// What could not be shown.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Damage {
    /// Of which file or directory; of none if it is the whole image.
    #[serde(flatten, serialize_with = "json::path_if_any")]
    pub path: Option<Name>,
    /// Why.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{path}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Adds to a list that ends at [`MAX_FINDINGS`].
fn damaged(errors: &mut Vec<Damage>, path: Option<&[u8]>, what: impl fmt::Display) {
    let what = match errors.len() {
        MAX_FINDINGS => "more is damaged than is listed".to_owned(),
        len if len > MAX_FINDINGS => return,
        _ => what.to_string(),
    };
    let path = path.filter(|_| errors.len() < MAX_FINDINGS);
    errors.push(Damage {
        path: path.map(Name::from),
        what,
    });
}

/// Counts for every supported page size, smallest first.
fn page_counts() -> Vec<PageCount> {
    PageSize::ALL.into_iter().map(PageCount::new).collect()
}

/// Counts all of a file's pages or none.
fn add_file(counts: &mut [PageCount], image: &Image, inode: &Inode) -> Result<()> {
    let indexes = PageSize::ALL.map(|page| FileIndex::new(image, inode, page));
    let indexes = indexes.into_iter().collect::<Result<Vec<_>>>()?;
    for (count, index) in counts.iter_mut().zip(&indexes) {
        count.add(index);
    }
    Ok(())
}

/// The files that were pictured, by where their data starts. Files with the same data are one.
struct Files {
    first_paths: HashMap<ImageOffset, Name>,
    pointers: PointerBudget,
}

impl Files {
    fn new(image: &Image) -> Self {
        Self {
            first_paths: HashMap::new(),
            pointers: PointerBudget::new(image),
        }
    }

    /// Is it the first file with this data?
    fn is_new(&mut self, inode: &Inode, path: &[u8]) -> Result<bool> {
        if self.first_paths.contains_key(&inode.data) {
            return Ok(false);
        }
        if !self.pointers.take(inode) {
            return Err(Error::bad_image(
                "the block pointers of files overlap; see what `check` says",
            ));
        }
        self.first_paths.insert(inode.data, path.into());
        Ok(true)
    }
}

/// What an image is.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Info {
    /// Byte order.
    pub endian: Endian,
    /// Where the superblock lies.
    pub super_offset: u64,
    /// Length in bytes: what the superblock says, or less if there is less.
    pub image_bytes: u64,
    /// The superblock's flags.
    pub flags: u32,
    /// The same in words.
    pub flag_names: Vec<String>,
    /// The name that its maker gave it.
    #[serde(flatten, serialize_with = "json::name")]
    pub name: Name,
    /// The number that its maker gave it.
    pub edition: u32,
    /// CRC as stored.
    pub crc: u32,
    /// What is wrong with the CRC, or why there is none; nothing if it is right.
    pub crc_problem: Option<String>,
    /// `files` of the superblock.
    pub files: u32,
    /// `blocks` of the superblock.
    pub blocks: u32,
    /// How many entries of each kind there really are; the root is one of the directories.
    pub entries: BTreeMap<String, u64>,
    /// Bytes of all regular files.
    pub content_bytes: u64,
    /// Pages of all regular files, for each page size; those of files with the same inode number once.
    pub pages: Vec<PageCount>,
    /// What is damaged, the CRC included; the rest was counted.
    pub errors: Vec<Damage>,
}

/// Looks an image over.
pub fn info(image: &Image) -> Info {
    let superblock = image.superblock();
    let mut info = Info {
        endian: image.endian(),
        super_offset: image.super_offset(),
        image_bytes: image.limit_bytes(),
        flags: superblock.flags,
        flag_names: flag_names(superblock.flags),
        name: superblock
            .name
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default()
            .into(),
        edition: superblock.edition,
        crc: superblock.crc,
        crc_problem: image.verify_crc().err().map(|err| err.to_string()),
        files: superblock.files,
        blocks: superblock.blocks,
        entries: BTreeMap::new(),
        content_bytes: 0,
        pages: page_counts(),
        errors: Vec::new(),
    };
    if let Some(damage) = image.damage() {
        damaged(&mut info.errors, None, damage);
    }
    let mut files = Files::new(image);
    for found in image.walk() {
        let found = match found {
            Ok(found) => found,
            Err(refused) => {
                damaged(&mut info.errors, Some(&refused.path), refused.error);
                continue;
            }
        };
        let inode = found.inode;
        let kind = format!("{:?}", inode.kind).to_lowercase();
        *info.entries.entry(kind).or_default() += 1;
        if inode.kind == InodeKind::File && inode.size > 0 {
            info.content_bytes += inode.size;
            let added = files.is_new(&inode, &found.path).and_then(|new| match new {
                true => add_file(&mut info.pages, image, &inode),
                false => Ok(()),
            });
            if let Err(err) = added {
                damaged(&mut info.errors, Some(&found.path), err);
            }
        }
    }
    info
}

fn flag_names(set: u32) -> Vec<String> {
    let known = [
        (flags::FSID_V2, "fsid-v2"),
        (flags::SORTED_DIRS, "sorted-dirs"),
        (flags::HOLES, "holes"),
        (flags::WRONG_SIGNATURE, "wrong-signature"),
        (flags::SHIFTED_ROOT, "shifted-root"),
        (flags::EXT_BLOCK_POINTERS, "ext-block-pointers"),
    ];
    let mut names: Vec<String> = known
        .iter()
        .filter(|(flag, _)| set & flag != 0)
        .map(|(_, name)| (*name).to_owned())
        .collect();
    let rest = known.iter().fold(set, |rest, (flag, _)| rest & !flag);
    if rest != 0 {
        names.push(format!("unknown {rest:#x}"));
    }
    names
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let crc = self.crc_problem.as_deref().unwrap_or("right");
        let entries = self.entries.iter();
        let entries: Vec<String> = entries
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        writeln!(f, "byte order   {} endian", self.endian)?;
        writeln!(f, "superblock   at byte {}", self.super_offset)?;
        writeln!(f, "length       {} bytes", self.image_bytes)?;
        writeln!(
            f,
            "flags        {:#x}: {}",
            self.flags,
            self.flag_names.join(", ")
        )?;
        writeln!(
            f,
            "name         \"{}\", edition {}",
            self.name, self.edition
        )?;
        writeln!(f, "crc          {:#010x}: {crc}", self.crc)?;
        writeln!(
            f,
            "superblock   says {} files, {} blocks",
            self.files, self.blocks
        )?;
        writeln!(f, "entries      {}", entries.join(", "))?;
        write!(f, "contents     {} bytes", self.content_bytes)?;
        for count in &self.pages {
            write!(f, "\npages        {count}")?;
        }
        for error in &self.errors {
            write!(f, "\nerror        {error}")?;
        }
        Ok(())
    }
}

/// Where a file's blocks lie.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct FileMap {
    /// Path.
    #[serde(flatten, serialize_with = "json::path")]
    pub path: Name,
    /// Inode number.
    pub inode: u64,
    /// The path of the first file with the same number, and so the same blocks, which are listed there.
    #[serde(flatten, serialize_with = "json::same_as")]
    pub same_as: Option<Name>,
    /// Bytes.
    pub size: u64,
    /// The blocks, in runs.
    pub extents: Vec<Extent>,
    /// The pages, for each page size.
    pub pages: Vec<PageCount>,
    /// Why it cannot be mapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where everything lies.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct ImageMap {
    /// Every regular file and link with contents, in the image's order.
    pub files: Vec<FileMap>,
    /// Every byte of the image, in order; overlaps are left as they are ([`crate::cramfs::check()`] reports them).
    pub regions: Vec<MappedRegion>,
    /// Bytes that are nobody's, or whose owner cannot be read.
    pub unused_bytes: u64,
    /// What is damaged, the CRC and the files' errors included; the rest was mapped.
    pub errors: Vec<Damage>,
}

/// A region of the image.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct MappedRegion {
    /// First byte.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// What it holds.
    pub kind: RegionKind,
    /// The first file that it belongs to.
    #[serde(flatten, serialize_with = "json::path_if_any")]
    pub path: Option<Name>,
}

/// Maps an image.
///
/// # Errors
/// If the image's paths are too many to be listed.
pub fn map(image: &Image) -> Result<ImageMap> {
    let mut map = ImageMap {
        files: Vec::new(),
        regions: Vec::new(),
        unused_bytes: 0,
        errors: Vec::new(),
    };
    if let Some(damage) = image.damage() {
        damaged(&mut map.errors, None, damage);
    }
    let mut regions = vec![Region::superblock(image)];
    let mut files = Files::new(image);
    let mut paths: HashMap<ImageOffset, Name> = HashMap::new();
    let mut paths_bytes = 0;
    for found in image.walk() {
        let found = match found {
            Ok(found) => found,
            Err(refused) => {
                damaged(&mut map.errors, Some(&refused.path), refused.error);
                continue;
            }
        };
        let inode = found.inode;
        if !inode.kind.has_data() || inode.size == 0 {
            continue;
        }
        let path = Name(found.path.clone());
        paths_bytes += found.path.len();
        if paths_bytes > MAX_PATHS_BYTES {
            return Err(Error::bad_image(
                "the image has too many paths to be listed",
            ));
        }
        if inode.kind == InodeKind::Directory {
            regions.extend(Region::directory(&inode));
        } else {
            let mut file = FileMap {
                path: path.clone(),
                inode: inode.number(),
                size: inode.size,
                same_as: None,
                extents: Vec::new(),
                pages: Vec::new(),
                error: None,
            };
            let added = files.is_new(&inode, &found.path).and_then(|new| {
                if new {
                    file.add_blocks(image, &inode)?;
                    regions.extend(Region::of_file(&inode, &image.blocks(&inode)?));
                } else {
                    file.same_as = files.first_paths.get(&inode.data).cloned();
                }
                Ok(())
            });
            if let Err(err) = added {
                damaged(&mut map.errors, Some(&found.path), &err);
                file.error = Some(err.to_string());
            }
            map.files.push(file);
        }
        paths.insert(inode.at, path);
    }
    regions.sort_unstable();
    // Files with the same contents have the same regions.
    regions.dedup_by_key(|region| (region.start, region.end, region.kind));
    let mut reached = 0;
    let unused = |map: &mut ImageMap, start: u64, end: u64| {
        if start < end {
            map.unused_bytes += end - start;
            map.regions.push(MappedRegion {
                start,
                end,
                kind: RegionKind::Unused,
                path: None,
            });
        }
    };
    for region in regions {
        unused(&mut map, reached, region.start);
        reached = reached.max(region.end);
        map.regions.push(MappedRegion {
            start: region.start,
            end: region.end,
            kind: region.kind,
            path: paths.get(&region.inode).cloned(),
        });
    }
    unused(&mut map, reached, image.limit_bytes());
    Ok(map)
}

impl FileMap {
    fn add_blocks(&mut self, image: &Image, inode: &Inode) -> Result<()> {
        self.extents = extent::extents(image, inode)?;
        let mut pages = page_counts();
        add_file(&mut pages, image, inode)?;
        self.pages = pages;
        Ok(())
    }
}

impl fmt::Display for FileMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}  {} bytes, inode {}",
            self.path, self.size, self.inode
        )?;
        if let Some(path) = &self.same_as {
            write!(f, "\n  the same as {path}")?;
        }
        for extent in &self.extents {
            let (first, end) = (extent.first_block, extent.first_block + extent.blocks);
            let range = format!("{:08x}-{:08x}", first * BLOCK_BYTES, end * BLOCK_BYTES);
            let bytes = extent.stored_bytes;
            match extent.storage {
                Storage::Stored { at } => write!(f, "\n  {range} stored     {at} {bytes} bytes")?,
                Storage::Compressed { at } => {
                    write!(f, "\n  {range} compressed {at} {bytes} bytes")?;
                }
                Storage::Hole => write!(f, "\n  {range} hole")?,
            }
        }
        for count in &self.pages {
            write!(f, "\n  pages {count}")?;
        }
        match &self.error {
            Some(error) => write!(f, "\n  error: {error}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ImageMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            writeln!(f, "{file}\n")?;
        }
        writeln!(f, "the whole image")?;
        for region in &self.regions {
            let MappedRegion {
                start,
                end,
                kind,
                path,
            } = region;
            let path = path.as_ref().map_or(String::new(), Name::to_string);
            let line = format!(
                "  {start:08x}-{end:08x} {kind:10} {:>9} {path}",
                end - start
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        write!(f, "{} bytes unused", self.unused_bytes)?;
        for error in &self.errors {
            write!(f, "\nerror: {error}")?;
        }
        Ok(())
    }
}
