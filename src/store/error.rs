//! What can go wrong between a mirror and the store, each with what was expected, what was found and the next step.

use super::shown;
use super::signature::SignatureError;
use crate::digest::Sha256;
use crate::units::Bytes;
use reqwest::Url;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A failure of the store. [`Error::hint`] has the next step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation in the store failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The filesystem of the store has no room.
    #[error("no room in `{}`: {} more wanted, {} free", directory.display(), Bytes(*needed), Bytes(*free))]
    DiskFull {
        /// The store's directory.
        directory: PathBuf,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes an ordinary user may still write there.
        free: u64,
    },
    /// The server says there is no such file.
    #[error("`{}` is not at {}: the server answered {status}", asked.label, shown(&asked.url))]
    NotFound {
        /// What was asked for, and where.
        asked: Box<Asked>,
        /// 404 or 410.
        status: u16,
    },
    /// The server answered with an error that trying again does not mend.
    #[error("cannot get {asked}: the server answered {status}")]
    Refused {
        /// What was asked for, and where.
        asked: Box<Asked>,
        /// The HTTP status.
        status: u16,
    },
    /// The address has a scheme that is not `http`, `https` or `file`.
    #[error("cannot get {asked}: the scheme `{}` is not supported", asked.url.scheme())]
    Scheme {
        /// What was asked for, and where.
        asked: Box<Asked>,
    },
    /// The server led in circles, or from an encrypted connection to an open one.
    #[error("cannot get {asked}: the server redirects without end or to where hardtack does not follow")]
    Redirects {
        /// What was asked for, and where.
        asked: Box<Asked>,
        /// The HTTP client's account.
        source: reqwest::Error,
    },
    /// The file has another length than the index says.
    #[error("{asked} has the wrong size: expected {expected}, found {found}{}", portal(*html))]
    Size {
        /// What was asked for, and where.
        asked: Box<Asked>,
        /// From the index.
        expected: Length,
        /// From the server.
        found: Length,
        /// Whether what came looks like a web page.
        html: bool,
    },
    /// The file has another digest than the index says.
    #[error("{asked} has the wrong SHA-256: expected {expected}, found {found}{}", portal(*html))]
    Digest {
        /// What was asked for, and where.
        asked: Box<Asked>,
        /// From the index.
        expected: Sha256,
        /// Of what came.
        found: Sha256,
        /// Whether what came looks like a web page.
        html: bool,
    },
    /// No answer, or none that lasted, after every try.
    #[error("cannot get {asked} after {tries} tries")]
    Unreachable {
        /// What was asked for, and where.
        asked: Box<Asked>,
        /// How often.
        tries: u32,
        /// What the last try met.
        source: Trouble,
    },
    /// Nothing may open a socket, and these are not in the store.
    #[error("offline, and not in the store: {}", list(missing))]
    Offline {
        /// The labels of what is missing.
        missing: Vec<String>,
    },
    /// The caller asked to stop. What was downloaded so far stays and is taken up again.
    #[error("stopped")]
    Cancelled,
    /// Bytes handed to the store are not what was promised.
    #[error("`{label}` is not what was expected: SHA-256 {expected}, found {found} ({size} bytes)")]
    NotAsPromised {
        /// What it was to be.
        label: String,
        /// The digest promised.
        expected: Sha256,
        /// The digest of the bytes.
        found: Sha256,
        /// How many bytes there were.
        size: u64,
    },
    /// An object in the store changed after it was verified.
    #[error("`{}` in the store is damaged: expected {expected}, found {found}", path.display())]
    Damaged {
        /// The object's file.
        path: PathBuf,
        /// Size or digest it was stored with.
        expected: String,
        /// Size or digest it has now.
        found: String,
    },
    /// Another hardtack works on the same store, so nothing can be removed now.
    #[error("another hardtack is using the store `{}`", directory.display())]
    InUse {
        /// The store's directory.
        directory: PathBuf,
    },
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// HTTPS is wanted, and this host has no certificates to judge a server by.
    #[error("cannot get {asked}: this host has no CA certificates")]
    NoCertificates {
        /// What was asked for, and where.
        asked: Box<Asked>,
        /// What the TLS library said.
        source: Arc<reqwest::Error>,
    },
    /// A release file is not signed by anyone trusted for it.
    #[error("cannot trust {asked}")]
    Signature {
        /// What was asked for, and where.
        asked: Box<Asked>,
        /// The verdict.
        source: SignatureError,
    },
    /// The Release file does not list an index that is needed.
    #[error("the Release file of `{suite}` at {} lists no `{}`", shown(&asked.url), asked.label)]
    Unlisted {
        /// The index, without a compression's ending, and the archive.
        asked: Box<Asked>,
        /// The suite.
        suite: String,
    },
    /// An index does not unpack to what the Release file says.
    #[error("cannot unpack `{label}`: {what}")]
    Unpack {
        /// The index.
        label: String,
        /// Expected and found.
        what: String,
        /// The decoder's account, if it was the decoder.
        source: Option<io::Error>,
    },
    /// A path that would leave the archive it is in.
    #[error("`{0}` is not a path inside an archive")]
    BadPath(String),
}

/// A file and one address it was asked from. Shown without the password an address may hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Asked {
    /// What people call the file.
    pub label: String,
    /// Where it was asked for.
    pub url: Url,
}

impl Asked {
    pub(super) fn new(label: &str, url: &Url) -> Box<Self> {
        Box::new(Self { label: label.to_owned(), url: url.clone() })
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` from {}", self.label, shown(&self.url))
    }
}

/// Why one try failed, where another may help.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// No connection, or it broke before the answer.
    #[error("{}", if .0.is_timeout() { "no answer in time" } else if .0.is_connect() { "no connection" } else { "the connection failed" })]
    Connection(#[source] reqwest::Error),
    /// The connection broke, or nothing came for too long, in the middle of the file.
    #[error("the transfer broke off")]
    Transfer(#[source] io::Error),
    /// The server is busy or broken for now.
    #[error("the server answered {0}")]
    Status(u16),
    /// The answer ended early.
    #[error("the file ended after {found} bytes of {expected}")]
    Short {
        /// Bytes wanted.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The server sent another part than was asked for.
    #[error("the server sent a part that was not asked for: `{0}`")]
    WrongPart(String),
}

/// A number of bytes that is known, or known only on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// This many.
    Exactly(u64),
    /// This many or more.
    AtLeast(u64),
    /// This many or fewer.
    AtMost(u64),
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(n) => write!(f, "{n} bytes"),
            Self::AtLeast(n) => write!(f, "at least {n} bytes"),
            Self::AtMost(n) => write!(f, "at most {n} bytes"),
        }
    }
}

impl Error {
    /// The next step, where there is one to name.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::DiskFull { .. } => {
                "make room there, run `hardtack cache prune`, or put the cache elsewhere with XDG_CACHE_HOME"
            }
            Self::NotFound { .. } => {
                "the archive has moved on since the lock was written: run `hardtack lock --update`; \
                 if it has not, the mirror may be incomplete: pass another with --mirror URL"
            }
            Self::Refused { status: 407, .. } => {
                "the proxy wants a name and a password: put them into its URL"
            }
            Self::Refused { .. }
            | Self::Redirects { .. }
            | Self::Unreachable { .. }
            | Self::Scheme { .. } => {
                "look at the mirror and proxy settings of apt, or pass another mirror with --mirror URL"
            }
            Self::Size { html: true, .. } | Self::Digest { html: true, .. } => {
                "open a web page to see whether the network asks for a login, or look at the proxy settings"
            }
            Self::Size { .. } | Self::Digest { .. } => {
                "the mirror or a proxy on the way gives out wrong bytes: try again later or pass another with --mirror URL"
            }
            Self::Offline { .. } => "run once without --offline, with the same lock",
            Self::Damaged { .. } => "run `hardtack cache prune`; it is fetched again",
            Self::InUse { .. } => "wait until it has finished",
            Self::NoCertificates { .. } => "install the package ca-certificates, or use a mirror by http",
            Self::Signature { source, .. } => return Some(source.hint()),
            Self::Unlisted { .. } => "look at the suite, the components and the architecture in the profile",
            Self::Io { .. }
            | Self::Cancelled
            | Self::NotAsPromised { .. }
            | Self::Client(_)
            | Self::Unpack { .. }
            | Self::BadPath(_) => return None,
        };
        Some(text.into())
    }

    /// Whether another address for the same file may still help.
    pub(super) fn is_about_one_address(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. }
                | Self::Refused { .. }
                | Self::Scheme { .. }
                | Self::Redirects { .. }
                | Self::Size { .. }
                | Self::Digest { .. }
                | Self::Unreachable { .. }
                | Self::NoCertificates { .. }
        )
    }

    /// Names the path an I/O error is about.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

fn portal(html: bool) -> &'static str {
    if html { " (the server sent an HTML page: a captive portal or proxy?)" } else { "" }
}

/// The first few names, and how many more there are.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let first = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
