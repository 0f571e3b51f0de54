{{/* The environment of a service's process. Takes root, name and svc (an entry of callwarden.services).
     Each CALLWARDEN_ name is a field of the service's settings; tests/chart compares them. */}}
{{- define "callwarden.environment" -}}
{{- $root := .root -}}
{{- $svc := .svc -}}
{{- $values := $root.Values -}}
- name: CALLWARDEN_INSTANCE
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- if $svc.kubernetes }}
- name: CALLWARDEN_LEASE_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- end }}
{{- if or $svc.edge (eq .name "rate-guard") }}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end }}
- name: CALLWARDEN_LOG_LEVEL
  value: {{ $values.logLevel }}
- name: CALLWARDEN_METRICS_LISTEN
  # On the node's network: its own address, not all that it has.
  value: {{ printf "%s:%d" (ternary "$(POD_IP)" $values.listenHost $svc.daemon) (int $svc.metricsPort) | quote }}
{{- if $svc.serves }}
- name: CALLWARDEN_GRPC_LISTEN
  value: {{ printf "%s:%d" $values.listenHost (int $svc.grpcPort) | quote }}
{{- end }}
- name: CALLWARDEN_START_TIMEOUT_S
  # NATS may come up later than its users: they wait, not ready, rather than crash again and again.
  value: "600"
- name: CALLWARDEN_DRAIN_TIMEOUT_S
  value: {{ $svc.drainTimeoutSeconds | quote }}
{{- if $svc.nats }}
- name: CALLWARDEN_NATS_URL
  valueFrom: {secretKeyRef: {name: {{ $values.secrets.nats | quote }}, key: {{ ternary .name "url" $values.nats.users }}}}
- name: CALLWARDEN_NATS_REPLICAS
  value: {{ $values.nats.replicas | quote }}
{{- end }}
{{- if $svc.database }}
- name: CALLWARDEN_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ $values.secrets.database | quote }}, key: {{ default .name $svc.member }}}}
- name: CALLWARDEN_DATABASE_CONNECTIONS_MAX
  value: {{ $svc.databaseConnections | quote }}
{{- end }}
{{- with $values.telemetry.otlpEndpoint }}
- name: CALLWARDEN_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
- name: CALLWARDEN_TRACE_SAMPLE_RATIO
  value: {{ $values.telemetry.traceSampleRatio | quote }}
{{- if not $values.tls.enabled }}
- name: CALLWARDEN_TOKEN_FILE
  value: /var/run/callwarden/tokens/token
- name: CALLWARDEN_CALLERS_FILE
  value: /var/run/callwarden/tokens/callers.json
{{- else }}
- name: CALLWARDEN_TLS_CERT
  value: /var/run/callwarden/tls/tls.crt
- name: CALLWARDEN_TLS_KEY
  value: /var/run/callwarden/tls/tls.key
- name: CALLWARDEN_TLS_CA
  value: /var/run/callwarden/tls/ca.crt
{{- end }}
{{- range $called, $variable := $svc.calls }}
{{- $peer := get $.services $called }}
{{- if $peer }}
- name: CALLWARDEN_{{ $variable }}
  value: {{ printf "%s:%d" (include "callwarden.name" (dict "root" $root "name" $called)) (int $peer.grpcPort) }}
{{- end }}
{{- end }}
{{- if or $svc.edge (eq .name "rate-guard") }}
- name: CALLWARDEN_REALMS
  value: {{ join "," $values.realms | quote }}
{{- end }}
{{- if $svc.edge }}
- name: CALLWARDEN_SIP_LISTEN
  value: {{ printf "%s:%d" (ternary "$(POD_IP)" $values.listenHost $svc.daemon) (int $values.edge.sip.port) | quote }}
- name: CALLWARDEN_SIP_ADVERTISED
  value: {{ default (printf "$(POD_IP):%d" (int $values.edge.sip.port)) $values.edge.sip.advertised | quote }}
- name: CALLWARDEN_SPOOL_DIR
  value: /var/lib/callwarden/spool
- name: CALLWARDEN_NONCE_KEY
  valueFrom: {secretKeyRef: {name: {{ $values.secrets.edgeProxy | quote }}, key: nonce-key}}
{{- end }}
{{- if eq .name "rate-guard" }}
- name: CALLWARDEN_ADVERTISE
  value: {{ printf "$(POD_IP):%d" (int $svc.grpcPort) | quote }}
{{- with $values.ownAddresses }}
- name: CALLWARDEN_OWN_ADDRESSES
  value: {{ join "," . | quote }}
{{- end }}
{{- end }}
{{- if eq .name "auth" }}
- name: CALLWARDEN_CREDENTIAL_KEY
  valueFrom: {secretKeyRef: {name: {{ $values.secrets.auth | quote }}, key: credential-key}}
- name: CALLWARDEN_CREDENTIAL_KEYS_OLD
  valueFrom: {secretKeyRef: {name: {{ $values.secrets.auth | quote }}, key: credential-keys-old, optional: true}}
{{- end }}
{{- range $setting, $value := $svc.settings }}
- name: CALLWARDEN_{{ upper $setting }}
  value: {{ include "callwarden.text" $value | quote }}
{{- end }}
{{- end -}}
