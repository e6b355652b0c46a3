//! Runs an app natively against a scripted model: no daemon, no Wasm, no model, a test in microseconds.
//!
//! The script says what the model answers and what the host allows; the [`Run`] says what the app asked, wrote and
//! logged. The scripted host keeps the promises of the real one where an app could trip over them: a context is finite
//! (a token is four characters), answers are cut at `max_tokens` and at stop strings, what the script does not grant is
//! denied, an answer that is dropped is cancelled.
//!
//! ```
//! use locara::testing::{self, Script};
//! use locara::{App, Failure, Session};
//!
//! #[locara::app]
//! async fn translate(app: &mut App) -> Result<(), Failure> {
//!     let text = app.input.text().await?;
//!     let mut session = Session::open("default")?;
//!     session.ask(format!("Translate into French: {text}")).stream().write_to(&mut app.output).await?;
//!     Ok(())
//! }
//!
//! let run = testing::run(translate, Script::new().input("Good morning").reply("Bonjour"));
//! run.expect_output("Bonjour");
//! assert_eq!(run.questions[0].prompt(), "Translate into French: Good morning");
//! ```

mod disk;
mod model;
mod script;
pub(crate) mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use futures::executor::LocalPool;
use futures::task::LocalSpawnExt as _;

pub use script::{Ended, Question, Script, Turn};

use crate::log::Level;
use crate::{App, Failure, Release};

/// Everything that an app did in one run.
#[derive(Debug)]
#[non_exhaustive]
pub struct Run {
    /// What the app returned, or why its output did not arrive.
    pub result: Result<(), Failure>,
    /// The output as text (what is no UTF-8 becomes U+FFFD).
    pub output: String,
    /// The output in the pieces in which it was written.
    pub pieces: Vec<Vec<u8>>,
    /// The log.
    pub logs: Vec<(Level, String)>,
    /// What [`progress`](crate::progress) was told.
    pub progress: Vec<(Option<f32>, String)>,
    /// What the model was asked, in order, and how it ended.
    pub questions: Vec<Question>,
    /// How the app answered each budget event: the epoch and the answer, pledges and what came of them alike.
    pub releases: Vec<(u32, Release)>,
    /// What each pool last said to be reclaimable, in bytes.
    pub reclaimable: BTreeMap<String, u64>,
    /// The app's storage at the end.
    pub storage: BTreeMap<String, Vec<u8>>,
    /// The files of the granted folders at the end.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Run {
    /// Bytes that the app pledged last in this epoch; 0 if it pledged nothing.
    #[must_use]
    pub fn pledged(&self, epoch: u32) -> u64 {
        let pledged = self.releases.iter().rev().find_map(|(of, release)| match release {
            Release::Pledge(bytes, _) if *of == epoch => Some(*bytes),
            _ => None,
        });
        pledged.unwrap_or(0)
    }

    /// Bytes that the app said last to have released in this epoch; 0 if it said nothing.
    #[must_use]
    pub fn released(&self, epoch: u32) -> u64 {
        let released = self.releases.iter().rev().find_map(|(of, release)| match release {
            Release::Done(bytes) if *of == epoch => Some(*bytes),
            _ => None,
        });
        released.unwrap_or(0)
    }

    /// The app worked and wrote exactly this.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn expect_output(&self, output: &str) {
        if let Err(failure) = &self.result {
            panic!("the app failed: {failure}\noutput so far: {:?}\nlog: {:#?}", self.output, self.logs);
        }
        assert_eq!(self.output, output, "log: {:#?}", self.logs);
    }

    /// The app failed; this is what the person is told.
    ///
    /// # Panics
    /// When it did not fail.
    #[track_caller]
    #[must_use]
    pub fn expect_failure(&self) -> &str {
        match &self.result {
            Ok(()) => panic!("the app was expected to fail; its output: {:?}", self.output),
            Err(failure) => failure.text(),
        }
    }
}

/// Runs `app`, as the host would, against `script`.
///
/// # Panics
/// When the app panics, and when it waits for something that the script never brings.
pub fn run<E: Into<Failure>>(app: impl AsyncFnOnce(&mut App) -> Result<(), E> + 'static, script: Script) -> Run {
    let mut pool = LocalPool::new();
    let scene = world::enter(script, pool.spawner());
    let result = Rc::new(RefCell::new(None));
    let main = {
        let (result, args, input) = (Rc::clone(&result), scene.world().args(), scene.world().input());
        async move {
            let mut running = App::new(args, input);
            let outcome = app(&mut running).await.map_err(Into::into);
            let flushed = running.finish().await;
            result.replace(Some(outcome.and_then(|()| Ok(flushed?))));
        }
    };
    pool.spawner().spawn_local(main).expect("the pool lives");
    let world = world::current();
    // Comes after the app in line: its turn is when the app waits for the first time.
    let begin = async move {
        if let Some(world) = world {
            world.change_budget_at(0);
        }
    };
    pool.spawner().spawn_local(begin).expect("the pool lives");
    pool.run_until_stalled();
    // Tasks hold sessions and streams; their ends are part of what happened.
    drop(pool);
    let result = result.take().expect("the app waits for something that this script never brings (a budget change?)");
    scene.world().report(result)
}

#[cfg(test)]
mod tests;
