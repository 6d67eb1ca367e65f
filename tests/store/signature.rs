//! Signatures, judged beside gpgv.

use hardtack::store::signature::{Fault, Keyring, SignatureError, Verified, debian_keys, parse_certs};
use sequoia_openpgp as openpgp;

use openpgp::cert::{Cert, CertBuilder, CipherSuite};
use openpgp::packet::signature::SignatureBuilder;
use openpgp::policy::StandardPolicy;
use openpgp::serialize::SerializeInto;
use openpgp::serialize::stream::{Armorer, Message, Signer};
use openpgp::types::{HashAlgorithm, SignatureType};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);
pub const TEXT: &str = "Origin: Test\nSuite: stable\n- dashed\nDescription: ends in blanks  \nSHA256:\n";

#[expect(clippy::disallowed_methods, reason = "the clock of a test; gpgv looks at the same")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// A key made `age` days ago that lives `life` days.
pub fn key(age: u32, life: u32) -> Cert {
    CertBuilder::new()
        .add_userid("Archive <archive@mirror.example>")
        .set_cipher_suite(CipherSuite::Cv25519)
        .set_creation_time(now() - DAY * age)
        .set_validity_period(DAY * life)
        .add_signing_subkey()
        .generate()
        .unwrap()
        .0
}

/// Signs as a keypair of the certificate would have at that time.
fn sign(cert: &Cert, hash: HashAlgorithm, at: SystemTime, text: &[u8], clear: bool) -> Vec<u8> {
    let mut policy = StandardPolicy::new();
    policy.accept_hash(HashAlgorithm::SHA1);
    let key = cert.keys().secret().with_policy(&policy, at).for_signing().next().unwrap();
    let pair = key.key().clone().into_keypair().unwrap();
    let template = SignatureBuilder::new(if clear { SignatureType::Text } else { SignatureType::Binary });
    let mut out = Vec::new();
    let message = Message::new(&mut out);
    let message = if clear { message } else { Armorer::new(message).build().unwrap() };
    let signer =
        Signer::with_template(message, pair, template).unwrap().hash_algo(hash).unwrap().creation_time(at);
    let signer = if clear { signer.cleartext() } else { signer.detached() };
    let mut signer = signer.build().unwrap();
    signer.write_all(text).unwrap();
    signer.finalize().unwrap();
    out
}

pub fn clear_signed(cert: &Cert, text: &[u8]) -> Vec<u8> {
    sign(cert, HashAlgorithm::SHA512, now(), text, true)
}

pub fn detached(cert: &Cert, text: &[u8]) -> Vec<u8> {
    sign(cert, HashAlgorithm::SHA512, now(), text, false)
}

pub fn keyring(certs: &[&Cert]) -> Keyring {
    let bytes: Vec<u8> = certs.iter().flat_map(|cert| cert.armored().to_vec().unwrap()).collect();
    parse_certs(&bytes).unwrap()
}

/// The reference: what gpgv says, and the bytes it takes out.
pub struct Gpgv {
    pub good: bool,
    pub payload: Vec<u8>,
    pub status: String,
}

#[expect(clippy::disallowed_methods, reason = "the judge is another program")]
pub fn gpgv(keyring: &Path, files: &[&Path]) -> Gpgv {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("payload");
    let mut command = std::process::Command::new("gpgv");
    command.args(["--status-fd", "1", "--keyring"]).arg(keyring);
    if files.len() == 1 {
        command.arg("--output").arg(&output);
    }
    let run = command.args(files).output().expect("install gpgv");
    let status = String::from_utf8_lossy(&run.stdout).into_owned();
    // The way apt reads it: one VALIDSIG that is not from an expired or revoked key.
    let good = status.contains("[GNUPG:] GOODSIG") && status.contains("[GNUPG:] VALIDSIG");
    Gpgv { good, payload: std::fs::read(output).unwrap_or_default(), status }
}

struct Judged {
    ours: Result<Verified, SignatureError>,
    theirs: Gpgv,
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Both verdicts on a clear-signed file.
fn judge(certs: &[&Cert], file: &[u8]) -> Judged {
    let directory = tempfile::tempdir().unwrap();
    let binary: Vec<u8> = certs.iter().flat_map(|cert| cert.to_vec().unwrap()).collect();
    let ring = write(directory.path(), "ring.gpg", &binary);
    let signed = write(directory.path(), "InRelease", file);
    Judged {
        ours: parse_certs(&binary).unwrap().verify_clear_signed(file, now()),
        theirs: gpgv(&ring, &[&signed]),
    }
}

fn fault(result: Result<Verified, SignatureError>) -> Fault {
    match result {
        Err(SignatureError::NoGood(verdicts)) => verdicts[0].why.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_signature_gives_exactly_the_signed_bytes() {
    let cert = key(10, 100);
    for text in
        [TEXT.to_owned(), TEXT.replace('\n', "\r\n"), "- \n-----BEGIN x\nFrom y\n".into(), "no end".into()]
    {
        let Judged { ours, theirs } = judge(&[&key(10, 100), &cert], &clear_signed(&cert, text.as_bytes()));
        let ours = ours.unwrap();
        assert!(theirs.good, "{}", theirs.status);
        let trimmed = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes).replace("\r\n", "\n").trim_end_matches('\n').to_owned()
        };
        assert_eq!(trimmed(&ours.payload), trimmed(&theirs.payload), "{text:?}");
        assert_eq!(ours.signer, cert.fingerprint().to_hex());
        assert_ne!(ours.key, ours.signer, "a subkey signs");
        assert!(theirs.status.contains(&ours.key) && theirs.status.contains(&ours.signer));
        assert!(now().duration_since(ours.signed_at).unwrap() < DAY);
    }
}

#[test]
fn one_changed_byte_is_a_bad_signature_to_both() {
    let cert = key(10, 100);
    let mut file = clear_signed(&cert, TEXT.as_bytes());
    let at = file.windows(6).position(|w| w == b"stable").unwrap();
    file[at] = b'S';
    let Judged { ours, theirs } = judge(&[&cert], &file);
    assert!(!theirs.good && theirs.status.contains("BADSIG"), "{}", theirs.status);
    assert!(ours.as_ref().unwrap_err().hint().contains("changed the file"));
    assert_eq!(fault(ours), Fault::Bad);
}

#[test]
fn a_key_that_is_not_listed_is_named_and_not_trusted() {
    let (cert, other) = (key(10, 100), key(10, 100));
    let Judged { ours, theirs } = judge(&[&other], &clear_signed(&cert, TEXT.as_bytes()));
    assert!(!theirs.good && theirs.status.contains("NO_PUBKEY"), "{}", theirs.status);
    let error = ours.unwrap_err();
    let policy = StandardPolicy::new();
    let signing = cert.keys().with_policy(&policy, None).for_signing().next().unwrap().key().fingerprint();
    assert!(error.to_string().contains(&signing.to_hex()), "{error}");
    assert!(error.to_string().contains("not trusted"), "{error}");
}

#[test]
fn one_good_signature_among_unknown_ones_is_enough() {
    let (cert, other) = (key(10, 100), key(10, 100));
    let policy = StandardPolicy::new();
    let pair = |cert: &Cert| {
        let key = cert.keys().secret().with_policy(&policy, None).for_signing().next().unwrap();
        key.key().clone().into_keypair().unwrap()
    };
    let mut file = Vec::new();
    let signer = Signer::with_template(
        Message::new(&mut file),
        pair(&other),
        SignatureBuilder::new(SignatureType::Text),
    );
    let mut signer = signer.unwrap().add_signer(pair(&cert)).unwrap().cleartext().build().unwrap();
    signer.write_all(TEXT.as_bytes()).unwrap();
    signer.finalize().unwrap();
    let Judged { ours, theirs } = judge(&[&cert], &file);
    assert!(theirs.good, "{}", theirs.status);
    assert_eq!(ours.unwrap().signer, cert.fingerprint().to_hex());
}

#[test]
fn an_expired_key_does_not_count_whether_it_signed_before_or_after() {
    let cert = key(100, 50);
    // While it was alive: right mathematics, dead key.
    let file = sign(&cert, HashAlgorithm::SHA512, now() - DAY * 80, TEXT.as_bytes(), true);
    let Judged { ours, theirs } = judge(&[&cert], &file);
    assert!(!theirs.good && theirs.status.contains("EXPKEYSIG"), "{}", theirs.status);
    assert!(ours.as_ref().unwrap_err().hint().contains("clock"));
    assert!(matches!(fault(ours), Fault::NotAlive(_)));
    // At that time it did count: the clock is an argument.
    keyring(&[&cert]).verify_clear_signed(&file, now() - DAY * 79).unwrap();
    // And a clock that is far behind takes the signature for one from the future.
    assert!(keyring(&[&cert]).verify_clear_signed(&file, now() - DAY * 95).is_err());
}

#[test]
fn a_revoked_key_does_not_count() {
    let cert = key(100, 1000);
    let file = sign(&cert, HashAlgorithm::SHA512, now() - DAY, TEXT.as_bytes(), true);
    let mut signer = cert.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
    let why = openpgp::types::ReasonForRevocation::KeyCompromised;
    let revocation = openpgp::cert::CertRevocationBuilder::new()
        .set_reason_for_revocation(why, b"stolen")
        .unwrap()
        .build(&mut signer, &cert, None)
        .unwrap();
    let cert = cert.insert_packets(revocation).unwrap().0;
    let Judged { ours, theirs } = judge(&[&cert], &file);
    assert!(!theirs.good, "{}", theirs.status);
    assert!(matches!(fault(ours), Fault::NotAlive(_) | Fault::Refused(_)));
}

#[test]
fn sha1_is_refused_where_gpgv_still_takes_it() {
    let cert = key(10, 100);
    let Judged { ours, .. } =
        judge(&[&cert], &sign(&cert, HashAlgorithm::SHA1, now(), TEXT.as_bytes(), true));
    let fault = fault(ours);
    assert!(matches!(&fault, Fault::Refused(why) if why.contains("SHA1")), "{fault:?}");
}

#[test]
fn detached_signatures_follow_the_same_rules() {
    let (cert, other) = (key(10, 100), key(10, 100));
    let signature = detached(&cert, TEXT.as_bytes());
    let directory = tempfile::tempdir().unwrap();
    let ring = write(directory.path(), "ring.gpg", &cert.to_vec().unwrap());
    let beside = write(directory.path(), "Release.gpg", &signature);
    for text in [TEXT.to_owned(), TEXT.replace("stable", "Stable")] {
        let release = write(directory.path(), "Release", text.as_bytes());
        let ours = keyring(&[&cert]).verify_detached(text.as_bytes(), &signature, now());
        assert_eq!(gpgv(&ring, &[&beside, &release]).good, ours.is_ok());
        match ours {
            Ok(verified) => assert_eq!(verified.payload, TEXT.as_bytes()),
            Err(_) => assert_eq!(fault(ours), Fault::Bad),
        }
    }
    assert_eq!(
        fault(keyring(&[&other]).verify_detached(TEXT.as_bytes(), &signature, now())),
        Fault::NotTrusted
    );
}

#[test]
fn what_stands_around_the_signed_text_is_not_taken() {
    let cert = key(10, 100);
    let file = clear_signed(&cert, TEXT.as_bytes());
    let ring = keyring(&[&cert]);
    // In front: not a clear-signed file any more. Behind: outside of the payload.
    let front = [&b"Origin: Evil\n\n"[..], &file].concat();
    assert!(matches!(ring.verify_clear_signed(&front, now()), Err(SignatureError::Malformed(_))));
    let behind = [&file[..], b"\nOrigin: Evil\n"].concat();
    if let Ok(verified) = ring.verify_clear_signed(&behind, now()) {
        assert!(!String::from_utf8_lossy(&verified.payload).contains("Evil"));
    }
    // Two files in one: at most the first counts.
    let twice = [&file[..], &clear_signed(&cert, b"Origin: Evil\n")].concat();
    if let Ok(verified) = ring.verify_clear_signed(&twice, now()) {
        assert!(!String::from_utf8_lossy(&verified.payload).contains("Evil"));
    }
}

#[test]
fn no_signed_file_at_all_is_malformed() {
    let ring = debian_keys().unwrap();
    let cert = key(10, 100);
    let signed = clear_signed(&cert, TEXT.as_bytes());
    let half = &signed[..signed.len() - 60];
    for file in [&b""[..], b"<html>", b"-----BEGIN PGP SIGNED MESSAGE-----", TEXT.as_bytes(), half] {
        let error = ring.verify_clear_signed(file, now()).unwrap_err();
        assert!(!error.hint().is_empty(), "{error}");
    }
    assert!(ring.verify_detached(b"x", b"y", now()).is_err());
    assert!(ring.verify_detached(b"x", &detached(&cert, b"x")[..100], now()).is_err());
    let long = [b"-----BEGIN PGP SIGNED MESSAGE-----".to_vec(), vec![b'\n'; 17 << 20]].concat();
    assert!(matches!(ring.verify_clear_signed(&long, now()), Err(SignatureError::Malformed(_))));
    for bytes in [&b""[..], b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"\xff\xff\xff\xff\xff\xff"] {
        assert!(parse_certs(bytes).is_err());
    }
}

#[test]
fn the_shipped_keys_are_debians() {
    let expected = [
        "B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8",
        "05AB90340C0C5E797F44A8C8254CF3B5AEC0A8F0",
        "4D64FEC119C2029067D6E791F8D2585B8783D481",
        "04B54C3CDCA79751B16BC6B5225629DF75B188BD",
        "5E04A1E3223A19A20706E20F9904613D4CCE68C6",
        "41587F7DB8C774BCCF131416762F67A0B2C39DE4",
    ];
    assert_eq!(debian_keys().unwrap().fingerprints(), expected);
    let readme = include_str!("../../src/store/keys/README.md").replace(' ', "");
    assert!(expected.iter().all(|fingerprint| readme.contains(fingerprint)));
    // The package, where it is installed, has the same ones.
    let package = std::fs::read("/usr/share/keyrings/debian-archive-keyring.gpg")
        .expect("install debian-archive-keyring");
    let installed = parse_certs(&package).unwrap().fingerprints();
    assert!(
        expected.iter().all(|fingerprint| installed.iter().any(|there| there == fingerprint)),
        "{installed:?}"
    );
}
