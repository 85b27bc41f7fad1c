//! Whole exchanges: with bytes that another implementation made, between both sides, in pieces, and damaged.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::cipher::Session;
use super::keys::fingerprint;
use super::server::Unlocked;
use super::*;
use crate::Secret;

fn pair(bits: u32) -> Arc<KeyPair> {
    let file = match bits {
        2048 => include_str!("../../../../testdata/containers/private2048.pem"),
        3072 => include_str!("../../../../testdata/containers/private3072.pem"),
        _ => include_str!("../../../../testdata/containers/private4096.pem"),
    };
    Arc::new(KeyPair::from_private_pem(&Secret::new(file)).unwrap())
}

fn server_keys() -> Arc<KeyPair> {
    static KEYS: OnceLock<Arc<KeyPair>> = OnceLock::new();
    Arc::clone(KEYS.get_or_init(|| pair(2048)))
}

fn stat() -> Value {
    json!({ "verb": "STAT", "parameters": {} })
}

fn answer() -> Response {
    let Value::Object(data) = json!({ "version": "4.1.4", "uptime": 5, "available": 6 }) else {
        unreachable!()
    };
    Response::ok(data)
}

/// What a server made of what it was sent.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Waits,
    Done,
    Refused(Refusal),
}

/// Runs the server until it waits; answers what is asked and notes it in `asked`.
fn drive(server: &mut ServerSide, asked: &mut Vec<Result<Request, Unreadable>>) -> Outcome {
    loop {
        match server.advance() {
            Next::Read => return Outcome::Waits,
            Next::Unlock(unlock) => server.unlocked(unlock.run()),
            Next::Secured => {}
            Next::Request(request) => {
                asked.push(request);
                server.answer(&answer()).unwrap();
            }
            Next::Done => return Outcome::Done,
            Next::Refused(refusal) => return Outcome::Refused(refusal),
        }
    }
}

/// A whole exchange in pieces of `piece` bytes. Returns what the client got and what the server was asked.
fn converse(
    generation: Generation,
    piece: usize,
    request: &Value,
) -> (Response, Vec<Result<Request, Unreadable>>) {
    let mut server = ServerSide::new(server_keys());
    let mut client = ClientSide::new(pair(3072), generation, request, None);
    let mut asked = Vec::new();
    loop {
        if let Progress::Response(response) = client.advance().unwrap() {
            assert_eq!(drive(&mut server, &mut asked), Outcome::Done);
            assert_eq!(server.generation(), generation);
            assert_eq!(client.server_fingerprint(), Some(&*server_keys().fingerprint()));
            return (response, asked);
        }
        for bytes in client.take_output().chunks(piece) {
            server.feed(bytes);
            drive(&mut server, &mut asked);
        }
        let output = server.take_output();
        assert!(!output.is_empty(), "both sides wait");
        for bytes in output.chunks(piece) {
            client.feed(bytes);
            client.advance().unwrap();
        }
    }
}

#[test]
fn both_sides_understand_each_other_in_pieces_of_any_size() {
    for generation in [Generation::One, Generation::Three, Generation::Four] {
        for piece in [1, 2, 3, 7, 8, 15, 16, 17, 100, 511, 513, usize::MAX] {
            let (response, asked) = converse(generation, piece, &stat());
            assert_eq!(response, answer(), "{generation:?} {piece}");
            assert_eq!(asked, [Request::parse(stat().to_string().as_bytes())]);
        }
    }
}

#[test]
fn a_request_of_nearly_a_mebibyte_is_read_and_a_longer_one_is_not() {
    let long = |length| json!({ "verb": "ECHO", "parameters": { "text": "x".repeat(length) } });
    let (_, asked) = converse(Generation::Four, 4096, &long(1_000_000));
    assert_eq!(asked.len(), 1);
    let mut server = ServerSide::new(server_keys());
    let mut client = ClientSide::new(pair(2048), Generation::Four, &long(1 << 20), None);
    let mut outcome = Outcome::Waits;
    while outcome == Outcome::Waits {
        if client.advance().is_err() {
            break;
        }
        server.feed(&client.take_output());
        outcome = drive(&mut server, &mut Vec::new());
        client.feed(&server.take_output());
    }
    assert_eq!(outcome, Outcome::Refused(Refusal::Length("the request")));
}

#[derive(serde::Deserialize)]
struct Golden {
    generation: u8,
    client_bits: u32,
    first: String,
    session: String,
    following_iv: String,
    turns: Vec<String>,
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn golden() -> Vec<Golden> {
    let text = include_str!("../../../../testdata/containers/exchanges.json");
    serde_json::from_str(text).unwrap()
}

fn generation(golden: &Golden) -> Generation {
    match golden.generation {
        1 => Generation::One,
        3 => Generation::Three,
        _ => Generation::Four,
    }
}

/// The request of a foreign client is understood and answered in the bytes of a foreign server, when the one thing is
/// given that both make by chance: the AES key.
#[test]
fn the_server_speaks_as_another_implementation_does() {
    for golden in golden() {
        let mut server = ServerSide::new(pair(4096));
        let turns: Vec<Vec<u8>> = golden.turns.iter().map(|turn| bytes(turn)).collect();
        for (index, turn) in turns.iter().enumerate() {
            if index % 2 == 1 {
                let output = server.take_output();
                let is_answer = index == 13 && golden.generation != 1;
                // The last 16 bytes are an IV that nobody uses.
                let end = turn.len() - if is_answer { 16 } else { 0 };
                assert_eq!(output.len(), turn.len(), "turn {index}");
                assert_eq!(output[..end], turn[..end], "turn {index}");
                continue;
            }
            server.feed(turn);
            loop {
                match server.advance() {
                    Next::Unlock(unlock) => {
                        let made = unlock.run().unwrap();
                        assert_eq!(made.session.key_bytes(), bytes(&golden.first).len() - 16);
                        let session = Session::from_bytes(&bytes(&golden.session)).unwrap();
                        let block = turns[index + 1][1..].to_vec();
                        assert_eq!(made.block.len(), block.len());
                        server.unlocked(Ok(Unlocked { session, block }));
                    }
                    Next::Request(request) => {
                        assert_eq!(request.unwrap().to_json(), stat());
                        // In the order in which the other implementation writes.
                        let text = r#"{"success": true, "message": "OK", "data": {"version": "4.1.4", "uptime": 5, "available": 6}}"#;
                        server.answer_text(text).unwrap();
                    }
                    Next::Secured => {}
                    Next::Read => break,
                    Next::Done => {
                        assert_eq!(index, 12);
                        break;
                    }
                    Next::Refused(refusal) => panic!("{refusal}"),
                }
            }
        }
        assert_eq!(server.generation(), generation(&golden));
    }
}

/// The same for the client: what a foreign server sends is understood.
#[test]
fn the_client_understands_another_implementation() {
    for golden in golden() {
        let keys = pair(golden.client_bits);
        let mut client = ClientSide::new(keys, generation(&golden), &stat(), None);
        client.request = br#"{"verb": "STAT", "parameters": {}}"#.to_vec();
        let turns: Vec<Vec<u8>> = golden.turns.iter().map(|turn| bytes(turn)).collect();
        for (index, turn) in turns.iter().enumerate() {
            if index % 2 == 0 {
                let output = client.take_output();
                assert_eq!(output.len(), turn.len(), "turn {index}");
                continue;
            }
            client.feed(turn);
            let progress = client.advance().unwrap();
            if index == 7 && golden.generation != 1 {
                let iv = bytes(&golden.following_iv).try_into().unwrap();
                client.session.as_mut().unwrap().iv = iv;
            }
            if index == 13 {
                assert_eq!(progress, Progress::Response(answer()));
            }
        }
    }
}

#[test]
fn a_client_key_of_every_size_is_encrypted_to() {
    use rsa::pkcs8::{DecodePrivateKey, EncodePublicKey};
    for (bits, pem) in [
        (1024, include_str!("../../../../testdata/containers/private1024.pem")),
        (16384, include_str!("../../../../testdata/containers/private16384.pem")),
    ] {
        let private = rsa::RsaPrivateKey::from_pkcs8_pem(pem).unwrap();
        let pem = private.to_public_key().to_public_key_pem(rsa::pkcs8::LineEnding::LF).unwrap();
        let public = PublicKey::from_pem(pem.as_bytes()).unwrap();
        assert_eq!((public.bits(), public.bytes()), (bits, bits / 8));
        let sealed = public.encrypt(&[7; 48]).unwrap();
        assert_eq!(private.decrypt(rsa::Oaep::<sha2::Sha256>::new(), &sealed).unwrap(), [7; 48]);
    }
}

#[test]
fn keys_that_cannot_work_are_refused_at_once() {
    let refused: Value =
        serde_json::from_str(include_str!("../../../../testdata/containers/refused_keys.json"))
            .unwrap();
    let check = |pem: &[u8], expected: KeyError| {
        assert_eq!(PublicKey::from_pem(pem).unwrap_err(), expected);
        let mut server = ServerSide::new(server_keys());
        server.feed(&frame::header(pem.len()).unwrap());
        server.feed(pem);
        let outcome = drive(&mut server, &mut Vec::new());
        assert_eq!(outcome, Outcome::Refused(Refusal::Key(expected)));
        assert_eq!(server.take_output(), b"10");
    };
    let pem = |name: &str| refused[name].as_str().unwrap().as_bytes();
    check(pem("curve"), KeyError::NotRsa);
    check(pem("modulus_of_512_bits"), KeyError::Size { bits: 512 });
    check(pem("exponent_of_2000_bits"), KeyError::Exponent);
    check(pem("exponent_1"), KeyError::Exponent);
    check(pem("exponent_even"), KeyError::Exponent);
    check(b"no key", KeyError::NotPem);
    check(&[0xff; 300], KeyError::NotPem);
    let private = include_bytes!("../../../../testdata/containers/private2048.pem");
    check(private, KeyError::NotRsa);
    let public = pair(2048).public_pem().to_owned();
    check(public.replace("MIIB", "MIIC").as_bytes(), KeyError::NotPem);
}

#[test]
fn a_key_length_that_cannot_be_meant_is_refused_before_anything_is_kept() {
    for text in [
        "-1======",
        "0=======",
        "16385===",
        "99999999",
        "abcdefgh",
        "========",
        "1e15====",
        "10000000",
        "\0\0\0\0\0\0\0\0",
        " 800====",
    ] {
        let mut server = ServerSide::new(server_keys());
        server.feed(text.as_bytes());
        let outcome = drive(&mut server, &mut Vec::new());
        assert_eq!(outcome, Outcome::Refused(Refusal::Length("the public key")), "{text}");
        assert_eq!(server.take_output(), b"0", "{text}");
    }
}

/// A server that has exchanged keys with a client whose session the test knows.
fn secured() -> (ServerSide, Session) {
    let mut server = ServerSide::new(server_keys());
    let client = pair(2048);
    let pem = client.public_pem();
    server.feed(&frame::header(pem.len()).unwrap());
    server.feed(pem.as_bytes());
    server.feed(b"11");
    let server_key = PublicKey::from_pem(server_keys().public_pem().as_bytes()).unwrap();
    server.feed(&server_key.encrypt(&[1; 48]).unwrap());
    drive(&mut server, &mut Vec::new());
    let output = server.take_output();
    let session = client.decrypt(&output[output.len() - 256..]).unwrap();
    server.feed(b"1");
    drive(&mut server, &mut Vec::new());
    (server, Session::from_bytes(&session).unwrap())
}

#[test]
fn a_request_length_that_cannot_be_meant_is_refused_before_anything_is_kept() {
    let check = |message: &dyn Fn(&Session) -> Vec<u8>| {
        let (mut server, session) = secured();
        server.feed(&message(&session));
        let outcome = drive(&mut server, &mut Vec::new());
        assert_eq!(outcome, Outcome::Refused(Refusal::Length("the request")));
        assert_eq!(server.take_output(), b"0");
    };
    for text in ["0=======", "99999999", "15======", "17======", "1048592="] {
        check(&|_| text.as_bytes().to_vec());
    }
    for text in ["-1", "0", "16", "33", "1048592", "999999999999999", "", "abc"] {
        check(&|session| session.seal(text.as_bytes()));
    }
    check(&|_| vec![0xff; 16]);
}

#[test]
fn a_client_that_talks_out_of_turn_is_refused() {
    let (mut server, mut session) = secured();
    let sealed = packet::seal(&mut session, Generation::Four, stat().to_string().as_bytes());
    let packet::Sealed { length, packet } = sealed.unwrap();
    server.feed(&length);
    server.feed(&packet);
    assert!(matches!(server.advance(), Next::Request(Ok(_))));
    assert!(matches!(server.advance(), Next::Read));
    server.feed(&vec![b'1'; SURPLUS_BYTES_MAX + 1]);
    assert!(matches!(server.advance(), Next::Refused(Refusal::Surplus)));
}

#[test]
fn the_aes_key_in_force_is_fresh_for_each_connection() {
    let (_, first) = secured();
    let (_, second) = secured();
    assert_ne!(*first.to_bytes(), *second.to_bytes());
    assert_ne!(first.to_bytes()[..16], [1; 16]);
}

#[test]
fn a_block_that_is_no_aes_key_is_refused() {
    let key = PublicKey::from_pem(server_keys().public_pem().as_bytes()).unwrap();
    let blocks = [0, 16, 31, 47, 49, 64].map(|length| key.encrypt(&vec![1; length]).unwrap());
    for block in blocks.into_iter().chain([vec![0; 256], vec![0xff; 256]]) {
        let mut server = ServerSide::new(server_keys());
        let pem = server_keys().public_pem().to_owned();
        server.feed(&frame::header(pem.len()).unwrap());
        server.feed(pem.as_bytes());
        server.feed(b"11");
        server.feed(&block);
        let outcome = drive(&mut server, &mut Vec::new());
        assert_eq!(outcome, Outcome::Refused(Refusal::Block));
        assert_eq!(server.take_output().last(), Some(&b'0'));
    }
}

/// Whatever byte is damaged or missing, the server neither panics nor takes the request for another one.
#[test]
fn a_damaged_byte_anywhere_is_survived() {
    let golden = golden().into_iter().find(|golden| golden.generation == 4).unwrap();
    let turns: Vec<Vec<u8>> = golden.turns.iter().step_by(2).map(|turn| bytes(turn)).collect();
    let run = |turns: &[Vec<u8>]| {
        let mut server = ServerSide::new(pair_4096());
        let mut asked = Vec::new();
        for turn in turns {
            server.feed(turn);
            loop {
                match server.advance() {
                    Next::Unlock(unlock) => {
                        let outcome = unlock_cheaply(*unlock, &golden);
                        server.unlocked(outcome);
                    }
                    Next::Request(request) => {
                        asked.push(request);
                        server.answer(&answer()).unwrap();
                    }
                    Next::Secured => {}
                    Next::Read | Next::Done | Next::Refused(_) => break,
                }
            }
        }
        asked
    };
    assert_eq!(run(&turns), [Request::parse(stat().to_string().as_bytes())]);
    for turn in 0..turns.len() {
        for at in 0..turns[turn].len() {
            for bit in [0, 7] {
                let mut damaged = turns.clone();
                damaged[turn][at] ^= 1 << bit;
                assert!(run(&damaged).len() <= 1, "turn {turn} byte {at}");
                damaged[turn].truncate(at);
                assert!(run(&damaged).len() <= 1, "turn {turn} cut at {at}");
            }
        }
    }
}

fn pair_4096() -> Arc<KeyPair> {
    static KEYS: OnceLock<Arc<KeyPair>> = OnceLock::new();
    Arc::clone(KEYS.get_or_init(|| pair(4096)))
}

/// RSA by comparison: the block is the known one or it is wrong. Thousands of real operations would take minutes.
fn unlock_cheaply(unlock: Unlock, golden: &Golden) -> Result<Unlocked, Refusal> {
    if unlock.block != bytes(&golden.turns[6])[1..] {
        return Err(Refusal::Block);
    }
    let session = Session::from_bytes(&bytes(&golden.session)).unwrap();
    Ok(Unlocked { session, block: bytes(&golden.turns[7])[1..].to_vec() })
}

/// Bytes by chance at every step; a small generator of its own, so that a failure can be repeated.
#[test]
fn noise_is_survived_at_every_step() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = move |length: usize| -> Vec<u8> {
        (0..length)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed.to_le_bytes()[3]
            })
            .collect()
    };
    for round in 0..40 {
        let mut server = ServerSide::new(server_keys());
        server.feed(&noise(round * 3));
        drive(&mut server, &mut Vec::new());
        let (mut server, mut session) = secured();
        if round % 2 == 0 {
            server.feed(&noise(16 + round));
            drive(&mut server, &mut Vec::new());
        } else {
            let blocks = 2 + round % 5;
            server.feed(&session.seal((blocks * 16).to_string().as_bytes()));
            let packet = noise(blocks * 16);
            server.feed(&packet);
            let mut asked = Vec::new();
            drive(&mut server, &mut asked);
            assert!(matches!(asked[..], [Err(Unreadable::NotAnObject)]));
            // The answer is readable all the same: under the old IV, as nothing was taken over; but noise decrypts by
            // chance once in 256, and then what it brought is the IV.
            let _ = packet::open_with_iv(&mut session, &packet);
            let output = server.take_output();
            let length = packet::sealed_number(&session, &output[1..17]).unwrap();
            server.feed(b"1");
            assert_eq!(drive(&mut server, &mut Vec::new()), Outcome::Done);
            let packet = server.take_output();
            assert_eq!(packet.len() as u64, length);
            let plain = packet::open_with_iv(&mut session, &packet).unwrap();
            assert_eq!(Response::parse(&plain), Some(answer()));
        }
    }
}

#[test]
fn a_server_with_another_key_than_expected_is_left() {
    let expected = fingerprint(b"another");
    let mut client = ClientSide::new(pair(2048), Generation::Four, &stat(), Some(expected));
    let mut server = ServerSide::new(server_keys());
    let refusal = loop {
        if let Err(refusal) = client.advance() {
            break refusal;
        }
        server.feed(&client.take_output());
        drive(&mut server, &mut Vec::new());
        client.feed(&server.take_output());
    };
    assert_eq!(refusal, Refusal::Stranger);
}

#[test]
fn the_documented_fingerprint_is_that_of_the_pem() {
    // `sha256sum` of the file that `openssl rsa -pubout` writes.
    let expected = "6995119e2782b8988474c29ebac4cbef32cbbc4bee476560ffaa80f047abe1f9";
    assert_eq!(pair(4096).fingerprint(), expected);
    assert_eq!(pair(4096).public_pem().len(), 800);
}
