use std::os::unix::fs::PermissionsExt;

use super::*;

fn password(username: &str, password: &str) -> Login {
    Login::Password { username: username.to_owned(), password: Secret::new(password) }
}

/// A folder with a `config.json`.
fn docker_config(content: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

#[tokio::test]
async fn a_docker_config_is_read_in_every_form() {
    let auth = STANDARD.encode("ci:pass:word");
    let basic = password("ci", "pass:word");
    let cases = [
        ("reg.test", format!(r#"{{"auths":{{"reg.test":{{"auth":"{auth}"}}}}}}"#), Some(basic.clone())),
        ("reg.test", format!(r#"{{"auths":{{"https://reg.test/v2/":{{"auth":"{auth}"}}}}}}"#), Some(basic.clone())),
        (
            "docker.io",
            format!(r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{auth}"}}}}}}"#),
            Some(basic.clone()),
        ),
        ("reg.test", r#"{"auths":{"reg.test":{"username":"ci","password":"pass:word"}}}"#.to_owned(), Some(basic)),
        (
            "reg.test",
            format!(r#"{{"auths":{{"reg.test":{{"auth":"{auth}","identitytoken":"idt"}}}}}}"#),
            Some(Login::Identity(Secret::new("idt"))),
        ),
        ("reg.test", format!(r#"{{"auths":{{"reg.test.evil":{{"auth":"{auth}"}}}}}}"#), None),
        ("reg.test", r#"{"auths":{"reg.test":{}}}"#.to_owned(), None),
        ("reg.test", r#"{"auths":{"reg.test":{"auth":"%%%"}}}"#.to_owned(), None),
        ("reg.test", "{}".to_owned(), None),
    ];
    for (host, content, want) in cases {
        let (_folder, path) = docker_config(&content);
        let keys = docker::keys(&Upstream::of(host).unwrap());
        let found = docker::look_up(&path, &keys, Duration::from_secs(5)).await.unwrap();
        assert!(found == want, "{host}: {content}");
    }
}

#[tokio::test]
async fn a_file_that_is_none_is_told_without_its_content() {
    let (_folder, path) = docker_config("{ \"auths\": secret");
    let error = docker::look_up(&path, &["reg.test".to_owned()], Duration::from_secs(5)).await.unwrap_err();
    assert!(!error.to_string().contains("secret") && error.to_string().contains("config.json"));
}

/// Programs on the path are found by their whole name here, so that no test changes the environment.
fn helper(folder: &tempfile::TempDir, script: &str) -> String {
    let path = folder.path().join("program");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn helpers_are_asked_by_their_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let answer =
        r#"test "$1" = get || exit 2; test "$(cat)" = reg.test || exit 3; echo '{"Username":"ci","Secret":"s"}'"#;
    for (script, want) in [
        (answer, Ok(Some(password("ci", "s")))),
        (r#"cat >/dev/null; echo '{"Username":"<token>","Secret":"t"}'"#, Ok(Some(Login::Identity(Secret::new("t"))))),
        ("echo credentials not found in native keychain; exit 1", Ok(None)),
        ("echo broken; exit 1", Err(())),
        ("echo '{\"Username\":1}'", Err(())),
    ] {
        let program = helper(&folder, script);
        let found = helper::get_by(&program, "test", "reg.test", Duration::from_secs(20)).await;
        assert!(found.map_err(|_| ()) == want, "{script}");
    }
}

#[tokio::test]
async fn a_helper_that_hangs_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let program = helper(&folder, "exec sleep 600");
    let found = helper::get_by(&program, "slow", "reg.test", Duration::from_millis(50)).await;
    assert!(matches!(found, Err(helper::Error::Slow { .. })));
}

#[tokio::test]
async fn the_name_of_a_helper_leads_nowhere_else() {
    for name in ["", "../x", "a/b", "x y"] {
        assert!(matches!(helper::get(name, "reg.test", Duration::from_secs(1)).await, Err(helper::Error::Name { .. })));
    }
}

#[tokio::test]
async fn a_credential_that_is_refused_again_and_again_rests() {
    let mut config = Upstream::of("reg.test").unwrap();
    config.credential = Some(Credential::Basic { username: "ci".to_owned(), password: Secret::new("wrong") });
    let credentials = Credentials::new(&config);
    for _ in 0..REFUSALS_MAX {
        let login = credentials.get().await.unwrap().unwrap();
        credentials.refused(&login);
    }
    let refused = credentials.get().await.unwrap_err();
    assert_eq!(refused.fault(), Fault::CredentialRefused);
    assert!(refused.retry_after().is_some() && !format!("{refused:?}").contains("wrong"));
    credentials.worked();
    assert!(credentials.get().await.is_ok());
}

#[test]
fn logins_are_not_printed() {
    let login = password("ci", "hunter2");
    let shown = format!("{login:?} {:?}", login.basic());
    assert!(!shown.contains("hunter2") && !shown.contains(&STANDARD.encode("ci:hunter2")), "{shown}");
}
