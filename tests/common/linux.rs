//! What Linux makes of an image, from the description of the format and its driver's behaviour: the places where it is
//! stricter or odder than this library's reader. Written anew; it only knows what the tests need.
#![allow(dead_code, unreachable_pub)]

use std::io::Read;

use xip_run::cramfs::{Endian, Inode};

const UNCOMPRESSED: u32 = 1 << 31;
const DIRECT: u32 = 1 << 30;
const VALUE: u32 = DIRECT - 1;

fn word(bytes: &[u8], at: usize, endian: Endian) -> u32 {
    endian.u32(bytes[at..at + 4].try_into().unwrap())
}

/// read(2) of a whole file.
pub fn read_file(bytes: &[u8], inode: &Inode, endian: Endian) -> Vec<u8> {
    let size = inode.size as usize;
    let count = size.div_ceil(4096);
    let table = inode.data.0 as usize;
    let mut content = Vec::new();
    for number in 0..count {
        let pointer = word(bytes, table + 4 * number, endian);
        let length_at = |at: usize| usize::from(endian.u16(bytes[at..at + 2].try_into().unwrap()));
        let (start, len) = if pointer & DIRECT != 0 {
            let start = (pointer & VALUE) as usize * 4;
            if pointer & UNCOMPRESSED == 0 {
                (start + 2, length_at(start))
            } else if number == count - 1 {
                // The trap: 0 if the size is a multiple of 4096.
                (start, size % 4096)
            } else {
                (start, 4096)
            }
        } else {
            let start = match number.checked_sub(1) {
                None => table + 4 * count,
                Some(before) => {
                    let before = word(bytes, table + 4 * before, endian);
                    let value = (before & VALUE) as usize;
                    match (before & DIRECT != 0, before & UNCOMPRESSED != 0) {
                        (false, _) => value,
                        (true, true) => value * 4 + 4096,
                        (true, false) => value * 4 + 2 + length_at(value * 4),
                    }
                }
            };
            (start, (pointer & VALUE) as usize - start)
        };
        let mut page = vec![0; 4096];
        if pointer & UNCOMPRESSED != 0 {
            assert!(len <= 4096);
            page[..len].copy_from_slice(&bytes[start..start + len]);
        } else if len != 0 {
            assert!(len <= 2 * 4096);
            let mut stream = flate2::read::ZlibDecoder::new(&bytes[start..start + len]);
            let mut inflated = Vec::new();
            stream.read_to_end(&mut inflated).unwrap();
            page[..inflated.len()].copy_from_slice(&inflated);
        }
        content.extend_from_slice(&page);
    }
    content.truncate(size);
    content
}

/// How many blocks from `first` mmap(2) on a memory-mapped cramfs maps straight from flash: those that are direct,
/// uncompressed and consecutive.
pub fn mappable_blocks(bytes: &[u8], inode: &Inode, endian: Endian, first: usize) -> usize {
    let table = inode.data.0 as usize;
    let count = (inode.size as usize).div_ceil(4096);
    let pointers: Vec<u32> = (first..count)
        .map(|number| word(bytes, table + 4 * number, endian))
        .collect();
    let start = pointers.first().map_or(0, |pointer| pointer & VALUE);
    (start..)
        .step_by(1024)
        .zip(&pointers)
        .take_while(|(value, pointer)| **pointer == *value | DIRECT | UNCOMPRESSED)
        .count()
}
