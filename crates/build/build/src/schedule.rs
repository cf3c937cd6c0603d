//! The stages at work: each runs once, in whichever thread asks for it first.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use dhow_dockerfile::Dockerfile;
use dhow_image::{Image, Store};
use dhow_types::ErrorKind;

use crate::cache::cancelled;
use crate::cache_mounts::MountName;
use crate::context::Context;
use crate::failure::{Error, Halt, Trouble};
use crate::frames::Frames;
use crate::outside::{Once, Outside};
use crate::plan::Plan;
use crate::remote::Material;
use crate::request::Request;
use crate::state::State;
use crate::step::{BuildObserver, Event, Executor, Images, StepResult};
use crate::tree::Trees;

/// Most threads; more stages than that run when one of these asks for them.
const MAX_THREADS: usize = 64;
/// Stack of a thread: hashing and dropping a tree goes as deep as its paths.
const STACK: usize = 16 << 20;

/// One build: what its threads share.
pub(crate) struct Build<'a> {
    pub(crate) store: &'a Store,
    pub(crate) images: &'a dyn Images,
    pub(crate) executor: &'a dyn Executor,
    pub(crate) request: &'a Request,
    pub(crate) observer: &'a dyn BuildObserver,
    pub(crate) file: &'a Dockerfile,
    pub(crate) plan: &'a Plan,
    pub(crate) context: Option<Context>,
    pub(crate) trees: Trees,
    slots: Mutex<Vec<Slot>>,
    changed: Condvar,
    permits: Permits,
    failed: AtomicBool,
    first_trouble: Mutex<Option<Trouble>>,
    pulls: Mutex<HashMap<String, Pulled>>,
    outsides: Mutex<HashMap<String, Arc<Once<Outside>>>>,
    numbers: AtomicU32,
    serial: AtomicU32,
    pub(crate) steps: AtomicU32,
    pub(crate) cached: AtomicU32,
    /// Steps whose inputs were written down.
    pub(crate) kept: AtomicU32,
    /// What the steps gave, when that is to be told.
    pub(crate) results: Mutex<Vec<StepResult>>,
    /// The images that it began with, by the names that they have in the Dockerfile.
    pub(crate) bases: Mutex<Vec<(String, Image)>>,
    pub(crate) materials: Mutex<BTreeSet<Material>>,
    /// The cache mounts that steps had.
    pub(crate) mounts: Mutex<BTreeSet<MountName>>,
    pub(crate) frames: Frames,
}

/// An image that this build pulled, once it has.
type Pulled = Arc<Mutex<Option<Image>>>;

/// What is known of a stage.
#[derive(Clone, Debug)]
enum Slot {
    Waiting,
    Running,
    Done(Arc<State>),
    Failed,
}

/// How many steps may work at once.
#[derive(Debug)]
struct Permits {
    free: Mutex<usize>,
    changed: Condvar,
}

/// The right to work; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.changed.notify_one();
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a build is given.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) store: &'a Store,
    pub(crate) images: &'a dyn Images,
    pub(crate) executor: &'a dyn Executor,
    pub(crate) request: &'a Request,
    pub(crate) observer: &'a dyn BuildObserver,
    pub(crate) file: &'a Dockerfile,
    pub(crate) plan: &'a Plan,
}

impl<'a> Build<'a> {
    pub(crate) fn new(parts: Parts<'a>) -> Result<Self, Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cache = parts.store.root().join("cache/ctx");
        Ok(Self {
            store: parts.store,
            images: parts.images,
            executor: parts.executor,
            request: parts.request,
            observer: parts.observer,
            file: parts.file,
            plan: parts.plan,
            context: Context::open(parts.request, &cache)?,
            trees: Trees::new(parts.store.layers.clone()),
            slots: Mutex::new(vec![Slot::Waiting; parts.plan.stages.len()]),
            changed: Condvar::new(),
            permits: Permits {
                free: Mutex::new(parts.request.parallel.unwrap_or(cores).max(1)),
                changed: Condvar::new(),
            },
            failed: AtomicBool::new(false),
            first_trouble: Mutex::new(None),
            pulls: Mutex::new(HashMap::new()),
            outsides: Mutex::new(HashMap::new()),
            numbers: AtomicU32::new(0),
            serial: AtomicU32::new(0),
            steps: AtomicU32::new(0),
            cached: AtomicU32::new(0),
            kept: AtomicU32::new(0),
            results: Mutex::default(),
            bases: Mutex::default(),
            materials: Mutex::default(),
            mounts: Mutex::default(),
            frames: Frames::default(),
        })
    }

    /// Runs the target and all that it needs.
    pub(crate) fn run(&self) -> Result<Arc<State>, Trouble> {
        let others: Vec<usize> = self
            .plan
            .reached
            .iter()
            .copied()
            .filter(|index| *index != self.plan.target)
            .take(MAX_THREADS)
            .collect();
        std::thread::scope(|scope| {
            for index in others {
                let spawned = std::thread::Builder::new()
                    .name(format!("stage {index}"))
                    .stack_size(STACK)
                    .spawn_scoped(scope, move || drop(self.stage(index)));
                // Without a thread the stage runs when the target asks for it.
                drop(spawned);
            }
            // From the first to the last, so that none begins another within itself; in a thread with room for those
            // that a variable or a trigger asks for.
            let all = || {
                for index in &self.plan.reached {
                    if self.stage(*index).is_err() {
                        break;
                    }
                }
            };
            let spawned = std::thread::Builder::new()
                .name("target".to_owned())
                .stack_size(STACK)
                .spawn_scoped(scope, all);
            if spawned.is_err() {
                all();
            }
        });
        if let Slot::Done(state) = &lock(&self.slots)[self.plan.target] {
            return Ok(Arc::clone(state));
        }
        let trouble = lock(&self.first_trouble).take();
        Err(trouble.unwrap_or_else(|| Trouble::from(Error::new(ErrorKind::Internal, "a stage did not end"))))
    }

    /// The end state of a stage: runs it, or waits for the thread that does. Stages only ever wait for earlier ones,
    /// and a waiting thread holds no permit, so this cannot lock up.
    pub(crate) fn stage(&self, index: usize) -> Result<Arc<State>, Halt> {
        let mut slots = lock(&self.slots);
        loop {
            match &slots[index] {
                Slot::Done(state) => return Ok(Arc::clone(state)),
                Slot::Failed => return Err(Halt::Elsewhere),
                Slot::Running => {
                    slots = self.changed.wait(slots).unwrap_or_else(PoisonError::into_inner);
                }
                Slot::Waiting => break,
            }
        }
        slots[index] = Slot::Running;
        drop(slots);
        let finish = Finish { build: self, index };
        let result = crate::stage::run(self, index);
        finish.set(match result {
            Ok(state) => Slot::Done(Arc::new(state)),
            Err(halt) => {
                self.fail(halt);
                Slot::Failed
            }
        });
        self.stage(index)
    }

    fn fail(&self, halt: Halt) {
        if let Halt::Here(trouble) = halt {
            lock(&self.first_trouble).get_or_insert(*trouble);
        }
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Fails when the person, or the failure of another stage, wants the build to end.
    pub(crate) fn check(&self) -> Result<(), Halt> {
        if self.request.cancel.load(Ordering::Relaxed) {
            return Err(cancelled().into());
        }
        if self.failed.load(Ordering::Relaxed) {
            return Err(Halt::Elsewhere);
        }
        Ok(())
    }

    /// Waits for the right to work.
    pub(crate) fn permit(&self) -> Permit<'_> {
        let mut free = lock(&self.permits.free);
        while *free == 0 {
            let changed = &self.permits.changed;
            free = changed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Permit(&self.permits)
    }

    /// The place for an image that is to be pulled once.
    pub(crate) fn pulled(&self, name: &str) -> Pulled {
        let mut pulls = lock(&self.pulls);
        Arc::clone(pulls.entry(name.to_owned()).or_default())
    }

    /// The place for a tree that is opened once.
    pub(crate) fn outside(&self, name: &str) -> Arc<Once<Outside>> {
        let mut outsides = lock(&self.outsides);
        Arc::clone(outsides.entry(name.to_owned()).or_default())
    }

    /// Notes what the build is made of.
    pub(crate) fn made_of(&self, material: Material) {
        lock(&self.materials).insert(material);
    }

    /// Keeps the hashes of all contexts for the next build.
    pub(crate) fn save_hashes(&self) -> Result<(), Error> {
        if let Some(context) = &self.context {
            context.save()?;
        }
        for outside in lock(&self.outsides).values() {
            outside.look(|outside| outside.save())?;
        }
        Ok(())
    }

    /// A number for a step's events.
    pub(crate) fn step_number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// A name for something temporary that says whose it is.
    pub(crate) fn key(&self) -> String {
        // Two builds may run in one process, hence the address of this one's counter.
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let build = SERIAL.fetch_add(1, Ordering::Relaxed);
        let step = self.serial.fetch_add(1, Ordering::Relaxed);
        format!("build-{}-{build}-{step}", std::process::id())
    }

    /// Whether what steps give is to be told.
    pub(crate) const fn tells_results(&self) -> bool {
        self.request.tell_results || self.request.inline_cache
    }

    pub(crate) fn warn(&self, message: &str, at: dhow_dockerfile::Span) {
        self.observer.observe(Event::Warning { message, at });
    }
}

/// Marks a stage as failed when its thread panics, so that nobody waits for ever.
struct Finish<'a, 'b> {
    build: &'a Build<'b>,
    index: usize,
}

impl Finish<'_, '_> {
    fn set(self, slot: Slot) {
        lock(&self.build.slots)[self.index] = slot;
    }
}

impl Drop for Finish<'_, '_> {
    fn drop(&mut self) {
        let mut slots = lock(&self.build.slots);
        if matches!(slots[self.index], Slot::Running) {
            slots[self.index] = Slot::Failed;
            self.build.failed.store(true, Ordering::Relaxed);
        }
        drop(slots);
        self.build.changed.notify_all();
    }
}
