//! Vectors, their encodings, and the arithmetic that answers are compared with.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::Rng;
use rand::rngs::StdRng;

/// Coordinates with few digits: they survive the trip through decimal text exactly.
pub fn vector(rng: &mut StdRng, dim: usize) -> Vec<f32> {
    (0..dim)
        .map(|_| rng.random_range(-1000..=1000) as f32 / 1024.0)
        .collect()
}

/// `"b64:…"` of little-endian f32, the wire form of a vector or of many.
pub fn b64(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    b64_bytes(&bytes)
}

pub fn b64_bytes(bytes: &[u8]) -> String {
    format!("b64:{}", STANDARD.encode(bytes))
}

pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

/// A zero vector's cosine is 0.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms == 0.0 { 0.0 } else { dot(a, b) / norms }
}

pub fn minus_l2(a: &[f32], b: &[f32]) -> f64 {
    -a.iter()
        .zip(b)
        .map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2))
        .sum::<f64>()
}

/// The value that a share of them does not exceed, the median at 0.5; 0 of nothing.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 - 1.0) * share).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}
