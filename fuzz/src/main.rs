//! `dhow-fuzz [target] [--seconds N] [--seed N]`: damaged input for every reader of foreign bytes.
//!
//! Each target runs in a child process. What it is given comes from `fuzz/corpus/<target>`, changed by [`mutate`]; an
//! input whose outcome looks new ([`targets::Shape`]) joins the corpus of that run. The same seed gives the same
//! inputs. A panic, an abort (stack, memory), a hang, and more processor time than the size of the input explains are
//! findings: the input is kept in `fuzz/findings/` and the exit status is 1. `--replay <file>` runs one input.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "a tool of developers speaks to its terminal"
)]

mod mutate;
mod run;
mod targets;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: dhow-fuzz [target] [--seconds N] [--seed N] [--replay FILE]";

/// What the command line says.
#[derive(Debug)]
struct Arguments {
    target: Option<String>,
    seconds: u64,
    seed: u64,
    replay: Option<PathBuf>,
    /// Run in this process: the child of an ordinary run.
    worker: bool,
}

fn arguments() -> Option<Arguments> {
    let mut parsed = Arguments {
        target: None,
        seconds: 10,
        seed: 1,
        replay: None,
        worker: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => parsed.seconds = words.next()?.parse().ok()?,
            "--seed" => parsed.seed = words.next()?.parse().ok()?,
            "--replay" => parsed.replay = Some(words.next()?.into()),
            "--worker" => parsed.worker = true,
            name if !name.starts_with('-') && parsed.target.is_none() => parsed.target = Some(word),
            _ => return None,
        }
    }
    Some(parsed)
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let chosen: Vec<_> = targets::ALL
        .iter()
        .filter(|target| arguments.target.as_deref().is_none_or(|name| name == target.name))
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = targets::ALL.iter().map(|target| target.name).collect();
        eprintln!("no such target; there are: {}", names.join(", "));
        return ExitCode::from(2);
    }
    let mut clean = true;
    for target in chosen {
        clean &= match &arguments.replay {
            Some(file) => run::replay(target, file),
            None if arguments.worker => run::work(target, arguments.seconds, arguments.seed),
            None => run::supervise(target, arguments.seconds, arguments.seed),
        };
    }
    ExitCode::from(u8::from(!clean))
}

/// The folder of this crate, in the checkout that cargo runs in.
fn home() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    manifest.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")))
}

/// The inputs that a target begins with, in a fixed order.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    files(&home().join("corpus").join(name))
        .iter()
        .filter_map(|file| std::fs::read(file).ok())
        .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every input of the corpus, and ten thousand children of them, do no harm.
    #[test]
    fn each_target_stands_its_corpus_and_some_damage() {
        for target in targets::ALL {
            let seeds = corpus(target.name);
            assert!(!seeds.is_empty(), "{} has no corpus", target.name);
            let mut pool = mutate::Pool::new(seeds, target.words, 7);
            for input in pool.inputs().to_vec() {
                (target.run)(&input);
            }
            for _ in 0..target.share {
                (target.run)(&pool.next());
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let some = || mutate::Pool::new(vec![b"{\"a\": 1}".to_vec()], &["b"], 9);
        let (mut one, mut other) = (some(), some());
        for _ in 0..200 {
            assert_eq!(one.next(), other.next());
        }
    }
}
