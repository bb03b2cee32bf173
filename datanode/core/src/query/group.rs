//! Hits in groups: the k groups with the best hits, each with its best.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::order;
use crate::value::Value;

/// `hits` come best first, each with its value of the grouping field; those without one
/// are in no group.  The first k values make groups, of at most `size` hits each.
pub fn group<T>(
    hits: impl IntoIterator<Item = (Option<Value>, T)>,
    k: usize,
    size: usize,
) -> Vec<(Value, Vec<T>)> {
    let mut groups: Vec<(Value, Vec<T>)> = Vec::new();
    let mut places: BTreeMap<Key, usize> = BTreeMap::new();
    for (value, hit) in hits {
        let Some(value) = value else { continue };
        let key = Key(value);
        match places.get(&key) {
            Some(place) if groups[*place].1.len() < size => groups[*place].1.push(hit),
            Some(_) => {}
            None if groups.len() < k => {
                groups.push((key.0.clone(), vec![hit]));
                places.insert(key, groups.len() - 1);
            }
            None => {}
        }
    }
    groups
}

/// A value in the order of all values.
#[derive(Debug)]
struct Key(Value);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        order::compare(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(hits: &[Option<i64>], k: usize, size: usize) -> Vec<(i64, Vec<usize>)> {
        let hits = hits
            .iter()
            .enumerate()
            .map(|(at, value)| (value.map(Value::Int), at));
        let number = |value: Value| match value {
            Value::Int(n) => n,
            other => panic!("{other:?} was never given"),
        };
        let groups = group(hits, k, size).into_iter();
        groups.map(|(value, hits)| (number(value), hits)).collect()
    }

    #[test]
    fn groups_come_by_their_best_hits_and_hold_no_more_than_asked() {
        let hits = [Some(7), Some(3), Some(7), None, Some(7), Some(9), Some(3)];
        assert_eq!(of(&hits, 2, 2), [(7, vec![0, 2]), (3, vec![1, 6])]);
        assert_eq!(of(&hits, 9, 1), [(7, vec![0]), (3, vec![1]), (9, vec![5])]);
        assert_eq!(of(&hits, 0, 3), []);
        assert_eq!(of(&[None, None], 3, 3), []);
    }

    proptest! {
        #[test]
        fn a_group_is_what_a_search_for_its_value_would_find(
            hits in prop::collection::vec(prop::option::of(0_i64..6), 0..60), k in 0_usize..8, size in 1_usize..5
        ) {
            let groups = of(&hits, k, size);
            let mut values: Vec<i64> = Vec::new();
            for value in hits.iter().flatten() {
                if !values.contains(value) {
                    values.push(*value);
                }
            }
            values.truncate(k);
            prop_assert_eq!(groups.iter().map(|(value, _)| *value).collect::<Vec<_>>(), values);
            for (value, members) in groups {
                let all = hits.iter().enumerate().filter(|(_, v)| **v == Some(value));
                prop_assert_eq!(members, all.map(|(at, _)| at).take(size).collect::<Vec<_>>());
            }
        }
    }
}
