//! From bytes of tokens to text that may be shown: whole characters only, and nothing past a stop string.

/// Joins token bytes into valid UTF-8. Bytes that begin a character wait for its end; bytes that never make one become U+FFFD.
#[derive(Debug, Default)]
pub(crate) struct Utf8Joiner {
    /// The beginning of a character; at most 3 bytes.
    tail: Vec<u8>,
}

impl Utf8Joiner {
    /// Takes the bytes of a token and returns what is complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.tail.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.tail.len());
        let mut rest: &[u8] = &self.tail;
        let keep = loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    break 0;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    match error.error_len() {
                        // An unfinished character at the end: wait for the next token.
                        None => break after.len(),
                        Some(bad) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &after[bad..];
                        }
                    }
                }
            }
        };
        let done = self.tail.len() - keep;
        self.tail.drain(..done);
        text
    }

    /// The end of the answer: what is left cannot become a character any more.
    pub(crate) fn finish(&mut self) -> String {
        if std::mem::take(&mut self.tail).is_empty() { String::new() } else { char::REPLACEMENT_CHARACTER.to_string() }
    }
}

/// Finds the first stop string wherever token borders fall, and holds back text that may be the beginning of one.
#[derive(Debug, Default)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

impl StopMatcher {
    /// Empty stop strings are ignored: they would end every answer before it begins.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(), held: String::new() }
    }

    /// Text that is safe to show now, and the stop string if one is complete. Nothing after it is returned.
    pub(crate) fn push(&mut self, text: &str) -> (String, Option<String>) {
        if self.stops.is_empty() {
            return (text.to_owned(), None);
        }
        self.held.push_str(text);
        let hit = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|at| (at, stop)))
            // The one that is complete first, as if the text came character by character: then it does not matter how
            // tokens cut it. Of two that end together the longer one.
            .min_by_key(|&(at, stop)| (at + stop.len(), at));
        if let Some((at, stop)) = hit {
            let stop = stop.clone();
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), Some(stop));
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let tail = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, tail), None)
    }

    /// The end of the answer: what was held back was no stop string.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes of the longest end of `text` that is a proper beginning of `pattern`.
pub(crate) fn overlap(text: &str, pattern: &str) -> usize {
    let longest = text.len().min(pattern.len().saturating_sub(1));
    (1..=longest)
        .rev()
        .filter(|&n| text.is_char_boundary(text.len() - n))
        .find(|&n| pattern.as_bytes().starts_with(&text.as_bytes()[text.len() - n..]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_character_split_over_tokens_comes_whole() {
        let mut joiner = Utf8Joiner::default();
        assert_eq!(joiner.push(b"a\xf0\x9f"), "a");
        assert_eq!(joiner.push(b"\x98"), "");
        assert_eq!(joiner.push(b"\x80b"), "\u{1f600}b");
        assert_eq!(joiner.finish(), "");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_not_lost() {
        let mut joiner = Utf8Joiner::default();
        assert_eq!(joiner.push(b"\xff\xfeok\xe2\x82"), "\u{fffd}\u{fffd}ok");
        assert_eq!(joiner.finish(), "\u{fffd}");
    }

    #[test]
    fn a_stop_string_over_three_tokens_is_found() {
        let mut matcher = StopMatcher::new(vec!["</end>".into()]);
        assert_eq!(matcher.push("text </"), ("text ".into(), None));
        assert_eq!(matcher.push("en"), (String::new(), None));
        assert_eq!(matcher.push("d> more"), (String::new(), Some("</end>".into())));
    }

    #[test]
    fn the_stop_string_that_is_complete_first_counts_however_the_text_is_cut() {
        for pieces in [vec!["aéé"], vec!["a", "é", "é"], vec!["aé", "é"]] {
            let mut matcher = StopMatcher::new(vec!["é".into(), "aéé".into()]);
            let (mut shown, mut stopped) = (String::new(), None);
            for piece in pieces {
                let (safe, hit) = matcher.push(piece);
                shown.push_str(&safe);
                stopped = hit;
                if stopped.is_some() {
                    break;
                }
            }
            assert_eq!((shown.as_str(), stopped.as_deref()), ("a", Some("é")));
        }
        let mut matcher = StopMatcher::new(vec!["é".into(), "aé".into()]);
        assert_eq!(matcher.push("baé"), ("b".into(), Some("aé".into())), "of two that end together the longer one");
    }

    #[test]
    fn a_false_start_is_given_back() {
        let mut matcher = StopMatcher::new(vec!["</end>".into(), String::new()]);
        assert_eq!(matcher.push("a </e"), ("a ".into(), None));
        assert_eq!(matcher.push("x"), ("</ex".into(), None));
        assert_eq!(matcher.finish(), "");
    }

    proptest! {
        /// However the text is cut into tokens, what is shown is the text up to the stop string that is complete first.
        #[test]
        fn cutting_does_not_matter(text in "[ab\u{e9}\u{1f600}]{0,40}", stops in prop::collection::vec("[ab\u{e9}]{1,4}", 0..3), cuts in prop::collection::vec(1usize..6, 1..40)) {
            let mut joiner = Utf8Joiner::default();
            let mut matcher = StopMatcher::new(stops.clone());
            let mut shown = String::new();
            let mut stopped = None;
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() || stopped.is_some() { break; }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                rest = after;
                let (safe, hit) = matcher.push(&joiner.push(piece));
                shown.push_str(&safe);
                stopped = hit;
            }
            if stopped.is_none() {
                let last = joiner.finish();
                let (safe, hit) = matcher.push(&last);
                prop_assert!(hit.is_none());
                shown.push_str(&safe);
                shown.push_str(&matcher.finish());
            }
            let first = stops
                .iter()
                .filter_map(|stop| text.find(stop.as_str()).map(|at| (at, stop)))
                .min_by_key(|&(at, stop)| (at + stop.len(), at));
            prop_assert_eq!(stopped.as_ref(), first.map(|(_, stop)| stop));
            prop_assert_eq!(shown, &text[..first.map_or(text.len(), |(at, _)| at)]);
        }
    }
}
