//! A static server for the demo: files of a few folders, byte ranges, nothing else.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::thread;

use crate::system::Result;

/// Folders by the path they appear under, the most specific first.
pub struct Site(pub Vec<(&'static str, PathBuf)>);

/// Serves the site on this machine alone, until the program is ended.
pub fn run(site: Site, port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map_err(|e| format!("cannot listen on port {port}: {e}"))?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    println!("http://localhost:{}/   (Ctrl+C ends it)", address.port());
    thread::scope(|scope| {
        for stream in listener.incoming().flatten() {
            let site = &site;
            // A visitor who goes away is no fault of the server.
            scope.spawn(move || drop(answer(site, &stream)));
        }
    });
    Ok(())
}

/// One request of interest: its path, its range and whether the content is wanted.
struct Request {
    path: String,
    range: Option<(u64, Option<u64>)>,
    head: bool,
}

fn answer(site: &Site, mut stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        let found = site.find(&request.path).and_then(|path| Some((File::open(&path).ok()?, path)));
        let Some((mut file, path)) = found else {
            stream.write_all(
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nContent-Type: text/plain\r\n\r\n",
            )?;
            stream.write_all(if request.head { b"" } else { b"not found" })?;
            continue;
        };
        let size = file.metadata()?.len();
        let (start, end) = bounds(request.range, size);
        let mut head = match request.range {
            Some(_) => format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{size}\r\n",
                end.saturating_sub(1)
            ),
            None => "HTTP/1.1 200 OK\r\n".into(),
        };
        head += &format!("Content-Length: {}\r\nContent-Type: {}\r\n", end - start, kind(&path));
        head += "Accept-Ranges: bytes\r\nCache-Control: no-cache\r\n\r\n";
        stream.write_all(head.as_bytes())?;
        if !request.head {
            file.seek(SeekFrom::Start(start))?;
            io::copy(&mut file.take(end - start), &mut stream)?;
        }
    }
    Ok(())
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    /// Longest line of a request: far above what a browser sends.
    const MAX_LINE: u64 = 16 << 10;
    let mut line = String::new();
    let mut next = |line: &mut String| {
        line.clear();
        reader.by_ref().take(MAX_LINE).read_line(line)
    };
    if next(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = decode(target.split(['?', '#']).next().unwrap_or_default());
    let mut request = Request { path, range: None, head: method == "HEAD" };
    while next(&mut line)? > 0 && !line.trim().is_empty() {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("range")
        {
            request.range = range(value.trim());
        }
    }
    Ok(Some(request))
}

fn range(value: &str) -> Option<(u64, Option<u64>)> {
    let (start, end) = value.strip_prefix("bytes=")?.split_once('-')?;
    Some((start.parse().ok()?, end.parse().ok()))
}

/// Start and end (exclusive) within a file; the last byte of a range is inclusive.
fn bounds(range: Option<(u64, Option<u64>)>, size: u64) -> (u64, u64) {
    let (start, last) = range.unwrap_or((0, None));
    let end = last.map_or(size, |last| size.min(last.saturating_add(1)));
    (start.min(end), end)
}

fn decode(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Site {
    /// The file of a path; none that leaves its folder.
    fn find(&self, path: &str) -> Option<PathBuf> {
        let (prefix, folder) = self.0.iter().find(|(prefix, _)| path.starts_with(prefix))?;
        let inside = Path::new(&path[prefix.len()..]);
        let plain = inside.components().all(|part| matches!(part, Component::Normal(_)));
        let file = folder.join(inside);
        let file = if file.is_dir() { file.join("index.html") } else { file };
        (plain && file.is_file()).then_some(file)
    }
}

fn kind(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript",
        Some("css") => "text/css",
        Some("json") => "application/json",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("jpg") => "image/jpeg",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_their_header() {
        assert_eq!(bounds(range("bytes=2-4"), 10), (2, 5));
        assert_eq!(bounds(range("bytes=2-"), 10), (2, 10));
        assert_eq!(bounds(range("bytes=2-99"), 10), (2, 10));
        assert_eq!(bounds(range("bytes=20-"), 10), (10, 10));
        assert_eq!(bounds(range("lines=2-4"), 10), (0, 10));
    }

    #[test]
    fn paths_stay_in_their_folder() {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let site = Site(vec![("/code/", here.join("src")), ("/", here.clone())]);
        assert_eq!(site.find("/code/main.rs"), Some(here.join("src/main.rs")));
        assert_eq!(site.find("/Cargo.toml"), Some(here.join("Cargo.toml")));
        for outside in
            ["/code/../Cargo.toml", "/code//etc/passwd", "/../xtask/Cargo.toml", "/absent"]
        {
            assert_eq!(site.find(outside), None, "{outside}");
        }
        assert_eq!(decode("/a%20b%2f%zz"), "/a b/%zz");
    }

    #[test]
    fn requests_are_read_as_far_as_they_matter() {
        let text = "HEAD /a%20b?x HTTP/1.1\r\nHost: x\r\nrange: bytes=1-2\r\n\r\n";
        let request = read_request(&mut text.as_bytes()).unwrap().unwrap();
        assert_eq!((request.path.as_str(), request.head), ("/a b", true));
        assert_eq!(request.range, Some((1, Some(2))));
        assert!(read_request(&mut "".as_bytes()).unwrap().is_none());
    }
}
