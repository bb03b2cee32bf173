//! A grid: the trained model that says which list a vector of one field belongs to.
//!
//! Vectors are *prepared* before anything is made of them: of length 1 for cosine, brought
//! near length 1 by one power of two for the others, padded and rotated.  Centroids are
//! int8 with a scale each; what their rounding loses is part of the residuals.

use std::sync::Arc;

use parking_lot::RwLock;
use rhumb_core::{Element, Metric, VectorIndex, VectorType};

use crate::error::ViewError;
use crate::kernels::kernels;

use super::asked::Asked;
use super::bytes::{Reader, Writer};
use super::calibrate::Calibration;
use super::rotate::Rotation;

/// Below this an int8 scan is as fast and exact.
const LEAST_DIM: u32 = 64;

/// One bit per dimension tells too little apart up to this one.
const TWO_BITS_DIM: u32 = 256;

const MOST_DIM: u32 = 8_192;

/// More would cost a search more than they save it.
pub(super) const MOST_LISTS: usize = 8_192;

/// Squared length of a prepared vector beyond which estimates lose their meaning.
const MOST_NORM2: f32 = 1e12;

/// One per field and partition; lists, fresh or sealed, are of one grid.
#[derive(Debug)]
pub struct Grid {
    id: u128,
    ty: VectorType,
    seed: u64,
    scale: f32,
    rotation: Rotation,
    /// `width` per list, prepared.
    centroids: Vec<i8>,
    lists: Vec<ListModel>,
    /// Of each centroid, the sum of its codes.
    sums: Vec<i32>,
    mean_residual: f32,
    calibration: RwLock<Arc<Calibration>>,
    asked: Asked,
}

/// What is known of one list beside its centroid's codes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ListModel {
    /// Of the centroid's codes.
    pub(super) scale: f32,
    pub(super) norm2: f32,
    /// Root mean square length of residuals.
    pub(super) radius: f32,
}

/// What training found.
pub(super) struct Trained {
    /// Prepared, `width` per list.
    pub(super) centroids: Vec<f32>,
    pub(super) radii: Vec<f32>,
    pub(super) mean_residual: f32,
}

const MAGIC: &[u8; 4] = b"RhGr";

impl Grid {
    /// False where a field is only ever scanned: vectors of bits, and short ones.
    pub fn supports(ty: &VectorType) -> bool {
        ty.element != Element::Binary && (LEAST_DIM..=MOST_DIM).contains(&ty.dim)
    }

    pub(super) fn new(id: u128, ty: VectorType, seed: u64, scale: f32, trained: &Trained) -> Self {
        let rotation = Rotation::new(ty.dim as usize, seed);
        let mut centroids = Vec::with_capacity(trained.centroids.len());
        let mut lists = Vec::with_capacity(trained.radii.len());
        for (centroid, &radius) in trained
            .centroids
            .chunks_exact(rotation.width())
            .zip(&trained.radii)
        {
            let start = centroids.len();
            centroids.resize(start + centroid.len(), 0);
            let quantised = (kernels().quantise)(centroid, &mut centroids[start..]);
            let norm = f64::from(quantised.scale) * f64::from(quantised.code_norm2).sqrt();
            lists.push(ListModel {
                scale: quantised.scale,
                norm2: (norm * norm) as f32,
                radius,
            });
        }
        Self {
            id,
            ty,
            seed,
            scale,
            sums: code_sums(&centroids, rotation.width()),
            rotation,
            centroids,
            lists,
            mean_residual: trained.mean_residual,
            calibration: RwLock::new(Arc::new(Calibration::shipped(&ty))),
            asked: Asked::default(),
        }
    }

    pub fn id(&self) -> u128 {
        self.id
    }

    pub fn ty(&self) -> &VectorType {
        &self.ty
    }

    pub fn lists(&self) -> usize {
        self.lists.len()
    }

    /// Mean squared residual of the training sample, to compare with
    /// [`Lists::mean_residual`](super::Lists::mean_residual) of newer rows.
    pub fn mean_residual(&self) -> f32 {
        self.mean_residual
    }

    /// How far searches go for a wanted recall; the shipped one until `calibrate`.
    pub fn calibration(&self) -> Arc<Calibration> {
        self.calibration.read().clone()
    }

    /// From now on searches follow `calibration`.
    pub fn calibrate(&self, calibration: Calibration) {
        *self.calibration.write() = Arc::new(calibration);
    }

    /// So many queries have come that it is time to measure with them.
    pub fn is_measuring_due(&self) -> bool {
        self.asked.is_due()
    }

    pub(crate) fn asked(&self) -> &Asked {
        &self.asked
    }

    pub fn heap_size(&self) -> usize {
        self.rotation.heap_size()
            + self.centroids.capacity()
            + self.lists.capacity() * size_of::<ListModel>()
            + self.sums.capacity() * size_of::<i32>()
    }

    /// Without the calibration, which has a file of its own.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.u128(self.id);
        write_type(&mut writer, &self.ty);
        writer.u64(self.seed);
        writer.f32(self.scale);
        writer.f32(self.mean_residual);
        writer.i8s(&self.centroids);
        writer.f32s(&self.lists.iter().map(|list| list.scale).collect::<Vec<_>>());
        writer.f32s(&self.lists.iter().map(|list| list.norm2).collect::<Vec<_>>());
        writer.f32s(&self.lists.iter().map(|list| list.radius).collect::<Vec<_>>());
        writer.finish()
    }

    /// `Damaged` unless the bytes are a whole grid of this version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ViewError> {
        let mut reader = Reader::new("grid", MAGIC, bytes)?;
        let id = reader.u128()?;
        let ty = read_type(&mut reader)?;
        let seed = reader.u64()?;
        let (scale, mean_residual) = (reader.f32()?, reader.f32()?);
        let centroids = reader.i8s()?;
        let (scales, norms2, radii) = (reader.f32s()?, reader.f32s()?, reader.f32s()?);
        reader.check(Self::supports(&ty) && scale > 0.0)?;
        let rotation = Rotation::new(ty.dim as usize, seed);
        let count = scales.len();
        reader.check((1..=MOST_LISTS).contains(&count) && norms2.len() == count && radii.len() == count)?;
        reader.check(centroids.len() == count * rotation.width())?;
        let positive = |all: &[f32]| all.iter().all(|x| *x >= 0.0);
        reader.check(positive(&scales) && positive(&norms2) && positive(&radii))?;
        reader.finish()?;
        let list = |((&scale, &norm2), &radius)| ListModel { scale, norm2, radius };
        Ok(Self {
            id,
            ty,
            seed,
            scale,
            sums: code_sums(&centroids, rotation.width()),
            rotation,
            centroids,
            lists: scales.iter().zip(&norms2).zip(&radii).map(list).collect(),
            mean_residual,
            calibration: RwLock::new(Arc::new(Calibration::shipped(&ty))),
            asked: Asked::default(),
        })
    }

    /// True for vectors that this grid's lists may hold; how a field is indexed is no part
    /// of its vectors.
    pub(crate) fn is_of(&self, ty: &VectorType) -> bool {
        (self.ty.dim, self.ty.metric, self.ty.element) == (ty.dim, ty.metric, ty.element)
    }

    pub(super) fn width(&self) -> usize {
        self.rotation.width()
    }

    pub(super) fn model(&self) -> &[ListModel] {
        &self.lists
    }

    /// Bits per dimension of codes.
    pub(super) fn planes(&self) -> usize {
        if self.ty.dim <= TWO_BITS_DIM { 2 } else { 1 }
    }

    /// Groups of four bits of a code.
    pub(super) fn groups(&self) -> usize {
        self.width() / 4 * self.planes()
    }

    /// What a score grows by when vectors are prepared.
    pub(super) fn score_scale(&self) -> f32 {
        match self.ty.metric {
            Metric::Cosine => 1.0,
            Metric::L2 | Metric::Dot | Metric::Hamming => self.scale * self.scale,
        }
    }

    /// False when the vector is too large for estimates to mean anything.
    pub(super) fn prepare(&self, vector: &[f32], prepared: &mut [f32]) -> bool {
        prepare(&self.ty, self.scale, &self.rotation, vector, prepared)
    }

    /// The centroid of a list as numbers.
    pub(super) fn centroid(&self, list: usize, out: &mut [f32]) {
        let (codes, scale) = (
            &self.centroids[list * self.width()..][..self.width()],
            self.lists[list].scale,
        );
        for (x, &code) in out.iter_mut().zip(codes) {
            *x = scale * f32::from(code);
        }
    }

    /// All centroids as numbers, `width` each.
    pub(super) fn all_centroids(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.centroids.len()];
        for (list, out) in all.chunks_exact_mut(self.width()).enumerate() {
            self.centroid(list, out);
        }
        all
    }

    /// The products of a prepared query with every centroid, to some 0.1 % of their lengths.
    pub(super) fn products(&self, prepared: &[f32]) -> Vec<f32> {
        let scale = ((kernels().extent)(prepared).largest / QUERY_MAX).max(f32::MIN_POSITIVE);
        let inverse = scale.recip();
        // Moved up to where all codes are positive, and the sums moved back; the large
        // summand leaves no fraction, and the code in the low bits.
        const SHIFT: f32 = (1u32 << 23) as f32 + QUERY_MAX + 1.0;
        let code = |x: &f32| (x * inverse + SHIFT).to_bits() as u8;
        let query: Vec<u8> = prepared.iter().map(code).collect();
        let mut sums = vec![0; self.lists.len()];
        (kernels().dot_all)(&query, &self.centroids, &mut sums);
        let lists = self.lists.iter().zip(&self.sums);
        let product = |(sum, (list, codes)): (&i32, (&ListModel, &i32))| {
            (sum - (QUERY_MAX as i32 + 1) * codes) as f32 * scale * list.scale
        };
        sums.iter().zip(lists).map(product).collect()
    }
}

/// Codes of a query are between this and its negative.
const QUERY_MAX: f32 = 62.0;

fn code_sums(centroids: &[i8], width: usize) -> Vec<i32> {
    let sum = |codes: &[i8]| codes.iter().map(|code| i32::from(*code)).sum();
    centroids.chunks_exact(width).map(sum).collect()
}

pub(super) fn prepare(
    ty: &VectorType,
    scale: f32,
    rotation: &Rotation,
    vector: &[f32],
    prepared: &mut [f32],
) -> bool {
    let factor = match ty.metric {
        Metric::Cosine => {
            let norm = (kernels().dot)(vector, vector).sqrt();
            if norm > 0.0 { norm.recip() } else { 0.0 }
        }
        Metric::L2 | Metric::Dot | Metric::Hamming => f64::from(scale),
    };
    prepared.fill(0.0);
    for (to, &from) in prepared.iter_mut().zip(vector) {
        *to = (f64::from(from) * factor) as f32;
    }
    rotation.apply(prepared);
    (kernels().extent)(prepared).norm2 <= MOST_NORM2
}

pub(crate) fn write_type(writer: &mut Writer, ty: &VectorType) {
    let metric = match ty.metric {
        Metric::Cosine => 0,
        Metric::Dot => 1,
        Metric::L2 => 2,
        Metric::Hamming => 3,
    };
    let element = match ty.element {
        Element::F32 => 0,
        Element::F16 => 1,
        Element::Int8 => 2,
        Element::Binary => 3,
    };
    writer.u32(ty.dim);
    writer.u32(metric);
    writer.u32(element);
}

pub(crate) fn read_type(reader: &mut Reader<'_>) -> Result<VectorType, ViewError> {
    let (dim, metric, element) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let metric = [Metric::Cosine, Metric::Dot, Metric::L2, Metric::Hamming]
        .get(metric as usize)
        .copied();
    let element = [Element::F32, Element::F16, Element::Int8, Element::Binary]
        .get(element as usize)
        .copied();
    let (Some(metric), Some(element)) = (metric, element) else {
        return Err(reader.damaged());
    };
    reader.check((1..=MOST_DIM).contains(&dim))?;
    Ok(VectorType {
        dim,
        metric,
        element,
        index: VectorIndex::Auto,
    })
}
