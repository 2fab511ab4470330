//! What samples/session/mappings.c prints of /proc/self/maps, natively and in a session, made comparable.
//!
//! THE rule for a line that names the image: the index says which page of which file lies at its offset, and that is what
//! the line stands for. (In a session direct pages are mapped from the image, and /proc says so.) As a file that is direct
//! in part is mapped in pieces, and the kernel splits and joins mappings for its own reasons, lines that continue each
//! other - permissions, file, offset - are one line, natively too.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use xip_run::cramfs::Image;
use xip_run::index::FileIndex;
use xip_run::units::PageSize;

use super::stored::FILES_DIR;

/// What lies at the pages of an image.
pub(crate) struct Places {
    /// The path of the image.
    image: String,
    /// The file and its page, by the page of the image.
    files: HashMap<u64, (String, u64)>,
}

/// A line of /proc/self/maps: addresses, and offset, in pages.
#[derive(PartialEq, Debug)]
struct Line {
    start: u64,
    pages: u64,
    permissions: String,
    name: String,
    offset: u64,
}

impl Line {
    /// `START+PAGES:PERMISSIONS:NAME@OFFSET`
    fn parse(text: &str) -> Option<Self> {
        let (at, rest) = text.split_once(':')?;
        let (permissions, rest) = rest.split_once(':')?;
        let (name, offset) = rest.rsplit_once('@')?;
        let (start, pages) = at.split_once('+')?;
        Some(Self {
            start: start.parse().ok()?,
            pages: pages.parse().ok()?,
            permissions: permissions.to_owned(),
            name: name.to_owned(),
            offset: offset.parse().ok()?,
        })
    }

    /// Is the other one the rest of it?
    fn continues_in(&self, next: &Self) -> bool {
        self.start + self.pages == next.start
            && self.permissions == next.permissions
            && self.name == next.name
            && (self.name.is_empty() || self.offset + self.pages == next.offset)
    }
}

impl Places {
    /// Of the files of every storage.
    pub(crate) fn of(image_path: &Path, root: &Path) -> Self {
        let image = Image::open(fs::read(image_path).unwrap()).unwrap();
        let mut files = HashMap::new();
        for entry in fs::read_dir(root.join(FILES_DIR)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = format!("/{FILES_DIR}/{name}");
            let inode = image.lookup(path.as_bytes()).unwrap();
            let index = FileIndex::new(&image, &inode, PageSize::K4).unwrap();
            for page in 0..PageSize::K4.count(inode.size) {
                if let Ok(at) = index.page(page) {
                    let other = files.insert(at.0 / 4096, (path.clone(), page));
                    assert_eq!(other, None, "two files have the page at {at:?}");
                }
            }
        }
        let image = image_path.to_str().unwrap().to_owned();
        Self { image, files }
    }

    /// The lines by the rule above, and how many pages are mapped from the image.
    fn lines(&self, text: &str) -> Result<(Vec<Line>, u64), String> {
        let mut lines: Vec<Line> = Vec::new();
        let mut direct = 0;
        for word in text.split_whitespace() {
            let line = Line::parse(word).ok_or_else(|| format!("{word} is no mapping"))?;
            let is_image = line.name == self.image;
            let step = if is_image { 1 } else { line.pages };
            for number in (0..line.pages).step_by(step as usize) {
                let offset = line.offset + number;
                let (name, offset) = match self.files.get(&offset) {
                    Some(place) if is_image => place.clone(),
                    None if is_image => return Err(format!("{word} shows what is no file's")),
                    _ => (line.name.clone(), offset),
                };
                let part = Line {
                    start: line.start + number,
                    pages: step,
                    permissions: line.permissions.clone(),
                    name,
                    offset,
                };
                direct += u64::from(is_image);
                match lines.last_mut() {
                    Some(last) if last.continues_in(&part) => last.pages += part.pages,
                    _ => lines.push(part),
                }
            }
        }
        Ok((lines, direct))
    }

    /// Compares a line of output: how many pages of it are mapped from the image, or what is wrong.
    pub(crate) fn compare(&self, native: &str, session: &str) -> Result<u64, String> {
        let wrong = |why: String| Err(format!("natively   {native}\n  in session {session}{why}"));
        // CALL [| PAGES | MAPPINGS]...
        let parts = |line| str::split(line, " |").enumerate();
        if parts(native).count() != parts(session).count() {
            return wrong(String::new());
        }
        let mut direct = 0;
        for ((number, native), (_, session)) in parts(native).zip(parts(session)) {
            if number == 0 || number % 2 == 1 {
                if native != session {
                    return wrong(String::new());
                }
                continue;
            }
            let (expected, _) = self.lines(native)?;
            let (found, from_image) = self.lines(session)?;
            if expected != found {
                return wrong(format!("\n  which is   {found:?}"));
            }
            direct += from_image;
        }
        Ok(direct)
    }
}
