//! One file from one address: patient, resumable, bounded.
//!
//! A thread of its own waits for the socket and hands chunks over a short channel, so that the thread that writes can
//! look at the cancellation flag ten times a second however silent the server is, and so that hashing and receiving
//! overlap. When the writer gives up, the channel closes and the thread ends at its next chunk or timeout.

use super::error::{Asked, Error, Length, Trouble};
use super::proxy::Proxies;
use super::sink::{Sink, looks_like_html};
use super::{Progress, Stop};
use reqwest::blocking::{Client as Http, Request, Response};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Redirects followed for one file. Debian's own redirecting mirrors need one.
const MAX_REDIRECTS: usize = 10;

/// What one read from the socket may bring.
const CHUNK: usize = 64 << 10;

/// How often a waiting thread looks at the cancellation flag.
const LOOK: Duration = Duration::from_millis(100);

/// A connection that breaks often but always gains some bytes may break this many times for each try it is allowed.
const BREAKS_PER_TRY: u32 = 20;

/// How long to wait for a server, and how often to come back.
#[derive(Clone)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For an answer, and for the next bytes of a body.
    pub stall: Duration,
    /// Tries in a row that gain nothing before giving up.
    pub tries: u32,
    /// Pause after the first failure; it doubles with each one.
    pub first_pause: Duration,
    /// The longest pause, also when the server asks for more (`Retry-After`).
    pub longest_pause: Duration,
    /// Sleeps. Tests put a counter here.
    pub sleep: Arc<dyn Fn(Duration) + Send + Sync>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            tries: 6,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(20),
            sleep: Arc::new(thread::sleep),
        }
    }
}

impl Patience {
    /// The pause after this many failures in a row: doubling, no jitter, bounded.
    pub fn pause(&self, failures: u32) -> Duration {
        let factor = 1u32 << failures.saturating_sub(1).min(16);
        self.first_pause.saturating_mul(factor).min(self.longest_pause)
    }
}

/// An HTTP client with the proxies and the patience of this run. Cheap to share between threads.
pub struct Client {
    http: Http,
    /// Set when the host has no CA certificates: HTTP works all the same, HTTPS cannot.
    no_certificates: Option<Arc<reqwest::Error>>,
    patience: Patience,
}

impl Client {
    /// Sets up the client. The environment is not looked at: `proxies` is all there is.
    pub fn new(proxies: Proxies, patience: Patience) -> Result<Self, Error> {
        // reqwest panics without a provider. An error means one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            let proxies = proxies.clone();
            Http::builder()
                .user_agent(concat!("hardtack/", env!("CARGO_PKG_VERSION")))
                // Switches the environment off; the proxy that follows is the only one.
                .no_proxy()
                .proxy(reqwest::Proxy::custom(move |url| proxies.for_url(url).cloned()))
                .connect_timeout(patience.connect)
                // In the blocking client this is the time for the answer and then for each read, not for the whole.
                .timeout(patience.stall)
                .redirect(reqwest::redirect::Policy::custom(follow))
                .referer(false)
        };
        match builder().build() {
            Ok(http) => Ok(Self { http, no_certificates: None, patience }),
            Err(error) => {
                let http = builder().tls_certs_only([]).build().map_err(Error::Client)?;
                Ok(Self { http, no_certificates: Some(Arc::new(error)), patience })
            }
        }
    }

    /// Brings one file into `sink`, trying again where that may help.
    pub(super) fn get(
        &self,
        url: &Url,
        label: &str,
        sink: &mut dyn Sink,
        progress: &dyn Progress,
        stop: Stop,
    ) -> Result<(), Error> {
        let mut transfer = Transfer { client: self, url, label, sink, progress, stop, whole: false };
        let (mut failures, mut tries) = (0, 0);
        loop {
            let before = transfer.sink.have();
            let (trouble, asked) = match transfer.attempt()? {
                Outcome::Complete => return Ok(()),
                Outcome::Again { trouble, pause } => (trouble, pause),
            };
            tries += 1;
            failures = if transfer.sink.have() > before { 1 } else { failures + 1 };
            if failures >= self.patience.tries || tries >= self.patience.tries.saturating_mul(BREAKS_PER_TRY)
            {
                return Err(transfer.give_up(tries, trouble));
            }
            let asked = asked.unwrap_or_default().min(self.patience.longest_pause);
            let pause = self.patience.pause(failures).max(asked);
            progress.retrying(label, tries, pause, &trouble);
            self.sleep(pause, stop)?;
        }
    }

    fn sleep(&self, mut pause: Duration, stop: Stop) -> Result<(), Error> {
        while !pause.is_zero() {
            stop.check()?;
            let slice = pause.min(LOOK);
            (self.patience.sleep)(slice);
            pause -= slice;
        }
        stop.check()
    }
}

enum Outcome {
    Complete,
    Again { trouble: Trouble, pause: Option<Duration> },
}

impl From<Trouble> for Outcome {
    fn from(trouble: Trouble) -> Self {
        Self::Again { trouble, pause: None }
    }
}

struct Transfer<'a> {
    client: &'a Client,
    url: &'a Url,
    label: &'a str,
    sink: &'a mut dyn Sink,
    progress: &'a dyn Progress,
    stop: Stop<'a>,
    /// The server has shown that it cannot be trusted with ranges.
    whole: bool,
}

impl Transfer<'_> {
    fn attempt(&mut self) -> Result<Outcome, Error> {
        self.stop.check()?;
        if matches!(self.sink.length(), Length::AtMost(_)) || self.whole {
            self.restart()?;
        }
        if self.sink.length() == Length::Exactly(self.sink.have()) && self.sink.have() > 0 {
            return Ok(Outcome::Complete);
        }
        match self.url.scheme() {
            "file" => self.copy_file(),
            "http" | "https" => self.download(),
            _ => Err(Error::Scheme { asked: self.asked() }),
        }
    }

    fn copy_file(&mut self) -> Result<Outcome, Error> {
        let missing = || Error::NotFound { asked: self.asked(), status: 404 };
        let path = self.url.to_file_path().map_err(|()| missing())?;
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            opened => opened.map_err(Error::io("open", &path))?,
        };
        let metadata = file.metadata().map_err(Error::io("look at", &path))?;
        if !metadata.is_file() {
            return Err(missing());
        }
        if self.sink.have() > 0 {
            self.sink.continued();
        }
        file.seek(SeekFrom::Start(self.sink.have())).map_err(Error::io("read", &path))?;
        let mut chunk = vec![0; CHUNK];
        loop {
            self.stop.check()?;
            match file.read(&mut chunk).map_err(Error::io("read", &path))? {
                0 => return self.ended(),
                n => self.take(&chunk[..n])?,
            }
        }
    }

    fn download(&mut self) -> Result<Outcome, Error> {
        let have = self.sink.have();
        let pieces = self.ask(have)?;
        let (status, headers, length) = match self.next(&pieces)? {
            Piece::Head { status, headers, length } => (status, headers, length),
            Piece::NoAnswer(error) if error.is_redirect() => {
                return Err(Error::Redirects { asked: self.asked(), source: error });
            }
            Piece::NoAnswer(error) if error.is_builder() => return Err(Error::Client(error)),
            Piece::NoAnswer(error) => return Ok(Trouble::Connection(error).into()),
            // The head always comes first.
            Piece::Bytes(_) | Piece::End | Piece::Broken(_) => {
                return Ok(Trouble::WrongPart(String::new()).into());
            }
        };
        match status {
            200 if have > 0 => self.restart()?,
            200 => {}
            206 if have > 0 => {
                let range = text(&headers, header::CONTENT_RANGE).unwrap_or_default();
                if !continues(range, have, self.sink.length()) {
                    self.whole = true;
                    return Ok(Trouble::WrongPart(range.to_owned()).into());
                }
                self.sink.continued();
            }
            // Nothing there beyond what we have, so what we have is of another file.
            416 if have > 0 => {
                self.whole = true;
                return Ok(Trouble::Status(416).into());
            }
            404 | 410 => {
                return Err(Error::NotFound { asked: self.asked(), status });
            }
            408 | 425 | 429 | 500 | 502 | 503 | 504 => {
                let seconds = text(&headers, header::RETRY_AFTER).and_then(|after| after.trim().parse().ok());
                let pause = seconds.map(Duration::from_secs);
                return Ok(Outcome::Again { trouble: Trouble::Status(status), pause });
            }
            _ => return Err(Error::Refused { asked: self.asked(), status }),
        }
        if status == 200 {
            self.sink.remember(self.url, validator(&headers));
        }
        let wrong_length = match (status, length, self.sink.length()) {
            (200, Some(found), Length::Exactly(expected)) => (found != expected).then_some(found),
            _ => None,
        };
        loop {
            match self.next(&pieces)? {
                Piece::Bytes(bytes) => match wrong_length {
                    Some(found) => return Err(self.wrong_size(Length::Exactly(found), &bytes)),
                    None => self.take(&bytes)?,
                },
                Piece::End => match wrong_length {
                    Some(found) => return Err(self.wrong_size(Length::Exactly(found), &[])),
                    None => return self.ended(),
                },
                Piece::Broken(error) => return Ok(Trouble::Transfer(error).into()),
                // Only ever first.
                Piece::Head { .. } | Piece::NoAnswer(_) => {}
            }
        }
    }

    /// Sends the request from a thread of its own.
    fn ask(&self, have: u64) -> Result<Receiver<Piece>, Error> {
        if self.url.scheme() == "https"
            && let Some(source) = self.client.no_certificates.clone()
        {
            return Err(Error::NoCertificates { asked: self.asked(), source });
        }
        let mut headers = HeaderMap::new();
        // Some caches compress on the way; the digest is of the file as it is.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if matches!(self.sink.length(), Length::AtMost(_)) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=0"));
        }
        if have > 0 {
            if let Ok(range) = HeaderValue::try_from(format!("bytes={have}-")) {
                headers.insert(header::RANGE, range);
            }
            if let Some(validator) =
                self.sink.validator(self.url).and_then(|text| HeaderValue::try_from(text).ok())
            {
                headers.insert(header::IF_RANGE, validator);
            }
        }
        // The builder, not `Request::new`: it moves a password in the URL into a header, out of any proxy's log.
        let request = self.client.http.get(self.url.clone()).headers(headers).build();
        let request = request.map_err(|error| Error::Client(error.without_url()))?;
        let (Length::Exactly(length) | Length::AtMost(length) | Length::AtLeast(length)) = self.sink.length();
        let (sender, receiver) = sync_channel(4);
        let http = self.client.http.clone();
        let run = move || receive(&http, request, length, have, &sender);
        let spawned = thread::Builder::new().name("download".into()).spawn(run);
        spawned.map_err(|source| Error::Io {
            action: "start a thread for",
            path: self.label.into(),
            source,
        })?;
        Ok(receiver)
    }

    fn next(&self, pieces: &Receiver<Piece>) -> Result<Piece, Error> {
        loop {
            self.stop.check()?;
            match pieces.recv_timeout(LOOK) {
                Ok(piece) => return Ok(piece),
                Err(RecvTimeoutError::Timeout) => {}
                // The thread sends an end or an error last; without one it has panicked.
                Err(RecvTimeoutError::Disconnected) => {
                    return Ok(Piece::Broken(io::Error::other("the receiving thread died")));
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let now = self.sink.have() + bytes.len() as u64;
        if let Length::Exactly(limit) | Length::AtMost(limit) = self.sink.length()
            && now > limit
        {
            return Err(self.wrong_size(Length::AtLeast(limit.saturating_add(1)), bytes));
        }
        self.sink.take(bytes)?;
        self.progress.advanced(bytes.len() as u64);
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.progress.lost(self.sink.have());
        self.sink.restart()
    }

    fn ended(&self) -> Result<Outcome, Error> {
        let found = self.sink.have();
        match self.sink.length() {
            Length::Exactly(expected) if found < expected => match self.url.scheme() {
                "file" => Err(self.wrong_size(Length::Exactly(found), &[])),
                _ => Ok(Trouble::Short { expected, found }.into()),
            },
            _ => Ok(Outcome::Complete),
        }
    }

    fn wrong_size(&self, found: Length, start: &[u8]) -> Error {
        let html = self.sink.have() == 0 && looks_like_html(start);
        Error::Size { asked: self.asked(), expected: self.sink.length(), found, html }
    }

    fn asked(&self) -> Box<Asked> {
        Asked::new(self.label, self.url)
    }

    fn give_up(&self, tries: u32, trouble: Trouble) -> Error {
        match trouble {
            // The server ends the file in order, again and again: it has another one.
            Trouble::Short { found, .. } => self.wrong_size(Length::Exactly(found), &[]),
            source => Error::Unreachable { asked: self.asked(), tries, source },
        }
    }
}

/// What the receiving thread hands over: the head or the lack of one, then bytes, then an end.
enum Piece {
    Head { status: u16, headers: HeaderMap, length: Option<u64> },
    NoAnswer(reqwest::Error),
    Bytes(Vec<u8>),
    End,
    Broken(io::Error),
}

/// Runs in a thread of its own: asks, and hands over the answer, one byte more than there may be at most.
fn receive(http: &Http, request: Request, length: u64, have: u64, pieces: &SyncSender<Piece>) {
    let response: Response = match http.execute(request) {
        Ok(response) => response,
        Err(error) => {
            // Nobody listens any more when the writer was cancelled; that is all right here and below.
            let _ = pieces.send(Piece::NoAnswer(error.without_url()));
            return;
        }
    };
    let head = Piece::Head {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        length: response.content_length(),
    };
    if pieces.send(head).is_err() {
        return;
    }
    // A server that ignores the range sends what we have once more.
    let before = if response.status() == StatusCode::PARTIAL_CONTENT { have } else { 0 };
    let mut body = response.take(length.saturating_sub(before).saturating_add(1));
    loop {
        let mut chunk = vec![0; CHUNK];
        let piece = match body.read(&mut chunk) {
            Ok(0) => Piece::End,
            Ok(n) => {
                chunk.truncate(n);
                Piece::Bytes(chunk)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Piece::Broken(error),
        };
        let last = !matches!(piece, Piece::Bytes(_));
        if pieces.send(piece).is_err() || last {
            return;
        }
    }
}

/// Follows a redirect unless there were too many or it leads out of the encrypted connection.
fn follow(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let from = attempt.previous().last().map(|url| url.scheme().to_owned()).unwrap_or_default();
    let to = attempt.url().scheme().to_owned();
    if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error("too many redirects")
    } else if from == "https" && to != "https" {
        attempt.error("redirect from https to an unencrypted address")
    } else {
        attempt.follow()
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What `If-Range` accepts: a strong `ETag`, else the date (RFC 9110, 13.1.5).
fn validator(headers: &HeaderMap) -> Option<&str> {
    let etag = text(headers, header::ETAG).filter(|etag| etag.starts_with('"'));
    etag.or_else(|| text(headers, header::LAST_MODIFIED))
}

/// Whether `Content-Range: bytes FIRST-LAST/TOTAL` starts at `have` of a file of the right length (RFC 9110, 14.4).
fn continues(range: &str, have: u64, length: Length) -> bool {
    let parse = || {
        let (part, total) = range.strip_prefix("bytes ")?.trim().split_once('/')?;
        let (first, last) = part.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, total))
    };
    let Some((first, last, total)) = parse() else { return false };
    let total_fits = match (total, length) {
        ("*", _) => true,
        (total, Length::Exactly(expected)) => total.parse() == Ok(expected) && last < expected,
        (total, _) => total.parse::<u64>().is_ok(),
    };
    first == have && last >= first && total_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let patience = Patience::default();
        let pauses: Vec<_> = (1..=8).map(|n| patience.pause(n).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 20000, 20000]);
        assert_eq!(patience.pause(u32::MAX).as_millis(), 20000);
    }

    #[test]
    fn a_part_must_start_where_we_are_and_be_of_the_same_file() {
        let ten = Length::Exactly(10);
        assert!(continues("bytes 4-9/10", 4, ten));
        assert!(continues("bytes 4-9/*", 4, ten));
        assert!(continues("bytes 4-7/10", 4, ten));
        for range in
            ["bytes 0-9/10", "bytes 4-9/11", "bytes 4-10/10", "bytes 4-3/10", "4-9/10", "", "bytes */10"]
        {
            assert!(!continues(range, 4, ten), "{range}");
        }
    }

    #[test]
    fn only_strong_validators_are_kept() {
        let headers = |pairs: &[(header::HeaderName, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
        };
        let date = "Sat, 11 Jul 2026 10:16:37 GMT";
        assert_eq!(validator(&headers(&[(header::ETAG, "\"x\"")])), Some("\"x\""));
        assert_eq!(
            validator(&headers(&[(header::ETAG, "W/\"x\""), (header::LAST_MODIFIED, date)])),
            Some(date)
        );
        assert_eq!(validator(&headers(&[])), None);
    }
}
