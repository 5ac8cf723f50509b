use super::*;

#[test]
fn a_realm_is_asked_only_where_its_registry_has_one() {
    let named = ["auth.corp.test".to_owned(), "auth.corp.test:8443".to_owned()];
    for (registry, endpoint, realm, want) in [
        ("docker.io", "https://registry-1.docker.io", "https://auth.docker.io/token", true),
        ("docker.io", "http://127.0.0.1:5000", "https://auth.docker.io/token", true),
        ("docker.io", "http://127.0.0.1:5000", "http://auth.docker.io/token", false),
        ("docker.io", "https://registry-1.docker.io", "https://auth.docker.io:8443/token", false),
        ("docker.io", "https://registry-1.docker.io", "https://auth.docker.io.evil.test/token", false),
        ("docker.io", "https://registry-1.docker.io", "https://evil.test/?auth.docker.io", false),
        ("docker.io", "https://registry-1.docker.io", "https://auth.docker.io@evil.test/", false),
        ("docker.io", "https://registry-1.docker.io", "https://user@auth.docker.io/token", false),
        ("docker.io", "https://registry-1.docker.io", "https://docker.io/token", false),
        ("ghcr.io", "https://ghcr.io", "https://ghcr.io/token", true),
        ("ghcr.io", "https://ghcr.io", "https://auth.docker.io/token", false),
        ("ghcr.io", "https://ghcr.io", "http://ghcr.io/token", false),
        ("eu.gcr.io", "https://eu.gcr.io", "https://eu.gcr.io/v2/token", true),
        ("a.pkg.dev", "https://mirror.test", "https://a.pkg.dev/v2/token", true),
        ("a.pkg.dev", "https://mirror.test", "https://b.pkg.dev/v2/token", false),
        ("reg.test", "https://reg.test", "https://reg.test/token", true),
        ("reg.test", "https://reg.test", "https://reg.test:444/token", false),
        ("reg.test", "https://reg.test", "http://reg.test:443/token", false),
        ("reg.test", "http://reg.test:5000", "http://reg.test:5000/token", true),
        ("reg.test", "http://reg.test:5000", "http://reg.test:5001/token", false),
        ("reg.test", "https://reg.test", "https://auth.corp.test/token", true),
        ("reg.test", "https://reg.test", "https://auth.corp.test:8443/token", true),
        ("reg.test", "https://reg.test", "https://auth.corp.test:9/token", false),
        ("reg.test", "https://reg.test", "http://auth.corp.test/token", false),
        ("reg.test", "http://reg.test:5000", "http://auth.corp.test/token", true),
        ("reg.test", "https://reg.test", "https://sub.auth.corp.test/token", false),
        ("reg.test", "https://reg.test", "https://169.254.169.254/latest", false),
        ("reg.test", "https://reg.test", "file:///etc/passwd", false),
        ("reg.test", "https://reg.test", "/token", false),
        ("reg.test", "https://reg.test", "", false),
    ] {
        let found = Realms::new(registry, &named).check(&Url::parse(endpoint).unwrap(), realm);
        assert_eq!(found.is_ok(), want, "{registry} at {endpoint}: {realm}: {found:?}");
    }
}
