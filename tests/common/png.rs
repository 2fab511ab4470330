//! Screenshots as pixels: just as much of PNG as a browser writes (8 bits, RGB or RGBA, not interlaced).
#![allow(dead_code, unreachable_pub)]

use std::io::Read;

use flate2::read::ZlibDecoder;

pub struct Png {
    pub width: usize,
    pub pixels: Vec<[u8; 3]>,
}

impl Png {
    #[allow(clippy::needless_range_loop, reason = "three rows by one index")]
    pub fn decode(bytes: &[u8]) -> Self {
        assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"));
        let (mut head, mut data) = (Vec::new(), Vec::new());
        let mut rest = &bytes[8..];
        while rest.len() > 12 {
            let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            let content = &rest[8..8 + len];
            match &rest[4..8] {
                b"IHDR" => head = content.to_vec(),
                b"IDAT" => data.extend_from_slice(content),
                _ => {}
            }
            rest = &rest[12 + len..];
        }
        let width = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        let channels = match head[8..] {
            [8, 2, 0, 0, 0] => 3,
            [8, 6, 0, 0, 0] => 4,
            ref other => panic!("a PNG of form {other:?}"),
        };
        let mut raw = Vec::new();
        ZlibDecoder::new(data.as_slice())
            .read_to_end(&mut raw)
            .unwrap();
        let len = width * channels;
        let mut above = vec![0_u8; len];
        let mut pixels = Vec::new();
        for line in raw.chunks_exact(len + 1) {
            let mut row = line[1..].to_vec();
            for at in 0..len {
                let left = if at < channels { 0 } else { row[at - channels] };
                let corner = if at < channels {
                    0
                } else {
                    above[at - channels]
                };
                let add = match line[0] {
                    0 => 0,
                    1 => left,
                    2 => above[at],
                    3 => u16::midpoint(left.into(), above[at].into()) as u8,
                    _ => nearest(left, above[at], corner),
                };
                row[at] = row[at].wrapping_add(add);
            }
            pixels.extend(
                row.chunks_exact(channels)
                    .map(|pixel| [pixel[0], pixel[1], pixel[2]]),
            );
            above = row;
        }
        Self { width, pixels }
    }

    /// How many pixels are of this colour.
    pub fn count(&self, colour: [u8; 3]) -> usize {
        self.pixels.iter().filter(|&&pixel| pixel == colour).count()
    }
}

/// The predictor of Paeth.
fn nearest(left: u8, above: u8, corner: u8) -> u8 {
    let guess = i16::from(left) + i16::from(above) - i16::from(corner);
    let far = |value: u8| (guess - i16::from(value)).abs();
    match (far(left), far(above), far(corner)) {
        (a, b, c) if a <= b && a <= c => left,
        (_, b, c) if b <= c => above,
        _ => corner,
    }
}
