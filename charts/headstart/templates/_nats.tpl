{{/* NATS: address, users, certificates. */}}

{{- define "headstart.natsUrl" -}}
{{- if .Values.nats.bundled -}}
{{ ternary "tls" "nats" .Values.nats.tls.enabled }}://{{ include "headstart.fullname" . }}-nats:4222
{{- else -}}
{{- required "nats.url must be set when nats.bundled is false: the address of a NATS 2.12.3 or newer with JetStream" .Values.nats.url -}}
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

{{/*
Bytes of a quantity of Kubernetes (10Gi) or a size of NATS (9GiB, 9GB; both 1024³). (dict value name: the setting)
*/}}
{{- define "headstart.bytes" -}}
{{- $text := include "headstart.text" .value -}}
{{- $number := regexFind "^([0-9]+([.][0-9]*)?|[.][0-9]+)" $text -}}
{{- $unit := trimPrefix $number $text -}}
{{- $factors := dict "" 1 "k" 1e3 "K" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "KB" 1024 "MB" 1048576 "GB" 1073741824 "TB" 1099511627776 "KiB" 1024 "MiB" 1048576 "GiB" 1073741824 "TiB" 1099511627776 "B" 1 -}}
{{- if or (not $number) (not (hasKey $factors $unit)) -}}
{{- fail (printf "%s: %q is no size; write it like 10Gi" .name $text) -}}
{{- end -}}
{{- mulf (float64 $number) (get $factors $unit | float64) | floor | int64 -}}
{{- end -}}

{{/* Bytes that JetStream of the bundled server may use: as set, else nine tenths of the volume; a file system takes its part. */}}
{{- define "headstart.fileStore" -}}
{{- $size := include "headstart.bytes" (dict "value" .Values.nats.persistence.size "name" "nats.persistence.size") | int64 -}}
{{- with .Values.nats.config.maxFileStore -}}
{{- $given := include "headstart.bytes" (dict "value" . "name" "nats.config.maxFileStore") | int64 -}}
{{- if gt $given $size -}}
{{- fail (printf "nats.config.maxFileStore: %s is more than the volume holds (nats.persistence.size: %s)" (include "headstart.text" .) (include "headstart.text" $.Values.nats.persistence.size)) -}}
{{- end -}}
{{- $given -}}
{{- else -}}
{{- mulf (float64 $size) 0.9 | floor | int64 -}}
{{- end -}}
{{- end -}}

{{/*
A limit in bytes: as given; else, with the bundled server, a share of its store; 0 and a NATS of one's own: none.
(dict root given share)
*/}}
{{- define "headstart.maxBytes" -}}
{{- if not (kindIs "string" .given) -}}
{{- with int64 .given }}{{ . }}{{ end -}}
{{- else if .root.Values.nats.bundled -}}
{{- mulf (include "headstart.fileStore" .root | float64) .share | floor | int64 -}}
{{- end -}}
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
  # Left to the server, it would be three quarters of what is free at each start, with what is stored counted against it.
  max_file_store: {{ include "headstart.fileStore" . }}
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
