//! Responses that can be continued by their id.
//!
//! In memory, bounded by count and bytes, the oldest first to go. A client finds its own responses only.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use locara_engine::Message;
use serde_json::Value;

use crate::host::ClientId;

/// Responses that are kept.
const MAX_RESPONSES: usize = 1024;
/// Their bytes, counted as text.
const MAX_BYTES: usize = 64 << 20;

/// A response that was stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) client: ClientId,
    /// As it was answered.
    pub(crate) response: Value,
    /// The items of its own input.
    pub(crate) input: Vec<Value>,
    /// Every turn up to and with its answer, without instructions.
    pub(crate) turns: Vec<Arc<Message>>,
}

impl Stored {
    /// Turns that several responses share count for each of them: the bound holds whoever is dropped first.
    fn bytes(&self) -> usize {
        let turns = self.turns.iter().map(|turn| {
            let calls: usize = turn.tool_calls.iter().map(|call| call.name.len() + call.arguments.len()).sum();
            turn.content.len() + calls + size_of::<Message>()
        });
        self.response.to_string().len()
            + self.input.iter().map(|item| item.to_string().len()).sum::<usize>()
            + turns.sum::<usize>()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Store(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by_id: HashMap<String, (Arc<Stored>, usize)>,
    /// Oldest first. May name some that were deleted.
    order: VecDeque<String>,
    bytes: usize,
}

impl Store {
    /// Keeps a response, and drops the oldest ones for it. One that is too large by itself is not kept.
    pub(crate) fn put(&self, id: String, stored: Stored) {
        let bytes = stored.bytes();
        if bytes > MAX_BYTES {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.order.len() >= MAX_RESPONSES || kept.bytes + bytes > MAX_BYTES {
            let Some(oldest) = kept.order.pop_front() else { break };
            kept.forget(&oldest);
        }
        kept.bytes += bytes;
        kept.order.push_back(id.clone());
        kept.by_id.insert(id, (Arc::new(stored), bytes));
    }

    /// A response of this client.
    pub(crate) fn get(&self, id: &str, client: &ClientId) -> Option<Arc<Stored>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.by_id.get(id).filter(|(stored, _)| stored.client == *client).map(|(stored, _)| Arc::clone(stored))
    }

    /// Whether there was one to delete.
    pub(crate) fn delete(&self, id: &str, client: &ClientId) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = kept.by_id.get(id).is_some_and(|(stored, _)| stored.client == *client);
        if own {
            kept.forget(id);
            kept.order.retain(|known| known != id);
        }
        own
    }
}

impl Kept {
    fn forget(&mut self, id: &str) {
        if let Some((_, bytes)) = self.by_id.remove(id) {
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(client: &str, text: &str) -> Stored {
        Stored {
            client: ClientId(client.into()),
            response: Value::Null,
            input: vec![text.into()],
            turns: vec![Arc::new(Message::user(text))],
        }
    }

    #[test]
    fn the_oldest_goes_when_count_or_bytes_are_reached() {
        let (store, one) = (Store::default(), ClientId("one".into()));
        for n in 0..=MAX_RESPONSES {
            store.put(format!("{n}"), stored("one", "x"));
        }
        assert!(store.get("0", &one).is_none() && store.get("1", &one).is_some());
        store.put("large".into(), stored("one", &"x".repeat(MAX_BYTES / 2 - 1000)));
        assert!(
            store.get("large", &one).is_some() && store.get("512", &one).is_none() && store.get("1024", &one).is_some()
        );
        store.put("too large".into(), stored("one", &"x".repeat(MAX_BYTES)));
        assert!(store.get("too large", &one).is_none() && store.get("large", &one).is_some());
        assert!(store.delete("large", &one) && !store.delete("large", &one));
        let left = (0..=MAX_RESPONSES).filter(|n| store.delete(&format!("{n}"), &one)).count();
        assert!(left > 0, "the youngest had stayed");
        let kept = store.0.lock().unwrap();
        assert_eq!((kept.bytes, kept.by_id.len(), kept.order.len()), (0, 0, 0));
    }

    #[test]
    fn a_client_finds_its_own_responses_only() {
        let store = Store::default();
        store.put("id".into(), stored("one", "x"));
        let two = ClientId("two".into());
        assert!(store.get("id", &two).is_none() && !store.delete("id", &two));
        assert!(store.get("id", &ClientId("one".into())).is_some());
    }
}
