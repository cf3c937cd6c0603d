//! Netlink by hand: requests are written into one buffer and sent with one sendmsg(2), and the answers are read back.
//!
//! The kernel works through a request inside the send, so every acknowledgement is queued when it returns; only dumps
//! go on while they are read. Hence no thread, no poll, no timeout. (Linux `net/netlink/af_netlink.c`.)

mod message;
pub(crate) mod route;

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

pub(crate) use message::{Attributes, Batch, Writer};

/// `NLM_F_ACK`: answer even when all went well.
pub(crate) const ACK: u16 = 0x04;
/// `NLM_F_ROOT | NLM_F_MATCH`: answer with every object.
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_CREATE`.
pub(crate) const CREATE: u16 = 0x400;
/// `NLM_F_EXCL`: fail when it exists.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_APPEND`: at the end of the list.
pub(crate) const APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The kernel fills at most 32 KiB for a dump (`netlink_dump`) and asks that readers have as much.
const RECEIVE: usize = 32 << 10;
/// More datagrams than this for one exchange are not an honest answer: 64 MiB.
const MAX_DATAGRAMS: usize = 2048;

/// A netlink socket in the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// A request of a batch that the kernel refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    /// Which request, counted from 0.
    pub(crate) index: usize,
    /// Why.
    pub(crate) errno: Errno,
}

impl Socket {
    /// A socket to the routing part of the kernel.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(None)
    }

    /// A socket to the packet filter.
    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::open(Some(netlink::NETFILTER))
    }

    /// A socket that hears what changes in the packet filter: the groups as bits.
    pub(crate) fn netfilter_events(groups: u32) -> io::Result<Self> {
        let socket = Self::netfilter()?;
        rustix::net::bind(&socket.fd, &netlink::SocketAddrNetlink::new(0, groups))?;
        Ok(socket)
    }

    /// What to poll for reading.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Takes what has been heard: kind and payload of each message.
    ///
    /// # Errors
    /// `ENOBUFS` when more came than was kept.
    pub(crate) fn drain(&mut self, each: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
        loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    for (kind, _, payload) in message::Messages::new(&self.buffer[..length]) {
                        each(kind, payload);
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        Ok(Self {
            fd,
            sequence: 1,
            buffer: vec![0; RECEIVE],
        })
    }

    /// Allows a batch of this many bytes in one send. The kernel's default of about 200 KiB is enough for
    /// everything but a whole rule set.
    pub(crate) fn allow(&self, bytes: usize) -> io::Result<()> {
        // The kernel charges its bookkeeping to the same budget.
        let wanted = bytes.saturating_mul(2).max(256 << 10);
        match rustix::net::sockopt::set_socket_send_buffer_size_force(&self.fd, wanted) {
            // Root of a user namespace gets what everybody may have (net.core.wmem_max), enough for 2,000 ports.
            Err(Errno::PERM) => rustix::net::sockopt::set_socket_send_buffer_size(&self.fd, wanted)?,
            other => other?,
        }
        Ok(())
    }

    /// Sends the batch and reads every answer: `each` gets kind and payload of the objects that come back.
    /// Returns the refused requests in their order; the others were done.
    pub(crate) fn exchange(
        &mut self,
        batch: &mut Batch,
        each: &mut dyn FnMut(u16, &[u8]),
    ) -> io::Result<Vec<Refusal>> {
        let first = self.sequence;
        let count = batch.number(first)?;
        self.sequence = first.wrapping_add(count).max(1);
        let sent = rustix::net::send(&self.fd, batch.bytes(), SendFlags::empty())?;
        if sent != batch.bytes().len() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "netlink took a part of the request",
            ));
        }
        let mut refused = Vec::new();
        for _ in 0..MAX_DATAGRAMS {
            let (length, _) = match rustix::net::recv(
                &self.fd,
                &mut self.buffer[..],
                RecvFlags::DONTWAIT | RecvFlags::TRUNC,
            ) {
                Err(Errno::AGAIN) => {
                    refused.sort_by_key(|refusal: &Refusal| refusal.index);
                    return Ok(refused);
                }
                Err(Errno::INTR) => continue,
                other => other?,
            };
            let Some(datagram) = self.buffer.get(..length) else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "netlink answer is longer than 32 KiB",
                ));
            };
            read(datagram, first, count, each, &mut refused);
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "netlink answer does not end",
        ))
    }

    /// As [`Socket::exchange`], with the first refusal as the error.
    pub(crate) fn demand(&mut self, batch: &mut Batch, each: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
        match self.exchange(batch, each)?.first() {
            None => Ok(()),
            Some(refusal) => Err(refusal.errno.into()),
        }
    }
}

/// Takes one datagram apart. What does not belong to this exchange is skipped.
fn read(
    datagram: &[u8],
    first: u32,
    count: u32,
    each: &mut dyn FnMut(u16, &[u8]),
    refused: &mut Vec<Refusal>,
) {
    for (kind, sequence, payload) in message::Messages::new(datagram) {
        let index = sequence.wrapping_sub(first);
        if index >= count {
            continue;
        }
        match kind {
            NLMSG_ERROR | NLMSG_DONE => {
                let code = payload.first_chunk().map_or(0, |raw| i32::from_ne_bytes(*raw));
                if code < 0 {
                    // Errno panics for a number that is none (the kernel's MAX_ERRNO).
                    let errno = match code.saturating_neg() {
                        errno @ 1..=4095 => Errno::from_raw_os_error(errno),
                        _ => Errno::PROTO,
                    };
                    refused.push(Refusal {
                        index: usize::try_from(index).unwrap_or(usize::MAX),
                        errno,
                    });
                }
            }
            _ => each(kind, payload),
        }
    }
}

/// Reads a datagram as an answer to any request; what was in it, in one number.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn fuzz(datagram: &[u8]) -> usize {
    let (mut refused, mut sum) = (Vec::new(), 0_usize);
    let mut each = |kind: u16, payload: &[u8]| {
        let values: usize = Attributes::new(payload).map(|(_, value)| value.len()).sum();
        assert!(values <= payload.len(), "values lie within their message");
        sum = sum.wrapping_mul(31).wrapping_add(usize::from(kind)) ^ route::fuzz(payload);
    };
    read(datagram, 1, u32::MAX, &mut each, &mut refused);
    sum.wrapping_add(refused.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hostile_answers_neither_panic_nor_leave_the_buffer(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            fuzz(&bytes);
        }
    }

    #[test]
    fn error_answers_carry_index_and_errno_whatever_the_number() {
        for (code, errno) in [
            (-17, Errno::EXIST),
            (-4096, Errno::PROTO),
            (-70_000, Errno::PROTO),
            (i32::MIN, Errno::PROTO),
        ] {
            let mut bytes = Vec::new();
            bytes.extend_from_slice(&20u32.to_ne_bytes());
            bytes.extend_from_slice(&NLMSG_ERROR.to_ne_bytes());
            bytes.extend_from_slice(&0u16.to_ne_bytes());
            bytes.extend_from_slice(&12u32.to_ne_bytes());
            bytes.extend_from_slice(&0u32.to_ne_bytes());
            bytes.extend_from_slice(&i32::to_ne_bytes(code));
            let mut refused = Vec::new();
            read(&bytes, 10, 3, &mut |_, _| (), &mut refused);
            assert_eq!(refused.len(), 1);
            assert_eq!((refused[0].index, refused[0].errno), (2, errno));
        }
    }

    /// CVE-2021-43784: a length of 16 bits that goes over makes of one attribute several.
    #[test]
    fn an_attribute_that_is_too_long_is_refused_before_it_is_sent() {
        for (length, fits) in [
            (0xfffb, true),
            (0xfffc, false),
            (0x1_0000, false),
            (0x1_0008, false),
        ] {
            let mut batch = Batch::new();
            batch.request(16, ACK, &[], |message| message.raw(3, &vec![b'x'; length]));
            assert_eq!(batch.number(1).is_ok(), fits, "{length}");
        }
        let mut batch = Batch::new();
        batch.request(16, ACK, &[], |message| {
            message.nest(18, |link| (0..3).for_each(|_| link.raw(3, &[b'x'; 0x6000])));
        });
        assert!(
            batch.number(1).is_err(),
            "attributes that fit, in one that does not"
        );
    }
}
