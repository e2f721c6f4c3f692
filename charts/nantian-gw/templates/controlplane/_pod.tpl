{{/* The settings file of either control plane; controlplane.config is laid over it. */}}
{{- define "nantian-gw.controlplane.config" -}}
{{- $values := .Values.controlplane -}}
{{- $isShim := include "nantian-gw.isShim" . -}}
{{- $fullname := include "nantian-gw.fullname" . -}}
{{- $namespace := include "nantian-gw.namespace" . -}}
{{- $dataplanes := printf "%s/%s-dataplane" $namespace $fullname -}}
{{- $tls := dict "enabled" false -}}
{{- if $values.grpcTLS.enabled -}}
{{- $tls = dict "enabled" true
  "certPath" "/etc/nantian-gw/grpc-tls/tls.crt"
  "keyPath" "/etc/nantian-gw/grpc-tls/tls.key"
  "requireClientCert" $values.grpcTLS.requireClientCert -}}
{{- if $values.grpcTLS.requireClientCert -}}
{{- $_ := set $tls "clientCAPath" "/etc/nantian-gw/grpc-tls/ca.crt" -}}
{{- end -}}
{{- end -}}
{{- $config := dict
  "grpcAddr" (ternary "0.0.0.0:18080" ":18080" (eq $isShim "true"))
  "adminAddr" (ternary "0.0.0.0:18081" ":18081" (eq $isShim "true"))
  "controllerName" .Values.gatewayClass.controllerName
  "grpcTLS" $tls
  "adminAuth" (dict "bearerTokenFile" "/etc/nantian-gw/admin-auth/token")
  "leaderElection" (dict "enabled" true "id" "nantian-controlplane-leader")
-}}
{{- if $isShim -}}
{{- $_ := set $config.leaderElection "namespace" $namespace -}}
{{- /* Data planes reach it through its Service, which holds ready pods alone. */ -}}
{{- $_ := set $config "grpcRuntime" (dict "permitWithoutStream" true) -}}
{{- with include "nantian-gw.watchNamespaces" . | fromJsonArray -}}
{{- $_ := set $config "watchNamespaces" . -}}
{{- end -}}
{{- $addresses := dict "strategy" $values.shim.addresses.strategy -}}
{{- if eq $values.shim.addresses.strategy "service" -}}
{{- $addresses = merge $addresses (dict "serviceType" $values.shim.addresses.serviceType "dataPlaneService" $dataplanes) -}}
{{- end -}}
{{- $_ := set $config "addresses" $addresses -}}
{{- if $values.shim.mesh.enabled -}}
{{- $_ := set $config "mesh" (dict "enabled" true "dataPlaneService" $dataplanes) -}}
{{- end -}}
{{- else -}}
{{- $config = merge $config (dict
  "metricsAddr" ":18082"
  "healthProbeAddr" ":18083"
  "nodeStatus" (dict "namespace" $namespace)
  "infra" (dict "dataplaneAdminPort" (int .Values.dataplane.ports.admin))
  "dashboardApi" (dict "enabled" true "resourceMutationsEnabled" false)
  "features" (dict "enableExperimentalGateway" (eq .Values.featureMode "experimental") "enableAiGateway" false)
) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy $values.config)) -}}
{{- end -}}

{{/* How its admin API is spoken to: `https` where controlplane.config.adminTLS is on. */}}
{{- define "nantian-gw.controlplane.adminScheme" -}}
{{- $tls := default dict .Values.controlplane.config.adminTLS -}}
{{- ternary "https" "http" (eq (toString $tls.enabled) "true") -}}
{{- end -}}

{{- define "nantian-gw.controlplane.pod" -}}
{{- $values := .Values.controlplane -}}
{{- $isShim := include "nantian-gw.isShim" . -}}
{{- $image := ternary $values.shim.image $values.image (eq $isShim "true") -}}
{{- $args := list "-config" "/etc/nantian-gw/config.yaml" -}}
{{- $scheme := ternary ", scheme: HTTPS" "" (eq (include "nantian-gw.controlplane.adminScheme" .) "https") -}}
{{- /* The health of the production control plane has a port of its own, without TLS. */ -}}
{{- $healthScheme := ternary $scheme "" (eq $isShim "true") -}}
{{- if $isShim }}{{ $args = list "--log" $values.shim.log "serve" "--source" "kube" "--config" "/etc/nantian-gw/config.yaml" }}{{ end -}}
metadata:
  labels:
    {{- include "nantian-gw.podLabels" (list . "controlplane" $values.podLabels) | nindent 4 }}
  annotations:
    checksum/config: {{ include "nantian-gw.controlplane.config" . | sha256sum }}
    {{- with merge (deepCopy $values.podAnnotations) .Values.global.commonAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "nantian-gw.serviceAccount" (list . "controlplane") }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
  securityContext:
    {{- toYaml $values.podSecurityContext | nindent 4 }}
  {{- with include "nantian-gw.podPlace" (list . "controlplane") | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: controlplane
      image: {{ include "nantian-gw.controlplane.image" . }}
      imagePullPolicy: {{ $image.pullPolicy }}
      args:
        {{- toYaml (default $args $values.args) | nindent 8 }}
      env:
        - name: POD_NAMESPACE
          valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: grpc, containerPort: 18080, protocol: TCP}
        - {name: admin, containerPort: 18081, protocol: TCP}
        {{- if not $isShim }}
        - {name: metrics, containerPort: 18082, protocol: TCP}
        - {name: healthz, containerPort: 18083, protocol: TCP}
        {{- end }}
      startupProbe:
        httpGet: {path: {{ ternary "/livez" "/readyz" (eq $isShim "true") }}, port: {{ ternary "admin" "healthz" (eq $isShim "true") }}{{ $healthScheme }}}
        {{- toYaml $values.probes.startup | nindent 8 }}
      livenessProbe:
        httpGet: {path: {{ ternary "/livez" "/healthz" (eq $isShim "true") }}, port: {{ ternary "admin" "healthz" (eq $isShim "true") }}{{ $healthScheme }}}
        {{- toYaml $values.probes.liveness | nindent 8 }}
      readinessProbe:
        httpGet: {path: /readyz, port: admin{{ $scheme }}}
        {{- toYaml $values.probes.readiness | nindent 8 }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      securityContext:
        {{- toYaml $values.containerSecurityContext | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/nantian-gw, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      projected:
        defaultMode: 288 # 0440
        sources:
          - configMap: {name: {{ include "nantian-gw.fullname" . }}-controlplane-config}
          - secret:
              name: {{ include "nantian-gw.adminSecret" (list . "controlplane") }}
              items: [{key: {{ $values.adminAuth.secretKey }}, path: admin-auth/token}]
          {{- if $values.grpcTLS.enabled }}
          - secret:
              name: {{ include "nantian-gw.serverSecret" . }}
              items:
                - {key: tls.crt, path: grpc-tls/tls.crt}
                - {key: tls.key, path: grpc-tls/tls.key}
                - {key: ca.crt, path: grpc-tls/ca.crt}
          {{- end }}
          {{- if and .Values.dataplane.enabled (not $isShim) }}
          # It asks data planes for their summaries.
          - secret:
              name: {{ include "nantian-gw.adminSecret" (list . "dataplane") }}
              items: [{key: {{ .Values.dataplane.adminAuth.secretKey }}, path: dataplane-admin-auth/token}]
          {{- end }}
    - name: tmp
      emptyDir: {sizeLimit: 128Mi}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
