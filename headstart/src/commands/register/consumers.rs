//! The files of `headstart register`.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context;
use broker::Secret;
use serde_json::{Map, Value};

/// A consumer that is to be registered.
pub struct Consumer {
    /// The subscription's name.
    pub name: String,
    fields: Map<String, Value>,
}

impl Consumer {
    /// The body of `POST /v1/subscriptions`.
    pub fn registration(&self) -> String {
        Value::Object(self.fields.clone()).to_string()
    }

    /// The body of `PATCH /v1/subscriptions/{name}` that makes it equal. Whether a prefill was asked for is of the
    /// past.
    pub fn change(&self) -> String {
        let kept = ["realms_topics", "password"];
        let fields = self.fields.iter().filter(|(key, _)| kept.contains(&key.as_str()));
        Value::Object(fields.map(|(key, value)| (key.clone(), value.clone())).collect()).to_string()
    }
}

/// A file that is no registration, and why.
pub type Unreadable = (String, String);

/// All `<key>.json` of a folder, in the order of their names.
///
/// # Errors
/// The folder can't be read, or there is none.
pub fn read(folder: &Path) -> anyhow::Result<Vec<Result<Consumer, Unreadable>>> {
    let named = || format!("the folder {} (--consumers, CONSUMERS)", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(named)? {
        let path = entry.with_context(named)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    anyhow::ensure!(!paths.is_empty(), "there is no .json in {}", named());
    paths.sort();
    let mut named = BTreeMap::new();
    let mut once = |path: &Path| {
        let consumer = consumer(path)?;
        // Each would undo what the other one asks for.
        if let Some(other) = named.insert(consumer.name.clone(), file_name(path)) {
            return Err(format!("its name {} is that of {other}, too", consumer.name));
        }
        Ok(consumer)
    };
    Ok(paths.iter().map(|path| once(path).map_err(|error| (file_name(path), error))).collect())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The errors of `serde_json` name a place, and never show what stands there: it may be a password.
fn consumer(path: &Path) -> Result<Consumer, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    // Editors of other systems put a mark before UTF-8.
    let value: Value = serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(&text))
        .map_err(|e| format!("no JSON: line {}, column {}", e.line(), e.column()))?;
    let Value::Object(mut fields) = value else { return Err("no JSON object".to_owned()) };
    let Some(Value::String(name)) = fields.get("name") else {
        return Err("there is no text \"name\", the name of the subscription".to_owned());
    };
    let name = name.clone();
    // What is not set may be written as `null`, as in requests.
    if fields.get("password").is_none_or(Value::is_null) {
        let beside = path.with_extension("password");
        if !beside.exists() {
            return Err(format!("there is neither a \"password\" in it nor a file {}", file_name(&beside)));
        }
        let password = Secret::file(&beside).read().map_err(|error| model::error_chain(&error))?;
        fields.insert("password".to_owned(), Value::String(password));
    }
    Ok(Consumer { name, fields })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations_with_and_without_a_password() {
        let folder = tempfile::tempdir().unwrap();
        for (file, content) in [
            ("a.json", r#"{"name": "a", "realms_topics": [], "request_prefill": true, "password": "in"}"#),
            ("a.password", "beside"),
            (
                "b.json",
                "\u{feff}{\"name\": \"b\", \"realms_topics\": [], \"request_prefill\": false, \"password\": null}",
            ),
            ("b.password", "beside\n"),
            ("c.json", r#"{"name": "c"}"#),
            ("d.json", r#"{"name": "d", "password": "sec"#),
            ("e.json", "[]"),
            ("f.json", r#"{"nam": "f"}"#),
            ("g.json", r#"{"name": "a", "realms_topics": [], "request_prefill": true, "password": "g"}"#),
            ("notes.txt", "nothing"),
        ] {
            fs::write(folder.path().join(file), content).unwrap();
        }
        let read = read(folder.path()).unwrap();
        let shown: Vec<String> = read
            .iter()
            .map(|consumer| match consumer {
                Ok(consumer) => format!("{} {}", consumer.registration(), consumer.change()),
                Err((file, error)) => format!("{file}: {error}"),
            })
            .collect();
        assert_eq!(
            shown,
            [
                r#"{"name":"a","password":"in","realms_topics":[],"request_prefill":true} {"password":"in","realms_topics":[]}"#,
                r#"{"name":"b","password":"beside","realms_topics":[],"request_prefill":false} {"password":"beside","realms_topics":[]}"#,
                r#"c.json: there is neither a "password" in it nor a file c.password"#,
                "d.json: no JSON: line 1, column 30",
                "e.json: no JSON object",
                r#"f.json: there is no text "name", the name of the subscription"#,
                "g.json: its name a is that of a.json, too",
            ]
        );
    }

    #[test]
    fn an_empty_folder_is_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(folder.path()).err().unwrap().to_string();
        assert!(error.contains("CONSUMERS"), "{error}");
        assert!(read(&folder.path().join("none")).is_err());
    }
}
