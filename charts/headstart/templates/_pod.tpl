{{/* Parts of pods: the same for Deployments, for NATS and for the template of the prefill Jobs. */}}

{{/* (dict root image defaultTag) */}}
{{- define "headstart.image" -}}
{{- $registry := .image.registry | default .root.Values.global.imageRegistry -}}
{{- $tag := .image.tag | default .defaultTag -}}
{{- if $registry }}{{ trimSuffix "/" $registry }}/{{ end -}}
{{- .image.repository }}:{{ $tag }}
{{- if .image.digest }}@{{ .image.digest }}{{ end -}}
{{- end -}}

{{/* Where a pod runs: a component's value, or the one of the same name at the top. (dict root component [moreTolerations]) */}}
{{- define "headstart.scheduling" -}}
{{- $values := get .root.Values .component -}}
{{- $found := dict -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" -}}
{{- $_ := set $found $key (get $values $key | default (get $.root.Values $key)) -}}
{{- end -}}
{{- with .moreTolerations -}}
{{- $_ := set $found "tolerations" (concat ($found.tolerations | default list) .) -}}
{{- end -}}
{{- range $key, $value := $found }}
{{- if $value }}
{{ tpl (toYaml (dict $key $value)) $.root }}
{{- end }}
{{- end }}
{{- end -}}

{{/* All of a pod but its containers and volumes. (dict root component [token] [moreTolerations]) */}}
{{- define "headstart.pod" -}}
{{- $values := get .root.Values .component -}}
serviceAccountName: {{ include "headstart.serviceAccountName" . }}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
{{- $grace := int64 $values.terminationGracePeriodSeconds }}
{{- if eq .component "api" }}
{{- /* Requests are taken for the delay, and those under way have 20 s after that. */}}
{{- $grace = max $grace (add (int64 $values.config.shutdownDelaySeconds) 25) }}
{{- end }}
terminationGracePeriodSeconds: {{ $grace }}
{{- with concat .root.Values.global.imagePullSecrets .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ if kindIs "map" . }}{{ .name }}{{ else }}{{ . }}{{ end }}
  {{- end }}
{{- end }}
{{- if .root.Values.podSecurityContext.enabled }}
securityContext:
  {{- omit .root.Values.podSecurityContext "enabled" "sysctls" | toYaml | nindent 2 }}
{{- end }}
{{- include "headstart.scheduling" . }}
{{- end -}}

{{/* Image, security and resources of a container. (dict root component image defaultTag) */}}
{{- define "headstart.container" -}}
{{- $image := .image | default .root.Values.image -}}
image: {{ include "headstart.image" (dict "root" .root "image" $image "defaultTag" .root.Chart.AppVersion) }}
{{- with ($image.pullPolicy | default .root.Values.global.imagePullPolicy) }}
imagePullPolicy: {{ . }}
{{- end }}
{{- if .root.Values.containerSecurityContext.enabled }}
securityContext:
  {{- $context := omit .root.Values.containerSecurityContext "enabled" }}
  {{- if empty $context.seLinuxOptions }}
  {{- $context = omit $context "seLinuxOptions" }}
  {{- end }}
  {{- toYaml $context | nindent 2 }}
{{- end }}
resources:
  {{- $resources := deepCopy (get .root.Values.resources .component) }}
  {{- range $kind := list "requests" "limits" }}
  {{- range $name, $quantity := get $resources $kind }}
  {{- /* A number is a quantity, too; in the template of the Jobs it has to be text. */}}
  {{- $_ := set (get $resources $kind) $name (include "headstart.text" $quantity) }}
  {{- end }}
  {{- end }}
  {{- toYaml $resources | nindent 2 }}
{{- end -}}

{{/* Labels and annotations of a pod. (dict root component [managedBy] [annotations]) */}}
{{- define "headstart.podMetadata" -}}
{{- $values := get .root.Values .component -}}
labels:
  {{- include "headstart.podLabels" . | nindent 2 }}
  {{- with merge (dict) ($values.podLabels | default dict) (.root.Values.podLabels | default dict) }}
  {{- tpl (toYaml .) $.root | nindent 2 }}
  {{- end }}
{{- with merge (dict) $values.podAnnotations (.annotations | default dict) (.root.Values.podAnnotations | default dict) ($values.additionalAnnotations | default dict) .root.Values.additionalAnnotations }}
annotations:
  {{- tpl (toYaml .) $.root | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Environment that every component has. (dict root component config) */}}
{{- define "headstart.env" -}}
- name: LOG_LEVEL
  value: {{ .config.LOG_LEVEL | quote }}
- name: LOG_FORMAT
  value: json
- name: NATS_URL
  value: {{ include "headstart.natsUrl" .root | quote }}
- name: NATS_USER
  value: {{ include "headstart.natsUser" . | quote }}
{{ include "headstart.fileEnv" . | trim }}
{{- end -}}

{{/* Where prefills read. */}}
{{- define "headstart.sourceEnv" -}}
{{- $config := .Values.prefill.config -}}
{{- $auth := .Values.prefill.udm.auth -}}
- name: SOURCE
  value: {{ include "headstart.source" . | quote }}
{{- if include "headstart.sourceIsUdm" . }}
- name: UDM_USERNAME
  {{- if and $auth.existingSecret.name $auth.existingSecret.keyMapping.username }}
  valueFrom:
    secretKeyRef:
      name: {{ tpl $auth.existingSecret.name . }}
      key: {{ $auth.existingSecret.keyMapping.username }}
  {{- else }}
  value: {{ $auth.username | quote }}
  {{- end }}
{{- end }}
- name: UDM_CONCURRENCY
  value: {{ $config.udmConcurrency | int64 | quote }}
- name: UDM_READS_PRIMARY
  value: {{ $config.udmReadsPrimary | quote }}
- name: UDM_LAG_SECONDS
  value: {{ $config.udmLagSeconds | int64 | quote }}
- name: MAX_REMOVALS_PERCENT
  value: {{ $config.maxRemovals.percent | int64 | quote }}
- name: MAX_REMOVALS_OBJECTS
  value: {{ $config.maxRemovals.objects | int64 | quote }}
- name: UDM_MISSING_TYPES
  value: {{ $config.udmMissingTypes }}
- name: UDM_MISSING_SECONDS
  value: {{ $config.udmMissingSeconds | int64 | quote }}
- name: UDM_BROKEN_OBJECTS
  value: {{ $config.udmBrokenObjects }}
- name: UDM_AWAY_SECONDS
  value: {{ $config.udmAwaySeconds | int64 | quote }}
- name: UDM_REFUSED_SECONDS
  value: {{ $config.udmRefusedSeconds | int64 | quote }}
{{- end -}}

{{- define "headstart.source" -}}
{{- with .Values.prefill.config -}}
{{- if .SOURCE -}}
{{- tpl .SOURCE $ -}}
{{- else -}}
{{- $host := tpl .UDM_HOST $ | default (printf "%s-udm-rest-api" $.Release.Name) -}}
{{- printf "%s://%s:%d%s/udm/" .UDM_PROTOCOL $host (int64 .UDM_PORT) (trimSuffix "/" .UDM_URL_PATH_PREFIX) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Not empty if the source is UDM, not a path. */}}
{{- define "headstart.sourceIsUdm" -}}
{{- if regexMatch "^https?://" (include "headstart.source" .) }}true{{ end -}}
{{- end -}}

{{/* The port of the source, if it is UDM. */}}
{{- define "headstart.sourcePort" -}}
{{- $url := include "headstart.source" . | urlParse -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end -}}

{{/* A number or a text as text: whole numbers without an exponent. */}}
{{- define "headstart.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{- define "headstart.probeTimes" -}}
{{- range $key := list "failureThreshold" "initialDelaySeconds" "periodSeconds" "successThreshold" "timeoutSeconds" }}
{{- if hasKey $ $key }}
{{ $key }}: {{ get $ $key | int64 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Probes of our own binary. (dict root scheme) */}}
{{- define "headstart.probes" -}}
livenessProbe:
  httpGet:
    path: /healthz
    port: http
    scheme: {{ .scheme }}
  {{- include "headstart.probeTimes" .root.Values.livenessProbe | trim | nindent 2 }}
readinessProbe:
  httpGet:
    path: /readyz
    port: http
    scheme: {{ .scheme }}
  {{- include "headstart.probeTimes" .root.Values.readinessProbe | trim | nindent 2 }}
{{- end -}}
