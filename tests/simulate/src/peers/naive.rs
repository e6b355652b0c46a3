//! Our host without its governor: loads whatever is asked for and keeps it until nobody used it for five minutes.

use super::{grant, idle};
use crate::{
    host::Host,
    policy::{Cause, Command, Happened, Policy, Rules},
};

const IDLE_MS: u64 = 300_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Naive;

impl Policy for Naive {
    fn rules(&self) -> Rules {
        Rules { slots: 4, prompt_cache: 0, spills: false, by_class: false, process_per_model: false, owns_apps: true }
    }

    fn handle(&mut self, host: &Host<'_>, happened: &Happened) -> Vec<Command> {
        match *happened {
            Happened::Arrived(request) => {
                vec![Command::Load(host.request(request).model), Command::Queue(request)]
            }
            // What came while it was going has to bring it back.
            Happened::Unloaded(model, _) if !host.models[model].queue.is_empty() => vec![Command::Load(model)],
            Happened::Sampled(_) => {
                let old = |&model: &usize| host.now - host.models[model].last_used >= IDLE_MS;
                idle(host).into_iter().filter(old).map(|model| Command::Unload(model, Cause::Idle)).collect()
            }
            _ => grant(happened),
        }
    }
}
