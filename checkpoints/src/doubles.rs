//! Doubles of the clouds' object stores: small servers in this process that speak just the requests that we send.
//!
//! For tests of this crate, and of others by the feature `doubles`. A double is strict: a method, parameter or header that it does
//! not know is answered with 501 and remembered, so that no test passes by what a real service would have done otherwise.
//!
//! | file | |
//! |---|---|
//! | `doubles.rs` | the server, its objects, faults; ranges, pages and uploads in parts, which are alike everywhere |
//! | `doubles/aws.rs` | S3 |
//! | `doubles/google.rs` | Google Cloud Storage, by its XML API |
//! | `doubles/azure.rs` | Azure Blob Storage |

mod aws;
mod azure;
mod google;

use crate::{OpenOptions, SnapshotStore};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Objects in one page of a listing: few, so that tests have several pages.
const PAGE: usize = 3;

/// The largest body of a request.
const BODY_BYTES_MAX: usize = 1 << 30;

const BUCKET: &str = "bucket";

/// Whose service a double is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// S3.
    Aws,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl Cloud {
    /// All there are.
    pub const ALL: [Cloud; 3] = [Cloud::Aws, Cloud::Google, Cloud::Azure];
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens, and the answer is 503.
    Unavailable,
    /// It happens, and the answer is 503 all the same.
    AppliedThenUnavailable,
    /// Nothing happens, and the answer is 403.
    Forbidden,
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Double {
    cloud: Cloud,
    address: SocketAddr,
    contents: Arc<Mutex<Contents>>,
    _stop: oneshot::Sender<()>,
}

/// What a double keeps.
#[derive(Debug, Default)]
struct Contents {
    objects: BTreeMap<String, Object>,
    /// Uploads in parts by their id; for Azure, by the object's name.
    uploads: BTreeMap<String, Upload>,
    /// The number of the next object, part or upload.
    next: u64,
    faults: VecDeque<(Method, String, Fault)>,
    is_away: bool,
    ignores_conditions: bool,
    odd: Vec<String>,
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    /// Its ETag and generation.
    number: u64,
}

#[derive(Debug, Default)]
struct Upload {
    name: String,
    /// By the part's number or the block's id: its ETag and content.
    parts: BTreeMap<String, (String, Bytes)>,
}

impl Double {
    /// Starts one on a free port of the loopback interface.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(cloud: Cloud) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket for tokio");
        let address = listener.local_addr().expect("an address");
        let contents = Arc::new(Mutex::new(Contents::default()));
        let (stop, stopped) = oneshot::channel::<()>();
        let state = (cloud, Arc::clone(&contents));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let router = axum::Router::new().fallback(handle).with_state(state);
                tokio::select! {
                    served = axum::serve(listener, router) => served.expect("connections"),
                    _ = stopped => {}
                }
            });
        });
        Self {
            cloud,
            address,
            contents,
            _stop: stop,
        }
    }

    /// The URL of a place in it.
    pub fn url(&self, prefix: &str) -> String {
        let scheme = match self.cloud {
            Cloud::Aws => "s3",
            Cloud::Google => "gs",
            Cloud::Azure => "az",
        };
        format!("{scheme}://{BUCKET}/{}", prefix.replace(' ', "%20"))
    }

    /// The environment variables that lead to it.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let server = format!("http://{}", self.address);
        let variables = match self.cloud {
            Cloud::Aws => vec![
                ("AWS_ENDPOINT_URL", server.as_str()),
                ("AWS_ALLOW_HTTP", "true"),
                ("AWS_REGION", "eu-west-1"),
                ("AWS_ACCESS_KEY_ID", aws::KEY_ID),
                ("AWS_SECRET_ACCESS_KEY", "secret"),
            ],
            Cloud::Google => vec![
                ("GOOGLE_BASE_URL", server.as_str()),
                ("GOOGLE_ALLOW_HTTP", "true"),
                ("GOOGLE_BEARER_TOKEN", google::TOKEN),
            ],
            Cloud::Azure => vec![
                ("AZURE_STORAGE_ENDPOINT", server.as_str()),
                ("AZURE_ALLOW_HTTP", "true"),
                ("AZURE_STORAGE_ACCOUNT_NAME", azure::ACCOUNT),
                ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0"),
            ],
        };
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        variables.into_iter().map(owned).collect()
    }

    /// Opens a place in it.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub fn store(&self, prefix: &str) -> SnapshotStore {
        let options = OpenOptions {
            environment: self.environment(),
            ..OpenOptions::from_process()
        };
        SnapshotStore::open_with(&self.url(prefix), options).expect("a store")
    }

    /// The objects, by name.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        let contents = self.contents();
        let objects = contents.objects.iter();
        objects
            .map(|(name, object)| (name.clone(), object.bytes.clone()))
            .collect()
    }

    /// Replaces an object, or removes it, behind everybody's back.
    pub fn tamper(&self, name: &str, bytes: Option<Bytes>) {
        let mut contents = self.contents();
        match bytes {
            Some(bytes) => contents.put(name, bytes),
            None => drop(contents.objects.remove(name)),
        }
    }

    /// How many uploads in parts have begun and not ended.
    pub fn uploads(&self) -> usize {
        self.contents().uploads.len()
    }

    /// The requests that it did not understand.
    pub fn odd(&self) -> Vec<String> {
        self.contents().odd.clone()
    }

    /// Lets the next request of a method go wrong whose path contains `part`. Several wait for each other.
    pub fn fail_next(&self, method: &str, part: &str, fault: Fault) {
        let method = method.parse().expect("a method");
        self.contents().faults.push_back((method, part.to_owned(), fault));
    }

    /// Answers everything with 503, until it is told otherwise.
    pub fn set_away(&self, is_away: bool) {
        self.contents().is_away = is_away;
    }

    /// Makes it one of those servers that do not know the condition of a PUT and replace what is there.
    pub fn ignore_conditions(&self) {
        self.contents().ignores_conditions = true;
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Answer = Response<Body>;

/// A request. What is looked at is taken out of it; what is left in the end was not understood.
struct Asked {
    method: Method,
    /// The object's name; none for requests of the whole bucket.
    name: Option<String>,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
    body: Bytes,
}

impl Asked {
    async fn of(request: Request) -> Option<Self> {
        let (parts, body) = request.into_parts();
        let path = decoded(parts.uri.path().strip_prefix('/')?)?;
        let name = match path.strip_prefix(BUCKET)? {
            "" | "/" => None,
            name => Some(name.strip_prefix('/')?.to_owned()),
        };
        let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        Some(Self {
            method: parts.method,
            name,
            query: query.into_owned().collect(),
            headers: parts.headers,
            body: to_bytes(body, BODY_BYTES_MAX).await.ok()?,
        })
    }

    fn header(&mut self, name: &str) -> Option<String> {
        Some(self.headers.remove(name)?.to_str().ok()?.to_owned())
    }

    fn parameter(&mut self, name: &str) -> Option<String> {
        self.query.remove(name)
    }

    /// What a service would have acted upon, and we did not.
    fn rest(&self) -> Vec<String> {
        let acted_upon = ["x-", "if-", "range", "content-encoding", "expect", "transfer-encoding"];
        let headers = self.headers.keys().map(|name| name.as_str().to_owned());
        let headers = headers.filter(|name| acted_upon.iter().any(|start| name.starts_with(start)));
        headers.chain(self.query.keys().cloned()).collect()
    }
}

async fn handle(State((cloud, contents)): State<(Cloud, Arc<Mutex<Contents>>)>, request: Request) -> Answer {
    let shown = format!("{} {}", request.method(), request.uri());
    let Some(mut asked) = Asked::of(request).await else {
        contents.lock().unwrap_or_else(PoisonError::into_inner).odd.push(shown);
        return status(StatusCode::NOT_IMPLEMENTED);
    };
    let mut contents = contents.lock().unwrap_or_else(PoisonError::into_inner);
    let fault = contents.fault(&asked.method, &shown);
    match fault {
        Some(Fault::Unavailable) => return status(StatusCode::SERVICE_UNAVAILABLE),
        Some(Fault::Forbidden) => return status(StatusCode::FORBIDDEN),
        Some(Fault::AppliedThenUnavailable) | None => {}
    }
    let answer = match cloud {
        Cloud::Aws => aws::answer(&mut contents, &mut asked),
        Cloud::Google => google::answer(&mut contents, &mut asked),
        Cloud::Azure => azure::answer(&mut contents, &mut asked),
    };
    let answer = answer.filter(|answer| answer.status().is_client_error() || asked.rest().is_empty());
    let Some(answer) = answer else {
        let odd = format!("{shown}: {:?}", asked.rest());
        contents.odd.push(odd.clone());
        let mut answer = Response::new(Body::from(odd));
        *answer.status_mut() = StatusCode::NOT_IMPLEMENTED;
        return answer;
    };
    if fault.is_some() {
        return status(StatusCode::SERVICE_UNAVAILABLE);
    }
    answer
}

impl Contents {
    fn fault(&mut self, method: &Method, shown: &str) -> Option<Fault> {
        if self.is_away {
            return Some(Fault::Unavailable);
        }
        let (next, part, fault) = self.faults.front()?;
        let hit = (next == method && shown.contains(part.as_str())).then_some(*fault);
        if hit.is_some() {
            self.faults.pop_front();
        }
        hit
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whether an object stands in the way of one that is to be created.
    fn has(&self, name: &str) -> bool {
        self.objects.contains_key(name) && !self.ignores_conditions
    }

    fn put(&mut self, name: &str, bytes: Bytes) {
        let number = self.number();
        self.objects.insert(name.to_owned(), Object { bytes, number });
    }

    /// A whole object or a range of it, or what is known of it.
    fn read(&self, asked: &mut Asked) -> Option<Answer> {
        let object = match self.objects.get(asked.name.as_deref()?) {
            Some(object) => object.clone(),
            None => return Some(status(StatusCode::NOT_FOUND)),
        };
        let size = object.bytes.len();
        let answer = Response::builder()
            .header("etag", format!("\"{}\"", object.number))
            .header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT");
        let range = asked.header("range");
        if asked.method == Method::HEAD {
            let answer = answer.header("content-length", size);
            return range.is_none().then(|| answer.body(Body::empty()).ok())?;
        }
        let Some(range) = range else {
            return answer.body(object.bytes.into()).ok();
        };
        let (start, end) = range.strip_prefix("bytes=")?.split_once('-')?;
        let (start, end): (usize, usize) = (start.parse().ok()?, end.parse().ok()?);
        if start >= size {
            return Some(status(StatusCode::RANGE_NOT_SATISFIABLE));
        }
        let end = end.min(size - 1);
        answer
            .status(StatusCode::PARTIAL_CONTENT)
            .header("content-range", format!("bytes {start}-{end}/{size}"))
            .body(object.bytes.slice(start..=end).into())
            .ok()
    }

    /// One page of names after `after`, with each object's length and ETag, and the last name when there are more.
    fn page(&self, prefix: &str, after: &str) -> (Vec<(String, usize, u64)>, Option<String>) {
        let found = self.objects.iter();
        let mut found = found.filter(|(name, _)| name.starts_with(prefix) && name.as_str() > after);
        let page: Vec<_> = (&mut found)
            .take(PAGE)
            .map(|(name, object)| (name.clone(), object.bytes.len(), object.number))
            .collect();
        let last = page
            .last()
            .map(|(name, ..)| name.clone())
            .filter(|_| found.next().is_some());
        (page, last)
    }

    /// A page as S3 and Google write it.
    fn list(&self, asked: &mut Asked) -> Option<Answer> {
        (asked.parameter("list-type")? == "2").then_some(())?;
        let prefix = asked.parameter("prefix").unwrap_or_default();
        let after = asked.parameter("continuation-token").or(asked.parameter("start-after"));
        let (page, last) = self.page(&prefix, &after.unwrap_or_default());
        let entries: String = page
            .iter()
            .map(|(name, size, number)| {
                format!(
                    "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                     <ETag>&quot;{number}&quot;</ETag><Size>{size}</Size></Contents>",
                    escaped(name)
                )
            })
            .collect();
        let next = last.map(|name| format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(&name)));
        let next = next.unwrap_or_default();
        xml(&format!("<ListBucketResult>{entries}{next}</ListBucketResult>"))
    }

    /// The steps of an upload in parts, as S3 and Google have them; none when the request is no such step.
    fn upload_step(&mut self, asked: &mut Asked) -> Option<Answer> {
        let name = asked.name.clone()?;
        if asked.method == Method::POST && asked.parameter("uploads").is_some() {
            let id = format!("upload-{}", self.number());
            let parts = BTreeMap::new();
            self.uploads.insert(id.clone(), Upload { name, parts });
            return xml(&format!(
                "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            ));
        }
        let id = asked.parameter("uploadId")?;
        let number = self.number();
        let Some(upload) = self.uploads.get_mut(&id).filter(|upload| upload.name == name) else {
            return Some(status(StatusCode::NOT_FOUND));
        };
        match asked.method {
            Method::PUT => {
                let part: u32 = asked.parameter("partNumber")?.parse().ok()?;
                let etag = format!("\"{number}\"");
                let content = (etag.clone(), asked.body.clone());
                upload.parts.insert(format!("{part:05}"), content);
                Response::builder().header("etag", etag).body(Body::empty()).ok()
            }
            Method::POST => {
                let text = String::from_utf8(asked.body.to_vec()).ok()?;
                let told: Vec<String> = elements(&text, "ETag");
                let parts: Vec<&(String, Bytes)> = upload.parts.values().collect();
                // No part may be missing or exchanged, and none but the last be small.
                let small = |(_, bytes): &&&(String, Bytes)| bytes.len() < 5 << 20;
                let is_whole = told.iter().eq(parts.iter().map(|(etag, _)| etag));
                if !is_whole || parts.iter().rev().skip(1).any(|part| small(&part)) {
                    return Some(status(StatusCode::BAD_REQUEST));
                }
                let bytes: Vec<Bytes> = parts.iter().map(|(_, bytes)| bytes.clone()).collect();
                self.uploads.remove(&id);
                self.put(&name, bytes.concat().into());
                xml("<CompleteMultipartUploadResult><ETag>&quot;1&quot;</ETag></CompleteMultipartUploadResult>")
            }
            Method::DELETE => {
                self.uploads.remove(&id);
                Some(status(StatusCode::NO_CONTENT))
            }
            _ => None,
        }
    }
}

fn status(status: StatusCode) -> Answer {
    let body = Body::from(format!("<Error><Code>{status}</Code></Error>"));
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}

fn xml(text: &str) -> Option<Answer> {
    let answer = Response::builder().header("content-type", "application/xml");
    answer.body(Body::from(format!("<?xml version=\"1.0\"?>{text}"))).ok()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The texts of all elements of a name.
fn elements(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let found = xml.split(open.as_str()).skip(1);
    let texts = found.filter_map(|rest| rest.split_once(close.as_str()));
    let plain = |text: &str| {
        let text = text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">");
        text.replace("&amp;", "&")
    };
    texts.map(|(text, _)| plain(text)).collect()
}

/// A path without its percent signs.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail.get(2..)?;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}
