//! The server: from a request to an answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::answer::{self, error};
use crate::auth::{self, Credentials, Verdict};
use crate::backend::{Backend, Connection, Work};
use crate::counters::{Asked, Counters};
use crate::directory::Directory;
use crate::faults::{Effect, On, Switches};
use crate::json::{self, Members};
use crate::links::{self, Links};
use crate::list::{self, Paging};
use crate::route::{Route, route};

/// Settings that stay as they are while the server runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Path before `/udm/`; `/univention` in Kubernetes, nothing in older installations.
    pub prefix: String,
    /// Credentials at the start.
    pub credentials: Credentials,
    /// Processes that serve; connections take turns with them.
    pub backends: usize,
    /// Objects that a process reads at the same time; more have to wait (UDM: 35 threads).
    pub workers: usize,
    /// Time for which a list of whole objects blocks everything, for each object.
    pub opened_per_object: Duration,
    /// Lists of whole objects that take longer are given up with 503 by the gateway (UDM: 310 s).
    pub response_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            prefix: "/univention".to_owned(),
            credentials: Credentials::default(),
            backends: 1,
            workers: 35,
            opened_per_object: Duration::from_millis(4),
            response_timeout: Duration::from_secs(310),
        }
    }
}

pub(crate) struct App {
    pub(crate) directory: Directory,
    pub(crate) switches: Switches,
    pub(crate) counters: Counters,
    pub(crate) credentials: Mutex<Credentials>,
    prefix: String,
    opened_per_object: Duration,
    response_timeout: Duration,
    backends: Vec<Backend>,
    paging: Paging,
    /// Ends what hangs.
    end: CancellationToken,
}

impl App {
    pub(crate) fn new(
        settings: Settings,
        directory: Directory,
        switches: Switches,
        end: CancellationToken,
    ) -> Self {
        Self {
            directory,
            switches,
            counters: Counters::default(),
            credentials: Mutex::new(settings.credentials),
            prefix: settings.prefix.trim_end_matches('/').to_owned(),
            opened_per_object: settings.opened_per_object,
            response_timeout: settings.response_timeout,
            backends: (0..settings.backends.max(1)).map(|_| Backend::new(settings.workers)).collect(),
            paging: Paging::default(),
            end,
        }
    }
}

/// All routes: UDM's below its prefix, and `/control`.
pub(crate) fn router(app: Arc<App>) -> Router {
    crate::control::router().fallback(serve).with_state(app)
}

async fn serve(State(app): State<Arc<App>>, request: Request) -> Response<Body> {
    let connection = request.extensions().get().map_or(0, |ConnectInfo(Connection(number))| *number);
    let (request, _) = request.into_parts();
    let backend = &app.backends[connection % app.backends.len()];
    app.counters.remember(Asked {
        method: request.method.to_string(),
        target: request.uri.to_string(),
        headers: request.headers.iter().map(|(name, value)| (name.to_string(), shown(name, value))).collect(),
    });
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let query = request.uri.query();
    let mut answer = match request.uri.path().strip_prefix(&app.prefix) {
        None => error(404, "no such path", target),
        Some(path) => {
            Asking { app: &app, backend, headers: &request.headers, target, query, path }
                .answer(&request.method)
                .await
        }
    };
    if let Some(id) = request.headers.get("x-request-id").filter(|id| is_request_id(id)) {
        answer.headers_mut().insert("x-request-id", id.clone());
    }
    let vary = HeaderValue::from_static("Accept, Accept-Language, Accept-Encoding, Authorization");
    answer.headers_mut().insert(header::VARY, vary);
    app.counters.count(|numbers| *numbers.statuses.entry(answer.status().as_u16()).or_default() += 1);
    answer
}

/// A header's value for tests to look at; of credentials only the scheme.
fn shown(name: &header::HeaderName, value: &HeaderValue) -> String {
    let value = value.to_str().unwrap_or("?");
    let credentials = name == header::AUTHORIZATION;
    if credentials { value.split(' ').next().unwrap_or("").to_owned() } else { value.to_owned() }
}

fn is_request_id(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (1..=36).contains(&bytes.len()) && bytes.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-')
}

/// What UDM says of an entry whose values it can't map.
const BROKEN: &str = "invalid literal for int() with base 16: b'zz'";

/// One request.
struct Asking<'a> {
    app: &'a App,
    backend: &'a Backend,
    headers: &'a HeaderMap,
    /// Path and query, quoted.
    target: &'a str,
    query: Option<&'a str>,
    /// Path after the prefix, quoted.
    path: &'a str,
}

impl Asking<'_> {
    async fn answer(&self, method: &Method) -> Response<Body> {
        let header = |name| self.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        if method == Method::HEAD {
            let headers = [(header::CONTENT_TYPE, "text/plain")];
            return answer::with_headers(StatusCode::METHOD_NOT_ALLOWED, &headers, Body::empty());
        }
        if let Some(ms) = self.app.switches.read(|faults| faults.directory_away_ms) {
            // Whom it asks for each request: the process does nothing else meanwhile.
            let _alone = self.backend.event_loop.write().await;
            tokio::time::sleep(Duration::from_millis(ms)).await;
            return answer::unauthorized();
        }
        let accepted = self.app.credentials.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match auth::check(self.headers, &accepted) {
            Verdict::Unknown => return answer::unauthorized(),
            Verdict::Malformed => return error(400, "malformed credentials", self.target),
            Verdict::Welcome => {}
        }
        let accept = header(header::ACCEPT).unwrap_or("*/*");
        if !accept.contains("application/json") && !accept.contains("application/hal+json") {
            return answer::not_acceptable();
        }
        if method != Method::GET {
            return error(405, "the stand-in only plays GET; see /control", self.target);
        }
        let length = header(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
        if length || self.headers.contains_key(header::TRANSFER_ENCODING) {
            return error(400, "a GET must not have a body", self.target);
        }
        drop(self.backend.event_loop.read().await);
        match route(self.path) {
            Route::Index => self.index(None).await,
            Route::Flavour(flavour) => self.index(Some(&flavour)).await,
            Route::List(module) => self.list(&module).await,
            Route::Object { module, dn } => self.object(&module, &dn).await,
            other => self.other(other),
        }
    }

    fn links(&self) -> Links {
        if let Some(base) = self.app.switches.read(|faults| faults.link_base.clone()) {
            return Links::new(&base);
        }
        let header = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        match header("x-forwarded-host") {
            Some(host) => {
                let scheme = header("x-forwarded-proto").unwrap_or("http");
                Links::new(&format!("{scheme}://{host}/univention"))
            }
            None => {
                let host = header("host").unwrap_or("localhost");
                Links::new(&format!("http://{host}{}", self.app.prefix))
            }
        }
    }

    fn loaded(&self, module: &str) -> bool {
        !self.app.switches.read(|faults| faults.unloaded_modules.contains(module))
    }

    async fn index(&self, flavour: Option<&str>) -> Response<Body> {
        self.app.counters.count(|numbers| numbers.index += 1);
        let effect = self.app.switches.pick(On::Index, "", None);
        if let Some(instead) = effect.as_ref().and_then(|e| answer::instead(e, self.target, self.target)) {
            return instead;
        }
        answer::wait(effect.as_ref(), &self.app.end).await;
        let (links, modules) = (self.links(), self.app.directory.modules());
        let of_flavour =
            |name: &&str| flavour.is_none_or(|f| f == "navigation" || name.split('/').next() == Some(f));
        let types: Vec<String> = modules
            .names()
            .filter(of_flavour)
            .filter(|name| self.loaded(name))
            .map(|name| {
                let mut entry = Members::default();
                entry.string("name", name).string("title", &format!("Titel von {name} (ü)"));
                entry.string("href", &links.module(name));
                entry.into_object()
            })
            .collect();
        if types.is_empty() {
            return error(404, "no such flavour", self.target);
        }
        let one = |href: &str| format!("[{{\"href\": {}}}]", json::string(href));
        let mut body = Members::default();
        body.raw("curies", &one(&format!("{}relation/{{rel}}", links.root())))
            .raw("self", &one(&links.root()));
        body.raw("udm:object-types", &format!("[{}]", types.join(", ")));
        body.raw("udm:ldap-base", &one(&format!("{}ldap/base/", links.root())));
        let body = format!("{{\"_links\": {}}}", body.into_object());
        let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public")];
        let chunks = stream::iter([body]).boxed();
        answer::with_headers(StatusCode::OK, &headers, answer::body(chunks, effect.as_ref(), &self.app.end))
    }

    async fn list(&self, module: &str) -> Response<Body> {
        let app = self.app;
        app.counters.count(|numbers| *numbers.lists.entry(module.to_owned()).or_default() += 1);
        let effect = app.switches.pick(On::List, module, None);
        if let Some(instead) = effect.as_ref().and_then(|e| answer::instead(e, self.target, self.target)) {
            return instead;
        }
        answer::wait(effect.as_ref(), &app.end).await;
        let modules = app.directory.modules();
        if !modules.contains(module) || !self.loaded(module) {
            return error(404, "HTTP 404: Not Found", self.target);
        }
        if module == "users/self" {
            return error(403, "Not in allowed groups.", self.target);
        }
        let links = self.links();
        let own = format!("{{\"self\": [{{\"href\": {}}}]}}", json::string(&links.module(module)));
        let Some(query) = self.query.filter(|query| !query.is_empty()) else {
            // No query, no search: only forms.
            return answer::json(StatusCode::OK, format!("{{\"_links\": {own}}}"));
        };
        let query = match list::parse(query) {
            Ok(query) => query,
            Err(name) if name == "filter" => {
                return answer::unprocessable("filter", "Not a valid LDAP search filter.", self.target);
            }
            Err(name) => {
                return answer::unprocessable(
                    &name,
                    "the stand-in does not play this parameter",
                    self.target,
                );
            }
        };
        let position = query.position.as_deref().unwrap_or(app.directory.base());
        if position != app.directory.base() && app.directory.get(position).is_none() {
            let problem = format!(
                "LDAP object {position} could not be found.\nIt possibly has been deleted or moved. Please update your \
                 search results and open the object again."
            );
            return answer::unprocessable("position", &problem, self.target);
        }
        let (delay, size_limit) = app.switches.read(|faults| (faults.list_delay_ms, faults.size_limit));
        tokio::time::sleep(Duration::from_millis(delay)).await;

        let mut listing = app.directory.list(module);
        if let Some(filter) = &query.filter {
            listing.retain(|head| filter.is_match(head));
        }
        if position != app.directory.base() || query.one_level || !query.hidden {
            listing.retain(|head| {
                let below = match query.one_level {
                    true => head.position == position,
                    false => head.dn.ends_with(position),
                };
                below && (query.hidden || !head.hidden)
            });
        }
        if size_limit.is_some_and(|limit| listing.len() > limit) {
            return error(400, "The search produced too many results: size limit exceeded.", self.target);
        }
        // Virtual modules ignore the limit.
        if let Some((page, limit)) = query.page.filter(|_| !modules.is_virtual(module)) {
            listing.page(app.paging.range(&format!("{module}?{}", query.cookie_key), page, limit));
        }
        let broken = app.switches.read(|faults| faults.broken_entries.clone());
        if !broken.is_empty() && listing.heads().any(|head| broken.contains(&head.dn)) {
            return error(500, BROKEN, self.target);
        }
        if query.opened && self.block_everybody(listing.len()).await.is_err() {
            return answer::backend_down("3");
        }
        if effect == Some(Effect::VanishAfter) {
            for head in listing.heads() {
                app.directory.remove(&head.dn);
            }
        }
        let count = listing.len();
        let start = format!("{{\"results\": {count}, \"_links\": {own}");
        let (before, after) = match count {
            0 => (format!("{start}, \"_embedded\": {{\"layout\": []}}"), "}".to_owned()),
            _ => (format!("{start}, \"_embedded\": {{\"udm:object\": ["), "]}}".to_owned()),
        };
        let entries = answer::grouped(listing.into_texts(query.opened, links));
        let chunks = stream::iter([before]).chain(entries).chain(stream::iter([after])).boxed();
        let headers = [
            (header::CONTENT_TYPE, "application/json"),
            (header::CACHE_CONTROL, "no-cache, no-store, max-age=1"),
        ];
        answer::with_headers(StatusCode::OK, &headers, answer::body(chunks, effect.as_ref(), &app.end))
    }

    /// The time that whole objects take: nothing else is served meanwhile.
    async fn block_everybody(&self, objects: usize) -> Result<(), ()> {
        let _alone = self.backend.event_loop.write().await;
        let objects = u32::try_from(objects).unwrap_or(u32::MAX);
        let time = self.app.opened_per_object.saturating_mul(objects);
        tokio::time::sleep(time.min(self.app.response_timeout)).await;
        if time > self.app.response_timeout { Err(()) } else { Ok(()) }
    }

    async fn object(&self, module: &str, dn: &str) -> Response<Body> {
        let app = self.app;
        let _counted = app.counters.object();
        let effect = app.switches.pick(On::Object, module, Some(dn));
        if let Some(instead) = effect.as_ref().and_then(|e| answer::instead(e, self.target, self.target)) {
            return instead;
        }
        let work = app.switches.read(|faults| Work {
            delay: Duration::from_millis(faults.get_delay_ms),
            serial: Duration::from_micros(faults.get_serial_us),
            crowding_percent: faults.crowding_percent,
        });
        self.backend.work(work, answer::wait(effect.as_ref(), &app.end)).await;
        match &effect {
            Some(Effect::Vanish) => _ = app.directory.remove(dn),
            Some(Effect::Move { to }) => _ = app.directory.rename(dn, to),
            Some(Effect::Unload { module }) => {
                app.switches.update(|faults| _ = faults.unloaded_modules.insert(module.clone()));
            }
            _ => {}
        }
        if module == "users/self" {
            return error(403, "Not in allowed groups.", self.target);
        }
        if app.switches.read(|faults| faults.broken_entries.contains(dn)) {
            return error(500, BROKEN, self.target);
        }
        let found =
            app.directory.get(dn).filter(|_| app.directory.modules().contains(module) && self.loaded(module));
        let Some(object) = found else { return error(404, "HTTP 404: Not Found", self.target) };
        if object.head.object_type != module {
            let message = format!(
                "The object type of this object differs from the specified object type: {dn} is not recognized as {module}."
            );
            return error(400, &message, self.target);
        }
        if effect == Some(Effect::VanishAfter) {
            app.directory.remove(dn);
        }
        let links = self.links();
        let etag = etag(&object.members);
        if self.headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == etag.as_str()) {
            return answer::with_headers(StatusCode::NOT_MODIFIED, &[(header::ETAG, &etag)], Body::empty());
        }
        let text = object.got(&links);
        let headers = [(header::CONTENT_TYPE, "application/json"), (header::ETAG, etag.as_str())];
        let body = match effect {
            None => Body::from(text),
            Some(_) => answer::body(stream::iter([text]).boxed(), effect.as_ref(), &app.end),
        };
        let mut answer = answer::with_headers(StatusCode::OK, &headers, body);
        for (relation, href) in links.fixed(&object.head) {
            add_link(&mut answer, &href, relation);
        }
        let references = app.switches.read(|faults| faults.link_headers);
        for (property, dn) in object.references.iter().take(references) {
            let href = format!("{}object/{}", links.root(), links::quote_dn(dn));
            add_link(&mut answer, &href, &format!("udm:object/property/reference/{property}"));
        }
        answer
    }

    fn other(&self, route: Route) -> Response<Body> {
        self.app.counters.count(|numbers| numbers.other += 1);
        let directory = &self.app.directory;
        let typed = |object: Option<Arc<crate::object::Object>>| match object {
            Some(object) => answer::moved(&self.links().object(&object.head)),
            None => error(404, "no such object", self.target),
        };
        match route {
            Route::AnyObject(name) if name.contains('=') => typed(directory.get(&name)),
            Route::AnyObject(uuid) => typed(directory.get_by_uuid(&uuid)),
            Route::Base => {
                let base = links::quote_dn(directory.base());
                answer::moved(&format!("{}container/dc/{base}", self.links().root()))
            }
            Route::Reload => answer::json(StatusCode::OK, "{}".to_owned()),
            _ => error(404, "no such path", self.target),
        }
    }
}

fn add_link(answer: &mut Response<Body>, href: &str, relation: &str) {
    let value = HeaderValue::from_str(&format!("<{href}>; rel=\"{relation}\""));
    if let Ok(value) = value {
        answer.headers_mut().append(header::LINK, value);
    }
}

/// Like SHA-1 in form only.
fn etag(members: &str) -> String {
    let [a, b, c] = [1, 2, 3].map(|salt| links::fingerprint(salt, members));
    format!("\"{a:016x}{b:016x}{:08x}\"", c >> 32)
}
