{{/* Names, labels, images, and the table of what each service is. */}}

{{- define "callwarden.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- /* No dots: the pod's name is part of keys in NATS. 40: a service's name and a hash come behind it. */ -}}
{{- default $full .Values.fullnameOverride | replace "." "-" | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of a service's objects. Takes root and name. */}}
{{- define "callwarden.name" -}}
{{- printf "%s-%s" (include "callwarden.fullname" .root) .name -}}
{{- end -}}

{{/* What selects a service's pods. Takes root and name. */}}
{{- define "callwarden.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/part-of: callwarden
{{- end -}}

{{/* Labels of pods: nothing of a release, or each upgrade would restart pods that it doesn't change. Takes root and name. */}}
{{- define "callwarden.pod-labels" -}}
{{ include "callwarden.selector" . }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{/* Labels of a service's objects. Takes root and name. */}}
{{- define "callwarden.labels" -}}
{{ include "callwarden.selector" . }}
app.kubernetes.io/component: {{ .name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The image of one of our members. Takes root and name. */}}
{{- define "callwarden.image" -}}
{{- $image := .root.Values.image -}}
{{- $path := printf "%s/%s" $image.repository .name -}}
{{- if $image.registry }}{{ $path = printf "%s/%s" $image.registry $path }}{{ end -}}
{{- $digest := get $image.digests .name -}}
{{- if $digest }}{{ $path }}@{{ $digest }}{{ else }}{{ $path }}:{{ default .root.Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{/* An image that isn't ours. Takes repository, tag and digest. */}}
{{- define "callwarden.foreign-image" -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end -}}
{{- end -}}

{{/* `over` laid over `base`, deeply, as YAML. Unlike mergeOverwrite it lets false, 0 and "" win. */}}
{{- define "callwarden.merge" -}}
{{- $out := deepCopy .base -}}
{{- range $key, $value := .over -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $out $key)) -}}
{{- $_ := set $out $key (fromYaml (include "callwarden.merge" (dict "base" (get $out $key) "over" $value))) -}}
{{- else -}}
{{- $_ := set $out $key $value -}}
{{- end -}}
{{- end -}}
{{- toYaml $out -}}
{{- end -}}

{{/* A setting's value as the environment takes it: YAML's numbers come as floats, 2000000 as 2e+06. */}}
{{- define "callwarden.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* What the services are: facts of the code, not choices of whoever installs them. NetworkPolicies, environment and
     Services follow from this table.
     serves: others call its gRPC. database, nats: what it keeps and hears. calls: whom it asks, by the variable that
     names their addresses. kubernetes: it talks to the API server. member: whose image and database role it has, if
     not its own. */}}
{{- define "callwarden.catalogue" -}}
edge-proxy:
  command: callwarden-edge-proxy
  serves: false
  database: false
  nats: true
  calls: {auth: AUTH_TARGETS, call-admission: ADMISSION_TARGETS, rate-guard: RATE_GUARD_TARGETS}
  kubernetes: false
auth:
  command: callwarden-auth
  serves: true
  database: true
  nats: true
  calls: {}
  kubernetes: false
rate-guard:
  command: callwarden-rate-guard
  serves: true
  database: false
  nats: true
  calls: {}
  kubernetes: false
call-admission:
  command: callwarden-call-admission
  serves: true
  database: true
  nats: true
  calls: {rating: RATING_TARGETS}
  kubernetes: false
administration:
  command: callwarden-call-admission-administration
  member: call-admission
  serves: true
  database: true
  nats: true
  calls: {rating: RATING_TARGETS}
  kubernetes: false
rating:
  command: callwarden-rating
  serves: true
  database: true
  nats: true
  calls: {}
  kubernetes: false
payment:
  command: callwarden-payment
  serves: true
  database: true
  nats: true
  calls: {}
  kubernetes: false
security-policy:
  command: callwarden-security-policy-operator
  serves: false
  database: false
  nats: true
  calls: {administration: ADMINISTRATION, rate-guard: RATE_GUARD, rating: RATING}
  kubernetes: true
{{- end -}}

{{/* Every enabled service, by name: its facts and its values together, as YAML. */}}
{{- define "callwarden.services" -}}
{{- $root := . -}}
{{- range $name, $facts := fromYaml (include "callwarden.catalogue" .) }}
{{- $over := default dict (get $root.Values.services $name) }}
{{- if $over.enabled }}
{{ $name }}:
  {{- $values := fromYaml (include "callwarden.merge" (dict "base" $root.Values.defaults "over" $over)) }}
  {{- $edge := eq $name "edge-proxy" }}
  {{- $daemon := and $edge (eq $root.Values.edge.kind "DaemonSet") }}
  {{- toYaml (merge (dict "edge" $edge "daemon" $daemon) $facts $values) | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Who may be what in a restricted namespace. Takes the user's number. */}}
{{- define "callwarden.pod-security" -}}
runAsNonRoot: true
runAsUser: {{ int64 . }}
runAsGroup: {{ int64 . }}
fsGroup: {{ int64 . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "callwarden.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
privileged: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "callwarden.pull-secrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The Secret with a service's certificate. Takes root and name. */}}
{{- define "callwarden.tls-secret" -}}
{{- default (printf "%s-tls" (include "callwarden.name" .)) (get .root.Values.tls.secrets .name) -}}
{{- end -}}
