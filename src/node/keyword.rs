//! Enums whose values are words in Redis, in JSON and in logs. Owns that each value has one word, and that none is left
//! out of the list of all. Must never know what a word means.

/// A value with a word of its own.
pub trait Keyword: Copy + PartialEq + 'static {
    /// Every value, in the order in which they are declared.
    const VALUES: &'static [Self];

    /// The word.
    fn word(self) -> &'static str;

    /// The value with this word.
    fn of(word: &str) -> Option<Self> {
        Self::VALUES.iter().copied().find(|value| value.word() == word)
    }
}

/// Declares such an enum: `ALL` has every value, `as_str` its word.
macro_rules! keywords {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$each])* $value,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$value),+];

            /// The word in Redis, in JSON and in logs.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }

        impl $crate::node::keyword::Keyword for $name {
            const VALUES: &'static [Self] = &Self::ALL;

            fn word(self) -> &'static str {
                self.as_str()
            }
        }
    };
}

pub(crate) use keywords;
