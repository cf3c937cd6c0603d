//! Network devices that a container takes over (config-linux.md, "Network Devices"): moved into its network namespace,
//! renamed, with their addresses, and brought up.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::{Context as _, Error};

// include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const LINK_NAME: u16 = 3;
const LINK_NAMESPACE: u16 = 28;
const UP: u32 = 1;
const PERMANENT: u8 = 0x80;
/// `NLM_F_REQUEST | NLM_F_ACK`, `NLM_F_DUMP`, `NLM_F_CREATE | NLM_F_EXCL`.
const REQUEST: u16 = 5;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x600;
/// Attributes of an address that are carried over: IFA_ADDRESS, IFA_LOCAL, IFA_LABEL is the old name, IFA_BROADCAST.
const KEPT: [u16; 3] = [1, 2, 4];
/// The kernel fills at most 32 KiB for a part of a dump.
const RECEIVE: usize = 32 << 10;
/// More parts of an answer than these are not an honest one.
const MAX_PARTS: usize = 1024;

/// A device to move: its name here and there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) inside: String,
}

/// Moves the devices from the caller's network namespace into another.
pub(crate) fn take(devices: &[Device], namespace: &OwnedFd) -> Result<(), Error> {
    for device in devices {
        one(device, namespace).context(|| {
            format!(
                "move network device {:?} into the container as {:?}",
                device.name, device.inside
            )
        })?;
    }
    Ok(())
}

fn one(device: &Device, namespace: &OwnedFd) -> io::Result<()> {
    let mut here = Socket::open()?;
    let index = here.index(&device.name)?;
    let addresses = here.addresses(index)?;
    let fd = u32::try_from(namespace.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut request = link(index, 0);
    attribute(&mut request, LINK_NAMESPACE, &fd.to_ne_bytes());
    attribute(&mut request, LINK_NAME, &text(&device.inside));
    here.ask(SET_LINK, REQUEST, &request, &mut |_, _| ())?;
    dhow_sys::namespace::within_net(namespace, || {
        let mut there = Socket::open()?;
        let index = there.index(&device.inside)?;
        for mut address in addresses {
            if let Some(slot) = address.get_mut(4..8) {
                slot.copy_from_slice(&index.to_ne_bytes());
            }
            there.ask(NEW_ADDRESS, REQUEST | CREATE, &address, &mut |_, _| ())?;
        }
        there.ask(SET_LINK, REQUEST, &link(index, UP), &mut |_, _| ())
    })?
}

/// A netlink socket of the network namespace it was opened in.
struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    fn open() -> io::Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let fd = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends one request and reads the answer to its end; the kernel has worked through it when the send returns.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        each: &mut dyn FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.sequence += 1;
        let length = u32::try_from(16 + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(body);
        rustix::net::send(&self.fd, &message, SendFlags::empty())?;
        let mut buffer = vec![0; RECEIVE];
        for _ in 0..MAX_PARTS {
            let (length, _) = rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT)?;
            let part = buffer.get(..length).unwrap_or_default();
            if let Some(code) = answer(part, self.sequence, each) {
                return match code.checked_neg() {
                    Some(0) => Ok(()),
                    Some(errno @ 1..=4095) => Err(io::Error::from_raw_os_error(errno)),
                    _ => Err(Errno::PROTO.into()),
                };
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    fn index(&mut self, name: &str) -> io::Result<u32> {
        let mut request = link(0, 0);
        attribute(&mut request, LINK_NAME, &text(name));
        let mut found = None;
        self.ask(GET_LINK, REQUEST, &request, &mut |kind, payload| {
            if kind == NEW_LINK {
                found = word(payload, 4);
            }
        })?;
        found.ok_or_else(|| Errno::NODEV.into())
    }

    /// The addresses of a device that somebody gave it, as requests that give them again. Those of its link alone come by
    /// themselves.
    fn addresses(&mut self, index: u32) -> io::Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        self.ask(GET_ADDRESS, REQUEST | DUMP, &[0; 8], &mut |kind, payload| {
            // struct ifaddrmsg: family, prefix length, flags, scope, index.
            let (Some(fixed), NEW_ADDRESS) = (payload.first_chunk::<8>(), kind) else {
                return;
            };
            let [_, _, flags, scope, ..] = *fixed;
            if word(fixed, 4) != Some(index) || scope != 0 || flags & PERMANENT == 0 {
                return;
            }
            let mut request = fixed.to_vec();
            for (kind, value) in attributes(payload.get(8..).unwrap_or_default()) {
                if KEPT.contains(&kind) {
                    attribute(&mut request, kind, value);
                }
            }
            found.push(request);
        })?;
        Ok(found)
    }
}

/// Reads one part of an answer: the code at its end, if this part has it.
fn answer(mut part: &[u8], sequence: u32, each: &mut dyn FnMut(u16, &[u8])) -> Option<i32> {
    while let (Some(length), Some(kind), Some(own)) = (word(part, 0), half(part, 4), word(part, 8)) {
        let length = usize::try_from(length).ok()?;
        let payload = part.get(16..length)?;
        if own == sequence {
            match kind {
                // NLMSG_ERROR, of which 0 is an acknowledgement, and NLMSG_DONE.
                2 | 3 => return Some(word(payload, 0).map_or(0, u32::cast_signed)),
                _ => each(kind, payload),
            }
        }
        part = part.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(half(bytes, 0)?), half(bytes, 2)?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// `struct ifinfomsg` with the flags to raise.
fn link(index: u32, flags: u32) -> Vec<u8> {
    let mut fixed = vec![0; 4];
    for word in [index, flags, flags] {
        fixed.extend_from_slice(&word.to_ne_bytes());
    }
    fixed
}

fn attribute(request: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    request.extend_from_slice(&length.to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(value);
    request.resize(request.len().next_multiple_of(4), 0);
}

fn text(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_answer_is_read_to_an_end(part in prop::collection::vec(any::<u8>(), 0..200), head in 0_u32..64) {
            let mut message = head.to_ne_bytes().to_vec();
            message.extend(part);
            let mut total = 0;
            answer(&message, 1, &mut |_, payload| total += attributes(payload).count());
            prop_assert!(total <= message.len());
        }
    }
}
