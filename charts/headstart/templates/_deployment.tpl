{{/*
A Deployment of our own binary.
(dict root component config env passwords [port] [scheme] [token] [template: mount the Job template])
*/}}
{{- define "headstart.deployment" -}}
{{- $values := get .root.Values .component -}}
{{- $annotations := dict "checksum/passwords" (include "headstart.passwordsChecksum" .passwords) -}}
{{- if .template -}}
{{- $_ := set $annotations "checksum/job-template" (include "headstart.jobTemplate" .root | sha256sum) -}}
{{- end -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "headstart.fullname" .root }}-{{ .component }}
  {{- include "headstart.metadata" . | nindent 2 }}
spec:
  replicas: {{ get .root.Values.replicaCount .component | int64 }}
  selector:
    matchLabels:
      {{- include "headstart.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      {{- include "headstart.podMetadata" (merge (dict "annotations" $annotations) .) | nindent 6 }}
    spec:
      {{- include "headstart.pod" . | nindent 6 }}
      containers:
        - name: {{ .component }}
          {{- include "headstart.container" . | nindent 10 }}
          args: [{{ .component }}]
          env:
            {{- include "headstart.env" . | nindent 12 }}
            {{- .env | nindent 12 }}
            {{- with $values.extraEnvVars }}
            {{- tpl (toYaml .) $.root | nindent 12 }}
            {{- end }}
          ports:
            - name: http
              containerPort: {{ .port | default 8080 | int64 }}
          {{- include "headstart.probes" (dict "root" .root "scheme" (.scheme | default "HTTP")) | nindent 10 }}
          volumeMounts:
            {{- include "headstart.fileMounts" . | trim | nindent 12 }}
            {{- if .template }}
            - name: job-template
              mountPath: /etc/headstart/template
              readOnly: true
            {{- end }}
            {{- with $values.extraVolumeMounts }}
            {{- tpl (toYaml .) $.root | nindent 12 }}
            {{- end }}
      volumes:
        {{- include "headstart.fileVolumes" . | trim | nindent 8 }}
        {{- if .template }}
        - name: job-template
          configMap:
            name: {{ include "headstart.fullname" .root }}-job-template
        {{- end }}
        {{- with $values.extraVolumes }}
        {{- tpl (toYaml .) $.root | nindent 8 }}
        {{- end }}
{{ end -}}

{{/* Environment of those that make, show and keep queues. */}}
{{- define "headstart.queueEnv" -}}
{{- with .Values.limits.queue -}}
- name: QUEUE_MAX_MESSAGES
  value: {{ .maxMessages | int64 | quote }}
{{- with include "headstart.maxBytes" (dict "root" $ "given" .maxBytes "share" 0.1) }}
- name: QUEUE_MAX_BYTES
  value: {{ . | quote }}
{{- end }}
{{- with .maxAgeSeconds }}
- name: QUEUE_MAX_AGE
  value: {{ int64 . | quote }}
{{- end }}
- name: QUEUE_WHEN_FULL
  value: {{ .whenFull }}
{{- end }}
{{- end -}}

{{/* Environment of those that make Jobs. */}}
{{- define "headstart.jobEnv" -}}
- name: JOB_TEMPLATE
  value: /etc/headstart/template/job.yaml
# Jobs are made at run time; they go away with what Helm made.
- name: JOB_OWNER
  value: {{ include "headstart.fullname" . }}-job-template
- name: NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- end -}}
