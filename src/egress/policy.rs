//! Which addresses may be dialled. Pure.
//!
//! A deny list wins over everything. An allow list lifts what is refused by default: addresses of the machine
//! itself and of its link, of the metadata services of clouds, and those that are no single host. Private
//! networks are not refused: receivers in the cluster are reached there. An IPv6 address that carries an IPv4
//! address is judged by both, for a router or the kernel may turn one into the other.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What an administrator has said of addresses.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    allow: Vec<Range>,
    deny: Vec<Range>,
}

/// A range of addresses: a CIDR such as `10.0.0.0/8`, or one address. Bits behind the prefix do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range(IpNet);

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The deny list has it in this range.
    Denied(Range),
    /// It is one of those that are refused by default.
    Default(Class),
}

/// What an address is that is refused by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// RFC 1122, 3.2.1.3 (g), and RFC 4291, 2.5.3.
    Loopback,
    /// RFC 3927 and RFC 4291, 2.5.6. Most clouds have their metadata service there.
    LinkLocal,
    /// The metadata service of a cloud that is not on the link.
    Metadata,
    /// RFC 1112 and RFC 4291, 2.7.
    Multicast,
    /// "This host": RFC 1122, 3.2.1.3 (a), and RFC 4291, 2.5.2. It reaches the machine itself.
    Unspecified,
    /// RFC 919.
    Broadcast,
    /// RFC 1112, 4: class E.
    Reserved,
    /// RFC 8215 and RFC 4380: where in such an address the IPv4 address stands, only its network knows.
    Translated,
}

/// Metadata and credential services of clouds outside of the link-local ranges: of Alibaba, of Azure (its "wire
/// server"), of AWS (IMDS, DNS, time and EKS credentials share the prefix), of Google, of Oracle, of Scaleway.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
const METADATA_V6: [Ipv6Net; 4] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe), 128),
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42), 128),
];

/// NAT64 for local use, RFC 8215, and Teredo, RFC 4380.
const TRANSLATED: [Ipv6Net; 2] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48),
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32),
];

impl Policy {
    /// What is in both lists is denied.
    pub fn new(allow: Vec<Range>, deny: Vec<Range>) -> Self {
        Self { allow, deny }
    }

    /// Whether `address` may be dialled.
    pub fn check(&self, address: IpAddr) -> Result<(), Why> {
        // The kernel dials a mapped address as the IPv4 address that it is.
        let address = address.to_canonical();
        let embedded = embedded(address).map(IpAddr::V4);
        let forms = || std::iter::once(address).chain(embedded);
        let denied = self.deny.iter().find(|range| forms().any(|form| range.0.contains(&form)));
        if let Some(range) = denied {
            return Err(Why::Denied(*range));
        }
        // To allow what is embedded would allow more than was written.
        if self.allow.iter().any(|range| range.0.contains(&address)) {
            return Ok(());
        }
        forms().find_map(class).map_or(Ok(()), |class| Err(Why::Default(class)))
    }
}

fn class(address: IpAddr) -> Option<Class> {
    match address {
        IpAddr::V4(address) => class_v4(address),
        IpAddr::V6(address) => class_v6(address),
    }
}

fn class_v4(address: Ipv4Addr) -> Option<Class> {
    match address.octets() {
        [0, ..] => Some(Class::Unspecified),
        [127, ..] => Some(Class::Loopback),
        [169, 254, ..] => Some(Class::LinkLocal),
        [224..=239, ..] => Some(Class::Multicast),
        [255, 255, 255, 255] => Some(Class::Broadcast),
        [240..=255, ..] => Some(Class::Reserved),
        _ if METADATA_V4.contains(&address) => Some(Class::Metadata),
        _ => None,
    }
}

fn class_v6(address: Ipv6Addr) -> Option<Class> {
    if address.is_unspecified() {
        return Some(Class::Unspecified);
    }
    if address.is_loopback() {
        return Some(Class::Loopback);
    }
    if address.is_unicast_link_local() {
        return Some(Class::LinkLocal);
    }
    if address.is_multicast() {
        return Some(Class::Multicast);
    }
    let is_in = |ranges: &[Ipv6Net]| ranges.iter().any(|range| range.contains(&address));
    if is_in(&METADATA_V6) {
        return Some(Class::Metadata);
    }
    is_in(&TRANSLATED).then_some(Class::Translated)
}

/// The IPv4 address in an IPv6 address of one of the well-known forms.
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let (high, low) = match address.segments() {
        // These two are addresses of their own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => return None,
        // IPv4-compatible and IPv4-translated, RFC 4291, 2.5.5.1, and RFC 2765, 2.1; NAT64, RFC 6052, 2.1; 6to4,
        // RFC 3056, 2.
        [0, 0, 0, 0, 0 | 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(Ipv4Addr::new(a, b, c, d))
}

impl FromStr for Range {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let net = net.map_err(|_| "neither a CIDR such as 10.0.0.0/8 nor an IP address")?.trunc();
        // Written for IPv4 addresses in their mapped form: these are judged as IPv4 addresses.
        let mapped = match net {
            IpNet::V6(v6) if v6.prefix_len() >= 96 => {
                v6.network().to_ipv4_mapped().zip(Some(v6.prefix_len()))
            }
            _ => None,
        };
        let mapped = mapped.and_then(|(address, length)| Ipv4Net::new(address, length - 96).ok());
        Ok(Self(mapped.map_or(net, IpNet::V4)))
    }
}

impl From<IpAddr> for Range {
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical().into())
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address, where clouds have their metadata service",
            Self::Metadata => "the address of a cloud's metadata service",
            Self::Multicast => "a multicast address",
            Self::Unspecified => "an address of \"this host\"",
            Self::Broadcast => "the broadcast address",
            Self::Reserved => "a reserved address",
            Self::Translated => "an address that is translated to one which nobody can tell",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> Policy {
        let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Policy::new(ranges(allow), ranges(deny))
    }

    fn refused(policy: &Policy, address: &str) -> Option<Why> {
        policy.check(address.parse().unwrap()).err()
    }

    #[test]
    fn by_default() {
        use Class::{Broadcast, LinkLocal, Loopback, Metadata, Multicast, Reserved, Translated, Unspecified};
        for (address, class) in [
            ("127.0.0.1", Some(Loopback)),
            ("127.255.255.254", Some(Loopback)),
            ("::1", Some(Loopback)),
            ("0.0.0.0", Some(Unspecified)),
            ("0.1.2.3", Some(Unspecified)),
            ("::", Some(Unspecified)),
            ("169.254.169.254", Some(LinkLocal)),
            ("169.254.170.23", Some(LinkLocal)),
            ("fe80::1", Some(LinkLocal)),
            ("febf::1", Some(LinkLocal)),
            ("fe80::a9fe:a9fe", Some(LinkLocal)),
            ("100.100.100.200", Some(Metadata)),
            ("168.63.129.16", Some(Metadata)),
            ("fd00:ec2::254", Some(Metadata)),
            ("fd00:ec2::23", Some(Metadata)),
            ("fd20:ce::254", Some(Metadata)),
            ("fd00:c1::a9fe:a9fe", Some(Metadata)),
            ("fd00:42::42", Some(Metadata)),
            ("224.0.0.1", Some(Multicast)),
            ("239.255.255.255", Some(Multicast)),
            ("ff02::1", Some(Multicast)),
            ("255.255.255.255", Some(Broadcast)),
            ("240.0.0.1", Some(Reserved)),
            // Mapped, compatible, translated, NAT64, 6to4.
            ("::ffff:127.0.0.1", Some(Loopback)),
            ("::ffff:169.254.169.254", Some(LinkLocal)),
            ("::ffff:0.0.0.0", Some(Unspecified)),
            ("::127.0.0.1", Some(Loopback)),
            ("::169.254.169.254", Some(LinkLocal)),
            ("::0.0.0.2", Some(Unspecified)),
            ("::ffff:0:127.0.0.1", Some(Loopback)),
            ("64:ff9b::127.0.0.1", Some(Loopback)),
            ("64:ff9b::169.254.169.254", Some(LinkLocal)),
            ("64:ff9b::100.100.100.200", Some(Metadata)),
            ("2002:7f00:1::", Some(Loopback)),
            ("2002:a9fe:a9fe::1", Some(LinkLocal)),
            ("2002:ffff:ffff::", Some(Broadcast)),
            ("64:ff9b:1::1", Some(Translated)),
            ("2001::1", Some(Translated)),
            // What is dialled: the public, and private networks.
            ("192.0.2.1", None),
            ("1.1.1.1", None),
            ("10.0.0.1", None),
            ("172.16.0.1", None),
            ("192.168.1.1", None),
            ("100.64.0.1", None),
            ("126.255.255.255", None),
            ("128.0.0.1", None),
            ("169.253.255.255", None),
            ("223.255.255.255", None),
            ("2001:db8::1", None),
            ("2606:4700::1111", None),
            ("fd12:3456::1", None),
            ("fd00:ec3::254", None),
            ("fec0::1", None),
            ("::ffff:10.0.0.1", None),
            ("64:ff9b::8.8.8.8", None),
            ("2002:808:808::1", None),
        ] {
            assert_eq!(refused(&Policy::default(), address), class.map(Why::Default), "{address}");
        }
    }

    #[test]
    fn allow_lifts_a_default_and_no_more_than_is_written() {
        let allowed = policy(&["127.0.0.0/8", "fe80::/10"], &[]);
        for address in ["127.0.0.1", "127.9.9.9", "::ffff:127.0.0.1", "fe80::1"] {
            assert_eq!(refused(&allowed, address), None, "{address}");
        }
        for address in ["169.254.169.254", "::1", "64:ff9b::127.0.0.1", "2002:7f00:1::", "::127.0.0.1"] {
            assert!(refused(&allowed, address).is_some(), "{address}");
        }
        assert_eq!(refused(&policy(&["64:ff9b::/96"], &[]), "64:ff9b::127.0.0.1"), None);
        assert_eq!(refused(&policy(&["169.254.169.254"], &[]), "169.254.169.254"), None);
        assert!(refused(&policy(&["169.254.169.254"], &[]), "169.254.169.253").is_some());
    }

    #[test]
    fn deny_wins_in_every_form() {
        let denied = policy(&["10.0.0.0/8", "127.0.0.0/8", "64:ff9b::/96"], &["10.96.0.0/12", "127.0.0.1"]);
        for address in ["10.96.0.1", "::ffff:10.96.0.1", "64:ff9b::10.96.0.1", "2002:0a60:1::", "127.0.0.1"] {
            assert!(matches!(refused(&denied, address), Some(Why::Denied(_))), "{address}");
        }
        assert_eq!(refused(&denied, "10.95.0.1"), None);
        assert_eq!(refused(&denied, "127.0.0.2"), None);
        for everything in [policy(&[], &["0.0.0.0/0", "::/0"]), policy(&[], &["::ffff:0:0/96", "::/0"])] {
            for address in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"] {
                assert!(matches!(refused(&everything, address), Some(Why::Denied(_))), "{address}");
            }
        }
    }

    #[test]
    fn ranges_are_read_as_they_are_meant() {
        for (text, range) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("127.0.0.1", "127.0.0.1/32"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("fd00::1/8", "fd00::/8"),
        ] {
            assert_eq!(text.parse::<Range>().unwrap().to_string(), range, "{text}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "localhost", "0x7f.1", "10.0.0.0/-1", " 10.0.0.1"] {
            assert!(text.parse::<Range>().is_err(), "{text:?}");
        }
    }

    fn any_range() -> impl Strategy<Value = Range> {
        let v4 = (any::<u32>(), 0..=32_u8)
            .prop_map(|(bits, length)| IpNet::new(Ipv4Addr::from_bits(bits).into(), length).unwrap());
        let v6 = (any::<u128>(), 0..=128_u8)
            .prop_map(|(bits, length)| IpNet::new(Ipv6Addr::from_bits(bits).into(), length).unwrap());
        prop_oneof![v4, v6].prop_map(|net| net.to_string().parse().unwrap())
    }

    fn carriers(v4: Ipv4Addr) -> [Ipv6Addr; 5] {
        let [a, b, c, d] = v4.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        [
            v4.to_ipv6_mapped(),
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        ]
    }

    proptest! {
        #[test]
        fn what_is_denied_is_never_dialled(range in any_range(), allow in any_range(), within in any::<u128>()) {
            // An address of the range: its network, with other bits behind the prefix.
            let address = match range.0 {
                IpNet::V4(net) => {
                    let bits = u32::try_from(within >> 96).unwrap();
                    IpAddr::from((net.network() | (Ipv4Addr::from_bits(bits) & net.hostmask())).octets())
                }
                IpNet::V6(net) => {
                    IpAddr::from((net.network() | (Ipv6Addr::from_bits(within) & net.hostmask())).octets())
                }
            };
            // A mapped address is an IPv4 address, of which ranges of IPv6 say nothing.
            prop_assume!(address == address.to_canonical());
            let policy = Policy::new(vec![allow, range], vec![range]);
            prop_assert_eq!(policy.check(address), Err(Why::Denied(range)));
        }

        #[test]
        fn an_ipv6_address_reaches_no_ipv4_address_that_is_refused(bits in any::<u32>(), denied in any_range()) {
            let v4 = Ipv4Addr::from_bits(bits);
            let policy = Policy::new(Vec::new(), vec![denied]);
            if policy.check(v4.into()).is_err() {
                for carrier in carriers(v4) {
                    prop_assert!(policy.check(carrier.into()).is_err(), "{}", carrier);
                }
            }
        }
    }
}
