//! How often each word appeared, for a bounded number of words.

use serde::{Serialize, Serializer};

/// Most words that are counted one by one; the log has fewer. The rest counts as `other`.
const MAX_WORDS: usize = 100;

const OTHER: &str = "other";

/// Words and their numbers. A list, because it is short, and the frequent words come early in a log.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally(Vec<(String, u64)>);

impl Tally {
    pub(super) fn add(&mut self, word: &str) {
        if let Some((_, count)) = self.0.iter_mut().find(|(known, _)| known == word) {
            *count += 1;
        } else if self.0.len() < MAX_WORDS || word == OTHER {
            self.0.push((word.to_owned(), 1));
        } else {
            self.add(OTHER);
        }
    }

    pub(super) fn get(&self, word: &str) -> u64 {
        self.0.iter().find(|(known, _)| known == word).map_or(0, |(_, count)| *count)
    }

    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// The words with their numbers, the most frequent first.
    pub(super) fn sorted(&self) -> Vec<(&str, u64)> {
        let mut sorted: Vec<_> = self.0.iter().map(|(word, count)| (word.as_str(), *count)).collect();
        sorted.sort_by(|(word, count), (other, than)| than.cmp(count).then(word.cmp(other)));
        sorted
    }
}

impl Serialize for Tally {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.sorted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_beyond_the_bound_count_as_other() {
        let mut tally = Tally::default();
        for number in 0..MAX_WORDS + 20 {
            tally.add(&number.to_string());
        }
        tally.add("3");
        assert_eq!((tally.get("3"), tally.get(OTHER), tally.sorted().len()), (2, 20, MAX_WORDS + 1));
        assert_eq!(tally.total(), 121);
        assert_eq!(tally.sorted()[..2], [("other", 20), ("3", 2)]);
    }
}
