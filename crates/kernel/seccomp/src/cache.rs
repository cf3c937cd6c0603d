use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use dhow_oci::runtime::Seccomp;
use dhow_types::{Digest, ErrorKind};

use crate::{Arch, Error, Program};

/// Compiled programs in a directory, by the hash of what they were compiled from.
///
/// Docker's default profile takes about 100 µs to build and compile for three interfaces (23 + 76, one core of a 2026
/// Xeon in a virtual machine, `examples/bench_filter.rs`): no slower than hashing the rules and opening and checking a
/// file (74 µs). So the cache is for
/// large profiles of people; whoever runs the default calls [`compile`](crate::compile).
///
/// A file is the head, the instructions and the SHA-256 of both; it is published by rename. One that is not whole,
/// not of this format or not a program counts as missing and is replaced.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// Name of the format; a change of the compiler changes it, since old files then hold old programs.
const MAGIC: [u8; 8] = *b"dhowbpf2";
const HEAD: usize = 20;
const SUM: usize = 32;
const MOST_BYTES: usize = HEAD + 4096 * 8 + SUM;

impl Cache {
    /// The cache in `directory`, which is made when the first program is kept.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The kept program, or the freshly compiled one, which is then kept. A cache that cannot be read or written
    /// is no failure: the program is compiled.
    ///
    /// # Errors
    /// As [`compile`](crate::compile).
    pub fn compile(&self, profile: &Seccomp, arch: Arch) -> Result<Program, Error> {
        let rules = serde_json::to_vec(profile).map_err(|error| {
            Error::because(ErrorKind::Internal, "write the seccomp profile as JSON", error)
        })?;
        let mut hasher = dhow_types::Hasher::new();
        hasher.update(&MAGIC);
        hasher.update(match arch {
            Arch::Aarch64 => b"aarch64",
            Arch::X86_64 => b"x86_64 ",
        });
        hasher.update(&rules);
        let file = self.directory.join(hasher.finish().hex());
        if let Some(program) = read(&file).ok().and_then(|bytes| decode(&bytes)) {
            return Ok(program);
        }
        let program = crate::compile(profile, arch)?;
        match self.keep(&file, &encode(&program)) {
            // Compiling again next time is all that a full or read-only disk costs.
            Ok(()) | Err(_) => Ok(program),
        }
    }

    fn keep(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let draft = file.with_extension(format!("{}.tmp", std::process::id()));
        let outcome = fs::File::create_new(&draft)
            .and_then(|mut open| open.write_all(bytes))
            .and_then(|()| fs::rename(&draft, file));
        if outcome.is_err() {
            fs::remove_file(&draft)?;
        }
        outcome
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(16 << 10);
    fs::File::open(file)?
        .take(MOST_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn encode(program: &Program) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + program.filter.len() * 8 + SUM);
    out.extend(MAGIC);
    out.extend(
        u32::try_from(program.filter.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    out.extend(program.flags.to_le_bytes());
    out.extend(u32::from(program.notify).to_le_bytes());
    for instruction in &program.filter {
        out.extend(instruction.code.to_le_bytes());
        out.extend([instruction.jt, instruction.jf]);
        out.extend(instruction.k.to_le_bytes());
    }
    let sum = Digest::of(&out);
    out.extend(sum.as_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<Program> {
    if bytes.len() > MOST_BYTES {
        return None;
    }
    let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM)?)?;
    let (head, body) = content.split_at_checked(HEAD)?;
    if Digest::of(content).as_bytes() != sum || !head.starts_with(&MAGIC) {
        return None;
    }
    let word = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
    let filter: Vec<_> = body
        .chunks_exact(8)
        .map(|raw| libc::sock_filter {
            code: u16::from_le_bytes([raw[0], raw[1]]),
            jt: raw[2],
            jf: raw[3],
            k: u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]),
        })
        .collect();
    let whole =
        body.len().is_multiple_of(8) && usize::try_from(word(8)?) == Ok(filter.len()) && !filter.is_empty();
    whole.then_some(Program {
        filter,
        flags: word(12)?,
        notify: word(16)? != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(program: &Program) -> Vec<(u16, u8, u8, u32)> {
        program.filter.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect()
    }

    #[test]
    fn a_kept_program_is_the_compiled_one_and_a_damaged_one_is_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let cache = Cache::new(&scratch.path().join("bpf"));
        let profile = crate::default_profile(Arch::X86_64, &[], (6, 1));
        let fresh = cache.compile(&profile, Arch::X86_64).unwrap();
        let files = || {
            fs::read_dir(scratch.path().join("bpf"))
                .unwrap()
                .map(|e| e.unwrap().path())
                .collect::<Vec<_>>()
        };
        let [file] = files().try_into().unwrap();
        let good = fs::read(&file).unwrap();
        assert_eq!(
            words(&cache.compile(&profile, Arch::X86_64).unwrap()),
            words(&fresh)
        );
        for damage in [good[..good.len() - 1].to_vec(), Vec::new(), {
            let mut flipped = good.clone();
            flipped[40] ^= 1;
            flipped
        }] {
            fs::write(&file, &damage).unwrap();
            assert_eq!(
                words(&cache.compile(&profile, Arch::X86_64).unwrap()),
                words(&fresh)
            );
            assert_eq!(fs::read(&file).unwrap(), good, "the damaged file was replaced");
        }
        cache.compile(&profile, Arch::Aarch64).unwrap();
        assert_eq!(files().len(), 2);
    }

    #[test]
    fn a_kept_program_is_taken_without_compiling() {
        let scratch = tempfile::tempdir().unwrap();
        let cache = Cache::new(scratch.path());
        let profile = crate::default_profile(Arch::X86_64, &[], (6, 1));
        cache.compile(&profile, Arch::X86_64).unwrap();
        let file = fs::read_dir(scratch.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let other = Program {
            filter: vec![libc::sock_filter {
                code: 6,
                jt: 0,
                jf: 0,
                k: 7,
            }],
            flags: 4,
            notify: true,
        };
        fs::write(&file, encode(&other)).unwrap();
        let taken = cache.compile(&profile, Arch::X86_64).unwrap();
        assert_eq!(
            (words(&taken), taken.flags, taken.notify),
            (words(&other), 4, true)
        );
    }

    #[test]
    fn a_cache_that_cannot_be_written_still_compiles() {
        let cache = Cache::new(Path::new("/proc/nowhere"));
        let profile = crate::default_profile(Arch::X86_64, &[], (6, 1));
        assert!(!cache.compile(&profile, Arch::X86_64).unwrap().filter.is_empty());
    }
}
