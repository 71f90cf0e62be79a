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
    /// Topics that must be there, such as users/user; may be given several times. Of a UDM only these are read, or
    /// users/user where none is given.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Vec<String>,
    /// Most problems that are named.
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
    /// File to write; compressed if its name ends in .gz or .zst. What was there is replaced when all is written. A
    /// pipe or a device is written to as the objects come, and so is standard output (-): only an exit code of 0 says
    /// that it was all.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Topics to write, such as users/user or users/.*, in this order; may be given several times. Default: all.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Vec<String>,
}
