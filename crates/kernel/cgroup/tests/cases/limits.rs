//! Limits: what the host has a file for is in it, and what it has none for is refused.

use std::path::Path;

use dhow_cgroup::Group;
use dhow_oci::runtime::{
    BlockIo, CpuLimit, HugepageLimit, MemoryLimit, NetworkLimit, PidsLimit, RdmaLimit, Resources,
};

use crate::{limit_file, oci_group, place};

/// Every limit that this machine's files can hold is in its file after create, and another one after update.
#[test]
fn limits_that_the_host_has_files_for_are_written_and_updated() {
    let limits = |factor: u64| Resources {
        cpu: Some(CpuLimit {
            shares: Some(256 * factor),
            quota: Some(20_000),
            period: Some(50_000),
            burst: Some(1_000 * factor),
            ..CpuLimit::default()
        }),
        memory: Some(MemoryLimit {
            limit: Some(i64::try_from((32 << 20) * factor).unwrap()),
            reservation: Some(i64::try_from((16 << 20) * factor).unwrap()),
            ..MemoryLimit::default()
        }),
        pids: Some(PidsLimit {
            limit: Some(i64::try_from(10 * factor).unwrap()),
        }),
        ..Resources::default()
    };
    let Some(group) = oci_group(&place(), &limits(1)) else {
        return;
    };
    let holds = |factor: u64| {
        let files = [
            ("cpu.shares", "cpu.weight", 256 * factor),
            ("cpu.cfs_burst_us", "cpu.max.burst", 1_000 * factor),
            ("memory.limit_in_bytes", "memory.max", (32 << 20) * factor),
            ("memory.soft_limit_in_bytes", "memory.low", (16 << 20) * factor),
            ("pids.max", "pids.max", 10 * factor),
        ];
        for (v1, v2, wanted) in files {
            let found = limit_file(&group, v1, v2);
            // Shares become a weight on another scale.
            let scaled = v2 == "cpu.weight" && Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
            assert!(
                scaled || found.trim() == wanted.to_string(),
                "{v1} {v2}: {found} is not {wanted}"
            );
        }
    };
    holds(1);
    group.update(&limits(2)).unwrap();
    holds(2);
    // Idle, where the kernel knows it (Linux 5.15), and back.
    for idle in [1, 0] {
        let change = Resources {
            cpu: Some(CpuLimit {
                idle: Some(idle),
                ..CpuLimit::default()
            }),
            ..Resources::default()
        };
        group.update(&change).unwrap();
        assert_eq!(
            limit_file(&group, "cpu.idle", "cpu.idle").trim(),
            idle.to_string()
        );
    }
    group.delete().unwrap();
}

/// What the host cannot hold is refused by the name of its file or controller: a scheduler of disks, a device of RDMA, a class
/// of packets. It is never left out.
#[test]
fn limits_that_the_host_cannot_hold_are_refused_by_name() {
    let root = |path: &str| Path::new("/sys/fs/cgroup").join(path).exists();
    let cases = [
        (
            root("rdma") || root("cgroup.controllers"),
            Resources {
                rdma: [(
                    "mlx5_9".to_owned(),
                    RdmaLimit {
                        hca_handles: Some(1),
                        ..RdmaLimit::default()
                    },
                )]
                .into(),
                ..Resources::default()
            },
            "rdma",
        ),
        (
            root("net_cls"),
            Resources {
                network: Some(NetworkLimit {
                    class_id: Some(7),
                    ..NetworkLimit::default()
                }),
                ..Resources::default()
            },
            "",
        ),
        (
            root("blkio/blkio.leaf_weight"),
            Resources {
                block_io: Some(BlockIo {
                    leaf_weight: Some(300),
                    ..BlockIo::default()
                }),
                ..Resources::default()
            },
            "",
        ),
        (
            false,
            Resources {
                hugepage_limits: vec![HugepageLimit {
                    page_size: "3MB".to_owned(),
                    limit: 1,
                }],
                ..Resources::default()
            },
            "hugetlb",
        ),
    ];
    for (there, wanted, word) in cases {
        if there {
            continue;
        }
        match Group::create_at(&place(), &wanted) {
            Ok(group) => {
                drop(group.map(Group::delete));
                panic!("{wanted:?} was passed over");
            }
            Err(error) => {
                let mut text = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(inner) = cause {
                    text.push_str(&format!(": {inner}"));
                    cause = inner.source();
                }
                assert!(text.contains(word), "{wanted:?}: {text}");
            }
        }
    }
}
