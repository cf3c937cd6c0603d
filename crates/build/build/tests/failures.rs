use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dhow_types::{ErrorKind, Failure as _};

use crate::bench::{bench, chain};

#[test]
fn a_failed_command_tells_step_line_and_exit_code() {
    let Some(bench) = bench() else { return };
    let text = "FROM base:1\nENV A=1\nRUN write /x 1; \\\n  exit 7\nRUN say never\n";
    let failed = bench.fails(text);
    assert_eq!(
        failed.to_string(),
        "failed to solve: process \"/bin/sh -c write /x 1;   exit 7\" did not complete successfully: exit code: 7"
    );
    assert_eq!(failed.kind(), ErrorKind::FailedPrecondition);
    assert_eq!(failed.step.as_deref(), Some("[2/3] RUN write /x 1;   exit 7"));
    let place = failed.place.as_ref().unwrap();
    assert_eq!(place.file, "Dockerfile");
    assert_eq!(place.span.line_column(text), (3, 1));
    assert_eq!(bench.shell.runs(), 1);
    bench.assert_clean();
}

#[test]
fn syntax_errors_come_with_all_that_was_found() {
    let Some(bench) = bench() else { return };
    let failed = bench.fails("FROM base:1\nRUM x\nCOPY --form=a b c\n");
    assert_eq!(
        chain(&failed),
        "failed to solve: unknown instruction: RUM | did you mean RUN?"
    );
    assert_eq!(failed.more.len(), 1);
    assert_eq!(failed.more[0].message, "unknown flag: --form");
}

#[test]
fn stages_that_need_each_other_or_later_ones_are_errors() {
    let Some(bench) = bench() else { return };
    for (text, message) in [
        (
            "FROM base:1 AS a\nCOPY --from=a x y\n",
            "circular dependency detected on stage: a",
        ),
        (
            "FROM base:1 AS a\nCOPY --from=b x y\nFROM base:1 AS b\nCOPY --from=a x y\n",
            "circular dependency detected on stage: b",
        ),
        (
            "FROM base:1 AS a\nCOPY --from=b x y\nFROM base:1 AS b\n",
            "cannot copy from stage \"b\", it needs to be defined before current stage \"a\"",
        ),
        (
            "FROM base:1 AS a\nRUN --mount=from=a,target=/m x\n",
            "circular dependency detected on stage: a",
        ),
        ("FROM base:1\nCOPY --from=3 x y\n", "invalid stage index 3"),
        ("ARG X\nFROM $X\n", "base name ($X) should not be blank"),
        ("FROM ${X\n", "syntax error: missing '}'"),
        (
            "FROM --platform=nonsense base:1\n",
            "failed to parse platform nonsense",
        ),
        ("FROM UPPER\n", "failed to parse stage name \"UPPER\""),
    ] {
        let failed = bench.fails(text);
        assert!(failed.to_string().contains(message), "{text}: {failed}");
        assert!(failed.place.is_some(), "{text}");
    }
}

#[test]
fn a_largest_dockerfile_and_one_beyond_end_with_an_answer() {
    let Some(bench) = bench() else { return };
    let padding = "# padding\n".repeat(1_000_000);
    bench.build(&format!("FROM scratch\n{padding}LABEL a=b\n"));
    let failed = bench.fails(&format!("FROM scratch\n{padding}{padding}"));
    assert!(
        failed.to_string().contains("more than the 10485760 allowed"),
        "{failed}"
    );
    // Values that double on every line end at a bound, not at the end of the memory.
    let doubling: String = (0..60).map(|_| "ENV a=$a$a$a$a\n").collect();
    let failed = bench.fails(&format!("FROM scratch\nENV a=xxxx\n{doubling}"));
    assert!(failed.to_string().contains("longer than"), "{failed}");
}

#[test]
fn a_cancel_ends_the_build_at_the_next_step() {
    let Some(bench) = bench() else { return };
    let request = bench.request("FROM base:1\nRUN sleep 300\nRUN sleep 300\nRUN sleep 300\nRUN sleep 300\n");
    let cancel = std::sync::Arc::clone(&request.cancel);
    let start = Instant::now();
    let failed = std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            cancel.store(true, Ordering::SeqCst);
        });
        bench.try_build(&request).unwrap_err()
    });
    assert_eq!(failed.kind(), ErrorKind::Cancelled);
    assert!(start.elapsed() < Duration::from_secs(1));
    bench.assert_clean();
}
