#!/usr/bin/env bash
# Prints manifests/install/operator.yaml: the chart as plain manifests.
#   ./scripts/render-install.sh > manifests/install/operator.yaml
set -euo pipefail
cd "$(dirname "$0")/.."
helm=$(./scripts/helm.sh)
echo "# Rendered from charts/rhumb by scripts/render-install.sh: do not edit."
# Nobody but Helm should find Helm's marks on objects.
"$helm" template rhumb charts/rhumb --namespace rhumb-system |
    grep -vE '^ *(app.kubernetes.io/managed-by: Helm|helm.sh/chart: .*)$|^# Source: '
