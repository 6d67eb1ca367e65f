//! What the program takes from its environment, in one place and read once.

use super::failure::Failure;
use std::ffi::OsString;
use std::path::PathBuf;

/// What the program takes from its environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Where downloads and finished layers are kept: `$XDG_CACHE_HOME/hardtack`, else `$HOME/.cache/hardtack`.
    /// `None` where neither variable holds an absolute path; then a command that needs it says so.
    pub cache: Option<PathBuf>,
    /// The clock for new locks, in seconds since 1970: `SOURCE_DATE_EPOCH` (reproducible-builds.org).
    pub source_date_epoch: Option<i64>,
    /// Proxies. The host's apt configuration may name others, and wins for the archive.
    pub proxies: Proxies,
    /// Whether colours are not wanted: `NO_COLOR` is set and not empty (no-color.org), or `TERM` is `dumb`.
    pub no_color: bool,
}

/// `http_proxy`, `https_proxy` and `no_proxy`, in small letters or, for the last two, in capitals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://`. Not read in capitals: in a CGI program a client could set `HTTP_PROXY`.
    pub http: Option<String>,
    /// For `https://`.
    pub https: Option<String>,
    /// Hosts to reach directly.
    pub no: Option<String>,
}

impl Environment {
    /// The environment of this process.
    #[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
    pub fn of_process() -> Result<Self, Failure> {
        Self::read(|name| std::env::var_os(name))
    }

    fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Failure> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
        // A relative XDG_CACHE_HOME is to be ignored (XDG base directory specification).
        let directory = |name: &str| set(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = directory("XDG_CACHE_HOME").or_else(|| Some(directory("HOME")?.join(".cache")));
        let source_date_epoch = match text("SOURCE_DATE_EPOCH") {
            None => None,
            Some(text) => match text.parse::<i64>() {
                Ok(seconds) if seconds >= 0 => Some(seconds),
                _ => {
                    let message =
                        format!("SOURCE_DATE_EPOCH is `{}`, which is no number", text.escape_debug());
                    return Err(Failure::input(message).hint("it counts the seconds since 1970: `date +%s`"));
                }
            },
        };
        Ok(Self {
            cache: cache.map(|path| path.join("hardtack")),
            source_date_epoch,
            proxies: Proxies {
                http: text("http_proxy"),
                https: text("https_proxy").or_else(|| text("HTTPS_PROXY")),
                no: text("no_proxy").or_else(|| text("NO_PROXY")),
            },
            no_color: set("NO_COLOR").is_some() || text("TERM").as_deref() == Some("dumb"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, Failure> {
        Environment::read(|name| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_cache_is_where_xdg_says() {
        for (variables, cache) in [
            (&[("HOME", "/home/me")][..], Some("/home/me/.cache/hardtack")),
            (&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "/var/me")], Some("/var/me/hardtack")),
            (&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "relative")], Some("/home/me/.cache/hardtack")),
            (&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "")], Some("/home/me/.cache/hardtack")),
            (&[], None),
        ] {
            assert_eq!(read(variables).unwrap().cache, cache.map(PathBuf::from), "{variables:?}");
        }
    }

    #[test]
    fn a_clock_that_is_no_number_is_an_error_not_now() {
        assert_eq!(
            read(&[("SOURCE_DATE_EPOCH", "1700000000")]).unwrap().source_date_epoch,
            Some(1_700_000_000)
        );
        assert_eq!(read(&[("SOURCE_DATE_EPOCH", "")]).unwrap().source_date_epoch, None);
        for text in ["yesterday", "-5", "1.5"] {
            assert!(read(&[("SOURCE_DATE_EPOCH", text)]).is_err(), "{text}");
        }
    }

    #[test]
    fn an_empty_no_color_means_nothing() {
        assert!(read(&[("NO_COLOR", "1")]).unwrap().no_color);
        assert!(read(&[("TERM", "dumb")]).unwrap().no_color);
        assert!(!read(&[("NO_COLOR", "")]).unwrap().no_color);
    }
}
