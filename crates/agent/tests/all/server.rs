//! A server as the agent sees one: a few routes, whatever faults a test wants, and books of all that
//! was said.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything may take before a test has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self { status, headers: Vec::new(), body: body.to_string().into_bytes() }
    }
    pub(crate) fn bytes(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }
    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

/// What a test does instead of the usual answer.
type Script = Box<dyn Fn(&Request, &mut Books) -> Option<Answer> + Send + Sync>;

#[derive(Default)]
pub(crate) struct Books {
    pub(crate) requests: Vec<Request>,
    pub(crate) queue: VecDeque<(String, String, Value)>,
    pub(crate) results: BTreeMap<String, Value>,
    pub(crate) outputs: BTreeMap<String, Vec<u8>>,
    pub(crate) stopped: bool,
}

impl Books {
    pub(crate) fn count(&self, method: &str, path: &str) -> usize {
        self.requests.iter().filter(|r| r.method == method && r.path == path).count()
    }
}

struct Shared {
    books: Mutex<Books>,
    changed: Condvar,
    script: Script,
}

pub(crate) struct Server {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::scripted(|_, _| None)
    }

    pub(crate) fn scripted(
        script: impl Fn(&Request, &mut Books) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        Self::listening(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    pub(crate) fn listening(
        listener: TcpListener,
        script: impl Fn(&Request, &mut Books) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            books: Mutex::default(),
            changed: Condvar::new(),
            script: Box::new(script),
        });
        let server = Self { url, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.books().stopped {
                    return;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.serve(&stream.unwrap()));
            }
        });
        server
    }

    /// Queues a task.
    pub(crate) fn offer(&self, id: &str, claim: &str, body: Value) {
        self.change(|books| books.queue.push_back((id.into(), claim.into(), body)));
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Books) -> T) -> T {
        let changed = change(&mut self.shared.books());
        self.shared.changed.notify_all();
        changed
    }

    /// Waits until `look` sees something.
    pub(crate) fn wait<T>(&self, what: &str, look: impl Fn(&Books) -> Option<T>) -> T {
        let began = Instant::now();
        let mut books = self.shared.books();
        loop {
            if let Some(found) = look(&books) {
                return found;
            }
            assert!(began.elapsed() < LIMIT, "{what} did not come; asked: {:#?}", books.requests);
            books = self
                .shared
                .changed
                .wait_timeout(books, Duration::from_secs(1))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    pub(crate) fn result(&self, id: &str) -> Value {
        self.wait(&format!("the result of {id}"), |books| books.results.get(id).cloned())
    }

    /// Offers a task and waits for its result.
    pub(crate) fn ask(&self, id: &str, body: Value) -> Value {
        self.offer(id, "c", body);
        self.result(id)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.change(|books| books.stopped = true);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

impl Shared {
    /// A test that failed with the books in hand still ends its agent in order.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(request) = read(&mut reader) {
            let answer = self.answer(&request, stream);
            if self.books().stopped || write(stream, &answer).is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &Request, stream: &TcpStream) -> Answer {
        let mut books = self.books();
        books.requests.push(request.clone());
        let scripted = (self.script)(request, &mut books);
        self.changed.notify_all();
        if let Some(answer) = scripted {
            return answer;
        }
        let id = request.query.get("id").cloned().unwrap_or_default();
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/tasks") => {
                let count: usize = request.query["max"].parse().unwrap();
                let idle = |books: &mut Books| books.queue.is_empty() && !books.stopped;
                let wait = Duration::from_secs(2);
                let mut books = self
                    .changed
                    .wait_timeout_while(books, wait, idle)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                // Nothing is given to a poller that has hung up.
                let count = if has_hung_up(stream) { 0 } else { count.min(books.queue.len()) };
                let (mut events, mut claims) = (json!({}), json!({}));
                for (id, claim, body) in books.queue.drain(..count) {
                    claims[&id] = claim.into();
                    events[&id] = body;
                }
                let lease = &request.query["lease"].parse::<u64>().unwrap();
                let body =
                    json!({"error": false, "events": events, "claims": claims, "lease": lease});
                Answer::json(200, &body)
            }
            ("POST", "/tasks_result") => {
                books.results.entry(id).or_insert_with(|| request.json());
                Answer::bytes(200, "")
            }
            ("POST", "/tasks_output") => {
                let offset: usize = request.query["offset"].parse().unwrap();
                let kept = books.outputs.entry(id).or_default();
                if offset > kept.len() {
                    return Answer::json(409, &json!({"error": true, "next": kept.len()}));
                }
                let new = request.body.get(kept.len() - offset..).unwrap_or_default();
                kept.extend_from_slice(new);
                Answer::json(200, &json!({"error": false, "next": kept.len()}))
            }
            ("POST", "/tasks_lease") => Answer::json(200, &json!({"error": false, "lease": 3})),
            _ => Answer::json(404, &json!({"error": true, "msg": "Not found"})),
        }
    }
}

fn has_hung_up(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let hung_up = stream
        .peek(&mut [0])
        .map_or_else(|error| error.kind() != std::io::ErrorKind::WouldBlock, |count| count == 0);
    stream.set_nonblocking(false).unwrap();
    hung_up
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path: path.to_owned(), query, headers, body })
}

fn write(mut stream: &TcpStream, answer: &Answer) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Status\r\n", answer.status);
    head += &format!("content-length: {}\r\n", answer.body.len());
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&answer.body)
}
