//! The order of the code in the binary: what the runtime and the commonest commands execute lies together, so that the kernel
//! maps little else around it (docs/adr/0003). `xtask/order.txt` names the pieces, one a line: the object file and the section,
//! both by a pattern.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const LIST: &str = "xtask/order.txt";

/// The crates of the runtime, whose other code and constants lie together, too.
const RUNTIME: [&str; 8] = [
    "dhow_runc",
    "dhow_runtime",
    "dhow_sys",
    "dhow_cgroup",
    "dhow_seccomp",
    "dhow_oci",
    "dhow_rootpath",
    "dhow_types",
];

/// What they are built on, whose constants do.
const BELOW: [&str; 4] = ["std", "core", "alloc", "rustix"];

/// A piece of code that the linker placed.
struct Piece {
    start: u64,
    size: u64,
    file: String,
    section: String,
}

/// Writes the list anew: from the map of a link (`-Wl,-Map=FILE` of lld) and the addresses that were executed of that binary,
/// the commands that are to be smallest first. Profiles name pieces differently, so that each has a map of its own.
pub(crate) fn record(arguments: &[String]) -> Result<String, Vec<String>> {
    if arguments.is_empty() {
        return Err(vec!["usage: cargo xtask order MAP=TRACE...".to_owned()]);
    }
    let mut maps = BTreeMap::new();
    let (mut lines, mut known) = (Vec::new(), BTreeSet::new());
    for argument in arguments {
        let Some((map, trace)) = argument.split_once('=') else {
            return Err(vec![format!("order: {argument:?} is not MAP=TRACE")]);
        };
        if !maps.contains_key(map) {
            maps.insert(map, pieces(&read(map)?));
        }
        let found_here =
            executed(&maps[map], &read(trace)?).map_err(|word| vec![format!("{trace}: {word}")])?;
        // What one command executes lies together, as far as none before it does.
        lines.extend(found_here.into_iter().filter(|line| known.insert(line.clone())));
    }
    let count = lines.len();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(crate::root().join(LIST), text).map_err(|error| vec![format!("{LIST}: {error}")])?;
    Ok(format!("{count} pieces in {LIST}"))
}

/// The pieces of a map, in the order of their addresses.
fn pieces(map: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = map.lines().filter_map(piece).collect();
    pieces.sort_by_key(|piece| piece.start);
    pieces
}

/// The lines for the pieces in which the addresses of a trace lie; the word that is no address.
fn executed<'trace>(pieces: &[Piece], trace: &'trace str) -> Result<BTreeSet<String>, &'trace str> {
    let mut found = BTreeSet::new();
    for word in trace.lines() {
        let address = u64::from_str_radix(word, 16).map_err(|_| word)?;
        let after = pieces.partition_point(|piece| piece.start <= address);
        let piece = after.checked_sub(1).and_then(|index| pieces.get(index));
        if let Some(piece) = piece.filter(|piece| address < piece.start + piece.size) {
            found.insert(format!("{} {}", object(&piece.file), exact(&piece.section)));
        }
    }
    Ok(found)
}

fn read(path: impl AsRef<Path>) -> Result<String, Vec<String>> {
    let path = path.as_ref();
    std::fs::read_to_string(path).map_err(|error| vec![format!("order: read {}: {error}", path.display())])
}

/// `VMA LMA Size Align FILE:(SECTION)`, numbers in hex but the alignment, for sections of code.
fn piece(line: &str) -> Option<Piece> {
    let mut words = line.split_whitespace();
    let mut number = || u64::from_str_radix(words.next()?, 16).ok();
    let (start, _, size) = (number()?, number()?, number()?);
    let (file, section) = words.nth(1)?.strip_suffix(')')?.rsplit_once(":(")?;
    let code = section == ".text" || section.starts_with(".text.");
    code.then(|| Piece {
        start,
        size,
        file: file.to_owned(),
        section: section.to_owned(),
    })
}

/// A pattern for an object file that still fits after a change of it: the crate of a Rust library, the member of a C library.
fn object(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let (archive, member) = name
        .strip_suffix(')')
        .and_then(|name| name.split_once('('))
        .unwrap_or((name, ""));
    match archive.split_once(".a") {
        Some((library, "")) => {
            let library = library.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
            format!("*{library}*.a:{member}")
        }
        _ => {
            let name = archive.strip_prefix("lib").unwrap_or(archive);
            format!("*{}-*", name.split('-').next().unwrap_or(name))
        }
    }
}

/// The name of a section as a pattern: link-time optimisation puts the number of a module behind a name that it made public.
fn exact(section: &str) -> String {
    let name = section.split(".llvm.").next().unwrap_or(section);
    match name.rfind("17h").filter(|at| name.len() == at + 20) {
        Some(_) => format!("{name}*"),
        None => section.to_owned(),
    }
}

/// The same without the hash of the compiler's older mangling, `17h` and 16 digits: it tells instances of one generic function
/// apart, and another compiler makes others.
fn without_hash(pattern: &str) -> Option<&str> {
    let name = pattern.strip_suffix("E*")?;
    let at = name.rfind("17h").filter(|at| name.len() == at + 19)?;
    Some(&name[..at + 3])
}

/// Writes what the linker is to be told, beside what is built; its path changes with its content, so that cargo links anew.
pub(crate) fn script(target: &Path) -> Result<PathBuf, Vec<String>> {
    let mut script = "SECTIONS {\n.text.begin : {\n".to_owned();
    let list = read(crate::root().join(LIST))?;
    let (mut general, mut later) = (BTreeSet::new(), String::new());
    for line in list.lines() {
        let (file, section) = line
            .split_once(' ')
            .ok_or_else(|| vec![format!("{LIST}: {line:?} has no section")])?;
        script.extend([file, "(", section, ")\n"]);
        let pattern = without_hash(section).map(|name| (file, name));
        // By a compiler that makes other hashes, all instances of these lie here.
        if let Some((file, name)) = pattern.filter(|pattern| general.insert(*pattern)) {
            later.extend([file, "(", name, "*)\n"]);
        }
    }
    script.push_str(&later);
    // What optimisation gave another name than in the list is at least near.
    for name in RUNTIME {
        script.extend(["*", name, "-*(.text .text.*)\n"]);
    }
    script.push_str("}\n} INSERT BEFORE .text;\nSECTIONS {\n.rodata.begin : {\n");
    for name in RUNTIME.into_iter().chain(BELOW) {
        // As a library, and as what link-time optimisation makes of it.
        for file in ["*lib", "*."] {
            script.extend([file, name, "-*(.rodata .rodata.*)\n"]);
        }
    }
    script.push_str("}\n} INSERT BEFORE .rodata;\n");
    // FNV-1a.
    let hash = script.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let path = target.join(format!("order-{hash:016x}.ld"));
    std::fs::create_dir_all(target)
        .and_then(|()| std::fs::write(&path, script))
        .map_err(|error| vec![format!("order: write {}: {error}", path.display())])?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_names_the_pieces_it_lies_in() {
        let map = "1010 1010 10 16 /x/deps/dhow-7.o:(.text.b)\n1000 1000 10 16 /x/deps/dhow-7.o:(.text.a)\n1030 1030 8 16 /x/deps/dhow-7.o:(.text.c)";
        let pieces = pieces(map);
        let lines = executed(&pieces, "fff\n1000\n1011\n1020\n1038").unwrap();
        assert_eq!(
            lines.into_iter().collect::<Vec<_>>(),
            ["*dhow-* .text.a", "*dhow-* .text.b"]
        );
        assert_eq!(executed(&pieces, "1000\nx"), Err("x"));
    }

    #[test]
    fn a_piece_is_named_so_that_it_is_found_again() {
        let line = "    78c140   78c140   51f  16    /x/deps/libdhow_oci-0a1b.rlib(dhow_oci-0a1b.dhow_oci.77-cgu.1.rcgu.o):(.text._ZN8dhow_oci4read17h0123456789abcdefE)";
        let piece = piece(line).unwrap();
        assert_eq!((piece.start, piece.size), (0x78c140, 0x51f));
        assert_eq!(object(&piece.file), "*dhow_oci-*");
        let name = ".text._ZN8dhow_oci4read17h0123456789abcdefE*";
        assert_eq!(exact(&piece.section), name);
        assert_eq!(exact(&format!("{}.llvm.123", piece.section)), name);
        assert_eq!(without_hash(name), Some(".text._ZN8dhow_oci4read17h"));
        assert_eq!(object("/usr/lib/libm-2.36.a(e_exp.o)"), "*libm*.a:e_exp.o");
        assert_eq!(object("/x/deps/dhow-77.dhow.88-cgu.0.rcgu.o"), "*dhow-*");
        assert_eq!(exact(".text.memcpy"), ".text.memcpy");
        assert_eq!(without_hash(".text.memcpy"), None);
        assert!(super::piece("  1 1 1 1   /x/a.o:(.rodata.cst)").is_none());
    }
}
