//! Which models may compute: only as many as have all their weights in memory.
//!
//! Clean pages of weights cost no swap when they are dropped, but a processor that computes reads all of them for every
//! token. When they no longer fit beside what others hold, the system reads them again and again and makes room by writing
//! cold pages of other programs to swap. So a model whose weights do not fit stops between two tokens: its pages are no
//! longer hot, the system drops what it needs, and nothing is written. It goes on when they fit again.
//!
//! Only where the processor computes: what a GPU wires is not available and is not dropped.

use super::{Governor, action::Level};
use crate::{bytes::Bytes, ledger::Kind};

/// A decision of now shows in so long, ms: the next reading, and a step that has to end.
const TAKES_EFFECT_MS: u64 = 1_000;
/// Weights that fit without any margin let a model go on after so many times the usual calm: it may be all the room that
/// there will be, and whoever waits for the answer would rather have it.
const WITHOUT_MARGIN: u64 = 2;
/// Swap that is written while models compute with so little to spare is written because of them, bytes per second.
const SWAPS: u64 = 1 << 20;

impl Governor {
    /// Holds models back whose weights do not fit, those first that nobody waits for, and lets them go on when they fit with
    /// a margin and have done so for a while.
    pub(super) fn hold_back(&mut self) {
        let Some(sample) = self.sample.as_ref().filter(|_| !self.config.wires_weights) else { return };
        let least = self.config.critical_below;
        let taken = [least, self.gauge.falling(TAKES_EFFECT_MS), self.unseen()].into_iter().sum();
        let room = sample.available.saturating_sub(taken);
        let margin = self.config.calm_above(Level::Critical).saturating_sub(least);
        let swaps = self.gauge.swaps(SWAPS)
            && sample.available < self.busy_weights().saturating_add(self.config.elevated_below);
        let mut order: Vec<_> = self
            .models
            .iter()
            .filter(|(_, model)| model.activity.is_busy())
            .map(|(digest, model)| (model.activity.interactive == 0, model.held_since.is_some(), digest.clone()))
            .collect();
        order.sort();
        let (now, calm_ms) = (self.now, self.config.calm_ms);
        let (mut needed, mut said) = (Bytes::ZERO, Vec::new());
        for (_, held, digest) in order {
            let Some(model) = self.models.get_mut(&digest) else { continue };
            let with_it = needed.saturating_add(model.held(&self.ledger, Kind::is_file_backed));
            let fits = with_it <= room && !swaps;
            let goes_on = match (held, fits) {
                (false, fits) => fits,
                (true, false) => {
                    model.fits_since = None;
                    false
                }
                (true, true) => {
                    let calm_ms =
                        if with_it.saturating_add(margin) > room { WITHOUT_MARGIN * calm_ms } else { calm_ms };
                    now.saturating_sub(*model.fits_since.get_or_insert(now)) >= calm_ms
                }
            };
            if goes_on {
                needed = with_it;
            }
            if held == goes_on {
                (model.held_since, model.fits_since) = ((!goes_on).then_some(now), None);
                said.push((model.name.clone(), goes_on, with_it));
            }
        }
        for (name, goes_on, with_it) in said {
            let what = if goes_on { format!("{name} computes again") } else { format!("{name} pauses") };
            self.decide(
                what,
                format!("weights that are read for each token take {with_it}, {room} can stay in memory"),
            );
        }
    }

    /// Weights of models that compute.
    fn busy_weights(&self) -> Bytes {
        let busy = |model: &&super::Model| model.activity.is_busy() && model.held_since.is_none();
        self.models.values().filter(busy).map(|model| model.held(&self.ledger, Kind::is_file_backed)).sum()
    }
}
