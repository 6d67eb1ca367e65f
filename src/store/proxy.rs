//! Which proxy a request goes through.

use super::apt_conf::AptConf;
use super::shown;
use reqwest::Url;
use std::collections::BTreeMap;
use std::fmt;

/// How to reach the hosts of one scheme.
#[derive(Clone, PartialEq, Eq)]
enum Way {
    /// Connect straight to the host.
    Direct,
    /// Ask this proxy.
    Through(Url),
}

/// The proxies in force: apt's settings first, the environment where apt says nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    http: Option<Way>,
    https: Option<Way>,
    /// apt's `Acquire::http::Proxy::HOST`, which wins over the general setting.
    hosts: BTreeMap<String, Way>,
    /// The entries of `no_proxy`: a host, a domain with everything below it, or `*`.
    exempt: Vec<String>,
    /// What was set but cannot be used, in words.
    notes: Vec<String>,
}

impl Proxies {
    /// No proxy at all.
    pub fn direct() -> Self {
        Self::default()
    }

    /// One proxy for everything.
    pub fn through(proxy: Url) -> Self {
        Self { http: Some(Way::Through(proxy.clone())), https: Some(Way::Through(proxy)), ..Self::default() }
    }

    /// The usual environment variables (`http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`, in either case; the
    /// lower-case one wins). `HTTP_PROXY` in capitals is not honoured when `REQUEST_METHOD` is set: in a CGI
    /// program it is a header the client chose.
    pub fn from_environment<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let variables: BTreeMap<_, _> = variables.into_iter().collect();
        let find = |name: &str| {
            let upper = name.to_ascii_uppercase();
            let in_cgi = name == "http_proxy" && variables.contains_key("REQUEST_METHOD");
            let upper = variables.get(upper.as_str()).filter(|_| !in_cgi);
            variables.get(name).or(upper).copied().filter(|value| !value.is_empty())
        };
        let mut proxies = Self::default();
        let all = find("all_proxy");
        proxies.http = find("http_proxy").or(all).and_then(|text| proxies.way(text, "http_proxy"));
        proxies.https = find("https_proxy").or(all).and_then(|text| proxies.way(text, "https_proxy"));
        let exempt = find("no_proxy").unwrap_or_default().split([',', ' ']);
        proxies.exempt =
            exempt.map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty()).collect();
        proxies
    }

    /// apt's settings (apt-transport-http(1)): `Acquire::http::Proxy`, `Acquire::https::Proxy` which falls back to
    /// it, one more level for a single host, and `DIRECT`.
    pub(super) fn from_apt(conf: &AptConf) -> Self {
        let mut proxies = Self::default();
        let http = conf.value("acquire::http::proxy").filter(|value| !value.is_empty());
        let https = conf.value("acquire::https::proxy").filter(|value| !value.is_empty());
        proxies.http = http.and_then(|text| proxies.way(text, "Acquire::http::Proxy"));
        proxies.https = match https {
            Some(text) => proxies.way(text, "Acquire::https::Proxy"),
            None => proxies.http.clone(),
        };
        for name in ["acquire::http::proxy", "acquire::https::proxy"] {
            for (host, text) in conf.below(name) {
                if let Some(way) = proxies.way(text, &format!("Acquire::http::Proxy::{host}")) {
                    proxies.hosts.insert(host.to_owned(), way);
                }
            }
        }
        for name in ["proxy-auto-detect", "proxyautodetect"] {
            if let Some(program) = conf.value(&format!("acquire::http::{name}")).filter(|p| !p.is_empty()) {
                let note =
                    format!("apt asks the program `{program}` for its proxy; hardtack does not run it");
                proxies.notes.push(note);
            }
        }
        proxies
    }

    /// These settings, and `other`'s where these say nothing.
    pub fn or(mut self, other: Self) -> Self {
        self.http = self.http.or(other.http);
        self.https = self.https.or(other.https);
        for (host, way) in other.hosts {
            self.hosts.entry(host).or_insert(way);
        }
        self.exempt.extend(other.exempt);
        self.notes.extend(other.notes);
        self
    }

    /// The proxy for this URL, `None` for a direct connection.
    pub fn for_url(&self, url: &Url) -> Option<&Url> {
        let host = url.host_str()?;
        let general = if url.scheme() == "https" { &self.https } else { &self.http };
        match self.hosts.get(host).or(general.as_ref())? {
            Way::Direct => None,
            Way::Through(_) if self.is_exempt(host) => None,
            Way::Through(proxy) => Some(proxy),
        }
    }

    /// Settings that were found but cannot be used, in words.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn is_exempt(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']);
        self.exempt.iter().any(|entry| {
            let domain = entry.trim_start_matches('*').trim_start_matches('.');
            let below =
                host.strip_suffix(domain).is_some_and(|front| front.is_empty() || front.ends_with('.'));
            entry == "*" || (!domain.is_empty() && below)
        })
    }

    fn way(&mut self, text: &str, name: &str) -> Option<Way> {
        if text.eq_ignore_ascii_case("DIRECT") {
            return Some(Way::Direct);
        }
        // `proxy.example:3142` parses as a URL of the scheme `proxy.example`: curl and apt mean http by it.
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        match Url::parse(&full) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Some(Way::Through(url)),
            // Not the text itself: it may hold a password.
            _ => {
                self.notes
                    .push(format!("{name} is neither DIRECT nor an http or https proxy; it is not used"));
                None
            }
        }
    }
}

/// Without the passwords a proxy's URL may hold.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http)
            .field("https", &self.https)
            .field("hosts", &self.hosts)
            .field("exempt", &self.exempt)
            .finish()
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("DIRECT"),
            Self::Through(url) => f.write_str(&shown(url)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy_of(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.for_url(&Url::parse(url).unwrap()).map(shown)
    }

    fn apt(text: &str) -> Proxies {
        let mut conf = AptConf::default();
        conf.read(text);
        Proxies::from_apt(&conf)
    }

    #[test]
    fn https_falls_back_to_the_http_setting_and_a_host_can_be_direct() {
        let proxies =
            apt("Acquire::http { Proxy \"http://p.example:3142/\"; Proxy::near.example \"DIRECT\"; };");
        assert_eq!(proxy_of(&proxies, "http://mirror.example/x").as_deref(), Some("http://p.example:3142/"));
        assert_eq!(proxy_of(&proxies, "https://mirror.example/x").as_deref(), Some("http://p.example:3142/"));
        assert_eq!(proxy_of(&proxies, "http://near.example/x"), None);
        let proxies = apt("Acquire::http::Proxy \"http://p.example\"; Acquire::https::Proxy \"DIRECT\";");
        assert_eq!(proxy_of(&proxies, "https://mirror.example/x"), None);
    }

    #[test]
    fn apt_wins_over_the_environment_even_with_direct() {
        let environment = Proxies::from_environment([("http_proxy", "http://env.example:8080")]);
        assert_eq!(proxy_of(&environment, "http://m.example/").as_deref(), Some("http://env.example:8080/"));
        let both = apt("Acquire::http::Proxy \"DIRECT\";").or(environment.clone());
        assert_eq!(proxy_of(&both, "http://m.example/"), None);
        let neither = apt("APT::Colour 1;").or(environment);
        assert_eq!(proxy_of(&neither, "http://m.example/").as_deref(), Some("http://env.example:8080/"));
    }

    #[test]
    fn the_environment_knows_capitals_defaults_and_exemptions() {
        let vars = [
            ("HTTPS_PROXY", "p.example:1"),
            ("all_proxy", "http://all.example"),
            ("no_proxy", "local, .lan"),
        ];
        let proxies = Proxies::from_environment(vars);
        assert_eq!(proxy_of(&proxies, "https://m.example/").as_deref(), Some("http://p.example:1/"));
        assert_eq!(proxy_of(&proxies, "http://m.example/").as_deref(), Some("http://all.example/"));
        assert_eq!(proxy_of(&proxies, "http://a.local/"), None);
        assert_eq!(proxy_of(&proxies, "http://x.y.lan/"), None);
        assert!(proxy_of(&proxies, "http://notlocal/").is_some());
        let cgi =
            Proxies::from_environment([("HTTP_PROXY", "http://evil.example"), ("REQUEST_METHOD", "GET")]);
        assert_eq!(proxy_of(&cgi, "http://m.example/"), None);
    }

    #[test]
    fn what_cannot_be_used_is_said_and_no_password_is_shown() {
        let proxies = apt("Acquire::http::Proxy \"socks5h://user:secret@p.example\";
            Acquire::http::Proxy-Auto-Detect \"/usr/bin/auto-apt-proxy\";");
        assert_eq!(proxies.notes().len(), 2, "{:?}", proxies.notes());
        assert!(!proxies.notes().join("\n").contains("secret"));
        let proxies = Proxies::through(Url::parse("http://user:secret@p.example").unwrap());
        assert!(!format!("{proxies:?}").contains("secret"), "{proxies:?}");
    }
}
