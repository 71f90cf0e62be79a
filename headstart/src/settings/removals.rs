//! How many removals a resync may tell before a person has to approve it.

use clap::Args;
use model::resync::{MaxRemovals, Share};

#[derive(Debug, Args)]
pub struct Removals {
    /// A resync is held until it is approved if more than this share of the known objects is gone, in per cent, and
    /// more than --max-removals-objects; also if all objects of a type are gone.
    #[arg(long, env, value_name = "PERCENT", default_value = "20", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub max_removals_percent: u8,
    /// Up to this number of removals, the share is ignored.
    #[arg(long, env, value_name = "N", default_value = "20")]
    pub max_removals_objects: u64,
}

impl Removals {
    /// For the engine.
    pub fn limit(&self) -> MaxRemovals {
        let Self { max_removals_percent: percent, max_removals_objects: objects } = *self;
        MaxRemovals::Share(Share { percent, objects })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        removals: Removals,
    }

    #[test]
    fn each_flag_reaches_its_field() {
        let limit = |flags: &[&str]| Command::parse_from([&["x"], flags].concat()).removals.limit();
        assert_eq!(limit(&[]), MaxRemovals::default());
        let odd = limit(&["--max-removals-percent", "7", "--max-removals-objects", "300"]);
        assert_eq!(odd, MaxRemovals::Share(Share { percent: 7, objects: 300 }));
        assert!(Command::try_parse_from(["x", "--max-removals-percent", "101"]).is_err());
    }
}
