//! What components may do on NATS.

use std::{collections::BTreeMap, process::Command};

use broker::testing::nats_server_binary;
use serde_json::Value;

use crate::helm::{kind, name, render, root};

type Subjects = BTreeMap<String, BTreeMap<String, BTreeMap<String, Vec<String>>>>;

fn permissions() -> Subjects {
    let file = root().join("charts/headstart/files/nats-permissions.yaml");
    let found: Subjects = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let roles: Vec<&String> = found.keys().collect();
    assert_eq!(roles, ["api", "controller", "dispatcher", "prefill", "worker"]);
    found
}

#[test]
fn nobody_may_do_everything() {
    for (role, directions) in permissions() {
        for subject in &directions["publish"]["allow"] {
            let too_wide =
                [">", "*", "*.>", "$JS.>", "$JS.API.>", "$KV.>", "$SYS.>"].contains(&subject.as_str());
            assert!(!too_wide, "{role} may publish {subject}");
        }
        let mut heard = vec![format!("_INBOX_{role}.>")];
        if role == "api" {
            heard.extend(["headstart.removed.*.*", "headstart.arrived.*.*"].map(str::to_owned));
        }
        assert_eq!(directions["subscribe"]["allow"], heard, "{role}");
    }
}

#[test]
fn only_the_api_makes_streams() {
    for (role, directions) in permissions() {
        let makes = directions["publish"]["allow"].iter().any(|subject| {
            ["CREATE", "UPDATE"].iter().any(|verb| subject.starts_with(&format!("$JS.API.STREAM.{verb}")))
        });
        assert_eq!(makes, role == "api", "{role}");
    }
}

/// `MSG.GET` names the key in the payload, so whoever has it for a bucket reads all of the bucket.
#[test]
fn password_hashes_are_read_only_by_those_who_need_them() {
    let getter = "$JS.API.STREAM.MSG.GET.KV_CREDENTIALS".to_owned();
    for (role, directions) in permissions() {
        let denied = directions["publish"].get("deny").is_some_and(|deny| deny.contains(&getter));
        // The controller finishes removals, which ends with the credential.
        assert_eq!(denied, !["api", "controller"].contains(&role.as_str()), "{role}");
    }
}

#[test]
fn nats_server_takes_the_configuration() {
    for set in ["minimal", "opendesk", "everything"] {
        let objects = render(set);
        let is_config = |object: &&Value| kind(object) == "ConfigMap" && name(object).ends_with("-nats");
        let config = objects.iter().find(is_config).unwrap()["data"]["nats.conf"].as_str().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let certificate = rcgen::generate_simple_self_signed(vec!["nats".to_owned()]).unwrap();
        for (file, pem) in [
            ("tls.crt", certificate.cert.pem()),
            ("ca.crt", certificate.cert.pem()),
            ("tls.key", certificate.signing_key.serialize_pem()),
        ] {
            std::fs::write(folder.path().join(file), pem).unwrap();
        }
        let file = folder.path().join("nats.conf");
        std::fs::write(&file, config.replace("/etc/nats-tls", &folder.path().display().to_string())).unwrap();
        let mut server = Command::new(nats_server_binary());
        server.arg("-t").arg("-c").arg(&file);
        // As the StatefulSet sets them: in quotes, so that anything is a text.
        let stateful_set = objects.iter().find(|object| kind(object) == "StatefulSet").unwrap();
        let variables = stateful_set["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
        let names = variables.iter().map(|variable| variable["name"].as_str().unwrap());
        let passwords = ["1e5", "a#b", "{x", "$2"].into_iter().cycle();
        for (name, password) in names.filter(|name| name.starts_with("NATS_PASSWORD_")).zip(passwords) {
            server.env(name, format!("'{password}'"));
        }
        let output = server.output().expect("nats-server is needed: run `cargo xtask tools`");
        assert!(output.status.success(), "{set}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
