use proptest::prelude::*;

use super::*;

fn padded<T: Copy + Default>(mut values: Vec<T>) -> Vec<T> {
    values.resize(values.len().next_multiple_of(CODE_BLOCK), T::default());
    values
}

/// `rows` rows of `width` values each, from a seed, extremes included.
fn spread<T>(seed: u64, len: usize, make: impl Fn(u64) -> T) -> Vec<T> {
    let mix = |i: u64| {
        (seed ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .wrapping_mul(0xbf58_476d_1ce4_e5b9)
            .rotate_left(29)
    };
    (0..len as u64).map(|i| make(mix(i))).collect()
}

proptest! {
    #[test]
    fn integer_kernels_equal_the_plain_ones(seed in any::<u64>(), dim in 1usize..300, rows in 1usize..20) {
        let query = padded(spread(seed, dim, |r| (r % 4095) as i16 - 2047));
        let codes = spread(!seed, rows * query.len(), |r| (r >> 7) as i8);
        let order: Vec<u32> = (0..rows as u32).rev().collect();
        let (mut expected, mut found) = (vec![0; rows], vec![0; rows]);
        (lanes::KERNELS.dot_rows)(&query, &codes, &order, &mut expected);
        let direct = |row: usize| query.iter().zip(&codes[row * query.len()..]).map(|(&q, &c)| i64::from(q) * i64::from(c)).sum::<i64>();
        prop_assert!(order.iter().zip(&expected).all(|(&row, &sum)| direct(row as usize) == i64::from(sum)));
        for kernels in available() {
            (kernels.dot_rows)(&query, &codes, &order, &mut found);
            prop_assert_eq!(&found, &expected, "{}", kernels.name);
        }
        let query = spread(seed, dim, |r| r);
        let codes = spread(!seed, rows * dim, |r| r);
        let (mut expected, mut found) = (vec![0; rows], vec![0; rows]);
        (lanes::KERNELS.hamming_rows)(&query, &codes, &order, &mut expected);
        for kernels in available() {
            (kernels.hamming_rows)(&query, &codes, &order, &mut found);
            prop_assert_eq!(&found, &expected, "{}", kernels.name);
        }
    }

    #[test]
    fn float_kernels_give_the_same_bits_as_the_plain_ones(
        a in proptest::collection::vec(proptest::num::f32::NORMAL | proptest::num::f32::SUBNORMAL | proptest::num::f32::ZERO, 0..200),
        seed in any::<u64>(),
    ) {
        let b: Vec<f32> = spread(seed, a.len(), |r| f32::from_bits(r as u32)).into_iter().map(|x| if x.is_finite() { x } else { 1.5 }).collect();
        let ints: Vec<i8> = spread(seed, a.len(), |r| r as i8);
        let plain = lanes::KERNELS;
        let mut codes = vec![0; a.len()];
        let expected = (plain.quantise)(&a, &mut codes);
        for kernels in available() {
            prop_assert_eq!((kernels.dot)(&a, &b).to_bits(), (plain.dot)(&a, &b).to_bits());
            prop_assert_eq!((kernels.square_distance)(&a, &b).to_bits(), (plain.square_distance)(&a, &b).to_bits());
            prop_assert_eq!((kernels.dot_i8)(&a, &ints).to_bits(), (plain.dot_i8)(&a, &ints).to_bits());
            prop_assert_eq!((kernels.square_distance_i8)(&a, &ints).to_bits(), (plain.square_distance_i8)(&a, &ints).to_bits());
            let mut found = vec![0; a.len()];
            prop_assert_eq!((kernels.quantise)(&a, &mut found), expected);
            prop_assert_eq!(&found, &codes);
        }
    }
}

proptest! {
    #[test]
    fn search_kernels_equal_the_plain_ones(seed in any::<u64>(), fours in 1usize..40, blocks in 1usize..5) {
        let plain = lanes::KERNELS;
        let number = |r: u64| (r >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        let query = spread(seed, 16 * fours, number);
        let inverse_step = TABLE_MAX / 8.0;
        let mut tables = vec![0; query.len() / 4 * GROUP_BYTES];
        (plain.fill_tables)(&query, inverse_step, &mut tables);
        let bits = spread(!seed, blocks * tables.len(), |r| (r >> 20) as u8);
        let (add, mul) = (spread(seed ^ 1, blocks * BLOCK_ROWS, number), spread(seed ^ 2, blocks * BLOCK_ROWS, number));
        let scan = BlockScan { tables: &tables, bits: &bits, add: &add, mul: &mul, step: 0.1, shift: -1.0, bar: 0.5 };
        let mut expected = vec![0; blocks];
        (plain.scan_blocks)(&scan, &mut expected);
        for kernels in available() {
            let mut found = vec![0xff; tables.len()];
            (kernels.fill_tables)(&query, inverse_step, &mut found);
            prop_assert_eq!(&found, &tables, "{}", kernels.name);
            let mut found = vec![7; blocks];
            (kernels.scan_blocks)(&scan, &mut found);
            prop_assert_eq!(&found, &expected, "{}", kernels.name);
        }
        let (sevens, codes) = (spread(seed, 32 * fours, |r| (r % 128) as u8), spread(!seed, 96 * fours, |r| (r % 255) as u8 as i8));
        let codes: Vec<i8> = codes.into_iter().map(|code| code.max(-127)).collect();
        let mut expected = vec![0; 3];
        (plain.dot_all)(&sevens, &codes, &mut expected);
        for kernels in available() {
            let mut found = vec![1; 3];
            (kernels.dot_all)(&sevens, &codes, &mut found);
            prop_assert_eq!(&found, &expected, "{}", kernels.name);
        }
    }

    #[test]
    fn transforms_and_tiles_equal_the_plain_ones(seed in any::<u64>(), log2 in 0u32..11, rows in 1usize..=TILE_ROWS) {
        let plain = lanes::KERNELS;
        let number = |r: u64| (r >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        let values = spread(seed, 1 << log2, number);
        let mut expected = values.clone();
        (plain.hadamard)(&mut expected);
        let sums: f32 = values.iter().map(|x| x * x).sum::<f32>() * values.len() as f32;
        let length: f32 = expected.iter().map(|x| x * x).sum();
        prop_assert!((sums - length).abs() <= sums * 1e-4, "every row is a signed sum");
        let width = values.len();
        let (left, panel) = (spread(!seed, rows * width, number), spread(seed ^ 3, width * TILE_COLUMNS, number));
        let mut tile = Tile::default();
        (plain.tile)(&left, width, &panel, &mut tile);
        for kernels in available() {
            let mut found = values.clone();
            (kernels.hadamard)(&mut found);
            prop_assert_eq!(&found, &expected, "{}", kernels.name);
            let mut found = Tile::default();
            (kernels.tile)(&left, width, &panel, &mut found);
            for (found, expected) in found.iter().flatten().zip(tile.iter().flatten()) {
                prop_assert!((found - expected).abs() <= 1e-5 * width as f32, "{}", kernels.name);
            }
        }
    }
}

#[test]
fn the_largest_codes_of_the_widest_vector_do_not_overflow() {
    let query = vec![2047i16; 8192];
    let codes = vec![-128i8; 8192];
    for kernels in available() {
        let mut out = [0];
        (kernels.dot_rows)(&query, &codes, &[0], &mut out);
        assert_eq!(i64::from(out[0]), -2047 * 128 * 8192, "{}", kernels.name);
    }
}

#[test]
fn a_float_sum_is_within_its_promise_of_the_true_one() {
    let a: Vec<f32> = (0..8192)
        .map(|i| ((i * 7919) % 1000) as f32 / 997.0 - 0.5)
        .collect();
    let exact: i128 = a
        .iter()
        .map(|&x| {
            let x = (f64::from(x) * 2f64.powi(30)) as i128;
            x * x
        })
        .sum();
    let truth = exact as f64 / 2f64.powi(60);
    assert!(((lanes::KERNELS.dot)(&a, &a) - truth).abs() <= truth * 1e-12);
}
