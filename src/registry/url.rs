use std::fmt;
use std::net::IpAddr;

/// How a host is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// An address. Shown without its query, which in addresses of blobs holds what gives access to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) scheme: Scheme,
    /// `HOST[:PORT]` in lower case.
    pub(super) authority: String,
    /// From the first slash on.
    path: String,
}

impl Url {
    pub(super) fn new(scheme: Scheme, authority: &str, path: &str) -> Url {
        Url { scheme, authority: authority.to_ascii_lowercase(), path: path.to_string() }
    }

    /// Parses `http://…` or `https://…` without user names in it.
    pub(super) fn parse(text: &str) -> Option<Url> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if !super::settings::is_host(authority) || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        Some(Url { scheme, authority: authority.to_ascii_lowercase(), path })
    }

    /// The address that `location` means when this one answers with it.
    pub(super) fn join(&self, location: &str) -> Option<Url> {
        let location = location.split('#').next().unwrap_or_default();
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        if location.contains("://") && !location.starts_with(['/', '?']) {
            return Url::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Url::parse(&format!("{scheme}://{rest}"));
        }
        let bare = self.path.split('?').next().unwrap_or_default();
        let path = match location {
            absolute if absolute.starts_with('/') => absolute.to_string(),
            query if query.starts_with('?') => format!("{bare}{query}"),
            relative => format!("{}/{relative}", bare.rsplit_once('/').map_or("", |(directory, _)| directory)),
        };
        Url::parse(&format!("{scheme}://{}{path}", self.authority))
    }

    /// With these parameters added.
    pub(super) fn with_query(&self, parameters: &[(&str, &str)]) -> Url {
        let mut url = self.clone();
        for (name, value) in parameters {
            url.path.push(if url.path.contains('?') { '&' } else { '?' });
            url.path.push_str(&format!("{name}={}", percent_encoded(value)));
        }
        url
    }

    /// The whole of it, for the request.
    pub(super) fn full(&self) -> String {
        format!("{}{}", self.root(), self.path)
    }

    fn root(&self) -> String {
        let scheme = if self.scheme == Scheme::Http { "http" } else { "https" };
        format!("{scheme}://{}", self.authority)
    }

    /// Whether credentials for one are meant for the other.
    pub(super) fn is_same_server(&self, other: &Url) -> bool {
        self.scheme == other.scheme && self.host() == other.host() && self.port() == other.port()
    }

    /// The host without port and brackets.
    pub(super) fn host(&self) -> &str {
        split_port(&self.authority).0
    }

    pub(super) fn port(&self) -> u16 {
        let usual = if self.scheme == Scheme::Http { 80 } else { 443 };
        split_port(&self.authority).1.unwrap_or(usual)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = self.path.split('?').next().unwrap_or_default();
        write!(f, "{}{bare}", self.root())
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

/// For values in a query or a form (RFC 3986: all but unreserved characters).
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_followed() {
        let base = Url::parse("https://R.example:5000/v2/x/blobs/sha256:1?a=b").unwrap();
        for (location, want) in [
            ("https://cdn.example/y?sig=1", "https://cdn.example/y?sig=1"),
            ("//cdn.example/y", "https://cdn.example/y"),
            ("/y/z?k", "https://r.example:5000/y/z?k"),
            ("z", "https://r.example:5000/v2/x/blobs/z"),
            ("/y?next=http://elsewhere/", "https://r.example:5000/y?next=http://elsewhere/"),
        ] {
            assert_eq!(base.join(location).unwrap().full(), want, "{location}");
        }
        for bad in ["ftp://x/y", "https://user:pass@x/", "https:///y", "/a b"] {
            assert!(base.join(bad).is_none(), "{bad}");
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
            url.with_query(&[("scope", "repository:a/b:pull")]).full().split('&').nth(1).unwrap(),
            "scope=repository%3Aa%2Fb%3Apull"
        );
        assert_eq!((Url::parse("http://[::1]:5000/").unwrap().host(), is_loopback("127.3.0.1:80")), ("::1", true));
        assert!(!is_loopback("localhost.example.org"));
    }
}
