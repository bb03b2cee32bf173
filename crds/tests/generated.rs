//! What is generated is current, small enough to apply, and safe for GitOps tools.

use std::path::Path;

use rhumb_crds::{all, generated};
use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn generated_files_are_current() {
    for (path, text) in generated().expect("serializable") {
        let found = std::fs::read_to_string(root().join(&path)).unwrap_or_default();
        assert!(
            found == text,
            "{path} is not current: cargo run -p rhumb-crds --bin crdgen"
        );
    }
}

#[test]
fn nothing_else_lies_beside_them() {
    let generated = generated().expect("serializable");
    for folder in ["crds/yaml", "charts/rhumb-crds/templates"] {
        for entry in std::fs::read_dir(root().join(folder)).expect("a folder") {
            let path = format!(
                "{folder}/{}",
                entry.expect("an entry").file_name().to_string_lossy()
            );
            assert!(
                generated.iter().any(|(known, _)| *known == path),
                "{path} is of no kind"
            );
        }
    }
}

#[test]
fn each_crd_fits_into_the_annotation_of_kubectl_apply() {
    for crd in all() {
        let size = json!(crd).to_string().len();
        assert!(size < 200_000, "{}: {size} bytes", crd.spec.names.kind);
    }
}

/// A default inside a list item is written into lists of the live object, and tools that
/// compare lists as a whole see a difference for ever.
#[test]
fn no_default_stands_inside_a_list() {
    fn search(schema: &Value, inside_list: bool, path: &str, found: &mut Vec<String>) {
        if inside_list && !schema["default"].is_null() {
            found.push(path.to_owned());
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            search(property, inside_list, &format!("{path}.{name}"), found);
        }
        if schema["items"].is_object() {
            search(&schema["items"], true, &format!("{path}[]"), found);
        }
    }
    let mut found = Vec::new();
    for crd in all() {
        let schema = json!(
            crd.spec.versions[0]
                .schema
                .as_ref()
                .and_then(|s| s.open_api_v3_schema.as_ref())
        );
        search(&schema, false, &crd.spec.names.kind, &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn status_is_a_subresource_of_each_and_the_database_scales() {
    for crd in all() {
        let subresources = crd.spec.versions[0].subresources.clone().expect("subresources");
        assert!(subresources.status.is_some());
        assert_eq!(
            subresources.scale.is_some(),
            crd.spec.names.kind == "VectorDatabase"
        );
    }
}
