//! Landlock, where the annotation asks for it.

use dhow_oci::Labels;
use dhow_oci::runtime::Spec;
use dhow_types::ErrorKind;

use super::tests;
use crate::fixture::{Image, process};

tests! {
    what_the_ruleset_does_not_allow_is_denied
    a_process_of_exec_is_under_the_ruleset_of_its_container
    a_rule_for_what_is_not_there_is_an_error_with_its_path
    a_ruleset_is_refused_without_no_new_privileges
}

/// Read and execute below /bin, write one directory, and nothing else.
const RULES: &str = r#"{
    "handledAccessFS": ["execute", "write_file", "read_file", "read_dir", "make_reg"],
    "pathBeneath": [
        { "allowedAccess": ["execute", "read_file"], "paths": ["/bin"] },
        { "allowedAccess": ["write_file", "make_reg", "read_file"], "paths": ["/tmp"] },
        { "allowedAccess": ["write_file", "read_dir"], "paths": ["/dev/null"] }
    ]
}"#;

fn landlock() -> bool {
    let there = dhow_sys::landlock::abi().is_ok();
    if !there {
        println!("skipped: this kernel has no Landlock");
    }
    there
}

fn annotations(rules: &str) -> Labels {
    Labels::from_iter([(dhow_runtime::LANDLOCK.to_owned(), rules.to_owned())])
}

fn ask(spec: &mut Spec, rules: &str) {
    spec.annotations = annotations(rules);
    process(spec).no_new_privileges = true;
}

const SCRIPT: &str = "echo a >/tmp/a && echo wrote; echo b >/root/b || echo no b; cat /etc/passwd || echo no passwd; \
                      ls / || echo no list; echo c >/dev/null && echo null";
const SEEN: &str = "wrote\nno b\nno passwd\nno list\nnull\n";

fn without_errors(out: &str) -> String {
    let lines = out.lines().filter(|line| !line.contains("ermission denied"));
    lines.map(|line| format!("{line}\n")).collect()
}

fn what_the_ruleset_does_not_allow_is_denied() {
    if !landlock() {
        return;
    }
    let image = Image::new();
    std::fs::write(image.root().join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    for uid in [0, 1000] {
        drop(std::fs::remove_file(image.root().join("tmp/a")));
        let out = image.sh(SCRIPT, |spec| {
            ask(spec, RULES);
            process(spec).user.uid = uid;
        });
        assert_eq!(without_errors(&out), SEEN, "{uid}: {out}");
    }
    // The same without the ruleset, as root.
    let out = image.sh(SCRIPT, |_| ());
    assert!(out.contains("root:x:0") && !out.contains("no list"), "{out}");
}

fn a_process_of_exec_is_under_the_ruleset_of_its_container() {
    if !landlock() {
        return;
    }
    let image = Image::new();
    std::fs::write(image.root().join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    let sleeper = image.sleeping(|spec| ask(spec, RULES));
    let mut spec = Image::shell(SCRIPT, |spec| process(spec).no_new_privileges = true);
    let outcome = sleeper
        .exec_under(process(&mut spec), &annotations(RULES))
        .unwrap();
    assert_eq!(without_errors(&outcome.out), SEEN, "{outcome:?}");
}

fn a_rule_for_what_is_not_there_is_an_error_with_its_path() {
    if !landlock() {
        return;
    }
    let image = Image::new();
    let rules = RULES.replace("/tmp", "/nowhere");
    let (_, message) = image.refused(&Image::shell("true", |spec| ask(spec, &rules)));
    assert!(
        message.contains("open the path of a Landlock rule /nowhere"),
        "{message}"
    );
    // A link of procfs leads to what is the host's while this is set up.
    let rules = RULES.replace("/tmp", "/proc/self/root/tmp");
    let (_, message) = image.refused(&Image::shell("true", |spec| ask(spec, &rules)));
    assert!(message.contains("/proc/self/root/tmp"), "{message}");
}

fn a_ruleset_is_refused_without_no_new_privileges() {
    let image = Image::new();
    let (kind, message) = image.refused(&Image::shell("true", |spec| {
        spec.annotations = annotations(RULES)
    }));
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(message.contains("noNewPrivileges"), "{message}");
}
