//! What `make sbom` says of the programs, held against what cargo says.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// In the root of the repository; its output.
fn run(program: &str, arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(program).args(arguments).current_dir(root).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

/// `None` without a Python that reads TOML.
fn sbom(package: &str) -> Option<Value> {
    let probe = Command::new("python3").args(["-c", "import tomllib"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("NO PYTHON: python3 from 3.11 on is missing, the SBOM is not tested");
        return None;
    }
    let text = run("./scripts/sbom.py", &[package]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a root");
    assert!(
        !text.contains(&*root.to_string_lossy()),
        "it tells where it was made"
    );
    Some(serde_json::from_str(&text).expect("JSON"))
}

/// Name and version of the package and all it is built from.
fn tree(package: &str) -> BTreeSet<(String, String)> {
    let arguments = [
        "tree",
        "--locked",
        "-p",
        package,
        "-e",
        "normal,build",
        "--prefix",
        "none",
    ];
    let lines = run("cargo", &arguments);
    let lines = lines.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let (name, version) = (words.next().expect(line), words.next().expect(line));
            (name.to_owned(), version.trim_start_matches('v').to_owned())
        })
        .collect()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name}: {value}"))
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("no {name}"))
}

fn is_whole(component: &Value) {
    let purl = text(component, "purl");
    assert!(purl.starts_with("pkg:cargo/") && !purl.contains('+'), "{purl}");
    assert!(
        ["required", "excluded"].contains(&text(component, "scope")),
        "{component}"
    );
    assert!(!list(component, "licenses").is_empty(), "{component}");
    // Our own crates come from nowhere.
    if !text(component, "name").starts_with("rhumb-") {
        let hash = text(&component["hashes"][0], "content");
        let is_hex = hash.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(hash.len() == 64 && is_hex, "{component}");
    }
}

fn refers_to_what_is_there(sbom: &Value) {
    let own = &sbom["metadata"]["component"];
    let all = list(sbom, "components").iter().chain([own]);
    let refs: Vec<&str> = all.map(|component| text(component, "bom-ref")).collect();
    let known: BTreeSet<&str> = refs.iter().copied().collect();
    assert_eq!(known.len(), refs.len(), "a reference is there twice");
    let dependencies = list(sbom, "dependencies");
    assert_eq!(dependencies.len(), refs.len());
    for dependency in dependencies {
        let on = list(dependency, "dependsOn").iter().filter_map(Value::as_str);
        for found in on.chain([text(dependency, "ref")]) {
            assert!(known.contains(found), "{found}");
        }
    }
}

#[test]
fn a_program_is_made_of_what_cargo_builds_it_from() {
    for package in ["rhumb", "rhumb-operator"] {
        let Some(sbom) = sbom(package) else { return };
        assert_eq!(
            (text(&sbom, "bomFormat"), text(&sbom, "specVersion")),
            ("CycloneDX", "1.5")
        );
        let own = &sbom["metadata"]["component"];
        assert_eq!((text(own, "name"), text(own, "type")), (package, "application"));
        let components = list(&sbom, "components");
        components.iter().for_each(is_whole);
        refers_to_what_is_there(&sbom);
        let named = components.iter().chain([own]);
        let named: BTreeSet<(String, String)> = named
            .map(|component| {
                (
                    text(component, "name").to_owned(),
                    text(component, "version").to_owned(),
                )
            })
            .collect();
        assert_eq!(named, tree(package));
        assert_eq!(components.len() + 1, named.len());
        let has_lance = components.iter().any(|component| component["name"] == "lance");
        assert_eq!(has_lance, package == "rhumb");
    }
}
