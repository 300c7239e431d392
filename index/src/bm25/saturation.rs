//! [`Saturation`]: the part of BM25 that depends on one document.

use tantivy::fieldnorm::FieldNormReader;

use super::Bm25Options;

/// tf / (tf + k1 · (1 − b + b · |d| / avgdl)) for the 256 lengths |d| that an index distinguishes.
#[derive(Debug, Clone)]
pub(super) struct Saturation {
    /// k1 · (1 − b + b · |d| / avgdl), by the number of the length
    norms: [f32; 256],
}

impl Saturation {
    /// Saturation in a collection of this mean length.
    pub(super) fn new(options: Bm25Options, mean_length: f32) -> Self {
        let (k1, b) = (options.k1(), options.b());
        let mut norms = [0.0; 256];
        for (number, norm) in (0..=u8::MAX).zip(&mut norms) {
            let length = FieldNormReader::id_to_fieldnorm(number) as f32;
            *norm = k1 * (1.0 - b + b * length / mean_length);
        }
        Self { norms }
    }

    /// Saturation of a word of frequency `tf` in a document of the length with this number.
    pub(super) fn of(&self, tf: u32, length: u8) -> f32 {
        let tf = tf as f32;
        tf / (tf + self.norms[length as usize])
    }
}
