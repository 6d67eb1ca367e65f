//! Whose word a release file is: OpenPGP signatures against an allow-list of certificates.
//!
//! The policy is sequoia's standard one (no SHA-1, no MD5, no short RSA keys), and one good signature by a listed
//! certificate is enough, as for apt: Debian signs with the keys of two releases at once. A certificate must be alive
//! and not revoked both when it signed and now.

use openpgp::cert::amalgamation::ValidAmalgamation;
use openpgp::cert::{Cert, CertParser};
use openpgp::parse::Parse;
use openpgp::parse::stream::{
    DetachedVerifierBuilder, GoodChecksum, MessageLayer, MessageStructure, VerificationError,
    VerificationHelper, VerifierBuilder,
};
use openpgp::policy::StandardPolicy;
use openpgp::types::RevocationStatus;
use openpgp::{KeyHandle, anyhow, packet};
use sequoia_openpgp as openpgp;
use std::fmt;
use std::io::Read;
use std::time::SystemTime;

/// The longest release file that is looked at; Debian's have 150 to 400 KB.
pub const MAX_RELEASE: u64 = 16 << 20;

/// The longest detached signature; Debian's have 2 KB.
pub const MAX_SIGNATURE: u64 = 1 << 20;

/// The longest keyring; Debian's whole one has 60 KB.
const MAX_KEYRING: usize = 4 << 20;

/// The keys that sign Debian 12 and 13 (`keys/README.md` has their origin and fingerprints).
const DEBIAN: [&[u8]; 6] = [
    include_bytes!("keys/debian-archive-bookworm-automatic.asc"),
    include_bytes!("keys/debian-archive-bookworm-security-automatic.asc"),
    include_bytes!("keys/debian-archive-bookworm-stable.asc"),
    include_bytes!("keys/debian-archive-trixie-automatic.asc"),
    include_bytes!("keys/debian-archive-trixie-security-automatic.asc"),
    include_bytes!("keys/debian-archive-trixie-stable.asc"),
];

/// The certificates trusted for one source.
#[derive(Clone)]
pub struct Keyring(Vec<Cert>);

/// The Debian archive keys that ship with hardtack.
pub fn debian_keys() -> Result<Keyring, SignatureError> {
    let mut certs = Vec::new();
    for bytes in DEBIAN {
        certs.extend(parse_certs(bytes)?.0);
    }
    Ok(Keyring(certs))
}

/// Reads the certificates of a keyring: binary, or any number of ASCII-armoured blocks one after another.
pub fn parse_certs(bytes: &[u8]) -> Result<Keyring, SignatureError> {
    if bytes.len() > MAX_KEYRING {
        return Err(SignatureError::Keyring(format!("longer than {MAX_KEYRING} bytes")));
    }
    let mut certs = Vec::new();
    for block in armoured_blocks(bytes) {
        let parser =
            CertParser::from_bytes(block).map_err(|error| SignatureError::Keyring(error.to_string()))?;
        for cert in parser {
            certs.push(cert.map_err(|error| SignatureError::Keyring(error.to_string()))?);
        }
    }
    if certs.is_empty() {
        return Err(SignatureError::Keyring("no OpenPGP certificate in it".into()));
    }
    Ok(Keyring(certs))
}

/// A keyring of several armoured blocks, block by block: the parser stops after the first.
fn armoured_blocks(bytes: &[u8]) -> Vec<&[u8]> {
    const BEGIN: &[u8] = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";
    let mut starts: Vec<usize> = bytes
        .windows(BEGIN.len())
        .enumerate()
        .filter(|(_, window)| *window == BEGIN)
        .map(|(at, _)| at)
        .collect();
    if starts.is_empty() {
        return vec![bytes];
    }
    starts.push(bytes.len());
    starts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// What was signed, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Exactly the bytes the signature covers. In a clear-signed file, the armour, the dash escapes and the line break
    /// before the signature are not among them.
    pub payload: Vec<u8>,
    /// Fingerprint of the certificate, in capital hexadecimal digits.
    pub signer: String,
    /// Fingerprint of the key that signed: the certificate's own or a subkey's.
    pub key: String,
    /// When the signature says it was made.
    pub signed_at: SystemTime,
}

impl Keyring {
    /// Verifies a clear-signed file (`InRelease`; RFC 9580, section 7) and takes out what was signed.
    ///
    /// `now` is the clock the keys' lifetimes are judged by.
    pub fn verify_clear_signed(&self, file: &[u8], now: SystemTime) -> Result<Verified, SignatureError> {
        if file.len() as u64 > MAX_RELEASE {
            return Err(SignatureError::Malformed(format!("longer than {MAX_RELEASE} bytes")));
        }
        // Any other kind of OpenPGP message could be compressed, encrypted, or have text around it.
        if !file.starts_with(b"-----BEGIN PGP SIGNED MESSAGE-----") {
            return Err(SignatureError::Malformed("not a clear-signed file".into()));
        }
        let policy = StandardPolicy::new();
        let builder = VerifierBuilder::from_bytes(file).map_err(malformed)?.buffer_size(MAX_RELEASE as usize);
        let mut findings = Findings::default();
        let judge =
            Judge { certs: &self.0, policy: &policy, now, clear_signed: true, findings: &mut findings };
        let read = builder.with_policy(&policy, now, judge).and_then(|mut verifier| {
            let mut payload = Vec::new();
            (&mut verifier).take(MAX_RELEASE + 1).read_to_end(&mut payload)?;
            Ok((payload, verifier.message_processed()))
        });
        findings.verdict(read.map(|(payload, processed)| processed.then_some(payload)))
    }

    /// Verifies a file with its signature beside it (`Release` and `Release.gpg`).
    pub fn verify_detached(
        &self,
        file: &[u8],
        signature: &[u8],
        now: SystemTime,
    ) -> Result<Verified, SignatureError> {
        if file.len() as u64 > MAX_RELEASE || signature.len() as u64 > MAX_SIGNATURE {
            return Err(SignatureError::Malformed("longer than a release file and its signature are".into()));
        }
        let policy = StandardPolicy::new();
        let builder = DetachedVerifierBuilder::from_bytes(signature).map_err(malformed)?;
        let mut findings = Findings::default();
        let judge =
            Judge { certs: &self.0, policy: &policy, now, clear_signed: false, findings: &mut findings };
        let read =
            builder.with_policy(&policy, now, judge).and_then(|mut verifier| verifier.verify_bytes(file));
        findings.verdict(read.map(|()| Some(file.to_vec())))
    }

    /// The fingerprints of the certificates, in capital hexadecimal digits.
    pub fn fingerprints(&self) -> Vec<String> {
        self.0.iter().map(|cert| cert.fingerprint().to_hex()).collect()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.fingerprints()).finish()
    }
}

/// Why a file is not believed.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// It is not a signed file at all, or a broken one.
    #[error("no readable signature: {0}")]
    Malformed(String),
    /// None of its signatures counts.
    #[error("no good signature: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    NoGood(Vec<Verdict>),
    /// The keys to judge by cannot be read.
    #[error("not a keyring: {0}")]
    Keyring(String),
}

/// Why one signature does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Fingerprint or key id of the key that signed, in capital hexadecimal digits.
    pub key: String,
    /// Why.
    pub why: Fault,
}

/// What is wrong with a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The key is not among those trusted for this source.
    NotTrusted,
    /// The bytes are not those that were signed.
    Bad,
    /// The key or the signature has expired, is not valid yet, or was revoked.
    NotAlive(String),
    /// The key or the signature uses what the policy refuses (SHA-1, a short key), or is not a signing key.
    Refused(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, why } = self;
        match why {
            Fault::NotTrusted => write!(f, "key {key} is not trusted for this source"),
            Fault::Bad => write!(f, "the signature by key {key} is BAD: the file is not what was signed"),
            Fault::NotAlive(why) => write!(f, "key {key} is not valid at this time ({why})"),
            Fault::Refused(why) => write!(f, "the signature by key {key} is refused ({why})"),
        }
    }
}

impl SignatureError {
    /// The next step.
    pub fn hint(&self) -> String {
        let has = |wanted: fn(&Fault) -> bool| matches!(self, Self::NoGood(all) if all.iter().any(|v| wanted(&v.why)));
        let text = if has(|fault| matches!(fault, Fault::Bad)) {
            "the mirror or a proxy on the way changed the file: try again later or pass another with --mirror URL"
        } else if has(|fault| matches!(fault, Fault::NotAlive(_))) {
            "check this machine's clock; if it is right, a newer hardtack has newer keys"
        } else if has(|fault| matches!(fault, Fault::Refused(_))) {
            "the publisher must sign with a current key and SHA-256 or better; ask for the renewed key"
        } else if has(|fault| matches!(fault, Fault::NotTrusted)) {
            "is this the archive you meant? Debian's keys come with hardtack, those of other sources with the profile"
        } else if matches!(self, Self::Keyring(_)) {
            "the key file must hold the publisher's OpenPGP public key, binary or ASCII-armoured"
        } else {
            "the server may have sent a login page or another file: look at the mirror's address and the proxy settings"
        };
        text.into()
    }
}

/// What the signatures of one file are worth. Kept outside of the verifier, which is lost when it fails.
#[derive(Default)]
struct Findings {
    /// Certificate, key and time of the first signature that counts.
    good: Option<(String, String, SystemTime)>,
    faults: Vec<Verdict>,
}

impl Findings {
    /// `read` is the payload, or `None` when sequoia had not seen the end of the message.
    fn verdict(self, read: anyhow::Result<Option<Vec<u8>>>) -> Result<Verified, SignatureError> {
        match (self.good, read) {
            (Some((signer, key, signed_at)), Ok(Some(payload))) => {
                Ok(Verified { payload, signer, key, signed_at })
            }
            (None, _) if !self.faults.is_empty() => Err(SignatureError::NoGood(self.faults)),
            (_, Err(error)) => Err(malformed(error)),
            _ => Err(SignatureError::Malformed("the signature covers nothing".into())),
        }
    }
}

/// Applies the allow-list and the clock to what sequoia finds.
struct Judge<'a> {
    certs: &'a [Cert],
    policy: &'a StandardPolicy<'a>,
    now: SystemTime,
    clear_signed: bool,
    findings: &'a mut Findings,
}

impl Judge<'_> {
    /// A signature whose mathematics is right: is its key alive now, too?
    fn alive_now(&self, good: &GoodChecksum) -> Result<(), String> {
        let cert = good.ka.cert().with_policy(self.policy, self.now).map_err(|error| flat(&error))?;
        cert.alive().map_err(|error| flat(&error))?;
        let fingerprint = good.ka.key().fingerprint();
        let key = cert
            .keys()
            .key_handle(fingerprint)
            .next()
            .ok_or("the key is no longer bound to its certificate")?;
        key.alive().map_err(|error| flat(&error))?;
        let revoked = |status| matches!(status, RevocationStatus::Revoked(_));
        if revoked(cert.revocation_status()) || revoked(key.revocation_status()) {
            return Err("it was revoked".into());
        }
        Ok(())
    }
}

impl VerificationHelper for Judge<'_> {
    fn get_certs(&mut self, ids: &[KeyHandle]) -> openpgp::Result<Vec<Cert>> {
        let wanted =
            |cert: &&Cert| cert.keys().any(|key| ids.iter().any(|id| id.aliases(key.key().key_handle())));
        Ok(self.certs.iter().filter(wanted).cloned().collect())
    }

    fn check(&mut self, structure: MessageStructure) -> openpgp::Result<()> {
        if structure.processed_csf_message() != self.clear_signed {
            return Err(openpgp::Error::MalformedMessage("not the kind of signature expected".into()).into());
        }
        let mut layers = structure.into_iter();
        let (Some(MessageLayer::SignatureGroup { results }), None) = (layers.next(), layers.next()) else {
            return Err(openpgp::Error::MalformedMessage("not just signatures".into()).into());
        };
        for result in results {
            match result {
                Ok(good) => match self.alive_now(&good) {
                    Ok(()) if self.findings.good.is_none() => {
                        let signed_at = good.sig.signature_creation_time().unwrap_or(SystemTime::UNIX_EPOCH);
                        let signer = good.ka.cert().fingerprint().to_hex();
                        self.findings.good = Some((signer, good.ka.key().fingerprint().to_hex(), signed_at));
                    }
                    Ok(()) => {}
                    Err(why) => {
                        let key = good.ka.key().fingerprint().to_hex();
                        self.findings.faults.push(Verdict { key, why: Fault::NotAlive(why) });
                    }
                },
                Err(error) => self.findings.faults.push(fault(&error)),
            }
        }
        match self.findings.good {
            Some(_) => Ok(()),
            None => Err(openpgp::Error::BadSignature("no signature that counts".into()).into()),
        }
    }
}

fn fault(error: &VerificationError) -> Verdict {
    let issuer = |sig: &packet::Signature| {
        sig.get_issuers().first().map_or_else(|| "of unknown id".into(), |handle| handle.to_hex())
    };
    match error {
        VerificationError::MissingKey { sig } => Verdict { key: issuer(sig), why: Fault::NotTrusted },
        VerificationError::UnboundKey { sig, error, .. } => {
            Verdict { key: issuer(sig), why: lifetime_or_policy(error) }
        }
        VerificationError::BadKey { ka, error, .. } => {
            Verdict { key: ka.key().fingerprint().to_hex(), why: lifetime_or_policy(error) }
        }
        VerificationError::BadSignature { ka, error, .. } => {
            let key = ka.key().fingerprint().to_hex();
            // A wrong signature, or a right one with an expiry or an algorithm that is refused.
            let why = match lifetime_or_policy(error) {
                Fault::Refused(_) if !is_policy(error) => Fault::Bad,
                fault => fault,
            };
            Verdict { key, why }
        }
        VerificationError::MalformedSignature { sig, error } => {
            Verdict { key: issuer(sig), why: Fault::Refused(flat(error)) }
        }
        VerificationError::UnknownSignature { .. } => {
            Verdict { key: "of unknown kind".into(), why: Fault::Refused("it cannot be read".into()) }
        }
        other => Verdict { key: "of unknown kind".into(), why: Fault::Refused(other.to_string()) },
    }
}

fn lifetime_or_policy(error: &anyhow::Error) -> Fault {
    let lifetime = causes(error)
        .any(|cause| matches!(cause, openpgp::Error::Expired(_) | openpgp::Error::NotYetLive(_)));
    if lifetime { Fault::NotAlive(flat(error)) } else { Fault::Refused(flat(error)) }
}

fn is_policy(error: &anyhow::Error) -> bool {
    causes(error).any(|cause| matches!(cause, openpgp::Error::PolicyViolation(..)))
}

fn causes(error: &anyhow::Error) -> impl Iterator<Item = &openpgp::Error> {
    error.chain().filter_map(|cause| cause.downcast_ref())
}

/// An error and its causes in one line: sequoia's are too many kinds to keep apart.
fn flat(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn malformed(error: anyhow::Error) -> SignatureError {
    SignatureError::Malformed(flat(&error))
}
