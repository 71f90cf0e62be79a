//! Listening sockets.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::Context;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

/// Connections that the kernel completes before we accept them.
const BACKLOG: i32 = 1024;

/// Listens on an address. `[::]` takes IPv4, too, whatever `net.ipv6.bindv6only` says, and where the machine has no
/// IPv6 it is `0.0.0.0`: one default fits clusters of either family and of both. The error names the setting.
pub fn listen(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let everywhere = address.is_ipv6() && address.ip().is_unspecified();
    let listener = match bind(address) {
        Err(error) if everywhere && has_no_ipv6(&error) => {
            bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        bound => bound,
    };
    listener.with_context(|| format!("can't listen on {address} ({setting})"))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // A restart need not wait for the connections of the process before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The kernel has no IPv6 (`EAFNOSUPPORT`), or this network namespace has switched it off (`EADDRNOTAVAIL`).
fn has_no_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
        || code == Some(rustix::io::Errno::ADDRNOTAVAIL.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn the_address_of_everywhere_takes_both_families() {
        let listener = listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), "--listen, LISTEN").unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("IPv4");
        if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.expect("IPv6");
        }
    }

    #[tokio::test]
    async fn an_address_in_use_names_the_setting() {
        let first = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "--listen, LISTEN").unwrap();
        let error = listen(first.local_addr().unwrap(), "--listen, LISTEN").unwrap_err();
        assert!(format!("{error:#}").contains("(--listen, LISTEN)"), "{error:#}");
    }
}
