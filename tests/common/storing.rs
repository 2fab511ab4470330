//! The many ways in which an image can hold two programs, as a strategy: every form of block, aligned and not, with the
//! last page shared and not, in either byte order.

use proptest::collection::vec;
use proptest::prelude::*;
use xip_run::units::Endian;

use super::image_bytes::*;
use super::noise;

/// How each block of a file is stored.
#[derive(Clone, Copy, Debug)]
enum Form {
    Direct,
    Apart,
    Follows,
    Zlib,
    ZlibDirect,
    Hole,
}

/// All direct, or all but a few: mostly pages that can be mapped, and edges between them and others.
fn forms() -> impl Strategy<Value = Vec<Form>> {
    let other = prop::sample::select(vec![
        Form::Apart,
        Form::Follows,
        Form::Zlib,
        Form::ZlibDirect,
        Form::Hole,
    ]);
    let all = vec(other, 12);
    (
        all,
        prop_oneof![2 => Just(0_u16), 1 => any::<u16>()],
        any::<u16>(),
    )
        .prop_map(|(others, mask, thin)| {
            // One in four, of those that have any.
            let is_other = |number: usize| mask & thin & 1 << number != 0;
            let form = |(number, other)| {
                if is_other(number) {
                    other
                } else {
                    Form::Direct
                }
            };
            others.into_iter().enumerate().map(form).collect()
        })
}

/// How an image is made of programs.
#[derive(Clone, Debug)]
pub struct Storing {
    forms: Vec<Form>,
    /// Alignment of the first block, and of those apart.
    align: usize,
    /// What follows the last byte.
    after: Vec<u8>,
    big: bool,
    super_at: usize,
    pad_to: usize,
}

/// Any of them.
pub fn storing() -> impl Strategy<Value = Storing> {
    let after = prop_oneof![
        Just(Vec::new()),
        Just(vec![0; 0x10000]),
        Just(noise(0x1000)),
        Just([vec![0; 0xfff], noise(0x2000)].concat()),
    ];
    (
        forms(),
        prop::sample::select(vec![0x10000usize, 0x10000, 0x4000, 0x1000, 4]),
        after,
        any::<bool>(),
        prop::sample::select(vec![0usize, 512]),
        prop::sample::select(vec![4usize, 0x1000, 0x10000]),
    )
        .prop_map(|(forms, align, after, big, super_at, pad_to)| Storing {
            forms,
            align,
            after,
            big,
            super_at,
            pad_to,
        })
}

impl Storing {
    fn file(&self, bytes: &[u8]) -> Node {
        let blocks = bytes.chunks(4096).enumerate().map(|(number, chunk)| {
            let form = self.forms.get(number).copied().unwrap_or(Form::Direct);
            match form {
                // Headers in a hole are no headers.
                Form::Hole if number > 0 && chunk.len() == 4096 => hole(),
                Form::Direct | Form::Hole if number > 0 => raw_direct(chunk),
                Form::Direct | Form::Hole | Form::Apart => raw_direct(chunk).align(self.align),
                Form::Follows => raw(chunk),
                Form::Zlib => zlib(chunk),
                Form::ZlibDirect => zlib_direct(chunk),
            }
        });
        file(blocks.collect::<Vec<_>>())
            .mode(0o100_755)
            .then(self.after.clone())
    }

    /// The bytes of an image with `/p` and `/ld.so`.
    pub fn image(&self, program: &[u8], interp: &[u8]) -> Vec<u8> {
        let tree = dir([("ld.so", self.file(interp)), ("p", self.file(program))]);
        let image = ImageBytes {
            endian: if self.big {
                Endian::Big
            } else {
                Endian::Little
            },
            super_at: self.super_at,
            flags: 0x903,
            pad_to: self.pad_to,
            ..ImageBytes::new(tree)
        };
        image.build()
    }
}
