//! The words of nf_tables in nfnetlink (Linux `include/uapi/linux/netfilter/nf_tables.h`): a fixed vocabulary, enough
//! for the rules of this crate. Numbers are in network byte order, except values that the packet path keeps otherwise.

use crate::netlink::{ACK, APPEND, Batch, CREATE, Writer};

const SUBSYSTEM: u16 = 10 << 8;
const NFPROTO_INET: u8 = 1;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

const NEWTABLE: u16 = SUBSYSTEM;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const GETCHAIN: u16 = SUBSYSTEM | 4;
const NEWRULE: u16 = SUBSYSTEM | 6;
const NEWSET: u16 = SUBSYSTEM | 9;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const GETSETELEM: u16 = SUBSYSTEM | 13;
const DELSETELEM: u16 = SUBSYSTEM | 14;

/// `NFNLGRP_NFTABLES` as a bit.
pub(crate) const EVENTS: u32 = 1 << 6;
/// The name of the table in every message about something in it.
pub(crate) const TABLE_NAME: u16 = 1;

/// Whether a message says that a table, chain, rule or set has gone.
pub(crate) const fn takes_away(kind: u16) -> bool {
    const DELCHAIN: u16 = SUBSYSTEM | 5;
    const DELRULE: u16 = SUBSYSTEM | 8;
    const DELSET: u16 = SUBSYSTEM | 11;
    matches!(kind, DELTABLE | DELCHAIN | DELRULE | DELSET)
}

/// Reply to [`get_chain`].
pub(super) const CHAIN: u16 = NEWCHAIN;
/// Reply to [`find_element`].
pub(super) const ELEMENT: u16 = NEWSETELEM;
/// `NFTA_CHAIN_USE` in that reply: number of its rules.
pub(super) const CHAIN_USE: u16 = 6;
/// `NFTA_SET_ELEM_LIST_ELEMENTS`.
pub(super) const ELEMENTS: u16 = 3;
/// `NFTA_LIST_ELEM`.
pub(super) const LIST_ELEM: u16 = 1;
/// `NFTA_SET_ELEM_DATA`.
pub(super) const ELEM_DATA: u16 = 2;
/// `NFTA_DATA_VALUE`.
pub(super) const DATA_VALUE: u16 = 1;

const ELEM_KEY: u16 = 1;
const ELEM_FLAGS: u16 = 3;

/// `struct nfgenmsg`: family, version, resource.
const HEADER: [u8; 4] = [NFPROTO_INET, 0, 0, 0];

/// Type numbers of nft's listing (`datatype.h`); the kernel only keeps them.
pub(super) mod datatype {
    pub(in crate::firewall) const IPV4: u32 = 7;
    pub(in crate::firewall) const IPV6: u32 = 8;
    pub(in crate::firewall) const PROTOCOL: u32 = 12;
    pub(in crate::firewall) const SERVICE: u32 = 13;
    pub(in crate::firewall) const IFNAME: u32 = 41;

    /// A concatenation: six bits for each part.
    pub(in crate::firewall) fn concat(parts: &[u32]) -> u32 {
        parts.iter().fold(0, |all, part| (all << 6) | part)
    }
}

/// Runs `body` between the marks of a transaction: all of it is done or nothing.
pub(super) fn transaction(batch: &mut Batch, body: impl FnOnce(&mut Batch)) {
    // res_id names the subsystem whose transaction it is (`nfnetlink_rcv_skb_batch`).
    let mark = [0, 0, 0, 10];
    batch.request(BATCH_BEGIN, 0, &mark, |_| ());
    body(batch);
    batch.request(BATCH_END, 0, &mark, |_| ());
}

pub(super) fn new_table(batch: &mut Batch, table: &str) {
    batch.request(NEWTABLE, CREATE | ACK, &HEADER, |message| {
        message.text(1, table);
        message.be32(2, 0);
    });
}

pub(super) fn delete_table(batch: &mut Batch, table: &str) {
    batch.request(DELTABLE, ACK, &HEADER, |message| message.text(1, table));
}

/// Where a chain is called from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    /// `filter` or `nat`.
    pub(super) kind: &'static str,
    /// `NF_INET_*`.
    pub(super) number: u32,
    /// Smaller comes first.
    pub(super) priority: i32,
}

pub(super) fn new_chain(batch: &mut Batch, table: &str, chain: &str, hook: Option<Hook>) {
    batch.request(NEWCHAIN, CREATE | ACK, &HEADER, |message| {
        message.text(1, table);
        message.text(3, chain);
        if let Some(hook) = hook {
            message.nest(4, |nest| {
                nest.be32(1, hook.number);
                nest.raw(2, &hook.priority.to_be_bytes());
            });
            message.be32(5, 1);
            message.text(7, hook.kind);
        }
    });
}

pub(super) fn get_chain(batch: &mut Batch, table: &str, chain: &str) {
    batch.request(GETCHAIN, ACK, &HEADER, |message| {
        message.text(1, table);
        message.text(3, chain);
    });
}

/// A set, or a map when it has data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set<'a> {
    pub(super) name: &'a str,
    /// Unique in the transaction; the kernel demands one.
    pub(super) id: u32,
    /// Type and length of the key.
    pub(super) key: (u32, u32),
    /// Type and length of the value of a map.
    pub(super) data: Option<(u32, u32)>,
    /// Keys are ranges: each has an element where it starts and one, marked as end, behind it.
    pub(super) interval: bool,
    /// The key is in the machine's byte order, which nft must know to show it.
    pub(super) host_order: bool,
}

/// One element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element {
    pub(super) set: &'static str,
    pub(super) key: Vec<u8>,
    /// Whether it is the end of a range. Sorts before a start at the same place, the end of the neighbour.
    pub(super) start: bool,
    /// Value of a map; empty in a set.
    pub(super) data: Vec<u8>,
}

pub(super) fn new_set(batch: &mut Batch, table: &str, set: &Set<'_>) {
    const INTERVAL: u32 = 4;
    const MAP: u32 = 8;
    let flags = if set.data.is_some() { MAP } else { 0 } | if set.interval { INTERVAL } else { 0 };
    batch.request(NEWSET, CREATE | ACK, &HEADER, |message| {
        message.text(1, table);
        message.text(2, set.name);
        message.be32(3, flags);
        message.be32(4, set.key.0);
        message.be32(5, set.key.1);
        if let Some((kind, length)) = set.data {
            message.be32(6, kind);
            message.be32(7, length);
        }
        message.be32(10, set.id);
        if set.host_order {
            // libnftnl's NFTNL_UDATA_SET_KEYBYTEORDER: type 0, length 4, 1 for the machine's order.
            let [a, b, c, d] = 1u32.to_ne_bytes();
            message.raw(13, &[0, 4, a, b, c, d]);
        }
    });
}

fn elements(batch: &mut Batch, kind: u16, flags: u16, table: &str, all: &[Element]) {
    const INTERVAL_END: u32 = 1;
    let Some(first) = all.first() else { return };
    batch.request(kind, flags | ACK, &HEADER, |message| {
        message.text(1, table);
        message.text(2, first.set);
        message.nest(ELEMENTS, |list| {
            for element in all {
                list.nest(LIST_ELEM, |out| {
                    out.nest(ELEM_KEY, |value| value.raw(DATA_VALUE, &element.key));
                    if !element.start {
                        out.be32(ELEM_FLAGS, INTERVAL_END);
                    }
                    if !element.data.is_empty() && kind == NEWSETELEM {
                        out.nest(ELEM_DATA, |value| value.raw(DATA_VALUE, &element.data));
                    }
                });
            }
        });
    });
}

/// Adds elements, sorted by set; one that is there with the same value is no error.
pub(super) fn add_elements(batch: &mut Batch, table: &str, all: &[Element]) {
    for of_set in all.chunk_by(|a, b| a.set == b.set) {
        // One attribute holds at most 64 KiB; an element takes under 100 bytes.
        for chunk in of_set.chunks(256) {
            elements(batch, NEWSETELEM, CREATE, table, chunk);
        }
    }
}

pub(super) fn delete_elements(batch: &mut Batch, table: &str, all: &[Element]) {
    for of_set in all.chunk_by(|a, b| a.set == b.set) {
        elements(batch, DELSETELEM, 0, table, of_set);
    }
}

pub(super) fn find_element(batch: &mut Batch, table: &str, element: &Element) {
    elements(batch, GETSETELEM, 0, table, std::slice::from_ref(element));
}

/// Appends a rule.
pub(super) fn new_rule(batch: &mut Batch, table: &str, chain: &str, rule: &[Step<'_>]) {
    batch.request(NEWRULE, CREATE | APPEND | ACK, &HEADER, |message| {
        message.text(1, table);
        message.text(2, chain);
        message.nest(4, |list| {
            for step in rule {
                list.nest(LIST_ELEM, |expression| step.write(expression));
            }
        });
    });
}

/// A 16-byte register.
pub(super) const R1: u32 = 1;
/// The next one.
pub(super) const R2: u32 = 2;
/// The second four bytes of the register file, which is the second word of [`R1`].
pub(super) const WORD1: u32 = 9;
/// The third word.
pub(super) const WORD2: u32 = 10;
/// The sixth word, behind a 16-byte address that starts at [`WORD1`].
pub(super) const WORD5: u32 = 13;

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Meta {
    Mark = 3,
    InName = 6,
    OutName = 7,
    Family = 15,
    Protocol = 16,
}

/// What conntrack knows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ct {
    State = 0,
    Status = 2,
    Mark = 3,
}

/// One expression of a rule. A rule ends at the first that does not hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    /// Loads into a register.
    Meta(Meta, u32),
    /// Loads into [`R1`].
    Ct(Ct),
    /// Loads bytes of the IP header: offset, length, register.
    Network(u32, u32, u32),
    /// Loads bytes of the transport header: offset, length, register.
    Transport(u32, u32, u32),
    /// [`R1`] &= mask, in the machine's byte order.
    Mask(u32),
    /// [`R1`] equals.
    Equal(&'a [u8]),
    /// [`R1`] differs.
    Differs(&'a [u8]),
    /// The key from [`R1`] on is in the set.
    In(&'a str),
    /// The key from [`R1`] on is not in the set.
    NotIn(&'a str),
    /// The key from [`R1`] on is in the map; its value goes to [`R1`].
    Map(&'a str),
    /// Loads the kind of the destination address into [`R1`]: 2 is local.
    DestinationKind,
    /// Loads bytes into [`R1`].
    Load(&'a [u8]),
    /// Writes the two bytes in [`R1`] into the transport header, which has its checksum there: offset, that of the sum.
    WriteTransport(u32, u32),
    /// Changes the destination: family, register of the port (the address is in [`R1`]).
    Dnat(u32, u32),
    /// Gives the packet the address of the interface it leaves by.
    Masquerade,
    /// The packet's mark becomes what is in [`R1`].
    SetMark,
    /// The connection's mark becomes what is in [`R1`].
    SetCtMark,
    /// Ends here, well.
    Accept,
    /// Ends here, badly.
    Drop,
    /// Goes on in another chain.
    Goto(&'a str),
}

impl Step<'_> {
    fn write(&self, out: &mut Writer<'_>) {
        const NAME: u16 = 1;
        const DATA: u16 = 2;
        let mut expression = |name: &str, body: &dyn Fn(&mut Writer<'_>)| {
            out.text(NAME, name);
            out.nest(DATA, |data| body(data));
        };
        match *self {
            Self::Meta(key, register) => expression("meta", &|data| {
                data.be32(1, register);
                data.be32(2, key as u32);
            }),
            Self::Ct(key) => expression("ct", &|data| {
                data.be32(1, R1);
                data.be32(2, key as u32);
            }),
            Self::Network(offset, length, register) => {
                expression("payload", &|data| payload(data, 1, offset, length, register));
            }
            Self::Transport(offset, length, register) => {
                expression("payload", &|data| payload(data, 2, offset, length, register));
            }
            Self::Mask(mask) => expression("bitwise", &|data| {
                data.be32(1, R1);
                data.be32(2, R1);
                data.be32(3, 4);
                data.nest(4, |value| value.raw(DATA_VALUE, &mask.to_ne_bytes()));
                data.nest(5, |value| value.raw(DATA_VALUE, &[0; 4]));
            }),
            Self::Equal(bytes) => expression("cmp", &|data| compare(data, 0, bytes)),
            Self::Differs(bytes) => expression("cmp", &|data| compare(data, 1, bytes)),
            Self::In(set) => expression("lookup", &|data| lookup(data, set, None, false)),
            Self::NotIn(set) => expression("lookup", &|data| lookup(data, set, None, true)),
            Self::Map(set) => expression("lookup", &|data| lookup(data, set, Some(R1), false)),
            Self::DestinationKind => expression("fib", &|data| {
                data.be32(1, R1);
                data.be32(2, 3);
                data.be32(3, 2);
            }),
            Self::Load(bytes) => expression("immediate", &|data| {
                data.be32(1, R1);
                data.nest(2, |value| value.raw(DATA_VALUE, bytes));
            }),
            Self::WriteTransport(offset, sum) => expression("payload", &|data| {
                data.be32(2, 2);
                data.be32(3, offset);
                data.be32(4, 2);
                data.be32(5, R1);
                // An Internet checksum (RFC 1071), which the kernel corrects.
                data.be32(6, 1);
                data.be32(7, sum);
            }),
            Self::Dnat(family, port) => expression("nat", &|data| {
                data.be32(1, 1);
                data.be32(2, family);
                data.be32(3, R1);
                data.be32(5, port);
            }),
            Self::SetMark => expression("meta", &|data| {
                data.be32(2, Meta::Mark as u32);
                data.be32(3, R1);
            }),
            Self::SetCtMark => expression("ct", &|data| {
                data.be32(2, Ct::Mark as u32);
                data.be32(4, R1);
            }),
            Self::Masquerade => expression("masq", &|_| ()),
            Self::Accept => expression("immediate", &|data| verdict(data, 1, None)),
            Self::Drop => expression("immediate", &|data| verdict(data, 0, None)),
            Self::Goto(chain) => expression("immediate", &|data| verdict(data, -4, Some(chain))),
        }
    }
}

fn payload(data: &mut Writer<'_>, base: u32, offset: u32, length: u32, register: u32) {
    data.be32(1, register);
    data.be32(2, base);
    data.be32(3, offset);
    data.be32(4, length);
}

fn compare(data: &mut Writer<'_>, operation: u32, bytes: &[u8]) {
    data.be32(1, R1);
    data.be32(2, operation);
    data.nest(3, |value| value.raw(DATA_VALUE, bytes));
}

fn lookup(data: &mut Writer<'_>, set: &str, into: Option<u32>, invert: bool) {
    data.text(1, set);
    data.be32(2, R1);
    if let Some(register) = into {
        data.be32(3, register);
    }
    if invert {
        data.be32(5, 1);
    }
}

fn verdict(data: &mut Writer<'_>, code: i32, chain: Option<&str>) {
    data.be32(1, 0);
    data.nest(2, |value| {
        value.nest(2, |verdict| {
            verdict.raw(1, &code.to_be_bytes());
            if let Some(chain) = chain {
                verdict.text(2, chain);
            }
        });
    });
}
