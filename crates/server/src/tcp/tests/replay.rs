//! What somebody can do who has recorded all that a client sent.

use super::*;

/// Asks, and keeps every byte that was sent for it; tells how many came back, too.
async fn record(
    generation: Generation,
    address: SocketAddr,
    request: &Value,
) -> (Vec<u8>, usize, Response) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut client = ClientSide::new(keys(), generation, request, None);
    let (mut sent, mut came) = (Vec::new(), 0);
    loop {
        let progress = client.advance().unwrap();
        let output = client.take_output();
        stream.write_all(&output).await.unwrap();
        sent.extend(output);
        if let Progress::Response(response) = progress {
            return (sent, came, response);
        }
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        assert!(count > 0, "the door answers");
        client.feed(&bytes[..count]);
        came += count;
    }
}

/// Sends what was recorded, and tells how many bytes come back.
async fn replay(address: SocketAddr, recorded: &[u8]) -> usize {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut came = Vec::new();
    // The door may close before it has read all of it.
    let _ = stream.write_all(recorded).await;
    let _ = stream.read_to_end(&mut came).await;
    came.len()
}

#[tokio::test]
async fn what_is_sent_a_second_time_does_nothing() {
    let done = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&done);
    let machines: Act = Arc::new(move |action| {
        counted.fetch_add(1, Ordering::Relaxed);
        act(action)
    });
    let opened = open(settings(), Verbs::builtin(&machines), None).await;
    for generation in [Generation::One, Generation::Three, Generation::Four] {
        for verb in ["CREATE", "STAT"] {
            let before = done.load(Ordering::Relaxed);
            let request = request(verb, json!({}));
            let (recorded, came, response) = record(generation, opened.address, &request).await;
            assert!(response.success, "{response:?}");
            assert_eq!(done.load(Ordering::Relaxed), before + 1, "{verb} is done once");
            for _ in 0..3 {
                // A refusal is shorter than any success, should one come at all.
                let again = replay(opened.address, &recorded).await;
                assert!(again < came, "{generation:?}: {verb} was answered with {again} bytes");
            }
            assert_eq!(done.load(Ordering::Relaxed), before + 1, "{generation:?}: {verb} again");
        }
    }
}
