//! Numbers of things in words. Owns that one thing is no "1 things". Must never know what is counted.

/// `1 phone`, `2 phones`: for nouns that get an s.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_no_plural() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "phone")), ["0 phones", "1 phone", "2 phones"]);
    }
}
