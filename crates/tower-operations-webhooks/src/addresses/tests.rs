use proptest::prelude::*;

use super::*;

fn kind(text: &str) -> AddressKind {
    AddressKind::of(text.parse().unwrap())
}

#[test]
fn ranges_begin_and_end_where_they_should() {
    for (range, expected) in [
        ("0.0.0.0 0.255.255.255", Special),
        ("1.0.0.0 9.255.255.255", Public),
        ("10.0.0.0 10.255.255.255", Private),
        ("11.0.0.0 100.63.255.255", Public),
        ("100.64.0.0 100.127.255.255", Private),
        ("100.128.0.0 126.255.255.255", Public),
        ("127.0.0.0 127.0.0.1 127.255.255.255", Private),
        (
            "128.0.0.0 168.63.129.15 168.63.129.17 169.253.255.255",
            Public,
        ),
        ("169.254.0.0 169.254.169.254 169.254.255.255", Special),
        ("169.255.0.0 172.15.255.255", Public),
        ("172.16.0.0 172.31.255.255", Private),
        ("172.32.0.0 191.255.255.255", Public),
        ("192.0.0.0 192.0.0.192 192.0.0.255", Special),
        ("192.0.1.0 192.0.1.255", Public),
        ("192.0.2.0 192.0.2.255", Special),
        ("192.0.3.0 192.88.98.255", Public),
        ("192.88.99.0 192.88.99.255", Special),
        ("192.88.100.0 192.167.255.255", Public),
        ("192.168.0.0 192.168.255.255", Private),
        ("192.169.0.0 198.17.255.255", Public),
        ("198.18.0.0 198.19.255.255", Special),
        ("198.20.0.0 198.51.99.255", Public),
        ("198.51.100.0 198.51.100.255", Special),
        ("198.51.101.0 203.0.112.255", Public),
        ("203.0.113.0 203.0.113.255", Special),
        ("203.0.114.0 223.255.255.255", Public),
        ("224.0.0.0 239.255.255.255", Special),
        ("240.0.0.0 255.255.255.254 255.255.255.255", Special),
        ("100.100.100.200 168.63.129.16", Special),
        (":: ::2 ::ffff ::127.0.0.1 ::8.8.8.8", Special),
        ("::1", Private),
        ("::ffff:8.8.8.8 64:ff9b::8.8.8.8", Public),
        (
            "::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::127.0.0.1",
            Private,
        ),
        ("::ffff:169.254.169.254 64:ff9b::169.254.169.254", Special),
        ("::ffff:0:8.8.8.8 ::fffe:8.8.8.8", Special),
        (
            "64:ff9b:0:0:0:1:808:808 64:ff9b:1:: 64:ff9b:1:ffff:ffff::808:808",
            Special,
        ),
        ("64:ff9a:: 65:: 100:: 100::1 100:0:0:1::", Special),
        ("1fff:ffff:: 4000:: 5f00:: 8000:: fbff::", Special),
        ("2000:: 2000:ffff::", Public),
        (
            "2001:: 2001:0:ffff:: 2001:2:: 2001:10:: 2001:20:: 2001:1ff::",
            Special,
        ),
        (
            "2001:200:: 2001:db7:: 2001:db9:: 2001:4860:4860::8888",
            Public,
        ),
        ("2001:db8:: 2001:db8:ffff::", Special),
        ("2002:: 2002:0808:0808:: 2002:ffff::", Special),
        ("2003:: 2606:4700:4700::1111 3ffd::", Public),
        ("3ffe:: 3fff:: 3fff:fff::", Special),
        ("3fff:1000:: 3fff:ffff::", Public),
        ("fc00:: fd00:: fd00:ec3:: fd00:42::41 fdff:ffff::", Private),
        (
            "fd00:ec2:: fd00:ec2::23 fd00:ec2::254 fd20:ce::254",
            Special,
        ),
        (
            "fd00:c1::a9fe:a9fe fd00:42::42 fd00:a9fe:a9fe::1 fd00:100::100:200",
            Special,
        ),
        (
            "fe00:: fe80:: fe80::1 febf:: fec0:: feff:: ff00:: ff02::1",
            Special,
        ),
    ] {
        for address in range.split(' ') {
            assert_eq!(kind(address), expected, "{address}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn what_the_standard_library_knows_to_be_special_is_not_public(bits in any::<u32>()) {
        let address = Ipv4Addr::from_bits(bits);
        let is_known = address.is_private()
            || address.is_loopback()
            || address.is_link_local()
            || address.is_multicast()
            || address.is_broadcast()
            || address.is_documentation()
            || address.is_unspecified();
        prop_assert!(!is_known || of_v4(address) != Public);
        // Forms that embed an address are no way around the rules.
        prop_assert_eq!(of_v6(address.to_ipv6_mapped()), of_v4(address));
        let nat64 = Ipv6Addr::from_bits(NAT64 | u128::from(bits));
        prop_assert_eq!(of_v6(nat64), of_v4(address));
        if bits != 1 {
            prop_assert_eq!(of_v6(address.to_ipv6_compatible()), Special);
        }
        let six_to_four = Ipv6Addr::from_bits(0x2002 << 112 | u128::from(bits) << 80);
        prop_assert_eq!(of_v6(six_to_four), Special);
        let teredo = Ipv6Addr::from_bits(0x2001 << 112 | u128::from(!bits));
        prop_assert_eq!(of_v6(teredo), Special);
    }

    #[test]
    fn public_addresses_of_ipv6_are_global_unicast(bits in any::<u128>(), first in any::<u8>()) {
        // Half of the addresses begin as those of the table do.
        let (start, length, _) = V6[usize::from(first) % V6.len()];
        let near = start.to_bits() | bits.checked_shr(length).unwrap_or(0);
        for bits in [bits, near] {
            let address = Ipv6Addr::from_bits(bits);
            let is_known = address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unique_local()
                || address.is_unicast_link_local();
            prop_assert!(!is_known || of_v6(address) != Public, "{}", address);
            let is_global = address.to_bits() >> 125 == 1;
            prop_assert!(is_global || of_v6(address) != Public, "{}", address);
        }
    }
}
