//! TLS on both sides: what it carries, what it refuses, and what is said of files that are wrong.

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use support::{Client, Process, humidor, stored, wait_until};

/// An authority, and files of certificates that it signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Writes `<name>.pem` and `<name>.key` for `127.0.0.1`.
    fn sign(&self, name: &str, until_year: i32) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |ending: &str| self.folder.path().join(format!("{name}.{ending}"));
        std::fs::write(path("pem"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        std::fs::set_permissions(path("key"), PermissionsExt::from_mode(0o640)).unwrap();
        (path("pem"), path("key"))
    }
}

fn broker(data: &Path, certificate: &Path, key: &Path) -> Command {
    let mut command = humidor();
    command.args(["broker", "--mqtt-listen", "127.0.0.1:0", "--mqtts-listen", "127.0.0.1:0"]);
    command.arg("--data").arg(data).arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
    command.env("NO_COLOR", "1");
    command
}

fn address(broker: &Process, said: &str) -> SocketAddr {
    let line = broker.said(said);
    line.rsplit("address=").next().unwrap().trim().parse().unwrap()
}

fn node(data: &Path, name: &str, tls: SocketAddr, ca: &Path) -> Command {
    node_of(data, name, &tls.to_string(), ca)
}

fn node_of(data: &Path, name: &str, broker: &str, ca: &Path) -> Command {
    let mut command = humidor();
    command.args(["node", "--node", name, "--gpio", "sim", "--sensors", "hall=dht11@7"]);
    command.args(["--interval", "1s", "--broker", &format!("mqtts://{broker}")]);
    command.arg("--data").arg(data.join(name)).arg("--tls-ca").arg(ca).env("NO_COLOR", "1");
    command
}

#[test]
fn a_node_delivers_over_tls_and_disconnects() {
    let (authority, data) = (Authority::new(), tempfile::tempdir().unwrap());
    let (certificate, key) = authority.sign("broker", 2100);
    let mut talkative = broker(data.path(), &certificate, &key);
    talkative.env("HUMIDOR_LOG", "humidor=debug");
    let broker = Process::start(talkative);
    let plain = address(&broker, "listening for MQTT 3");
    let tls = address(&broker, "listening for MQTT over TLS");
    let node = Process::start(node(data.path(), "press", tls, &authority.ca()));
    wait_until("a reading is stored", || stored(data.path()) > 0);
    assert_eq!(node.terminate(), Some(0));
    // Its will would say `offline` too.
    let line = broker.said("disconnected");
    assert!(line.contains("the client sent DISCONNECT"), "{line}");
    let mut watcher = Client::connect(plain, "watcher");
    watcher.subscribe("humidor/press/status", rumqttc::mqttbytes::QoS::AtMostOnce);
    match watcher.receive() {
        Some(rumqttc::mqttbytes::v4::Packet::Publish(publish)) => {
            assert_eq!(publish.payload, "offline", "the farewell has left through the tunnel");
        }
        other => panic!("no status but {other:?}"),
    }
}

#[test]
fn a_node_trusts_only_its_authority_and_its_brokers_name() {
    let (authority, other) = (Authority::new(), Authority::new());
    let data = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.sign("broker", 2100);
    let broker = Process::start(broker(data.path(), &certificate, &key));
    let tls = address(&broker, "listening for MQTT over TLS");
    let fooled = Process::start(node(data.path(), "press", tls, &other.ca()));
    let line = fooled.said("no connection to the broker");
    assert!(line.contains("invalid peer certificate"), "{line}");
    let by_name = format!("localhost:{}", tls.port());
    let elsewhere = node_of(data.path(), "oven", &by_name, &authority.ca());
    let line = Process::start(elsewhere).said("no connection to the broker");
    assert!(line.contains("not valid for name"), "{line}");
    assert_eq!(stored(data.path()), 0);
}

#[test]
fn a_node_with_the_other_scheme_is_told_so() {
    let (authority, data) = (Authority::new(), tempfile::tempdir().unwrap());
    let (certificate, key) = authority.sign("broker", 2100);
    let broker = Process::start(broker(data.path(), &certificate, &key));
    let plain = address(&broker, "listening for MQTT 3");
    let tls = address(&broker, "listening for MQTT over TLS");
    let secret = Process::start(node(data.path(), "press", plain, &authority.ca()));
    let line = secret.said("no connection to the broker");
    assert!(line.contains("write mqtt:// into HUMIDOR_BROKER"), "{line}");
    let mut open = humidor();
    open.args(["node", "--node", "oven", "--gpio", "sim", "--sensors", "hall=dht11@7", "--data"]);
    open.arg(data.path().join("oven")).args(["--broker", &format!("mqtt://{tls}")]);
    let line = Process::start(open).said("no connection to the broker");
    assert!(line.contains("write mqtts:// into HUMIDOR_BROKER"), "{line}");
}

#[test]
fn a_broker_that_asks_for_certificates_gets_them() {
    let (authority, data) = (Authority::new(), tempfile::tempdir().unwrap());
    let (certificate, key) = authority.sign("broker", 2100);
    let mut strict = broker(data.path(), &certificate, &key);
    strict.arg("--tls-ca").arg(authority.ca());
    let broker = Process::start(strict);
    let tls = address(&broker, "listening for MQTT over TLS");
    let without = Process::start(node(data.path(), "without", tls, &authority.ca()));
    without.said("readings wait in the outbox");
    let (certificate, key) = authority.sign("client", 2100);
    let mut with = node(data.path(), "with", tls, &authority.ca());
    with.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
    let _with = Process::start(with);
    wait_until("a reading is stored", || stored(data.path()) > 0);
    assert!(support::readings(data.path()).iter().all(|reading| reading.node.as_str() == "with"));
}

#[test]
fn files_that_are_wrong_are_named_at_the_start() {
    let (authority, data) = (Authority::new(), tempfile::tempdir().unwrap());
    let (good, good_key) = authority.sign("good", 2100);
    let (_, other_key) = authority.sign("other", 2100);
    let (old, old_key) = authority.sign("old", 2021);
    let missing = Path::new("/nonexistent/broker.pem");
    for (certificate, key, said) in [
        (missing, &*good_key, "/nonexistent/broker.pem: No such file"),
        (&*good, missing, "/nonexistent/broker.pem: No such file"),
        (&*good, &*other_key, "other.key is not the key of the certificate in"),
        (&*old, &*old_key, "old.pem: the certificate has expired"),
        (&*good_key, &*good_key, "no certificate in PEM form"),
        (&*good, &*good, "no private key in PEM form"),
    ] {
        let mut refused = Process::start(broker(data.path(), certificate, key));
        refused.said(said);
        assert_eq!(refused.wait(), Some(78), "{said}");
    }
    std::fs::set_permissions(&good_key, PermissionsExt::from_mode(0o644)).unwrap();
    let mut refused = Process::start(broker(data.path(), &good, &good_key));
    let line = refused.said("good.key: every user of this machine can read");
    assert!(line.contains("chmod 640"), "{line}");
    assert_eq!(refused.wait(), Some(78));
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let mut refused = Process::start(node(data.path(), "press", nowhere, missing));
    assert_eq!(refused.wait(), Some(78));
}

#[test]
fn a_key_that_an_orchestrator_mounts_as_a_secret_is_taken_with_its_mode() {
    // As Docker Swarm mounts it; the system may refuse ordinary users mounts of their own.
    const MOUNT: &str = r#"mount -t tmpfs tmpfs "$1" && cp "$2" "$1/key" && chmod 444 "$1/key" && mount -o remount,ro "$1" || exit 99
        shift 2; exec "$@""#;
    let (authority, data) = (Authority::new(), tempfile::tempdir().unwrap());
    let (certificate, key) = authority.sign("broker", 2100);
    let mount = tempfile::tempdir().unwrap();
    let mounted = |command: &[&std::ffi::OsStr]| {
        let mut inside = Command::new("unshare");
        inside.args(["-rm", "sh", "-c", MOUNT, "sh"]).arg(mount.path()).arg(&key).args(command);
        inside
    };
    if !mounted(&["true".as_ref()]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("no mounts for this user: not tested");
        return;
    }
    let broker = broker(data.path(), &certificate, &mount.path().join("key"));
    let mut command: Vec<_> = vec![broker.get_program()];
    command.extend(broker.get_args());
    let mut inside = mounted(&command);
    for (name, value) in broker.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    let broker = Process::start(inside);
    address(&broker, "listening for MQTT over TLS");
    assert_eq!(broker.terminate(), Some(0));
}

#[test]
fn an_authoritys_own_certificate_and_an_encrypted_key_are_told_in_sentences() {
    let (authority, data) = (Authority::new(), tempfile::tempdir().unwrap());
    let file = |name: &str| authority.folder.path().join(name);
    // As `openssl req -x509` makes it: CA:TRUE, for the address, signed by itself.
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(file("self.pem"), certificate.pem()).unwrap();
    std::fs::write(file("self.key"), key.serialize_pem()).unwrap();
    std::fs::set_permissions(file("self.key"), PermissionsExt::from_mode(0o640)).unwrap();
    let broker_of_it = Process::start(broker(data.path(), &file("self.pem"), &file("self.key")));
    assert!(broker_of_it.said("CA:TRUE").contains("basicConstraints=critical,CA:FALSE"));
    let tls = address(&broker_of_it, "listening for MQTT over TLS");
    let line = Process::start(node(data.path(), "press", tls, &file("self.pem"))).said("CA:TRUE");
    assert!(line.contains("openssl req") && !line.contains("OtherError"), "{line}");

    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGb\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let older = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIGb\n-----END EC PRIVATE KEY-----\n";
    let data = tempfile::tempdir().unwrap();
    for pem in [encrypted, older] {
        std::fs::write(file("locked.key"), pem).unwrap();
        let mut refused =
            Process::start(broker(data.path(), &file("self.pem"), &file("locked.key")));
        assert!(refused.said("encrypted with a passphrase").contains("openssl pkey -in"));
        assert_eq!(refused.wait(), Some(78));
    }
}

#[test]
fn a_renewed_certificate_is_taken_over() {
    let (authority, data) = (Authority::new(), tempfile::tempdir().unwrap());
    let (broker_pem, broker_key) =
        (authority.folder.path().join("b.pem"), authority.folder.path().join("b.key"));
    let stranger = Authority::new();
    let (certificate, key) = stranger.sign("broker", 2100);
    std::fs::copy(certificate, &broker_pem).unwrap();
    std::fs::copy(key, &broker_key).unwrap();
    let broker = Process::start(broker(data.path(), &broker_pem, &broker_key));
    let tls = address(&broker, "listening for MQTT over TLS");
    let node = Process::start(node(data.path(), "press", tls, &authority.ca()));
    node.said("no connection to the broker");
    let (certificate, key) = authority.sign("broker", 2100);
    std::fs::rename(key, &broker_key).unwrap();
    std::fs::rename(certificate, &broker_pem).unwrap();
    broker.said("certificate read again");
    wait_until("a reading is stored", || stored(data.path()) > 0);
}

#[test]
fn who_never_speaks_harms_nobody() {
    let (authority, data) = (Authority::new(), tempfile::tempdir().unwrap());
    let (certificate, key) = authority.sign("broker", 2100);
    let mut command = broker(data.path(), &certificate, &key);
    // Silent sockets may use the places of this address that are free.
    command.env("HUMIDOR_CONNECTIONS_PER_ADDRESS", "50");
    let broker = Process::start(command);
    let plain = address(&broker, "listening for MQTT 3");
    let tls = address(&broker, "listening for MQTT over TLS");
    // More silent sockets than there is room for, on both ports; the oldest make way.
    let opened = Instant::now();
    let mut silent: Vec<Client> = Vec::new();
    for _ in 0..200 {
        silent.push(Client::open(tls));
        silent.push(Client::open(plain));
    }
    assert!(silent[0].receive().is_none(), "the oldest was sent away");
    // By then its handshake would have been given up anyway.
    assert!(opened.elapsed() < Duration::from_secs(10), "{:?}", opened.elapsed());
    support::assert_serving(plain);
    let _node = Process::start(node(data.path(), "press", tls, &authority.ca()));
    wait_until("a reading is stored", || {
        support::readings(data.path()).iter().any(|reading| reading.node.as_str() == "press")
    });
}

/// A `ClientHello` of 65,000 bytes without its end, in records of 16 KiB (RFC 8446 §4.1.2, §5.1).
fn half_hello() -> Vec<u8> {
    const BODY_BYTES: usize = 65_000;
    let body = |bytes: usize| u16::try_from(bytes).unwrap().to_be_bytes();
    let mut message =
        [&[1, 0][..], &body(BODY_BYTES), &[3, 3], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    message.resize(BODY_BYTES, 0);
    let records = message.chunks(16 * 1024);
    records.flat_map(|part| [&[0x16, 3, 1][..], &body(part.len()), part].concat()).collect()
}

#[test]
fn unfinished_handshakes_fill_no_memory_and_keep_nobody_out() {
    const ADDED_MAX_KIB: u64 = 40 * 1024;
    let (authority, data) = (Authority::new(), tempfile::tempdir().unwrap());
    let (certificate, key) = authority.sign("broker", 2100);
    let broker = Process::start(broker(data.path(), &certificate, &key));
    let tls = address(&broker, "listening for MQTT over TLS");
    let idle_kib = broker.peak_kib();
    let hello = half_hello();
    let sockets: Vec<TcpStream> = (0..800)
        .map(|_| {
            let mut socket = TcpStream::connect(tls).unwrap();
            // An earlier one may be sent away at any time.
            let _ = socket.write_all(&hello);
            socket
        })
        .collect();
    let _node = Process::start(node(data.path(), "press", tls, &authority.ca()));
    wait_until("a reading is stored", || stored(data.path()) > 0);
    let added_kib = broker.peak_kib() - idle_kib;
    assert!(added_kib <= ADDED_MAX_KIB, "{added_kib} KiB for {} connections", sockets.len());
}
