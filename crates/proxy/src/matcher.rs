//! Matching bytes: strings, regular expressions, headers, query parameters, fractions.

pub mod fraction;
pub mod header;
pub mod query;
pub mod regex;
pub mod string;

pub use fraction::Fraction;
pub use header::HeaderMatcher;
pub use query::QueryMatcher;
pub use regex::{Regex, Substitution};
pub use string::StringMatcher;

pub(crate) fn compat_rows() -> Vec<crate::parse::compat::MessageSupport> {
    [
        fraction::compat_rows(),
        header::compat_rows(),
        query::compat_rows(),
        regex::compat_rows(),
        string::compat_rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
