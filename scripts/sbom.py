#!/usr/bin/env python3
"""Prints what a program is made of, as a CycloneDX 1.5 document.

    sbom.py PACKAGE [TARGET]        by default for the platform of this machine

What is in it is what `cargo tree` says, since it alone resolves the features of one program
and not those of the whole workspace.  Crates that only help to build are in it with the
scope `excluded`.  The same Cargo.lock gives the same bytes.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent


def run(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def tree(package, target, edges):
    """(name, version) of the package and of everything under it."""
    lines = run(
        "cargo", "tree", "--locked", "--package", package, "--target", target,
        "--edges", edges, "--prefix", "none", "--format", "{p}",
    ).splitlines()
    return {(name, version.removeprefix("v")) for name, version, *_ in map(str.split, filter(None, lines))}


def ref(name, version):
    return f"pkg:cargo/{name}@{quote(version, safe='')}"


def component(package, kind, checksums):
    name, version = package["name"], package["version"]
    found = {"type": kind, "bom-ref": ref(name, version), "name": name, "version": version}
    if checksum := checksums.get((name, version)):
        found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if expression := package["license"]:
        # Before there were SPDX expressions, a slash stood for OR.
        either = map(str.strip, expression.split("/"))
        found["licenses"] = [{"expression": " OR ".join(either)}]
    elif package["license_file"]:
        found["licenses"] = [{"license": {"name": f"see {package['license_file']} in the crate"}}]
    found["purl"] = ref(name, version)
    if package["repository"]:
        found["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return found


def dependencies(metadata, names):
    """Who is linked to or built with whom, among those in `names`."""
    by_id = {package["id"]: (package["name"], package["version"]) for package in metadata["packages"]}
    for node in metadata["resolve"]["nodes"]:
        if by_id[node["id"]] not in names:
            continue
        on = {
            by_id[dep["pkg"]]
            for dep in node["deps"]
            if any(kind["kind"] in (None, "build") for kind in dep["dep_kinds"])
        }
        yield {"ref": ref(*by_id[node["id"]]), "dependsOn": sorted(ref(*name) for name in on & names)}


def sbom(program, target):
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(p["name"], p["version"]): p["checksum"] for p in lock if "checksum" in p}
    metadata = json.loads(
        run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target)
    )
    packages = {(p["name"], p["version"]): p for p in metadata["packages"]}
    linked = tree(program, target, "normal,no-proc-macro")
    names = tree(program, target, "normal,build")
    (own,) = (name for name in names if name[0] == program)
    components = []
    for name in sorted(names - {own}):
        found = component(packages[name], "library", checksums)
        components.append(found | {"scope": "required" if name in linked else "excluded"})
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": component(packages[own], "application", checksums),
            "properties": [{"name": "cargo:target", "value": target}],
        },
        "components": components,
        "dependencies": sorted(dependencies(metadata, names), key=lambda found: found["ref"]),
    }


def host():
    lines = run("rustc", "-vV").splitlines()
    return next(line.removeprefix("host: ") for line in lines if line.startswith("host: "))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    json.dump(sbom(sys.argv[1], (sys.argv[2:] or [host()])[0]), sys.stdout, indent=1)
    print()
