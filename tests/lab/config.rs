//! What stands in a node's /etc/asterisk: the files of `etc/`, with the few places filled in that differ.
//!
//! Must never start anything but openssl.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use super::asterisk::Ground;
use super::{Spec, Version};

/// The AMI user of the daemon: exactly the classes it needs.
pub const AMI_USER: (&str, &str) = ("evenring", "evenring-secret");
/// The optional second user, for snapshots.
pub const SNAP_USER: (&str, &str) = ("evenring-snap", "snap-secret");
/// The user that may do everything.
pub const LAB_USER: (&str, &str) = ("lab", "lab-secret");

/// Asterisk warns when it does not find these.
const EMPTY: [&str; 9] = [
    "acl.conf",
    "ccss.conf",
    "dnsmgr.conf",
    "features.conf",
    "iaxprov.conf",
    "pjproject.conf",
    "sorcery.conf",
    "stasis.conf",
    "udptl.conf",
];

/// The password of a phone, of any technology.
pub fn password(phone: &str) -> String {
    format!("pw-{phone}")
}

/// All files of /etc/asterisk. Beside the endpoints of the spec: SIP peers `cc200`…`cc205` on port 5070 (Asterisk 16
/// only), and IAX peers `iax300`…`iax302`, of which node b registers its `iax300` at the others.
pub(super) fn files(
    spec: &Spec,
    modules: &Path,
    address: Ipv4Addr,
    ground: &Ground<'_>,
) -> Vec<(&'static str, String)> {
    let modules = modules.display().to_string();
    let auth_type = match spec.version {
        Version::V16 => "userpass",
        Version::V22 => "digest",
    };
    let mut files = vec![
        ("ami.pem", ground.certificate.to_owned()),
        (
            "asterisk.conf",
            include_str!("etc/asterisk.conf").replace("@MODULES@", &modules).replace("@NODE@", spec.name),
        ),
        ("cdr.conf", "[general]\nenable = no\n".to_owned()),
        ("cel.conf", "[general]\nenable = no\n".to_owned()),
        ("confbridge.conf", include_str!("etc/confbridge.conf").to_owned()),
        ("extensions.conf", include_str!("etc/extensions.conf").to_owned()),
        ("http.conf", "[general]\nenabled = no\n".to_owned()),
        ("iax.conf", iax(spec, address, ground.nodes)),
        ("indications.conf", include_str!("etc/indications.conf").to_owned()),
        ("logger.conf", include_str!("etc/logger.conf").to_owned()),
        ("manager.conf", include_str!("etc/manager.conf").to_owned()),
        ("modules.conf", include_str!("etc/modules.conf").to_owned()),
        ("musiconhold.conf", include_str!("etc/musiconhold.conf").to_owned()),
        ("pjsip.conf", pjsip(spec.endpoints, auth_type)),
        ("queues.conf", include_str!("etc/queues.conf").to_owned()),
        ("rtp.conf", include_str!("etc/rtp.conf").to_owned()),
    ];
    if spec.version == Version::V16 {
        files.push(("sip.conf", sip()));
        files.push(("modules.conf", concat!(include_str!("etc/modules.conf"), "load = chan_sip.so\n").to_owned()));
    }
    files.extend(EMPTY.iter().map(|name| (*name, String::new())));
    files
}

fn pjsip(endpoints: u32, auth_type: &str) -> String {
    let mut text = include_str!("etc/pjsip.conf").replace("@AUTH_TYPE@", auth_type);
    for number in 100..100 + endpoints {
        let (name, caller) = (format!("cc{number}"), super::secrets::NUMBER);
        let password = password(&name);
        write!(
            text,
            "[{name}](phone-endpoint)\nauth = {name}\naors = {name}\ncallerid = \"{name}\" <{caller}{number}>\n\
             [{name}](phone-auth)\nusername = {name}\npassword = {password}\n[{name}](phone-aor)\n"
        )
        .expect("a String takes all");
    }
    text
}

fn sip() -> String {
    let mut text = include_str!("etc/sip.conf").to_owned();
    for name in (200..206).map(|number| format!("cc{number}")) {
        writeln!(text, "[{name}](phone)\nsecret = {}", password(&name)).expect("a String takes all");
    }
    text
}

fn iax(spec: &Spec, address: Ipv4Addr, all: &[Ipv4Addr]) -> String {
    let mut text = include_str!("etc/iax.conf").to_owned();
    if spec.name == "b" {
        for other in all.iter().filter(|other| **other != address) {
            writeln!(text, "register => iax300:{}@{other}", password("iax300")).expect("a String takes all");
        }
    }
    for name in (300..303).map(|number| format!("iax{number}")) {
        let secret = password(&name);
        writeln!(
            text,
            "[{name}]\ntype = friend\nhost = dynamic\nusername = {name}\nsecret = {secret}\nauth = md5\n\
             context = agents\nqualify = yes\nqualifyfreqok = 5000"
        )
        .expect("a String takes all");
    }
    text
}

/// Makes the key and the certificate of AMI over TLS, one pair for all nodes, in `dir`. Returns both as one PEM.
pub fn certificate(dir: &Path) -> String {
    let (key, certificate) = (dir.join("key.pem"), dir.join("certificate.pem"));
    let names = (11..14).fold("DNS:lab,IP:127.0.0.1".to_owned(), |names, last| format!("{names},IP:10.77.0.{last}"));
    super::run(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=lab \
         -addext basicConstraints=critical,CA:FALSE -addext subjectAltName={names} -keyout {} -out {}",
        key.display(),
        certificate.display()
    ));
    [key, certificate].map(|path| std::fs::read_to_string(path).expect("openssl wrote its files")).concat()
}
