//! A web server on the loopback that does what it is told, however rude.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What a client asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// As in the request line: a path, or a whole URL when asked as a proxy.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// How many requests came before this one.
    pub nth: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// `N` of `Range: bytes=N-`.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What the server says, and how it breaks off.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// `Content-Length`, if it is not the truth; `None` for no such header.
    pub length: Option<usize>,
    /// Close the connection after so many bytes of the body.
    pub cut: Option<usize>,
    /// Say nothing more after so many bytes of the body, but stay.
    pub stall: Option<usize>,
    /// Repeat the body (up to 64 MiB in all).
    pub endless: bool,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = Some(body.len());
        Self { status, headers: Vec::new(), body, length, cut: None, stall: None, endless: false }
    }

    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body)
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    pub fn cut(self, after: usize) -> Self {
        Self { cut: Some(after), ..self }
    }

    pub fn stall(self, after: usize) -> Self {
        Self { stall: Some(after), ..self }
    }

    pub fn length(self, length: Option<usize>) -> Self {
        Self { length, ..self }
    }

    /// A file as a well-behaved server gives it: whole, or the rest of it when asked for a range of this version.
    pub fn file(request: &Request, body: &[u8], etag: Option<&str>) -> Self {
        let same = request.header("if-range").is_none_or(|wanted| Some(wanted) == etag);
        let answer = match request.from() {
            Some(from) if same && from < body.len() => Self::new(206, &body[from..])
                .header("Content-Range", format!("bytes {from}-{}/{}", body.len() - 1, body.len())),
            Some(from) if same && from >= body.len() => {
                Self::new(416, "").header("Content-Range", format!("bytes */{}", body.len()))
            }
            _ => Self::ok(body),
        };
        match etag {
            Some(etag) => answer.header("ETag", etag),
            None => answer,
        }
    }
}

/// Runs until it is dropped.
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (script, seen, stopped) = (Arc::new(script), requests.clone(), stop.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (script, seen, stopped) = (script.clone(), seen.clone(), stopped.clone());
                thread::spawn(move || {
                    // A client that goes away is part of the tests.
                    let _ = serve(stream.unwrap(), &*script, &seen, &stopped);
                });
            }
        });
        Self { address, requests, stop }
    }

    pub fn url(&self, path: &str) -> hardtack::store::Url {
        format!("http://{}/{path}", self.address).parse().unwrap()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn targets(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.target).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    stream: TcpStream,
    script: &dyn Fn(&Request) -> Answer,
    seen: &Mutex<Vec<Request>>,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(&stream).lines();
    let Some(first) = lines.next() else { return Ok(()) };
    let target = first?.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        match line.split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let request = {
        let mut seen = seen.lock().unwrap();
        let request = Request { target, headers, nth: seen.len() };
        seen.push(request.clone());
        request
    };
    let answer = script(&request);
    let mut out = &stream;
    write!(out, "HTTP/1.1 {} Said So\r\nConnection: close\r\n", answer.status)?;
    for (name, value) in &answer.headers {
        write!(out, "{name}: {value}\r\n")?;
    }
    if let Some(length) = answer.length {
        write!(out, "Content-Length: {length}\r\n")?;
    }
    write!(out, "\r\n")?;
    let end = [answer.cut, answer.stall].into_iter().flatten().min().unwrap_or(answer.body.len());
    out.write_all(&answer.body[..end.min(answer.body.len())])?;
    out.flush()?;
    let mut sent = answer.body.len();
    while answer.endless && sent < 64 << 20 && !stop.load(Ordering::Relaxed) {
        out.write_all(&answer.body)?;
        sent += answer.body.len();
    }
    // Staying silent ends with the server, or after ten seconds.
    for _ in 0..if answer.stall.is_some() { 200 } else { 0 } {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
