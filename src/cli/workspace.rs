//! What `build` and `lock` share: the store, the mirror, the lock file, and Ctrl-C.

use super::progress::Screen;
use super::{Context, Failure};
use crate::pipeline::{self, Mirror, Setup};
use crate::plan::lock::{LockError, Request};
use crate::plan::{Lock, request};
use crate::profile::{Board, Profile};
use crate::sandbox::{Host, SandboxError};
use crate::store::sources::{self, SourcesError};
use crate::store::{Client, Patience, Proxies, Store, Url};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

/// Where packages come from; the same for every command that may fetch some.
#[derive(Clone, Debug, clap::Args)]
pub struct Network {
    /// The Debian mirror to use; without it, the profile's, or the one in this machine's apt configuration
    #[arg(long, value_name = "URL", value_parser = url)]
    pub mirror: Option<Url>,
    /// Use only what the cache has
    #[arg(long)]
    pub offline: bool,
}

fn url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" | "https" | "file" => Ok(url),
        other => Err(format!("`{other}:` is not supported; use http, https or file")),
    }
}

/// A profile and where its lock belongs.
pub struct Named {
    /// The profile.
    pub profile: Profile,
    /// What its lock must answer.
    pub request: Request,
    /// The lock file: beside a profile of one's own, in the output directory for a shipped one.
    pub lock_path: PathBuf,
}

impl Named {
    /// Reads a profile.
    pub fn load(
        reference: &str,
        boards: &[Board],
        network: &Network,
        output: &Path,
    ) -> Result<Self, Failure> {
        let profile = Profile::load_for(reference, boards)?;
        let request = request::request(&profile, network.mirror.as_ref().map(|url| url.as_str()));
        let path = Path::new(reference);
        // As `Profile::load` tells a path from a name.
        let own = reference.contains('/') || reference.ends_with(".toml");
        let directory = if own { path.parent().unwrap_or(Path::new("")) } else { output };
        let lock_path = directory.join(format!("{}.lock", profile.name));
        Ok(Self { profile, request, lock_path })
    }

    /// The lock that is there, if any.
    pub fn read_lock(&self) -> Result<Option<Lock>, Failure> {
        let shown = self.lock_path.display();
        let text = match std::fs::read_to_string(&self.lock_path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::input(format!("cannot read the lock `{shown}`: {error}"))),
        };
        Lock::parse(&text).map(Some).map_err(|error| {
            let hint = match &error {
                LockError::Version { .. } => {
                    "use the hardtack that made it, or make it again with `hardtack lock --update`"
                }
                _ => "make it again with `hardtack lock --update`",
            };
            let message = match std::error::Error::source(&error) {
                Some(source) => format!("the lock `{shown}`: {error}: {source}"),
                None => format!("the lock `{shown}`: {error}"),
            };
            Failure::input(message).hint(hint)
        })
    }
}

/// What a command that builds holds open.
pub struct Workspace {
    store: Store,
    screen: Screen,
    cancel: Arc<AtomicBool>,
    network: Network,
    epoch: Option<i64>,
    twins: bool,
}

impl Workspace {
    /// Opens the store and listens for Ctrl-C.
    pub fn open(context: &Context, network: &Network, twins: bool) -> Result<Self, Failure> {
        let environment = &context.environment;
        let cache = environment.cache.as_ref().ok_or_else(|| {
            Failure::input("no place for the cache: neither XDG_CACHE_HOME nor HOME is set")
                .hint("set XDG_CACHE_HOME to a directory with a few gigabytes of room")
        })?;
        let mut store = Store::open(cache).map_err(store_failure)?;
        if !network.offline {
            let proxies = &environment.proxies;
            let pairs =
                [("http_proxy", &proxies.http), ("https_proxy", &proxies.https), ("no_proxy", &proxies.no)];
            let pairs = pairs.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
            let proxies = sources::apt_proxies(Path::new("/")).or(Proxies::from_environment(pairs));
            store = store.online(Client::new(proxies, Patience::default()).map_err(store_failure)?);
        }
        let cancel = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let armed = signal_hook::flag::register_conditional_shutdown(signal, 130, cancel.clone());
            // The first signal asks, the second does not wait.
            armed.and_then(|_| signal_hook::flag::register(signal, cancel.clone())).map_err(Failure::ours)?;
        }
        let screen = Screen::new(context.render.is_lively(), context.render.verbosity());
        Ok(Self {
            store,
            screen,
            cancel,
            network: network.clone(),
            epoch: environment.source_date_epoch,
            twins,
        })
    }

    /// What the pipeline takes from the outside.
    #[expect(
        clippy::disallowed_methods,
        reason = "the clock that signatures are judged by; no byte of an image depends on it"
    )]
    pub fn setup(&self) -> Setup<'_> {
        Setup {
            store: &self.store,
            now: SystemTime::now(),
            host_architecture: host_architecture(),
            host: Host::default(),
            jobs: std::thread::available_parallelism().unwrap_or(std::num::NonZeroUsize::MIN),
            twins: self.twins,
            progress: &self.screen,
            cancel: &self.cancel,
        }
    }

    /// Makes a new lock for a profile.
    pub fn lock(&self, named: &Named) -> Result<Lock, Failure> {
        let mirror = || match &self.network.mirror {
            Some(url) => Ok::<_, SourcesError>(Mirror { archive: url.clone(), security: None }),
            None => {
                let host = sources::discover(Path::new("/"))?;
                Ok(Mirror { archive: host.archive, security: host.security })
            }
        };
        let lock = pipeline::lock(&named.profile, &named.request, &mirror, self.epoch, &self.setup());
        self.screen.clear();
        lock.map_err(failure)
    }

    /// Builds an image.
    pub fn build(&self, named: &Named, lock: &Lock, output: &Path) -> Result<pipeline::Release, Failure> {
        let release = pipeline::build(&named.profile, lock, &self.setup(), output);
        self.screen.clear();
        release.map_err(failure)
    }
}

/// Writes a lock beside its profile.
pub fn write_lock(path: &Path, lock: &Lock) -> Result<(), Failure> {
    pipeline::write_text(path, &lock.to_text()).map_err(failure)
}

/// A failed build in words, with its last lines where a script failed.
pub fn failure(error: pipeline::Error) -> Failure {
    let hint = error.hint();
    let input = error.is_input();
    if let pipeline::Error::Sandbox(SandboxError::Step { last, .. }) = &error {
        let message = format!("{error}; the last it said:\n  {}", last.join("\n  "));
        return Failure::input(message);
    }
    let failure = if error.is_cancelled() {
        Failure::input("interrupted; nothing was left under its final name, the next run goes on from here")
    } else if input {
        Failure::input(error)
    } else {
        Failure::ours(error)
    };
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn store_failure(error: crate::store::Error) -> Failure {
    failure(error.into())
}

/// Debian's name for the architecture this program was built for.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
