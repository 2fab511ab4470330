//! Invariant: whatever bytes an image has, what the reader says of it is one truth: a walk, a listing and a lookup find the
//! same inodes, names are such as a path can hold, a file is read the same whole and in pieces; or there is an error that
//! names the place.

use xip_run::backing::ReadAt;
use xip_run::cramfs::{ImageFile, InodeKind};

use super::{assert_honest, entries, image_of, max_content_bytes, open};

/// The target.
pub fn run(input: &[u8]) {
    let bytes = image_of(input);
    let Some(image) = open(&bytes) else { return };
    let _ = image.require_runnable();
    let _ = image.verify_crc();
    let mut left_bytes = max_content_bytes(&image);
    for found in entries(&image) {
        let inode = found.inode;
        if found.depth > 0 {
            let name = found.name();
            assert!(!name.is_empty() && name.len() <= 252 && name != b"." && name != b"..");
            assert!(!name.iter().any(|&byte| byte == 0 || byte == b'/'));
            assert!(found.path.len() <= 4095);
        }
        match image.lookup_nofollow(&found.path) {
            // Of two entries with a name the first is found.
            Ok(same) => assert!(found.depth != 1 || same.at <= inode.at, "{same:?}"),
            Err(err) => assert!(err.to_string().len() < 8192),
        }
        let _ = image.lookup(&found.path);
        match inode.kind {
            InodeKind::Directory => match image.entries(&inode) {
                Ok(entries) => {
                    for entry in entries.iter().take(8) {
                        let first = image.find(&inode, &entry.name).unwrap().unwrap();
                        assert!(first.at <= entry.inode.at);
                    }
                }
                Err(err) => assert_honest(&err),
            },
            InodeKind::Symlink => match image.read_link(&inode) {
                Ok(target) => assert!(!target.is_empty() && target.len() <= 4095),
                Err(err) => assert_honest(&err),
            },
            InodeKind::File => {
                let Some(left) = left_bytes.checked_sub(inode.size) else {
                    if let Err(err) = image.blocks(&inode) {
                        assert_honest(&err);
                    }
                    continue;
                };
                left_bytes = left;
                let whole = image.read_file(&inode);
                let file = match ImageFile::open(&image, &inode) {
                    Ok(file) => file,
                    Err(err) => {
                        assert_honest(&err);
                        assert!(whole.is_err());
                        continue;
                    }
                };
                let mut pieces = vec![0xaa; inode.size as usize];
                let mut read = Ok(());
                for (number, piece) in pieces.chunks_mut(3000).enumerate() {
                    read = read.and_then(|()| file.read(piece, number as u64 * 3000));
                }
                match (whole, read) {
                    (Ok(whole), Ok(())) => assert!(whole == pieces),
                    (Err(err), Err(_)) => assert_honest(&err),
                    (whole, read) => panic!("{:?} {read:?}", whole.map(|bytes| bytes.len())),
                }
                assert!(file.read_exact_at(&mut [0], inode.size).is_err());
            }
            _ => assert!(ImageFile::open(&image, &inode).is_err()),
        }
    }
}
