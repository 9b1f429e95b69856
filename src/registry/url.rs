use std::fmt;
use std::net::IpAddr;

use url::Position;

/// How a host is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// A URL without user names. Shown without its query, which in URLs of blobs holds what gives access to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) scheme: Scheme,
    /// `HOST[:PORT]` in lower case.
    pub(super) authority: String,
    url: url::Url,
}

impl Url {
    /// The URL of `path`, which starts with a slash, at `HOST[:PORT]`. The authority stays as it is written, because
    /// certificates and credentials are found by it: `x:443` and `x` are two names.
    pub(super) fn new(scheme: Scheme, authority: &str, path: &str) -> Option<Url> {
        let name = if scheme == Scheme::Http { "http" } else { "https" };
        let url = Url::parse(&format!("{name}://{authority}"))?.join(path)?;
        Some(Url { authority: authority.to_ascii_lowercase(), ..url })
    }

    /// Parses `http://…` or `https://…` without user names in it.
    pub(super) fn parse(text: &str) -> Option<Url> {
        Url::of(url::Url::parse(text).ok()?)
    }

    fn of(mut url: url::Url) -> Option<Url> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        if url[Position::BeforeUsername..Position::BeforeHost].contains('@') {
            return None;
        }
        url.set_fragment(None);
        Some(Url { scheme, authority: url[Position::BeforeHost..Position::BeforePath].to_string(), url })
    }

    /// The URL that `location` means when this one answers with it (RFC 9110, section 10.2.2).
    pub(super) fn join(&self, location: &str) -> Option<Url> {
        Url::of(self.url.join(location).ok()?)
    }

    /// With these parameters added.
    pub(super) fn with_query(&self, parameters: &[(&str, &str)]) -> Url {
        let mut url = self.clone();
        if !parameters.is_empty() {
            url.url.query_pairs_mut().extend_pairs(parameters);
        }
        url
    }

    /// The whole of it, for the request.
    pub(super) fn full(&self) -> &str {
        self.url.as_str()
    }

    /// The repository that an address of a registry's interface (distribution/spec) is about; `None` where it is not such
    /// an address.
    pub(super) fn repository(&self) -> Option<&str> {
        let (_, rest) = self.url.path().split_once("/v2/")?;
        let parts = ["/manifests/", "/blobs/", "/referrers/", "/tags/"];
        let end = parts.iter().filter_map(|part| rest.rfind(part)).max()?;
        Some(&rest[..end]).filter(|repository| !repository.is_empty())
    }

    /// Whether credentials for one are meant for the other.
    pub(super) fn is_same_server(&self, other: &Url) -> bool {
        self.url.origin() == other.url.origin()
    }

    /// The host without port and brackets.
    pub(super) fn host(&self) -> &str {
        let host = self.url.host_str().unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or_default()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url[..Position::AfterPath])
    }
}

/// Splits `HOST[:PORT]`; brackets around IPv6 addresses are taken off.
fn split_port(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

/// Whether a host is this machine.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = split_port(authority).0;
    host == "localhost" || host.ends_with(".localhost") || host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_followed() {
        let base = Url::parse("https://R.example:5000/v2/x/blobs/sha256:1?a=b").unwrap();
        for (location, want) in [
            ("https://cdn.example/y?sig=1", "https://cdn.example/y?sig=1"),
            ("https://cdn.example/y?sig=a%2Fb%3D#top", "https://cdn.example/y?sig=a%2Fb%3D"),
            ("//cdn.example/y", "https://cdn.example/y"),
            ("/y/z?k", "https://r.example:5000/y/z?k"),
            ("?k", "https://r.example:5000/v2/x/blobs/sha256:1?k"),
            ("z", "https://r.example:5000/v2/x/blobs/z"),
            ("../z", "https://r.example:5000/v2/x/z"),
            ("/a b", "https://r.example:5000/a%20b"),
            ("/y?next=http://elsewhere/", "https://r.example:5000/y?next=http://elsewhere/"),
        ] {
            assert_eq!(base.join(location).unwrap().full(), want, "{location}");
        }
        for bad in ["ftp://x/y", "https://user:pass@x/", "https://", "https://x:99999/", "mailto:x@y"] {
            assert!(base.join(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn repositories_are_told_from_other_addresses() {
        let of = |url: &str| Url::parse(url).unwrap().repository().map(str::to_string);
        assert_eq!(of("https://x/v2/a/b/manifests/1").as_deref(), Some("a/b"));
        assert_eq!(of("https://x/v2/a/blobs/uploads/?mount=1&from=c/blobs/d").as_deref(), Some("a"));
        assert_eq!(of("https://x/v2/blobs/manifests/blobs/1").as_deref(), Some("blobs/manifests"));
        assert_eq!(of("https://x/api/v2/a/referrers/sha256:1").as_deref(), Some("a"));
        for other in ["https://x/v2/", "https://x/a/blobs/1", "https://x/v2/manifests/1", "https://x/y?/v2/a/blobs/1"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn queries_are_not_shown_and_servers_are_told_apart() {
        let url = Url::parse("https://x/y?secret=1").unwrap();
        assert_eq!(url.to_string(), "https://x/y");
        assert!(url.is_same_server(&Url::parse("https://X:443/").unwrap()));
        assert!(!url.is_same_server(&Url::parse("http://x/").unwrap()));
        assert!(!url.is_same_server(&Url::parse("https://x:444/").unwrap()));
        assert_eq!(
            url.with_query(&[("scope", "repository:a/b:pull")]).full(),
            "https://x/y?secret=1&scope=repository%3Aa%2Fb%3Apull"
        );
        assert_eq!(Url::parse("https://x/y").unwrap().with_query(&[]).full(), "https://x/y");
        assert_eq!((Url::parse("http://[::1]:5000/").unwrap().host(), is_loopback("127.3.0.1:80")), ("::1", true));
        assert!(!is_loopback("localhost.example.org"));
    }

    #[test]
    fn a_host_keeps_the_port_it_is_named_with() {
        let url = Url::new(Scheme::Https, "X:443", "/v2/").unwrap();
        assert_eq!((url.authority.as_str(), url.full(), url.port()), ("x:443", "https://x/v2/", 443));
        for bad in ["", "x:y", "a:b:c", "u@x", "[::1"] {
            assert!(Url::new(Scheme::Https, bad, "/v2/").is_none(), "{bad}");
        }
    }
}
