{{/* NATS: address, users. */}}

{{- define "headstart.natsUrl" -}}
{{- if .Values.nats.bundled -}}
nats://{{ include "headstart.fullname" . }}-nats:4222
{{- else -}}
{{- required "nats.url must be set when nats.bundled is false: the address of a NATS 2.12 or newer with JetStream" .Values.nats.url -}}
{{- end -}}
{{- end -}}

{{/* (dict root component) */}}
{{- define "headstart.natsUser" -}}
{{- (get .root.Values .component).nats.auth.username | default .component -}}
{{- end -}}

{{/* Name of our Secret with a component's NATS password. (dict root component) */}}
{{- define "headstart.natsSecret" -}}
{{- include "headstart.fullname" .root }}-nats-{{ .component -}}
{{- end -}}

{{/* The server's configuration. Passwords come from its environment. */}}
{{- define "headstart.natsConfig" -}}
{{- $permissions := .Files.Get "files/nats-permissions.yaml" | fromYaml -}}
server_name: {{ include "headstart.fullname" . }}-nats-0
port: 4222
http: 8222
max_payload: {{ .Values.nats.config.maxPayload }}
jetstream {
  store_dir: /data
  # What is acknowledged is on the disk.
  sync_interval: {{ .Values.nats.config.syncInterval | quote }}
  {{- with .Values.nats.config.maxFileStore }}
  max_file_store: {{ . }}
  {{- end }}
}
authorization {
  users: [
    {{- range $component := splitList " " (include "headstart.components" .) }}
    {
      user: {{ include "headstart.natsUser" (dict "root" $ "component" $component) | quote }}
      password: $NATS_PASSWORD_{{ upper $component }}
      permissions: {
        {{- range $direction, $rules := get $permissions $component }}
        {{ $direction }}: {
          {{- range $verb, $subjects := $rules }}
          {{ $verb }}: [
            {{- range $subjects }}
            {{ . | squote }}
            {{- end }}
          ]
          {{- end }}
        }
        {{- end }}
      }
    }
    {{- end }}
  ]
}
{{ end -}}
