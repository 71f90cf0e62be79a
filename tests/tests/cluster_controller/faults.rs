//! What stands between a controller and the API server: a layer that makes answers go wrong, and a proxy that makes
//! connections go away or fall silent.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use kube::{
    Client,
    client::{Body, ClientBuilder, DynBody},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tower::{BoxError, Layer, Service};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// It is refused with this status and word, and not done.
    Refused(u16, &'static str),
    /// It is done, and its answer is lost: the connection breaks.
    AnswerLost,
    /// It is done, and its answer never comes.
    AnswerNever,
}

/// Decides by method and path.
type Judge = dyn Fn(&str, &str) -> Option<Fault> + Send + Sync;

/// A client whose requests go wrong as `judge` says.
pub fn faulty_client(
    config: kube::Config,
    judge: impl Fn(&str, &str) -> Option<Fault> + Send + Sync + 'static,
) -> Result<Client> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&Faults(Arc::new(judge))).build())
}

/// How many requests there were of each kind, such as `GET jobs watch`.
#[derive(Clone, Default)]
pub struct Asked(Arc<Mutex<HashMap<String, usize>>>);

impl Asked {
    pub fn times(&self, kind: &str) -> usize {
        self.0.lock().unwrap().get(kind).copied().unwrap_or(0)
    }
}

/// Each kind of request goes through these faults, one after the other, and works from then on.
pub fn each_kind_once(
    faults: &'static [Fault],
    asked: Asked,
) -> impl Fn(&str, &str) -> Option<Fault> + Send + Sync {
    move |method, path| {
        let object = path.split('?').next()?;
        let resource =
            object.split('/').find(|part| matches!(*part, "jobs" | "configmaps" | "pods" | "leases"))?;
        // What has no limit of its own, because a layer that is not here gives up silent connections.
        let unlimited = method == "GET" && object.ends_with(resource);
        let kind = match (unlimited, path.contains("watch=true")) {
            (false, _) => format!("{method} {resource}"),
            (true, false) => format!("{method} {resource} list"),
            (true, true) => format!("{method} {resource} watch"),
        };
        let mut counts = asked.0.lock().unwrap();
        let count = counts.entry(kind).or_default();
        *count += 1;
        let fault = faults.get(*count - 1).copied()?;
        Some(if fault == Fault::AnswerNever && unlimited { Fault::AnswerLost } else { fault })
    }
}

#[derive(Clone)]
struct Faults(Arc<Judge>);

impl<S> Layer<S> for Faults {
    type Service = Faulty<S>;
    fn layer(&self, inner: S) -> Faulty<S> {
        Faulty { inner, judge: self.0.clone() }
    }
}

struct Faulty<S> {
    inner: S,
    judge: Arc<Judge>,
}

type Answered = Pin<Box<dyn Future<Output = Result<Response<Box<DynBody>>, BoxError>> + Send>>;

impl<S> Service<Request<Body>> for Faulty<S>
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<Box<DynBody>>;
    type Error = BoxError;
    type Future = Answered;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Answered {
        let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        let fault = (self.judge)(request.method().as_str(), &path);
        if let Some(Fault::Refused(code, reason)) = fault {
            let status = serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                                            "reason": reason, "message": format!("{reason}, says the test")});
            let body = Full::new(Bytes::from(status.to_string())).map_err(BoxError::from);
            let answer = Response::builder().status(code).body(Box::new(body) as Box<DynBody>);
            return Box::pin(async move { Ok(answer?) });
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            match fault {
                Some(Fault::AnswerLost) => Err("the connection broke, says the test".into()),
                Some(Fault::AnswerNever) => std::future::pending().await,
                _ => Ok(answer),
            }
        })
    }
}

/// What the proxy does with connections.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Line {
    Works,
    /// All are cut, and new ones are refused.
    Away,
    /// Those of an earlier number say nothing any more, and are not closed; new ones work.
    Silent(u32),
}

/// A proxy before the API server. TLS goes through it.
pub struct Proxy {
    port: u16,
    line: watch::Sender<Line>,
    silences: u32,
}

impl Proxy {
    /// Before the API server of the environment.
    pub async fn start() -> Result<Self> {
        let config = kube::Config::infer().await?;
        let url = &config.cluster_url;
        let target = format!("{}:{}", url.host().context("no host")?, url.port_u16().unwrap_or(443));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (line, seen) = watch::channel(Line::Works);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *seen.borrow() == Line::Away {
                    continue;
                }
                tokio::spawn(forward(near, target.clone(), seen.clone()));
            }
        });
        Ok(Self { port, line, silences: 0 })
    }

    /// How to connect through it.
    pub async fn config(&self) -> Result<kube::Config> {
        let mut config = kube::Config::infer().await?;
        config.tls_server_name = Some(config.cluster_url.host().context("no host")?.to_owned());
        config.cluster_url = format!("https://127.0.0.1:{}", self.port).parse()?;
        Ok(config)
    }

    pub fn cut(&self) {
        self.line.send_replace(Line::Away);
    }

    pub fn mend(&self) {
        self.line.send_replace(Line::Works);
    }

    pub fn silence(&mut self) {
        self.silences += 1;
        self.line.send_replace(Line::Silent(self.silences));
    }
}

async fn forward(mut near: TcpStream, target: String, mut line: watch::Receiver<Line>) {
    let began = *line.borrow_and_update();
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    let now = tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
        now = line.wait_for(|now| *now != began) => now.map_or(Line::Away, |now| *now),
    };
    if let Line::Silent(_) = now {
        // Held open without a word, until the proxy goes.
        line.wait_for(|now| *now == Line::Away).await.ok();
    }
}
