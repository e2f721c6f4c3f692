//! Many datagrams in one system call: recvmmsg(2), sendmmsg(2), and our own address with each.
//!
//! Nothing here waits or decides. Where a socket stands on every address of the machine, a datagram
//! comes with the one it was sent to and an answer is sent from there (ip(7), `IP_PKTINFO`); where
//! it stands on one address the kernel does that by itself.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg,
    sendmmsg, setsockopt, sockopt,
};
use tokio::net::UdpSocket;

/// Datagrams moved by one call at most.
pub(crate) const BATCH: usize = 32;
/// Room for one datagram: larger ones do not exist.
const ROOM: usize = 65_536;

/// Addresses of a call that needs none, because its socket is connected.
const CONNECTED: [Option<SockaddrStorage>; BATCH] = [None; BATCH];

/// What one worker needs to move datagrams from and to endpoints; one for all its sockets.
#[derive(Debug)]
pub(crate) struct Moving {
    /// For clients' sockets too.
    pub(crate) buffers: Buffers,
    pub(crate) headers: Headers,
    pub(crate) outgoing: Outgoing,
}

impl Default for Moving {
    fn default() -> Self {
        Self {
            buffers: Buffers::default(),
            headers: Headers::new(Wildcard::No),
            outgoing: Outgoing::new(Wildcard::No),
        }
    }
}

/// Room for one batch.
///
/// Only as much of it becomes real memory as datagrams have touched.
pub(crate) struct Buffers(Box<[u8]>);

impl Default for Buffers {
    fn default() -> Self {
        Self(vec![0; BATCH * ROOM].into())
    }
}

/// What the kernel says of each datagram of a batch.
pub(crate) struct Headers {
    headers: MultiHeaders<SockaddrStorage>,
    arrived: Vec<Arrived>,
}

/// One datagram in the buffers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    /// Who has sent it; absent on a connected socket.
    pub(crate) from: Option<SocketAddr>,
    /// The address it was sent to, where the socket stands on several.
    pub(crate) to: Option<IpAddr>,
    pub(crate) length: usize,
}

/// Whether a socket stands on every address of the machine, and of which family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wildcard {
    No,
    V4,
    V6,
}

impl Wildcard {
    pub(crate) fn of(address: SocketAddr) -> Self {
        match address.ip() {
            ip if !ip.is_unspecified() => Self::No,
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Asks the kernel for the address of each datagram.
    pub(crate) fn prepare(self, socket: &UdpSocket) -> io::Result<()> {
        match self {
            Self::No => {}
            Self::V4 => setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?,
            Self::V6 => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
        Ok(())
    }

    fn space(self) -> Option<Vec<u8>> {
        match self {
            Self::No => None,
            Self::V4 => Some(cmsg_space!(in_pktinfo)),
            Self::V6 => Some(cmsg_space!(in6_pktinfo)),
        }
    }
}

impl Headers {
    /// For sockets of that kind.
    pub(crate) fn new(wildcard: Wildcard) -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, wildcard.space()),
            arrived: Vec::with_capacity(BATCH),
        }
    }

    /// Takes what waits in a socket, at most a batch; says what lies where in the buffers.
    pub(crate) fn receive(
        &mut self,
        socket: RawFd,
        buffers: &mut Buffers,
    ) -> io::Result<&[Arrived]> {
        self.arrived.clear();
        let mut rooms = buffers.0.chunks_exact_mut(ROOM);
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(rooms.next().unwrap_or_default())]);
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = recvmmsg(socket, &mut self.headers, slices.iter_mut(), flags, None)?;
        for message in received {
            let to = message
                .cmsgs()
                .ok()
                .and_then(|mut all| all.find_map(address_of));
            let from = message.address.as_ref().and_then(socket_address);
            self.arrived.push(Arrived {
                from,
                to,
                length: message.bytes,
            });
        }
        Ok(&self.arrived)
    }
}

impl Buffers {
    /// The datagram at a position of the last batch.
    pub(crate) fn datagram(&self, at: usize, arrived: &Arrived) -> &[u8] {
        &self.0[at * ROOM..at * ROOM + arrived.length]
    }
}

/// Datagrams to be sent by one call; the same headers for sockets of one kind.
pub(crate) struct Outgoing {
    wildcard: Wildcard,
    headers: MultiHeaders<SockaddrStorage>,
}

impl Outgoing {
    /// For sockets of that kind.
    pub(crate) fn new(wildcard: Wildcard) -> Self {
        Self {
            wildcard,
            headers: MultiHeaders::preallocate(BATCH, wildcard.space()),
        }
    }

    /// Sends datagrams to where a connected socket leads; says how many went.
    pub(crate) fn send<'a>(
        &mut self,
        socket: RawFd,
        datagrams: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<usize> {
        self.call(socket, datagrams, &CONNECTED, None)
    }

    /// Sends each datagram to its address, all from `local`; says how many went.
    pub(crate) fn send_to<'a>(
        &mut self,
        socket: RawFd,
        datagrams: impl Iterator<Item = &'a [u8]>,
        to: &[Option<SockaddrStorage>],
        local: Option<IpAddr>,
    ) -> io::Result<usize> {
        self.call(socket, datagrams, to, local)
    }

    fn call<'a>(
        &mut self,
        socket: RawFd,
        mut datagrams: impl Iterator<Item = &'a [u8]>,
        to: &[Option<SockaddrStorage>],
        local: Option<IpAddr>,
    ) -> io::Result<usize> {
        let mut count = 0;
        let slices: [[IoSlice<'_>; 1]; BATCH] = std::array::from_fn(|_| {
            let datagram = datagrams.next();
            count += usize::from(datagram.is_some());
            [IoSlice::new(datagram.unwrap_or_default())]
        });
        let to = &to[..count.min(to.len())];
        let flags = MsgFlags::MSG_DONTWAIT;
        let slices = slices[..count].iter();
        let headers = &mut self.headers;
        let sent = match (self.wildcard, local) {
            (Wildcard::V4, local) => {
                let info = [ControlMessage::Ipv4PacketInfo(&from_v4(local))];
                sendmmsg(socket, headers, slices, to, info, flags)?.count()
            }
            (Wildcard::V6, local) => {
                let info = [ControlMessage::Ipv6PacketInfo(&from_v6(local))];
                sendmmsg(socket, headers, slices, to, info, flags)?.count()
            }
            (Wildcard::No, _) => sendmmsg(socket, headers, slices, to, [], flags)?.count(),
        };
        Ok(sent)
    }
}

/// An error of a socket that says nothing about the one datagram and will be gone.
pub(crate) fn would_block(error: &io::Error) -> bool {
    let short = [
        Errno::EAGAIN as i32,
        Errno::ENOBUFS as i32,
        Errno::ENOMEM as i32,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| short.contains(&code))
}

/// An error that names the size of a datagram.
pub(crate) fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EMSGSIZE as i32)
}

pub(crate) fn descriptor(socket: &UdpSocket) -> RawFd {
    socket.as_raw_fd()
}

fn address_of(message: ControlMessageOwned) -> Option<IpAddr> {
    match message {
        // Not where it was sent, which may be a broadcast address, but who we are to its sender.
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            let bits = u32::from_be(info.ipi_spec_dst.s_addr);
            Some(IpAddr::V4(bits.into()))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(IpAddr::V6(info.ipi6_addr.s6_addr.into()))
        }
        _ => None,
    }
}

/// An address of a datagram, as the standard library has it.
fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    let v6 = address.as_sockaddr_in6()?;
    Some(SocketAddr::V6((*v6).into()))
}

/// Absent where the kernel shall choose.
fn from_v4(local: Option<IpAddr>) -> in_pktinfo {
    let bits = match local {
        Some(IpAddr::V4(local)) => u32::from(local).to_be(),
        _ => 0,
    };
    in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: in_addr { s_addr: bits },
        ipi_addr: in_addr { s_addr: 0 },
    }
}

fn from_v6(local: Option<IpAddr>) -> in6_pktinfo {
    let octets = match local {
        Some(IpAddr::V6(local)) => local.octets(),
        _ => [0; 16],
    };
    in6_pktinfo {
        ipi6_addr: in6_addr { s6_addr: octets },
        ipi6_ifindex: 0,
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Headers").finish_non_exhaustive()
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").finish_non_exhaustive()
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").finish_non_exhaustive()
    }
}
