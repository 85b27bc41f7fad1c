//! What the machine is and how it does: `/systeminfo` and `/systeminfo/<key>`.
//!
//! Invariant: a request never reads the system. Two tasks do, only while somebody asks, and leave the
//! finished JSON for requests to take; what a request gets is a second old at most.
//! Not here: what the numbers are (`systeminfo::reading`) and which packages wait (`upgrades`).

mod reading;
mod upgrades;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use self::reading::Reader;
use self::upgrades::Upgrades;
use crate::call::{Body, Call, CallError, Reply};

/// How old an answer may be.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// How often the system is read while somebody asks.
const READ_EVERY: Duration = Duration::from_millis(500);

/// How long after the last question the tasks go on.
const ASKED_WITHIN: Duration = Duration::from_secs(60);

/// How long the packages found hold.
const UPGRADES_FOR: Duration = Duration::from_secs(3600);

/// How long a request waits for the first reading, which takes a fifth of a second.
const READING_MAX: Duration = Duration::from_secs(5);

/// Answers `/systeminfo`. Its tasks end with it.
#[derive(Debug)]
pub struct SystemInfo {
    shared: Arc<Shared>,
    /// Ends the tasks when dropped.
    _tasks: JoinSet<()>,
}

/// What the tasks and the requests share.
#[derive(Debug)]
struct Shared {
    began: Instant,
    /// When somebody last asked, in milliseconds since `began`.
    asked: AtomicU64,
    /// Rung when somebody asks and there is nothing fresh.
    wake_reader: Notify,
    /// Rung with each reading.
    wake_upgrades: Notify,
    latest: watch::Sender<Option<Arc<Snapshot>>>,
    upgrades: ArcSwap<Upgrades>,
}

/// One reading, ready to be sent.
#[derive(Debug)]
struct Snapshot {
    at: Instant,
    all: Bytes,
    /// Each key's object, by the key.
    keys: Vec<(String, Bytes)>,
}

impl SystemInfo {
    /// The methods it answers; the door refuses the others.
    pub const METHODS: [Method; 3] = [Method::GET, Method::HEAD, Method::POST];

    /// Starts the tasks, which wait for the first question. Must be called within a tokio runtime.
    #[must_use]
    pub fn start() -> Self {
        Self::start_asking(upgrades::APT)
    }

    fn start_asking(apt: &'static [&'static str]) -> Self {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            asked: AtomicU64::new(0),
            wake_reader: Notify::new(),
            wake_upgrades: Notify::new(),
            latest: watch::Sender::new(None),
            upgrades: ArcSwap::from_pointee(Upgrades::default()),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_reading(Arc::clone(&shared)));
        tasks.spawn(keep_looking_for_upgrades(Arc::clone(&shared), apt));
        Self { shared, _tasks: tasks }
    }

    /// Answers with everything, or with the key named in the subpath; 404 for an unknown one.
    ///
    /// # Errors
    /// [`CallError::TimedOut`] when the system could not be read in time.
    pub async fn call(&self, call: &Call) -> Result<Reply, CallError> {
        let snapshot = self.shared.snapshot().await?;
        let key = call.subpath.as_deref().unwrap_or_default().trim_matches('/');
        let bytes = if key.is_empty() {
            Some(&snapshot.all)
        } else {
            snapshot.keys.iter().find(|(name, _)| name == key).map(|(_, bytes)| bytes)
        };
        let Some(bytes) = bytes else {
            let names: Vec<&str> = snapshot.keys.iter().map(|(name, _)| name.as_str()).collect();
            let message = format!("no such key; there are {}", names.join(", "));
            return Ok(Reply::json(StatusCode::NOT_FOUND, &json!({ "error": message })));
        };
        let json = HeaderValue::from_static("application/json");
        let mut reply = Reply::full(StatusCode::OK, json, bytes.clone());
        if call.method == Method::HEAD {
            reply.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            reply.body = Body::empty();
        }
        Ok(reply)
    }
}

impl Shared {
    fn now_millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The latest reading, or the next one if that is too old.
    async fn snapshot(&self) -> Result<Arc<Snapshot>, CallError> {
        self.asked.store(self.now_millis(), Ordering::Relaxed);
        if let Some(latest) = self.latest.borrow().as_ref()
            && latest.is_fresh()
        {
            return Ok(Arc::clone(latest));
        }
        // Subscribed before the bell: the reading that it starts cannot be missed.
        let mut latest = self.latest.subscribe();
        self.wake_reader.notify_one();
        let is_fresh = |latest: &Option<Arc<Snapshot>>| {
            latest.as_ref().is_some_and(|latest| latest.is_fresh())
        };
        match timeout(READING_MAX, latest.wait_for(is_fresh)).await {
            Ok(Ok(latest)) => latest.clone().ok_or(LATE),
            _ => Err(LATE),
        }
    }

    fn is_asked(&self) -> bool {
        let asked = self.asked.load(Ordering::Relaxed);
        Duration::from_millis(self.now_millis().saturating_sub(asked)) < ASKED_WITHIN
    }
}

const LATE: CallError = CallError::TimedOut { limit_secs: 5.0 };

impl Snapshot {
    fn new(values: Map<String, Value>) -> Self {
        let keys = values
            .iter()
            .map(|(key, value)| (key.clone(), Bytes::from(json!({ key: value }).to_string())))
            .collect();
        let all = Bytes::from(Value::Object(values).to_string());
        Self { at: Instant::now(), all, keys }
    }

    fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH_FOR
    }
}

/// Reads the system as long as somebody asks, then sleeps until somebody does again.
async fn keep_reading(shared: Arc<Shared>) {
    loop {
        shared.wake_reader.notified().await;
        // A new one each time: rates over the hours slept would say nothing.
        let Some(mut reader) = read(Reader::new).await else { continue };
        sleep(Reader::FIRST_RATES_AFTER).await;
        while shared.is_asked() {
            shared.wake_upgrades.notify_one();
            let upgrades = shared.upgrades.load_full();
            let reading = read(move || {
                let mut values = reader.read();
                values.insert("upgrades".to_owned(), upgrades.to_json());
                (reader, Snapshot::new(values))
            });
            let Some((kept, snapshot)) = reading.await else { break };
            reader = kept;
            shared.latest.send_replace(Some(Arc::new(snapshot)));
            sleep(READ_EVERY).await;
        }
    }
}

/// Reading may wait for a disk, so a thread that may block does it.
async fn read<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let worked = spawn_blocking(work).await;
    worked.inspect_err(|error| tracing::warn!(%error, "systeminfo: reading failed")).ok()
}

async fn keep_looking_for_upgrades(shared: Arc<Shared>, apt: &'static [&'static str]) {
    loop {
        shared.wake_upgrades.notified().await;
        // The bell may have been rung an hour ago.
        if !shared.is_asked() {
            continue;
        }
        let found = upgrades::look(apt).await;
        shared.upgrades.store(Arc::new(found));
        sleep(UPGRADES_FOR).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::HeaderMap;

    use super::*;

    async fn ask(info: &SystemInfo, method: Method, subpath: Option<&str>) -> (u16, Value) {
        let call = Call {
            method,
            uri: "/systeminfo".parse().unwrap(),
            subpath: subpath.map(str::to_owned),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            form: None,
            client_ip: IpAddr::from([127, 0, 0, 1]),
        };
        let reply = info.call(&call).await.unwrap();
        let Body::Full(bytes) = reply.body else { panic!("whole answers only") };
        let value = bytes.map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
        (reply.status.as_u16(), value)
    }

    const KEYS: [&str; 7] = ["cpu", "disk", "info", "net", "ram", "upgrades", "uptime"];

    #[tokio::test]
    async fn everything_is_answered_and_each_key_alone() {
        let info = SystemInfo::start_asking(&["printf", "Inst bash [1] (2)\n"]);
        for subpath in [None, Some("")] {
            let (status, all) = ask(&info, Method::GET, subpath).await;
            assert_eq!(status, 200);
            let mut keys: Vec<&str> = all.as_object().unwrap().keys().map(String::as_str).collect();
            keys.sort_unstable();
            assert_eq!(keys, KEYS);
        }
        for key in KEYS {
            let (status, one) = ask(&info, Method::POST, Some(key)).await;
            assert_eq!((status, one.as_object().unwrap().len()), (200, 1), "{key}");
            assert!(!one[key].is_null(), "{key}");
        }
    }

    #[tokio::test]
    async fn an_unknown_key_is_not_found() {
        let info = SystemInfo::start_asking(&["printf", "Inst bash [1] (2)\n"]);
        for key in ["nonsense", "CPU", "cpu/x", "../cpu"] {
            let (status, body) = ask(&info, Method::GET, Some(key)).await;
            assert_eq!(status, 404, "{key}");
            assert!(body["error"].as_str().unwrap().contains("uptime"));
        }
    }

    #[tokio::test]
    async fn a_head_sends_nothing() {
        let info = SystemInfo::start_asking(&["printf", "Inst bash [1] (2)\n"]);
        assert_eq!(ask(&info, Method::HEAD, None).await, (200, Value::Null));
    }

    #[tokio::test]
    async fn answers_in_the_same_second_are_the_same_bytes() {
        let info = SystemInfo::start_asking(&["printf", "Inst bash [1] (2)\n"]);
        let first = info.shared.snapshot().await.unwrap();
        let second = info.shared.snapshot().await.unwrap();
        assert_eq!(first.all.as_ptr(), second.all.as_ptr());
    }

    #[tokio::test]
    async fn somebody_who_asks_wakes_the_search_for_upgrades() {
        let info = SystemInfo::start_asking(&["printf", "Inst bash [1] (2)\n"]);
        ask(&info, Method::GET, None).await;
        let found = async {
            while !info.shared.upgrades.load().is_known() {
                ask(&info, Method::GET, Some("upgrades")).await;
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), found).await.unwrap();
        assert_eq!(info.shared.upgrades.load().to_json()["packages"], json!(["bash"]));
    }

    #[tokio::test]
    async fn nothing_is_read_before_somebody_asks() {
        let info = SystemInfo::start_asking(&["printf", "Inst bash [1] (2)\n"]);
        tokio::task::yield_now().await;
        assert!(info.shared.latest.borrow().is_none());
        assert!(!info.shared.upgrades.load().is_known());
    }
}
