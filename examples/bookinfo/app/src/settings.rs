//! What the environment says: names as in Istio's Bookinfo images.

/// Where one of the other services answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    pub host: String,
    pub port: u16,
}

/// The settings of one process; each service reads what concerns it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub details: Peer,
    pub reviews: Peer,
    pub ratings: Peer,
    /// The Google Books stand-in of details v2.
    pub books: Peer,
    pub external_books: bool,
    pub do_not_encrypt: bool,
    pub version: String,
    pub ratings_enabled: bool,
    pub star_color: String,
    pub stars: [u8; 2],
    pub pod: String,
    pub cluster: String,
}

impl Settings {
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Settings {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let domain = get("SERVICES_DOMAIN")
            .map(|d| format!(".{d}"))
            .unwrap_or_default();
        let peer = |service: &str| {
            let upper = service.to_ascii_uppercase();
            let host = get(&format!("{upper}_HOSTNAME"));
            let port = get(&format!("{upper}_SERVICE_PORT"));
            Peer {
                host: host.unwrap_or_else(|| service.to_owned()) + &domain,
                port: port.and_then(|p| p.parse().ok()).unwrap_or(9080),
            }
        };
        let version = get("SERVICE_VERSION").unwrap_or_else(|| "v1".to_owned());
        // The images of reviews v2 and v3 set these; here the version implies them.
        let implied_color = if version == "v3" { "red" } else { "black" };
        let flag = |name: &str| get(name).map(|value| value == "true");
        Settings {
            details: peer("details"),
            reviews: peer("reviews"),
            ratings: peer("ratings"),
            books: Peer {
                host: get("BOOKS_HOSTNAME").unwrap_or_else(|| "www.googleapis.com".to_owned()),
                port: get("BOOKS_SERVICE_PORT")
                    .and_then(|p| p.parse().ok())
                    .unwrap_or(80),
            },
            external_books: flag("ENABLE_EXTERNAL_BOOK_SERVICE").unwrap_or(false),
            do_not_encrypt: flag("DO_NOT_ENCRYPT").unwrap_or(false),
            ratings_enabled: flag("ENABLE_RATINGS").unwrap_or(version != "v1"),
            star_color: get("STAR_COLOR").unwrap_or_else(|| implied_color.to_owned()),
            stars: parse_stars(get("RATINGS").as_deref()),
            pod: get("POD_NAME")
                .or_else(|| get("HOSTNAME"))
                .unwrap_or_else(kernel_hostname),
            cluster: get("CLUSTER_NAME").unwrap_or_else(|| "null".to_owned()),
            version,
        }
    }
}

/// `RATINGS=5,4`: the stars of the two reviewers, in place of the original's database.
fn parse_stars(text: Option<&str>) -> [u8; 2] {
    let parsed = text.and_then(|text| {
        let (first, second) = text.split_once(',')?;
        let star = |s: &str| s.trim().parse::<u8>().ok().filter(|n| *n <= 5);
        Some([star(first)?, star(second)?])
    });
    parsed.unwrap_or([5, 4])
}

fn kernel_hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::from_environment(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_version_implies_ratings_and_colour() {
        for (version, enabled, color) in [
            ("v1", false, "black"),
            ("v2", true, "black"),
            ("v3", true, "red"),
        ] {
            let got = settings(&[("SERVICE_VERSION", version)]);
            assert_eq!(
                (got.ratings_enabled, got.star_color.as_str()),
                (enabled, color)
            );
        }
        let got = settings(&[("SERVICE_VERSION", "v3"), ("ENABLE_RATINGS", "false")]);
        assert!(
            !got.ratings_enabled,
            "the environment wins over the version"
        );
    }

    #[test]
    fn hosts_ports_and_domain_come_from_the_environment() {
        let got = settings(&[
            ("DETAILS_HOSTNAME", "book-details"),
            ("SERVICES_DOMAIN", "books.svc"),
            ("REVIEWS_SERVICE_PORT", "9081"),
            ("RATINGS_SERVICE_PORT", ""),
        ]);
        assert_eq!(
            got.details,
            Peer {
                host: "book-details.books.svc".into(),
                port: 9080
            }
        );
        assert_eq!(
            got.reviews,
            Peer {
                host: "reviews.books.svc".into(),
                port: 9081
            }
        );
        assert_eq!(got.ratings.port, 9080, "an empty variable counts as unset");
    }

    #[test]
    fn stars() {
        for (text, want) in [
            (None, [5, 4]),
            (Some("1, 2"), [1, 2]),
            (Some("9,1"), [5, 4]),
            (Some("x"), [5, 4]),
        ] {
            assert_eq!(parse_stars(text), want, "{text:?}");
        }
    }
}
