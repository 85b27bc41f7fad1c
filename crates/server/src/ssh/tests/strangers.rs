//! Those who have not logged in: how long they may stay, how many there may be, and who is not let near.

use super::*;

/// Somebody at 127.0.0.`n` who says who the client is, and nothing else.
async fn stranger(scene: &Scene, n: u8) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, n], 0))).unwrap();
    let mut stream = socket.connect(scene.address).await.unwrap();
    stream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    stream
}

/// Reads what is there, and waits for the end of the connection where it is to come.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match timeout(DEADLINE / 4, stream.read(&mut bytes)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}

/// Whether the end has come already.
fn has_ended(stream: &TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match stream.try_read(&mut bytes) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            _ => return true,
        }
    }
}

#[test]
fn who_is_not_admitted_is_closed_without_a_byte() {
    with_a_machine(async {
        let scene = Scene::new().await;
        let mut all = Vec::new();
        // What was written to somebody who is gone already may end it by a reset.
        let _ = stranger(&scene, 66).await.read_to_end(&mut all).await;
        assert!(all.is_empty());
        scene.inside().await;
    });
}

#[test]
fn who_floods_takes_no_place_from_others() {
    with_a_machine(async {
        let scene = Scene::new().await;
        let inside = scene.inside().await;
        let patient = stranger(&scene, 3).await;
        let mut flood = Vec::new();
        for _ in 0..20 {
            flood.push(stranger(&scene, 2).await);
        }
        // Its oldest give way.
        for stream in &mut flood[..18] {
            assert!(is_closed(stream).await);
        }
        // All places are taken now, and the flood goes on while somebody logs in from elsewhere.
        let flooding = async {
            for _ in 0..100 {
                flood.push(stranger(&scene, 2).await);
            }
        };
        let (other, ()) = tokio::join!(scene.inside(), flooding);
        assert!(!has_ended(&patient) && !inside.is_closed());
        assert!(other.channel_open_session().await.is_ok());
        assert!(inside.channel_open_session().await.is_ok());
    });
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_sent_away() {
    let directory = Directory {
        find: Box::new(|_| None),
        connect: Box::new(|_, _| Box::pin(ready(Err(io::ErrorKind::NotFound.into())))),
        note: Box::new(|_| {}),
    };
    let authority = Authority::new(SshKey::random().unwrap());
    let host_key = SshKey::random().unwrap();
    let settings = Settings {
        host_key,
        authority,
        connections_max: 1,
        strangers_per_address_max: 1,
        login_max: Duration::from_secs(10),
        ip_filter: None,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(Gateway::new(settings, directory).serve(listener, std::future::pending::<()>()));
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    let mut all = Vec::new();
    silent.read_to_end(&mut all).await.unwrap();
    assert!(all.starts_with(b"SSH-2.0-Gatehouse\r\n"));
}
