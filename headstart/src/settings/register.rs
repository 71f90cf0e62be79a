//! `headstart register`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{Admin, Udm, seconds};

#[derive(Debug, Args)]
pub struct Register {
    /// Folder with one file per consumer: <key>.json is the body of POST /v1/subscriptions; if it holds no password,
    /// <key>.password does.
    #[arg(long, env, value_name = "DIR")]
    pub consumers: PathBuf,
    /// Address of the API, such as http://headstart-api.
    #[arg(long = "api", env = "API_URL", value_name = "URL")]
    pub api_url: String,
    /// Certificates (PEM) of the authorities that are trusted for the API; default: those of the system.
    #[arg(long, env, value_name = "FILE")]
    pub api_ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub admin: Admin,
    /// With a consumer that is registered with other topics or another password: report it, or change it, which keeps
    /// its queue. What can't be changed (selection, track, request_prefill) is reported in both cases.
    #[arg(long, env, value_name = "WHAT", default_value = "fail")]
    pub if_different: IfDifferent,
    /// Seconds to wait for the API, and for the object of UDM.
    #[arg(long, env, value_name = "SECONDS", default_value = "240", value_parser = seconds)]
    pub wait_seconds: Duration,
    /// Wait for this object of UDM first: <type>/<DN>.
    #[arg(long, env, value_name = "OBJECT", requires = "source")]
    pub wait_for_udm_object: Option<String>,
    /// Address of the UDM REST API, for that.
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
