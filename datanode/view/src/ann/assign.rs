//! The nearest of many centroids for many rows: products by tiles, as a matrix multiply.

use crate::kernels::{TILE_COLUMNS, TILE_ROWS, Tile, kernels};

/// Rows that stay in the second-level cache while all centroids pass by.
const BATCH: usize = 16 * TILE_ROWS;

#[derive(Debug)]
pub(super) struct Assigner {
    width: usize,
    /// `TILE_COLUMNS` centroids interleaved, the last panel padded with zeros.
    panels: Vec<f32>,
    /// ‖c‖²/2; infinite for the padding, which is never the nearest.
    half_norms: Vec<f32>,
}

impl Assigner {
    /// `centroids` has rows of `width`.
    pub(super) fn new(centroids: &[f32], width: usize) -> Self {
        let lists = centroids.len() / width;
        let padded = lists.next_multiple_of(TILE_COLUMNS);
        let mut panels = vec![0.0; padded * width];
        let mut half_norms = vec![f32::INFINITY; padded];
        for (list, centroid) in centroids.chunks_exact(width).enumerate() {
            let panel = &mut panels[list / TILE_COLUMNS * TILE_COLUMNS * width..];
            for (at, &x) in centroid.iter().enumerate() {
                panel[at * TILE_COLUMNS + list % TILE_COLUMNS] = x;
            }
            half_norms[list] = centroid.iter().map(|x| x * x).sum::<f32>() / 2.0;
        }
        Self {
            width,
            panels,
            half_norms,
        }
    }

    /// The nearest centroid of each row of `rows`.
    pub(super) fn assign(&self, rows: &[f32], nearest: &mut [u32]) {
        let width = self.width;
        for (rows, nearest) in rows.chunks(BATCH * width).zip(nearest.chunks_mut(BATCH)) {
            let mut best = [f32::NEG_INFINITY; BATCH];
            nearest.fill(0);
            let panels = self.panels.chunks_exact(TILE_COLUMNS * width);
            let (half_norms, _) = self.half_norms.as_chunks::<TILE_COLUMNS>();
            for (panel, (columns, half_norms)) in (0..).zip(panels.zip(half_norms)) {
                let mut tile: Tile = Default::default();
                let tiles = rows.chunks(TILE_ROWS * width);
                let found = best.chunks_mut(TILE_ROWS).zip(nearest.chunks_mut(TILE_ROWS));
                for (rows, (best, nearest)) in tiles.zip(found) {
                    (kernels().tile)(rows, width, columns, &mut tile);
                    for ((products, best), nearest) in tile.iter().zip(best).zip(nearest) {
                        improve(products, half_norms, panel, best, nearest);
                    }
                }
            }
        }
    }
}

/// The first among equals stays.
#[inline]
fn improve(
    products: &[f32; TILE_COLUMNS],
    half_norms: &[f32; TILE_COLUMNS],
    panel: u32,
    best: &mut f32,
    nearest: &mut u32,
) {
    let mut scores = [0.0; TILE_COLUMNS];
    for ((score, product), half_norm) in scores.iter_mut().zip(products).zip(half_norms) {
        *score = product - half_norm;
    }
    let largest = scores
        .iter()
        .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    if largest > *best {
        *best = largest;
        let column = scores.iter().position(|score| *score == largest).unwrap_or(0);
        *nearest = panel * TILE_COLUMNS as u32 + column as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    #[test]
    fn every_row_goes_to_its_nearest_centroid() {
        for (rows, lists, width) in [(1, 1, 32), (5, 17, 32), (200, 33, 64), (97, 16, 96)] {
            let mut random = Random::new(rows as u64);
            let mut numbers = |n: usize| (0..n).map(|_| random.normal()).collect::<Vec<f32>>();
            let (vectors, centroids) = (numbers(rows * width), numbers(lists * width));
            let mut nearest = vec![u32::MAX; rows];
            Assigner::new(&centroids, width).assign(&vectors, &mut nearest);
            let distance = |row: &[f32], list: usize| {
                let centroid = &centroids[list * width..][..width];
                row.iter()
                    .zip(centroid)
                    .map(|(a, b)| (a - b) * (a - b))
                    .sum::<f32>()
            };
            for (row, found) in vectors.chunks_exact(width).zip(nearest) {
                let least = (0..lists)
                    .map(|list| distance(row, list))
                    .fold(f32::INFINITY, f32::min);
                assert!(distance(row, found as usize) <= least * (1.0 + 1e-4));
            }
        }
    }
}
