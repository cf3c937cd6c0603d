//! A small web server of the test's own: what it gives may have an age and a tag, and it notes what is asked.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What is at a path.
#[derive(Clone, Default)]
pub(crate) struct Page {
    pub(crate) content: Vec<u8>,
    pub(crate) tag: Option<&'static str>,
    /// As HTTP writes it.
    pub(crate) modified: Option<String>,
}

impl Page {
    pub(crate) fn new(content: impl Into<Vec<u8>>) -> Self {
        Self {
            content: content.into(),
            ..Self::default()
        }
    }

    pub(crate) fn tagged(self, tag: &'static str) -> Self {
        Self {
            tag: Some(tag),
            ..self
        }
    }

    pub(crate) fn modified(self, seconds: u64) -> Self {
        Self {
            modified: Some(http_date(seconds)),
            ..self
        }
    }
}

/// Serves until the process ends, one request a connection.
pub(crate) struct Web {
    pub(crate) url: String,
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Web {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let web = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            pages: Arc::default(),
            asked: Arc::default(),
        };
        let (pages, asked) = (Arc::clone(&web.pages), Arc::clone(&web.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = vec![0; 16 << 10];
                let count = stream.read(&mut request).unwrap_or(0);
                let head = String::from_utf8_lossy(&request[..count]).into_owned();
                let mut words = head.split(' ');
                let method = words.next().unwrap_or_default().to_owned();
                let path = words
                    .next()
                    .unwrap_or("/")
                    .split('?')
                    .next()
                    .unwrap_or("/")
                    .to_owned();
                let page = pages.lock().unwrap().get(&path).cloned();
                let answer = answer(&method, &head, page.as_ref());
                let status = String::from_utf8_lossy(&answer[9..12]).into_owned();
                asked.lock().unwrap().push(format!("{method} {path} {status}"));
                // A client that went away has what it wanted.
                drop(stream.write_all(&answer));
            }
        });
        web
    }

    /// Puts something at a path; gives its URL.
    pub(crate) fn put(&self, path: &str, page: Page) -> String {
        self.pages.lock().unwrap().insert(path.to_owned(), page);
        format!("{}{path}", self.url)
    }

    /// Puts the files of a folder below a path.
    pub(crate) fn put_folder_at(&self, path: &str, folder: &Path) {
        for (name, _) in crate::samples::tree(folder) {
            let content = std::fs::read(folder.join(&name)).unwrap();
            self.put(&format!("{path}/{name}"), Page::new(content));
        }
    }

    /// What was asked since the last call: method, path and status.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn answer(method: &str, head: &str, page: Option<&Page>) -> Vec<u8> {
    let Some(page) = page else {
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    };
    let mut fields = String::from("Connection: close\r\n");
    if let Some(tag) = page.tag {
        fields.push_str(&format!("ETag: \"{tag}\"\r\n"));
    }
    if let Some(time) = &page.modified {
        fields.push_str(&format!("Last-Modified: {time}\r\n"));
    }
    let lower = head.to_lowercase();
    let known = |tag: &str| lower.contains(&format!("if-none-match: \"{tag}\""));
    if page.tag.is_some_and(known) {
        return format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n").into_bytes();
    }
    let length = page.content.len();
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{fields}\r\n").into_bytes();
    if method != "HEAD" {
        answer.extend_from_slice(&page.content);
    }
    answer
}

/// Seconds since 1970 in the form of RFC 9110, 5.6.7.
fn http_date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let names = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    // Howard Hinnant's civil_from_days, for days after 1970.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 2 } else { month - 10 };
    let year = year_of_era + era * 400 + u64::from(month < 2);
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        names[usize::try_from(days % 7).unwrap()],
        months[usize::try_from(month).unwrap()],
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}
