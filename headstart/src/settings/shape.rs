//! What objects of a prefill look like.

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub struct Shape {
    /// Form of prefill objects. udm: as UDM returns them; live: as in live events, where id is
    /// univentionObjectIdentifier, without uuid and uri.
    #[arg(long, env, value_name = "SHAPE", default_value = "udm")]
    pub prefill_shape: Kind,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Kind {
    Udm,
    Live,
}

impl Shape {
    /// For the engine.
    pub fn shape(&self) -> prefill_job::Shape {
        match self.prefill_shape {
            Kind::Udm => prefill_job::Shape::Udm,
            Kind::Live => prefill_job::Shape::Live,
        }
    }
}
