use super::*;

fn origin(text: &str) -> Origin {
    Origin::of(&Url::parse(text).unwrap()).unwrap()
}

#[test]
fn nothing_private_is_public() {
    for (address, want) in [
        ("1.1.1.1", true),
        ("100.63.255.255", true),
        ("172.32.0.1", true),
        ("2606:4700::1", true),
        ("64:ff9b::101:101", true),
        ("2002:101:101::", true),
        ("0.0.0.0", false),
        ("0.1.2.3", false),
        ("10.0.0.1", false),
        ("127.0.0.1", false),
        ("127.8.9.10", false),
        ("100.64.0.1", false),
        ("100.100.100.200", false),
        ("169.254.169.254", false),
        ("168.63.129.16", false),
        ("172.16.0.1", false),
        ("172.31.255.255", false),
        ("192.0.0.192", false),
        ("192.168.1.1", false),
        ("198.18.0.1", false),
        ("224.0.0.1", false),
        ("240.0.0.1", false),
        ("255.255.255.255", false),
        ("::", false),
        ("::1", false),
        ("::127.0.0.1", false),
        ("::ffff:127.0.0.1", false),
        ("::ffff:10.0.0.1", false),
        ("64:ff9b::a00:1", false),
        ("64:ff9b:1::101:101", false),
        ("2002:a00:1::", false),
        ("2001::1", false),
        ("fc00::1", false),
        ("fd00:ec2::254", false),
        ("fe80::1", false),
        ("fec0::1", false),
        ("ff02::1", false),
    ] {
        assert_eq!(is_public(address.parse().unwrap()), want, "{address}");
    }
}

#[test]
fn only_what_is_written_may_be_private() {
    let endpoint = Url::parse("http://127.0.0.1:5000/mirror").unwrap();
    let policy = Policy::new([&endpoint], &["10.1.0.0/16".parse().unwrap()]);
    for (url, address, want) in [
        ("http://127.0.0.1:5000", "127.0.0.1", true),
        ("http://127.0.0.1:5001", "127.0.0.1", false),
        ("https://127.0.0.1:5000", "127.0.0.1", false),
        ("http://localhost:5000", "127.0.0.1", false),
        ("http://127.0.0.2:5000", "127.0.0.2", false),
        ("http://[::ffff:127.0.0.1]:5000", "::ffff:127.0.0.1", false),
        ("https://cdn.test", "10.1.2.3", true),
        ("https://cdn.test", "::ffff:10.1.2.3", true),
        ("https://cdn.test", "10.2.0.1", false),
        ("https://cdn.test", "1.1.1.1", true),
    ] {
        assert_eq!(policy.permits(&origin(url), address.parse().unwrap()), want, "{url} at {address}");
    }
}

#[test]
fn every_notation_of_an_address_is_read_as_one() {
    for text in ["http://0x7f000001/", "http://2130706433/", "http://0177.0.0.1/", "http://127.1/"] {
        let origin = origin(text);
        assert_eq!(origin.literal(), Some("127.0.0.1".parse().unwrap()), "{text}");
        assert!(!Policy::default().permits(&origin, "127.0.0.1".parse().unwrap()));
    }
}

#[test]
fn a_default_port_is_the_same_origin() {
    assert_eq!(origin("https://A.test"), origin("https://a.test:443/x"));
    assert_ne!(origin("https://a.test"), origin("http://a.test:443"));
    assert_eq!(Origin::of(&Url::parse("ftp://a.test").unwrap()), None);
}
