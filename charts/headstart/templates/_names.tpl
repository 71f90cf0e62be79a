{{/* Names, labels and annotations. */}}

{{- define "headstart.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Cut to 40 letters, so that every name made from it stays a DNS label. */}}
{{- define "headstart.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "headstart.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "headstart.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of a component. (dict root component) */}}
{{- define "headstart.selectorLabels" -}}
app.kubernetes.io/name: {{ include "headstart.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ kebabcase .component }}
{{- end -}}

{{/* Labels of a pod: without versions, so that a new chart alone starts no pod anew. (dict root component [managedBy]) */}}
{{- define "headstart.podLabels" -}}
{{ include "headstart.selectorLabels" . }}
app.kubernetes.io/part-of: headstart
app.kubernetes.io/managed-by: {{ .managedBy | default .root.Release.Service }}
{{- $own := (get .root.Values .component | default dict).additionalLabels | default dict }}
{{- with merge (dict) $own .root.Values.additionalLabels }}
{{ tpl (toYaml .) $.root }}
{{- end }}
{{- end -}}

{{/* Labels of an object. (dict root component [managedBy]) */}}
{{- define "headstart.labels" -}}
{{ include "headstart.podLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- if not .managedBy }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}
{{- end -}}

{{/* Annotations of an object: of all, and of those of its component. (dict root component) */}}
{{- define "headstart.annotations" -}}
{{- $own := (get .root.Values .component | default dict).additionalAnnotations | default dict -}}
{{- with merge (dict) $own .root.Values.additionalAnnotations -}}
{{- tpl (toYaml .) $.root -}}
{{- end -}}
{{- end -}}

{{/* Labels and annotations of an object's metadata. (dict root component) */}}
{{- define "headstart.metadata" -}}
labels:
  {{- include "headstart.labels" . | nindent 2 }}
{{- with include "headstart.annotations" . }}
annotations:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "headstart.serviceAccountName" -}}
{{- get .root.Values.serviceAccount.names .component | default (printf "%s-%s" (include "headstart.fullname" .root) (kebabcase .component)) -}}
{{- end -}}

{{/* The components that run with this launcher, with spaces between them. The prefill runs in Jobs. */}}
{{- define "headstart.components" -}}
{{- if eq .Values.launcher "kubernetes" -}}
api dispatcher controller prefill
{{- else -}}
api dispatcher controller worker
{{- end -}}
{{- end -}}
