//! What the documented verbs do, with a word to the embedding program at each step.
//!
//! Invariant: a session that a handler has ended leaves no machine behind.

use std::sync::Arc;

use machines::manager::Pending;
use machines::{Lent, MachineError, MachineId, Machines, Order};
use wire::Secret;

use super::handlers::{Container, Occasion, Shared};
use super::{
    EVENT_CREATED_CONTAINER, EVENT_CREATED_ENDPOINT_SHELL, EVENT_DESTROYED_CONTAINER, EndpointShell,
};
use crate::tcp::{Act, Action, Answer, Client, Later};

/// Carries out what the documented verbs ask.
pub(super) fn act(shared: &Arc<Shared>) -> Act {
    let shared = Arc::clone(shared);
    Arc::new(move |action| -> Later<Result<Answer, MachineError>> {
        let shared = Arc::clone(&shared);
        Box::pin(async move { carry_out(&shared, action).await })
    })
}

async fn carry_out(shared: &Shared, action: Action) -> Result<Answer, MachineError> {
    let machines = machines(shared)?;
    Ok(match action {
        Action::Stat => {
            let stat = machines.stat();
            let available = u64::try_from(stat.available).unwrap_or(u64::MAX);
            Answer::Stat { uptime_secs: stat.uptime.as_secs(), available }
        }
        Action::Create { order, client, .. } => {
            Answer::Lent(Box::new(create(shared, *order, client).await?))
        }
        Action::Destroy { id, token, client } => {
            destroy(shared, id, &token, client).await?;
            Answer::Destroyed
        }
    })
}

/// Lends a machine. Dropped before its end, everything is undone.
pub(super) async fn create(
    shared: &Shared,
    order: Order,
    client: Client,
) -> Result<Lent, MachineError> {
    let machines = machines(shared)?;
    go_on(&client)?;
    let mut pending = machines.order(order).await?;
    pending.start().await?;
    let container = Container { uuid: pending.id(), summary: Some(pending.summary()?) };
    let occasion = Occasion {
        event: EVENT_CREATED_CONTAINER,
        client: Some(client.clone()),
        container: Some(container.clone()),
        ..Occasion::default()
    };
    shared.tell(occasion).await;
    go_on(&client)?;
    let is_wanted = shared.get(EVENT_CREATED_ENDPOINT_SHELL).is_some();
    if is_wanted {
        by_shell(shared, &mut pending, container, client).await?;
    } else {
        pending.set_up().await?;
    }
    pending.finish().await
}

/// Takes a machine back from who holds its token.
pub(super) async fn destroy(
    shared: &Shared,
    id: MachineId,
    token: &Secret,
    client: Client,
) -> Result<(), MachineError> {
    let machines = machines(shared)?;
    // As it was: afterwards nothing can be seen of it.
    let summary = machines.show(id).ok();
    machines.destroy(id, token).await?;
    let occasion = Occasion {
        event: EVENT_DESTROYED_CONTAINER,
        client: Some(client),
        container: Some(Container { uuid: id, summary }),
        ..Occasion::default()
    };
    shared.tell(occasion).await;
    Ok(())
}

fn machines(shared: &Shared) -> Result<Machines, MachineError> {
    shared.machines().ok_or(MachineError::Closing)
}

/// Sets a machine up by its endpoint's shell, which the program is shown first.
async fn by_shell(
    shared: &Shared,
    pending: &mut Pending,
    container: Container,
    client: Client,
) -> Result<(), MachineError> {
    let shell = EndpointShell::new(pending.open_shell().await?);
    let occasion = Occasion {
        event: EVENT_CREATED_ENDPOINT_SHELL,
        client: Some(client.clone()),
        container: Some(container),
        endpoint_shell: Some(shell.clone()),
        ..Occasion::default()
    };
    shared.tell(occasion).await;
    let Some(shell) = shell.take_back() else {
        client.close();
        return go_on(&client);
    };
    go_on(&client)?;
    if pending.has_agent() {
        // It knows what the shell's script does not: public keys.
        shell.close();
        pending.set_up().await
    } else {
        pending.set_up_by(shell).await
    }
}

fn go_on(client: &Client) -> Result<(), MachineError> {
    if client.is_closed() {
        return Err(MachineError::Ended("its client's session has ended".to_owned()));
    }
    Ok(())
}
