{{- define "nantian-gw.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "nantian-gw.namespace" -}}
{{- default .Release.Namespace .Values.namespace.name -}}
{{- end -}}

{{- define "nantian-gw.isShim" -}}
{{- if eq .Values.controlplane.implementation "shim" }}true{{ end -}}
{{- end -}}

{{/* Call with (list . "dataplane"); the component may be empty. */}}
{{- define "nantian-gw.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "nantian-gw.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{ include "nantian-gw.selectorLabels" . }}
app.kubernetes.io/part-of: nantian-gw
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- end -}}

{{/* Labels of pods: without versions, which would replace every pod with the chart. (list . "dataplane" podLabels) */}}
{{- define "nantian-gw.podLabels" -}}
{{- include "nantian-gw.selectorLabels" . }}
app.kubernetes.io/part-of: nantian-gw
{{- with merge (deepCopy (index . 2)) (index . 0).Values.global.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Metadata of an object: (dict "root" . "name" "…" "component" "…" "labels" map "annotations" map "cluster" bool "namespace" "…"). */}}
{{- define "nantian-gw.metadata" -}}
{{- $annotations := merge (deepCopy (default dict .annotations)) .root.Values.global.commonAnnotations -}}
name: {{ .name }}
{{- if not .cluster }}
namespace: {{ default (include "nantian-gw.namespace" .root) .namespace }}
{{- end }}
labels:
  {{- include "nantian-gw.labels" (list .root (default "" .component)) | nindent 2 }}
  {{- with merge (deepCopy (default dict .labels)) .root.Values.global.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Call with (list . image). */}}
{{- define "nantian-gw.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := default $root.Values.global.imageRegistry $image.registry -}}
{{- if and $registry (ne $registry "-") }}{{ $registry }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default $root.Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{- define "nantian-gw.controlplane.image" -}}
{{- if include "nantian-gw.isShim" . -}}
{{- include "nantian-gw.image" (list . .Values.controlplane.shim.image) -}}
{{- else -}}
{{- include "nantian-gw.image" (list . .Values.controlplane.image) -}}
{{- end -}}
{{- end -}}

{{/* Namespaces that the shim follows, the release's own with them, as JSON; none for all. */}}
{{- define "nantian-gw.watchNamespaces" -}}
{{- $named := .Values.controlplane.shim.watchNamespaces -}}
{{- if $named }}{{ append $named (include "nantian-gw.namespace" .) | uniq | sortAlpha | toJson }}{{ else }}[]{{ end -}}
{{- end -}}

{{- define "nantian-gw.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- default (printf "%s-%s" (include "nantian-gw.fullname" $root) $component) (index $root.Values $component).serviceAccount.name -}}
{{- end -}}

{{- define "nantian-gw.controlplane.host" -}}
{{ include "nantian-gw.fullname" . }}-controlplane.{{ include "nantian-gw.namespace" . }}.svc
{{- end -}}

{{- define "nantian-gw.serverSecret" -}}
{{- default (printf "%s-grpc-server-tls" (include "nantian-gw.fullname" .)) .Values.controlplane.grpcTLS.existingSecret -}}
{{- end -}}

{{- define "nantian-gw.clientSecret" -}}
{{- default (printf "%s-grpc-client-tls" (include "nantian-gw.fullname" .)) .Values.dataplane.xdsTLS.existingSecret -}}
{{- end -}}

{{/* Which certificates of the stream the chart makes itself, as JSON: "server", "client", both or none. */}}
{{- define "nantian-gw.ownCertificates" -}}
{{- $made := list -}}
{{- if and .Values.certs.generate (not .Values.certs.certManager.enabled) -}}
{{- if and .Values.controlplane.enabled .Values.controlplane.grpcTLS.enabled (not .Values.controlplane.grpcTLS.existingSecret) -}}
{{- $made = append $made "server" -}}
{{- end -}}
{{- if and .Values.dataplane.enabled .Values.dataplane.xdsTLS.enabled (not .Values.dataplane.xdsTLS.existingSecret) -}}
{{- $made = append $made "client" -}}
{{- end -}}
{{- end -}}
{{- $made | toJson -}}
{{- end -}}

{{- define "nantian-gw.adminSecret" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- default (printf "%s-%s-admin-auth" (include "nantian-gw.fullname" $root) $component) (index $root.Values $component).adminAuth.existingSecret -}}
{{- end -}}

{{- define "nantian-gw.sessionSecret" -}}
{{- default (printf "%s-dataplane-session-persistence" (include "nantian-gw.fullname" .)) .Values.dataplane.sessionPersistence.existingSecret -}}
{{- end -}}

{{- define "nantian-gw.priorityClass" -}}
{{- default (printf "%s-critical" (include "nantian-gw.fullname" .)) .Values.priorityClass.name -}}
{{- end -}}

{{/* What the pods of both have in common: (list . "dataplane"). */}}
{{- define "nantian-gw.podPlace" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component -}}
{{- with $root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or $values.priorityClassName $root.Values.priorityClass.create }}
priorityClassName: {{ default (include "nantian-gw.priorityClass" $root) $values.priorityClassName }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $values.affinity }}
affinity:
  {{- toYaml $values.affinity | nindent 2 }}
{{- else if eq $values.antiAffinity "hard" }}
affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "nantian-gw.selectorLabels" . | nindent 12 }}
{{- else if eq $values.antiAffinity "soft" }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "nantian-gw.selectorLabels" . | nindent 14 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml . | nindent 4 | trim }}
    {{- if not .labelSelector }}
    labelSelector:
      matchLabels:
        {{- include "nantian-gw.selectorLabels" (list $root $component) | nindent 8 }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/*
How old pods give way to new ones: (list . "dataplane" strategy). Where two cannot run beside each other
on a node, the old one goes first. Kubernetes refuses nought for both, and for a DaemonSet anything else
for both, so what is said of one decides the other.
*/}}
{{- define "nantian-gw.strategy" -}}
{{- $strategy := deepCopy (default dict (index . 2)) -}}
{{- if eq (default "RollingUpdate" $strategy.type) "RollingUpdate" -}}
{{- $steps := default dict $strategy.rollingUpdate -}}
{{- $surge := $steps.maxSurge -}}
{{- $unavailable := $steps.maxUnavailable -}}
{{- $nought := list "0" "0%" -}}
{{- if kindIs "invalid" $surge -}}
{{- if kindIs "invalid" $unavailable -}}
{{- $unavailable = ternary 1 0 (include "nantian-gw.isAloneOnNode" . | eq "true") -}}
{{- end -}}
{{- $surge = ternary 1 0 (has (toString $unavailable) $nought) -}}
{{- else if kindIs "invalid" $unavailable -}}
{{- $unavailable = ternary 1 0 (has (toString $surge) $nought) -}}
{{- end -}}
{{- $_ := set $strategy "rollingUpdate" (dict "maxSurge" $surge "maxUnavailable" $unavailable) -}}
{{- end -}}
{{- toYaml $strategy -}}
{{- end -}}

{{/* Two pods cannot be on one node: they take a port of it, or keep off each other. */}}
{{- define "nantian-gw.isAloneOnNode" -}}
{{- $values := index (index . 0).Values (index . 1) -}}
{{- $alone := or $values.hostNetwork (and (eq $values.antiAffinity "hard") (not $values.affinity)) | not | not -}}
{{- range $values.extraContainers -}}
{{- range .ports -}}
{{- if .hostPort }}{{ $alone = true }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $alone -}}
{{- end -}}

{{/* Peers of a NetworkPolicy: the namespaces from which admin APIs and metrics may be reached. */}}
{{- define "nantian-gw.adminPeers" -}}
{{- $namespaces := default list .Values.networkPolicies.adminFrom -}}
{{- range .Values.serviceMonitor.fromNamespaces -}}
{{- $namespaces = append $namespaces (dict "kubernetes.io/metadata.name" .) -}}
{{- end -}}
{{- range $namespaces | uniq }}
- namespaceSelector:
    matchLabels:
      {{- toYaml . | nindent 6 }}
{{- end }}
{{- end -}}

{{/* Where both may ask for names. */}}
{{- define "nantian-gw.dnsEgress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end -}}

{{/* What is wrong between values; the schema says what is wrong with one. */}}
{{- define "nantian-gw.check" -}}
{{- if and (not .Values.controlplane.enabled) .Values.dataplane.enabled (not .Values.dataplane.config.controlPlaneAddr) }}
{{- fail "controlplane.enabled is false: set dataplane.config.controlPlaneAddr to the control plane's address, such as https://host:18080" }}
{{- end }}
{{- if and .Values.gatewayAPI.installCRDs .Values.gatewayAPI.installExperimentalCRDs }}
{{- fail "gatewayAPI.installCRDs and gatewayAPI.installExperimentalCRDs exclude each other: choose one channel" }}
{{- end }}
{{- if and .Values.gatewayAPI.installCRDs (eq (toString .Values.gatewayAPI.channel) "experimental") }}
{{- fail "gatewayAPI.channel is experimental: set gatewayAPI.installExperimentalCRDs instead of gatewayAPI.installCRDs" }}
{{- end }}
{{- $asks := or .Values.serviceMonitor.enabled .Values.podMonitor.enabled (and .Values.controlplane.enabled (not (include "nantian-gw.isShim" .))) }}
{{- if and .Values.dataplane.enabled .Values.dataplane.adminAuth.bearerTokenFile (not .Values.dataplane.adminAuth.existingSecret) $asks }}
{{- fail "dataplane.adminAuth.bearerTokenFile is known to data planes alone: name a Secret with the same token in dataplane.adminAuth.existingSecret, for monitors and the control plane" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled }}
{{- fail "serviceMonitor.enabled and podMonitor.enabled would count every data plane twice: choose one" }}
{{- end }}
{{- if and .Values.controlplane.shim.watchNamespaces (not (include "nantian-gw.isShim" .)) }}
{{- fail "controlplane.shim.watchNamespaces needs controlplane.implementation shim: the other control plane follows the whole cluster" }}
{{- end }}
{{- $needed := add (div (int .Values.dataplane.gracefulDrainPeriodMs) 1000) (int .Values.dataplane.preStopSleepSeconds) }}
{{- if lt (int .Values.dataplane.terminationGracePeriodSeconds) (int $needed) }}
{{- fail (printf "dataplane.terminationGracePeriodSeconds must be at least %d: preStopSleepSeconds and gracefulDrainPeriodMs together" (int $needed)) }}
{{- end }}
{{- if and .Values.controlplane.enabled .Values.dataplane.enabled (ne .Values.controlplane.grpcTLS.enabled .Values.dataplane.xdsTLS.enabled) }}
{{- fail "controlplane.grpcTLS.enabled and dataplane.xdsTLS.enabled must agree: both ends of the stream speak TLS, or none" }}
{{- end }}
{{- $isLive := lookup "v1" "Namespace" "" "kube-system" }}
{{- if and $isLive .Values.gatewayClass.enabled (not (or .Values.gatewayAPI.installCRDs .Values.gatewayAPI.installExperimentalCRDs (.Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1/GatewayClass"))) }}
{{- fail (printf "the Gateway API's CRDs are not installed: kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.5.1/%s-install.yaml, or set gatewayAPI.installCRDs" .Values.featureMode) }}
{{- end }}
{{- end -}}
