//! `docs/admission-policy.yaml`: it lets our Jobs pass, and no others of our accounts.

use anyhow::{Result, ensure};
use e2e::{Installation, chart, eventually};
use serde_json::{Value, json};

use crate::SOON;

/// Removes what is cluster-scoped, also when the test fails.
struct Policy<'a>(&'a Installation, String);

impl Drop for Policy<'_> {
    fn drop(&mut self) {
        let name = format!("headstart-jobs.{}", self.0.namespace.name);
        for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
            if let Err(error) = self.0.namespace.kubectl(&["delete", kind, &name, "--ignore-not-found"]) {
                eprintln!("cleaning up {name}: {error:#}");
            }
        }
    }
}

/// Tries to make a Job as the API's account; the error is what the API server says.
fn create(hs: &Installation, job: &Value) -> Result<()> {
    let account = format!("--as=system:serviceaccount:{}:hs-headstart-api", hs.namespace.name);
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), job.to_string())?;
    let path = file.path().display().to_string();
    hs.namespace.kubectl(&["create", "--dry-run=server", &account, "-f", &path]).map(drop)
}

#[tokio::test]
async fn the_admission_policy_admits_our_jobs_and_refuses_others() -> Result<()> {
    let namespace = Installation::prepare("policy", 5, 1)?;
    let hs = Installation::install_into(namespace, &chart(), None, &[]).await?;
    let mail = hs.register("mail", &["users/user"], true).await?;
    mail.await_prefill("done").await?;
    // What a Job of ours looks like, to be changed into what it must not be.
    let made = hs.job("mail", 1)?;
    let name = made["metadata"]["name"].as_str().unwrap().to_owned() + "-copy";
    let mut good = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"suspend": true, "template": {"spec": made["spec"]["template"]["spec"]}},
    });
    for volume in good["spec"]["template"]["spec"]["volumes"].as_array_mut().unwrap() {
        if volume.get("configMap").is_some() {
            volume["configMap"]["name"] = name.clone().into();
        }
    }
    let image = good["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut job = good.clone();
        change(&mut job["spec"]["template"]["spec"]);
        job
    };
    let others = [
        ("another account", with(&|pod| pod["serviceAccountName"] = "hs-headstart-controller".into())),
        ("a token", with(&|pod| pod["automountServiceAccountToken"] = true.into())),
        ("another image", with(&|pod| pod["containers"][0]["image"] = "localhost/nats:dev".into())),
        ("another command", with(&|pod| pod["containers"][0]["command"] = json!(["/bin/sh"]))),
        ("other arguments", with(&|pod| pod["containers"][0]["args"] = json!(["standalone"]))),
        (
            "a second container",
            with(&|pod| {
                let mut second = pod["containers"][0].clone();
                second["name"] = "second".into();
                pod["initContainers"] = json!([second]);
            }),
        ),
        (
            "a Secret as a volume",
            with(&|pod| {
                let volume = json!({"name": "stolen", "secret": {"secretName": "hs-headstart-api-admin"}});
                pod["volumes"].as_array_mut().unwrap().push(volume);
            }),
        ),
        (
            "a projected Secret",
            with(&|pod| {
                let volume = json!({"name": "stolen", "projected": {"sources": [
                    {"secret": {"name": "hs-headstart-api-admin"}}]}});
                pod["volumes"].as_array_mut().unwrap().push(volume);
            }),
        ),
        (
            "a Secret in a variable",
            with(&|pod| {
                let env = json!({"name": "STOLEN", "valueFrom": {"secretKeyRef": {
                    "name": "hs-headstart-api-admin", "key": "password"}}});
                pod["containers"][0]["env"].as_array_mut().unwrap().push(env);
            }),
        ),
        (
            "a Secret as an environment",
            with(&|pod| {
                pod["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "hs-headstart-api-admin"}}]);
            }),
        ),
        ("another directory", with(&|pod| set_variable(pod, "SOURCE", "http://evil.example/udm/"))),
        ("another NATS", with(&|pod| set_variable(pod, "NATS_URL", "nats://evil.example:4222"))),
        (
            "an authority of one's own",
            with(&|pod| set_variable(pod, "UDM_CA_FILE", "/etc/headstart/task/ca.crt")),
        ),
        ("a variable of one's own", with(&|pod| set_variable(pod, "LD_PRELOAD", "/etc/headstart/task/x.so"))),
        (
            "names of one's own",
            with(&|pod| pod["hostAliases"] = json!([{"ip": "192.0.2.1", "hostnames": ["stand-in-udm"]}])),
        ),
        ("a name server of one's own", with(&|pod| pod["dnsConfig"] = json!({"nameservers": ["192.0.2.1"]}))),
        ("the node's name server", with(&|pod| pod["dnsPolicy"] = "Default".into())),
        (
            "a ConfigMap in place of the authorities",
            with(&|pod| {
                let mounts = pod["containers"][0]["volumeMounts"].as_array_mut().unwrap();
                mounts.last_mut().unwrap()["mountPath"] = "/etc/ssl/certs".into();
            }),
        ),
    ];
    for (what, job) in &others {
        create(&hs, job).unwrap_or_else(|error| panic!("without the policy {what} is admitted: {error:#}"));
    }

    let text = std::fs::read_to_string(chart().join("../../docs/admission-policy.yaml"))?;
    let environment = &good["spec"]["template"]["spec"]["containers"][0]["env"];
    let value = |name: &str| -> String {
        let mut all = environment.as_array().unwrap().iter();
        all.find(|env| env["name"] == name).unwrap()["value"].as_str().unwrap().to_owned()
    };
    let text = text
        .replace("NAMESPACE", &hs.namespace.name)
        .replace("FULLNAME", "hs-headstart")
        .replace("SOURCE_URL", &value("SOURCE"))
        .replace("NATS_ADDRESS", &value("NATS_URL"));
    let policy = Policy(&hs, text.replace("IMAGE", &image));
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), &policy.1)?;
    hs.namespace.kubectl(&["apply", "-f", &file.path().display().to_string()])?;
    eventually("the policy to be in force", SOON, async || {
        ensure!(create(&hs, &others[0].1).is_err(), "it is not yet");
        Ok(())
    })
    .await?;
    for (what, job) in &others {
        let error = create(&hs, job).expect_err(what).to_string();
        assert!(error.contains("headstart-jobs"), "{what}: {error}");
    }
    create(&hs, &good)?;
    // And the real way: made by the API, admitted and changed by the controller.
    let again = hs.register("again", &["users/user"], true).await?;
    again.await_prefill("done").await?;
    assert_eq!(again.read(5).await?.len(), 5);

    // An upgrade: a Job that was made with the former image is still admitted, annotated and suspended.
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), good.to_string())?;
    hs.namespace.kubectl(&["create", "-f", &file.path().display().to_string()])?;
    std::fs::write(file.path(), text.replace("IMAGE", "registry.example.org/headstart:2"))?;
    hs.namespace.kubectl(&["apply", "-f", &file.path().display().to_string()])?;
    eventually("the policy for the new image to be in force", SOON, async || {
        // Its name is taken; the policy is asked before that is found.
        let refusal = create(&hs, &good).map_or_else(|error| error.to_string(), |()| String::new());
        ensure!(refusal.contains("headstart-jobs"), "it is not yet: {refusal}");
        Ok(())
    })
    .await?;
    let account = format!("--as=system:serviceaccount:{}:hs-headstart-controller", hs.namespace.name);
    let change = r#"{"metadata": {"annotations": {"headstart/state": "pending"}}}"#;
    hs.namespace.kubectl(&["patch", "job", &name, "--type=merge", "-p", change, &account])?;
    Ok(())
}

fn set_variable(pod: &mut Value, name: &str, value: &str) {
    let variables = pod["containers"][0]["env"].as_array_mut().unwrap();
    variables.retain(|env| env["name"] != name);
    variables.push(json!({"name": name, "value": value}));
}
