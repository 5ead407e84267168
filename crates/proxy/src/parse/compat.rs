//! Which field of which message is read, refused or ignored, declared where it is parsed.
//! `table` is what docs/compat/envoy.md is generated from.

use super::Context;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Parsed; values that are not performed are refused where they are read.
    Read,
    /// Refused when set.
    Rejected,
    /// Accepted and without effect, because clients cannot tell.
    Ignored(&'static str),
}

#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub name: &'static str,
    pub support: Support,
}

#[derive(Debug, Clone)]
pub struct MessageSupport {
    pub message: String,
    pub fields: &'static [Field],
}

/// A message whose fields are all accounted for.
pub trait Message {
    const FIELDS: &'static [Field];
    /// Refuses what is set and not performed.
    fn check(&self, context: &mut Context);
}

pub(crate) fn row<M: Message + prost::Name>() -> MessageSupport {
    MessageSupport {
        message: M::full_name(),
        fields: M::FIELDS,
    }
}

/// All messages that the proxy reads, by name.
pub fn table() -> Vec<MessageSupport> {
    let mut rows: Vec<MessageSupport> = [
        crate::access_log::compat_rows(),
        crate::access_log::filter::compat_rows(),
        crate::http::filters::all_compat_rows(),
        crate::matcher::compat_rows(),
        crate::network::rbac::compat_rows(),
        crate::rbac::all_compat_rows(),
        crate::retry::compat_rows(),
        crate::route::compat_rows(),
        crate::stats::compat_rows(),
        crate::stats::istio::compat_rows(),
        super::address::compat_rows(),
        super::bootstrap::compat_rows(),
        super::cluster::all_compat_rows(),
        super::config_source::compat_rows(),
        super::endpoint::compat_rows(),
        super::http_connection_manager::compat_rows(),
        super::http_options::compat_rows(),
        super::listener::compat_rows(),
        super::network_filter::compat_rows(),
        super::tcp_proxy::compat_rows(),
        super::tls::compat_rows(),
    ]
    .into_iter()
    .flatten()
    .collect();
    rows.sort_by(|a, b| a.message.cmp(&b.message));
    rows
}

/// Accounts for every field of each message. The pattern has no `..`, so a new field in Envoy's
/// API stops the build until someone decides.
macro_rules! fields {
    ($($message:path {
        $(read: $($read:ident),+ ;)?
        $(reject: $($reject:ident),+ ;)?
        $(ignore: $($ignore:ident = $why:literal),+ ;)?
    })+) => {
        $(impl $crate::parse::compat::Message for $message {
            const FIELDS: &'static [$crate::parse::compat::Field] = &[
                $($($crate::parse::compat::Field {
                    name: stringify!($read),
                    support: $crate::parse::compat::Support::Read,
                },)+)?
                $($($crate::parse::compat::Field {
                    name: stringify!($reject),
                    support: $crate::parse::compat::Support::Rejected,
                },)+)?
                $($($crate::parse::compat::Field {
                    name: stringify!($ignore),
                    support: $crate::parse::compat::Support::Ignored($why),
                },)+)?
            ];

            fn check(&self, context: &mut $crate::parse::Context) {
                let _ = &context;
                let $message {
                    $($($read: _,)+)?
                    $($($reject,)+)?
                    $($($ignore: _,)+)?
                } = self;
                $($(context.unsupported(stringify!($reject), $reject);)+)?
            }
        })+

        pub(crate) fn compat_rows() -> Vec<$crate::parse::compat::MessageSupport> {
            vec![$($crate::parse::compat::row::<$message>()),+]
        }
    };
}
