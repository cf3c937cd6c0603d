//! When the files of a plain copy were last changed: by that most need not be read to be known as they were.
//!
//! The kernel moves the change time of an inode with everything that is done to it, and nobody can set it. So a file that has
//! the inode and change time that it had when the copy was finished has the content of then. One that was changed shortly before
//! is not told by it, since the clock for change times goes in ticks: it is read.
//!
//! ```text
//! "DHOWSTM\0"   moment i64 (seconds)  u32 (nanoseconds)   files u64      all numbers little-endian
//! inode u64     seconds i64           nanoseconds u32                    of each
//! ```

use std::collections::HashMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Statx;

use crate::{Context, Error};

const NAME: &str = "stamps";
const MAGIC: &[u8; 8] = b"DHOWSTM\0";
const HEAD: usize = 28;
const RECORD: usize = 20;

/// Nanoseconds before the end of a copy in which a change is not told by its time: some ticks of the slowest clock (100 Hz).
const TICKS: i128 = 50_000_000;

/// The same on a file system that keeps whole seconds.
const SECONDS: i128 = 2_000_000_000;

const NANOS: i128 = 1_000_000_000;

/// Change times of the files of a copy, by inode.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    /// When they were taken, in nanoseconds since 1970.
    moment: i128,
    files: HashMap<u64, (i64, u32)>,
}

fn nanos(seconds: i64, nanoseconds: u32) -> i128 {
    i128::from(seconds) * NANOS + i128::from(nanoseconds)
}

impl Stamps {
    /// Notes files as they are from `moment` on.
    pub(crate) fn write<'a>(
        dir: &Path,
        moment: SystemTime,
        files: impl Iterator<Item = &'a Statx>,
    ) -> Result<(), Error> {
        let moment = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(moment.as_secs()).unwrap_or(i64::MAX);
        let mut bytes = MAGIC.to_vec();
        bytes.extend(seconds.to_le_bytes());
        bytes.extend(moment.subsec_nanos().to_le_bytes());
        bytes.extend([0; 8]);
        let mut count = 0_u64;
        for stat in files {
            count += 1;
            bytes.extend(stat.stx_ino.to_le_bytes());
            bytes.extend(stat.stx_ctime.tv_sec.to_le_bytes());
            bytes.extend(stat.stx_ctime.tv_nsec.to_le_bytes());
        }
        bytes[HEAD - 8..HEAD].copy_from_slice(&count.to_le_bytes());
        let path = dir.join(NAME);
        std::fs::write(&path, bytes).context(|| format!("write {}", path.display()))
    }

    /// What was noted in the folder of a snapshot; nothing when that cannot be read, and then every file is.
    pub(crate) fn read(dir: &Path) -> Self {
        let bytes = std::fs::read(dir.join(NAME)).unwrap_or_default();
        Self::parse(&bytes).unwrap_or_default()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, records) = bytes.split_at_checked(HEAD)?;
        let head = head.strip_prefix(MAGIC)?;
        let count = u64::from_le_bytes(head.get(12..20)?.try_into().ok()?);
        let (records, rest) = records.as_chunks::<RECORD>();
        if records.len() as u64 != count || !rest.is_empty() {
            return None;
        }
        let time = |bytes: &[u8]| {
            let seconds = i64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
            Some((seconds, u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?)))
        };
        let (seconds, nanoseconds) = time(head)?;
        let mut files = HashMap::with_capacity(records.len());
        for record in records {
            let inode = u64::from_le_bytes(record.get(..8)?.try_into().ok()?);
            files.insert(inode, time(record.get(8..)?)?);
        }
        Some(Self {
            moment: nanos(seconds, nanoseconds),
            files,
        })
    }

    /// Whether the file with this state was not touched since its time was noted.
    pub(crate) fn hold(&self, stat: &Statx) -> bool {
        let time = (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec);
        // One of many whole seconds is by chance; where all are, the file is read for nothing.
        let unsure = if time.1 == 0 { SECONDS } else { TICKS };
        self.files.get(&stat.stx_ino) == Some(&time) && nanos(time.0, time.1) + unsure < self.moment
    }
}
