//! Where a request comes from.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::Extensions;

/// The other end of a connection; the server puts it into each request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub IpAddr);

impl Peer {
    /// The address that a request came from.
    pub(crate) fn of(extensions: &Extensions) -> IpAddr {
        extensions.get::<Self>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0)
    }
}
