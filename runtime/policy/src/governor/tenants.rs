//! The leases of apps: what each may hold, what it is asked to give back, and what happens when it does not.
//!
//! Level-triggered: a newer epoch voids the older ones. Lowering a limit and asking for bytes are two things. Background
//! before foreground, never below the floor except at `critical`. An answer is advice: at the deadline what was freed is
//! measured, and an app that pledged and did not deliver may use less of what lies above its floor from then on. Linear
//! memory never shrinks, so a pledge of heap cannot be measured: it is believed if the pools of the app agree, or once.
//!
//! A guest's memory and the KV of its conversations are its own doing and are bounded by the lease; its share of the weights
//! is not, since an author cannot know which model a role resolves to. It is counted when the person is told.

use super::{
    Governor,
    action::{Action, Consequence, Level, Recovery, Refusal, Tightening},
    admit::{ANSWER_MS, UNLOAD_MS, clamp},
    app::{ANSWERS_HEARD, App, Open},
    event::{Answer, AppStart, Class, TicketId},
    room::Needer,
};
use crate::{
    bytes::Bytes,
    lease::Lease,
    ledger::{AppId, Kind, Owner},
};

impl Governor {
    pub(super) fn start_app(&mut self, start: AppStart, out: &mut Vec<Action>) {
        let AppStart { ticket, app: id, floor, ceiling, class, visible } = start;
        if let Some(app) = self.apps.get_mut(&id) {
            app.runs = app.runs.saturating_add(1);
            app.visible |= visible;
            app.class = app.class.min(class);
            out.push(Action::Admit { ticket });
            return;
        }
        let floor = floor.min(ceiling);
        let name = format!("app {id}");
        if let Err(refusal) = self.may_have(&Needer { app: None, ..host(&name, floor) }, out) {
            self.refuse(ticket, refusal, out);
            return;
        }
        // The floor was bounded by the ceiling, so this cannot fail.
        let Ok(lease) = Lease::new(floor, ceiling) else { return };
        self.fair.arrive(&id, self.apps.keys());
        self.decide(format!("app {id} starts"), format!("{} guaranteed, {ceiling} at most", lease.floor()));
        self.apps.insert(id, App::new(lease, class, visible, self.now));
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
        self.ledger.detach_app(id);
    }

    /// Whether somebody may have bytes at once; if not, idle things are asked to make room, so that a retry succeeds.
    fn may_have(&mut self, needer: &Needer<'_>, out: &mut Vec<Action>) -> Result<(), Refusal> {
        let room = self.room(needer.app);
        if self.gauge.level == Level::Critical {
            let after_ms = clamp(self.config.calm_ms.saturating_mul(3));
            return Err(self.refusal(needer, Recovery::Retry { after_ms }, "memory is critical"));
        }
        if self.short(&room, needer).is_zero() {
            return Ok(());
        }
        Err(match self.make_room(needer, out) {
            super::admit::Answer::No(refusal) => refusal,
            super::admit::Answer::Later { estimate_ms, .. } => {
                self.refusal(needer, Recovery::Retry { after_ms: clamp(estimate_ms) }, room.bound())
            }
            // Making room admits nobody.
            super::admit::Answer::Admitted | super::admit::Answer::Joined => return Ok(()),
        })
    }

    /// Guest memory grows or shrinks. Growth within the floor is only bounded by the ledger; beyond it by the lease and by
    /// what is free.
    pub(super) fn guest(&mut self, ticket: TicketId, id: &AppId, bytes: Bytes, out: &mut Vec<Action>) {
        match self.guest_may_hold(id, bytes, out).and_then(|()| self.enter_guest(id, bytes)) {
            Ok(grown) => {
                out.push(Action::Admit { ticket });
                if grown {
                    self.tell_of_excess(id, out);
                }
            }
            Err(refusal) => self.refuse(ticket, *refusal, out),
        }
    }

    fn guest_may_hold(&mut self, id: &AppId, bytes: Bytes, out: &mut Vec<Action>) -> Result<(), Box<Refusal>> {
        let name = || format!("memory of app {id}");
        let Some(app) = self.apps.get(id) else {
            let name = name();
            let recovery = Recovery::Retry { after_ms: clamp(UNLOAD_MS) };
            return Err(Box::new(self.refusal(&host(&name, bytes), recovery, "the app does not run")));
        };
        let needs = bytes.saturating_sub(app.guest);
        let own = app.kv.saturating_add(bytes);
        if needs.is_zero() || bytes <= app.lease.floor() && own <= app.lease.limit() {
            return Ok(());
        }
        let limit = app.limit();
        if own > limit {
            let left = limit.saturating_sub(app.own());
            let recovery = if own > app.burst() {
                Recovery::Smaller { at_most: left }
            } else {
                // It was cut, and comes back by tenths.
                Recovery::Retry { after_ms: clamp(self.config.restore_ms.saturating_mul(10)) }
            };
            let name = name();
            let mut refusal = self.refusal(&host(&name, needs), recovery, &format!("its lease is {limit}"));
            refusal.room = left;
            return Err(Box::new(refusal));
        }
        let name = name();
        self.may_have(&Needer { app: Some(id), ..host(&name, needs) }, out).map_err(Box::new)
    }

    /// Enters guest memory; says whether it grew.
    fn enter_guest(&mut self, id: &AppId, bytes: Bytes) -> Result<bool, Box<Refusal>> {
        let Some(app) = self.apps.get_mut(id) else { return Ok(false) };
        let grown = bytes.saturating_sub(app.guest);
        let entered = match app.guest_id {
            Some(entry) => self.ledger.resize(entry, bytes),
            None => self.ledger.reserve(Owner::App(id.clone()), Kind::GuestMemory, bytes).and_then(|entry| {
                app.guest_id = Some(entry);
                // It is allocated when this returns.
                self.ledger.commit(entry, bytes)
            }),
        };
        if let Err(error) = entered {
            let name = format!("memory of app {id}");
            let recovery = Recovery::Retry { after_ms: clamp(ANSWER_MS) };
            return Err(Box::new(self.refusal(&host(&name, grown), recovery, &error.to_string())));
        }
        app.guest = bytes;
        self.unseen[0] = self.unseen[0].saturating_add(grown);
        Ok(!grown.is_zero())
    }

    /// The person hears once when an app, its share of the models included, holds more than it declared.
    pub(super) fn tell_of_excess(&mut self, id: &AppId, out: &mut Vec<Action>) {
        let Some(app) = self.apps.get_mut(id).filter(|app| !app.told) else { return };
        let charge = self.ledger.charge(id);
        let ceiling = app.lease.ceiling();
        if charge <= ceiling {
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

    /// Asks apps for `wanted` bytes that the host itself cannot give back. What was asked for already is on its way.
    pub(super) fn ask_apps(&mut self, wanted: Bytes, out: &mut Vec<Action>) {
        let level = self.gauge.level;
        let (now, critical) = (self.now, level == Level::Critical);
        let awaited = |app: &App| app.open.as_ref().filter(|open| open.level >= level).map(|open| open.release);
        let mut rest = wanted.saturating_sub(self.apps.values().filter_map(awaited).sum());
        for (id, above) in self.in_order_of_asking() {
            let Some(app) = self.apps.get(&id) else { continue };
            // One demand at a time, unless it has become more urgent; and time for what was done to it to show.
            if app.is_quiet(now, level)
                || awaited(app).is_some()
                || (app.rests_until > self.now && !critical)
                || app.suspended && !critical
            {
                continue;
            }
            let most = if critical { app.own() } else { above };
            let release = most.min(rest);
            if release < Bytes::mib(1) {
                continue;
            }
            rest = rest.saturating_sub(release);
            let limit = app.own().saturating_sub(release).min(app.lease.limit());
            self.epoch(&id, limit, release, "the machine runs short of memory", out);
        }
    }

    /// Says to an app what holds from now on. The newest epoch says everything: one that only moves the limit repeats what is
    /// still to be released.
    fn epoch(&mut self, id: &AppId, limit: Bytes, release: Bytes, cause: &str, out: &mut Vec<Action>) {
        let (level, now) = (self.gauge.level, self.now);
        let deadline_ms = self.config.deadline_ms(level);
        let Some(app) = self.apps.get_mut(id) else { return };
        let before = app.lease.limit();
        let limit = app.lease.set_limit(limit);
        app.cut = app.cut.saturating_add(before.saturating_sub(limit));
        app.epoch = app.epoch.saturating_add(1);
        app.restored_at = now;
        let (epoch, usage) = (app.epoch, app.own());
        if !release.is_zero() {
            let on_deadline = match (level, app.class, app.visible) {
                (Level::Normal | Level::Elevated, ..) => Consequence::Nothing,
                (Level::Critical, Class::Background, _) | (Level::Critical, _, false) => Consequence::Stop,
                (Level::Tight, Class::Background, _) => Consequence::Suspend,
                (Level::Tight | Level::Critical, ..) => Consequence::DropCaches,
            };
            app.open = Some(Open {
                epoch,
                level,
                release,
                held_before: usage,
                guest_before: app.guest,
                reclaimable_before: app.reclaimable,
                deadline: now.saturating_add(u64::from(deadline_ms)),
                pledged: Bytes::ZERO,
                answers: 0,
                deferred: false,
                done: false,
                on_deadline,
            });
        }
        let (mut rest, mut left_ms, mut on_deadline) = (Bytes::ZERO, deadline_ms, Consequence::Nothing);
        if let Some(open) = &mut app.open {
            open.epoch = epoch;
            rest = open.release.saturating_sub(open.held_before.saturating_sub(usage));
            left_ms = clamp(open.deadline.saturating_sub(now));
            on_deadline = open.on_deadline;
        }
        let tightening = Tightening {
            epoch,
            origin_ms: now,
            level,
            cause: cause.to_owned(),
            limit,
            usage,
            release: rest,
            deadline_ms: left_ms,
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
        let now = self.now;
        let Some(open) = self.apps.get_mut(id).and_then(|app| app.open.as_mut()) else { return };
        if epoch != open.epoch || open.answers >= ANSWERS_HEARD {
            return;
        }
        open.answers += 1;
        match answer {
            Answer::Pledge { release, .. } => open.pledged = release,
            // Once, and at most as long again as it had.
            Answer::Defer(ms) if !open.deferred => {
                open.deferred = true;
                let had = open.deadline.saturating_sub(now);
                open.deadline = open.deadline.saturating_add(u64::from(ms).min(had));
            }
            Answer::Defer(_) => {}
            // It is measured: at once if all of it is there, at the deadline otherwise.
            Answer::Done(_) => open.done = true,
        }
    }

    /// Demands that were met or whose deadline has passed: measures, and acts on those who did not deliver.
    pub(super) fn watch_deadlines(&mut self, out: &mut Vec<Action>) {
        let now = self.now;
        let is_due = |app: &App| {
            app.open.as_ref().is_some_and(|open| open.deadline <= now || (open.done && app.freed() >= open.release))
        };
        let due: Vec<_> = self.apps.iter().filter(|(_, app)| is_due(app)).map(|(id, _)| id.clone()).collect();
        for id in due {
            self.conclude(&id, out);
        }
    }

    fn conclude(&mut self, id: &AppId, out: &mut Vec<Action>) {
        let (now, level) = (self.now, self.gauge.level);
        let Some(app) = self.apps.get_mut(id) else { return };
        let freed = app.freed();
        let Some(open) = app.open.take() else { return };
        let kept = freed >= open.release;
        app.asked(kept, now, level);
        app.judge(&open, freed);
        let trust = app.trust / 10;
        let pledged = if open.pledged.is_zero() { String::new() } else { format!(", {} pledged", open.pledged) };
        let numbers = format!("{freed} of {} freed{pledged}; trust {trust} %", open.release);
        let limit = app.limit();
        let lowered = limit < app.lease.limit();
        // It was asked while memory was tight; when it no longer is, nothing happens.
        let acts = !kept && level >= Level::Tight && open.on_deadline != Consequence::Nothing;
        if acts {
            app.rests_until = now.saturating_add(self.config.restore_ms);
            app.suspended |= open.on_deadline == Consequence::Suspend;
        }
        if !freed.is_zero() {
            self.settle();
        }
        if acts {
            self.decide(format!("acted on app {id}: {:?}", open.on_deadline), numbers.clone());
            let reason = format!("it was asked for {} and {numbers}", open.release);
            out.push(Action::Enforce { app: id.clone(), consequence: open.on_deadline, reason });
        } else {
            self.decide(format!("app {id} {}", if kept { "gave back" } else { "did not give back" }), numbers);
        }
        if lowered {
            self.epoch(id, limit, Bytes::ZERO, "it pledged more than it released", out);
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
            .filter(|(_, app)| {
                app.open.is_none() && app.lease.limit() < app.burst() && now.saturating_sub(app.restored_at) >= every
            })
            .map(|(id, app)| {
                let tenth = Bytes(app.cut.get().div_ceil(10)).max(Bytes::mib(1));
                (id.clone(), app.lease.limit().saturating_add(tenth).min(app.burst()))
            })
            .collect();
        for (id, limit) in due {
            self.epoch(&id, limit, Bytes::ZERO, "memory is free again", out);
            if let Some(app) = self.apps.get_mut(&id)
                && app.lease.limit() >= app.burst()
            {
                app.cut = Bytes::ZERO;
            }
        }
    }
}

/// Somebody who needs bytes of ordinary memory and no model.
const fn host(name: &str, needs: Bytes) -> Needer<'_> {
    Needer { name, needs, gpu: Bytes::ZERO, spare: None, app: None }
}
