#!/usr/bin/env python3
"""What the operator and data nodes may do, against what they did: an API server's audit log.

    rights.py WORK_FOLDER       of a cluster that was brought up with RHUMB_AUDIT=1

Exits with 1 when a right was never used, or the operator lacked one.  The operator has to hold
every right that it gives to data nodes: those count as used once it gave them.  Data nodes are
refused when their namespace goes, roles first.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

OPERATOR = "system:serviceaccount:rhumb-system:rhumb-operator"


def kubectl(work, *arguments):
    command = ["kubectl", f"--kubeconfig={work}/admin.conf", *arguments, "-o", "json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def rights(rules):
    """(verb, group, resource) of each right of a role; names of single objects do not count."""
    return {
        (verb, group, resource)
        for rule in rules or []
        for group in rule.get("apiGroups", [])
        for resource in rule.get("resources", [])
        for verb in rule["verbs"]
    }


def operators(work):
    held = set()
    for kind in ("clusterroles", "roles"):
        for role in kubectl(work, "get", kind, "-A", "-l", "app.kubernetes.io/name=rhumb-operator")["items"]:
            held |= rights(role["rules"])
    return held


def used(event):
    about = event["objectRef"]
    resource = about["resource"]
    if about.get("subresource"):
        resource += "/" + about["subresource"]
    return event["verb"], about.get("apiGroup", ""), resource


def read(log):
    """What each kind of account did and was refused, and what the operator gave data nodes."""
    did = {"operator": Counter(), "data node": Counter()}
    refused = {"operator": Counter(), "data node": Counter()}
    given = set()
    accounts = set()
    events = [json.loads(line) for line in log.open()]
    for event in events:
        if event["user"]["username"] != OPERATOR or event.get("objectRef", {}).get("resource") != "roles":
            continue
        role = event.get("requestObject") or {}
        given |= rights(role.get("rules"))
        about = event["objectRef"]
        if about.get("name"):
            accounts.add(f"system:serviceaccount:{about['namespace']}:{about['name']}")
    for event in events:
        user = event["user"]["username"]
        who = "operator" if user == OPERATOR else "data node" if user in accounts else None
        if who is None or "objectRef" not in event:
            continue
        # Not what admission refused, as in a namespace that is going.
        is_forbidden = event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid"
        (refused if is_forbidden else did)[who][used(event)] += 1
        verb, *what = used(event)
        # An apply that makes an object needs both rights.
        if verb == "patch" and event.get("responseStatus", {}).get("code") == 201:
            did[who][("create", *what)] += 1
    return did, refused, given


def main():
    work = Path(sys.argv[1])
    did, refused, given = read(work / "audit.log")
    held = {"operator": operators(work), "data node": given}
    if not all(held.values()) or not all(did.values()):
        sys.exit("nothing to compare: no right, or nothing that was done")
    wrong = 0
    for who in held:
        needed = set(did[who]) | (given if who == "operator" else set())
        unused = held[who] - needed
        wrong += len(unused) + (len(refused[who]) if who == "operator" else 0)
        print(f"{who}: {len(held[who])} rights, {len(held[who] & set(did[who]))} used")
        for right in sorted(unused):
            print("  never used:", *right)
        for right, times in sorted(refused[who].items()):
            print(f"  refused {times} times:", *right)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
