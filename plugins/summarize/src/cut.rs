//! Where to cut a text.

/// Places where a text may be cut, the best first, and how far behind their beginning the cut is.
const BORDERS: [(&str, usize); 7] = [("\n#", 1), ("\n\n", 2), ("\n", 1), (". ", 2), ("! ", 2), ("? ", 2), (" ", 1)];

/// Cuts a text in two, of which the first shall make up half of `parts` equal parts.
///
/// The cut is at the best border in the neighbourhood: before a heading rather than between paragraphs, there rather
/// than between sentences, and so on. `None` for a text of less than two characters.
pub(crate) fn cut(text: &str, parts: u32) -> Option<(&str, &str)> {
    let parts = (parts as usize).max(2);
    let wanted = text.len() / parts * (parts / 2);
    let near = text.len() / parts / 2;
    let from = text.floor_char_boundary(wanted.saturating_sub(near));
    let to = text.ceil_char_boundary(wanted + near);

    let best = BORDERS.iter().find_map(|(border, behind)| {
        let borders = text[from..to].match_indices(border).map(|(place, _)| from + place + behind);
        borders.filter(|place| (1..text.len()).contains(place)).min_by_key(|place| place.abs_diff(wanted))
    });
    let place = best.or_else(|| {
        let inside = text.char_indices().map(|(place, _)| place).skip(1);
        inside.min_by_key(|place| place.abs_diff(wanted))
    })?;
    Some(text.split_at(place))
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn the_best_border_nearby_wins() {
        for (text, first) in [
            ("One. Two.\n\nThree.\n# Four\nFive. Six.", "One. Two.\n\nThree.\n"),
            ("One. Two.\n\nThree. Four.", "One. Two.\n\n"),
            ("One. Two is longer.\nThree. Four.", "One. Two is longer.\n"),
            ("One is one. Two is two. Three is three.", "One is one. Two is two. "),
            ("one two three four", "one two "),
        ] {
            assert_eq!(cut(text, 2).expect("long enough").0, first, "{text:?}");
        }
    }

    #[test]
    fn a_cut_loses_nothing_and_makes_both_shorter() {
        let texts = ["ab", "äöü", "日本語のテキスト", "\n\n\n\n", "  ", "# a\n# b", "no border at all".trim()];
        for text in texts {
            for parts in [0, 1, 2, 3, 7, u32::MAX] {
                let (first, second) = cut(text, parts).expect("long enough");
                assert!(!first.is_empty() && !second.is_empty(), "{text:?} in {parts}: {first:?} {second:?}");
                assert_eq!(format!("{first}{second}"), text);
            }
        }
        assert_eq!(cut("", 2), None);
        assert_eq!(cut("ü", 2), None);
    }

    #[test]
    fn many_parts_are_cut_in_the_middle() {
        let text = "word ".repeat(1000);
        let (first, second) = cut(&text, 5).expect("long enough");
        assert_eq!((first.len(), second.len()), (2000, 3000), "two parts of five, and three");
    }
}
