//! One bounded pool for downloads and unpacking.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dhow_types::ErrorKind;

use crate::Error;

/// Does `work` for every item on up to `workers` threads; results come in the order of the items. After a failure no
/// new item is begun; of several failures the one of the first item is given.
pub(crate) fn each<T: Sync, R: Send>(
    items: &[T],
    workers: usize,
    work: impl Fn(usize, &T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done: Mutex<Vec<(usize, Result<R, Error>)>> = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..workers.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let outcome = work(index, item);
                    failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
                    if let Ok(mut done) = done.lock() {
                        done.push((index, outcome));
                    }
                }
            });
        }
    });
    let mut done = done
        .into_inner()
        .map_err(|_| Error::new(ErrorKind::Internal, "a worker of the bootstrap panicked"))?;
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_items() {
        let items: Vec<u32> = (0..100).collect();
        let doubled = each(&items, 7, |index, item| {
            assert_eq!(index, *item as usize);
            Ok(item * 2)
        });
        assert_eq!(
            doubled.unwrap(),
            items.iter().map(|item| item * 2).collect::<Vec<_>>()
        );
        assert!(each(&[] as &[u32], 4, |_, _| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn a_failure_stops_the_rest_and_is_given() {
        let items: Vec<u32> = (0..1000).collect();
        let begun = AtomicUsize::new(0);
        let outcome = each(&items, 2, |_, item| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *item == 3 {
                Err(Error::new(ErrorKind::DataLoss, "three"))
            } else {
                Ok(())
            }
        });
        assert_eq!(outcome.unwrap_err().to_string(), "three");
        assert!(begun.into_inner() < 1000);
    }
}
