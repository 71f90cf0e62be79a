//! Looking at sources, and writing dumps.

use std::path::PathBuf;

use clap::Args;

use super::{SourceAddress, Udm};

#[derive(Debug, Args)]
pub struct Validate {
    #[command(flatten)]
    pub source: SourceAddress,
    #[command(flatten)]
    pub udm: Udm,
    /// Topics that must have objects, such as users/user; may be given several times. From a UDM only these are read,
    /// or users/user if none is given.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Vec<String>,
    /// Maximum number of problems to list.
    #[arg(long, value_name = "N", default_value = "20")]
    pub problems: usize,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    pub source: SourceAddress,
    #[command(flatten)]
    pub udm: Udm,
    /// File to write; compressed if its name ends in .gz or .zst. An existing file is replaced when the dump is
    /// complete. A pipe, a device and standard output (-) receive the objects as they arrive: only an exit code of 0
    /// means that the dump is complete.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Topics to write, such as users/user or users/.*, in this order; may be given several times. Default: all.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Vec<String>,
}
