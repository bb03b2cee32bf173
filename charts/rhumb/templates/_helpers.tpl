{{- define "rhumb.name" -}}
{{ if contains "rhumb" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-rhumb" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}-operator
{{- end }}

{{- define "rhumb.selector" -}}
app.kubernetes.io/name: rhumb-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rhumb.labels" -}}
{{ include "rhumb.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* What the operator does, verb by verb. What data nodes are granted must be in it:
       nobody may grant what it has not. */ -}}
{{- define "rhumb.rules" -}}
- apiGroups: [rhumb.dev]
  resources: [vectordatabases]
  verbs: [get, list, watch]
- apiGroups: [rhumb.dev]
  resources: [collections]
  verbs: [list, watch, patch]
- apiGroups: [rhumb.dev]
  resources: [shards]
  verbs: [list, watch, create, patch]
- apiGroups: [rhumb.dev]
  resources: [vectordatabases/status, collections/status, shards/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch, create, patch]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [list, create, patch]
# By name alone: no Secret is listed.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch, create, patch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [list, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list, create, patch, delete]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, create, update, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
