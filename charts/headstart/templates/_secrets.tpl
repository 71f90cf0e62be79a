{{/* Passwords: an existing Secret, a value, or one that is generated once. */}}

{{/* A password for one of our Secrets. (dict root secret password) */}}
{{- define "headstart.password" -}}
{{- $old := lookup "v1" "Secret" .root.Release.Namespace .secret | default dict -}}
{{- $kept := get ($old.data | default dict) "password" | b64dec -}}
{{- .password | default $kept | default (randAlphaNum 32) -}}
{{- end -}}

{{/* A reference to a password. (dict root auth secret: the name of ours) */}}
{{- define "headstart.passwordRef" -}}
secretKeyRef:
  {{- if .auth.existingSecret.name }}
  name: {{ tpl .auth.existingSecret.name .root }}
  key: {{ .auth.existingSecret.keyMapping.password | default "password" }}
  {{- else }}
  name: {{ .secret }}
  key: password
  {{- end }}
{{- end -}}

{{/* Our Secret with one password, unless there is an existing one. (dict root component auth secret) */}}
{{- define "headstart.passwordSecret" -}}
{{- if not .auth.existingSecret.name }}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ .secret }}
  {{- include "headstart.metadata" . | nindent 2 }}
type: Opaque
data:
  password: {{ include "headstart.password" (dict "root" .root "secret" .secret "password" .auth.password) | b64enc }}
{{- end }}
{{- end -}}

{{/*
Changes when a password among these values does, so that pods start anew. Four digits: enough to notice nearly every
change, too few to try passwords against.
*/}}
{{- define "headstart.passwordsChecksum" -}}
{{- toJson . | sha256sum | trunc 4 -}}
{{- end -}}
