{{/* The settings file. What the chart knows comes first, dataplane.config is laid over it. */}}
{{- define "nantian-gw.dataplane.config" -}}
{{- $values := .Values.dataplane -}}
{{- $scheme := ternary "https" "http" $values.xdsTLS.enabled -}}
{{- $log := ternary (printf "%s/access.log" $values.accessLogVolume.mountPath) "stdout" $values.accessLogVolume.enabled -}}
{{- $config := dict
  "cluster" "kubernetes"
  "controlPlaneAddr" (printf "%s://%s:18080" $scheme (include "nantian-gw.controlplane.host" .))
  "adminAddr" (printf "0.0.0.0:%d" (int $values.ports.admin))
  "adminAuth" (dict "bearerTokenFile" (default "/etc/nantian-gw/admin-auth/token" $values.adminAuth.bearerTokenFile))
  "sessionPersistence" (dict "secretKeyFile" "/etc/nantian-gw/session-persistence/session-persistence")
  "accessLog" (dict "enabled" true "path" $log)
  "runtimeTuning" (dict "drainMinAcceptMs" (int $values.drainMinAcceptMs) "gracefulDrainPeriodMs" (int $values.gracefulDrainPeriodMs))
  "xdsTls" (dict "enabled" false)
-}}
{{- if $values.xdsTLS.enabled -}}
{{- $_ := set $config "xdsTls" (dict "enabled" true
  "caPath" "/etc/nantian-gw/xds-tls/ca.crt"
  "certPath" "/etc/nantian-gw/xds-tls/tls.crt"
  "keyPath" "/etc/nantian-gw/xds-tls/tls.key"
  "domainName" (default (include "nantian-gw.controlplane.host" .) $values.xdsTLS.domainName)) -}}
{{- end -}}
{{- if $values.lastGoodVolume.enabled -}}
{{- $_ := set $config "lastGoodCache" (dict "enabled" true "path" "/var/lib/nantian-gw/last-good") -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy $values.config)) -}}
{{- end -}}

{{/* How the admin API is spoken to: `https` where dataplane.config.adminTls has both files. */}}
{{- define "nantian-gw.dataplane.adminScheme" -}}
{{- $tls := default dict .Values.dataplane.config.adminTls -}}
{{- ternary "https" "http" (and $tls.certPath $tls.keyPath | not | not) -}}
{{- end -}}

{{/* The pod of Deployment and DaemonSet. */}}
{{- define "nantian-gw.dataplane.pod" -}}
{{- $values := .Values.dataplane -}}
metadata:
  labels:
    {{- include "nantian-gw.podLabels" (list . "dataplane" $values.podLabels) | nindent 4 }}
  annotations:
    checksum/config: {{ include "nantian-gw.dataplane.config" . | sha256sum }}
    {{- with merge (deepCopy $values.podAnnotations) .Values.global.commonAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "nantian-gw.serviceAccount" (list . "dataplane") }}
  # It never speaks to the API server.
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
  {{- if $values.hostNetwork }}
  hostNetwork: true
  {{- end }}
  {{- if or $values.dnsPolicy $values.hostNetwork }}
  dnsPolicy: {{ default "ClusterFirstWithHostNet" $values.dnsPolicy }}
  {{- end }}
  securityContext:
    {{- if $values.hostNetwork }}
    {{- toYaml (omit $values.podSecurityContext "sysctls") | nindent 4 }}
    {{- else }}
    {{- toYaml $values.podSecurityContext | nindent 4 }}
    {{- end }}
  {{- with include "nantian-gw.podPlace" (list . "dataplane") | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  containers:
    - name: dataplane
      image: {{ include "nantian-gw.image" (list . $values.image) }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args:
        {{- toYaml (default (list "--config" "/etc/nantian-gw/config.yaml") $values.args) | nindent 8 }}
      env:
        - name: NANTIAN_GW_NODE_ID
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        # The zone of the pod, which Kubernetes 1.35 and later copy from its node.
        - name: NANTIAN_GW_ZONE
          valueFrom: {fieldRef: {fieldPath: "metadata.labels['topology.kubernetes.io/zone']"}}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: admin, containerPort: {{ $values.ports.admin }}, protocol: TCP}
      # Not /readyz: without a control plane a new pod waits for its first configuration, and starting
      # it again would not bring one.
      startupProbe:
        httpGet: {path: /livez, port: admin, scheme: {{ include "nantian-gw.dataplane.adminScheme" . | upper }}}
        {{- toYaml $values.probes.startup | nindent 8 }}
      livenessProbe:
        httpGet: {path: /livez, port: admin, scheme: {{ include "nantian-gw.dataplane.adminScheme" . | upper }}}
        {{- toYaml $values.probes.liveness | nindent 8 }}
      readinessProbe:
        httpGet: {path: /readyz, port: admin, scheme: {{ include "nantian-gw.dataplane.adminScheme" . | upper }}}
        {{- toYaml $values.probes.readiness | nindent 8 }}
      {{- if $values.preStopSleepSeconds }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ $values.preStopSleepSeconds }}}
      {{- end }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      securityContext:
        {{- toYaml $values.containerSecurityContext | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/nantian-gw, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        {{- with $values.accessLogVolume }}
        {{- if .enabled }}
        - {name: {{ .name }}, mountPath: {{ .mountPath }}}
        {{- end }}
        {{- end }}
        {{- if $values.lastGoodVolume.enabled }}
        - {name: last-good, mountPath: /var/lib/nantian-gw}
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      projected:
        defaultMode: 288 # 0440
        sources:
          - configMap: {name: {{ include "nantian-gw.fullname" . }}-dataplane-config}
          {{- if not $values.adminAuth.bearerTokenFile }}
          - secret:
              name: {{ include "nantian-gw.adminSecret" (list . "dataplane") }}
              items: [{key: {{ $values.adminAuth.secretKey }}, path: admin-auth/token}]
          {{- end }}
          - secret:
              name: {{ include "nantian-gw.sessionSecret" . }}
              items: [{key: {{ $values.sessionPersistence.secretKey }}, path: session-persistence/session-persistence}]
          {{- if $values.xdsTLS.enabled }}
          - secret:
              name: {{ include "nantian-gw.clientSecret" . }}
              items:
                - {key: tls.crt, path: xds-tls/tls.crt}
                - {key: tls.key, path: xds-tls/tls.key}
                - {key: ca.crt, path: xds-tls/ca.crt}
          {{- end }}
    - name: tmp
      emptyDir: {sizeLimit: 128Mi}
    {{- with $values.accessLogVolume }}
    {{- if .enabled }}
    - name: {{ .name }}
      emptyDir: {sizeLimit: {{ .sizeLimit }}}
    {{- end }}
    {{- end }}
    {{- with $values.lastGoodVolume }}
    {{- if .enabled }}
    - name: last-good
      emptyDir: {sizeLimit: {{ .sizeLimit }}}
    {{- end }}
    {{- end }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
