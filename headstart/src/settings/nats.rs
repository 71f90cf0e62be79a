//! How to reach NATS.

use broker::{NatsConfig, Secret};
use clap::Args;

#[derive(Debug, Args)]
pub struct Nats {
    /// Address of NATS; several with commas between them. Default: nats://NATS_HOST:NATS_PORT.
    #[arg(long, env, value_name = "URL")]
    pub nats_url: Option<String>,
    /// Host of NATS, where NATS_URL is not given.
    #[arg(long, env, value_name = "HOST", default_value = "127.0.0.1")]
    pub nats_host: String,
    /// Port of NATS, where NATS_URL is not given.
    #[arg(long, env, value_name = "PORT", default_value = "4222")]
    pub nats_port: u16,
    /// User at NATS.
    #[arg(long, env, value_name = "USER")]
    pub nats_user: Option<String>,
    /// Its password.
    #[arg(long, env, value_name = "PASSWORD", hide_env_values = true)]
    pub nats_password: Option<String>,
    /// Copies of each stream in a cluster of NATS, 1 to 5.
    #[arg(long, env, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub nats_replicas: u8,
}

impl Nats {
    /// The configuration of one component.
    pub fn config(&self, component: &'static str) -> NatsConfig {
        let Self { nats_url, nats_host, nats_port, nats_user, nats_password, nats_replicas } = self;
        NatsConfig {
            url: nats_url.clone().unwrap_or_else(|| format!("nats://{nats_host}:{nats_port}")),
            user: nats_user.clone(),
            password: nats_password.clone().map(Secret::new),
            component,
            replicas: usize::from(*nats_replicas),
        }
    }
}
