//! [`Impacts`]: whole numbers in the place of weights.

use splade_core::SparseVector;

/// Rounding of weights to whole numbers: weight × scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Impacts {
    scale: f32,
}

/// A weight below 0, which no impact can stand for.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the weight of dimension {dim} is {weight}, and impacts are positive")]
pub struct NegativeWeight {
    /// dimension of the weight
    pub dim: u32,
    /// the weight
    pub weight: f32,
}

impl Impacts {
    /// Largest impact: that of a signed number of 32 bits, in which CIFF keeps it.
    pub const MAX: u32 = i32::MAX as u32;

    /// Impacts of `scale`, which is above 0 and finite: 100 keeps two decimals of each weight. `None` for any other number.
    #[must_use]
    pub fn new(scale: f32) -> Option<Self> {
        (scale > 0.0 && scale.is_finite()).then_some(Self { scale })
    }

    /// The factor.
    #[must_use]
    pub fn scale(self) -> f32 {
        self.scale
    }

    /// Dimensions and impacts of a vector, ascending. Impacts of 0 are left out; those above [`MAX`](Self::MAX) become it.
    ///
    /// ```
    /// use splade_core::SparseVector;
    /// use splade_files::Impacts;
    ///
    /// let vector = SparseVector::from_pairs([(3, 1.234), (7, 0.004)])?;
    /// let impacts = Impacts::new(100.0).unwrap();
    /// assert_eq!(impacts.of(&vector)?, [(3, 123)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A weight below 0.
    pub fn of(self, vector: &SparseVector) -> Result<Vec<(u32, u32)>, NegativeWeight> {
        let mut impacts = Vec::with_capacity(vector.active_dims());
        for (dim, weight) in vector.iter() {
            if weight < 0.0 {
                return Err(NegativeWeight { dim, weight });
            }
            // a float that is too large becomes the largest whole number
            let impact = ((weight * self.scale).round() as u32).min(Self::MAX);
            if impact > 0 {
                impacts.push((dim, impact));
            }
        }
        Ok(impacts)
    }
}
