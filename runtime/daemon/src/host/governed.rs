//! The governor at work: events go in from all sides, actions go out in order, tickets are answered.
//!
//! The lock is held for one decision, which takes microseconds, and never across an await. What an action does happens
//! elsewhere ([`super::hands`]); what came of it comes back as an event.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use locara_policy::{
    Governor,
    governor::{Action, Config, Event, Level, Refusal, Snapshot, TicketId, record},
};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, oneshot};

/// What became of a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Granted {
    /// The bytes are reserved.
    Reserved,
    /// Somebody else's load serves this one too.
    Shared,
}

type Answer = Result<Granted, Refusal>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Governed {
    state: Mutex<State>,
    /// Of the clock that the governor is told.
    origin: Instant,
    next_ticket: AtomicU64,
    actions: mpsc::UnboundedSender<Action>,
    /// What was decided, for those who look on.
    onlookers: broadcast::Sender<Value>,
}

/// Decisions that an onlooker may leave unread before it misses some.
const ONLOOKER_QUEUE: usize = 256;

#[derive(Debug)]
struct State {
    governor: Governor,
    tickets: HashMap<TicketId, oneshot::Sender<Answer>>,
    log: Option<BufWriter<File>>,
}

impl Governed {
    /// A governor, and its actions in the order in which they are to be begun. The channel is unbounded in type and bounded
    /// in fact: a governor has few steps open at once and tells an app nothing twice. `log` gets every event as a line.
    pub(crate) fn new(config: Config, log: Option<&Path>) -> std::io::Result<(Self, mpsc::UnboundedReceiver<Action>)> {
        let (actions, out) = mpsc::unbounded_channel();
        let mut log = log.map(fs_err::File::create).transpose()?.map(|file| BufWriter::new(file.into_parts().0));
        if let Some(log) = &mut log {
            writeln!(log, "{}", record::header(&config))?;
        }
        let state = State { governor: Governor::new(config), tickets: HashMap::new(), log };
        let governed = Self {
            state: Mutex::new(state),
            origin: Instant::now(),
            next_ticket: AtomicU64::new(1),
            actions,
            onlookers: broadcast::Sender::new(ONLOOKER_QUEUE),
        };
        Ok((governed, out))
    }

    /// Milliseconds of the governor's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Tells it something that nobody waits for.
    pub(crate) fn tell(&self, event: Event) {
        let mut state = self.lock();
        self.handle(&mut state, event);
    }

    /// Asks for something and waits for the answer, however long the governor lets it wait. Dropping the future takes the
    /// question back.
    pub(crate) async fn ask(&self, make: impl FnOnce(TicketId) -> Event) -> Answer {
        let (ticket, answer) = self.submit(make);
        let _cancel = CancelOnDrop { governed: self, ticket };
        // The sender lives in the table until the ticket is answered: it cannot be lost before.
        answer.await.unwrap_or(Ok(Granted::Shared))
    }

    /// Asks for something that is answered at once: the start of an app, the growth of a guest.
    pub(crate) fn ask_now(&self, make: impl FnOnce(TicketId) -> Event) -> Answer {
        let (ticket, mut answer) = self.submit(make);
        let answered = answer.try_recv();
        self.lock().tickets.remove(&ticket);
        // Events about what is not there are not answered; they change nothing either.
        answered.unwrap_or(Ok(Granted::Shared))
    }

    fn submit(&self, make: impl FnOnce(TicketId) -> Event) -> (TicketId, oneshot::Receiver<Answer>) {
        let ticket = TicketId(self.next_ticket.fetch_add(1, Ordering::Relaxed));
        let (sender, answer) = oneshot::channel();
        let mut state = self.lock();
        state.tickets.insert(ticket, sender);
        self.handle(&mut state, make(ticket));
        (ticket, answer)
    }

    fn handle(&self, state: &mut State, event: Event) {
        let now = self.now_ms();
        if let Some(log) = &mut state.log
            && let Err(error) = writeln!(log, "{}", record::line(now, &event)).and_then(|()| log.flush())
        {
            tracing::warn!(%error, "the governor's log cannot be written; it ends here");
            state.log = None;
        }
        for action in state.governor.handle(now, event) {
            if self.onlookers.receiver_count() > 0
                && let Ok(decision) = serde_json::to_value(&action)
            {
                // Nobody may have been left meanwhile.
                let _ = self.onlookers.send(json!({"at_ms": now, "decision": decision}));
            }
            let (ticket, answer) = match action {
                Action::Admit { ticket } => (ticket, Ok(Granted::Reserved)),
                Action::Join { ticket } => (ticket, Ok(Granted::Shared)),
                Action::Refuse { ticket, refusal } => (ticket, Err(refusal)),
                Action::Wait { ticket, estimate_ms, why } => {
                    tracing::info!(ticket = ticket.0, estimate_ms, why, "waits for memory");
                    continue;
                }
                action => {
                    // A host that is shutting down carries nothing out any more.
                    let _ = self.actions.send(action);
                    continue;
                }
            };
            if let Some(waiting) = state.tickets.remove(&ticket) {
                let _ = waiting.send(answer);
            }
        }
    }

    /// Every decision from now on, as JSON. Who is too slow misses some.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Value> {
        self.onlookers.subscribe()
    }

    /// How tight memory is.
    pub(crate) fn level(&self) -> Level {
        self.lock().governor.level()
    }

    /// Everything that explains the state.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.lock().governor.snapshot()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside a decision would be a bug of ours; the state it leaves is still the best there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a question back when nobody waits for its answer any more.
struct CancelOnDrop<'a> {
    governed: &'a Governed,
    ticket: TicketId,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let mut state = self.governed.lock();
        if state.tickets.remove(&self.ticket).is_some() {
            self.governed.handle(&mut state, Event::Cancel { ticket: self.ticket });
        }
    }
}
