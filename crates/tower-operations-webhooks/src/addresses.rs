//! The addresses that webhooks are sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kind of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddressKind {
    /// An address of the public Internet.
    Public,
    /// An address of this machine or of a private network, which a policy can admit.
    Private,
    /// An address that no receiver has: link-local, multicast, reserved, for documentation, of the
    /// metadata service of a cloud, or in a form that leads to another address.
    Special,
}

use AddressKind::{Private, Public, Special};

impl AddressKind {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }
}

/// A range of addresses: the first one, the length of the prefix in bits, and the kind.
type Range<A> = (A, u32, AddressKind);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

const fn v6(high: [u16; 4]) -> Ipv6Addr {
    let [a, b, c, d] = high;
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)
}

/// The ranges of IPv4 that are not public, by the registry of RFC 6890, and single addresses of cloud
/// services. The first match counts.
#[rustfmt::skip]
const V4: [Range<Ipv4Addr>; 18] = [
    (v4(100, 100, 100, 200), 32, Special), // metadata, Alibaba Cloud
    (v4(168, 63, 129, 16), 32, Special),   // the host of a virtual machine, Azure
    (v4(0, 0, 0, 0), 8, Special),          // this network
    (v4(10, 0, 0, 0), 8, Private),
    (v4(100, 64, 0, 0), 10, Private),      // carrier-grade NAT
    (v4(127, 0, 0, 0), 8, Private),        // loopback
    (v4(169, 254, 0, 0), 16, Special),     // link-local; metadata of most clouds
    (v4(172, 16, 0, 0), 12, Private),
    (v4(192, 0, 0, 0), 24, Special),       // protocol assignments
    (v4(192, 0, 2, 0), 24, Special),       // documentation
    (v4(192, 88, 99, 0), 24, Special),     // relays of 6to4
    (v4(192, 168, 0, 0), 16, Private),
    (v4(198, 18, 0, 0), 15, Special),      // benchmarks
    (v4(198, 51, 100, 0), 24, Special),    // documentation
    (v4(203, 0, 113, 0), 24, Special),     // documentation
    (v4(224, 0, 0, 0), 4, Special),        // multicast
    (v4(240, 0, 0, 0), 4, Special),        // reserved
    (v4(255, 255, 255, 255), 32, Special), // broadcast
];

/// The ranges of IPv6. The first match counts; other addresses are [`Special`].
#[rustfmt::skip]
const V6: [Range<Ipv6Addr>; 14] = [
    (Ipv6Addr::LOCALHOST, 128, Private),
    (v6([0xfd00, 0xec2, 0, 0]), 32, Special),                           // metadata, AWS
    (Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe), 128, Special), // metadata, Oracle
    (Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42), 128, Special),   // metadata, Scaleway
    (Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1), 128, Special), // metadata, Akamai
    (Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200), 128, Special), // metadata, Alibaba Cloud
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128, Special),  // metadata, Google Cloud
    (v6([0xfc00, 0, 0, 0]), 7, Private),        // unique-local
    (v6([0x2001, 0, 0, 0]), 23, Special),       // protocol assignments; Teredo, benchmarks
    (v6([0x2001, 0xdb8, 0, 0]), 32, Special),   // documentation
    (v6([0x2002, 0, 0, 0]), 16, Special),       // 6to4
    (v6([0x3ffe, 0, 0, 0]), 16, Special),       // 6bone, returned
    (v6([0x3fff, 0, 0, 0]), 20, Special),       // documentation
    (v6([0x2000, 0, 0, 0]), 3, Public),         // all that is allocated
];

/// The prefix of IPv6 addresses that a NAT64 translates (RFC 6052), of 96 bits.
const NAT64: u128 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0).to_bits();

fn of_v4(address: Ipv4Addr) -> AddressKind {
    let bits = address.to_bits();
    let is_in = |first: &Ipv4Addr, length| (bits ^ first.to_bits()).leading_zeros() >= length;
    V4.iter()
        .find(|(first, length, _)| is_in(first, *length))
        .map_or(Public, |(_, _, kind)| *kind)
}

fn of_v6(address: Ipv6Addr) -> AddressKind {
    let bits = address.to_bits();
    // A name that has no IPv6 address has one of these in a network of IPv6 alone.
    if bits >> 32 == NAT64 >> 32 {
        return of_v4(Ipv4Addr::from_bits(bits as u32));
    }
    // A socket for this address is one of IPv4.
    if let Some(mapped) = address.to_ipv4_mapped() {
        return of_v4(mapped);
    }
    let is_in = |first: &Ipv6Addr, length| (bits ^ first.to_bits()).leading_zeros() >= length;
    V6.iter()
        .find(|(first, length, _)| is_in(first, *length))
        .map_or(Special, |(_, _, kind)| *kind)
}

#[cfg(test)]
mod tests;
