//! What is done for each verb: the three documented ones, and whatever an embedding program adds.
//!
//! Invariant: a door translates. It makes an [`Action`] of a request and a documented text of what comes of it, and
//! decides nothing about machines.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::UNIX_EPOCH;

use machines::manager::Handover;
use machines::{Lent, MachineError, MachineId, Order};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use wire::Secret;
use wire::container::{
    Complaint, Create, Destroy, Errors, REQUEST_VERB_CREATE, REQUEST_VERB_DESTROY,
    REQUEST_VERB_STAT, Request, Response, is_verb,
};

use super::events::{Event, Teller};
use super::{Client, Later};

/// A request that keeps the rules, and whose it is.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who asks.
    pub client: Client,
    /// What is asked.
    pub request: Request,
    /// Tells of what happens meanwhile.
    pub teller: Teller,
}

impl Call {
    /// The answer for `complaint`, in the words that this client knows.
    #[must_use]
    pub fn refuse(&self, complaint: &Complaint<'_>) -> Response {
        Response::refuse(complaint, self.client.generation())
    }
}

type Run = Arc<dyn Fn(Call) -> Later<Response> + Send + Sync>;

/// Carries out requests of one verb.
#[derive(Clone)]
pub struct Handler {
    run: Run,
    /// Whether it is dropped when the client does not wait any more.
    ends_with_client: bool,
    /// How many may run at a time, together with whatever else takes its turn there.
    turns: Option<Arc<Semaphore>>,
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler").field("ends_with_client", &self.ends_with_client).finish()
    }
}

impl Handler {
    /// One that is run to its end, also when the client is gone meanwhile.
    pub fn new<F, R>(run: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        let run: Run = Arc::new(move |call| Box::pin(run(call)));
        Self { run, ends_with_client: false, turns: None }
    }

    /// One whose result nobody needs when the client is gone: its future is dropped then.
    pub fn while_client_waits<F, R>(run: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        Self { ends_with_client: true, ..Self::new(run) }
    }

    /// The same, run only when one of `turns` is free. For handlers that hold a thread.
    #[must_use]
    pub fn in_turn(self, turns: Arc<Semaphore>) -> Self {
        Self { turns: Some(turns), ..self }
    }

    pub(super) fn run_in_turn(&self, call: Call) -> Later<Response> {
        let Some(turns) = self.turns.clone() else { return self.run(call) };
        let this = self.clone();
        Box::pin(async move {
            // Nobody closes it.
            let _turn = turns.acquire().await;
            this.run(call).await
        })
    }

    /// Carries a request out at once: for who has a turn already.
    pub(crate) fn run(&self, call: Call) -> Later<Response> {
        (self.run)(call)
    }

    pub(crate) fn ends_with_client(&self) -> bool {
        self.ends_with_client
    }
}

/// The verbs that are known. Copies are the same list, which may change while the door is open.
#[derive(Debug, Clone, Default)]
pub struct Verbs(Arc<RwLock<HashMap<String, Handler>>>);

/// A text that cannot be a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a verb is 1 to 64 letters from A to Z")]
pub struct NotAVerb;

impl Verbs {
    /// STAT, CREATE and DESTROY, carried out by `act`.
    #[must_use]
    pub fn builtin(act: &Act) -> Self {
        let verbs = Self::default();
        let with = |run: fn(Act, Call) -> Later<Response>| {
            let act = Arc::clone(act);
            move |call| run(Arc::clone(&act), call)
        };
        let handlers = [
            (REQUEST_VERB_STAT, Handler::new(with(|act, call| Box::pin(stat(act, call))))),
            (
                REQUEST_VERB_CREATE,
                Handler::while_client_waits(with(|act, call| Box::pin(create(act, call)))),
            ),
            (REQUEST_VERB_DESTROY, Handler::new(with(|act, call| Box::pin(destroy(act, call))))),
        ];
        for (verb, handler) in handlers {
            verbs.write().insert(verb.to_owned(), handler);
        }
        verbs
    }

    /// Lets `handler` carry out requests of `verb` from now on, also in the place of a documented one.
    ///
    /// # Errors
    /// When it cannot be a verb.
    pub fn set(&self, verb: &str, handler: Handler) -> Result<(), NotAVerb> {
        if !is_verb(verb) {
            return Err(NotAVerb);
        }
        self.write().insert(verb.to_owned(), handler);
        Ok(())
    }

    /// Who carries out requests of `verb`.
    #[must_use]
    pub fn get(&self, verb: &str) -> Option<Handler> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(verb).cloned()
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, Handler>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the documented verbs ask for; closed, and the same for every door.
#[derive(Debug, Clone)]
pub enum Action {
    /// How is the server?
    Stat,
    /// A machine. Dropped while it is waited for, it leaves none behind.
    Create {
        /// What it is to be like.
        order: Box<Order>,
        /// Whose it is to be.
        client: Client,
        /// Tells of its endpoint.
        teller: Teller,
    },
    /// Take this machine back.
    Destroy {
        /// Which.
        id: MachineId,
        /// Proves that it is the client's.
        token: Secret,
        /// Who asks.
        client: Client,
    },
}

/// What came of it.
#[derive(Debug)]
pub enum Answer {
    /// How the server is.
    Stat {
        /// Seconds since it was started.
        uptime_secs: u64,
        /// Places that are free.
        available: u64,
    },
    /// The machine.
    Lent(Box<Lent>),
    /// It is gone.
    Destroyed,
}

impl Answer {
    /// What is to be kept until the client was told of it.
    #[must_use]
    pub fn handover(self) -> Option<Handover> {
        match self {
            Self::Lent(lent) => Some(lent.handover),
            Self::Stat { .. } | Self::Destroyed => None,
        }
    }
}

/// Carries out actions.
pub type Act = Arc<dyn Fn(Action) -> Later<Result<Answer, MachineError>> + Send + Sync>;

async fn stat(act: Act, call: Call) -> Response {
    answered(act(Action::Stat).await, &call).await
}

async fn create(act: Act, call: Call) -> Response {
    let wanted = match call.request.create() {
        Ok(wanted) => wanted,
        Err(errors) => return malformed(errors, &call).await,
    };
    let order = Box::new(order(wanted, call.client.owner()));
    let (client, teller) = (call.client.clone(), call.teller.clone());
    let outcome = act(Action::Create { order, client, teller }).await;
    if let Ok(Answer::Lent(lent)) = &outcome {
        let created = Event::Created { client: call.client.clone(), machine: lent.id };
        call.teller.tell(created).await;
    }
    answered(outcome, &call).await
}

async fn destroy(act: Act, call: Call) -> Response {
    let Destroy { uuid, token } = match call.request.destroy() {
        Ok(wanted) => wanted,
        Err(errors) => return malformed(errors, &call).await,
    };
    // A UUID that none of ours can be: the same answer as for one that is not there.
    let Ok(id) = uuid.parse() else {
        return call.refuse(&Complaint::BadCredentials);
    };
    let client = call.client.clone();
    let outcome = act(Action::Destroy { id, token, client }).await;
    if matches!(outcome, Ok(Answer::Destroyed)) {
        call.teller.tell(Event::Destroyed { client: call.client.clone(), machine: id }).await;
    }
    answered(outcome, &call).await
}

/// What is asked for, in the room's words.
#[must_use]
pub fn order(wanted: Create, owner: Option<&str>) -> Order {
    let Create { ttl, memory_mb, vcpus, image, ssh_public_key, labels } = wanted;
    let owner = owner.map(str::to_owned);
    Order { image, memory_mb, vcpus, ttl, ssh_public_key, labels, owner }
}

/// A rule of the verb's own is broken.
async fn malformed(errors: Errors, call: &Call) -> Response {
    let event = Event::MalformedRequest { client: call.client.clone(), errors: errors.clone() };
    call.teller.tell(event).await;
    call.client.take_answer().unwrap_or_else(|| call.refuse(&Complaint::Malformed(&errors)))
}

async fn answered(outcome: Result<Answer, MachineError>, call: &Call) -> Response {
    match outcome {
        Ok(answer) => {
            let response = Response::ok(data(&answer));
            if let Some(handover) = answer.handover() {
                call.client.is_to_know(handover);
            }
            response
        }
        Err(error) => refused(&error, call).await,
    }
}

/// What clients are sent, in the documented names.
#[must_use]
pub fn data(answer: &Answer) -> Map<String, Value> {
    let data = match answer {
        // All three as the clients of every generation want them.
        Answer::Stat { uptime_secs, available } => json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime": uptime_secs,
            "available": available,
        }),
        Answer::Lent(lent) => lent_data(lent),
        Answer::Destroyed => json!({}),
    };
    match data {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn lent_data(lent: &Lent) -> Value {
    let mut data = json!({
        "container_uuid": lent.id.to_string(),
        "client_token": lent.token.expose(),
        "container_iso_sha256": lent.image_sha256,
        "container_username": lent.username,
        "container_password": lent.password.expose(),
        "container_listen_port": lent.port,
    });
    if let Some(key) = &lent.host_key {
        data["container_host_key_fingerprint"] = key.fingerprint.as_str().into();
    }
    if let Some(time) = lent.expires_at.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
        data["expires_at"] = time.as_secs().into();
    }
    data
}

async fn refused(error: &MachineError, call: &Call) -> Response {
    tell_failure(&call.teller, &call.client, error).await;
    call.refuse(&complaint(error).0)
}

/// Tells of an error that is the server's own. A machine that ended because its session was ended is none.
pub(crate) async fn tell_failure(teller: &Teller, client: &Client, error: &MachineError) {
    let is_meant = matches!(error, MachineError::Ended(_)) && client.is_closed();
    if let (_, Some(class)) = complaint(error)
        && !is_meant
    {
        teller.fail(client, class, error.to_string()).await;
    }
}

/// What clients are told of an error, and of which kind it is where the server has failed.
#[must_use]
pub fn complaint(error: &MachineError) -> (Complaint<'_>, Option<&'static str>) {
    let complaint = match error {
        MachineError::NoCapacity { .. } => Complaint::NoPlace,
        MachineError::Quota { .. } => {
            Complaint::Unavailable("The maximum allowed amount of your containers has been reached")
        }
        MachineError::NoPort { .. } => Complaint::Unavailable("No port is free"),
        MachineError::Closing => Complaint::Unavailable("The server is stopping"),
        // One answer for both: a stranger must not learn which ids exist.
        MachineError::NotFound | MachineError::WrongToken => Complaint::BadCredentials,
        MachineError::Order(why) => Complaint::Bad(why),
        MachineError::Image { .. } => Complaint::Unavailable("The image cannot be used"),
        MachineError::Hypervisor(_)
        | MachineError::SetUp(_)
        | MachineError::Ended(_)
        | MachineError::Io { .. } => Complaint::Internal,
    };
    let class = match error {
        MachineError::Image { .. } => "Image",
        MachineError::Hypervisor(_) => "Hypervisor",
        MachineError::SetUp(_) => "SetUp",
        MachineError::Ended(_) => "Ended",
        MachineError::Io { .. } => "Io",
        MachineError::NoCapacity { .. }
        | MachineError::Quota { .. }
        | MachineError::NoPort { .. }
        | MachineError::Closing
        | MachineError::NotFound
        | MachineError::WrongToken
        | MachineError::Order(_) => return (complaint, None),
    };
    (complaint, Some(class))
}
