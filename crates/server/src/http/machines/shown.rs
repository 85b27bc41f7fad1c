//! Machines and images as JSON.

use std::time::SystemTime;

use machines::image::Listed;
use machines::{Lent, Summary};
use serde_json::{Value, json};

/// A moment, as in `2026-11-22T10:00:00Z`.
pub(super) fn moment(time: SystemTime) -> Value {
    let moment = jiff::Timestamp::try_from(time).ok();
    let whole = moment.and_then(|it| jiff::Timestamp::from_second(it.as_second()).ok());
    whole.map_or(Value::Null, |moment| moment.to_string().into())
}

/// What can be seen of a machine.
pub(super) fn machine(it: &Summary) -> Value {
    json!({
        "id": it.id.to_string(),
        "state": it.state,
        "image": it.image,
        "memory": it.memory_mb,
        "vcpus": it.vcpus,
        "port": it.port,
        "username": it.username,
        "host_key": it.host_key.as_ref().and_then(|key| key.public.as_ref()),
        "host_key_fingerprint": it.host_key.as_ref().map(|key| &key.fingerprint),
        "owner": it.owner,
        "labels": it.labels,
        "created_at": moment(it.created_at),
        "expires_at": it.expires_at.map(moment),
    })
}

/// What is told once, to who asked for the machine.
pub(super) fn lent(lent: &Lent, summary: &Summary, host: &str, gateway: Option<u16>) -> Value {
    json!({
        "machine": machine(summary),
        "token": lent.token.expose(),
        "username": lent.username,
        "password": lent.password.expose(),
        "host": host,
        "port": lent.port,
        "image_sha256": lent.image_sha256,
        "gateway_port": gateway,
    })
}

/// An image that machines can be started from, or why they cannot.
pub(super) fn image(image: &Listed, default: &str) -> Value {
    json!({
        "name": image.name,
        "kind": image.kind,
        "description": image.description,
        "bytes": image.bytes,
        "problem": image.problem,
        "is_default": image.name == default,
    })
}
