//! Numbers in as few bytes as hold them, and the scan that every fast filter ends in.

use crate::bits::Bits;

#[derive(Debug)]
pub(super) enum Narrow {
    Byte(Vec<u8>),
    Short(Vec<u16>),
    Word(Vec<u32>),
    Long(Vec<u64>),
}

/// Codes from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Run {
    pub(super) fn holds(self, code: u64) -> bool {
        self.first <= code && code <= self.last
    }
}

/// Up to so many runs are compared one after the other, with more a table is asked.
const FEW: usize = 4;

impl Narrow {
    /// Bytes that a number up to `largest` takes here.
    pub(super) fn width(largest: u64) -> usize {
        match largest {
            0..=0xff => 1,
            0x100..=0xffff => 2,
            0x1_0000..=0xffff_ffff => 4,
            _ => 8,
        }
    }

    pub(super) fn of(codes: impl Iterator<Item = u64>, largest: u64) -> Self {
        match Self::width(largest) {
            1 => Self::Byte(exactly(codes.map(|code| code as u8))),
            2 => Self::Short(exactly(codes.map(|code| code as u16))),
            4 => Self::Word(exactly(codes.map(|code| code as u32))),
            _ => Self::Long(exactly(codes)),
        }
    }

    pub(super) fn get(&self, at: usize) -> u64 {
        match self {
            Self::Byte(codes) => u64::from(codes[at]),
            Self::Short(codes) => u64::from(codes[at]),
            Self::Word(codes) => u64::from(codes[at]),
            Self::Long(codes) => codes[at],
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Byte(codes) => codes.len(),
            Self::Short(codes) => codes.len(),
            Self::Word(codes) => codes.len(),
            Self::Long(codes) => codes.len(),
        }
    }

    /// True when a scan reads so much that buckets of one byte pay.
    pub(super) fn is_wide(&self) -> bool {
        matches!(self, Self::Word(_) | Self::Long(_))
    }

    pub(super) fn heap_size(&self) -> usize {
        match self {
            Self::Byte(codes) => codes.capacity(),
            Self::Short(codes) => codes.capacity() * size_of::<u16>(),
            Self::Word(codes) => codes.capacity() * size_of::<u32>(),
            Self::Long(codes) => codes.capacity() * size_of::<u64>(),
        }
    }

    /// Rows whose code lies in one of the runs, which are ascending and apart.
    pub(super) fn within(&self, runs: &[Run]) -> Bits {
        let mut rows = Bits::none(self.len());
        match self {
            Self::Byte(codes) if runs.len() > FEW => {
                let table: [bool; 1 << u8::BITS] =
                    std::array::from_fn(|code| runs.iter().any(|run| run.holds(code as u64)));
                rows.add_where(codes, |code| table[usize::from(code)]);
            }
            Self::Short(codes) if runs.len() > FEW => {
                let table = Table::of(runs);
                rows.add_where(codes, |code| table.holds(code));
            }
            Self::Byte(codes) => few(&mut rows, codes, runs),
            Self::Short(codes) => few(&mut rows, codes, runs),
            Self::Word(codes) if runs.len() <= FEW => few(&mut rows, codes, runs),
            Self::Long(codes) if runs.len() <= FEW => few(&mut rows, codes, runs),
            Self::Word(codes) => rows.add_where(codes, |code| among(runs, u64::from(code))),
            Self::Long(codes) => rows.add_where(codes, |code| among(runs, code)),
        }
        rows
    }
}

pub(super) fn among(runs: &[Run], code: u64) -> bool {
    let next = runs.partition_point(|run| run.last < code);
    runs.get(next).is_some_and(|run| run.first <= code)
}

fn few<T: Copy + Ord + TryFrom<u64>>(rows: &mut Bits, codes: &[T], runs: &[Run]) {
    for run in runs {
        // What no code can be needs no comparison on that side.
        let Ok(first) = T::try_from(run.first) else {
            continue;
        };
        match T::try_from(run.last) {
            Ok(last) if first == last => rows.add_where(codes, |code| code == first),
            Ok(last) => rows.add_where(codes, |code| (first <= code) & (code <= last)),
            Err(_) => rows.add_where(codes, |code| first <= code),
        }
    }
}

/// Which of the 16-bit codes are wanted: 8 KiB, so that it stays in the first cache.
struct Table(Box<[u64; 1 << 10]>);

impl Table {
    fn of(runs: &[Run]) -> Self {
        let mut table = Box::new([0; 1 << 10]);
        let largest = u64::from(u16::MAX);
        for run in runs.iter().filter(|run| run.first <= largest) {
            (run.first..=run.last.min(largest))
                .for_each(|code| table[code as usize / 64] |= 1 << (code % 64));
        }
        Self(table)
    }

    fn holds(&self, code: u16) -> bool {
        self.0[usize::from(code) / 64] >> (code % 64) & 1 == 1
    }
}

fn exactly<T>(codes: impl Iterator<Item = T>) -> Vec<T> {
    let mut codes: Vec<T> = codes.collect();
    codes.shrink_to_fit();
    codes
}
