//! `[ssh]`: the one line that opens a device for its owner, with keys and never with passwords.

use super::diagnostics::Diagnostic;
use super::ownership::check_account_name;
use super::ports::Scope;
use super::section::Section;
use super::source::Sourced;

/// `[ssh]`: with it, openssh-server is installed and port 22 is open to `scope`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// Who logs in. Made as an account for a person if no `[accounts.NAME]` says otherwise.
    pub user: Sourced<String>,
    /// Lines of `authorized_keys`, at least one.
    pub authorized_keys: Vec<Sourced<String>>,
    /// Who may try.
    pub scope: Sourced<Scope>,
}

impl Ssh {
    /// Reads `[ssh]`; `None` where there is none.
    pub(super) fn read(document: &mut Section<'_>) -> Option<Sourced<Self>> {
        let (given, mut section) = document.table("ssh");
        let report = document.report();
        let found = report.count();
        let authorized_keys =
            section.list("authorized_keys", |text| check_key(text).map(|()| text.trim().to_owned()));
        let keys_found = report.count();
        let scope = section.parsed("scope", Scope::read);
        let user = section.parsed("user", |text| match text {
            "root" => Err("nobody logs in as root; take a name of your own and `sudo`".into()),
            "pi" => Err("it is the first name that everybody tries; take another".into()),
            text => check_account_name(text).map(|()| text.to_owned()),
        });
        section.refuse(
            &["password", "passwords", "password_authentication", "permit_root_login"],
            "SSH is by key only, and never for root",
            "put your public key into `authorized_keys`",
        );
        if !given {
            return None;
        }
        // Keys that are there and no good have been reported.
        if authorized_keys.is_empty() && keys_found == found {
            let one = Diagnostic::new("`[ssh]` without a key would let nobody in");
            let one = one.mark(section.place(), "");
            report.add(
                one.hint("add `authorized_keys = [\"ssh-ed25519 AAAA… you@example\"]`, or leave `[ssh]` out"),
            );
        }
        let ssh = Self {
            user: user.unwrap_or(Sourced::default_value("admin".into())),
            authorized_keys,
            scope: scope.unwrap_or(Sourced::default_value(Scope::Lan)),
        };
        Some(Sourced::new(ssh, section.place().clone()))
    }
}

/// The key types that OpenSSH 10 accepts for users.
const TYPES: [&str; 7] = [
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
];

/// One line of authorized_keys(5): perhaps options, a type, the key in base64, perhaps a comment.
fn check_key(text: &str) -> Result<(), String> {
    if text.contains("PRIVATE KEY") {
        return Err("this is a private key, which never belongs into a profile\ngive the `.pub` file's line, and make a new key".into());
    }
    if text.chars().any(|c| c.is_control()) || text.len() > 16384 {
        return Err("must be one line of `authorized_keys`".into());
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let Some(at) = words.iter().position(|word| TYPES.contains(word)) else {
        return Err(match words.first() {
            Some(&"ssh-dss") => "DSA keys are broken, and OpenSSH no longer takes them\n`ssh-keygen -t ed25519` makes a good one".into(),
            _ => "must be a public key, such as `ssh-ed25519 AAAA… you@example`".into(),
        });
    };
    let blob = words.get(at + 1).and_then(|word| decode_base64(word));
    let Some(blob) = blob else { return Err("must have the key itself, in base64, after its type".into()) };
    // RFC 4253, 6.6: the blob begins with its own type, as a string with a 32-bit length.
    let inner = blob.split_at_checked(4).and_then(|(length, rest)| {
        let length = u32::from_be_bytes(length.try_into().ok()?);
        rest.get(..usize::try_from(length).ok()?)
    });
    if inner != Some(words[at].as_bytes()) || blob.len() < 4 + words[at].len() + 32 {
        return Err("the key is cut off, or not of the type it says".into());
    }
    Ok(())
}

/// RFC 4648, with padding or without.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 3);
    let (mut bits, mut have) = (0u32, 0);
    for c in digits.bytes() {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have) as u8);
            bits &= (1 << have) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with `ssh-keygen -t ed25519` for this test; the private half was not kept.
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0ikGfHx8B1VnVEiEoX8ZxMhWnnqSlVhGTvZbKzTs8Z";

    #[test]
    fn public_keys_are_told_from_everything_else() {
        for text in [KEY, &format!("{KEY} me@example"), &format!("from=\"192.0.2.1\",restrict {KEY}")] {
            assert_eq!(check_key(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            &KEY[..60],
            &KEY.replace("ssh-ed25519 ", "ssh-rsa "),
            &format!("{KEY}\n{KEY}"),
            "ssh-dss AAAA",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
        ] {
            assert!(check_key(text).is_err(), "{text}");
        }
    }

    #[test]
    fn base64_of_rfc_4648() {
        for (text, bytes) in [("Zm9vYmFy", "foobar"), ("Zm9vYg==", "foob"), ("Zm9vYmE", "fooba"), ("", "")] {
            assert_eq!(decode_base64(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(decode_base64("Zm9v!"), None);
    }
}
