//! Fractions of requests: `FractionalPercent` and its runtime form.

use envoy_api::types::fractional_percent::DenominatorType;
use envoy_api::{core, types};

use crate::parse::Context;
use crate::parse::compat::Message as _;

/// `numerator` of each `denominator` requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    numerator: u32,
    denominator: u32,
}

impl Fraction {
    pub const ALL: Fraction = Fraction {
        numerator: 100,
        denominator: 100,
    };
    pub const NONE: Fraction = Fraction {
        numerator: 0,
        denominator: 100,
    };

    /// From a percentage as a real number (`Percent`), to a hundredth of a percent like Envoy.
    pub fn from_percent(percent: f64) -> Fraction {
        Fraction {
            numerator: (percent * 100.0).clamp(0.0, 10_000.0) as u32,
            denominator: 10_000,
        }
    }

    /// Whether a request with this random number is in.
    pub fn holds(self, random: u64) -> bool {
        random % u64::from(self.denominator) < u64::from(self.numerator)
    }

    pub fn is_none(self) -> bool {
        self.numerator == 0
    }

    pub fn is_all(self) -> bool {
        self.numerator >= self.denominator
    }

    pub fn per_million(self) -> u32 {
        let scaled = u64::from(self.numerator) * 1_000_000 / u64::from(self.denominator);
        u32::try_from(scaled.min(1_000_000)).unwrap_or(1_000_000)
    }
}

fields! {
    types::FractionalPercent { read: numerator, denominator; }
    core::RuntimeFractionalPercent {
        read: default_value;
        ignore: runtime_key = "no runtime layer overrides it";
    }
}

pub fn parse(context: &mut Context, message: &types::FractionalPercent) -> Option<Fraction> {
    message.check(context);
    let denominator = match context.enumeration("denominator", message.denominator)? {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    };
    Some(Fraction {
        numerator: message.numerator,
        denominator,
    })
}

pub fn runtime(
    context: &mut Context,
    message: &core::RuntimeFractionalPercent,
) -> Option<Fraction> {
    message.check(context);
    match &message.default_value {
        Some(value) => context.field("default_value", |context| parse(context, value)),
        None => {
            context.error_at("default_value", "is required");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_for_its_share() {
        for (numerator, denominator, random, want, why) in [
            (0, 0, 0, false, "never"),
            (100, 0, 99, true, "always"),
            (50, 0, 49, true, "below"),
            (50, 0, 150, false, "modulo the denominator"),
            (1, 2, 1_000_000, true, "a millionth"),
            (300, 0, 7, true, "more than all is all"),
        ] {
            let message = types::FractionalPercent {
                numerator,
                denominator,
            };
            let fraction = parse(&mut Context::new(), &message).expect("parses");
            assert_eq!(fraction.holds(random), want, "{why}");
        }
        assert_eq!(
            Fraction::from_percent(0.5).per_million(),
            5_000,
            "half a percent"
        );
    }
}
