//! The state as `locara memory` shows it.

use serde::{Deserialize, Serialize};

use super::{
    Governor,
    action::{Decision, Level},
    event::{Activity, ModelUse},
    model::State,
};
use crate::{
    bytes::Bytes,
    ledger::{Kind, Measured, Owner},
};

/// One cell of the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldView {
    /// Who holds it, as people call it.
    pub owner: String,
    /// What for.
    pub kind: Kind,
    /// How much.
    pub bytes: Bytes,
    /// Of it, promised and not allocated yet.
    pub promised: Bytes,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelView {
    /// Its name.
    pub name: String,
    /// SHA-256 of its file.
    pub digest: String,
    /// What it is for.
    pub used_as: ModelUse,
    /// `loading`, `overdue` (it loads for much longer than expected), `resident` or `leaving`.
    pub state: String,
    /// Everything it holds.
    pub bytes: Bytes,
    /// What it does now.
    pub activity: Activity,
    /// The system was asked to drop its pages.
    pub pages_dropped: bool,
    /// Since its last use, ms.
    pub idle_ms: u64,
    /// A reload takes about this, ms.
    pub reload_ms: u32,
    /// An app asked to keep it.
    pub keep_loaded: bool,
}

/// One app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppView {
    /// Its id.
    pub app: String,
    /// Guaranteed.
    pub floor: Bytes,
    /// What it may hold now.
    pub limit: Bytes,
    /// Declared.
    pub ceiling: Bytes,
    /// Guest memory and KV.
    pub own: Bytes,
    /// With its share of the models.
    pub charge: Bytes,
    /// What it says it could release.
    pub reclaimable: Bytes,
    /// The newest epoch of its lease.
    pub epoch: u32,
    /// A person looks at it.
    pub visible: bool,
    /// It computes nothing until memory is free.
    pub suspended: bool,
    /// Share of what lies above its floor that it may use, percent.
    pub trust_percent: u32,
    /// What it has used, in weighted milliseconds of the device.
    pub used_ms: u64,
}

/// Everything that explains the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Of the host's clock, ms.
    pub at_ms: u64,
    /// How tight memory is.
    pub level: Level,
    /// Why.
    pub cause: String,
    /// The most that is promised.
    pub cap: Bytes,
    /// What is promised and held.
    pub held: Bytes,
    /// What could be promised now.
    pub room: Bytes,
    /// What bounds it.
    pub bound: String,
    /// What the system says is available.
    pub available: Option<Bytes>,
    /// Swap in use.
    pub swap_used: Option<Bytes>,
    /// Measured in this process.
    pub measured: Option<Measured>,
    /// Measured less accounted, file-backed bytes.
    pub file_difference: Option<i64>,
    /// Measured less accounted, anonymous bytes.
    pub anonymous_difference: Option<i64>,
    /// The account.
    pub holds: Vec<HoldView>,
    /// The models.
    pub models: Vec<ModelView>,
    /// The apps.
    pub apps: Vec<AppView>,
    /// Tickets that wait.
    pub waiting: usize,
    /// The newest decisions, oldest first.
    pub decisions: Vec<Decision>,
}

pub(super) fn take(governor: &Governor) -> Snapshot {
    let ledger = &governor.ledger;
    let room = governor.room(None);
    let name = |owner: &Owner| match owner {
        Owner::Model(digest) => {
            governor.models.get(digest).map_or_else(|| owner.to_string(), |model| model.name.clone())
        }
        Owner::Host | Owner::App(_) | Owner::Session { .. } => owner.to_string(),
    };
    let promised = |of: &Owner, kind: Kind| {
        let open = ledger.entries().filter(|(_, entry)| !entry.committed && entry.owner == *of && entry.kind == kind);
        open.map(|(_, entry)| entry.bytes).sum()
    };
    let holds = ledger.totals().into_iter().map(|((owner, kind), bytes)| HoldView {
        promised: promised(&owner, kind),
        owner: name(&owner),
        kind,
        bytes,
    });
    let models = governor.models.iter().map(|(digest, model)| ModelView {
        name: model.name.clone(),
        digest: digest.0.clone(),
        used_as: model.used_as,
        state: match model.state {
            State::Loading => "loading",
            State::Overdue => "overdue",
            State::Resident => "resident",
            State::Leaving => "leaving",
        }
        .to_owned(),
        bytes: model.total(ledger),
        activity: model.activity,
        pages_dropped: model.pages_dropped,
        idle_ms: if model.is_idle(governor.now) { governor.now.saturating_sub(model.last_used) } else { 0 },
        reload_ms: model.reload_ms,
        keep_loaded: model.keep_loaded,
    });
    let apps = governor.apps.iter().map(|(id, app)| AppView {
        app: id.0.clone(),
        floor: app.lease.floor(),
        limit: app.lease.limit(),
        ceiling: app.lease.ceiling(),
        own: app.own(),
        charge: ledger.charge(id),
        reclaimable: app.reclaimable,
        epoch: app.epoch,
        visible: app.visible,
        suspended: app.suspended,
        trust_percent: app.trust / 10,
        used_ms: governor.fair.used(id),
    });
    let sample = governor.sample.as_ref();
    let measured = sample.map(|sample| Measured { file_backed: sample.own_file, anonymous: sample.own_anonymous });
    let difference = measured.map(|measured| ledger.reconcile(measured));
    Snapshot {
        at_ms: governor.now,
        level: governor.gauge.level,
        cause: governor.gauge.cause.clone(),
        cap: ledger.cap(),
        held: ledger.held(),
        room: room.bytes(),
        bound: room.bound().to_owned(),
        available: sample.map(|sample| sample.available),
        swap_used: sample.map(|sample| sample.swap_used),
        measured,
        file_difference: difference.map(|difference| difference.file_backed),
        anonymous_difference: difference.map(|difference| difference.anonymous),
        holds: holds.collect(),
        models: models.collect(),
        apps: apps.collect(),
        waiting: governor.waiting.len(),
        decisions: governor.decisions.iter().cloned().collect(),
    }
}
