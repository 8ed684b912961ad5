//! What a series of samples comes to.

use serde::Serialize;

/// Least, middle and greatest of a series.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// The least sample.
    pub min: f64,
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The greatest sample.
    pub max: f64,
}

impl Summary {
    /// Of a series; `None` when it is empty.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { min, median, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_odd_and_even_series() {
        let check = |samples: &[f64], min, median, max| {
            assert_eq!(Summary::of(samples), Some(Summary { min, median, max }), "{samples:?}");
        };
        check(&[3.0], 3.0, 3.0, 3.0);
        check(&[9.0, 1.0, 2.0], 1.0, 2.0, 9.0);
        check(&[4.0, 1.0, 2.0, 8.0], 1.0, 3.0, 8.0);
        assert_eq!(Summary::of(&[]), None);
    }
}
