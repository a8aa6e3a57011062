use proptest::prelude::*;

use super::*;

fn judge(policy: &TargetPolicy, url: &str) -> Result<String, TargetError> {
    policy.check(url).map(|target| target.expose_url())
}

#[test]
fn the_strictest_policy() {
    let policy = TargetPolicy::new();
    for (url, expected) in [
        ("https://example.com", "https://example.com/"),
        ("https://example.com/", "https://example.com/"),
        (
            "HTTPS://Example.COM/Path?Query=1",
            "https://Example.COM/Path?Query=1",
        ),
        (
            "https://example.com:443/a%20b?c=%0d%0a",
            "https://example.com:443/a%20b?c=%0d%0a",
        ),
        ("https://example.com?a=b", "https://example.com/?a=b"),
        (
            "https://example.com/?to=http://127.0.0.1/@x:y",
            "https://example.com/?to=http://127.0.0.1/@x:y",
        ),
        ("https://93.184.216.34/", "https://93.184.216.34/"),
        (
            "https://[2606:4700:4700::1111]/",
            "https://[2606:4700:4700::1111]/",
        ),
        (
            "https://xn--bcher-kva.example/",
            "https://xn--bcher-kva.example/",
        ),
    ] {
        assert_eq!(judge(&policy, url), Ok(expected.to_owned()), "{url}");
    }
    use TargetError::{Address, Fragment, Host, Malformed, Port, Scheme, TooLong, UserInfo};
    let long = format!("https://example.com/{}", "a".repeat(MAX_URL));
    for (url, expected) in [
        ("", Malformed),
        ("/", Malformed),
        ("*", Malformed),
        ("//example.com/", Malformed),
        ("example.com", Malformed),
        ("example.com:443", Malformed),
        ("https:", Malformed),
        ("https://", Malformed),
        ("https:///path", Malformed),
        ("https:/example.com", Malformed),
        ("https:example.com", Malformed),
        (" https://example.com", Malformed),
        ("https://example.com/ ", Malformed),
        ("https://example.com/\r\nx: y", Malformed),
        ("https://example.com/\u{0}", Malformed),
        ("https://exa\tmple.com/", Malformed),
        ("https://bücher.example/", Malformed),
        ("https://example.com/ü", Malformed),
        ("https://example.com\\@127.0.0.1/", Malformed),
        ("https:\\\\example.com", Malformed),
        ("https://example.com/\\..\\", Malformed),
        ("http://example.com/", Scheme),
        ("ftp://example.com/", Scheme),
        ("file:///etc/passwd", Malformed),
        ("gopher://example.com/", Scheme),
        ("ws://example.com/", Scheme),
        ("https://user@example.com/", UserInfo),
        ("https://user:password@example.com/", UserInfo),
        ("https://@example.com/", UserInfo),
        ("https://example.com@127.0.0.1/", UserInfo),
        ("https://example.com/#fragment", Fragment),
        ("https://example.com#@127.0.0.1/", Fragment),
        ("https://example.com/?#", Fragment),
        ("https://example.com:/", Port),
        ("https://example.com:0/", Port),
        ("https://example.com:0443/", Port),
        ("https://example.com:80/", Port),
        ("https://example.com:8443/", Port),
        ("https://example.com./", Host),
        ("https://localhost./", Host),
        ("https://2130706433/", Host),
        ("https://0x7f.1/", Host),
        ("https://0x7f000001/", Host),
        ("https://017700000001/", Host),
        ("https://127.1/", Host),
        ("https://0177.0.0.1/", Host),
        ("https://[::ffff:7f00:1]/", Host),
        ("https://[0:0:0:0:0:0:0:1]/", Host),
        ("https://a_b.example/", Host),
        ("https://localhost/", Address),
        ("https://LOCALHOST/", Address),
        ("https://a.localhost/", Address),
        ("https://intranet/", Address),
        ("https://127.0.0.1/", Address),
        ("https://0.0.0.0/", Address),
        ("https://10.0.0.1/", Address),
        ("https://169.254.169.254/latest/meta-data/", Address),
        ("https://[::1]/", Address),
        ("https://[::]/", Address),
        ("https://[::ffff:127.0.0.1]/", Address),
        ("https://[::ffff:169.254.169.254]/", Address),
        ("https://[fe80::1]/", Address),
        ("https://[fd00::1]/", Address),
        ("https://[64:ff9b::7f00:1]/", Address),
        ("https://[2002:7f00:1::]/", Address),
        (&long, TooLong),
    ] {
        assert_eq!(judge(&policy, url), Err(expected), "{url}");
    }
    // These are refused, and it does not matter why.
    for url in [
        "https://example%2ecom/",
        "https://%6cocalhost/",
        "https://[::1%25eth0]/",
        "https://[::1/",
        "https://::1/",
        "https://example.com:65536/",
        "https://example.com:+443/",
        "https://example.com:443:443/",
        "https://example.com:443@127.0.0.1:443/",
        "https://exam<ple.com/",
        "https://a,b.example/",
    ] {
        assert!(policy.check(url).is_err(), "{url}");
    }
}

#[test]
fn http_is_an_opt_in() {
    let policy = TargetPolicy::new().allow_http();
    assert!(policy.check("http://example.com/").is_ok());
    assert!(policy.check("http://example.com:80/").is_ok());
    assert!(policy.check("https://example.com/").is_ok());
    for url in ["http://example.com:443/", "https://example.com:80/"] {
        assert_eq!(judge(&policy, url), Err(TargetError::Port), "{url}");
    }
    assert_eq!(
        judge(&policy, "ftp://example.com/"),
        Err(TargetError::Scheme)
    );
}

#[test]
fn ports_are_set() {
    let policy = TargetPolicy::new().ports([8443, 9443]);
    for (port, expected) in [
        ("", false),
        (":443", false),
        (":8443", true),
        (":9443", true),
    ] {
        let url = format!("https://example.com{port}/");
        assert_eq!(policy.check(&url).is_ok(), expected, "{url}");
    }
    let policy = TargetPolicy::new().any_port();
    for (port, expected) in [("", true), (":1", true), (":65535", true), (":0", false)] {
        let url = format!("https://example.com{port}/");
        assert_eq!(policy.check(&url).is_ok(), expected, "{url}");
    }
}

#[test]
fn hosts_are_set() {
    let policy = TargetPolicy::new().hosts(["Hooks.example.com", "*.example.org", "*", "10.0.0.1"]);
    for (host, expected) in [
        ("hooks.example.com", Ok(())),
        ("HOOKS.EXAMPLE.COM", Ok(())),
        ("a.example.org", Ok(())),
        ("a.b.example.org", Ok(())),
        ("example.org", Err(TargetError::HostNotAllowed)),
        ("evilexample.org", Err(TargetError::HostNotAllowed)),
        ("a.hooks.example.com", Err(TargetError::HostNotAllowed)),
        (
            "hooks.example.com.evil.example",
            Err(TargetError::HostNotAllowed),
        ),
        ("10.0.0.1", Err(TargetError::Address)),
    ] {
        let judged = policy.check(&format!("https://{host}/")).map(|_| ());
        assert_eq!(judged, expected, "{host}");
    }
    let none = TargetPolicy::new().hosts([""; 0]);
    assert_eq!(
        judge(&none, "https://example.com"),
        Err(TargetError::HostNotAllowed)
    );
}

#[test]
fn private_addresses_are_an_opt_in_and_special_ones_are_not() {
    let policy = TargetPolicy::new().allow_private_addresses();
    for host in [
        "localhost",
        "a.localhost",
        "intranet",
        "127.0.0.1",
        "10.0.0.1",
        "100.64.0.1",
        "192.168.0.1",
        "[::1]",
        "[fd00::1]",
        "[::ffff:127.0.0.1]",
        "example.com",
    ] {
        assert!(policy.check(&format!("https://{host}/")).is_ok(), "{host}");
    }
    for host in [
        "0.0.0.0",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[fe80::1]",
        "[ff02::1]",
        "[fd00:ec2::254]",
        "[2002:a00:1::]",
        "[::ffff:169.254.169.254]",
        "[2001:db8::1]",
    ] {
        let judged = policy.check(&format!("https://{host}/"));
        assert_eq!(judged, Err(TargetError::Address), "{host}");
    }
}

#[test]
fn path_and_query_are_not_shown() {
    let policy = TargetPolicy::new().any_port();
    for (url, expected) in [
        (
            "https://example.com/k3y?token=s3cret",
            "https://example.com/…",
        ),
        ("https://Example.com:8443", "https://example.com:8443/…"),
        (
            "https://[2606:4700:4700::1111]/k3y",
            "https://[2606:4700:4700::1111]/…",
        ),
        ("https://93.184.216.34/k3y", "https://93.184.216.34/…"),
    ] {
        let target = policy.check(url).unwrap();
        assert_eq!(target.to_string(), expected);
        assert_eq!(format!("{target:?}"), format!("Target({expected})"));
    }
}

/// Returns texts that look like URLs, many of them wrong.
fn urls() -> impl Strategy<Value = String> {
    let scheme = prop_oneof![4 => Just("https://"), 1 => Just("http://"), 1 => Just("")];
    let host = prop_oneof![
        "([a-z0-9-]{1,3}\\.){1,3}[a-z0-9]{1,3}",
        "(0x)?[0-9a-f]{1,8}(\\.(0x)?[0-9a-f]{1,4}){0,4}\\.?",
        any::<u32>().prop_map(|bits| std::net::Ipv4Addr::from_bits(bits).to_string()),
        any::<u128>()
            .prop_map(|bits| format!("[{}]", std::net::Ipv6Addr::from_bits(bits >> 3 | 1 << 125))),
        "xn--[a-z0-9]{1,6}\\.com",
        "[ -~]{1,4}",
    ];
    let tail = prop_oneof![
        Just(String::new()),
        "(:[0-9]{0,6})?(/[a-zA-Z0-9.:@%~-]{0,6})?(\\?[ -\"$-~]{0,6})?",
        "[.:@/?#%\\\\][ -~]{0,6}",
        "\\PC{0,3}",
    ];
    (scheme, host, tail).prop_map(|(scheme, host, tail)| format!("{scheme}{host}{tail}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn another_parser_finds_the_same_host(url in urls()) {
        let policy = TargetPolicy::new().allow_http().any_port();
        let Ok(target) = policy.check(&url) else {
            return Ok(());
        };
        prop_assert_eq!(policy.check(&target.expose_url()).unwrap(), target.clone());
        // The rules of browsers, which read numbers, escapes and backslashes in their own way.
        let Ok(parsed) = url::Url::parse(&url) else {
            return Ok(());
        };
        let text = parsed.host_str().unwrap();
        let host = Host::parse(text);
        prop_assert_eq!(host.as_ref(), Some(target.host()), "{}", text);
        if let Some(Host::Address(address)) = host {
            prop_assert!(policy.admits(address));
        }
        prop_assert_eq!(parsed.port_or_known_default(), Some(target.port()));
        prop_assert_eq!(parsed.username(), "");
        prop_assert!(parsed.password().is_none() && parsed.fragment().is_none());
    }
}
