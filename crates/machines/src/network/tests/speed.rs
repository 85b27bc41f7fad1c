//! How fast bytes go. The other side is as fast as it can be, not as fast as an emulated guest.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::super::NetworkPolicy;
use super::lan;

/// What is sent: enough to be fast for a moment; unoptimized, enough to show that it works.
const BYTES: usize = if cfg!(debug_assertions) { 4 << 20 } else { 512 << 20 };
/// One gigabit per second, which an optimized build must reach.
const MBIT_PER_SECOND_MIN: f64 = 1000.0;

fn check(way: &str, begun: Instant) {
    let mbit = f64::from(u32::try_from(BYTES).unwrap()) * 8.0 / 1e6 / begun.elapsed().as_secs_f64();
    println!("{way}: {mbit:.0} Mbit/s");
    assert!(cfg!(debug_assertions) || mbit >= MBIT_PER_SECOND_MIN, "{way}: {mbit:.0} Mbit/s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_data_is_fast_both_ways() {
    let (network, mut guest) = lan(NetworkPolicy::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let sink = guest.listen(1);
        let source = guest.listen(2);
        let block = [7; 16 * 1024];
        let (mut taken, mut given) = (0, 0);
        guest
            .until(|guest| {
                let socket = guest.socket(sink);
                while socket.can_recv() {
                    taken += socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap();
                }
                let socket = guest.socket(source);
                while socket.can_send() && given < BYTES {
                    given += socket.send_slice(&block[..block.len().min(BYTES - given)]).unwrap();
                }
                (taken == BYTES && given == BYTES && socket.send_queue() == 0).then_some(())
            })
            .await;
        guest.forever().await;
    });
    let mut connection = network.connect(1).await.unwrap();
    let block = vec![7; 16 * 1024];
    let begun = Instant::now();
    for _ in 0..BYTES / block.len() {
        connection.write_all(&block).await.unwrap();
    }
    check("host to guest", begun);

    let mut connection = network.connect(2).await.unwrap();
    let mut block = vec![0; 16 * 1024];
    let begun = Instant::now();
    let mut left = BYTES;
    while left > 0 {
        left -= connection.read(&mut block).await.unwrap();
    }
    check("guest to host", begun);
}
