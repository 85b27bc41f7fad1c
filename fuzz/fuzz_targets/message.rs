//! Requests of a client whose keys are exchanged: any plain text well encrypted, or any bytes at all.
#![no_main]

use wire::container::{
    Complaint, Generation, Next, REQUEST_BYTES_MAX, Request, Response, ServerSide, Unreadable,
    fuzzing,
};

const KEY_AND_IV: [u8; 48] = [7; 48];
/// A request as packet, as plain text and as a tree of values, each of which may grow to twice of what it holds.
const MEMORY_BYTES: usize = 64 * REQUEST_BYTES_MAX as usize;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let generation = match kind % 4 {
        0 => Generation::One,
        1 => Generation::Three,
        2 => Generation::Four,
        _ => return as_they_are(rest),
    };
    let server = secured();
    fuzz::within_memory(MEMORY_BYTES, || encrypted(server, generation, rest));
});

fn secured() -> ServerSide {
    fuzzing::secured(fuzz::keys(), &KEY_AND_IV).expect("48 bytes are a key")
}

/// Any bytes where a length and a packet are expected.
fn as_they_are(bytes: &[u8]) {
    let mut server = secured();
    fuzz::within_memory(MEMORY_BYTES, || {
        server.feed(b"1");
        for piece in fuzz::pieces(bytes) {
            server.feed(piece);
            for _ in 0..16 {
                match server.advance() {
                    Next::Read => break,
                    Next::Secured => {}
                    Next::Request(request) => answer(&mut server, request),
                    Next::Done | Next::Refused(_) => return,
                    Next::Unlock(_) => panic!("the keys were exchanged before"),
                }
            }
        }
    });
}

/// A client that keeps to the protocol and says `plain`.
fn encrypted(mut server: ServerSide, generation: Generation, plain: &[u8]) {
    let (length, packet) = fuzzing::seal(&KEY_AND_IV, generation, plain).expect("a short text");
    server.feed(b"1");
    assert!(matches!(server.advance(), Next::Secured));
    server.feed(&length);
    let more = server.advance();
    if packet.len() as u64 > REQUEST_BYTES_MAX {
        return assert!(matches!(more, Next::Refused(_)));
    }
    assert!(matches!(more, Next::Read));
    server.feed(&packet);
    let Next::Request(request) = server.advance() else { panic!("the request was not seen") };
    // What is no request may look like another generation's.
    let expected = Request::parse(plain);
    if expected.is_ok() {
        assert_eq!((&request, server.generation()), (&expected, generation));
    }
    answer(&mut server, request);
    assert!(matches!(server.advance(), Next::Read));
    server.feed(b"1");
    assert!(matches!(server.advance(), Next::Done));
}

fn answer(server: &mut ServerSide, request: Result<Request, Unreadable>) {
    let response = match request {
        Ok(request) => {
            // Numbers may lose a digit on the way.
            assert!(Request::parse(request.to_json().to_string().as_bytes()).is_ok());
            let _ = (request.access_token(), request.destroy());
            match request.create() {
                Ok(_) => Response::ok(request.parameters),
                Err(errors) => {
                    Response::refuse(&Complaint::Malformed(&errors), server.generation())
                }
            }
        }
        Err(Unreadable::Malformed(errors)) => {
            Response::refuse(&Complaint::Malformed(&errors), server.generation())
        }
        Err(Unreadable::NotAnObject) => Response::refuse(&Complaint::Internal, server.generation()),
    };
    server.answer(&response).expect("an answer that is not much longer than the request");
}
