{{/*
Secrets as mounted files: passwords, certificates and authorities. One table says which component needs which; from it
come the environment, the mounts and the volumes. Files, not variables, so that a change is seen without a restart.
*/}}

{{/* The root for names of files. */}}
{{- define "headstart.filesRoot" -}}/etc/headstart/secrets{{- end -}}

{{/* One file group of a password. (dict root name env auth secret) */}}
{{- define "headstart.passwordFile" -}}
{{- $existing := .auth.existingSecret -}}
{{- $secret := ternary (tpl $existing.name .root) .secret (not (empty $existing.name)) -}}
{{- $key := ternary ($existing.keyMapping.password | default "password") "password" (not (empty $existing.name)) -}}
{{- dict "name" .name "secret" $secret "items" (dict $key "password") "env" (dict .env "password") | toJson -}}
{{- end -}}

{{/* The table, as JSON: [{name, secret, items: {key: path}, env: {variable: path}}]. (dict root component) */}}
{{- define "headstart.files" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $fullname := include "headstart.fullname" $root -}}
{{- $files := list -}}
{{- if ne .component "registerConsumers" -}}
{{- $auth := (get $values .component).nats.auth -}}
{{- $files = append $files (include "headstart.passwordFile" (dict "root" $root "name" "nats" "env" "NATS_PASSWORD_FILE" "auth" $auth "secret" (include "headstart.natsSecret" .)) | fromJson) -}}
{{- $tls := $values.nats.tls -}}
{{- if $tls.enabled -}}
{{- $ca := include "headstart.natsAuthorities" $root | fromJson -}}
{{- if $ca.secret -}}
{{- $files = append $files (dict "name" "nats-ca" "secret" $ca.secret "items" (dict $ca.key "ca.crt") "env" (dict "NATS_CA_FILE" "ca.crt")) -}}
{{- end -}}
{{- with $tls.client.existingSecret -}}
{{- if .name -}}
{{- $files = append $files (dict "name" "nats-client" "secret" (tpl .name $root) "items" (dict (.keyMapping.certificate | default "tls.crt") "tls.crt" (.keyMapping.key | default "tls.key") "tls.key") "env" (dict "NATS_CLIENT_CERT_FILE" "tls.crt" "NATS_CLIENT_KEY_FILE" "tls.key")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if has .component (list "api" "registerConsumers") -}}
{{- $files = append $files (include "headstart.passwordFile" (dict "root" $root "name" "admin" "env" "ADMIN_PASSWORD_FILE" "auth" $values.api.auth.admin "secret" (printf "%s-api-admin" $fullname)) | fromJson) -}}
{{- end -}}
{{- if eq .component "api" -}}
{{- $files = append $files (include "headstart.passwordFile" (dict "root" $root "name" "events" "env" "EVENTS_PASSWORD_UDM_FILE" "auth" $values.api.auth.eventsUdm "secret" (printf "%s-api-events" $fullname)) | fromJson) -}}
{{- $files = append $files (include "headstart.passwordFile" (dict "root" $root "name" "prefill" "env" "PREFILL_PASSWORD_FILE" "auth" $values.api.auth.prefill "secret" (printf "%s-api-prefill" $fullname)) | fromJson) -}}
{{- with $values.api.tls -}}
{{- if .enabled -}}
{{- $secret := required "api.tls.existingSecret.name: the Secret with the API's certificate and key" .existingSecret.name -}}
{{- $files = append $files (dict "name" "tls" "secret" (tpl $secret $root) "items" (dict (.existingSecret.keyMapping.certificate | default "tls.crt") "tls.crt" (.existingSecret.keyMapping.key | default "tls.key") "tls.key") "env" (dict "TLS_CERT_FILE" "tls.crt" "TLS_KEY_FILE" "tls.key")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $readsUdm := has .component (list "prefill" "worker") -}}
{{- if and (eq .component "registerConsumers") $values.registerConsumers.waitForUdmObject -}}
{{- $readsUdm = true -}}
{{- end -}}
{{- if and $readsUdm (include "headstart.sourceIsUdm" $root) -}}
{{- $udm := $values.prefill.udm -}}
{{- $existing := $udm.auth.existingSecret -}}
{{- if and $existing.name $existing.keyMapping.token -}}
{{- $files = append $files (dict "name" "udm" "secret" (tpl $existing.name $root) "items" (dict $existing.keyMapping.token "token") "env" (dict "UDM_TOKEN_FILE" "token")) -}}
{{- else -}}
{{- $files = append $files (include "headstart.passwordFile" (dict "root" $root "name" "udm" "env" "UDM_PASSWORD_FILE" "auth" $udm.auth "secret" (printf "%s-prefill-udm" $fullname)) | fromJson) -}}
{{- end -}}
{{- with $udm.ca.existingSecret -}}
{{- if .name -}}
{{- $files = append $files (dict "name" "udm-ca" "secret" (tpl .name $root) "items" (dict (.keyMapping.certificate | default "ca.crt") "ca.crt") "env" (dict "UDM_CA_FILE" "ca.crt")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $files | toJson -}}
{{- end -}}

{{/* (dict root component) */}}
{{- define "headstart.fileEnv" -}}
{{- range $file := include "headstart.files" . | fromJsonArray }}
{{- range $variable, $path := $file.env }}
- name: {{ $variable }}
  value: {{ include "headstart.filesRoot" $ }}/{{ $file.name }}/{{ $path }}
{{- end }}
{{- end }}
{{- end -}}

{{/* (dict root component) */}}
{{- define "headstart.fileMounts" -}}
{{- range $file := include "headstart.files" . | fromJsonArray }}
- name: secret-{{ $file.name }}
  mountPath: {{ include "headstart.filesRoot" $ }}/{{ $file.name }}
  readOnly: true
{{- end }}
{{- end -}}

{{/* (dict root component) */}}
{{- define "headstart.fileVolumes" -}}
{{- range $file := include "headstart.files" . | fromJsonArray }}
- name: secret-{{ $file.name }}
  secret:
    secretName: {{ $file.secret }}
    items:
      {{- range $key, $path := $file.items }}
      - key: {{ $key | quote }}
        path: {{ $path }}
      {{- end }}
{{- end }}
{{- end -}}
