//! Order statistics. Means are no use on a machine that other programs use too.

/// Smallest, middle and largest of some measurements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// All NaN when there are no values.
    pub(crate) fn of(values: &[f64]) -> Self {
        Self { min: quantile(values, 0.0), median: quantile(values, 0.5), max: quantile(values, 1.0) }
    }
}

/// The value that a share `q` (0 to 1) of the values does not exceed, linearly between neighbours; NaN for no values.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

/// Two things measured in turn, the same number of times. Higher is better.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pairs {
    pub(crate) ours: Vec<f64>,
    pub(crate) theirs: Vec<f64>,
}

impl Pairs {
    /// Ours ÷ theirs of each pair: what slowed the machine down for a while slowed both down.
    pub(crate) fn ratio(&self) -> Spread {
        let ratios: Vec<f64> = self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs).collect();
        Spread::of(&ratios)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_do_not_depend_on_the_order() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(Spread::of(&values), Spread { min: 1.0, median: 2.5, max: 4.0 });
        assert_eq!(quantile(&values, 0.25), 1.75);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn ratios_are_taken_within_pairs() {
        let pairs = Pairs { ours: vec![10.0, 1.0, 100.0], theirs: vec![10.0, 2.0, 50.0] };
        assert_eq!(pairs.ratio(), Spread { min: 0.5, median: 1.0, max: 2.0 });
    }
}
