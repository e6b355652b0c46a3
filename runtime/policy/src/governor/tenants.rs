//! The leases of apps: what each may hold, what it is asked to give back, and what happens when it does not.
//!
//! Level-triggered: a newer epoch voids the older ones. Lowering a limit and asking for bytes are two things. Background
//! before foreground, never below the floor except at `critical`. An answer is advice: at the deadline what was freed is
//! measured, and an app that pledged and did not deliver may use less of what lies above its floor from then on.
//!
//! A guest's memory and the KV of its conversations are its own doing and are bounded by the lease; its share of the weights
//! is not, since an author cannot know which model a role resolves to. It is counted when the person is told.

use super::{
    Governor,
    action::{Action, Consequence, Level, Recovery, Tightening},
    event::{Answer, AppStart, Class, TicketId},
};
use crate::{
    bytes::Bytes,
    lease::Lease,
    ledger::{AppId, Kind, Owner, ReservationId},
};

/// Full trust, in thousandths.
const TRUSTED: u32 = 1000;
/// An app is never trusted less than this: an eighth of what lies above its floor.
const LEAST_TRUST: u32 = 125;
/// Answers to one epoch that are heard. More are noise, and noise must not cost anything.
const ANSWERS_HEARD: u32 = 8;

/// An app that runs.
#[derive(Debug, Clone)]
pub(super) struct App {
    pub(super) lease: Lease,
    pub(super) class: Class,
    pub(super) visible: bool,
    /// Guest memory.
    pub(super) guest: Bytes,
    guest_id: Option<ReservationId>,
    /// KV of its conversations.
    pub(super) kv: Bytes,
    pub(super) reclaimable: Bytes,
    pub(super) epoch: u32,
    open: Option<Open>,
    /// Share of what lies above the floor that it may use, in thousandths.
    pub(super) trust: u32,
    pub(super) suspended: bool,
    /// The person was told that it exceeds what it declared.
    told: bool,
    restored_at: u64,
    /// How far the limit was cut in this episode.
    cut: Bytes,
    /// Runs that share this lease.
    runs: u32,
}

/// An epoch that asks for bytes and whose deadline has not passed.
#[derive(Debug, Clone)]
struct Open {
    release: Bytes,
    held_before: Bytes,
    deadline: u64,
    pledged: Bytes,
    answers: u32,
    deferred: bool,
    on_deadline: Consequence,
}

impl App {
    /// What it holds by its own doing.
    pub(super) const fn own(&self) -> Bytes {
        self.guest.saturating_add(self.kv)
    }
    /// What it may hold at most with the trust it has.
    fn burst(&self) -> Bytes {
        let above = self.lease.ceiling().saturating_sub(self.lease.floor());
        self.lease.floor().saturating_add(above.fraction(u64::from(self.trust), u64::from(TRUSTED)))
    }
}

impl Governor {
    pub(super) fn start_app(&mut self, start: AppStart, out: &mut Vec<Action>) {
        let AppStart { ticket, app: id, floor, ceiling, class, visible } = start;
        if let Some(app) = self.apps.get_mut(&id) {
            app.runs += 1;
            app.visible |= visible;
            out.push(Action::Admit { ticket });
            return;
        }
        let Ok(lease) = Lease::new(floor.min(ceiling), ceiling) else { return };
        let (room, bound) = self.room(None);
        if lease.floor() > room {
            let short = lease.floor().saturating_sub(room);
            let refusal = super::Refusal {
                what: format!("app {id}"),
                needs: lease.floor(),
                room,
                bound: bound.to_owned(),
                biggest: None,
                recovery: Recovery::Free { bytes: short },
            };
            self.decide(format!("refused app {id}"), refusal.to_string());
            out.push(Action::Refuse { ticket, refusal });
            return;
        }
        self.fair.arrive(&id, self.apps.keys());
        self.decide(format!("app {id} starts"), format!("{} guaranteed, {ceiling} at most", lease.floor()));
        self.apps.insert(
            id,
            App {
                lease,
                class,
                visible,
                guest: Bytes::ZERO,
                guest_id: None,
                kv: Bytes::ZERO,
                reclaimable: Bytes::ZERO,
                epoch: 0,
                open: None,
                trust: TRUSTED,
                suspended: false,
                told: false,
                restored_at: self.now,
                cut: Bytes::ZERO,
                runs: 1,
            },
        );
        out.push(Action::Admit { ticket });
    }

    pub(super) fn stop_app(&mut self, id: &AppId) {
        let Some(app) = self.apps.get_mut(id) else { return };
        app.runs = app.runs.saturating_sub(1);
        if app.runs > 0 {
            return;
        }
        self.apps.remove(id);
        self.ledger.release_owner(&Owner::App(id.clone()));
        for digest in self.models.keys().cloned().collect::<Vec<_>>() {
            self.ledger.detach(&digest, id);
        }
    }

    /// Guest memory grows or shrinks. Growth within the floor is only bounded by the ledger; beyond it by the lease and by
    /// what is free.
    pub(super) fn guest(&mut self, ticket: TicketId, id: &AppId, bytes: Bytes, out: &mut Vec<Action>) {
        let (room, bound) = self.room(Some(id));
        let critical = self.gauge.level == Level::Critical;
        let Some(app) = self.apps.get_mut(id) else { return };
        let grown = bytes.saturating_sub(app.guest);
        let own = app.kv.saturating_add(bytes);
        let limit = app.lease.limit().min(app.burst());
        let beyond_floor = own > app.lease.floor();
        let available = if grown.is_zero() {
            None
        } else if own > limit {
            Some((limit.saturating_sub(app.own()), format!("its lease is {limit}")))
        } else if beyond_floor && critical {
            Some((app.lease.floor().saturating_sub(app.own()), "memory is critical".to_owned()))
        } else if beyond_floor && grown > room {
            Some((room, bound.to_owned()))
        } else {
            None
        };
        let entered = match (available, app.guest_id) {
            (Some(refused), _) => Err(refused),
            (None, Some(entry)) => self.ledger.resize(entry, bytes).map_err(|error| (room, error.to_string())),
            (None, None) => match self.ledger.reserve(Owner::App(id.clone()), Kind::GuestMemory, bytes) {
                Ok(entry) => {
                    // Allocated when this returns.
                    let _ = self.ledger.commit(entry, bytes);
                    app.guest_id = Some(entry);
                    Ok(())
                }
                Err(error) => Err((room, error.to_string())),
            },
        };
        match entered {
            Ok(()) => {
                app.guest = bytes;
                out.push(Action::Admit { ticket });
            }
            Err((room, bound)) => {
                let short = grown.saturating_sub(room);
                let after_ms = u32::try_from(self.config.restore_ms).unwrap_or(u32::MAX);
                let recovery = if critical { Recovery::Retry { after_ms } } else { Recovery::Free { bytes: short } };
                let what = format!("memory of app {id}");
                let refusal = super::Refusal { what, needs: grown, room, bound, biggest: None, recovery };
                self.decide(format!("refused {} to app {id}", grown), refusal.to_string());
                out.push(Action::Refuse { ticket, refusal });
            }
        }
        self.tell_of_excess(id, out);
    }

    /// The person hears once when an app, its share of the models included, holds more than it declared.
    fn tell_of_excess(&mut self, id: &AppId, out: &mut Vec<Action>) {
        let charge = self.ledger.charge(id);
        let Some(app) = self.apps.get_mut(id) else { return };
        let ceiling = app.lease.ceiling();
        if app.told || charge <= ceiling {
            return;
        }
        app.told = true;
        let message = format!(
            "app {id} holds {charge} with its share of the models, and declared {ceiling} (requires.memoryGB in its manifest)"
        );
        self.decide(format!("told the person about app {id}"), message.clone());
        out.push(Action::Tell { message });
    }

    /// The level changed: limits go down with it. Nobody may grow from `elevated` on; bytes are asked for by the ladder.
    pub(super) fn cut_leases(&mut self, before: Level, out: &mut Vec<Action>) {
        let level = self.gauge.level;
        if level < before {
            if level <= Level::Elevated {
                self.resume(out);
            }
            return;
        }
        for (id, _) in self.in_order_of_asking() {
            let Some(app) = self.apps.get(&id) else { continue };
            let limit = app.own().max(app.lease.floor()).min(app.lease.limit());
            self.epoch(&id, limit, Bytes::ZERO, "the machine runs short of memory", out);
        }
    }

    fn resume(&mut self, out: &mut Vec<Action>) {
        for (id, app) in &mut self.apps {
            if app.suspended {
                app.suspended = false;
                out.push(Action::Resume { app: id.clone() });
            }
        }
    }

    /// Background before foreground, hidden before visible, then whoever holds most above the floor.
    fn in_order_of_asking(&self) -> Vec<(AppId, Bytes)> {
        let mut order: Vec<_> = self
            .apps
            .iter()
            .map(|(id, app)| (id.clone(), app.class, app.visible, app.own().saturating_sub(app.lease.floor())))
            .collect();
        order.sort_by(|a, b| (b.1, a.2, b.3, &a.0).cmp(&(a.1, b.2, a.3, &b.0)));
        order.into_iter().map(|(id, _, _, above)| (id, above)).collect()
    }

    /// Asks apps for `wanted` bytes that the host itself cannot give back.
    pub(super) fn ask_apps(&mut self, wanted: Bytes, out: &mut Vec<Action>) {
        let critical = self.gauge.level == Level::Critical;
        let mut rest = wanted;
        for (id, above) in self.in_order_of_asking() {
            if rest.is_zero() {
                break;
            }
            let Some(app) = self.apps.get(&id) else { continue };
            // One demand at a time, unless it has become urgent.
            let urgent = app.open.as_ref().is_some_and(|open| critical && open.on_deadline != Consequence::Stop);
            if app.open.is_some() && !urgent {
                continue;
            }
            let most = if critical { app.own() } else { above };
            let release = most.min(rest);
            if release < Bytes::mib(1) {
                continue;
            }
            let limit = app.own().saturating_sub(release);
            rest = rest.saturating_sub(release);
            self.epoch(&id, limit, release, "the machine runs short of memory", out);
        }
    }

    fn epoch(&mut self, id: &AppId, limit: Bytes, release: Bytes, cause: &str, out: &mut Vec<Action>) {
        let level = self.gauge.level;
        let deadline_ms = self.config.deadline_ms(level);
        let now = self.now;
        let usage = self.ledger.charge(id).saturating_add(self.apps.get(id).map_or(Bytes::ZERO, |app| app.kv));
        let Some(app) = self.apps.get_mut(id) else { return };
        let before = app.lease.limit();
        let limit = app.lease.set_limit(limit);
        app.cut = app.cut.saturating_add(before.saturating_sub(limit));
        app.epoch += 1;
        app.restored_at = now;
        let on_deadline = match (release.is_zero(), level, app.class, app.visible) {
            (true, ..) | (_, Level::Normal | Level::Elevated, ..) => Consequence::Nothing,
            (_, Level::Critical, Class::Background, _) | (_, Level::Critical, _, false) => Consequence::Stop,
            (_, Level::Tight, Class::Background, _) => Consequence::Suspend,
            (_, Level::Tight | Level::Critical, ..) => Consequence::DropCaches,
        };
        // A lower limit voids no demand for bytes: only a new demand does.
        if !release.is_zero() {
            app.open = Some(Open {
                release,
                held_before: app.own(),
                deadline: now.saturating_add(u64::from(deadline_ms)),
                pledged: Bytes::ZERO,
                answers: 0,
                deferred: false,
                on_deadline,
            });
        }
        let tightening = Tightening {
            epoch: app.epoch,
            origin_ms: now,
            level,
            cause: cause.to_owned(),
            limit,
            usage,
            release,
            deadline_ms,
            visible: app.visible,
            on_deadline,
        };
        out.push(Action::Tighten { app: id.clone(), tightening });
        if !release.is_zero() {
            self.decide(format!("asked app {id} for {release}"), format!("{deadline_ms} ms, then {on_deadline:?}"));
        }
    }

    /// Only answers to the newest epoch count, and only so many of them.
    pub(super) fn answer(&mut self, id: &AppId, epoch: u32, answer: Answer) {
        let Some(app) = self.apps.get_mut(id) else { return };
        if epoch != app.epoch {
            return;
        }
        let Some(open) = &mut app.open else { return };
        open.answers += 1;
        if open.answers > ANSWERS_HEARD {
            return;
        }
        match answer {
            Answer::Pledge { release, .. } => open.pledged = release,
            // Once, and at most as long again as it had.
            Answer::Defer(ms) if !open.deferred => {
                open.deferred = true;
                let had = open.deadline.saturating_sub(self.now);
                open.deadline = open.deadline.saturating_add(u64::from(ms).min(had));
            }
            // It is measured at the deadline, or as soon as it says so.
            Answer::Done(_) => open.deadline = open.deadline.min(self.now),
            Answer::Defer(_) => {}
        }
    }

    /// Deadlines that have passed: measures, and acts on those who did not deliver.
    pub(super) fn watch_deadlines(&mut self, out: &mut Vec<Action>) {
        let now = self.now;
        let due: Vec<_> = self
            .apps
            .iter()
            .filter(|(_, app)| app.open.as_ref().is_some_and(|open| open.deadline <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            let Some(app) = self.apps.get_mut(&id) else { continue };
            let Some(open) = app.open.take() else { continue };
            let freed = open.held_before.saturating_sub(app.own());
            let kept = freed >= open.release;
            app.trust = if kept { (app.trust + app.trust / 4).min(TRUSTED) } else { (app.trust / 2).max(LEAST_TRUST) };
            let trust = app.trust / 10;
            let pledged = if open.pledged.is_zero() { String::new() } else { format!(", {} pledged", open.pledged) };
            let numbers = format!("{freed} of {} freed{pledged}; trust {trust} %", open.release);
            if kept {
                self.decide(format!("app {id} gave back"), numbers);
                continue;
            }
            app.suspended |= open.on_deadline == Consequence::Suspend;
            let consequence = open.on_deadline;
            self.decide(format!("acted on app {id}: {consequence:?}"), numbers.clone());
            if consequence != Consequence::Nothing {
                let reason = format!("it was asked for {} and {numbers}", open.release);
                out.push(Action::Enforce { app: id, consequence, reason });
            }
        }
    }

    /// Slow up: each interval of calm gives a lease back a tenth of what it was cut by.
    pub(super) fn restore(&mut self, out: &mut Vec<Action>) {
        if self.gauge.level != Level::Normal {
            return;
        }
        let (now, every) = (self.now, self.config.restore_ms);
        let due: Vec<_> = self
            .apps
            .iter()
            .filter(|(_, app)| app.lease.limit() < app.burst() && now.saturating_sub(app.restored_at) >= every)
            .map(|(id, app)| {
                let tenth = app.cut.fraction(1, 10).max(Bytes::mib(1));
                (id.clone(), app.lease.limit().saturating_add(tenth).min(app.burst()))
            })
            .collect();
        for (id, limit) in due {
            if let Some(app) = self.apps.get_mut(&id) {
                app.open = None;
            }
            self.epoch(&id, limit, Bytes::ZERO, "memory is free again", out);
            if let Some(app) = self.apps.get_mut(&id)
                && app.lease.limit() >= app.burst()
            {
                app.cut = Bytes::ZERO;
            }
        }
    }
}
