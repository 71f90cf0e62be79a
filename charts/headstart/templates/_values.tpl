{{/*
Values as the templates read them. Each template that is rendered includes "headstart.values" first; it works once.

* A value that is null, or that Helm removed because it was null, has its default again (files/defaults.yaml is
  values.yaml without comments). Not in maps that are handed to Kubernetes as they are: there null takes a key out.
* Values of the former provisioning service's chart that keep a meaning are put where ours are.
*/}}
{{- define "headstart.values" -}}
{{- if not (hasKey .Values "_complete") -}}
{{- $_ := include "headstart.restore" (dict "into" .Values "defaults" (.Files.Get "files/defaults.yaml" | fromYaml) "path" "") -}}
{{- include "headstart.former" . -}}
{{- $_ := set .Values "_complete" true -}}
{{- end -}}
{{- end -}}

{{/* Sets what is missing to its default. (dict into defaults path) */}}
{{- define "headstart.restore" -}}
{{- $handedOver := list ".podSecurityContext" ".containerSecurityContext" ".resources" ".dashboard.labels" ".nats.extraUsers" -}}
{{- range $key, $default := .defaults -}}
{{- $path := printf "%s.%s" $.path $key -}}
{{- $value := get $.into $key -}}
{{- if or (not (hasKey $.into $key)) (kindIs "invalid" $value) -}}
{{- $_ := set $.into $key (ternary $default (deepCopy $default) (kindIs "invalid" $default)) -}}
{{- else if and (kindIs "map" $default) (kindIs "map" $value) (not (has $path $handedOver)) -}}
{{- include "headstart.restore" (dict "into" $value "defaults" $default "path" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What keeps its meaning of the former chart. What does not is in files/former-values.yaml. */}}
{{- define "headstart.former" -}}
{{- $values := .Values -}}
{{- range $component := list "api" "dispatcher" "controller" "worker" "prefill" "registerConsumers" -}}
{{- $own := get $values $component -}}
{{- range $key := list "extraEnvVars" "extraVolumes" "extraVolumeMounts" -}}
{{- $_ := set $own $key (concat (get $values $key | default list) (get $own $key)) -}}
{{- end -}}
{{- with $values.terminationGracePeriodSeconds -}}
{{- $_ := set $own "terminationGracePeriodSeconds" . -}}
{{- end -}}
{{- with dig "nats" "auth" "existingSecret" "keyMapping" dict $own -}}
{{- if not .password -}}
{{- $_ := set . "password" (.provisioningApiPassword | default .prefillPassword | default "") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $nats := $values.nats -}}
{{- $connection := $nats.connection | default dict -}}
{{- $everywhere := dig "nats" "connection" dict $values.global -}}
{{- $host := $connection.host | default (get $everywhere "host") -}}
{{- $port := $connection.port | default (get $everywhere "port") | default 4222 -}}
{{- if and $host (not $nats.bundled) (not $nats.url) -}}
{{- $_ := set $nats "url" (printf "%s://%s:%v" (ternary "tls" "nats" $nats.tls.enabled) (tpl $host .) $port) -}}
{{- end -}}
{{- with dig "extraConfig" "max_payload" "" $nats.config -}}
{{- $_ := set $nats.config "maxPayload" (include "headstart.text" .) -}}
{{- end -}}
{{- with dig "jetstream" "fileStorage" "pvc" dict $nats.config -}}
{{- $_ := set $nats.persistence "size" (.size | default $nats.persistence.size) -}}
{{- $_ := set $nats.persistence "storageClassName" (.storageClassName | default $nats.persistence.storageClassName) -}}
{{- end -}}
{{- $_ := unset $nats.affinity "enabled" -}}
{{- $variables := list -}}
{{- range $nats.extraEnvVars -}}
{{- $ref := dig "valueFrom" "secretKeyRef" dict . -}}
{{- if or (not $ref) $ref.name -}}
{{- $variables = append $variables . -}}
{{- end -}}
{{- end -}}
{{- $_ := set $nats "extraEnvVars" $variables -}}
{{- end -}}

{{/* The former chart's values that are set and have no effect, as lines "key: what to use instead". */}}
{{- define "headstart.formerWithoutEffect" -}}
{{- range $path, $instead := .Files.Get "files/former-values.yaml" | fromYaml }}
{{- $value := $.Values }}
{{- range $key := splitList "." $path }}
{{- $value = ternary (get (ternary $value dict (kindIs "map" $value)) $key) "" (kindIs "map" $value) }}
{{- end }}
{{- if $value }}
  {{ $path }}: {{ $instead }}
{{- end }}
{{- end }}
{{- end -}}
