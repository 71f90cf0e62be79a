//! `headstart register`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{Admin, Udm, seconds};

#[derive(Debug, Args)]
pub struct Register {
    /// Folder with one file per consumer: <key>.json is the body of POST /v1/subscriptions; if it contains no
    /// password, <key>.password does.
    #[arg(long, env, value_name = "DIR")]
    pub consumers: PathBuf,
    /// Address of the API, such as http://headstart-api.
    #[arg(long = "api", env = "API_URL", value_name = "URL")]
    pub api_url: String,
    /// Certificates (PEM) of the authorities trusted for the API; default: those of the system.
    #[arg(long, env, value_name = "FILE")]
    pub api_ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub admin: Admin,
    /// What to do if a consumer is already registered with other topics or another password: fail, or update it,
    /// which keeps its queue. Differences that can't be updated (selection, track, request_prefill) fail in both
    /// cases.
    #[arg(long, env, value_name = "WHAT", default_value = "fail")]
    pub if_different: IfDifferent,
    /// Seconds to wait for the API, and for the UDM object.
    #[arg(long, env, value_name = "SECONDS", default_value = "240", value_parser = seconds)]
    pub wait_seconds: Duration,
    /// UDM object to wait for first: <type>/<DN>.
    #[arg(long, env, value_name = "OBJECT", requires = "source")]
    pub wait_for_udm_object: Option<String>,
    /// Address of the UDM REST API with that object.
    #[arg(long, env, value_name = "URL")]
    pub source: Option<String>,
    #[command(flatten)]
    pub udm: Udm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IfDifferent {
    Fail,
    Update,
}
