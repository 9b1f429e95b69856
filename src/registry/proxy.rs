use std::net::IpAddr;

use super::secret::Secret;
use super::url::{Scheme, Url, is_loopback};

/// Which proxy serves which host, in the sense of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, read as Go programs read
/// them (golang.org/x/net/http/httpproxy), for those are what registries are usually reached with. Addresses of proxies may
/// hold passwords.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// For `http` addresses: `[http://][USER:PASSWORD@]HOST[:PORT]`.
    pub http: Option<Secret>,
    /// For `https` addresses.
    pub https: Option<Secret>,
    /// Hosts that are reached directly: names (with all below them), `.suffixes`, addresses, CIDR ranges, each with a port
    /// or without, separated by commas; `*` is all.
    pub none_for: String,
}

impl Proxies {
    /// The proxy for an address.
    pub(super) fn serving(&self, url: &Url) -> Option<&Secret> {
        let proxy = match url.scheme {
            Scheme::Http => self.http.as_ref(),
            Scheme::Https => self.https.as_ref(),
        };
        proxy.filter(|proxy| !proxy.expose().is_empty() && !self.passes_by(url))
    }

    fn passes_by(&self, url: &Url) -> bool {
        let host = url.host().trim_end_matches('.').to_ascii_lowercase();
        if is_loopback(&host) {
            return true;
        }
        let port = url.port();
        self.none_for.split(',').map(str::trim).any(|entry| excludes(&entry.to_ascii_lowercase(), &host, port))
    }
}

fn excludes(entry: &str, host: &str, port: u16) -> bool {
    if entry.is_empty() {
        return false;
    }
    if entry == "*" {
        return true;
    }
    let address = host.parse::<IpAddr>().ok();
    if let (Some((network, bits)), Some(address)) = (entry.split_once('/'), address) {
        return matches!((network.parse(), bits.parse()), (Ok(network), Ok(bits)) if is_inside(address, network, bits));
    }
    let (name, wanted_port) = match entry.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => match digits.parse::<u16>() {
            Ok(port) => (name, Some(port)),
            Err(_) => return false,
        },
        _ => (entry, None),
    };
    if wanted_port.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(excluded) = name.parse::<IpAddr>() {
        return address == Some(excluded);
    }
    let name = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name);
    match name.strip_prefix('.') {
        Some(suffix) => host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')),
        None => host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
    }
}

/// Whether `address` lies in `network/bits`.
fn is_inside(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            u32::from(address) & mask == u32::from(network) & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            u128::from(address) & mask == u128::from(network) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy_of<'a>(proxies: &'a Proxies, url: &str) -> Option<&'a str> {
        proxies.serving(&Url::parse(url).unwrap()).map(Secret::expose)
    }

    #[test]
    fn each_scheme_has_its_own() {
        let proxies = Proxies {
            http: Some(Secret::new("p:1")),
            https: Some(Secret::new("p:2")),
            none_for: "direct.org,.sub.net,10.0.0.0/8,[fd00::1]:99,only.port:8080,*.wild.org,192.168.1.7".into(),
        };
        assert_eq!(proxy_of(&proxies, "http://x.org/"), Some("p:1"));
        assert_eq!(proxy_of(&proxies, "https://x.org/"), Some("p:2"));
        for direct in [
            "http://direct.org/",
            "https://a.direct.org:5000/",
            "https://a.sub.net/",
            "http://10.200.3.4:5000/",
            "https://[fd00::1]:99/",
            "http://only.port:8080/",
            "https://a.wild.org/",
            "http://192.168.1.7:1/",
            "http://localhost:5000/",
            "http://127.0.0.1:5000/",
            "http://[::1]:5000/",
        ] {
            assert_eq!(proxy_of(&proxies, direct), None, "{direct}");
        }
        for proxied in ["http://sub.net/", "http://notdirect.org/", "http://11.0.0.1/", "http://only.port:81/"] {
            assert_eq!(proxy_of(&proxies, proxied), Some("p:1"), "{proxied}");
        }
        let none = Proxies { none_for: "*".into(), ..proxies };
        assert_eq!(proxy_of(&none, "https://x.org/"), None);
        assert_eq!(proxy_of(&Proxies::default(), "https://x.org/"), None);
    }
}
