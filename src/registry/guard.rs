//! Addresses that a document of an image names are somebody's choice whom we do not trust: they must not make us reach what
//! only this machine or its network can reach (server-side request forgery, CWE-918).

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs as _};
use std::sync::{Arc, OnceLock};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::url::{Scheme, Url};
use crate::error::{Error, ErrorKind, Result};

/// What kind of network an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Network {
    Public,
    Loopback,
    LinkLocal,
    Private,
    /// Multicast, reserved, unspecified: no server is there.
    Nowhere,
}

/// Finds the addresses of hosts, and refuses those that are not public, unless the registry itself has one of that kind. A
/// name is judged by the addresses that are then connected to, so it makes no difference what it resolves to another time.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    registry: Arc<str>,
    allowed: Arc<OnceLock<BTreeSet<Network>>>,
}

/// Why a connection is not made.
#[derive(Debug)]
pub(super) struct Refused {
    address: IpAddr,
    network: Network,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.network {
            Network::Loopback => "an address of this machine",
            Network::LinkLocal => "a link-local address",
            Network::Private => "an address of a private network",
            Network::Nowhere | Network::Public => "not the address of a server",
        };
        write!(f, "refused to connect to {}, {kind}: an image must not make this machine do that", self.address)
    }
}

impl std::error::Error for Refused {}

impl Guard {
    pub(super) fn of_registry(authority: &str) -> Self {
        Guard { registry: authority.into(), allowed: Arc::default() }
    }

    /// Looks at a host that a proxy may resolve in our place: what is known of it here must be public.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] where it is not.
    pub(super) fn check(&self, url: &Url) -> Result<()> {
        let refused = addresses(url).into_iter().find_map(|address| self.judge(address).err());
        refused.map_or(Ok(()), |refused| Err(Error::new(ErrorKind::Network, format!("{url}: {refused}"))))
    }

    fn judge(&self, address: IpAddr) -> std::result::Result<(), Refused> {
        let network = network_of(address);
        let is_allowed = || {
            let of_registry =
                || Url::new(Scheme::Https, &self.registry, "/").map(|url| addresses(&url)).into_iter().flatten();
            network != Network::Nowhere
                && self.allowed.get_or_init(|| of_registry().map(network_of).collect()).contains(&network)
        };
        if network == Network::Public || is_allowed() { Ok(()) } else { Err(Refused { address, network }) }
    }
}

impl Resolver for Guard {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        for address in &found {
            self.judge(address.ip()).map_err(|refused| ureq::Error::Other(Box::new(refused)))?;
        }
        Ok(found)
    }
}

/// The addresses of a host as far as this machine knows them.
fn addresses(url: &Url) -> Vec<IpAddr> {
    let found = (url.host(), url.port()).to_socket_addrs();
    found.map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default()
}

fn network_of(address: IpAddr) -> Network {
    match address {
        IpAddr::V4(address) => network_of_v4(address),
        IpAddr::V6(address) => network_of_v6(address),
    }
}

/// IANA's registry of special-purpose IPv4 addresses (RFC 6890).
fn network_of_v4(address: Ipv4Addr) -> Network {
    let octets = address.octets();
    match octets {
        // Linux connects to itself where 0.0.0.0 is asked for.
        [0, ..] | [127, ..] => Network::Loopback,
        [169, 254, ..] => Network::LinkLocal,
        // 100.64.0.0/10 is shared by the customers of a provider (RFC 6598), 198.18.0.0/15 is for measurements.
        [10, ..] | [192, 168, ..] | [198, 18..=19, ..] | [172, 16..=31, ..] | [100, 64..=127, ..] => Network::Private,
        [192, 0, 0, _] | [224..=255, ..] => Network::Nowhere,
        _ => Network::Public,
    }
}

/// IANA's registry of special-purpose IPv6 addresses, with those that carry an IPv4 address judged by that.
fn network_of_v6(address: Ipv6Addr) -> Network {
    let segments = address.segments();
    let low = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        network_of_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0..=1] => Network::Loopback,
        // Mapped (RFC 4291), compatible, and translated (RFC 6052, RFC 8215).
        [0, 0, 0, 0, 0, 0xffff | 0, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] => low(a, b),
        [0x64, 0xff9b, 1, ..] => Network::Private,
        // 6to4 (RFC 3056).
        [0x2002, a, b, ..] => low(a, b),
        [0xfe80..=0xfebf, ..] => Network::LinkLocal,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Network::Private,
        [0xff00..=0xffff, ..] => Network::Nowhere,
        _ => Network::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_told_apart() {
        let of = |text: &str| network_of(text.parse().unwrap());
        for text in
            ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "::7f00:1"]
        {
            assert_eq!(of(text), Network::Loopback, "{text}");
        }
        for text in ["169.254.169.254", "fe80::1", "::ffff:169.254.1.1", "2002:a9fe:a9fe::1"] {
            assert_eq!(of(text), Network::LinkLocal, "{text}");
        }
        for text in ["10.1.2.3", "172.31.0.1", "192.168.0.1", "100.64.0.1", "fd00::1", "fec0::1", "::ffff:10.0.0.1"] {
            assert_eq!(of(text), Network::Private, "{text}");
        }
        for text in ["224.0.0.1", "255.255.255.255", "ff02::1"] {
            assert_eq!(of(text), Network::Nowhere, "{text}");
        }
        for text in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111"] {
            assert_eq!(of(text), Network::Public, "{text}");
        }
    }

    #[test]
    fn what_the_registry_is_may_be_reached() {
        let at = |registry: &str| Guard::of_registry(registry);
        let goes = |guard: &Guard, url: &str| guard.check(&Url::parse(url).unwrap()).is_ok();
        let (public, local, private) = (at("9.9.9.9"), at("127.0.0.1:5000"), at("10.0.0.1"));
        for url in ["http://127.0.0.1:1/", "http://localhost/x", "http://[::1]/", "http://0.0.0.0/"] {
            assert!(!goes(&public, url) && goes(&local, url) && !goes(&private, url), "{url}");
        }
        let error = public.check(&Url::parse("http://169.254.169.254/latest").unwrap()).unwrap_err();
        assert!(error.to_string().contains("a link-local address"), "{error}");
        assert!(goes(&private, "http://192.168.1.1/") && !goes(&local, "http://192.168.1.1/"));
        assert!(goes(&public, "http://8.8.8.8/"));
    }
}
