//! What criterion was asked for, for the parts of a bench that criterion does not run itself.
//!
//! Invariant: a word that is no option and no option's value is the filter, as criterion takes it.

/// Options of criterion that take a value, so that the value is not taken for a filter.
const VALUED: &[&str] = &[
    "--save-baseline",
    "-s",
    "--baseline",
    "-b",
    "--baseline-lenient",
    "--sample-size",
    "--warm-up-time",
    "--measurement-time",
    "--nresamples",
    "--noise-threshold",
    "--confidence-level",
    "--significance-level",
    "--plotting-backend",
    "--output-format",
    "--format",
    "--color",
    "--colour",
    "-c",
];

/// Options under which nothing, or nothing new, is measured.
const NOT_MEASURING: &[&str] = &["--test", "--list", "--load-baseline", "--profile-time", "--help", "-h"];

/// What is to be measured now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing, or nothing new: a test, a list, an old baseline.
    Nothing,
    /// Everything.
    Everything,
    /// What has this in its name.
    Matching(String),
}

impl Wanted {
    /// By the command line of this process.
    pub(crate) fn now() -> Self {
        Self::by(std::env::args().skip(1))
    }

    fn by(mut arguments: impl Iterator<Item = String>) -> Self {
        let (mut is_bench, mut filter) = (false, None);
        while let Some(argument) = arguments.next() {
            let name = argument.split('=').next().unwrap_or_default();
            if NOT_MEASURING.contains(&name) {
                return Self::Nothing;
            }
            is_bench |= name == "--bench";
            if !name.starts_with('-') {
                filter = Some(argument);
            } else if VALUED.contains(&argument.as_str()) {
                arguments.next();
            }
        }
        match (is_bench, filter) {
            (false, _) => Self::Nothing,
            (true, None) => Self::Everything,
            (true, Some(filter)) => Self::Matching(filter),
        }
    }
}
