//! Samples, charts and install manifests.

use std::path::{Path, PathBuf};
use std::process::Command;

use kube::core::cel::Validator;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn documents(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).expect("YAML");
    all.into_iter().filter(|document| !document.is_null()).collect()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect()
}

fn schema(kind: &str) -> Option<Value> {
    let crd = rhumb_crds::all()
        .into_iter()
        .find(|crd| crd.spec.names.kind == kind)?;
    Some(json!(crd.spec.versions[0].schema.as_ref()?.open_api_v3_schema))
}

/// Fields that the API server would drop in silence.
fn unknown(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    if let Some(items) = value.as_array() {
        for item in items {
            unknown(&schema["items"], item, path, found);
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let known = [&schema["properties"][name], &schema["additionalProperties"]];
        match known.into_iter().find(|schema| schema.is_object()) {
            Some(schema) => unknown(schema, value, &path, found),
            None if schema["additionalProperties"] == true => {}
            None => found.push(path),
        }
    }
}

#[test]
fn samples_are_accepted_and_lose_nothing() {
    let mut checked = 0;
    for path in files("manifests/samples") {
        let text = std::fs::read_to_string(&path).expect("a sample");
        for document in documents(&text) {
            let Some(schema) = document["kind"].as_str().and_then(schema) else {
                continue;
            };
            let mut found = Vec::new();
            unknown(
                &schema["properties"]["spec"],
                &document["spec"],
                "spec",
                &mut found,
            );
            assert_eq!(found, Vec::<String>::new(), "{path:?}");
            let verdict = Validator::new().validate_with_defaults(&schema, &document, None);
            assert!(verdict.is_ok(), "{path:?}: {verdict:?}");
            checked += 1;
        }
    }
    assert!(checked >= 7, "only {checked} samples");
}

#[test]
fn a_misspelt_field_would_be_found() {
    let mut found = Vec::new();
    let schema = schema("VectorDatabase").expect("ours");
    let spec = json!({ "dataNodes": { "replica": 1, "podOverrides": { "any": "thing" } } });
    unknown(&schema["properties"]["spec"], &spec, "spec", &mut found);
    assert_eq!(found, ["spec.dataNodes.replica"]);
}

#[test]
fn every_manifest_is_yaml() {
    for folder in [
        "manifests/install",
        "manifests/argocd",
        "manifests/argocd/examples",
        "manifests/flux",
    ] {
        for path in files(folder) {
            let text = std::fs::read_to_string(&path).expect("a manifest");
            for document in documents(&text) {
                assert!(document["kind"].is_string(), "{path:?}");
            }
        }
    }
}

#[test]
fn no_other_sample_stands_open() {
    for path in files("manifests/samples") {
        let text = std::fs::read_to_string(&path).expect("a sample");
        let is_small = path.ends_with("small.yaml");
        for document in documents(&text) {
            let open = document["spec"]["security"]["clients"] == "Open";
            assert_eq!(open, is_small, "{path:?}");
        }
    }
}

/// The sample that checks outside this tree start from.
#[test]
fn the_smallest_sample_is_as_promised() {
    let text = std::fs::read_to_string(root().join("manifests/samples/small.yaml")).expect("the sample");
    let small = documents(&text).remove(0);
    assert_eq!(small["metadata"]["name"], "small");
    let store = &small["spec"]["objectStore"];
    assert_eq!(
        (&store["bucket"], &store["endpoint"]),
        (&json!("rhumb"), &json!("http://s3.s3.svc:9000"))
    );
    assert_eq!(
        store["credentials"]["secretRef"],
        json!({ "name": "s3-credentials" })
    );
    // Its documented next step is plain curl.
    assert_eq!(small["spec"]["security"], json!({ "clients": "Open" }));
    assert_eq!(
        (
            &small["spec"]["dataNodes"]["replicas"],
            &small["spec"]["sharding"]["count"]
        ),
        (&json!(2), &json!(4))
    );
}

/// `None`, loudly, where there is no helm.
fn helm(arguments: &[&str]) -> Option<Result<String, String>> {
    let cached = std::env::home_dir()
        .unwrap_or_default()
        .join(".cache/rhumb/bin/helm");
    let program = if cached.exists() { cached } else { "helm".into() };
    let output = match Command::new(program).args(arguments).current_dir(root()).output() {
        Ok(output) => output,
        Err(_) => {
            eprintln!("NO HELM: the chart was not rendered (scripts/helm.sh builds it)");
            return None;
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    })
}

fn render(settings: &[&str]) -> Option<Result<Vec<Value>, String>> {
    let mut arguments = vec!["template", "rhumb", "charts/rhumb", "--namespace", "ops"];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    helm(&arguments).map(|rendered| rendered.map(|text| documents(&text)))
}

fn kinds(objects: &[Value], kind: &str) -> Vec<Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .cloned()
        .collect()
}

#[test]
fn charts_pass_helm_lint() {
    if let Some(verdict) = helm(&["lint", "--strict", "charts/rhumb", "charts/rhumb-crds"]) {
        verdict.expect("no complaint");
    }
}

#[test]
fn the_chart_of_the_crds_keeps_them_on_uninstall() {
    let Some(rendered) = helm(&["template", "rhumb-crds", "charts/rhumb-crds"]) else {
        return;
    };
    let crds = documents(&rendered.expect("rendered"));
    assert_eq!(crds.len(), rhumb_crds::all().len());
    let known: Vec<Value> = rhumb_crds::all().iter().map(|crd| json!(crd)).collect();
    for mut chart in crds {
        assert_eq!(
            chart["metadata"]["annotations"]["helm.sh/resource-policy"],
            "keep"
        );
        chart["metadata"]
            .as_object_mut()
            .expect("metadata")
            .remove("annotations");
        assert!(known.contains(&chart), "{}", chart["metadata"]["name"]);
    }
}

#[test]
fn the_chart_passes_its_values_on() {
    let Some(rendered) = render(&[
        "image.operator=o:1",
        "image.dataNode=d:2",
        "image.pullPolicy=Never",
        "replicas=1",
    ]) else {
        return;
    };
    let deployment = kinds(&rendered.expect("rendered"), "Deployment").remove(0);
    assert_eq!(deployment["spec"]["replicas"], 1);
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(
        (&container["image"], &container["imagePullPolicy"]),
        (&json!("o:1"), &json!("Never"))
    );
    let env = container["env"].as_array().expect("an environment");
    assert!(env.contains(&json!({ "name": "RHUMB_DATA_NODE_IMAGE", "value": "d:2" })));
    assert!(env.contains(&json!({ "name": "RHUMB_PULL_POLICY", "value": "Never" })));
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
}

#[test]
fn limited_to_namespaces_there_is_nothing_cluster_wide() {
    let Some(rendered) = render(&["watchNamespaces={a,b}"]) else {
        return;
    };
    let limited = rendered.expect("rendered");
    for object in &limited {
        assert!(
            !object["kind"].as_str().expect("a kind").starts_with("Cluster"),
            "{}",
            object["kind"]
        );
    }
    let everywhere = render(&[]).expect("helm was there").expect("rendered");
    let rules = |objects: &[Value], kind: &str, namespace: &str| {
        let roles = kinds(objects, kind);
        let found = roles.iter().find(|role| {
            role["metadata"]["name"] == "rhumb-operator"
                && role["metadata"]["namespace"].as_str().unwrap_or_default() == namespace
        });
        found.map(|role| role["rules"].clone())
    };
    let cluster = rules(&everywhere, "ClusterRole", "").expect("a ClusterRole");
    for namespace in ["a", "b"] {
        assert_eq!(rules(&limited, "Role", namespace), Some(cluster.clone()));
    }
    let deployment = kinds(&limited, "Deployment").remove(0).to_string();
    assert!(deployment.contains(r#"{"name":"RHUMB_WATCH_NAMESPACES","value":"a,b"}"#));
}

#[test]
fn the_operator_cannot_list_secrets_nor_use_wildcards() {
    let Some(rendered) = render(&[]) else { return };
    for role in kinds(&rendered.expect("rendered"), "ClusterRole") {
        for rule in role["rules"].as_array().expect("rules") {
            let text = rule.to_string();
            assert!(!text.contains('*'), "{text}");
            if text.contains("secrets") {
                assert_eq!(rule["verbs"], json!(["get", "create", "patch"]));
            }
        }
    }
}

#[test]
fn values_the_chart_does_not_know_are_refused() {
    for wrong in [
        "image.pullPolicy=Sometimes",
        "imagee.operator=x",
        "watchNamespaces={Not_A_Name}",
        "replicas=-1",
    ] {
        let Some(rendered) = render(&[wrong]) else { return };
        assert!(rendered.is_err(), "{wrong} was accepted");
    }
}

#[test]
fn the_plain_manifests_are_the_chart() {
    let Some(rendered) = helm(&["template", "rhumb", "charts/rhumb", "--namespace", "rhumb-system"]) else {
        return;
    };
    let mut chart = documents(&rendered.expect("rendered"));
    fn strip(value: &mut Value) {
        if let Value::Object(map) = value {
            map.retain(|key, value| {
                key != "helm.sh/chart" && !(key == "app.kubernetes.io/managed-by" && value == "Helm")
            });
            map.values_mut().for_each(strip);
        }
    }
    chart.iter_mut().for_each(strip);
    let path = root().join("manifests/install/operator.yaml");
    let plain = documents(&std::fs::read_to_string(path).expect("the manifest"));
    assert_eq!(
        plain, chart,
        "./scripts/render-install.sh > manifests/install/operator.yaml"
    );
}
