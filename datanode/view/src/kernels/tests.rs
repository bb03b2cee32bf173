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
