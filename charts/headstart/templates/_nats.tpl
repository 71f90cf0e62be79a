{{/* NATS: address, users, certificates. */}}

{{- define "headstart.natsUrl" -}}
{{- if .Values.nats.bundled -}}
{{ ternary "tls" "nats" .Values.nats.tls.enabled }}://{{ include "headstart.fullname" . }}-nats:4222
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

{{/*
Where the authorities of NATS' certificate stand, as JSON {secret, key}: a Secret that was named, else that of the
bundled server; an empty name where the system's authorities are to be trusted.
*/}}
{{- define "headstart.natsAuthorities" -}}
{{- $tls := .Values.nats.tls -}}
{{- $name := $tls.ca.existingSecret.name -}}
{{- if and (not $name) .Values.nats.bundled -}}
{{- $name = required "nats.tls.server.existingSecret.name: the Secret with the certificate and key of the bundled NATS server" $tls.server.existingSecret.name -}}
{{- end -}}
{{- dict "secret" (tpl $name .) "key" ($tls.ca.existingSecret.keyMapping.certificate | default "ca.crt") | toJson -}}
{{- end -}}

{{/*
All users of the bundled server, as JSON: [{variable, user, permissions, ref: {name, key}}]. Passwords come from the
server's environment.
*/}}
{{- define "headstart.natsUsers" -}}
{{- $users := list -}}
{{- $ours := .Files.Get "files/nats-permissions.yaml" | fromYaml -}}
{{- range $component := splitList " " (include "headstart.components" .) -}}
{{- $scope := dict "root" $ "component" $component -}}
{{- $auth := (get $.Values $component).nats.auth -}}
{{- $users = append $users (dict
  "variable" (upper $component)
  "user" (include "headstart.natsUser" $scope)
  "permissions" (get $ours $component)
  "ref" (include "headstart.passwordRef" (dict "root" $ "auth" $auth "secret" (include "headstart.natsSecret" $scope)) | fromYaml)) -}}
{{- end -}}
{{- $known := .Files.Get "files/nats-extra-permissions.yaml" | fromYaml -}}
{{- range $key, $user := .Values.nats.extraUsers -}}
{{- if $user.enabled -}}
{{- $permissions := $user.permissions | default (get $known $key) -}}
{{- if not $permissions -}}
{{- fail (printf "nats.extraUsers.%s.permissions: say what this user may publish and subscribe" $key) -}}
{{- end -}}
{{- $users = append $users (dict
  "variable" (printf "EXTRA_%s" (upper $key))
  "user" ($user.auth.username | default (kebabcase $key))
  "permissions" $permissions
  "ref" (include "headstart.passwordRef" (dict "root" $ "auth" (merge (dict) $user.auth (dict "existingSecret" (dict "name" "" "keyMapping" dict))) "secret" (printf "%s-nats-%s" (include "headstart.fullname" $) (kebabcase $key))) | fromYaml)) -}}
{{- end -}}
{{- end -}}
{{- $users | toJson -}}
{{- end -}}

{{/* The server's configuration. */}}
{{- define "headstart.natsConfig" -}}
server_name: {{ include "headstart.fullname" . }}-nats-0
port: 4222
http: 8222
max_payload: {{ .Values.nats.config.maxPayload }}
{{- if .Values.nats.tls.enabled }}
tls {
  cert_file: /etc/nats-tls/tls.crt
  key_file: /etc/nats-tls/tls.key
  {{- if .Values.nats.tls.client.existingSecret.name }}
  # Clients have to show a certificate of these authorities, and their password.
  ca_file: /etc/nats-tls/ca.crt
  verify: true
  {{- end }}
}
{{- end }}
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
    {{- range $user := include "headstart.natsUsers" . | fromJsonArray }}
    {
      user: {{ $user.user | quote }}
      password: $NATS_PASSWORD_{{ $user.variable }}
      permissions: {
        {{- range $direction, $rules := $user.permissions }}
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
