use std::sync::atomic::Ordering;

use crate::bench::{bench, chain};

#[test]
fn stages_that_do_not_need_each_other_run_at_once() {
    let Some(bench) = bench() else { return };
    let mut request = bench.request(
        "FROM base:1 AS a\nRUN meet 3; write /a 1\nFROM base:1 AS b\nRUN meet 3; write /b 1\nFROM base:1 AS c\nRUN meet 3; write /c 1\n\
         FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\nCOPY --from=c /c /\n",
    );
    request.parallel = Some(3);
    let image = bench.built(&request).image;
    assert_eq!(bench.tree(&image).len(), 3);
}

#[test]
fn no_more_steps_than_allowed_work_at_once() {
    let Some(bench) = bench() else { return };
    let mut request = bench.request(
        "FROM base:1 AS a\nRUN meet 2\nFROM base:1 AS b\nRUN meet 2; write /b 1\nFROM scratch\nCOPY --from=a /srv /\nCOPY --from=b /b /\n",
    );
    request.parallel = Some(1);
    // Each waits for the other, which may not begin.
    let failed = bench.try_build(&request).unwrap_err();
    assert!(failed.to_string().contains("exit code: 99"), "{failed}");
}

#[test]
fn one_failed_stage_ends_the_build_with_its_own_reason() {
    let Some(bench) = bench() else { return };
    let text = "FROM base:1 AS a\nRUN exit 5\nFROM base:1 AS b\nRUN sleep 100\nRUN sleep 100\nFROM scratch\nCOPY --from=b /srv /\nCOPY --from=a /srv /\n";
    let failed = bench.fails(text);
    assert!(chain(&failed).contains("exit code: 5"), "{}", chain(&failed));
    assert_eq!(failed.place.unwrap().span.line_column(text).0, 2);
    bench.assert_clean();
}

#[test]
fn equal_stages_of_two_builds_at_once_are_made_once() {
    let Some(bench) = bench() else { return };
    bench.file("f", "x");
    let text = "FROM base:1\nCOPY f /f\nRUN sleep 200; write /x 1\n";
    let ids: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| bench.build(text).image.id))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    assert_eq!(bench.shell.runs.load(Ordering::SeqCst), 1);
    bench.assert_clean();
}

#[test]
fn many_stages_need_no_more_threads_than_there_may_be() {
    let Some(bench) = bench() else { return };
    let mut text = String::from("FROM base:1 AS s0\nRUN write /x 1\n");
    for index in 1..150 {
        text.push_str(&format!(
            "FROM base:1 AS s{index}\nCOPY --from=s{} /x /x\n",
            index - 1
        ));
    }
    let image = bench.build(&text).image;
    assert_eq!(bench.tree(&image)["x"], "f 644 0:0 1");
}

#[test]
fn a_long_chain_of_stages_needs_no_long_stack() {
    let Some(bench) = bench() else { return };
    let mut text = String::from("FROM base:1 AS s0\nRUN write /x 1\n");
    for index in 1..4000 {
        text.push_str(&format!("FROM s{} AS s{index}\n", index - 1));
    }
    let image = bench.build(&text).image;
    assert_eq!(bench.tree(&image)["x"], "f 644 0:0 1");
}
