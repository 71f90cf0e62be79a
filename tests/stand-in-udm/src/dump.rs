//! The directory as a dump: one UDM object a line, without `_links`.

use std::io::{self, Write};

use crate::directory::Directory;
use crate::links::Links;

/// Writes all objects of all modules, in the order of the module index. Returns how many.
///
/// # Errors
/// Of the writer.
pub fn write(directory: &Directory, base: &str, out: &mut impl Write) -> io::Result<u64> {
    let (links, modules) = (Links::new(base), directory.modules());
    let mut written = 0;
    // Views and virtual modules show objects of others.
    let own = |name: &&str| modules.listed_types(name) == [(*name).to_owned()];
    for module in modules.names().filter(own) {
        for object in directory.list(module).objects() {
            writeln!(out, "{}", object.without_links(&links))?;
            written += 1;
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::population::Population;

    #[test]
    fn each_object_is_one_line() {
        let population = Population { users: 30, groups: 4, ..Population::default() };
        let mut dump = Vec::new();
        let written =
            write(&Directory::generated(population), "http://localhost:9979/univention", &mut dump).unwrap();
        let lines: Vec<serde_json::Value> = String::from_utf8(dump)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len() as u64, written);
        let dns: HashSet<_> = lines.iter().map(|object| object["dn"].as_str().unwrap()).collect();
        assert_eq!(dns.len(), lines.len(), "each object once");
        assert_eq!(lines.iter().filter(|o| o["objectType"] == "users/user").count(), 30);
        assert!(
            lines.iter().all(|o| o.get("_links").is_none() && o["uri"].as_str().unwrap().starts_with("http"))
        );
    }
}
