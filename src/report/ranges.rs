//! Sets of bytes: what several processes map counts once.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of byte offsets, kept as ranges that neither touch nor overlap.
///
/// ```
/// let mut set = xip_run::report::Ranges::default();
/// set.insert(0x1000..0x3000);
/// set.insert(0x2000..0x4000);
/// assert_eq!(set.len_bytes(), 0x3000);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range; an empty one adds nothing.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        // What it overlaps or touches becomes one with it.
        while let Some((&before, &before_end)) = self.0.range(..=end).next_back()
            && before_end >= start
        {
            self.0.remove(&before);
            start = start.min(before);
            end = end.max(before_end);
        }
        self.0.insert(start, end);
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Self) {
        for (&start, &end) in &other.0 {
            self.insert(start..end);
        }
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(&start, &end)| start..end)
    }

    /// How many bytes are in it.
    pub fn len_bytes(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::Ranges;

    #[test]
    fn every_byte_counts_once() {
        // A fixed sequence of overlapping ranges, against one flag for each byte.
        let mut flags = [false; 512];
        let mut set = Ranges::default();
        let mut state = 7_u64;
        for _ in 0..200 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let start = (state >> 33) % 500;
            let end = start + (state >> 50) % 12;
            set.insert(start..end);
            flags[start as usize..end as usize].fill(true);
            let expected = flags.iter().filter(|&&flag| flag).count() as u64;
            assert_eq!(set.len_bytes(), expected);
            // No two ranges touch.
            let ranges: Vec<_> = set.0.iter().collect();
            assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
        let mut all = Ranges::default();
        all.insert(100..110);
        all.extend(&set);
        assert_eq!(all.len_bytes(), {
            flags[100..110].fill(true);
            flags.iter().filter(|&&flag| flag).count() as u64
        });
    }
}
