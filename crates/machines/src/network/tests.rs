//! The network as a guest's own TCP/IP stack sees it.

mod guest;
mod hostile;
mod lan;
mod outside;
mod speed;

use std::sync::Arc;

use tokio::net::UnixStream;

use super::outside::Outside;
use super::{Network, NetworkPolicy};
use guest::Guest;

/// A network and a guest on it.
fn lan(policy: NetworkPolicy) -> (Network, Guest) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Network::serve(ours, Outside::new(Arc::new(policy))), Guest::new(theirs))
}
