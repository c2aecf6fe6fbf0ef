//! What settings do with files, environments and secrets. Data through one `check`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;

fn load(dir: &TempDir, toml: &str, env: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let path = dir.path().join("config.toml");
    fs::write(&path, toml).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("a mode");
    Settings::load(Some(&path), env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

/// `Ok` lists lines that the dump must have, `Err` parts of problems, all of them in order. `DIR` is the directory.
fn check(toml: &str, env: &[(&str, &str)], expected: Result<&[&str], &[&str]>) {
    let dir = tempfile::tempdir().expect("a directory");
    match (load(&dir, toml, env), expected) {
        (Ok(settings), Ok(lines)) => {
            let dump = settings.dump();
            for line in lines {
                assert!(dump.lines().any(|dumped| dumped == *line), "{toml:?} {env:?}: no {line} in\n{dump}");
            }
            let again = load(&dir, &dump, &[]).expect("a dump is a settings file").dump();
            assert_eq!(again, dump, "a dump reads back");
        }
        (Err(error), Err(parts)) => {
            let problems: Vec<_> =
                error.problems.iter().map(|p| p.replace(&dir.path().display().to_string(), "DIR")).collect();
            assert_eq!(problems.len(), parts.len(), "{toml:?} {env:?}: {problems:#?}");
            for (problem, part) in problems.iter().zip(parts) {
                assert!(problem.contains(part), "{problem:?} lacks {part:?}");
                assert!(!problem.contains("hunter2") && !problem.contains('\n'), "{problem:?}");
            }
        }
        (Ok(settings), Err(parts)) => panic!("{toml:?} {env:?}: accepted, not {parts:?}\n{}", settings.dump()),
        (Err(error), Ok(_)) => panic!("{toml:?} {env:?}: {error}"),
    }
}

#[test]
fn defaults_need_nothing() {
    check(
        "",
        &[],
        Ok(&[
            "weight = 1",
            "# max_agents is not set",
            "campaigns = []",
            "address = \"127.0.0.1:5038\"",
            "ping_interval = \"2s 500ms\"",
            "url = \"redis://127.0.0.1:6379\"",
            "namespace = \"{evenring}\"",
            "lease = \"3s\"",
            "listen = \"127.0.0.1:9816\"",
            "dial = \"{technology}/{extension}\"",
            "application = \"ConfBridge\"",
            "data = \"evenring-{agent}\"",
            "caller_id = \"\\\"evenring\\\" <{extension}>\"",
            "filter = \"info\"",
        ]),
    );
}

#[test]
fn the_environment_stands_above_the_file() {
    check("[node]\nname = \"a\"\nweight = 5", &[("EVENRING__NODE__WEIGHT", "7")], Ok(&["name = \"a\"", "weight = 7"]));
    check(
        "",
        &[("EVENRING__NODE__NAME", "7"), ("EVENRING__NODE__CAMPAIGNS", "a, b")],
        Ok(&["name = \"7\"", "campaigns = [\"a\", \"b\"]"]),
    );
    check(
        "node.weight = 5",
        &[("EVENRING__NODE__WEIGHT", ""), ("EVENRING_LOG", "x"), ("HOME", "/")],
        Ok(&["weight = 5"]),
    );
    check("", &[("EVENRING__NODE__MAX_AGENTS", "40")], Ok(&["max_agents = 40"]));
    let reach = "[node]\nsip = \"sip:10.0.0.11:5060;transport=tcp\"\naddress = \"tel-1.example.net\"";
    check(reach, &[], Ok(&["sip = \"sip:10.0.0.11:5060;transport=tcp\"", "address = \"tel-1.example.net\""]));
    check("", &[("EVENRING__AMI__CONTACTS__INTERVAL", "1m")], Ok(&["interval = \"1m\""]));
    check("", &[("EVENRING__RING__VARIABLES____Who", "{agent}")], Ok(&["__Who = \"{agent}\""]));
    check("", &[("EVENRING__NODE__NAME", "a\u{fffd}")], Err(&["EVENRING__NODE__NAME is not UTF-8"]));
    check("", &[("EVENRING__node__NAME", "a"), ("EVENRING__NODE__NAME", "b")], Err(&["set the same key"]));
}

#[test]
fn the_keepalive_command_is_a_whole_path_and_its_arguments() {
    check("", &[], Ok(&["command = []", "after = \"1m\"", "every = \"10m\""]));
    let command = "[keepalive]\ncommand = [\"/bin/sh\", \"-c\", \"a b\"]\nafter = \"5s\"";
    check(command, &[], Ok(&["command = [\"/bin/sh\", \"-c\", \"a b\"]", "after = \"5s\""]));
    check("keepalive.command = [\"systemctl\"]", &[], Err(&["\"systemctl\" is not an absolute path"]));
    check("keepalive.command = \"/bin/true\"", &[], Err(&["keepalive.command"]));
    check("keepalive.every = \"1ms\"", &[], Err(&["keepalive.every"]));
    let dir = tempfile::tempdir().expect("a directory");
    let far = "ami.address = \"tls://tel-1.example:5039\"\nkeepalive.command = [\"/no/such\"]";
    let settings = load(&dir, far, &[]).expect("settings");
    let smells = settings.smells().join("\n");
    for part in ["/no/such does not exist", "ami.address is not on this host"] {
        assert!(smells.contains(part), "{smells}");
    }
}

#[test]
fn unknown_keys_name_the_nearest() {
    check(
        "[ami]\nusernme = \"hunter2\"\n[nod]\nweight = 2\n[zz]\nqq = 1\n",
        &[("EVENRING__AMI__USERNME", "hunter2"), ("EVENRING__AMY__SECRET", "hunter2")],
        Err(&[
            "unknown key ami.usernme in DIR/config.toml: did you mean ami.username?",
            "unknown key nod.weight in DIR/config.toml: did you mean node.weight?",
            "unknown key zz.qq in DIR/config.toml: `evenring config dump` lists all keys",
            "in the environment variable EVENRING__AMI__USERNME: did you mean EVENRING__AMI__USERNAME?",
            "unknown key amy.secret in the environment variable EVENRING__AMY__SECRET: did you mean \
                EVENRING__AMI__SECRET?",
        ]),
    );
    check("\"ami.username\" = \"hunter2\"", &[], Err(&["unknown key \"ami.username\" in"]));
    check("ami = 5\n", &[], Err(&["ami in DIR/config.toml is a section, not a value: write [ami]"]));
    check("[ring]\nvariables = \"hunter2\"", &[], Err(&["ring.variables in DIR/config.toml is a section"]));
    check("[ami]\n[ring.variables]\n[nod]", &[], Err(&["unknown key nod in"]));
    check("[ami.secret]\nx = \"hunter2\"", &[], Err(&["unknown key ami.secret.x"]));
}

#[test]
fn bad_values_are_all_found_in_one_go() {
    check(
        "node.weight = 0\nnode.name = \"a b\"\nplacement.tries = 11\nring.timeout = \"3m\"\nlog.format = \"xml\"",
        &[("EVENRING__REDIS__NAMESPACE", "plain"), ("EVENRING__PLACEMENT__POLL", "5")],
        Err(&[
            "node.name in DIR/config.toml: the node name \"a b\" contains ' '",
            "node.weight in DIR/config.toml: 0 is not between 1 and 1000",
            "redis.namespace in the environment variable EVENRING__REDIS__NAMESPACE: \"plain\" is not a namespace",
            "placement.tries in DIR/config.toml: 11 is not between 1 and 10",
            "placement.poll in the environment variable EVENRING__PLACEMENT__POLL: ",
            "ring.timeout in DIR/config.toml: 3m is not between 1s and 2m",
            "log.format in DIR/config.toml: unknown variant `xml`",
        ]),
    );
    for (toml, problem) in [
        ("node.weight = 1.5", "node.weight in DIR/config.toml: invalid type: floating point"),
        ("node.weight = -1", "invalid value: integer `-1`"),
        ("node.weight = \"5\"", "invalid type: string \"5\""),
        ("node.sip = \"10.0.0.11\"", "node.sip in DIR/config.toml: \"10.0.0.11\" is not a SIP URI"),
        ("node.address = \"a:1\"", "node.address in DIR/config.toml: \"a:1\" is neither a host name nor an IP"),
        ("node.name = 5", "invalid type: integer `5`"),
        ("node.campaigns = [\"a\\nb\"]", "the campaign \"a\\nb\" contains '\\n'"),
        ("ami.address = \"pbx\"", "ami.address in DIR/config.toml: \"pbx\" is not an address"),
        (
            "ami.username = \"a\\nb\"",
            "ami.username in DIR/config.toml: must have 1 to 100 bytes and no control character",
        ),
        ("ami.server_name = \"a b\"", "\"a b\" is neither a host name nor an IP address"),
        ("ami.ca_file = \"ca.pem\"", "ami.ca_file in DIR/config.toml: \"ca.pem\" is not an absolute path"),
        ("redis.url = \"redis://u:hunter2#@r1\"", "redis.url in DIR/config.toml: not a Redis URL"),
        ("redis.url = \"redis://u:12/hunter2@r1\"", "an '@' follows the host"),
        ("ami.max_phones = 0", "ami.max_phones in DIR/config.toml: 0 is not between 1 and 100000"),
        ("placement.lease = \"2900ms\"", "set the lease to at least three heartbeats"),
        ("placement.alias_suffix = \"\"", "placement.alias_suffix in DIR/config.toml: \"\" is not 1 to 8"),
        ("placement.alias_suffix = \"a b\"", "is not 1 to 8"),
        (
            "placement.case = \"lower\"",
            "placement.case in DIR/config.toml: unknown variant `lower`, expected `exact` or `fold`",
        ),
        (
            "ring.dial = \"PJSIP/{ext}\"",
            "ring.dial in DIR/config.toml: unknown placeholder {ext}: did you mean {agent}?",
        ),
        ("ring.dial = \"PJSIP/a&PJSIP/{agent}\"", "'&' is not allowed here: a login rings one phone at a time"),
        ("ring.application = \"A(b)\"", "is not the name of a dialplan application"),
        ("ring.context = \"a\"", "belong together"),
        ("ring.priority = 1", "belong together"),
        ("ring.data = \"x\"\nring.context = \"a\"\nring.exten = \"b\"", "are both set: remove one"),
        ("ring.context = \"a\"\nring.exten = \"b\"\nring.priority = 0", "priorities start at 1"),
        (
            "ring.variables.A = \"1,B=2\"",
            "ring.variables.A in DIR/config.toml: ',' is not allowed here: it would start another variable",
        ),
        ("ring.variables.\"CALLERID(name)\" = \"x\"", "functions cannot be set"),
        ("ring.variables.A = \"1\\r\\nB\"", "'\\r' is not allowed here"),
        ("log.filter = \"inof\"", "\"inof\" is not a level: use off, error"),
        ("log.filter = \"a=b=c\"", "log.filter in DIR/config.toml: \"a=b=c\" is not a valid filter"),
        ("[ami]\nsecret = \"hunter2", "DIR/config.toml is not TOML: TOML parse error at line 2, column"),
        ("[ami]\nsecret = hunter2", "DIR/config.toml is not TOML"),
    ] {
        check(toml, &[], Err(&[problem]));
    }
}

#[test]
fn ring_targets() {
    check(
        "ring.context = \"agents\"\nring.exten = \"{agent}\"",
        &[],
        Ok(&["context = \"agents\"", "exten = \"{agent}\"", "priority = 1"]),
    );
    check("ring.application = \"Answer\"\nring.data = \"\"", &[], Ok(&["application = \"Answer\"", "data = \"\""]));
}

#[test]
fn a_missing_file_is_an_error_only_if_it_was_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("none.toml");
    let error = Settings::load(Some(&missing), std::iter::empty()).expect_err("a named file").to_string();
    assert!(error.contains("none.toml: No such file"), "{error}");
    let settings = Settings::load_or_default(None, &missing, dir.path(), std::iter::empty()).expect("defaults");
    assert_eq!(settings.placement.lease, Duration::from_secs(3));
    let error = Settings::load_or_default(None, dir.path(), dir.path(), std::iter::empty());
    let error = error.expect_err("a directory").to_string();
    assert!(error.contains("cannot read"), "{error}");
}

/// The AMI secret that `toml` and `env` give, or the message; both with `DIR` as the directory, where there are files.
fn secret(toml: &str, env: &[(&str, &str)]) -> Result<String, String> {
    let dir = tempfile::tempdir().expect("a directory");
    let shown = dir.path().display().to_string();
    for (name, text, mode) in [
        ("file", "from file\r\n", 0o600),
        ("open", "from open", 0o644),
        ("two", "a\nb\n", 0o600),
        ("ami-secret", "from credential\n", 0o400),
    ] {
        fs::write(dir.path().join(name), text).expect("a file");
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.replace("DIR", &shown))).collect();
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let settings = load(&dir, &format!("[ami]\nusername = \"u\"\n{}", toml.replace("DIR", &shown)), &env);
    let login = settings.and_then(|settings| settings.require_ami());
    login.map(|login| login.secret.expose_secret().to_owned()).map_err(|error| error.to_string().replace(&shown, "DIR"))
}

#[test]
fn secrets_have_an_order() {
    let credentials = ("CREDENTIALS_DIRECTORY", "DIR");
    assert_eq!(secret("", &[credentials]).as_deref(), Ok("from credential"));
    assert_eq!(secret("secret_file = \"DIR/file\"", &[credentials]).as_deref(), Ok("from file"));
    assert_eq!(secret("secret = \"own\"", &[credentials]).as_deref(), Ok("own"));
    assert_eq!(
        secret("secret_file = \"DIR/file\"", &[credentials, ("EVENRING__AMI__SECRET", "007")]).as_deref(),
        Ok("007")
    );
    assert_eq!(secret("secret = \"own\"", &[("EVENRING__AMI__SECRET_FILE", "DIR/file")]).as_deref(), Ok("from file"));
    for (toml, part) in [
        (
            "secret = \"hunter2\"\nsecret_file = \"DIR/file\"",
            "ami.secret and ami.secret_file are both set in DIR/config.toml",
        ),
        ("secret = 12345", "ami.secret in DIR/config.toml: a secret must be a quoted string"),
        ("secret = \"\"", "the secret is empty"),
        ("secret = \"hunter2\\r\\nAction: x\"", "the secret contains a control character"),
        ("secret_file = \"file\"", "the path must be absolute"),
        ("secret_file = \"DIR/none\"", "ami.secret_file in DIR/config.toml: cannot read DIR/none: No such file"),
        ("secret_file = \"DIR/two\"", "DIR/two: the secret contains a control character"),
        (
            "",
            "ami.username is set, but no secret: write it into /etc/evenring/ami-secret, which the unit passes on, or \
                set ami.secret_file or ami.secret",
        ),
    ] {
        let error = secret(toml, &[]).expect_err(toml);
        assert!(
            error.contains(part) && !error.contains("hunter2") && !error.contains("12345"),
            "{error:?} lacks {part:?}"
        );
    }
}

/// Settings at the usual place on a machine with this unit, and with these files in /etc/evenring.
fn on_a_node(unit: &str, toml: &str, files: &[(&str, &str)], env: &[(&str, &str)]) -> Result<Settings, String> {
    let root = tempfile::tempdir().expect("a directory");
    let (own, units) = (root.path().join("etc/evenring"), root.path().join("usr/lib/systemd/system"));
    fs::create_dir_all(&own).expect("made");
    fs::create_dir_all(&units).expect("made");
    fs::write(units.join("evenring.service"), unit).expect("a unit");
    fs::write(own.join("config.toml"), format!("node.name = \"n\"\n{toml}")).expect("settings");
    for (name, text) in files {
        fs::write(own.join(name), text).expect("a file");
        fs::set_permissions(own.join(name), fs::Permissions::from_mode(0o600)).expect("a mode");
    }
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let settings = Settings::load_or_default(None, &own.join("config.toml"), root.path(), env);
    settings.map_err(|error| error.to_string().replace(&root.path().display().to_string(), ""))
}

#[test]
fn a_command_finds_the_secrets_that_the_unit_gives_to_the_daemon() {
    let unit = include_str!("../../systemd/evenring.service");
    let toml = "ami.username = \"u\"\nredis.url = \"redis://10.0.0.1\"\nredis.username = \"evenring\"";
    let files = [("ami-secret", "ami\n"), ("redis-password", "redis\n"), ("redis-sentinel-password", "")];
    let password = |found: &Settings| found.redis.password.as_ref().map(|p| p.expose_secret().to_owned());
    let found = on_a_node(unit, toml, &files, &[]).expect("settings");
    let ami = found.require_ami().expect("a login");
    assert_eq!((ami.secret.expose_secret(), password(&found).as_deref()), ("ami", Some("redis")));
    assert_eq!((found.warnings(), found.missing_logins()), (Vec::new(), Vec::new()));
    assert!(found.notes()[0].contains("the password is sent unencrypted: use rediss://"), "{:?}", found.notes());
    assert_eq!(found.files.secrets.len(), 3, "doctor looks at the modes of those that are there");
    let found = on_a_node(unit, toml, &files, &[("EVENRING__REDIS__PASSWORD", "other")]).expect("settings");
    assert_eq!(password(&found).as_deref(), Some("other"), "the environment goes first");
    let found = on_a_node(unit, &format!("{toml}\nredis.password = \"file\""), &files, &[]).expect("settings");
    assert_eq!(password(&found).as_deref(), Some("file"), "then the settings");
    // what systemd has started asks nobody else
    let error = on_a_node(unit, toml, &files, &[("CREDENTIALS_DIRECTORY", "/")]).expect_err("no credential");
    assert!(error.starts_with("redis.username is set, but no password: write it into /etc/evenring/redis-password"));
    // and other settings are not the daemon's: their Redis gets no password of it
    let dir = tempfile::tempdir().expect("a directory");
    let other = load(&dir, "ami.username = \"u\"", &[]).expect("settings");
    assert!(other.files.secrets.is_empty() && password(&other).is_none());
    let error = on_a_node(unit, toml, &[files[0], ("redis-password", "a\nb\n")], &[]).expect_err("two lines");
    let path = "the systemd credential redis-password: /etc/evenring/redis-password: the secret contains a control";
    assert!(error.starts_with(path), "{error}");
}

#[test]
fn a_user_without_a_password_is_refused() {
    let unit = include_str!("../../systemd/evenring.service");
    for (toml, name) in [
        ("redis.username = \"evenring\"", "redis.username"),
        ("redis.url = \"redis://evenring@10.0.0.1\"", "redis.username"),
        ("redis.url = \"redis+sentinel://s1,s2,s3/m\"\nredis.sentinel_username = \"s\"", "redis.sentinel_username"),
    ] {
        let error = on_a_node(unit, toml, &[("redis-password", "\n")], &[]).expect_err(toml);
        let file = name.replace('.', "-").replace("username", "password").replace('_', "-");
        assert!(error.starts_with(&format!("{name} is set, but no password")), "{error}");
        assert!(error.contains(&format!("/etc/evenring/{file}, ")), "{error}");
    }
}

#[test]
fn only_who_needs_asterisk_misses_its_login() {
    let dir = tempfile::tempdir().expect("a directory");
    let web = load(&dir, "[ami]\nsecret_file = \"/nonexistent/secret\"", &[]).expect("enough for a web machine");
    assert!(web.require_ami().expect_err("no name").to_string().contains("ami.username is not set"));
    assert!(web.contacts_login().expect("none").is_none());
    let half = load(&dir, "[ami.contacts]\nusername = \"c\"", &[]).expect("enough");
    let error = half.contacts_login().expect_err("no secret").to_string();
    assert!(
        error.contains(
            "write it into /etc/evenring/ami-contacts-secret, which the unit passes on, or set ami.contacts.secret_file"
        ),
        "{error}"
    );
}

#[test]
fn no_secret_is_ever_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let toml = "[ami]\nusername = \"u\"\nsecret = \"hunter2\"\n[ami.contacts]\nusername = \"c\"\nsecret = \"hunter2\"\n\
                [redis]\nurl = \"redis://who:hunter2@r1:6380/3\"";
    let settings = load(&dir, toml, &[]).expect("settings");
    let shown = [
        settings.dump(),
        format!("{settings:?}"),
        format!("{:?}", settings.require_ami()),
        settings.warnings().join("\n"),
    ];
    for text in &shown {
        assert!(!text.contains("hunter2"), "{text}");
    }
    for line in ["url = \"redis://r1:6380/3\"", "username = \"who\"", "password = \"***\"", "secret = \"***\""] {
        assert!(shown[0].contains(line), "no {line} in\n{}", shown[0]);
    }
    assert_eq!(settings.redis.password.as_ref().map(|p| p.expose_secret()), Some("hunter2"));
    let settings = load(&dir, toml, &[("EVENRING__REDIS__PASSWORD", "other")]).expect("settings");
    assert_eq!(settings.redis.password.as_ref().map(|p| p.expose_secret()), Some("other"));
}

#[test]
fn a_suffix_is_spelled_as_names_are() {
    check("placement.alias_suffix = \"X\"", &[], Ok(&["alias_suffix = \"X\"", "case = \"exact\""]));
    let toml = "placement.alias_suffix = \"X\"\nplacement.case = \"fold\"";
    check(toml, &[], Ok(&["alias_suffix = \"x\"", "case = \"fold\""]));
}

#[test]
fn redis_behind_sentinel() {
    let dir = tempfile::tempdir().expect("a directory");
    let toml = "[redis]\nurl = \"redis+sentinel://who:hunter2@s1,s2:2,s3/tel/3\"\nsentinel_username = \"s\"\n\
                sentinel_password = \"hunter2\"";
    let lines = ["url = \"redis+sentinel://s1:26379,s2:2,s3:26379/tel/3\"", "username = \"who\"", "password = \"***\""];
    check(toml, &[], Ok(&[&lines[..], &["sentinel_username = \"s\"", "sentinel_password = \"***\""]].concat()));
    let settings = load(&dir, toml, &[("EVENRING__REDIS__SENTINEL_PASSWORD", "other")]).expect("settings");
    assert!(!format!("{settings:?}{}", settings.dump()).contains("hunter2"));
    let sentinel = settings.redis.sentinel.expect("sentinels");
    assert_eq!((sentinel.hosts.len(), sentinel.primary.as_str(), sentinel.db), (3, "tel", 3));
    assert_eq!(sentinel.password.map(|password| password.expose_secret().to_owned()).as_deref(), Some("other"));
    for (url, part) in [
        ("redis+sentinel://u:hunter2@s1:26379", "redis.url in DIR/config.toml: the URL names no primary"),
        ("redis+sentinel://u:hunter2@/m", "redis.url in DIR/config.toml: not a Sentinel URL: write"),
        ("sentinel://u:hunter2@s1/m", "redis+sentinel://host1:26379"),
    ] {
        check(&format!("redis.url = {url:?}"), &[], Err(&[part]));
    }
}

#[test]
fn the_unwise_is_told() {
    for (toml, warning) in [
        ("", None),
        ("redis.url = \"redis+sentinel://:x@localhost,127.0.0.1/m\"", Some("fewer than three")),
        ("redis.url = \"rediss+sentinel://:x@a,b,c/m\"\nredis.sentinel_password = \"y\"", None),
        (
            "redis.sentinel_username = \"y\"\nredis.sentinel_password = \"z\"",
            Some("have no effect without redis+sentinel://"),
        ),
        ("redis.url = \"redis://r1\"", Some("redis.url: no password, and Redis is not on this host")),
        ("redis.url = \"redis://:x@r1\"", Some("redis.url: the password is sent unencrypted")),
        ("redis.url = \"redis://10.0.0.1\"", Some("redis.url: no password, and Redis is not on this host")),
        ("redis.url = \"redis://:x@203.0.113.1\"", Some("redis.url: the password is sent unencrypted")),
        ("redis.url = \"redis://:x@10.0.0.1\"", None),
        ("redis.url = \"rediss://:x@r1\"", None),
        ("redis.url = \"rediss://:x@r1/#insecure\"", Some("redis.url: #insecure sends the password to any server")),
        ("ami.address = \"pbx:5038\"", Some("ami.address: AMI traffic with pbx:5038 is unencrypted")),
        ("ami.address = \"tls://pbx:5039\"", None),
        ("ami.server_name = \"pbx\"", Some("ami.server_name has no effect without tls://")),
        (
            "ami.username = \"a\"\nami.contacts.username = \"a\"",
            Some("ami.contacts.username is the same as ami.username"),
        ),
        ("http.listen = \"[::1]:80\"", None),
        ("http.listen = \"off\"", None),
        ("agent_check.listen = \"127.0.0.1:9818\"", None),
        ("agent_check.listen = \"10.0.0.11:9818\"", Some("allow only your HAProxy to reach it")),
        ("api.listen = \"127.0.0.1:9817\"", None),
        ("api.listen = \"10.0.0.11:9817\"\napi.insecure = true", Some("other hosts reach 10.0.0.11:9817 without TLS")),
        ("http.listen = \"0.0.0.0:9816\"", Some("http.listen: 0.0.0.0:9816 is reachable from other hosts")),
        ("ring.dial = \"PJSIP/1\"", Some("ring.dial: \"PJSIP/1\" rings the same phone for every agent")),
        (
            "redis.url = \"rediss://:x@r1\"\nredis.ca_file = \"/nonexistent/ca.pem\"",
            Some("redis.ca_file: cannot read /nonexistent/ca.pem"),
        ),
        ("redis.ca_file = \"/dev/null\"", Some("redis.ca_file has no effect: redis.url is not rediss://")),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let warnings = load(&dir, &format!("node.name = \"n\"\n{toml}"), &[]).expect(toml).warnings();
        assert_eq!(warnings.len(), usize::from(warning.is_some()), "{toml}: {warnings:?}");
        assert!(warning.is_none_or(|part| warnings[0].contains(part)), "{warnings:?} lacks {warning:?}");
    }
}

#[test]
fn the_api_is_not_served_to_other_hosts_in_the_clear() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("a file");
    let file = file.display();
    let tls = format!("api.cert_file = \"{file}\"\napi.key_file = \"{file}\"\n");
    let tokens = format!("api.tokens_file = \"{file}\"\n");
    for (toml, problem) in [
        ("api.listen = \"127.0.0.1:9817\"\n".to_owned(), None),
        (
            format!("api.listen = \"0.0.0.0:9817\"\n{tokens}"),
            Some("0.0.0.0:9817 is reachable from other hosts, and there is no TLS"),
        ),
        (format!("api.listen = \"[::]:9817\"\n{tokens}"), Some("there is no TLS")),
        (
            format!("api.listen = \"0.0.0.0:9817\"\n{tls}api.tokens_file = \"/nonexistent/t\""),
            Some("/nonexistent/t is missing"),
        ),
        (format!("api.listen = \"0.0.0.0:9817\"\n{tls}{tokens}"), None),
        ("api.listen = \"0.0.0.0:9817\"\napi.insecure = true".to_owned(), None),
        (format!("api.cert_file = \"{file}\""), Some("api.cert_file and api.key_file belong together")),
        ("api.tokens_file = \"tokens\"".to_owned(), Some("must be absolute")),
        ("api.listen = \"9817\"".to_owned(), Some("neither \"address:port\"")),
        ("api.watchers = 0".to_owned(), Some("0 is not between 1 and 100000")),
    ] {
        let loaded = load(&dir, &format!("node.name = \"n\"\n{toml}"), &[]);
        match (loaded, problem) {
            (Ok(_), None) => {}
            (Err(error), Some(problem)) => assert!(error.to_string().contains(problem), "{toml}: {error}"),
            (loaded, _) => panic!("{toml}: {loaded:?}"),
        }
    }
}

#[test]
fn a_readable_secret_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("open");
    fs::write(&path, "x").expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
    let toml = format!("node.name = \"n\"\nami.secret_file = \"{}\"", path.display());
    let warnings = load(&dir, &toml, &[]).expect("settings").warnings().join("\n");
    assert!(
        warnings.contains("ami.secret_file: ")
            && warnings.contains("is world-readable")
            && warnings.contains(
                "chmod \
            0600"
            ),
        "{warnings}"
    );
    fs::write(&path, "node.name = \"n\"\nami.secret = \"hunter2\"").expect("a file");
    let warnings = Settings::load(Some(&path), std::iter::empty()).expect("settings").warnings().join("\n");
    assert!(warnings.contains("ami.secret is in") && !warnings.contains("hunter2"), "{warnings}");
}

#[test]
fn a_host_name_becomes_a_node_name() {
    for (host, name) in [
        ("tel-1.example.org", Some("tel-1")),
        ("Tel_1", Some("Tel_1")),
        ("-téléphone-", Some("t-l-phone")),
        ("", None),
        (".x", None),
        ("--", None),
    ] {
        assert_eq!(sections::name_of_host(host).map(String::from).as_deref(), name, "{host:?}");
    }
    assert_eq!(sections::name_of_host(&"h".repeat(63)).map(|name| name.as_str().len()), Some(40));
    assert!(Path::new(DEFAULT_PATH).is_absolute());
}
