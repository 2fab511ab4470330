//! The FUSE server: answers the kernel's questions about an image.
//!
//! On entry: an image that [`Image::require_runnable`] accepts. It keeps nothing between requests but the place that
//! the last readdir(3) came to: a node id is the place of its inode in the image, block pointers are read where they
//! are needed, and contents stay in the kernel's page cache. So there is nothing to forget, and memory is bounded by
//! one request and one answer.
//!
//! Everything in the image is hostile. The kernel sends only node ids that it was given here, which are places of
//! directory entries; should it not, any twelve bytes are some inode, and every read is checked against the image.
//!
//! The crate `fuser` was not fit: its answers have one number for node id and `st_ino`, but cramfs shares an `st_ino`
//! among files with the same data.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::protocol::{
    self, Body, ENTRY_OUT_BYTES, MAJOR, MINOR, OLDEST_MINOR, OPEN_FLAGS, ROOT_ID, Reply, Request,
    UNKNOWN_INO, init, opcode,
};
use crate::cramfs::format::{NAME_MAX_BYTES, flags};
use crate::cramfs::{Block, Cursor, Image, Inode, InodeKind};
use crate::error::{Error, Result};
use crate::trace::{Recorder, Trace};
use crate::units::{BLOCK_BYTES, ImageOffset, PageSize};

/// Longest answer to a READ or READDIR, bytes; the mount option `max_read` keeps the kernel below it.
pub const MAX_READ_BYTES: u32 = 128 * 1024;
/// How far the kernel reads ahead, bytes. Where a page is touched through a mapping it reads that much *around* it: with the
/// 128 KiB that it would, a program's first start brings sixteen pages of its text before .data into RAM, where that runs from
/// the image's own page cache.
const READAHEAD_BYTES: u32 = 16 * 1024;
/// Room for a request, bytes: `FUSE_MIN_READ_BUFFER`, and no request here carries data.
const REQUEST_BYTES: usize = 8192;
/// `max_write`, bytes: the least that the kernel takes; nothing is ever written.
const MAX_WRITE_BYTES: u32 = 4096;

/// The server of one image.
#[derive(Debug)]
pub struct Server {
    image: Image,
    reply: Reply,
    /// The kernel asked for no OPEN, no OPENDIR.
    no_open: bool,
    no_opendir: bool,
    /// How far the kernel may read ahead, bytes.
    readahead_bytes: u32,
    /// Where the last READDIR ended: the number of the cursor's next entry.
    reading: Option<(u64, Cursor)>,
    /// What is read, if that is to be known.
    recorder: Option<Recorder>,
}

impl Server {
    /// A server of `image`.
    pub fn new(image: Image) -> Self {
        Self {
            image,
            reply: Reply::default(),
            no_open: false,
            no_opendir: false,
            readahead_bytes: READAHEAD_BYTES,
            reading: None,
            recorder: None,
        }
    }

    /// The same, but the kernel is to ask for each page once, when it is touched, and this is recorded.
    pub fn recording(self, page: PageSize) -> Self {
        Self {
            recorder: Some(Recorder::new(page)),
            readahead_bytes: 0,
            ..self
        }
    }

    /// The same for a board, whose RAM counts more than the time of a request: only pages that are touched come into RAM, as
    /// from the kernel's own cramfs in flash (`mtd_bdi`), and each is a request; but read(2) of more than one still brings all
    /// of them at once, which it would not without any readahead. (Links take a page each. To ask for them whenever they are
    /// followed would add 40 % to the start of a program that is named by one: measured, x86_64.)
    pub fn sparing(self, page: PageSize) -> Self {
        Self {
            readahead_bytes: page.bytes() as u32,
            ..self
        }
    }

    /// What has been touched; `None` if it does not record.
    pub fn trace(&self) -> Option<Trace> {
        Some(self.recorder.as_ref()?.trace(&self.image))
    }

    /// Serves until the file system is unmounted: `device` is a descriptor of /dev/fuse that was given to mount(2).
    ///
    /// # Errors
    /// Whatever read(2) answers, but for ENODEV: the mount is gone.
    pub fn serve(&mut self, device: impl AsFd) -> std::io::Result<()> {
        let mut request = [0; REQUEST_BYTES];
        loop {
            let len = match rustix::io::read(&device, &mut request) {
                Ok(len) => len,
                // ENOENT: the request was interrupted before it was read.
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => continue,
                Err(Errno::NODEV) => return Ok(()),
                Err(err) => return Err(err.into()),
            };
            let answer = self.answer(request.get(..len).unwrap_or_default());
            if answer.is_empty() || send(&device, answer).is_ok() {
                continue;
            }
            // Whoever asked would wait forever: another answer, or the end of the server, which all are told of.
            self.reply.fail(libc::EIO);
            send(&device, self.reply.finish())?;
        }
    }

    /// The answer to one request, as the kernel reads it; empty if it expects none.
    pub fn answer(&mut self, request: &[u8]) -> &[u8] {
        let Some(request) = Request::decode(request) else {
            return &[];
        };
        self.reply.begin(request.unique);
        if let Err(errno) = self.handle(&request) {
            self.reply.fail(errno);
        }
        self.reply.finish()
    }

    fn handle(&mut self, request: &Request<'_>) -> Result<(), i32> {
        let mut body = request.body;
        match request.opcode {
            opcode::INIT => self.init(body),
            opcode::LOOKUP => self.lookup(request.node, body.name()),
            opcode::FORGET | opcode::BATCH_FORGET => {
                self.reply.none();
                Ok(())
            }
            opcode::GETATTR => {
                let inode = self.inode(request.node)?;
                self.reply.attr_out(&inode);
                Ok(())
            }
            opcode::READLINK => {
                let inode = self.inode(request.node)?;
                if inode.kind != InodeKind::Symlink {
                    return Err(libc::EINVAL);
                }
                let target = self.image.read_link(&inode).map_err(damaged)?;
                self.reply.bytes(&target);
                Ok(())
            }
            opcode::OPEN if self.no_open => Err(libc::ENOSYS),
            opcode::OPENDIR if self.no_opendir => Err(libc::ENOSYS),
            opcode::OPEN | opcode::OPENDIR => {
                self.reply.u64(0); // fh
                self.reply.u32(OPEN_FLAGS);
                self.reply.u32(0);
                Ok(())
            }
            opcode::RELEASE | opcode::RELEASEDIR | opcode::DESTROY => Ok(()),
            opcode::READ => {
                let _fh = body.u64();
                let (at, len) = (body.u64(), body.u32());
                self.read(request.node, at, len.min(MAX_READ_BYTES))
            }
            opcode::READDIR | opcode::READDIRPLUS => {
                let _fh = body.u64();
                let (at, len) = (body.u64(), body.u32().min(MAX_READ_BYTES));
                let plus = request.opcode == opcode::READDIRPLUS;
                self.read_directory(request.node, at, len as usize, plus)
            }
            opcode::STATFS => self.statfs(),
            // ENOSYS to the rest: the kernel does what it can by itself and does not ask again.
            _ => Err(libc::ENOSYS),
        }
    }

    fn init(&mut self, mut body: Body<'_>) -> Result<(), i32> {
        let (major, minor, readahead, offered) = (body.u32(), body.u32(), body.u32(), body.u32());
        if major < MAJOR || major == MAJOR && minor < OLDEST_MINOR {
            return Err(libc::EPROTO);
        }
        let flags = offered & init::WANTED;
        self.no_open = flags & init::NO_OPEN_SUPPORT != 0;
        self.no_opendir = flags & init::NO_OPENDIR_SUPPORT != 0;
        self.reply.u32(MAJOR);
        self.reply.u32(MINOR);
        if major > MAJOR {
            // A kernel that speaks a later version too asks again, in this one.
            self.reply.room(56);
            return Ok(());
        }
        self.reply.u32(readahead.min(self.readahead_bytes));
        self.reply.u32(flags);
        self.reply.u32(0); // max_background, congestion_threshold: the kernel's own
        self.reply.u32(MAX_WRITE_BYTES);
        self.reply.room(40); // time granularity, which nothing here has; flags of later versions
        Ok(())
    }

    /// The inode of a node id.
    fn inode(&self, node: u64) -> Result<Inode, i32> {
        if node == ROOT_ID {
            return Ok(self.image.root());
        }
        let at = protocol::node_offset(node).ok_or(libc::ESTALE)?;
        self.image.inode_at(ImageOffset(at)).map_err(damaged)
    }

    fn directory(&self, node: u64) -> Result<Inode, i32> {
        let inode = self.inode(node)?;
        match inode.kind {
            InodeKind::Directory => Ok(inode),
            _ => Err(libc::ENOTDIR),
        }
    }

    fn lookup(&mut self, parent: u64, name: &[u8]) -> Result<(), i32> {
        let parent = self.directory(parent)?;
        if name.len() > NAME_MAX_BYTES {
            return Err(libc::ENAMETOOLONG);
        }
        match self.image.find(&parent, name).map_err(damaged)? {
            None => self.reply.no_entry(),
            Some(inode) if protocol::is_presentable(&inode) => {
                self.reply.entry_out(protocol::node_id(&inode), &inode);
            }
            Some(_) => return Err(libc::EIO),
        }
        Ok(())
    }

    /// As `cramfs_statfs()`, but for the file system's type, which is FUSE.
    fn statfs(&mut self) -> Result<(), i32> {
        let raw = self.image.superblock();
        let (blocks, files) = match raw.flags & flags::FSID_V2 {
            0 => (0, 0),
            _ => (u64::from(raw.blocks), u64::from(raw.files)),
        };
        for value in [blocks, 0, 0, files, 0] {
            self.reply.u64(value); // blocks: all, free, available; files: all, free
        }
        self.reply.u32(BLOCK_BYTES as u32);
        self.reply.u32(NAME_MAX_BYTES as u32);
        self.reply.u32(BLOCK_BYTES as u32);
        self.reply.room(28);
        Ok(())
    }

    /// Bytes of a file; fewer at its end.
    fn read(&mut self, node: u64, at: u64, len: u32) -> Result<(), i32> {
        let inode = self.inode(node)?;
        if inode.kind != InodeKind::File {
            return Err(libc::EINVAL);
        }
        let end = inode.size.min(at.saturating_add(u64::from(len)));
        if at >= end {
            return Ok(());
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.touch(inode.at.0, at, end);
        }
        let room = self.reply.room((end - at) as usize);
        fill(&self.image, &inode, at, end, room).map_err(damaged)
    }

    /// Entries from number `from` on, `.` and `..` counted, as many as fit. Linux's own cramfs lists neither; programs
    /// expect them. Where an entry goes on is its number, not its place: lseek(2) can ask for any, and a place in the
    /// middle of an entry would show one that is not there.
    fn read_directory(&mut self, node: u64, from: u64, len: usize, plus: bool) -> Result<(), i32> {
        let dir = self.directory(node)?;
        let dots: [(&[u8], u64); 2] = [(b".", dir.number()), (b"..", UNKNOWN_INO)];
        for (number, (name, ino)) in (0..).zip(dots).skip_while(|(number, _)| *number < from) {
            if self.reply.body_len() + record_bytes(name, plus) > len {
                return Ok(());
            }
            if plus {
                self.reply.room(ENTRY_OUT_BYTES); // node 0: nothing to remember
            }
            self.reply.dirent(ino, number + 1, dir.mode, name);
        }

        let (mut number, mut cursor) = match self.reading.take() {
            Some((number, cursor)) if number == from && *cursor.directory() == dir => {
                (number, cursor)
            }
            _ => (2, Cursor::new(&self.image, &dir).map_err(damaged)?),
        };
        while number < from {
            if cursor.next_entry(&self.image).map_err(damaged)?.is_none() {
                return Ok(());
            }
            number += 1;
        }
        loop {
            // What was listed before damage is met still is good.
            let (name, inode) = match cursor.next_entry(&self.image) {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(_) if self.reply.body_len() > 0 => break,
                Err(err) => return Err(damaged(err)),
            };
            if self.reply.body_len() + record_bytes(name, plus) > len {
                cursor.step_back();
                break;
            }
            if plus && protocol::is_presentable(&inode) {
                self.reply.entry_out(protocol::node_id(&inode), &inode);
            } else if plus {
                self.reply.room(ENTRY_OUT_BYTES);
            }
            number += 1;
            self.reply.dirent(inode.number(), number, inode.mode, name);
        }
        self.reading = Some((number, cursor));
        Ok(())
    }
}

/// Gives the kernel an answer. ENOENT is none: whoever asked waits no more. (After ENODEV read(2) will say it again.)
fn send(device: &impl AsFd, answer: &[u8]) -> rustix::io::Result<()> {
    match rustix::io::retry_on_intr(|| rustix::io::write(device, answer)) {
        Ok(_) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
        Err(err) => Err(err),
    }
}

/// What the caller sees of an error in the image.
fn damaged(_: Error) -> i32 {
    libc::EIO
}

/// What one entry takes in the answer, bytes.
fn record_bytes(name: &[u8], plus: bool) -> usize {
    protocol::dirent_bytes(name.len()) + if plus { ENTRY_OUT_BYTES } else { 0 }
}

/// Fills `buf`, which is zeros, with the bytes `at..end` of a file. Blocks that lie one behind the other as they are
/// are read in one go.
fn fill(image: &Image, inode: &Inode, at: u64, end: u64, buf: &mut [u8]) -> Result<()> {
    let first = at / BLOCK_BYTES;
    let blocks = image.blocks_in(inode, first..end.div_ceil(BLOCK_BYTES))?;
    let mut skip = (at % BLOCK_BYTES) as usize;
    let mut rest = buf;
    let mut blocks = blocks.as_slice();
    while let Some((block, mut after)) = blocks.split_first() {
        if let Block::Stored {
            at: from,
            len_bytes,
        } = block
        {
            let mut len = *len_bytes as usize;
            while let Some((Block::Stored { at, len_bytes }, more)) = after.split_first()
                && len.is_multiple_of(BLOCK_BYTES as usize)
                && at.0 == from.0 + len as u64
            {
                len += *len_bytes as usize;
                after = more;
            }
            // A run's blocks are whole, but for its last; what is stored short of that ends in zeros.
            let whole = len.next_multiple_of(BLOCK_BYTES as usize) - skip;
            let (part, left) = rest.split_at_mut(whole.min(rest.len()));
            let stored = len.saturating_sub(skip).min(part.len());
            if let Some(part @ [_, ..]) = part.get_mut(..stored) {
                image.read_exact_at(part, from.0 + skip as u64)?;
            }
            rest = left;
        } else {
            let whole = BLOCK_BYTES as usize - skip;
            let (part, left) = rest.split_at_mut(whole.min(rest.len()));
            if skip == 0 {
                image.read_block(*block, part)?;
            } else {
                let mut page = [0; BLOCK_BYTES as usize];
                image.read_block(*block, &mut page)?;
                part.copy_from_slice(page.get(skip..skip + part.len()).unwrap_or_default());
            }
            rest = left;
        }
        skip = 0;
        blocks = after;
    }
    Ok(())
}
