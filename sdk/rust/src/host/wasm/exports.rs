//! What the host calls: `run` and `on-budget`.

use std::panic;

use super::{ByteReader, convert};
use crate::bindings::exports::locara::app::{events, run};
use crate::entry::Entry;
use crate::log::Level;
use crate::{App, budget};

use wit_bindgen::StreamReader;

impl<E: Entry> run::Guest for E {
    async fn run(arguments: Vec<String>, input: StreamReader<u8>) -> Result<(), String> {
        // Without it a panic is a trap that says nothing.
        panic::set_hook(Box::new(|panic| super::log(Level::Error, &panic.to_string())));
        let mut app = App::new(arguments, ByteReader::new(input));
        let outcome = E::main(&mut app).await;
        // The app's own failure is worth more than what happened to its last bytes.
        let flushed = app.finish().await;
        outcome.map_err(|failure| failure.text().to_owned())?;
        flushed.map_err(|error| error.to_string())
    }
}

impl<E: Entry> events::Guest for E {
    async fn on_budget(state: events::State) -> events::Answer {
        budget::answer(state.into()).await.map_or_else(convert::no_answer, convert::answer)
    }
}
