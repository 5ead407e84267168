//! Answers that a route gives by itself: redirects and direct responses.

use envoy_api::core::{DataSource, data_source};
use envoy_api::route::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_api::route::{DirectResponseAction, RedirectAction};
use mesh_api::kinds::virtual_service::{
    BodySpecifier, HttpDirectResponse, HttpRedirect, RedirectPort, RedirectPortSelection,
};

use super::route::Place;

/// `None`: a code that no redirect has.
pub fn redirect(written: &HttpRedirect, place: &Place<'_>) -> Option<RedirectAction> {
    let code = match written.redirect_code {
        0 | 301 => RedirectResponseCode::MovedPermanently,
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => return None,
    };
    let mut action = RedirectAction {
        host_redirect: written.authority.clone(),
        response_code: code as i32,
        ..Default::default()
    };
    if !written.prefix_rewrite.is_empty() {
        action.path_rewrite_specifier = Some(PathRewriteSpecifier::PrefixRewrite(
            written.prefix_rewrite.clone(),
        ));
    } else if !written.uri.is_empty() {
        action.path_rewrite_specifier =
            Some(PathRewriteSpecifier::PathRedirect(written.uri.clone()));
    }
    if !written.scheme.is_empty() {
        let scheme = written.scheme.clone();
        action.scheme_rewrite_specifier = Some(SchemeRewriteSpecifier::SchemeRedirect(scheme));
    }
    let own_scheme = if place.tls { "https" } else { "http" };
    let scheme = if written.scheme.is_empty() {
        own_scheme
    } else {
        &written.scheme
    };
    action.port_redirect = match &written.redirect_port {
        Some(RedirectPort::Port(port)) => *port,
        Some(RedirectPort::DerivePort(RedirectPortSelection::FromProtocolDefault)) => {
            if scheme == "https" { 443 } else { 80 }
        }
        Some(RedirectPort::DerivePort(RedirectPortSelection::FromRequestPort)) => {
            let port = u32::from(place.port);
            // The port that the scheme implies is left out.
            let implied = (scheme == "http" && port == 80) || (scheme == "https" && port == 443);
            if implied { 0 } else { port }
        }
        None => 0,
    };
    Some(action)
}

/// A fixed answer.
pub fn direct(written: &HttpDirectResponse) -> DirectResponseAction {
    let body = written
        .body
        .as_ref()
        .and_then(|body| body.specifier.as_ref());
    let specifier = body.map(|body| match body {
        BodySpecifier::String(text) => data_source::Specifier::InlineString(text.clone()),
        BodySpecifier::Bytes(encoded) => {
            use base64::Engine as _;
            let decoded = base64::engine::general_purpose::STANDARD.decode(encoded);
            data_source::Specifier::InlineBytes(decoded.unwrap_or_default().into())
        }
    });
    DirectResponseAction {
        status: written.status,
        body: specifier.map(|specifier| DataSource {
            specifier: Some(specifier),
            ..Default::default()
        }),
        ..Default::default()
    }
}
