//! A server that plays the UDM REST API, with its nasty sides: for tests, demos and benchmarks.
//!
//! ```text
//!  Population ─► Generated ─┐
//!                put, moved ┴► Directory ─► Listing, Object ─► Links, JSON ─► answers   (server)
//!                                              Faults ──────────────────────────┘
//! ```
//!
//! What it plays, because clients have stumbled over it: a list without a query has no results; an empty list has no
//! list; lists of whole objects block everything; a page that is asked for again is empty; there is a size limit;
//! addresses are built from the request's host; DNs with commas, slashes, quotes and umlauts; modules without
//! objects of their own; a best number of requests at once, and several processes that connections are spread over; `users/self`; 401 without a body; 503 in two forms; and by [`faults`] whatever else can go
//! wrong, while it runs.
//!
//! **Invariants**: the same seed gives the same bytes. Objects are written when they are asked for: a million users
//! take some 50 MB. Nothing is written to disk. It does not keep references whole, and knows no write requests
//! besides `/control`: changes go through [`Directory`].

mod answer;
mod auth;
mod backend;
mod control;
mod counters;
mod directory;
pub mod dump;
pub mod faults;
mod filter;
mod json;
mod links;
mod list;
mod modules;
mod object;
mod population;
mod route;
mod server;
mod stand_in;

pub use auth::Credentials;
pub use counters::{Asked, Counters, Numbers};
pub use directory::{Directory, Listing};
pub use faults::{Effect, Faults, On, Rule, Switches};
pub use links::{Links, quote_dn, unquote_dn};
pub use modules::Modules;
pub use object::{Head, Object};
pub use population::Population;
pub use server::Settings;
pub use stand_in::StandIn;
