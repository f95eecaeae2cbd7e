//! Functions by which a program steers its allocator instead of allocating: trims, collections, options.
//!
//! Invariant: the discriminants are part of the trace file and the replay image, and stay below [`Directive::BITS`].

/// A function that steers an allocator. Two numbers go with it, a key and a value; each variant says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Directive {
    /// glibc's `malloc_trim(value)`: the value is the pad, at most `i32::MAX`.
    MallocTrim = 0,
    /// glibc's `mallopt(key, value)`.
    Mallopt = 1,
    /// mimalloc's `mi_collect(value)`: 1 to force.
    MiCollect = 2,
    /// mimalloc's `mi_option_set(key, value)`. The numbers of options are the library version's own.
    MiOptionSet = 3,
    /// jemalloc's `arena.KEY.purge`.
    ArenaPurge = 4,
    /// jemalloc's `arena.KEY.decay`.
    ArenaDecay = 5,
    /// jemalloc's `arena.KEY.dirty_decay_ms`, set to the value; with the key -1 `arenas.dirty_decay_ms`.
    DirtyDecayMs = 6,
    /// The same of `muzzy_decay_ms`.
    MuzzyDecayMs = 7,
    /// jemalloc's `background_thread`, set to the value.
    BackgroundThread = 8,
    /// jemalloc's `thread.tcache.flush`.
    TcacheFlush = 9,
    /// `ReleaseUnused` of the Arrow pool that serves `arrow`.
    ReleaseUnused = 10,
    /// gperftools' `MallocExtension_ReleaseFreeMemory`.
    ReleaseFreeMemory = 11,
}

impl Directive {
    /// Every directive, in discriminant order.
    pub const ALL: [Self; 12] = [
        Self::MallocTrim,
        Self::Mallopt,
        Self::MiCollect,
        Self::MiOptionSet,
        Self::ArenaPurge,
        Self::ArenaDecay,
        Self::DirtyDecayMs,
        Self::MuzzyDecayMs,
        Self::BackgroundThread,
        Self::TcacheFlush,
        Self::ReleaseUnused,
        Self::ReleaseFreeMemory,
    ];
    /// Bits that a discriminant needs at most.
    pub const BITS: u32 = 5;

    /// The directive with this discriminant, if there is one.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        Self::ALL.get(usize::from(bits)).copied()
    }

    /// The word used in files and on screens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MallocTrim => "malloc_trim",
            Self::Mallopt => "mallopt",
            Self::MiCollect => "mi_collect",
            Self::MiOptionSet => "mi_option_set",
            Self::ArenaPurge => "mallctl:arena.purge",
            Self::ArenaDecay => "mallctl:arena.decay",
            Self::DirtyDecayMs => "mallctl:arena.dirty_decay_ms",
            Self::MuzzyDecayMs => "mallctl:arena.muzzy_decay_ms",
            Self::BackgroundThread => "mallctl:background_thread",
            Self::TcacheFlush => "mallctl:thread.tcache.flush",
            Self::ReleaseUnused => "release_unused",
            Self::ReleaseFreeMemory => "MallocExtension_ReleaseFreeMemory",
        }
    }

    /// The directive of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|directive| directive.name() == name)
    }

    /// Whether it sets something that lasts, and does nothing at once.
    #[must_use]
    pub const fn is_setting(self) -> bool {
        matches!(
            self,
            Self::Mallopt | Self::MiOptionSet | Self::DirtyDecayMs | Self::MuzzyDecayMs | Self::BackgroundThread
        )
    }
}

/// A call of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectiveCall {
    /// The function.
    pub directive: Directive,
    /// What it addresses: a parameter, an option, an arena; else 0.
    pub key: i16,
    /// What it sets or passes; else 0.
    pub value: i32,
}

impl DirectiveCall {
    /// Directive and key in one number of at most 21 bits.
    pub(crate) const fn code(self) -> u32 {
        self.directive as u32 | (self.key.cast_unsigned() as u32) << Directive::BITS
    }

    /// The inverse of [`Self::code`], with the value.
    pub(crate) fn from_code(code: u32, value: i32) -> Option<Self> {
        let key = u16::try_from(code >> Directive::BITS).ok()?;
        let directive = Directive::from_bits((code & ((1 << Directive::BITS) - 1)) as u8)?;
        Some(Self { directive, key: key.cast_signed(), value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_have_their_numbers_and_names_once() {
        for (bits, directive) in Directive::ALL.into_iter().enumerate() {
            assert_eq!(directive as usize, bits);
            assert_eq!(Directive::from_name(directive.name()), Some(directive));
            for (key, value) in [(0, 0), (-1, i32::MIN), (i16::MIN, -1), (i16::MAX, i32::MAX)] {
                let call = DirectiveCall { directive, key, value };
                assert_eq!(DirectiveCall::from_code(call.code(), value), Some(call));
            }
        }
        assert!(Directive::ALL.len() <= 1 << Directive::BITS);
        assert_eq!(DirectiveCall::from_code(Directive::ALL.len() as u32, 0), None);
        assert_eq!(DirectiveCall::from_code(1 << 21, 0), None);
    }
}
