//! Marks for a relay that has its clients' addresses: what it sends marks the connection, and what comes back of a marked
//! connection gets another mark, by which a routing rule brings it here.

use std::io;

use super::encode::{self, Ct, Hook, Meta, R1, Step};
use crate::netlink::{Batch, Socket};

const TABLE: &str = "dhow-relay";

/// Writes the table in the thread's namespace; it is the same for every relay.
pub(crate) fn mark_answers(there: u32, back: u32) -> io::Result<()> {
    let hook = |number| {
        Some(Hook {
            kind: "filter",
            number,
            // Behind conntrack (-200), before address translation (-100): where routes are still to be found.
            priority: -150,
        })
    };
    let (there, back) = (there.to_ne_bytes(), back.to_ne_bytes());
    let mut batch = Batch::new();
    encode::transaction(&mut batch, |batch| {
        encode::new_table(batch, TABLE);
        encode::delete_table(batch, TABLE);
        encode::new_table(batch, TABLE);
        encode::new_chain(batch, TABLE, "there", hook(3));
        encode::new_chain(batch, TABLE, "back", hook(0));
        let marked = [Step::Meta(Meta::Mark, R1), Step::Equal(&there), Step::SetCtMark];
        encode::new_rule(batch, TABLE, "there", &marked);
        let answer = [
            Step::Ct(Ct::Mark),
            Step::Equal(&there),
            Step::Load(&back),
            Step::SetMark,
        ];
        encode::new_rule(batch, TABLE, "back", &answer);
    });
    Socket::netfilter()?.demand(&mut batch, &mut |_, _| ())
}
