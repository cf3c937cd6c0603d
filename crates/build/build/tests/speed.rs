use std::time::{Duration, Instant};

use crate::bench::bench;

/// Twelve steps in two stages with a context of two thousand files.
#[test]
fn twelve_cached_steps_are_quick() {
    let Some(bench) = bench() else { return };
    for index in 0..2000 {
        bench.file(&format!("src/{}/{index}", index % 40), &format!("{index}"));
    }
    let text = "FROM base:1 AS build\nWORKDIR /src\nCOPY src/1 /one\nRUN write /a 1\nRUN write /b 1\nCOPY . .\nRUN write /c 1\nRUN write /out 1\n\
         FROM base:1\nENV A=b\nWORKDIR /app\nCOPY --from=build /out /app/\nRUN write /d 1\nRUN write /e 1\nCOPY src/2 /two\nCMD [\"x\"]\n";
    let start = Instant::now();
    bench.build(text);
    let cold = start.elapsed();
    std::thread::sleep(Duration::from_millis(100));
    bench.build(text);
    let mut times: Vec<Duration> = (0..7)
        .map(|_| {
            let start = Instant::now();
            let built = bench.build(text);
            assert_eq!((built.stats.steps, built.stats.cached), (12, 12));
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("cold {cold:?}, cached {times:?}");
    assert!(times[0] < Duration::from_millis(400), "{times:?}");
}
