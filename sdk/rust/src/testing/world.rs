//! The host of one test run: what the script granted and what happened so far.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::executor::LocalSpawner;
use futures::task::LocalSpawnExt as _;

use super::disk::{Files, Storage};
use super::script::{Question, Script, Turn};
use super::{Run, disk};
use crate::files::Entry;
use crate::host::ByteReader;
use crate::log::Level;
use crate::{Budget, Error, Failure, Release, budget, http};

pub(crate) use super::disk::Sink;
pub(crate) use super::model::{EventsInWorld, SessionInWorld};

thread_local! {
    static CURRENT: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// The world of the run on this thread, if there is one.
pub(crate) fn current() -> Option<Rc<World>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Gives every other task one turn.
pub(crate) async fn breathe() {
    let mut breathed = false;
    poll_fn(|context| {
        if std::mem::replace(&mut breathed, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A world that is entered. Leaves it when dropped, in a panic too.
pub(super) struct Scene(Rc<World>);

impl Scene {
    pub(super) fn world(&self) -> &World {
        &self.0
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        CURRENT.set(None);
        budget::reset();
    }
}

/// Enters the world of a script.
pub(super) fn enter(script: Script, spawner: LocalSpawner) -> Scene {
    assert!(current().is_none(), "a scripted run cannot be started inside another one");
    let world = Rc::new(World {
        storage: RefCell::new(script.storage_quota.map(Storage::new)),
        files: RefCell::new(Files::new(script.folders.clone(), script.files.clone())),
        budget: RefCell::new(script.budget.clone()),
        script: RefCell::new(script),
        happened: RefCell::default(),
        waiting: RefCell::default(),
        ticks: Cell::new(0),
        spawner,
    });
    CURRENT.set(Some(Rc::clone(&world)));
    Scene(world)
}

/// What happened in a run, for its report.
#[derive(Default)]
pub(super) struct Happened {
    pub(super) questions: Vec<Question>,
    output: Vec<Vec<u8>>,
    logs: Vec<(Level, String)>,
    progress: Vec<(Option<f32>, String)>,
    releases: Vec<(u32, Release)>,
    reclaimable: BTreeMap<String, u64>,
}

/// The scripted host.
pub(crate) struct World {
    pub(super) script: RefCell<Script>,
    pub(super) happened: RefCell<Happened>,
    storage: RefCell<Option<Storage>>,
    pub(super) files: RefCell<Files>,
    budget: RefCell<Budget>,
    /// Who waits for the next budget.
    waiting: RefCell<Vec<Waker>>,
    /// Milliseconds of the clock: one passes whenever it is looked at.
    ticks: Cell<u64>,
    spawner: LocalSpawner,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

impl World {
    pub(super) fn args(&self) -> Vec<String> {
        self.script.borrow().args.clone()
    }

    pub(super) fn input(&self) -> ByteReader {
        ByteReader::new(self.script.borrow().input.clone())
    }

    pub(crate) fn open_session(self: Rc<Self>, role: &str) -> Result<SessionInWorld, Error> {
        let known = self.script.borrow().roles.iter().any(|known| known == role);
        if !known {
            return Err(Error::Denied {
                capability: "models".into(),
                reason: format!("the role `{role}` is not in this test's script"),
                remedy: format!("Add .role({role:?}) to the script, and the role to the manifest"),
            });
        }
        Ok(SessionInWorld::new(self, role))
    }

    /// Finds the answer to a question: rules, then replies, then the answering function.
    pub(super) fn turn(&self, question: &Question) -> Turn {
        let mut script = self.script.borrow_mut();
        if let Some((_, turn)) = script.rules.iter().find(|(fits, _)| fits(question)) {
            return turn.clone();
        }
        if let Some(turn) = script.replies.pop_front() {
            return turn;
        }
        match &script.answer {
            Some(answer) => answer(question),
            None => Turn::refuse(Error::ModelUnavailable(format!(
                "the script has no answer left for this question; add .reply(…), .when(…) or .answer(…): {}",
                question.prompt()
            ))),
        }
    }

    pub(crate) fn output(self: Rc<Self>) -> disk::Sink {
        disk::Sink::Output { world: self, taken: 0, full: false }
    }

    /// Takes a piece of output if it fits under the limit.
    pub(super) fn take_output(&self, bytes: &[u8], taken: u64) -> bool {
        let len = bytes.len() as u64;
        if self.script.borrow().output_limit.is_some_and(|limit| taken + len > limit) {
            return false;
        }
        self.happened.borrow_mut().output.push(bytes.to_vec());
        true
    }

    pub(crate) fn budget(&self) -> Budget {
        self.budget.borrow().clone()
    }

    /// The newest budget, once its epoch is another than the one that was seen.
    pub(crate) async fn budget_after(&self, seen: Option<u32>) -> Budget {
        poll_fn(|context| {
            let budget = self.budget();
            if seen != Some(budget.epoch) {
                return Poll::Ready(budget);
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Notes an answer to the newest epoch. Older epochs are void.
    pub(crate) fn answer_epoch(&self, epoch: u32, release: Release) {
        if epoch == self.budget.borrow().epoch {
            self.happened.borrow_mut().releases.push((epoch, release));
        }
    }

    /// Begins the epochs that the script puts at this question (from 1; 0 is the start).
    pub(super) fn change_budget_at(self: &Rc<Self>, question: usize) {
        let due: Vec<Budget> = {
            let script = self.script.borrow();
            script.budget_changes.iter().filter(|(at, _)| *at == question).map(|(_, budget)| budget.clone()).collect()
        };
        for budget in due {
            let budget = Budget { epoch: self.budget.borrow().epoch + 1, since: self.monotonic(), ..budget };
            self.budget.replace(budget.clone());
            self.waiting.take().into_iter().for_each(Waker::wake);
            let world = Rc::clone(self);
            let answer = async move {
                let epoch = budget.epoch;
                if let Some(release) = budget::answer(budget).await {
                    world.answer_epoch(epoch, release);
                }
            };
            self.spawner.spawn_local(answer).expect("the pool lives as long as the app");
        }
    }

    pub(crate) fn set_reclaimable(&self, pool: &str, bytes: u64) {
        self.happened.borrow_mut().reclaimable.insert(pool.to_owned(), bytes);
    }

    pub(crate) fn storage<T>(&self, work: impl FnOnce(&mut Storage) -> Result<T, Error>) -> Result<T, Error> {
        match &mut *self.storage.borrow_mut() {
            Some(storage) => work(storage),
            None => Err(disk::denied("capabilities.storage", "storage is not granted", ".storage(quota)")),
        }
    }

    pub(crate) fn folders(&self) -> Vec<(String, bool)> {
        self.files.borrow().folders()
    }

    pub(crate) fn read_file(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.files.borrow().read(path)
    }

    pub(crate) fn write_file(self: Rc<Self>, path: &str) -> disk::Sink {
        disk::Sink::File { world: self, path: path.to_owned(), content: Vec::new() }
    }

    pub(crate) fn entries(&self, path: &str) -> Result<Vec<Entry>, Error> {
        self.files.borrow().entries(path)
    }

    pub(crate) fn fetch(&self, request: &http::Request) -> Result<(u16, Vec<u8>), Error> {
        let script = self.script.borrow();
        let key = (request.method.clone(), request.url.clone());
        script.responses.get(&key).cloned().ok_or_else(|| {
            let what = format!("{} {} is not granted", request.method, request.url);
            disk::denied("capabilities.http", &what, ".http(method, url, status, body)")
        })
    }

    pub(crate) fn log(&self, level: Level, message: &str) {
        self.happened.borrow_mut().logs.push((level, message.to_owned()));
    }

    pub(crate) fn progress(&self, fraction: Option<f32>, message: &str) {
        self.happened.borrow_mut().progress.push((fraction, message.to_owned()));
    }

    /// A clock that starts at 2026-01-01 UTC and goes with [`monotonic`](Self::monotonic).
    pub(crate) fn now(&self) -> Duration {
        const START: Duration = Duration::from_secs(1_767_225_600);
        START + self.monotonic()
    }

    pub(crate) fn monotonic(&self) -> Duration {
        self.ticks.set(self.ticks.get() + 1);
        Duration::from_millis(self.ticks.get())
    }

    /// The same bytes in every run (a linear congruential generator; Knuth's constants).
    pub(crate) fn random(&self, len: u32) -> Vec<u8> {
        let next = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some(state.to_be_bytes()[0])
        };
        let mut state = self.monotonic().as_secs() ^ self.ticks.get();
        std::iter::from_fn(|| next(&mut state)).take(len as usize).collect()
    }

    /// What is left at the end.
    pub(super) fn report(&self, result: Result<(), Failure>) -> Run {
        let happened = self.happened.take();
        Run {
            result,
            output: String::from_utf8_lossy(&happened.output.concat()).into_owned(),
            pieces: happened.output,
            logs: happened.logs,
            progress: happened.progress,
            questions: happened.questions,
            releases: happened.releases,
            reclaimable: happened.reclaimable,
            storage: self.storage.take().map(Storage::into_entries).unwrap_or_default(),
            files: self.files.take().into_files(),
        }
    }
}
