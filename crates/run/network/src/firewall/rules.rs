//! What is in the table; see the module above for what it means.

use super::encode::{self, Ct, Hook, Meta, R1, R2, Set, Step, WORD1, WORD2, WORD5, datatype};
use crate::netlink::Batch;

/// Name of an empty chain that says which rules are in the table; another layout of another version is replaced.
pub(super) const LAYOUT: &str = "layout-3";
/// `IPS_DST_NAT`.
const STATUS_DNAT: u32 = 1 << 5;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED) | NF_CT_STATE_BIT(IP_CT_RELATED)`.
const STATE_KNOWN: u32 = 0b110;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;
const FAMILY_V4: u32 = 2;
const FAMILY_V6: u32 = 10;

/// A set of the table: its name, the parts of its key, those of its value; each part is a type and a length.
struct Layout {
    name: &'static str,
    key: &'static [(u32, u32)],
    data: &'static [(u32, u32)],
}

const NAME: (u32, u32) = (datatype::IFNAME, 16);
const PROTOCOL: (u32, u32) = (datatype::PROTOCOL, 4);
const PORT: (u32, u32) = (datatype::SERVICE, 4);
const V4: (u32, u32) = (datatype::IPV4, 4);
const V6: (u32, u32) = (datatype::IPV6, 16);

const SETS: &[Layout] = &[
    Layout {
        name: "bridges",
        key: &[NAME],
        data: &[],
    },
    Layout {
        name: "same",
        key: &[NAME, NAME],
        data: &[],
    },
    Layout {
        name: "internal",
        key: &[NAME],
        data: &[],
    },
    Layout {
        name: "outbound",
        key: &[NAME],
        data: &[],
    },
    Layout {
        name: "sources4",
        key: &[V4],
        data: &[],
    },
    Layout {
        name: "sources6",
        key: &[V6],
        data: &[],
    },
    Layout {
        name: "closed6",
        key: &[NAME],
        data: &[],
    },
    Layout {
        name: "published4",
        key: &[PROTOCOL, V4, PORT],
        data: &[V4, PORT],
    },
    Layout {
        name: "everywhere4",
        key: &[PROTOCOL, PORT],
        data: &[V4, PORT],
    },
    Layout {
        name: "published6",
        key: &[PROTOCOL, V6, PORT],
        data: &[V6, PORT],
    },
    Layout {
        name: "everywhere6",
        key: &[PROTOCOL, PORT],
        data: &[V6, PORT],
    },
];

/// Creates the sets and maps, empty.
pub(super) fn write_sets(batch: &mut Batch, table: &str) {
    let whole = |parts: &[(u32, u32)]| -> (u32, u32) {
        let types: Vec<u32> = parts.iter().map(|part| part.0).collect();
        (datatype::concat(&types), parts.iter().map(|part| part.1).sum())
    };
    for (id, layout) in (1..).zip(SETS) {
        let data = if layout.data.is_empty() {
            None
        } else {
            Some(whole(layout.data))
        };
        encode::new_set(
            batch,
            table,
            &Set {
                name: layout.name,
                id,
                key: whole(layout.key),
                data,
                interval: layout.name.starts_with("sources"),
                host_order: layout.key == [NAME],
            },
        );
    }
}

type Rule = &'static [Step<'static>];

const IS_V4: [Step<'static>; 2] = [Step::Meta(Meta::Family, R1), Step::Equal(&[2])];

/// Loopback never comes from a wire; an address in it that arrives on one is an attack.
const RAW: &[Rule] = &[&[
    Step::Meta(Meta::InName, R1),
    Step::Differs(b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    IS_V4[0],
    IS_V4[1],
    Step::Network(16, 1, R1),
    Step::Equal(&[127]),
    Step::Drop,
]];

/// Nothing leaves by a wire from `::1`, and IPv6 has no `route_localnet`: a relay listens there.
const NOT_LOOPBACK6: [Step<'static>; 2] = [
    Step::Network(24, 16, R1),
    Step::Differs(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
];

const LOCAL_ONLY: &[Rule] = &[&[
    Step::DestinationKind,
    Step::Equal(&LOCAL.to_ne_bytes()),
    Step::Goto("publish"),
]];

const PUBLISH: &[Rule] = &[
    &[
        IS_V4[0],
        IS_V4[1],
        Step::Meta(Meta::Protocol, R1),
        Step::Network(16, 4, WORD1),
        Step::Transport(2, 2, WORD2),
        Step::Map("published4"),
        Step::Dnat(FAMILY_V4, WORD1),
    ],
    &[
        IS_V4[0],
        IS_V4[1],
        Step::Meta(Meta::Protocol, R1),
        Step::Transport(2, 2, WORD1),
        Step::Map("everywhere4"),
        Step::Dnat(FAMILY_V4, WORD1),
    ],
    &[
        Step::Meta(Meta::Family, R1),
        Step::Equal(&[10]),
        NOT_LOOPBACK6[0],
        NOT_LOOPBACK6[1],
        Step::Meta(Meta::Protocol, R1),
        Step::Network(24, 16, WORD1),
        Step::Transport(2, 2, WORD5),
        Step::Map("published6"),
        Step::Dnat(FAMILY_V6, R2),
    ],
    &[
        Step::Meta(Meta::Family, R1),
        Step::Equal(&[10]),
        NOT_LOOPBACK6[0],
        NOT_LOOPBACK6[1],
        Step::Meta(Meta::Protocol, R1),
        Step::Transport(2, 2, WORD1),
        Step::Map("everywhere6"),
        Step::Dnat(FAMILY_V6, R2),
    ],
];

const POSTROUTING: &[Rule] = &[
    // A connection of the host to 127.0.0.1 keeps that source through the DNAT; the container must answer the bridge.
    &[
        Step::Meta(Meta::OutName, R1),
        Step::In("bridges"),
        IS_V4[0],
        IS_V4[1],
        Step::Network(12, 1, R1),
        Step::Equal(&[127]),
        Step::Masquerade,
    ],
    // A container that reaches a container by a published port: on one network the answer would else go straight
    // back, unchanged. By source, not by incoming interface: with br_netfilter there is none here.
    &[
        Step::Meta(Meta::OutName, R1),
        Step::In("bridges"),
        Step::Ct(Ct::Status),
        Step::Mask(STATUS_DNAT),
        Step::Differs(&[0; 4]),
        IS_V4[0],
        IS_V4[1],
        Step::Network(12, 4, R1),
        Step::In("sources4"),
        Step::Masquerade,
    ],
    &[
        Step::Meta(Meta::OutName, R1),
        Step::In("bridges"),
        Step::Ct(Ct::Status),
        Step::Mask(STATUS_DNAT),
        Step::Differs(&[0; 4]),
        Step::Meta(Meta::Family, R1),
        Step::Equal(&[10]),
        Step::Network(8, 16, R1),
        Step::In("sources6"),
        Step::Masquerade,
    ],
    &[
        Step::Meta(Meta::InName, R1),
        Step::In("outbound"),
        Step::Meta(Meta::OutName, R1),
        Step::NotIn("bridges"),
        Step::Masquerade,
    ],
];

/// Its length tells whether the rules are still there.
pub(super) const FORWARD: &[Rule] = &[
    &[
        Step::Meta(Meta::InName, R1),
        Step::Meta(Meta::OutName, R2),
        Step::In("same"),
        Step::Accept,
    ],
    &[Step::Meta(Meta::InName, R1), Step::In("internal"), Step::Drop],
    &[Step::Meta(Meta::OutName, R1), Step::In("internal"), Step::Drop],
    &[
        Step::Ct(Ct::State),
        Step::Mask(STATE_KNOWN),
        Step::Differs(&[0; 4]),
        Step::Accept,
    ],
    &[
        Step::Meta(Meta::OutName, R1),
        Step::In("bridges"),
        Step::Ct(Ct::Status),
        Step::Mask(STATUS_DNAT),
        Step::Equal(&[0; 4]),
        Step::Drop,
    ],
    // Last, so that it costs the first packet of a connection only.
    &[
        Step::Meta(Meta::InName, R1),
        Step::In("closed6"),
        Step::Meta(Meta::OutName, R1),
        Step::In("closed6"),
        Step::Meta(Meta::Family, R1),
        Step::Equal(&[10]),
        Step::Drop,
    ],
];

/// Chains in the order of creation: one that is jumped to comes first.
const CHAINS: &[(&str, Option<Hook>, &[Rule])] = &[
    (LAYOUT, None, &[]),
    ("publish", None, PUBLISH),
    (
        "raw",
        Some(Hook {
            kind: "filter",
            number: 0,
            priority: -300,
        }),
        RAW,
    ),
    (
        "prerouting",
        Some(Hook {
            kind: "nat",
            number: 0,
            priority: -100,
        }),
        LOCAL_ONLY,
    ),
    (
        "output",
        Some(Hook {
            kind: "nat",
            number: 3,
            priority: -100,
        }),
        LOCAL_ONLY,
    ),
    (
        "postrouting",
        Some(Hook {
            kind: "nat",
            number: 4,
            priority: 100,
        }),
        POSTROUTING,
    ),
    (
        "forward",
        Some(Hook {
            kind: "filter",
            number: 2,
            priority: 0,
        }),
        FORWARD,
    ),
];

/// Creates the chains with their rules.
pub(super) fn write_rules(batch: &mut Batch, table: &str) {
    for (chain, hook, _) in CHAINS {
        encode::new_chain(batch, table, chain, *hook);
    }
    for (chain, _, rules) in CHAINS {
        for rule in *rules {
            encode::new_rule(batch, table, chain, rule);
        }
    }
}
