//! What several tests need.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::sync::Mutex;

use dhow_types::{ErrorKind, Observer, Progress};

use crate::{Error, Fetch};

/// Answers from memory and notes what was asked.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) bodies: HashMap<String, Vec<u8>>,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Shelf {
    pub(crate) fn new(bodies: &[(&str, &[u8])]) -> Self {
        let bodies = bodies
            .iter()
            .map(|(url, body)| ((*url).to_owned(), body.to_vec()))
            .collect();
        Self {
            bodies,
            asked: Mutex::default(),
        }
    }
}

impl Fetch for Shelf {
    fn get(&self, url: &str) -> Result<Box<dyn Read + Send>, Error> {
        self.asked.lock().unwrap().push(url.to_owned());
        match self.bodies.get(url) {
            Some(body) => Ok(Box::new(Cursor::new(body.clone()))),
            None => Err(Error::new(ErrorKind::NotFound, format!("no {url}"))),
        }
    }
}

/// Notes warnings.
#[derive(Default)]
pub(crate) struct Warnings(pub(crate) Mutex<Vec<String>>);

impl Observer for Warnings {
    fn observe(&self, progress: Progress<'_>) {
        if let Progress::Warning(text) = progress {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }
}
