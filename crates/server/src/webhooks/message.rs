//! What a webhook is sent, and its signature. Pure.

use ::tasks::EventId;
use bytes::{BufMut, Bytes, BytesMut};
use ring::hmac;
use wire::Secret;

use crate::follow::Told;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// The event that it is about, by which whoever gets it twice knows it again.
    pub(super) id: EventId,
    /// JSON.
    pub(super) body: Bytes,
}

impl Message {
    /// The message that tells `told`.
    pub(super) fn of(told: &Told) -> Self {
        let quoted = |name: &str| serde_json::Value::from(name).to_string();
        let mut text = BytesMut::new();
        match told {
            Told::Event { id, agent, at, body } => {
                let (id, agent) = (id.0, quoted(agent));
                text.put_slice(
                    format!("{{\"id\":\"{id}\",\"agent\":{agent},\"at\":{at},\"event\":")
                        .as_bytes(),
                );
                text.put_slice(body);
                text.put_slice(b"}");
            }
            Told::Gap { agent, last } => {
                let (agent, before) = (quoted(agent), last.0 + 1);
                let gap = format!("{{\"gap\":{{\"agent\":{agent},\"before\":\"{before}\"}}}}");
                text.put_slice(gap.as_bytes());
            }
        }
        Self { id: told.id(), body: text.freeze() }
    }

    /// The signature of this message at the time `timestamp` (seconds since 1970), as its header has it.
    pub(super) fn signature(&self, secret: &Secret, timestamp: u64) -> String {
        use std::fmt::Write as _;
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(timestamp.to_string().as_bytes());
        context.update(b".");
        context.update(&self.body);
        let mut header = "sha256=".to_owned();
        for byte in context.sign().as_ref() {
            // Writing to memory does not fail.
            let _ = write!(header, "{byte:02x}");
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_json() {
        let check = |told: &Told, expected: &str| {
            let message = Message::of(told);
            assert_eq!(std::str::from_utf8(&message.body).unwrap(), expected);
            assert_eq!(message.id, EventId(9));
        };
        let event = Told::Event {
            id: EventId(9),
            agent: "a\"".into(),
            at: 5,
            body: Bytes::from_static(b"{\"n\":1.50,\"n\":12345678901234567890}"),
        };
        check(
            &event,
            r#"{"id":"9","agent":"a\"","at":5,"event":{"n":1.50,"n":12345678901234567890}}"#,
        );
        let gap = Told::Gap { agent: "a".into(), last: EventId(9) };
        check(&gap, r#"{"gap":{"agent":"a","before":"10"}}"#);
    }

    #[test]
    fn the_signature_is_that_of_another_program() {
        // printf '%s' '1700000000.{"gap":{"agent":"a","before":"10"}}' | openssl dgst -sha256 -hmac shared
        let message = Message::of(&Told::Gap { agent: "a".into(), last: EventId(9) });
        let signature = message.signature(&Secret::new("shared"), 1_700_000_000);
        assert_eq!(
            signature,
            "sha256=2385f0c9f6abfb7d2a995f1e75c0dcbf060a941b688aea3b57ae96c5a5cc8d48"
        );
    }
}
